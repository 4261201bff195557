//! Headers that the configuration adds to a request, secret ones among them.

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::text::Text;
use crate::{
    config::reader::Section,
    error::{Error, ErrorKind, Result},
    types::Secret,
};

/// Headers that are HTTP's own business.
const OWN: [HeaderName; 8] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Names and values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(Vec<(HeaderName, Text)>);

impl Headers {
    /// Reads a table of headers, which may be absent; `reserved` are set by the provider itself.
    pub(crate) fn read(
        section: &Section<'_>,
        key: &'static str,
        reserved: &[HeaderName],
        with_token: bool,
    ) -> Option<Self> {
        let Some(value) = section.value(key) else { return Some(Self::default()) };
        let mut headers = Vec::new();
        for (name, text) in Text::read_table(&value, with_token)? {
            let is_valid = !matches!(&text, Text::Plain(text) if HeaderValue::from_str(text).is_err());
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(header) if OWN.contains(&header) || reserved.contains(&header) => {
                    value.problem(format!("`{name}` is set by the provider itself"));
                }
                Ok(header) if is_valid => headers.push((header, text)),
                _ => value.problem(format!("`{name}` is not a valid header")),
            }
        }
        Some(Self(headers))
    }

    /// The names and where the values come from.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Text)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text))
    }

    /// The headers; secrets are read anew.
    pub(crate) async fn resolve(&self, token: Option<&Secret>) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, text) in &self.0 {
            headers.append(name, secret_value(name, text.resolve(token).await?.expose())?);
        }
        Ok(headers)
    }
}

/// A header's value that no log may show, and that is wiped when the last copy of it is dropped.
pub(crate) fn secret_value(name: &HeaderName, text: &str) -> Result<HeaderValue> {
    let unusable =
        |_| Error::new(ErrorKind::Misconfigured, format!("the secret for the header {name} cannot stand in a header"));
    let bytes = Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_header_of_the_configuration_is_sensitive() {
        let plain = |text: &str| Text::Plain(text.into());
        let configured = [(header::AUTHORIZATION, Text::Token), (header::COOKIE, plain("s3cr3t"))];
        let headers = Headers(configured.into()).resolve(Some(&Secret::from("s3cr3t"))).await.unwrap();
        assert_eq!(headers.len(), 2);
        assert!(headers.values().all(|value| value.is_sensitive() && value.as_bytes() == b"s3cr3t"));
        assert!(!format!("{headers:?}").contains("s3cr3t"), "{headers:?}");
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused_without_being_shown() {
        for bad in ["s3cr3t\r\nx: y", "s3cr3t\n", "s3cr3t\0", "s3cr3t\u{7f}"] {
            let error = secret_value(&header::COOKIE, bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
        }
    }
}
