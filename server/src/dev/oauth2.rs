//! The demo's OAuth2 endpoints: tokens (RFC 6749), revocation (7009), introspection (7662), metadata (8414).

use std::{collections::HashMap, sync::Arc};

use axum::{
    Form, Json,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    tokens::{Kind, LIFETIME},
    upstream::Demo,
};
use crate::types::Secret;

/// The only client.
const CLIENT_ID: &str = "demo";

type Parameters = Result<Form<HashMap<String, String>>, FormRejection>;

/// An error of RFC 6749 section 5.2.
#[derive(Clone, Copy, Debug)]
pub(super) enum OauthError {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnsupportedGrantType,
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let (status, code) = match self {
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::InvalidGrant => (StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        };
        let response = (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "error": code })));
        match self {
            Self::InvalidClient => ([(header::WWW_AUTHENTICATE, "Basic realm=\"demo\"")], response).into_response(),
            _ => response.into_response(),
        }
    }
}

pub(super) async fn metadata(State(demo): State<Arc<Demo>>) -> Json<Value> {
    let base = &demo.base_url;
    Json(json!({
        "issuer": base,
        "token_endpoint": format!("{base}/oauth2/token"),
        "revocation_endpoint": format!("{base}/oauth2/revoke"),
        "introspection_endpoint": format!("{base}/oauth2/introspect"),
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }))
}

pub(super) async fn token(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<impl IntoResponse, OauthError> {
    let parameters = authenticated(&demo, &headers, parameters)?;
    let rotated = match parameter(&parameters, "grant_type")? {
        "client_credentials" => None,
        "refresh_token" => {
            let presented = parameter(&parameters, "refresh_token")?;
            Some(demo.issuer.rotate(presented).ok_or(OauthError::InvalidGrant)?)
        }
        _ => return Err(OauthError::UnsupportedGrantType),
    };
    let access_token = demo.issuer.issue(Kind::Access);
    let mut answer = json!({
        "access_token": access_token.expose(),
        "token_type": "Bearer",
        "expires_in": LIFETIME.as_secs(),
    });
    if let Some(scope) = parameters.get("scope") {
        answer["scope"] = scope.as_str().into();
    }
    if let Some(rotated) = rotated {
        answer["refresh_token"] = rotated.expose().as_str().into();
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)))
}

/// An unknown token is revoked as well as can be: the answer is 200 (RFC 7009 section 2.2).
pub(super) async fn revoke(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<StatusCode, OauthError> {
    let parameters = authenticated(&demo, &headers, parameters)?;
    demo.issuer.revoke(parameter(&parameters, "token")?);
    Ok(StatusCode::OK)
}

pub(super) async fn introspect(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Json<Value>, OauthError> {
    let parameters = authenticated(&demo, &headers, parameters)?;
    let live = demo.issuer.check(Kind::Access, parameter(&parameters, "token")?);
    Ok(Json(match live {
        Ok(live) => json!({
            "active": true,
            "client_id": CLIENT_ID,
            "token_type": "Bearer",
            "iat": live.issued_at.as_millis() / 1000,
            "exp": live.expires_at.as_millis() / 1000,
        }),
        Err(_) => json!({ "active": false }),
    }))
}

/// The parameters of a request whose client is who it says it is (RFC 6749 section 2.3.1).
fn authenticated(
    demo: &Demo,
    headers: &HeaderMap,
    parameters: Parameters,
) -> Result<HashMap<String, String>, OauthError> {
    let Form(parameters) = parameters.map_err(|_| OauthError::InvalidRequest)?;
    let (id, secret) = match headers.get(header::AUTHORIZATION) {
        Some(value) => value.to_str().ok().and_then(basic).ok_or(OauthError::InvalidClient)?,
        None => {
            let part = |name| parameters.get(name).cloned().ok_or(OauthError::InvalidClient);
            (part("client_id")?, part("client_secret")?)
        }
    };
    if id != CLIENT_ID || Secret::from(secret) != demo.issuer.key().client_secret() {
        return Err(OauthError::InvalidClient);
    }
    Ok(parameters)
}

/// The id and secret of a `Basic` header; both are form-encoded.
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, credentials) = value.split_once(' ')?;
    let credentials = BASE64_STANDARD.decode(credentials).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let credentials = String::from_utf8(credentials).ok()?;
    let (id, secret) = credentials.split_once(':')?;
    let decode = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    Some((decode(id)?, decode(secret)?))
}

fn parameter<'a>(parameters: &'a HashMap<String, String>, name: &str) -> Result<&'a str, OauthError> {
    parameters.get(name).map(String::as_str).ok_or(OauthError::InvalidRequest)
}
