//! How the client proves to the authorization server who it is (RFC 6749 section 2.3).

use ::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::{
    config::{reader::Section, secret::SecretSource},
    error::Result,
    provider::{buffer::SecretBuffer, form::Form, headers::secret_value, text::read_secret},
};

/// Methods of the OAuth registry that are planned but not there yet.
const LATER: [&str; 4] = ["private_key_jwt", "client_secret_jwt", "tls_client_auth", "self_signed_tls_client_auth"];

/// A method of client authentication.
#[derive(Clone, Debug)]
pub(super) enum ClientAuth {
    /// `client_secret_basic`.
    Basic(SecretSource),
    /// `client_secret_post`.
    Post(SecretSource),
    /// `none`: a public client, which only says its name.
    None,
}

#[derive(Clone, Copy)]
enum Method {
    Basic,
    Post,
    None,
}

impl ClientAuth {
    /// Reads `client_auth` and `client_secret`. With a secret the default is `client_secret_basic`, which every server
    /// must support.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let has_secret = section.value("client_secret").is_some();
        let secret = section.secret("client_secret");
        let method = match section.value("client_auth") {
            None if has_secret => Method::Basic,
            None => Method::None,
            Some(value) => {
                let choices = [
                    ("client_secret_basic", Method::Basic),
                    ("client_secret_post", Method::Post),
                    ("none", Method::None),
                ];
                if let Some(later) = value.get().as_str().filter(|name| LATER.contains(name)) {
                    let known = "\"client_secret_basic\", \"client_secret_post\" and \"none\"";
                    value.problem(format!("\"{later}\" is not supported yet, only {known} are"));
                    return None;
                }
                value.choice(&choices)?
            }
        };
        match method {
            Method::None if has_secret => {
                section.problem_at("client_secret", "client_auth = \"none\" does not use it");
                None
            }
            Method::None => Some(Self::None),
            _ if !has_secret => {
                section.problem("this `client_auth` needs the key `client_secret`");
                None
            }
            Method::Basic => secret.map(Self::Basic),
            Method::Post => secret.map(Self::Post),
        }
    }

    /// Adds the proof to a request.
    pub(super) async fn apply(&self, client_id: &str, headers: &mut HeaderMap, form: &mut Form) -> Result<()> {
        match self {
            Self::Basic(secret) => {
                let secret = read_secret(secret).await?;
                headers.insert(AUTHORIZATION, secret_value(&AUTHORIZATION, &basic(client_id, secret.expose()))?);
            }
            Self::Post(secret) => {
                let secret = read_secret(secret).await?;
                form.push("client_id", client_id);
                form.push("client_secret", secret.expose());
            }
            Self::None => form.push("client_id", client_id),
        }
        Ok(())
    }
}

/// Both parts are form-encoded before they are joined (RFC 6749 section 2.3.1), unlike in ordinary Basic.
fn basic(client_id: &str, secret: &str) -> Zeroizing<String> {
    let mut pair = SecretBuffer::default();
    let encode = |text: &str, pair: &mut SecretBuffer| {
        form_urlencoded::byte_serialize(text.as_bytes()).for_each(|part| pair.push(part.as_bytes()));
    };
    encode(client_id, &mut pair);
    pair.push(b":");
    encode(secret, &mut pair);
    let pair = pair.into_bytes();
    // With room for all of it: a text that grows leaves copies of the secret behind.
    let mut header = Zeroizing::new(String::with_capacity("Basic ".len() + pair.len().div_ceil(3) * 4));
    header.push_str("Basic ");
    BASE64_STANDARD.encode_string(&pair[..], &mut header);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_form_encoded_before_they_are_joined() {
        let header = basic("cc:basic", "s3cr:et/ %+x");
        assert_eq!(header.len(), header.capacity(), "it was allocated once");
        let pair = BASE64_STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(pair, b"cc%3Abasic:s3cr%3Aet%2F+%25%2Bx");
    }
}
