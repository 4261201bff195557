//! Callers by JWT: forged, changed, and signed with the issuer's key over whatever the fuzzer likes.

use std::{
    fs,
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokencache_server::{
    authn::{
        Authenticator as _, Methods,
        jwt::{Algorithm, JwtAuthenticator, JwtKeys, JwtRules, KeySource},
    },
    error::ErrorKind,
    provider::http::{HttpClients, HttpSettings},
    time::Timestamp,
    types::{Caller, Evidence, Peer, Secret},
};
use tokio::runtime::{Builder, Runtime};

use crate::{Standing, edit::edited};

const ISSUER: &str = "https://idp.example";
const AUDIENCE: &str = "tokencache";
const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 30;

/// Whoever reads this can forge tokens of an issuer that nobody trusts.
const SEED: [u8; 32] = *b"a key for a fuzzer, not a secret";

/// Another key of the issuer, to take for the wrong one.
const OTHER: (&str, &str) =
    ("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU");

struct Bench {
    runtime: Runtime,
    methods: Methods,
    key: Ed25519KeyPair,
    good: String,
    /// Where the keys are, which are read again now and then.
    _directory: TempDir,
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

/// A byte for the way, then: a token; a script that changes a good one; or a header, a line feed and claims, to be signed.
pub fn check(input: &[u8]) {
    let Some((way, rest)) = crate::way_of(input, 3) else { return };
    let token = match way {
        0 => String::from_utf8_lossy(&edited(BENCH.good.as_bytes(), rest)).into_owned(),
        1 => String::from_utf8_lossy(rest).into_owned(),
        _ => {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            BENCH.sign(&rest[..end], rest.get(end + 1..).unwrap_or_default())
        }
    };
    BENCH.check(&token);
}

impl Bench {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let key = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key");
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let (other_x, other_y) = OTHER;
        let keys = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "x": other_x, "y": other_y },
        ] });
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("keys.json");
        fs::write(&file, keys.to_string()).expect("a file");
        let rules = JwtRules {
            name: "idp".into(),
            issuer: ISSUER.into(),
            audiences: vec![AUDIENCE.into()],
            keys: KeySource::File(file),
            algorithms: vec![Algorithm::EdDSA, Algorithm::ES256],
            claims: vec!["groups".into(), "level".into()],
            leeway: Duration::from_secs(LEEWAY.unsigned_abs()),
            http: HttpSettings::default(),
        };
        let client = HttpClients::default().get(&rules.http).expect("a client");
        let keys = Arc::new(JwtKeys::new(rules.keys.clone(), client));
        let clock = Arc::new(Standing(Timestamp::from_millis(NOW * 1000)));
        let bearer = Arc::new(JwtAuthenticator::new(rules, keys, clock.clone()));
        let methods = Methods { bearers: vec![bearer], peer_users: false, anonymous: true, clock };
        let mut bench = Self { runtime, methods, key, good: String::new(), _directory: directory };
        let claims =
            json!({ "iss": ISSUER, "aud": [AUDIENCE, "x"], "sub": "alice", "exp": NOW + 600, "groups": ["a"] });
        bench.good = bench.sign(br#"{"alg":"EdDSA","kid":"ed"}"#, claims.to_string().as_bytes());
        let caller = bench.authenticate(&bench.good).expect("a good token");
        assert_eq!(caller.subject(), "jwt:idp/alice");
        bench
    }

    fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    fn authenticate(&self, token: &str) -> Result<Caller, ErrorKind> {
        let evidence = Evidence { bearer: Some(Ok(Secret::from(token))), ..Evidence::of_peer(Peer::Unknown) };
        self.runtime.block_on(self.methods.authenticate(&evidence)).map_err(|error| error.kind())
    }

    fn check(&self, token: &str) {
        match self.authenticate(token) {
            Ok(caller) => {
                self.check_accepted(token, &caller);
                // The second time it is remembered.
                assert_eq!(self.authenticate(token), Ok(caller));
            }
            Err(kind) => assert_eq!(kind, ErrorKind::BadIdentity, "the keys are known, and nobody is anonymous here"),
        }
    }

    fn check_accepted(&self, token: &str, caller: &Caller) {
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        let (header, claims) = signed.split_once('.').expect("a header and claims");
        let bytes = |text| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let public = UnparsedPublicKey::new(&ED25519, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &bytes(signature)).expect("the issuer's signature");

        let json = |text| serde_json::from_slice::<Value>(&bytes(text)).expect("JSON");
        let (header, claims) = (json(header), json(claims));
        assert_eq!(header["alg"], "EdDSA");
        assert!(header.get("crit").is_none_or(Value::is_null), "{header}");
        assert_eq!(claims["iss"], ISSUER);
        let audience = &claims["aud"];
        assert!(audience == AUDIENCE || audience.as_array().is_some_and(|all| all.contains(&AUDIENCE.into())));
        let subject = claims["sub"].as_str().expect("a subject");
        assert_eq!(caller.subject(), format!("jwt:idp/{subject}"));
        assert!(!subject.is_empty() && subject.len() <= 1024 && !subject.chars().any(char::is_control));
        let time = |name: &str| claims[name].as_f64();
        let (now, leeway) = (NOW as f64, LEEWAY as f64);
        assert!(time("exp").is_some_and(|end| end + leeway > now), "{claims}");
        assert!(time("nbf").is_none_or(|begin| begin <= now + leeway), "{claims}");
        assert!(claims.get("nbf").is_none_or(Value::is_number), "{claims}");
        let end = caller.expires_at().expect("an end").as_millis() as f64 / 1000.0;
        assert!((end - leeway - time("exp").expect("a time")).abs() < 1.0, "{claims}");
        for name in ["groups", "level"] {
            self.check_claim(&claims[name], caller.claim(name));
        }
        assert!(caller.claim("sub").is_empty());
    }

    /// All values of a claim or none: a list is never taken for a part of it.
    fn check_claim(&self, told: &Value, known: &[String]) {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let expected = match told {
            Value::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>().unwrap_or_default(),
            single => text(single).into_iter().collect(),
        };
        assert_eq!(known, expected);
    }
}
