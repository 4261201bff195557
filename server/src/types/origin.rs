//! Where a token endpoint is: what its callers share, whatever its path.

use std::{fmt, sync::Arc};

use url::Url;

/// Scheme, host and port of a URL (RFC 6454 section 6.2), e.g. `https://idp.example`. The scheme's own port is left out.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    /// The origin of a URL.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        Self(url.origin().ascii_serialization().into())
    }

    /// The origin that a text spells, and nothing besides: neither a user nor a path, a query or a fragment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        (bare && matches!(url.scheme(), "http" | "https")).then(|| Self::of(&url))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_one_server_have_one_origin_however_it_is_spelled() {
        for text in ["https://idp.example", "https://IDP.example:443/", "https://idp.example/"] {
            assert_eq!(Origin::parse(text).expect(text).as_str(), "https://idp.example");
        }
        let url = Url::parse("https://idp.example/t/1/token?x=y").unwrap();
        assert_eq!(Some(Origin::of(&url)), Origin::parse("https://idp.example"));
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let all = ["https://a.example", "http://a.example", "https://b.example", "https://a.example:8443"];
        let parsed: std::collections::BTreeSet<_> = all.iter().map(|text| Origin::parse(text).expect(text)).collect();
        assert_eq!(parsed.len(), all.len());
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_none() {
        for text in [
            "idp.example",
            "https://",
            "https://idp.example/token",
            "https://u@idp.example",
            "ftp://a.example",
            "https://a.example?x",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
