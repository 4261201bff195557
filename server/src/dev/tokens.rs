//! The demo upstream's tokens: each carries its own proof, and only revocations are remembered.
//!
//! Nothing is stored, so that nothing is lost: a token of an earlier run is known by its MAC, and the first refresh token
//! that a run sees is taken for the current one. A revocation lasts as long as the run.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::CryptoRng;

use crate::{
    time::{SharedClock, Timestamp},
    types::{Fingerprint, Secret},
};

/// How long the demo's access tokens and sessions live: short, for people who watch them being replaced.
pub(super) const LIFETIME: Duration = Duration::from_secs(60);

/// The key from which every secret of the demo derives.
pub(super) struct DemoKey(Secret<Vec<u8>>);

impl fmt::Debug for DemoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DemoKey([redacted])")
    }
}

impl DemoKey {
    const LEN: usize = 32;

    pub(super) fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = vec![0; Self::LEN];
        rng.fill_bytes(&mut bytes);
        Self(Secret::new(bytes))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() == Self::LEN)?;
        Some(Self(Secret::new(bytes)))
    }

    pub(super) fn to_text(&self) -> Secret {
        Secret::new(hex::encode(self.0.expose()))
    }

    pub(super) fn client_secret(&self) -> Secret {
        Secret::new(self.mac("client secret"))
    }

    pub(super) fn password(&self) -> Secret {
        Secret::new(self.mac("password"))
    }

    pub(super) fn first_refresh_token(&self) -> Secret {
        self.signed(Kind::Refresh, 0)
    }

    fn signed(&self, kind: Kind, serial: i64) -> Secret {
        let prefix = kind.prefix();
        Secret::new(format!("{prefix}.{serial}.{}", self.mac(&format!("{prefix}.{serial}"))))
    }

    /// The kind and serial number of a token of ours.
    fn verify(&self, token: &str) -> Option<(Kind, i64)> {
        let mut parts = token.splitn(3, '.');
        let (prefix, serial, mac) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = Kind::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
        let mac = BASE64_URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.hmac_key(), format!("{prefix}.{serial}").as_bytes(), &mac).ok()?;
        Some((kind, serial.parse().ok()?))
    }

    fn mac(&self, text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.hmac_key(), text.as_bytes()))
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose())
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An access token of the OAuth2 endpoint.
    Access,
    /// A refresh token of the OAuth2 endpoint.
    Refresh,
    /// A session of the log-in.
    Session,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Access, Self::Refresh, Self::Session];

    fn prefix(self) -> &'static str {
        match self {
            Self::Access => "demo-access",
            Self::Refresh => "demo-refresh",
            Self::Session => "demo-session",
        }
    }
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    Unknown,
    Expired,
    Revoked,
}

impl Dead {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A token that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// Issues tokens, checks them and remembers which were revoked.
#[derive(Debug)]
pub(super) struct Issuer {
    key: DemoKey,
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last access token or session: when it was issued, in milliseconds, or a little later.
    last_serial: i64,
    /// Every access token and session up to this number is revoked.
    revoked_through: i64,
    /// Revoked one by one, and when.
    revoked: BTreeMap<String, Timestamp>,
    /// The current refresh token's number. `None`: this run has not seen one.
    refresh: Option<i64>,
    /// A refresh token was used twice or revoked: none is good any more.
    family_ended: bool,
}

impl Issuer {
    pub(super) fn new(key: DemoKey, clock: SharedClock) -> Self {
        Self { key, clock, state: Mutex::default() }
    }

    pub(super) fn key(&self) -> &DemoKey {
        &self.key
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new access token or session.
    pub(super) fn issue(&self, kind: Kind) -> Secret {
        let mut state = self.state();
        let serial = self.now().as_millis().max(state.last_serial + 1).max(state.revoked_through + 1);
        state.last_serial = serial;
        self.key.signed(kind, serial)
    }

    /// Exchanges a refresh token for the next one. `None`: it is not the current one, which ends the family (RFC 9700
    /// section 4.14.2).
    pub(super) fn rotate(&self, token: &str) -> Option<Secret> {
        let (kind, serial) = self.key.verify(token)?;
        let mut state = self.state();
        if kind != Kind::Refresh || state.family_ended {
            return None;
        }
        if state.refresh.is_some_and(|current| current != serial) {
            state.family_ended = true;
            return None;
        }
        let next = serial + 1;
        state.refresh = Some(next);
        Some(self.key.signed(Kind::Refresh, next))
    }

    /// Checks an access token or a session.
    pub(super) fn check(&self, expected: Kind, token: &str) -> Result<Live, Dead> {
        let (kind, serial) = self.key.verify(token).ok_or(Dead::Unknown)?;
        if kind != expected {
            return Err(Dead::Unknown);
        }
        let issued_at = Timestamp::from_millis(serial);
        let expires_at = issued_at.after(LIFETIME);
        if expires_at <= self.now() {
            return Err(Dead::Expired);
        }
        let state = self.state();
        if serial <= state.revoked_through || state.revoked.contains_key(&fingerprint(token)) {
            return Err(Dead::Revoked);
        }
        Ok(Live { issued_at, expires_at })
    }

    /// Revokes a token of any kind; of a refresh token, the family.
    pub(super) fn revoke(&self, token: &str) {
        match self.key.verify(token) {
            Some((Kind::Refresh, _)) => self.state().family_ended = true,
            Some(_) => self.revoke_fingerprint(&fingerprint(token)),
            None => {}
        }
    }

    /// Revokes the access token or session with this fingerprint.
    pub(super) fn revoke_fingerprint(&self, fingerprint: &str) {
        let now = self.now();
        let mut state = self.state();
        // Whatever was issued before it was revoked has expired by itself after a lifetime.
        state.revoked.retain(|_, revoked_at| revoked_at.after(LIFETIME) > now);
        state.revoked.insert(fingerprint.to_owned(), now);
    }

    /// Revokes every access token and session issued so far.
    pub(super) fn revoke_all(&self) {
        let now = self.now().as_millis();
        let mut state = self.state();
        state.revoked_through = state.last_serial.max(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The form in which tokens are named where they must not be shown.
pub(super) fn fingerprint(token: &str) -> String {
    Fingerprint::of_bytes(token.as_bytes()).to_string()
}

#[cfg(test)]
mod tests;
