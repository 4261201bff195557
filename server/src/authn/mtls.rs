//! Callers by their certificates: a SPIFFE ID of the pinned trust domain (X.509-SVID), or a DNS name.
//!
//! The chain was verified by the transport. What is decided here is who the holder is; a certificate that says it twice,
//! or not at all, says nothing.

use std::time::Duration;

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::spiffe;
use crate::{
    time::Timestamp,
    types::{Caller, Claims},
};

/// Whose certificates count, and what is read in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRules {
    /// The trust domain whose SPIFFE IDs count. `None`: no SPIFFE ID does.
    pub trust_domain: Option<String>,
    /// Whether a certificate without a URI is known by its DNS name.
    pub dns_names: bool,
}

impl CertificateRules {
    /// Who holds this certificate.
    ///
    /// # Errors
    ///
    /// Why nobody in particular does, in words for the caller.
    pub fn identify(&self, certificate: &[u8]) -> Result<Caller, &'static str> {
        let (rest, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| "the client certificate cannot be read")?;
        if !rest.is_empty() {
            return Err("the client certificate cannot be read");
        }
        if certificate.is_ca() {
            return Err("the client certificate is an authority's");
        }
        // X509-SVID section 4.3: a leaf signs no certificates.
        let usage = certificate.key_usage().map_err(|_| "the client certificate has its key usage twice")?;
        if usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
            return Err("the client certificate is one that signs others");
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| "the client certificate has its subject alternative names twice")?;
        let names = names.map(|names| &*names.value.general_names).unwrap_or_default();
        let subject = self.subject(names)?;
        let end = certificate.validity().not_after.timestamp();
        let end = Timestamp::from_millis(0).after(Duration::from_secs(u64::try_from(end).unwrap_or(0)));
        Ok(Caller::with_claims(subject, Claims::new(), Some(end)))
    }

    fn subject(&self, names: &[GeneralName<'_>]) -> Result<String, &'static str> {
        let mut uris = names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
        match (uris.next(), uris.next(), &self.trust_domain) {
            (Some(_), Some(_), _) => Err("the client certificate has more than one URI"),
            (Some(uri), None, Some(domain)) => {
                spiffe::check(uri, domain)?;
                Ok(uri.to_owned())
            }
            (Some(_), None, None) => Err("the client certificate has a URI, and no trust domain is configured"),
            (None, ..) => self.dns_subject(names),
        }
    }

    fn dns_subject(&self, names: &[GeneralName<'_>]) -> Result<String, &'static str> {
        let mut hosts =
            names.iter().filter_map(|name| if let GeneralName::DNSName(host) = name { Some(*host) } else { None });
        match (self.dns_names, hosts.next(), hosts.next()) {
            (false, ..) => Err("the client certificate has no SPIFFE ID"),
            (true, Some(host), None) if is_host(host) => Ok(format!("dns:{host}")),
            (true, Some(_), None) => Err("the DNS name in the client certificate is none, or not in lower case"),
            (true, ..) => Err("the client certificate has not exactly one DNS name"),
        }
    }
}

/// A host's name in lower case, without stars (RFC 1123 section 2.1).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        inner && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
