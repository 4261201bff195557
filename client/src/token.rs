//! What the broker answers: tokens, and what became of a report.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use tokencache_proto::v1;

use crate::{Error, ErrorKind, Result, Secret, convert};

/// An access token and what is known of it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Token {
    /// The token itself.
    pub access_token: Secret,
    /// How it is presented (RFC 6749 section 7.1), as a rule "Bearer".
    pub token_type: String,
    /// When it expires. Compare it with [`TokenResponse::server_time`] where this machine's clock may be wrong.
    pub expires_at: SystemTime,
    /// When the broker received it, if the broker said so.
    pub issued_at: Option<SystemTime>,
    /// The scopes that were granted, sorted; they may differ from the ones asked for.
    pub scopes: Vec<String>,
    /// Counts the tokens minted for this selector. It never goes back.
    pub generation: u64,
    /// The first 16 hexadecimal digits of the token's SHA-256: the only form that belongs into a log.
    pub fingerprint: String,
    /// What the upstream returned beside the token, e.g. `instance_url`.
    pub attributes: BTreeMap<String, String>,
}

impl Token {
    /// The value of the `Authorization` header: type and token.
    #[must_use]
    pub fn authorization(&self) -> Secret {
        Secret::new(format!("{} {}", self.token_type, self.access_token.expose()))
    }

    pub(crate) fn from_proto(token: v1::Token) -> Result<Self> {
        let expires_at = convert::time(token.expires_at);
        let expires_at = expires_at.ok_or_else(|| nonsense("a token without a time of expiry"))?;
        if token.access_token.is_empty() || !is_printable(&token.access_token) || !is_printable(&token.token_type) {
            return Err(nonsense("a token that no header can carry"));
        }
        Ok(Self {
            access_token: Secret::new(token.access_token),
            token_type: token.token_type,
            expires_at,
            issued_at: convert::time(token.issued_at),
            scopes: token.scopes,
            generation: token.generation,
            fingerprint: token.fingerprint,
            attributes: token.attributes.into_iter().collect(),
        })
    }
}

/// Whether a text can stand in a header without adding lines to it.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

pub(crate) fn nonsense(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the broker sent {what}"))
}

impl fmt::Debug for Token {
    /// Shows everything but the token and the values of its attributes, which the upstream chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("fingerprint", &self.fingerprint)
            .field("generation", &self.generation)
            .field("token_type", &self.token_type)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("scopes", &self.scopes)
            .field("attributes", &self.attributes.keys())
            .finish_non_exhaustive()
    }
}

/// How much the replica knows about the token that it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// No acknowledged rejection of this token exists.
    Verified,
    /// The replica has lost touch with the fleet: a rejection may have been missed.
    Degraded,
}

/// Answers [`GetToken`](crate::GetToken).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenResponse {
    /// The token. `None` only where the generation named by `if_generation_not` is still the current one.
    pub token: Option<Token>,
    /// How much the replica knows about the token.
    pub freshness: Freshness,
    /// The replica's clock when it answered, if it said so.
    pub server_time: Option<SystemTime>,
}

impl TokenResponse {
    /// `conditional`: the request named a generation, so that the answer may be without a token.
    pub(crate) fn from_proto(response: v1::GetTokenResponse, conditional: bool) -> Result<Self> {
        let freshness = match response.freshness() {
            v1::Freshness::Verified => Freshness::Verified,
            // A freshness that this client does not know is not better than the one it knows to be doubtful.
            v1::Freshness::Unspecified | v1::Freshness::Degraded => Freshness::Degraded,
        };
        let token = response.token.map(Token::from_proto).transpose()?;
        if token.is_none() && !(conditional && response.not_modified) {
            return Err(nonsense("an answer without a token"));
        }
        Ok(Self { token, freshness, server_time: convert::time(response.server_time) })
    }
}

/// Answers a [`Rejection`](crate::Rejection).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalidation {
    /// This report took the token out of service. False: it was already replaced, is unknown, or the credential's
    /// configuration says that such an answer does not mean a dead token.
    pub invalidated: bool,
    /// The lowest generation that may still be used.
    pub min_generation: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wire_token() -> v1::Token {
        v1::Token {
            access_token: "s3cr3t".into(),
            token_type: "Bearer".into(),
            expires_at: Some(prost_types::Timestamp { seconds: 60, nanos: 0 }),
            attributes: [("sid".into(), "s3cr3t".into())].into(),
            ..v1::Token::default()
        }
    }

    #[test]
    fn debug_shows_neither_the_token_nor_its_attributes() {
        let response = v1::GetTokenResponse { token: Some(wire_token()), ..Default::default() };
        let shown = format!("{:?}", TokenResponse::from_proto(response, false).expect("a valid answer"));
        assert!(shown.contains("sid") && !shown.contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn the_header_has_the_type_before_the_token() {
        let token = Token::from_proto(wire_token()).expect("a valid token");
        assert_eq!(token.authorization().expose(), "Bearer s3cr3t");
        assert_eq!(token.expires_at, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_an_error_without_the_token() {
        let endless = v1::Token { expires_at: None, ..wire_token() };
        let error = Token::from_proto(endless).expect_err("a token that never expires");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(!format!("{error:?}").contains("s3cr3t"));
        for token in ["", "two\r\nlines", "caf\u{e9}"] {
            assert!(Token::from_proto(v1::Token { access_token: token.into(), ..wire_token() }).is_err(), "{token:?}");
        }
        assert!(TokenResponse::from_proto(v1::GetTokenResponse::default(), true).is_err());
        let not_modified = v1::GetTokenResponse { not_modified: true, ..Default::default() };
        assert!(TokenResponse::from_proto(not_modified.clone(), false).is_err());
        assert!(TokenResponse::from_proto(not_modified, true).is_ok());
    }
}
