//! Callers by their certificates: a SPIFFE ID of the pinned trust domain (X.509-SVID), or a DNS name.
//!
//! The chain was verified by the transport. What is decided here is who the holder is; a certificate that says it twice,
//! or not at all, says nothing.

use std::time::Duration;

use x509_parser::{
    oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS,
    prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate},
};

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
        if is_authority(&certificate)? {
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

/// Whether it is an authority's. `X509Certificate::is_ca` denies it of one that says so twice, or illegibly.
fn is_authority(certificate: &X509Certificate<'_>) -> Result<bool, &'static str> {
    let constraints = certificate.get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS);
    match constraints.map_err(|_| "the client certificate has its basic constraints twice")? {
        None => Ok(false),
        Some(extension) => match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => Ok(constraints.ca),
            _ => Err("the basic constraints of the client certificate cannot be read"),
        },
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, SanType};

    use super::*;

    /// What is said of a certificate with a good name that is otherwise like this.
    fn identify(change: impl FnOnce(&mut CertificateParams)) -> Result<String, &'static str> {
        let mut params = CertificateParams::default();
        let name = "spiffe://prod.example/a".try_into().expect("a URI");
        params.subject_alt_names = vec![SanType::URI(name)];
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let rules = CertificateRules { trust_domain: Some("prod.example".into()), dns_names: false };
        rules.identify(certificate.der()).map(|caller| caller.subject().to_owned())
    }

    #[test]
    fn an_authority_is_nobody_however_it_says_that_it_is_one() {
        assert_eq!(identify(|_| ()).as_deref(), Ok("spiffe://prod.example/a"));
        let authority = identify(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(authority, Err("the client certificate is an authority's"));
        let constraints = |content: &[u8]| CustomExtension::from_oid_content(&[2, 5, 29, 19], content.to_vec());
        let twice = [constraints(&[0x30, 3, 1, 1, 0xff]), constraints(&[0x30, 3, 1, 1, 0xff])];
        let twice = identify(|params| params.custom_extensions.extend(twice));
        assert_eq!(twice, Err("the client certificate has its basic constraints twice"));
        let illegible = identify(|params| params.custom_extensions.push(constraints(&[0x04, 1, 0])));
        assert_eq!(illegible, Err("the basic constraints of the client certificate cannot be read"));
    }
}
