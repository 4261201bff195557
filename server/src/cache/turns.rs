//! Turns at a grant that rotates: on one replica, one flight at a time.
//!
//! The store's lease cannot see to that alone. It lapses while the store is down, but the flight that holds the new
//! refresh token is still trying to store it: whoever sent the old one meanwhile would end the whole family.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::types::CredentialName;

/// The queues of the credentials. There are no more than are configured.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<CredentialName, Arc<tokio::sync::Mutex<()>>>>);

/// The right to use a grant on this replica. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits, first come, first served, until nobody else on this replica uses the grant of `credential`. Cancel-safe:
    /// who stops waiting loses its place.
    pub async fn take(&self, credential: &CredentialName) -> Turn {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(queues.entry(credential.clone()).or_default())
        };
        Turn { _guard: queue.lock_owned().await }
    }
}
