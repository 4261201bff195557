//! A file that always holds a valid token.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use tokencache_client::{Client, Selector, Token, TokenSource};
use tokio::sync::watch;

use crate::failure::Failure;

/// Removed when it is dropped: what is in it would only grow stale.
#[derive(Debug)]
pub(super) struct RefreshFile {
    path: PathBuf,
    source: TokenSource,
    tokens: watch::Receiver<Option<Token>>,
}

impl RefreshFile {
    pub(super) fn new(client: &Client, selector: Selector, path: &Path) -> Self {
        let (sender, tokens) = watch::channel(None);
        let keep = move |token: &Token| sender.send_modify(|held| *held = Some(token.clone()));
        Self { path: path.to_owned(), source: client.source_builder(selector).on_token(keep).build(), tokens }
    }

    pub(super) fn source(&self) -> &TokenSource {
        &self.source
    }

    /// Waits for the next token and writes it; if that fails, the same one is the next. Cancel-safe.
    pub(super) async fn write_next(&mut self) -> Result<(), Failure> {
        // The sender lives as long as the source, which is ours.
        let _ = self.tokens.changed().await;
        let token = self.tokens.borrow_and_update().clone();
        let Some(token) = token else { return Ok(()) };
        self.write(&token).inspect_err(|_| self.tokens.mark_changed())
    }

    /// Replaces the file at once: who reads it sees the one token or the other.
    fn write(&self, token: &Token) -> Result<(), Failure> {
        let cannot = |error: std::io::Error| {
            let path = self.path.display();
            Failure::Other(format!("cannot write the token to {path}: {error}; choose another --refresh-file"), 1)
        };
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Such a file has mode 0600.
        let builder = tempfile::Builder::new().prefix(".tokencache-").tempfile_in(directory.unwrap_or(Path::new(".")));
        let mut file = builder.map_err(cannot)?;
        file.write_all(token.access_token.expose().as_bytes()).map_err(cannot)?;
        file.persist(&self.path).map_err(|error| cannot(error.error))?;
        Ok(())
    }
}

impl Drop for RefreshFile {
    fn drop(&mut self) {
        // If it is gone already, all is well.
        let _ = fs::remove_file(&self.path);
    }
}
