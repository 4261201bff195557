use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::advance;
use tower::ServiceExt as _;

use super::*;
use crate::{
    dev::tokens::{DemoKey, LIFETIME, fingerprint},
    time::{SystemClock, Timestamp, TokioClock},
};

const FORM: &str = "application/x-www-form-urlencoded";

struct Upstream(Arc<Demo>);

impl Upstream {
    fn new() -> Self {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000)));
        let issuer = Issuer::new(DemoKey::generate(&mut StdRng::seed_from_u64(1)), clock);
        Self(Arc::new(Demo { issuer, base_url: "http://127.0.0.1:1".into() }))
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        router(self.0.clone()).oneshot(request).await.unwrap()
    }

    /// A request of the client to one of the OAuth2 endpoints.
    async fn oauth2(&self, endpoint: &str, body: &str) -> (StatusCode, Value) {
        let credentials = BASE64_STANDARD.encode(format!("demo:{}", self.0.issuer.key().client_secret().expose()));
        let request = Request::post(format!("/oauth2/{endpoint}"))
            .header(header::CONTENT_TYPE, FORM)
            .header(header::AUTHORIZATION, format!("Basic {credentials}"));
        json_of(self.send(request.body(body.to_owned().into()).unwrap()).await).await
    }

    async fn access_token(&self) -> String {
        let (status, answer) = self.oauth2("token", "grant_type=client_credentials").await;
        assert_eq!(status, StatusCode::OK);
        text(&answer["access_token"])
    }

    async fn hello(&self, authorization: &str) -> Response<Body> {
        let request = Request::get("/api/hello").header(header::AUTHORIZATION, authorization);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, uri: &str) -> StatusCode {
        self.send(Request::post(uri).body(Body::empty()).unwrap()).await.status()
    }
}

async fn json_of(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = to_bytes(response.into_body(), 10_000).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn challenge(response: &Response<Body>) -> &str {
    response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_token_opens_the_api_until_it_expires() {
    let upstream = Upstream::new();
    let authorization = format!("Bearer {}", upstream.access_token().await);
    assert_eq!(upstream.hello(&authorization).await.status(), StatusCode::OK);
    advance(LIFETIME).await;
    let refused = upstream.hello(&authorization).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&refused), "Bearer error=\"invalid_token\", error_description=\"the token is expired\"");
}

