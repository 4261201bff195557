//! Where a replica of the broker is, as users write it.

use std::path::PathBuf;

use http::Uri;

use crate::{Error, ErrorKind, Result};

/// Where a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `http://host:port` and `https://host:port`.
    Tcp {
        /// Over TLS.
        tls: bool,
        /// With scheme and authority, as the replica is told.
        origin: Uri,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = || {
            let message = format!("{text:?} is no endpoint: write http://host:port, https://host:port or unix:PATH");
            Error::new(ErrorKind::InvalidRequest, message)
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let origin: Uri = text.parse().map_err(|_| bad())?;
        let tls = match origin.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let authority = origin.authority().ok_or_else(bad)?;
        // A user's name in it would be a secret in every log of it.
        let is_whole =
            matches!(origin.path(), "" | "/") && origin.query().is_none() && !authority.as_str().contains('@');
        if is_whole && !authority.host().is_empty() { Ok(Self::Tcp { tls, origin }) } else { Err(bad()) }
    }

    /// Whether nobody but this machine can read what is sent there.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { tls, origin } => *tls || origin.host().is_some_and(is_loopback),
        }
    }

    /// What an HTTP/2 request to it is addressed to. TLS is no business of whoever asks.
    pub(crate) fn uri(&self) -> Uri {
        let authority = match self {
            Self::Unix(_) => None,
            Self::Tcp { origin, .. } => origin.authority().cloned(),
        };
        let authority = authority.unwrap_or_else(|| http::uri::Authority::from_static("localhost"));
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/");
        uri.build().expect("a valid authority makes a valid URI")
    }

    /// The scheme that a replica is told.
    pub(crate) fn origin(&self) -> Uri {
        match self {
            Self::Unix(_) => self.uri(),
            Self::Tcp { origin, .. } => origin.clone(),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_tcp_address_or_a_unix_socket() {
        for text in [
            "http://127.0.0.1:50051",
            "http://broker.example:1",
            "https://broker.example",
            "https://[::1]:9/",
            "unix:/run/t.sock",
            "unix:///run/t.sock",
            "unix:t.sock",
        ] {
            assert!(Address::parse(text).is_ok(), "{text}");
        }
        for text in
            ["", "127.0.0.1:50051", "ftp://x", "unix:", "unix://", "http://", "a b", "http://u:p@h:1", "https://h/path"]
        {
            let error = Address::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(error.message().contains("http://host:port"), "{error}");
        }
    }

    #[test]
    fn what_leaves_the_machine_in_the_clear_is_not_private() {
        let is_private = |text: &str| Address::parse(text).expect("an address").is_private();
        assert!(
            ["unix:a", "https://x", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1"].map(is_private)
                == [true; 5]
        );
        assert!(!is_private("http://broker.example:1") && !is_private("http://10.0.0.1:1"));
    }
}
