//! Which kinds of provider there are, and how one is built from its table in the configuration.

use std::sync::Arc;

use super::{SharedProvider, fixed, http::HttpClients, oauth2, session};
use crate::{
    config::reader::Section,
    time::{SharedClock, SystemClock},
    types::Fingerprint,
};

/// A kind of provider.
#[derive(Clone, Copy, Debug)]
pub struct ProviderFactory {
    /// The kind, as in `provider = "…"`.
    pub kind: &'static str,
    /// Builds one from the whole table of a credential. It notes every problem in the section and reads all of its own
    /// keys before it gives up, so that none of them is taken for an unknown one; those that all kinds share are the
    /// caller's.
    pub build: fn(&Section<'_>, &BuildContext) -> Option<Built>,
}

/// A provider, built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The provider.
    pub provider: SharedProvider,
    /// Fingerprint of all that decides whom the broker authenticates to and as whom.
    pub identity: Fingerprint,
    /// What a person should hear about this configuration, though it is followed.
    pub warnings: Vec<String>,
}

/// What providers are built with.
#[derive(Debug)]
pub struct BuildContext {
    /// The clock that an absolute expiry is compared with.
    pub clock: SharedClock,
    /// The HTTP clients.
    pub clients: HttpClients,
}

/// The kinds of provider that a process knows.
#[derive(Debug)]
pub struct ProviderRegistry {
    factories: Vec<ProviderFactory>,
    context: BuildContext,
}

impl ProviderRegistry {
    /// The kinds that are built in.
    #[must_use]
    pub fn builtin() -> Self {
        let context = BuildContext { clock: Arc::new(SystemClock), clients: HttpClients::default() };
        Self { factories: vec![fixed::FACTORY, oauth2::FACTORY, session::FACTORY], context }
    }

    /// The same kinds, with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.context.clock = clock;
        self
    }

    /// The same kinds and one more, which replaces any of the same name.
    #[must_use]
    pub fn with(mut self, factory: ProviderFactory) -> Self {
        self.factories.retain(|known| known.kind != factory.kind);
        self.factories.push(factory);
        self.factories.sort_by_key(|factory| factory.kind);
        self
    }

    /// The kinds, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.factories.iter().map(|factory| factory.kind)
    }

    /// Builds the provider of a credential from its whole table. `None`: the problems are noted in the section.
    #[must_use]
    pub fn build(&self, section: &Section<'_>) -> Option<Built> {
        let choices: Vec<_> = self.factories.iter().map(|factory| (factory.kind, factory)).collect();
        let Some(factory) = section.required("provider", |section, key| section.choice(key, &choices)) else {
            section.leave_open();
            return None;
        };
        (factory.build)(section, &self.context)
    }
}

/// The fingerprint of fields, none of which can run into the next.
#[must_use]
pub fn identity_of(fields: &[&str]) -> Fingerprint {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    Fingerprint::of_bytes(&bytes)
}

#[cfg(test)]
pub(crate) mod tests;
