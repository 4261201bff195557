//! The way to the database, which all connections share: how one is made, and whether those that were made can be trusted.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::Instant;

use super::error::{PgStoreError, refuses_the_password};
use crate::{store::SharedPassword, types::Secret};

/// The shortest time between two readings of the password: its source may be a program.
const REREAD: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Route(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: PgConnectOptions,
    password: Option<SharedPassword>,
    /// The password as it was read last, and when.
    read: Mutex<Option<(Secret, Instant)>>,
    suspected: Mutex<Option<Instant>>,
}

impl Route {
    pub(super) fn new(options: PgConnectOptions, password: Option<SharedPassword>) -> Self {
        Self(Arc::new(Inner { options, password, read: Mutex::default(), suspected: Mutex::default() }))
    }

    /// Makes a connection. A password that is refused is read again, for it may have been changed.
    pub(super) async fn connect(&self) -> Result<PgConnection, PgStoreError> {
        let refused = match PgConnection::connect_with(&self.options().await?).await {
            Ok(connection) => return Ok(connection),
            Err(error) if refuses_the_password(&error) => error,
            Err(error) => return Err(PgStoreError::Connect(error)),
        };
        if !self.reread().await? {
            return Err(PgStoreError::Connect(refused));
        }
        PgConnection::connect_with(&self.options().await?).await.map_err(PgStoreError::Connect)
    }

    /// How a connection is made now.
    pub(super) async fn options(&self) -> Result<PgConnectOptions, PgStoreError> {
        let options = self.0.options.clone();
        let Some(source) = &self.0.password else { return Ok(options) };
        let known = lock(&self.0.read).as_ref().map(|(password, _)| password.clone());
        let password = match known {
            Some(password) => password,
            None => {
                let password = source.read().await.map_err(PgStoreError::Password)?;
                *lock(&self.0.read) = Some((password.clone(), Instant::now()));
                password
            }
        };
        Ok(options.password(password.expose()))
    }

    /// Reads the password again; whether it is another one, perhaps because somebody else read it meanwhile.
    async fn reread(&self) -> Result<bool, PgStoreError> {
        let Some(source) = &self.0.password else { return Ok(false) };
        let before = lock(&self.0.read).clone();
        if before.as_ref().is_some_and(|(_, at)| at.elapsed() < REREAD) {
            return Ok(false);
        }
        let password = source.read().await.map_err(PgStoreError::Password)?;
        let is_new = before.is_none_or(|(before, _)| before != password);
        *lock(&self.0.read) = Some((password, Instant::now()));
        Ok(is_new)
    }

    /// Every connection that is idle now may lead nowhere, or to a server that is not the primary any more: none of them
    /// is used again.
    pub(super) fn suspect(&self) {
        *lock(&self.0.suspected) = Some(Instant::now());
    }

    /// Whether nothing was found out since that speaks against a connection that was in order then.
    pub(super) fn trusts(&self, idle_since: Instant) -> bool {
        lock(&self.0.suspected).is_none_or(|suspected| suspected < idle_since)
    }
}

/// No step that holds one of these locks leaves anything half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
