//! A door for the fuzzer in `fuzz/`: reads answers of a token endpoint that nobody has sent.

use std::{fmt, path::PathBuf};

use toml::de::DeTable;

use super::{Config, OAuth2Provider};
use crate::{
    config::reader::{Problems, Section},
    provider::{
        MintRequest, MintResult,
        http::{Answer, HttpClients},
    },
    time::SharedClock,
};

/// Reads answers as the provider of a credential does.
pub struct AnswerReader(OAuth2Provider);

impl AnswerReader {
    /// As these keys of a credential say. `None`: they are not those of a provider of this kind.
    #[must_use]
    pub fn new(keys: &str, clock: SharedClock) -> Option<Self> {
        let problems = Problems::new("", keys, PathBuf::new());
        let table = DeTable::parse(keys).ok()?;
        let config = Config::read(&Section::new(&problems, "", table.get_ref(), 0)).filter(|_| problems.is_empty())?;
        let client = HttpClients::default().get(&config.http).ok()?;
        Some(Self(OAuth2Provider { config, discovery: None, client, clock }))
    }

    /// What the provider makes of an answer to its request.
    pub fn read(&self, answer: &Answer, request: &MintRequest) -> MintResult {
        self.0.read_token(answer, request)
    }
}

impl fmt::Debug for AnswerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
