//! The identity provider of the run: starts it, counts with it, revokes behind the broker's back.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};
use url::form_urlencoded;

/// A client that may only introspect: it stands for the protected API.
const RESOURCE_SERVER: (&str, &str) = ("api", "api-secret");

/// A running oidc-provider. It ends with this value, and with this process however that ends.
#[derive(Debug)]
pub(crate) struct IdentityProvider {
    issuer: String,
    http: reqwest::Client,
    _process: Child,
}

/// What the provider counted.
#[derive(Clone, Debug)]
pub(crate) struct Stats(Value);

impl Stats {
    /// Tokens that were minted for a client under a grant.
    pub(crate) fn minted(&self, client: &str, grant: &str) -> u64 {
        self.0["success"][format!("{client}:{grant}")].as_u64().unwrap_or(0)
    }

    /// All requests to the token endpoint, answered or broken.
    pub(crate) fn token_requests(&self) -> u64 {
        self.0["token_requests"].as_u64().unwrap_or(0)
    }

    /// How often a refresh token was sent that had been used before.
    pub(crate) fn reuse_detected(&self) -> u64 {
        self.0["reuse_detected"].as_u64().unwrap_or(0)
    }

    /// Requests that the provider refused, by client and error code.
    pub(crate) fn refused(&self) -> &Value {
        &self.0["error"]
    }
}

impl IdentityProvider {
    /// Starts the provider in `directory` on a free port of loopback.
    pub(crate) async fn start(directory: &Path, short_ttl: Duration) -> Result<Self> {
        let mut process = Command::new("node")
            .arg("provider.mjs")
            .current_dir(directory)
            .env("EXIT_WITH_STDIN", "1")
            .env("SHORT_TTL", short_ttl.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run node")?;
        let stdout = process.stdout.take().context("node has no standard output")?;
        let issuer = timeout(Duration::from_secs(30), ready(stdout)).await.context("the provider does not start")??;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { issuer, http, _process: process })
    }

    /// Its issuer identifier, which is its base URL too.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What it counted up to now.
    pub(crate) async fn stats(&self) -> Result<Stats> {
        Ok(Stats(self.get_json("/_stats").await?))
    }

    /// A refresh token for the client `crm`, as a log-in would have given it.
    pub(crate) async fn seed(&self) -> Result<String> {
        let seeded = self.post("/_seed", json!({ "client_id": "crm" }).to_string()).await?;
        seeded["refresh_token"].as_str().map(str::to_owned).context("the provider gave no refresh token")
    }

    /// Breaks the next token requests of one client.
    pub(crate) async fn break_requests(&self, client_id: &str, times: u32, status: u16) -> Result<()> {
        self.post("/_fault", json!({ "client_id": client_id, "times": times, "status": status }).to_string()).await?;
        Ok(())
    }

    /// Takes a token back (RFC 7009), as its client `ci`.
    pub(crate) async fn revoke(&self, token: &str) -> Result<()> {
        self.post_form("/token/revocation", ("ci", "s3cr%3Aet%2F+%25%2Bx"), token).await?;
        Ok(())
    }

    /// What the provider says about a token (RFC 7662).
    pub(crate) async fn introspect(&self, token: &str) -> Result<Value> {
        let answer = self.post_form("/token/introspection", RESOURCE_SERVER, token).await?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// The status of a call of the protected API with this token.
    pub(crate) async fn call_api(&self, token: &str) -> Result<u16> {
        let url = format!("{}/api", self.issuer);
        Ok(self.http.get(url).bearer_auth(token).send().await?.status().as_u16())
    }

    async fn get_json(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.issuer)).send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    async fn post(&self, path: &str, body: String) -> Result<Value> {
        let url = format!("{}{path}", self.issuer);
        let answer = self.http.post(url).body(body).send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    async fn post_form(&self, path: &str, (id, secret): (&str, &str), token: &str) -> Result<String> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        let request = self.http.post(format!("{}{path}", self.issuer)).basic_auth(id, Some(secret));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}

/// The issuer, which the provider prints once it listens.
async fn ready(stdout: tokio::process::ChildStdout) -> Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(issuer) = line.strip_prefix("READY ") {
            ensure!(issuer.starts_with("http://127.0.0.1:"), "the provider listens elsewhere: {issuer}");
            return Ok(issuer.to_owned());
        }
    }
    anyhow::bail!("the provider ended before it listened")
}