#[tokio::test(start_paused = true)]
async fn a_token_revoked_by_its_fingerprint_is_refused_and_the_next_one_is_not() {
    let upstream = Upstream::new();
    let token = upstream.access_token().await;
    let status = upstream.post(&format!("/demo/revoke?fingerprint={}", fingerprint(&token))).await;
    assert_eq!(status, StatusCode::OK);
    let refused = upstream.hello(&format!("Bearer {token}")).await;
    assert!(challenge(&refused).contains("the token is revoked"));
    let next = upstream.access_token().await;
    assert_eq!(upstream.hello(&format!("Bearer {next}")).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn all_tokens_can_be_revoked_at_once() {
    let upstream = Upstream::new();
    let token = upstream.access_token().await;
    assert_eq!(upstream.post("/demo/revoke?fingerprint=all").await, StatusCode::OK);
    assert!(challenge(&upstream.hello(&format!("Bearer {token}")).await).contains("revoked"));
    for bad in ["/demo/revoke", "/demo/revoke?fingerprint=", "/demo/revoke?fingerprint=xyz"] {
        assert_eq!(upstream.post(bad).await, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_token_gets_a_challenge_without_an_error() {
    let upstream = Upstream::new();
    let response = upstream.send(Request::get("/api/hello").body(Body::empty()).unwrap()).await;
    assert_eq!((response.status(), challenge(&response)), (StatusCode::UNAUTHORIZED, "Bearer"));
    let unknown = upstream.hello("Bearer made-up").await;
    assert!(challenge(&unknown).contains("the token is unknown"));
}

#[tokio::test(start_paused = true)]
async fn refresh_tokens_rotate_and_reuse_ends_the_family() {
    let upstream = Upstream::new();
    let first = upstream.0.issuer.key().first_refresh_token();
    let body = |token: &str| format!("grant_type=refresh_token&refresh_token={token}");
    let (status, answer) = upstream.oauth2("token", &body(first.expose())).await;
    assert_eq!((status, &answer["expires_in"]), (StatusCode::OK, &json!(60)));
    let second = text(&answer["refresh_token"]);
    let refused = (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }));
    assert_eq!(upstream.oauth2("token", &body(first.expose())).await, refused);
    assert_eq!(upstream.oauth2("token", &body(&second)).await, refused);
}

#[tokio::test(start_paused = true)]
async fn a_client_proves_itself_in_the_header_or_in_the_body() {
    let upstream = Upstream::new();
    let post = async |body: String| {
        let request = Request::post("/oauth2/token").header(header::CONTENT_TYPE, FORM);
        upstream.send(request.body(body.into()).unwrap()).await
    };
    let secret = upstream.0.issuer.key().client_secret();
    let good = post(format!("grant_type=client_credentials&client_id=demo&client_secret={}", secret.expose())).await;
    assert_eq!(good.status(), StatusCode::OK);
    let bad = post("grant_type=client_credentials&client_id=demo&client_secret=x".into()).await;
    assert!(challenge(&bad).starts_with("Basic"));
    assert_eq!(json_of(bad).await, (StatusCode::UNAUTHORIZED, json!({ "error": "invalid_client" })));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_makes_no_sense_gets_the_error_of_the_rfc() {
    let upstream = Upstream::new();
    let error = async |body| text(&upstream.oauth2("token", body).await.1["error"]);
    assert_eq!(error("grant_type=password").await, "unsupported_grant_type");
    assert_eq!(error("scope=x").await, "invalid_request");
    assert_eq!(error("grant_type=refresh_token").await, "invalid_request");
    assert_eq!(error("grant_type=refresh_token&refresh_token=x").await, "invalid_grant");
}

#[tokio::test(start_paused = true)]
async fn revocation_and_introspection_agree() {
    let upstream = Upstream::new();
    let body = format!("token={}", upstream.access_token().await);
    let (_, live) = upstream.oauth2("introspect", &body).await;
    assert_eq!((&live["active"], &live["exp"]), (&json!(true), &json!(1060)));
    assert_eq!(upstream.oauth2("revoke", &body).await.0, StatusCode::OK);
    assert_eq!(upstream.oauth2("introspect", &body).await.1, json!({ "active": false }));
    assert_eq!(upstream.oauth2("revoke", "token=made-up").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_metadata_name_the_endpoints_of_their_issuer() {
    let request = Request::get("/.well-known/oauth-authorization-server").body(Body::empty()).unwrap();
    let (_, metadata) = json_of(Upstream::new().send(request).await).await;
    assert_eq!(metadata["issuer"], "http://127.0.0.1:1");
    assert_eq!(metadata["token_endpoint"], "http://127.0.0.1:1/oauth2/token");
}

#[tokio::test(start_paused = true)]
async fn a_log_in_opens_the_api_until_the_log_out() {
    let upstream = Upstream::new();
    let log_in = async |password: &str| {
        let request = Request::post("/login").header(header::CONTENT_TYPE, "application/json");
        let body = json!({ "user": "demo", "password": password }).to_string();
        json_of(upstream.send(request.body(body.into()).unwrap()).await).await
    };
    assert_eq!(log_in("wrong").await.0, StatusCode::UNAUTHORIZED);
    let (status, answer) = log_in(upstream.0.issuer.key().password().expose()).await;
    assert_eq!((status, &answer["ttl_seconds"]), (StatusCode::OK, &json!(60)));
    let authorization = format!("Session {}", text(&answer["session"]["id"]));
    assert_eq!(upstream.hello(&authorization).await.status(), StatusCode::OK);
    let request = Request::post("/logout").header(header::AUTHORIZATION, &authorization);
    assert_eq!(upstream.send(request.body(Body::empty()).unwrap()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(upstream.hello(&authorization).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_worker_answers_over_http_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let home = DevHome::prepare(directory.path(), &mut StdRng::seed_from_u64(1)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = DemoUpstream::new(listener, home, Arc::new(SystemClock)).unwrap();
    let url = format!("http://{}/api/hello", upstream.address());
    let stop = CancellationToken::new();
    let worker = tokio::spawn(upstream.run(stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    stop.cancel();
    worker.await.unwrap().unwrap();
    assert!(client.get(&url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let home = DevHome::prepare(directory.path(), &mut StdRng::seed_from_u64(1)).unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = DemoUpstream::new(listener, home, Arc::new(SystemClock)).unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
}
