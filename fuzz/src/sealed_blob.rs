//! Sealed secrets: what was sealed opens in its place, and nothing else opens anywhere.

use std::sync::LazyLock;

use tokencache_server::{
    store::sealed::{
        KeyId, KeyMaterial, KeyRing, Place, Sealer, Unopened,
        fuzzing::{self, Kept},
    },
    types::{CredentialName, Fingerprint, Secret},
};

use crate::edit::edited;

/// How whatever is sealed with the key `k1` begins; the next character has four bits of the nonce.
const FRONT: &str = "§tcs1.AQJrM";

const KEPT: [Kept; 6] =
    [Kept::AccessToken, Kept::Attributes, Kept::RefreshToken, Kept::Previous, Kept::Candidate, Kept::Spilled];

const CREDENTIALS: [&str; 4] = ["a", "a/b", "ab", "b"];

/// The last three are one: a column of the database holds no more.
const NUMBERS: [u64; 6] = [0, 1, 256, i64::MAX as u64, 1 << 63, u64::MAX];

const CONFIGS: [&[u8]; 2] = [b"one", b"other"];

struct Bench {
    sealer: Sealer,
    /// Knows none of the sealer's keys.
    stranger: Sealer,
    /// A secret that many inputs change, and where it is kept.
    good: Secret,
    home: [u8; 4],
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

/// A byte for the way, then: a text that is kept; a secret to seal; or a place of four bytes and a script that changes a
/// sealed secret.
pub fn check(input: &[u8]) {
    let Some((way, rest)) = crate::way_of(input, 3) else { return };
    match way {
        0 => BENCH.check_text(&Secret::from(String::from_utf8_lossy(rest).into_owned())),
        1 => BENCH.check_round(rest),
        _ => BENCH.check_changed(rest),
    }
}

impl Bench {
    fn new() -> Self {
        let sealer = sealer_of("k1");
        let home = [0, 1, 1, 0];
        let good = fuzzing::seal(&sealer, &place(home), &Secret::from("s3cr3t")).expect("a sealed secret");
        Self { sealer, stranger: sealer_of("k3"), good, home }
    }

    /// Nobody makes up a sealed secret.
    fn check_text(&self, text: &Secret) {
        let opened = fuzzing::open(&self.sealer, &place(self.home), text);
        let why = opened.expect_err("a sealed secret that nobody sealed");
        let sealed = text.expose().starts_with("§tcs1.");
        assert_eq!(why == Unopened::Plaintext, !sealed);
        match fuzzing::key_of(text) {
            // All that is known of the key is read from the front, which may be right where the rest is not.
            Ok(key) => assert!(sealed && KeyId::parse(key.as_str()) == Some(key)),
            Err(Unopened::Plaintext) => assert!(!sealed),
            Err(other) => assert!(sealed && other == Unopened::Malformed && other == why, "{other:?} {why:?}"),
        }
    }

    /// Two places, then the secret.
    fn check_round(&self, input: &[u8]) {
        let Some((home, rest)) = input.split_first_chunk::<4>() else { return };
        let Some((elsewhere, rest)) = rest.split_first_chunk::<4>() else { return };
        let clear = Secret::from(String::from_utf8_lossy(rest).into_owned());
        let kept = fuzzing::seal(&self.sealer, &place(*home), &clear).expect("a sealed secret");
        // What stands in front, with the name of the key, is always the same, and may be what was to be sealed.
        let behind = &kept.expose()[FRONT.len() + 1..];
        assert!(clear.expose().len() < 8 || !behind.contains(clear.expose().as_str()));
        assert!(kept.expose().starts_with(FRONT));
        assert_eq!(fuzzing::key_of(&kept), Ok(KeyId::parse("k1").expect("a key's name")));
        self.check_opens(*home, *elsewhere, &kept, &clear);
    }

    fn check_opens(&self, home: [u8; 4], elsewhere: [u8; 4], kept: &Secret, clear: &Secret) {
        assert_eq!(fuzzing::open(&self.sealer, &place(home), kept).as_ref(), Ok(clear));
        let there = fuzzing::open(&self.sealer, &place(elsewhere), kept);
        if same(home, elsewhere) {
            assert_eq!(there.as_ref(), Ok(clear));
        } else {
            assert_eq!(there, Err(Unopened::Refused));
        }
        let missing = Unopened::KeyMissing(KeyId::parse("k1").expect("a key's name"));
        assert_eq!(fuzzing::open(&self.stranger, &place(home), kept), Err(missing));
    }

    fn check_changed(&self, input: &[u8]) {
        let Some((elsewhere, script)) = input.split_first_chunk::<4>() else { return };
        let changed = edited(self.good.expose().as_bytes(), script);
        let Ok(changed) = String::from_utf8(changed) else { return };
        let changed = Secret::from(changed);
        if changed == self.good {
            self.check_opens(self.home, *elsewhere, &changed, &Secret::from("s3cr3t"));
        } else {
            self.check_text(&changed);
            assert!(fuzzing::open(&self.sealer, &place(*elsewhere), &changed).is_err());
        }
    }
}

fn sealer_of(active: &str) -> Sealer {
    let key =
        |byte: char| KeyMaterial::parse(&Secret::from(format!("{}=", byte.to_string().repeat(43)))).expect("a key");
    let id = |name: &str| KeyId::parse(name).expect("a key's name");
    let ring = KeyRing::new(id(active), &key('A')).and_then(|ring| ring.with(id("k2"), &key('E'))).expect("a ring");
    Sealer::new(ring, |_| Some(Fingerprint::of_bytes(CONFIGS[0])))
}

fn pick<T: Copy>(from: &[T], byte: u8) -> T {
    from[usize::from(byte) % from.len()]
}

fn place([kept, credential, number, config]: [u8; 4]) -> Place {
    let name = CredentialName::parse(pick(&CREDENTIALS, credential)).expect("a name");
    fuzzing::place(pick(&KEPT, kept), &name, pick(&NUMBERS, number), Fingerprint::of_bytes(pick(&CONFIGS, config)))
}

fn same(one: [u8; 4], other: [u8; 4]) -> bool {
    let parts = |[kept, credential, number, config]: [u8; 4]| {
        let number = pick(&NUMBERS, number).min(i64::MAX.unsigned_abs());
        (pick(&KEPT, kept), pick(&CREDENTIALS, credential), number, pick(&CONFIGS, config))
    };
    parts(one) == parts(other)
}
