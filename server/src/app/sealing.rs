//! Opens the configured store, sealed with the configured keys.

use std::{io, sync::Arc};

use async_trait::async_trait;

use super::AppError;
use crate::{
    config::{Config, EncryptionConfig, secret::SecretSource},
    error::{Error as ServiceError, ErrorKind},
    store::{
        PasswordSource, SharedPassword, SharedStore, StoreRegistry, StoreUrl,
        sealed::{KeyId, KeyMaterial, KeyRing, SealedTokenStore, Sealer},
    },
    time::SharedClock,
    types::Secret,
};

/// What to type where there is no key.
pub(super) const NO_KEY: &str = "\
tokens and refresh tokens would be kept in the clear, for there is no key to seal them with; make one and name it:
  tokencached key generate --file tokencache.key
  printf '\\n[encryption]\\nactive = \"k1\"\\nkeys = { \"k1\" = { file = \"%s\" } }\\n' \"$PWD/tokencache.key\" >> CONFIG_FILE";

/// A store, and what seals it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SharedStore,
    /// What seals it. `None`: there is no key.
    pub sealer: Option<Arc<Sealer>>,
}

/// Opens the configured store. Does not wait for it.
///
/// # Errors
///
/// If its password or a key cannot be read, or its URL is not valid.
pub async fn open_store(config: &Config, stores: &StoreRegistry, clock: SharedClock) -> Result<Opened, AppError> {
    let mut password: Option<SharedPassword> = None;
    if let Some(source) = &config.store.password {
        // One that cannot be read at the start is a mistake of the configuration.
        source.read().await?;
        password = Some(Arc::new(ConfiguredPassword(source.clone())));
    }
    let url = StoreUrl::parse(&config.store.url).map_err(AppError::Store)?;
    let store = stores.open(&url, password.as_ref(), clock).map_err(AppError::Store)?;
    let Some(ring) = read_ring(&config.encryption).await? else { return Ok(Opened { store, sealer: None }) };
    let catalog = config.credentials.clone();
    let sealer = Sealer::new(ring, move |name| catalog.get(name).map(|credential| credential.config));
    let sealer = Arc::new(sealer.accepting_plaintext(config.encryption.accept_plaintext));
    let store: SharedStore = Arc::new(SealedTokenStore::new(store, Arc::clone(&sealer)));
    Ok(Opened { store, sealer: Some(sealer) })
}

/// Reads all keys, once: what replaces one has another name.
async fn read_ring(config: &EncryptionConfig) -> Result<Option<KeyRing>, AppError> {
    let Some(active) = &config.active else { return Ok(None) };
    let mut ring = None;
    if let Some(source) = config.keys.get(active) {
        let key = read_key(active, source).await?;
        ring = Some(KeyRing::new(active.clone(), &key).map_err(|error| failed(active, error))?);
    }
    let missing = || failed(active, io::Error::from(io::ErrorKind::NotFound));
    let mut ring = ring.ok_or_else(missing)?;
    for (id, source) in config.keys.iter().filter(|(id, _)| *id != active) {
        let key = read_key(id, source).await?;
        ring = ring.with(id.clone(), &key).map_err(|error| failed(id, error))?;
    }
    Ok(Some(ring.allowing_missing(config.allow_missing_keys.iter().cloned())))
}

async fn read_key(id: &KeyId, source: &SecretSource) -> Result<KeyMaterial, AppError> {
    let text = source.read().await.map_err(|error| failed(id, error))?;
    KeyMaterial::parse(&text).map_err(|error| failed(id, error))
}

/// No error of a source or a key holds any part of it.
fn failed(id: &KeyId, error: impl std::error::Error) -> AppError {
    AppError::Key(id.clone(), error.to_string())
}

/// The password of the store, from where the configuration says.
#[derive(Debug)]
struct ConfiguredPassword(SecretSource);

#[async_trait]
impl PasswordSource for ConfiguredPassword {
    async fn read(&self) -> Result<Secret, ServiceError> {
        self.0.read().await.map_err(|error| ServiceError::new(ErrorKind::StoreDown, error.to_string()))
    }
}
