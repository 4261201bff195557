//! Texts of the configuration that may be secret, and texts that may stand in a header.

use crate::{
    config::{
        reader::Value,
        secret::{SecretError, SecretSource},
    },
    error::{Error, ErrorKind, Result},
    types::Secret,
};

/// A text that stands in the configuration, or a placeholder for a secret one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// The text itself.
    Plain(String),
    /// `{ env = … }`, `{ file = … }` or `{ command = … }`.
    Secret(SecretSource),
    /// `{ token = true }`: the access token, in a request that is about one.
    Token,
}

impl Text {
    /// A string or a placeholder; that of the token where `with_token` says that there is one.
    pub(crate) fn read(value: &Value<'_>, with_token: bool) -> Option<Self> {
        if value.get().is_str() {
            value.string().map(Self::Plain)
        } else if with_token && is_token_placeholder(value) {
            Some(Self::Token)
        } else {
            value.secret().map(Self::Secret)
        }
    }

    /// Texts under free names.
    pub(crate) fn read_table(value: &Value<'_>, with_token: bool) -> Option<Vec<(String, Self)>> {
        let entries = value.entries()?.into_iter();
        // All of them are read before any failure counts, so that every problem is noted.
        let read: Vec<_> = entries.map(|(name, value)| Some((name, Self::read(&value, with_token)?))).collect();
        read.into_iter().collect()
    }

    /// The text; a secret is read anew.
    pub(crate) async fn resolve(&self, token: Option<&Secret>) -> Result<Secret> {
        match self {
            Self::Plain(text) => Ok(Secret::from(text.as_str())),
            Self::Secret(source) => read_secret(source).await,
            Self::Token => token.cloned().ok_or_else(|| Error::bug("a token placeholder without a token")),
        }
    }

    /// What identifies it without telling a secret.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Plain(text) => format!("text {text}"),
            Self::Secret(source) => format!("secret {}", source.identity()),
            Self::Token => "token".into(),
        }
    }
}

/// Whether a value is `{ token = true }`.
pub(crate) fn is_token_placeholder(value: &Value<'_>) -> bool {
    let table = value.get().as_table().filter(|table| table.len() == 1);
    table.and_then(|table| table.get("token")).is_some_and(|token| token.get_ref().as_bool() == Some(true))
}

/// Reads a secret of the configuration.
pub(crate) async fn read_secret(source: &SecretSource) -> Result<Secret> {
    source.read().await.map_err(|error| {
        let kind = match error {
            // A command talks to a secret store, which may be back in a moment.
            SecretError::Failed(..) | SecretError::Slow(_) => ErrorKind::UpstreamDown,
            _ => ErrorKind::Misconfigured,
        };
        Error::new(kind, error.to_string())
    })
}

/// Whether an access token can stand in a header: visible ASCII, spaces only within (RFC 6749 appendix A.12).
pub(crate) fn is_presentable(token: &str) -> bool {
    !token.is_empty() && token.trim() == token && token.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_a_line_break_or_spaces_at_its_ends_is_not_presentable() {
        for good in ["a", "eyJ.x-_~+/=", "a b"] {
            assert!(is_presentable(good), "{good:?}");
        }
        for bad in ["", " ", " a", "a ", "a\r\nx: y", "a\n", "a\tb", "a\0", "é", "a\u{7f}", "\u{a0}a"] {
            assert!(!is_presentable(bad), "{bad:?}");
        }
    }
}
