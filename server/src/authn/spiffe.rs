//! SPIFFE IDs, as their specification writes them (SPIFFE-ID, section 2). Nothing is normalised: what is not written in
//! the one right way is refused.

/// The longest ID, in bytes (section 2.3).
const MAX_LEN: usize = 2048;

/// The longest trust domain (section 2.3).
const MAX_DOMAIN: usize = 255;

/// Whether it is a valid ID with a path, of this trust domain.
///
/// # Errors
///
/// What is wrong with it, in words for the caller.
pub fn check(id: &str, trust_domain: &str) -> Result<(), &'static str> {
    if id.len() > MAX_LEN {
        return Err("the SPIFFE ID is longer than 2048 bytes");
    }
    let rest = id.strip_prefix("spiffe://").ok_or("the URI in the client certificate is no SPIFFE ID")?;
    let (domain, path) =
        rest.split_once('/').ok_or("the SPIFFE ID has no path: it is a trust domain's, not a workload's")?;
    if !is_trust_domain(domain) {
        return Err("the trust domain of the SPIFFE ID is malformed");
    }
    if domain != trust_domain {
        return Err("the SPIFFE ID is of another trust domain");
    }
    let segment = |segment: &str| {
        let inner = segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        inner && !matches!(segment, "" | "." | "..")
    };
    if path.split('/').all(segment) { Ok(()) } else { Err("the path of the SPIFFE ID is malformed") }
}

/// Whether it is the name of a trust domain (section 2.1).
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    let valid = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= MAX_DOMAIN && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_trust_domain_is_accepted_as_it_is() {
        for good in ["spiffe://prod.example/a", "spiffe://prod.example/ns/a/sa/B_c-d.e"] {
            assert_eq!(check(good, "prod.example"), Ok(()), "{good}");
        }
    }

    #[test]
    fn everything_that_is_not_written_in_the_one_right_way_is_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://prod.example/a/",
            "spiffe://prod.example//a",
            "spiffe://prod.example/./a",
            "spiffe://prod.example/a/..",
            "spiffe://prod.example/%61",
            "spiffe://prod.example/a?b",
            "spiffe://prod.example/a#b",
            "spiffe://prod.example/ä",
            "spiffe://prod.example/a b",
            "spiffe://prod.example:443/a",
            "spiffe://u@prod.example/a",
            "spiffe://PROD.example/a",
            "SPIFFE://prod.example/a",
            "spiffe:/prod.example/a",
            "https://prod.example/a",
            "spiffe://other.example/a",
            "spiffe://prod.example.evil/a",
            "spiffe://xprod.example/a",
            "spiffe://prod.example\0/a",
            " spiffe://prod.example/a",
        ] {
            assert!(check(bad, "prod.example").is_err(), "{bad:?}");
        }
        assert!(check(&format!("spiffe://prod.example/{}", "a".repeat(2048)), "prod.example").is_err());
    }
}
