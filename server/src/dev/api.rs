//! The demo's protected API, its log-in for sessions, and the switch that revokes tokens behind the broker's back.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::JsonRejection, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    tokens::{Dead, Kind, LIFETIME, Live, fingerprint},
    upstream::Demo,
};
use crate::types::{Fingerprint, Secret};

/// Says hello to whoever has a live token or session.
pub(super) async fn hello(State(demo): State<Arc<Demo>>, headers: HeaderMap) -> Result<Json<Value>, Refused> {
    let (token, live) = authorized(&demo, &headers)?;
    Ok(Json(json!({
        "hello": "world",
        "token_fingerprint": fingerprint(token),
        "token_expires_in_seconds": live.expires_at.since(demo.issuer.now()).as_secs(),
    })))
}

/// Why the API refuses (RFC 6750 section 3).
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// The request has no token.
    NoToken,
    /// The token is not good.
    BadToken(Dead),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (challenge, body) = match self {
            Self::NoToken => ("Bearer".to_owned(), json!({ "error": "no token" })),
            Self::BadToken(dead) => {
                let why = dead.as_str();
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"the token is {why}\"");
                (challenge, json!({ "error": "invalid_token", "why": why }))
            }
        };
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], Json(body)).into_response()
    }
}

/// The token of a request, if it is good.
fn authorized<'a>(demo: &Demo, headers: &'a HeaderMap) -> Result<(&'a str, Live), Refused> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or(Refused::NoToken)?;
    let kind = if scheme.eq_ignore_ascii_case("bearer") {
        Kind::Access
    } else if scheme.eq_ignore_ascii_case("session") {
        Kind::Session
    } else {
        return Err(Refused::NoToken);
    };
    let live = demo.issuer.check(kind, token).map_err(Refused::BadToken)?;
    Ok((token, live))
}

/// Who logs in. Without Debug, for it holds a password.
#[derive(Deserialize)]
pub(super) struct Login {
    user: String,
    password: String,
}

/// Begins a session.
pub(super) async fn login(State(demo): State<Arc<Demo>>, body: Result<Json<Login>, JsonRejection>) -> Response {
    let Ok(Json(Login { user, password })) = body else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "expected user and password as JSON" })))
            .into_response();
    };
    if user != "demo" || Secret::from(password) != demo.issuer.key().password() {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "wrong user or password" }))).into_response();
    }
    Json(json!({
        "session": { "id": demo.issuer.issue(Kind::Session).expose() },
        "ttl_seconds": LIFETIME.as_secs(),
        "instance_url": demo.base_url,
    }))
    .into_response()
}

/// Ends a session.
pub(super) async fn logout(State(demo): State<Arc<Demo>>, headers: HeaderMap) -> Result<StatusCode, Refused> {
    let (token, _) = authorized(&demo, &headers)?;
    demo.issuer.revoke(token);
    Ok(StatusCode::NO_CONTENT)
}

/// Which tokens to revoke: a fingerprint, or `all`.
#[derive(Debug, Deserialize)]
pub(super) struct Revoke {
    fingerprint: String,
}

/// Revokes tokens without any credentials: the demo's stand-in for whatever revokes tokens in earnest.
pub(super) async fn revoke(State(demo): State<Arc<Demo>>, query: Result<Query<Revoke>, QueryRejection>) -> Response {
    let which = query.map(|Query(query)| query.fingerprint).unwrap_or_default();
    if which == "all" {
        demo.issuer.revoke_all();
    } else if let Some(fingerprint) = Fingerprint::parse(&which) {
        demo.issuer.revoke_fingerprint(&fingerprint.to_string());
    } else {
        let error = "expected ?fingerprint=all or 16 hexadecimal digits";
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    }
    Json(json!({ "revoked": which })).into_response()
}
