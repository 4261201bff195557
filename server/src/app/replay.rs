//! What an earlier process has left for the store.

use std::{fs, path::Path};

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::STORE_RETRY;
use crate::{
    error::Result,
    lifecycle::Shutdown,
    store::{SharedStore, Write, spill::Spill},
};

/// Stores what was spilled, and removes the files. One that cannot be read stays, and is told of: it may hold the only
/// copy of a refresh token.
pub(super) async fn replay(spill: &Spill, store: &SharedStore, shutdown: &Shutdown) {
    let files = spill.files().unwrap_or_else(|error| {
        error!(directory = %spill.directory().display(), %error, "spilled tokens cannot be looked for");
        vec![]
    });
    for file in files {
        match Spill::read(&file) {
            Ok(writes) => replay_file(&file, &writes, store, shutdown).await,
            Err(error) => error!(file = %file.display(), %error, "spilled tokens cannot be read; the file is left"),
        }
    }
}

async fn replay_file(file: &Path, writes: &[Write], store: &SharedStore, shutdown: &Shutdown) {
    for write in writes {
        while let Err(error) = take(write, store).await {
            warn!(credential = %write.credential(), %error, "what was spilled is not stored yet; trying again");
            if shutdown.orderly.run_until_cancelled(sleep(STORE_RETRY)).await.is_none() {
                return;
            }
        }
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
