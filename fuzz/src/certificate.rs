//! Callers by certificate: SPIFFE IDs and DNS names, in certificates that no parser has seen before.
//!
//! The transport verifies chains; what is asked here is who a certificate says that its holder is.

use tokencache_server::{
    authn::{mtls::CertificateRules, spiffe},
    types::Caller,
};
use url::Url;

mod der;

const DOMAIN: &str = "prod.example";

/// A byte for the way, then: a SPIFFE ID; a certificate; or what a certificate is made of.
pub fn check(input: &[u8]) {
    let Some((way, rest)) = crate::way_of(input, 3) else { return };
    match way {
        0 => check_id(rest),
        1 => {
            let _ = identify(rest);
        }
        _ => check_made(rest),
    }
}

fn check_id(id: &[u8]) {
    let Ok(id) = std::str::from_utf8(id) else { return };
    assert_eq!(spiffe::check(id, DOMAIN).is_ok(), is_id(id), "{id:?}");
    // Of another trust domain it is nobody.
    assert!(spiffe::check(id, "prod.exampl").is_err() || !is_id(id));
}

/// What all rules say of a certificate; whom they accept is written in the one right way.
fn identify(certificate: &[u8]) -> [Result<Caller, &'static str>; 4] {
    let rules = [(Some(DOMAIN), true), (Some(DOMAIN), false), (None, true), (None, false)];
    rules.map(|(domain, dns_names)| {
        let rules = CertificateRules { trust_domain: domain.map(str::to_owned), dns_names };
        let caller = rules.identify(certificate)?;
        let subject = caller.subject();
        let by_id = domain.is_some() && is_id(subject);
        let by_name = dns_names && subject.strip_prefix("dns:").is_some_and(is_host);
        assert!(by_id || by_name, "{subject:?}");
        assert!(caller.expires_at().is_some());
        Ok(caller)
    })
}

fn check_made(parts: &[u8]) {
    let made = der::Parts::read(parts);
    let [all, ids, hosts, none] = identify(&made.certificate());
    assert!(none.is_err());
    if made.is_legible() {
        let subject = |caller: &Result<Caller, _>| caller.as_ref().map(|caller| caller.subject().to_owned()).ok();
        let id = made.single(&made.uris).filter(|id| !made.signs() && is_id(id));
        let host = made.single(&made.hosts).filter(|host| made.uris.is_empty() && !made.signs() && is_host(host));
        let host = host.map(|host| format!("dns:{host}"));
        assert_eq!(subject(&ids), id, "{made:?}");
        assert_eq!(subject(&hosts), host, "{made:?}");
        assert_eq!(subject(&all), id.or(host), "{made:?}");
    }
    assert!(!made.signs() || all.is_err(), "{made:?}");
}

/// A SPIFFE ID of the domain, as a parser of URLs sees it: nothing in it is changed by parsing.
fn is_id(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(plain);
    let path = url.path().strip_prefix('/').unwrap_or_default();
    text.len() <= 2048
        && url.as_str() == text
        && url.scheme() == "spiffe"
        && url.host_str() == Some(DOMAIN)
        && url.username().is_empty()
        && (url.password(), url.port(), url.query(), url.fragment()) == (None, None, None, None)
        && text.starts_with("spiffe://prod.example/")
        && path.split('/').all(segment)
}

/// A name of letters, digits and hyphens in labels, read a byte at a time.
fn is_host(text: &str) -> bool {
    let mut label = 0;
    let mut last = b'.';
    for byte in text.bytes() {
        match byte {
            b'.' if label == 0 || last == b'-' => return false,
            b'.' => label = 0,
            b'-' if label == 0 => return false,
            b'-' | b'0'..=b'9' | b'a'..=b'z' => label += 1,
            _ => return false,
        }
        if label > 63 {
            return false;
        }
        last = byte;
    }
    label > 0 && last != b'-' && text.len() < 254
}
