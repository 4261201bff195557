//! JWTs, good and forged, against keys in a file.

use std::fs;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::{provider::http::HttpClients, time::Clock};

const ISSUER: &str = "https://idp.example";
const NOW: i64 = 1_800_000_000;

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW * 1000)
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

struct Issuer {
    key: EncodingKey,
    jwk: Value,
}

impl Issuer {
    fn new(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = pair.to_pkcs8v1().unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&public[range]);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "use": "sig", "x": part(1..33), "y": part(33..65) });
        Self { key: EncodingKey::from_ec_der(der.as_ref()), jwk }
    }

    fn sign(&self, header: &Header, claims: &Value) -> Secret {
        Secret::from(jsonwebtoken::encode(header, claims, &self.key).unwrap())
    }
}

fn header(id: &str) -> Header {
    Header { kid: Some(id.to_owned()), ..Header::new(jsonwebtoken::Algorithm::ES256) }
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": ["tokencache", "other"], "sub": "alice", "exp": NOW + 600, "groups": ["a", "b"], "level": 3 })
}

fn with(changes: &Value) -> Value {
    let mut all = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            all.as_object_mut().unwrap().remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    all
}

fn authenticator(directory: &tempfile::TempDir, keys: &[&Value]) -> JwtAuthenticator {
    let file = directory.path().join("keys.json");
    fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    let rules = JwtRules {
        name: "idp".into(),
        issuer: ISSUER.into(),
        audiences: vec!["tokencache".into()],
        keys: KeySource::File(file),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        claims: vec!["groups".into(), "level".into(), "absent".into()],
        leeway: Duration::from_secs(30),
        http: HttpSettings::default(),
    };
    let client = HttpClients::default().get(&rules.http).unwrap();
    let keys = Arc::new(JwtKeys::new(rules.keys.clone(), client));
    JwtAuthenticator::new(rules, keys, Arc::new(Noon))
}

#[tokio::test]
async fn a_good_token_names_its_issuer_and_its_subject() {
    let (directory, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("k1"));
    let authenticator = authenticator(&directory, &[&issuer.jwk]);
    let caller = authenticator.recognise(&issuer.sign(&header("k1"), &claims())).await.unwrap().unwrap();
    assert_eq!(caller.subject(), "jwt:idp/alice");
    assert_eq!((caller.claim("groups"), caller.claim("level")), (&["a".into(), "b".into()][..], &["3".into()][..]));
    assert_eq!(caller.expires_at(), Some(Timestamp::from_millis((NOW + 630) * 1000)));
    // Without a key id the only key counts, and an audience may stand alone.
    let plain = Header { kid: None, ..header("") };
    let single = issuer.sign(&plain, &with(&json!({ "aud": "tokencache" })));
    assert!(authenticator.recognise(&single).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_not_valid_is_refused() {
    let (directory, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("k1"));
    let authenticator = authenticator(&directory, &[&issuer.jwk]);
    let k1 = header("k1");
    let critical = Header { crit: Some(vec!["exp".into()]), ..k1.clone() };
    let good = issuer.sign(&k1, &claims());
    let (start, signature) = good.expose().rsplit_once('.').unwrap();
    let (head, _) = start.split_once('.').unwrap();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let swapped = format!("{head}.{}.{signature}", encode(&with(&json!({ "sub": "root" }))));
    let unsigned = format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&claims()));
    let secret = EncodingKey::from_secret(issuer.jwk.to_string().as_bytes());
    let confused = Header { kid: Some("k1".into()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
    let confused = jsonwebtoken::encode(&confused, &claims(), &secret).unwrap();
    let carried = Header { jwk: serde_json::from_value(Issuer::new("k1").jwk).ok(), ..k1.clone() };
    let forger = Issuer::new("k1");
    let bad = [
        ("another audience", issuer.sign(&k1, &with(&json!({ "aud": "elsewhere" })))),
        ("no audience", issuer.sign(&k1, &with(&json!({ "aud": null })))),
        ("no expiry", issuer.sign(&k1, &with(&json!({ "exp": null })))),
        ("an expiry that is no time", issuer.sign(&k1, &with(&json!({ "exp": "soon" })))),
        ("not valid yet", issuer.sign(&k1, &with(&json!({ "nbf": NOW + 60 })))),
        ("no subject", issuer.sign(&k1, &with(&json!({ "sub": null })))),
        ("an empty subject", issuer.sign(&k1, &with(&json!({ "sub": "" })))),
        ("a subject with a line break", issuer.sign(&k1, &with(&json!({ "sub": "a\nb" })))),
        ("a subject that is too long", issuer.sign(&k1, &with(&json!({ "sub": "a".repeat(1025) })))),
        ("a critical parameter", issuer.sign(&critical, &claims())),
        ("an unknown key", issuer.sign(&header("k2"), &claims())),
        ("another's signature", forger.sign(&k1, &claims())),
        ("a key that it carries itself", forger.sign(&carried, &claims())),
        ("claims of another token", Secret::from(swapped)),
        ("no signature", Secret::from(unsigned)),
        ("the public key taken for a shared secret", Secret::from(confused)),
        ("no header", Secret::from(format!(".{}.x", encode(&claims())))),
    ];
    for (what, token) in bad {
        assert_eq!(authenticator.recognise(&token).await.map_err(|e| e.kind()), Err(ErrorKind::BadIdentity), "{what}");
    }
    assert!(authenticator.recognise(&good).await.unwrap().is_some());
}

#[tokio::test]
async fn tokens_of_other_issuers_and_other_texts_are_left_to_others() {
    let (directory, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("k1"));
    let authenticator = authenticator(&directory, &[&issuer.jwk]);
    let other = issuer.sign(&header("k1"), &with(&json!({ "iss": "https://idp.example/" })));
    for token in [other, Secret::from("tck_x"), Secret::from("a.b.c"), Secret::from("..")] {
        assert_eq!(authenticator.recognise(&token).await, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_seldom_and_kept_through_an_outage() {
    let (directory, issuer, next) = (tempfile::tempdir().unwrap(), Issuer::new("k1"), Issuer::new("k2"));
    let authenticator = authenticator(&directory, &[&issuer.jwk]);
    let file = directory.path().join("keys.json");
    assert!(authenticator.recognise(&issuer.sign(&header("k1"), &claims())).await.is_ok());
    // A new key is found, but not at once: a made-up key id must not have the issuer asked again and again.
    fs::write(&file, json!({ "keys": [issuer.jwk, next.jwk] }).to_string()).unwrap();
    let rotated = next.sign(&header("k2"), &claims());
    assert!(authenticator.recognise(&rotated).await.is_err());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(authenticator.recognise(&rotated).await.unwrap().is_some());
    // The issuer goes away: what was known stays so.
    fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let again = issuer.sign(&header("k1"), &with(&json!({ "sub": "bob" })));
    assert!(authenticator.recognise(&again).await.unwrap().is_some());
    assert!(authenticator.recognise(&issuer.sign(&header("k3"), &claims())).await.is_err());
}

#[tokio::test]
async fn before_any_key_is_known_nobody_can_tell() {
    let (directory, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("k1"));
    let authenticator = authenticator(&directory, &[&issuer.jwk]);
    fs::remove_file(directory.path().join("keys.json")).unwrap();
    let token = issuer.sign(&header("k1"), &claims());
    assert_eq!(authenticator.recognise(&token).await.map_err(|e| e.kind()), Err(ErrorKind::UpstreamDown));
}
