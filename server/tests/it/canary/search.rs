//! The canary and the search for it, in every form in which a secret could slip out.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};

/// What every secret begins and ends with, so that a part of one is found as well. Random, so that nothing else has it.
const STEM: &str = "kNr7xQv2ZpL9";

/// How much of the text before a hit is shown.
const CONTEXT: usize = 80;

/// A secret. It can stand in a header.
pub(super) fn canary(name: &str) -> String {
    format!("{STEM}.{}.{STEM}", name.replace(' ', "-"))
}

/// Every place in a text where a canary is, in whatever form, with what stands around it.
pub(super) fn hits(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut found = Vec::new();
    for form in forms() {
        for (at, _) in text.match_indices(&form) {
            let begin = (at.saturating_sub(CONTEXT)..=at).find(|i| text.is_char_boundary(*i)).unwrap_or(at);
            found.push(text[begin..at + form.len()].to_owned());
        }
    }
    found
}

/// The stem as it is, encoded, and as the bytes that a derived Debug shows.
fn forms() -> Vec<String> {
    let bytes = STEM.as_bytes();
    let hex = hex::encode(bytes);
    let listed = |separator: &str| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    let mut forms = vec![
        STEM.to_owned(),
        STEM.to_lowercase(),
        STEM.to_uppercase(),
        STEM.chars().rev().collect(),
        hex.to_uppercase(),
        bytes.iter().map(|byte| format!("%{byte:02X}")).collect(),
        bytes.iter().map(|byte| format!("%{byte:02x}")).collect(),
        bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
        bytes.iter().map(|byte| format!("\\u00{byte:02x}")).collect(),
        listed(", "),
        listed(","),
        hex,
    ];
    for shift in 0..3 {
        forms.push(base64_at(shift, &BASE64_STANDARD_NO_PAD));
        forms.push(base64_at(shift, &BASE64_URL_SAFE_NO_PAD));
    }
    forms
}

/// The characters of a base64 text that the stem alone decides if `shift` bytes, or three more, stand before it.
fn base64_at(shift: usize, engine: &impl base64::Engine) -> String {
    let bytes = [&[0; 2][..shift], STEM.as_bytes()].concat();
    let text = engine.encode(&bytes);
    let first = (shift * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    text[first..last].to_owned()
}

#[test]
fn a_canary_is_found_in_every_form() {
    let secret = canary("a secret");
    let url_encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut texts = vec![
        format!("token={secret}"),
        format!("{:?}", secret.as_bytes()),
        hex::encode(&secret),
        hex::encode_upper(&secret),
        url_encoded,
        secret[..12].to_owned(),
        secret[secret.len() - 12..].to_owned(),
        serde_json::json!({ "nested": { "token": secret } }).to_string(),
    ];
    for before in ["", "a", "ab", "id:", "client:", "client-1:"] {
        for after in ["", "x", "xy", "xyz"] {
            let text = format!("{before}{secret}{after}");
            texts.push(format!("Basic {}", BASE64_STANDARD_NO_PAD.encode(&text)));
            texts.push(BASE64_URL_SAFE_NO_PAD.encode(&text));
        }
    }
    for text in texts {
        assert!(!hits(format!("before {text} after").as_bytes()).is_empty(), "{text}");
    }
    assert!(hits(b"nothing to be found, not even kNr7xQv2").is_empty());
}

#[test]
fn a_hit_shows_what_stands_before_it() {
    assert_eq!(hits(format!("authorization: {}", canary("x")).as_bytes()).len(), 2, "both ends");
    assert_eq!(hits(format!("authorization: {STEM}").as_bytes()), [format!("authorization: {STEM}")]);
}
