//! The tokens that the provider has issued: which of them are good, and whose refresh tokens were sent twice.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    http::{Response, StatusCode},
    response::IntoResponse as _,
};
use serde_json::{Value, json};
use tokencache_server::time::{SharedClock, Timestamp};

/// Everything that was issued.
#[derive(Debug)]
pub(super) struct Tokens {
    clock: SharedClock,
    pub(super) lifetime: Duration,
    access: HashMap<String, Timestamp>,
    revoked: HashSet<String>,
    families: Vec<Family>,
    live: HashMap<String, usize>,
    pub(super) most_live: usize,
    pub(super) reuses: usize,
    pub(super) rotations: usize,
}

/// The refresh tokens that descend from one log-in.
#[derive(Debug)]
struct Family {
    /// The last one is the live one.
    refresh_tokens: Vec<String>,
    dead: bool,
}

impl Tokens {
    pub(super) fn new(clock: SharedClock, lifetime: Duration) -> Self {
        Self {
            clock,
            lifetime,
            access: HashMap::new(),
            revoked: HashSet::new(),
            families: vec![],
            live: HashMap::new(),
            most_live: 0,
            reuses: 0,
            rotations: 0,
        }
    }

    pub(super) fn new_family(&mut self) -> String {
        let first = format!("rt-{}-0", self.families.len());
        self.families.push(Family { refresh_tokens: vec![first.clone()], dead: false });
        first
    }

    pub(super) fn begin_call(&mut self, refresh_token: &str) {
        let live = self.live.entry(refresh_token.to_owned()).or_default();
        *live += 1;
        self.most_live = self.most_live.max(*live);
    }

    pub(super) fn end_call(&mut self, refresh_token: &str) {
        if let Some(live) = self.live.get_mut(refresh_token) {
            *live -= 1;
        }
    }

    pub(super) fn answer(&mut self, form: &HashMap<String, String>) -> Response<Body> {
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => Json(self.issue()).into_response(),
            Some("refresh_token") => self.rotate(form.get("refresh_token").map(String::as_str).unwrap_or_default()),
            _ => refusal(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        }
    }

    fn issue(&mut self) -> Value {
        let token = format!("at-{}-s3cr3t", self.access.len());
        self.access.insert(token.clone(), self.clock.now().after(self.lifetime));
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": self.lifetime.as_secs() })
    }

    /// A refresh token that was used before ends its whole family (RFC 9700 section 4.14.2).
    fn rotate(&mut self, sent: &str) -> Response<Body> {
        let number = self.families.iter().position(|family| family.refresh_tokens.iter().any(|token| token == sent));
        let Some(number) = number else { return refusal(StatusCode::BAD_REQUEST, "invalid_grant") };
        let family = &mut self.families[number];
        if family.refresh_tokens.last().is_none_or(|live| live != sent) {
            self.reuses += 1;
            family.dead = true;
        }
        if family.dead {
            return refusal(StatusCode::BAD_REQUEST, "invalid_grant");
        }
        let next = format!("rt-{number}-{}", family.refresh_tokens.len());
        family.refresh_tokens.push(next.clone());
        self.rotations += 1;
        let mut answer = self.issue();
        answer["refresh_token"] = next.into();
        Json(answer).into_response()
    }

    pub(super) fn revoke(&mut self, access_token: &str) {
        self.revoked.insert(access_token.to_owned());
    }

    pub(super) fn is_revoked(&self, access_token: &str) -> bool {
        self.revoked.contains(access_token)
    }

    pub(super) fn is_good(&self, access_token: &str) -> bool {
        let expires_at = self.access.get(access_token);
        !self.is_revoked(access_token) && expires_at.is_some_and(|expires_at| self.clock.now() < *expires_at)
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        let refresh_tokens = self.families.iter().flat_map(|family| &family.refresh_tokens);
        self.access.keys().chain(refresh_tokens).cloned().collect()
    }
}

pub(super) fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    (status, Json(json!({ "error": code }))).into_response()
}
