//! What an earlier process has left for the store.

use std::{fs, path::Path};

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::STORE_RETRY;
use crate::{
    error::{ErrorKind, Result},
    lifecycle::Shutdown,
    store::{
        SharedStore, Write,
        spill::{Spill, Spilt},
    },
};

/// Stores what was spilled, and removes the files. One that cannot be read stays, and is told of: it may hold the only
/// copy of a refresh token.
pub(super) async fn replay(spill: &Spill, store: &SharedStore, shutdown: &Shutdown) {
    let files = spill.files().unwrap_or_else(|error| {
        error!(directory = %spill.directory().display(), %error, "spilled tokens cannot be looked for");
        vec![]
    });
    for file in files {
        match spill.read(&file) {
            Ok(spilt) => replay_file(&file, spilt, store, shutdown).await,
            Err(error) => error!(file = %file.display(), %error, "spilled tokens cannot be read; the file is left"),
        }
    }
}

async fn replay_file(file: &Path, spilt: Spilt, store: &SharedStore, shutdown: &Shutdown) {
    let Spilt { writes, mut left } = spilt;
    for write in &writes {
        while let Err(error) = take(write, store).await {
            // It is stored by the start that knows its credential again.
            if error.kind() == ErrorKind::NoSuchCredential {
                left.push(error.to_string());
                break;
            }
            warn!(credential = %write.credential(), %error, "what was spilled is not stored yet; trying again");
            if shutdown.orderly.run_until_cancelled(sleep(STORE_RETRY)).await.is_none() {
                return;
            }
        }
    }
    if !left.is_empty() {
        error!(file = %file.display(), ?left, "not all that was spilled can be stored; the file is left");
        return;
    }
    match fs::remove_file(file) {
        Ok(()) => info!(file = %file.display(), writes = writes.len(), "stored what was spilled"),
        Err(error) => warn!(file = %file.display(), %error, "stored what was spilled, but the file is left"),
    }
}

async fn take(write: &Write, store: &SharedStore) -> Result<()> {
    match write {
        Write::Token(commit) => store.commit(commit.clone()).await.map(drop),
        Write::Grant(credential, update) => store.advance_grant(credential.clone(), update.clone()).await.map(drop),
    }
}
