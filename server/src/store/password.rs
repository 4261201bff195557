//! The password of a store, which may be changed while the store is used.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{error::Result, types::Secret};

/// Where a password comes from. It is read when it is first needed, and again whenever the store refuses it.
#[async_trait]
pub trait PasswordSource: fmt::Debug + Send + Sync + 'static {
    /// Reads it.
    async fn read(&self) -> Result<Secret>;
}

/// A source that a store shares with who opened it.
pub type SharedPassword = Arc<dyn PasswordSource>;

/// One that is known and stays the same.
#[async_trait]
impl PasswordSource for Secret {
    async fn read(&self) -> Result<Secret> {
        Ok(self.clone())
    }
}
