//! What every scenario plays on: the provider, the broker, the two clients, and what was seen.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokencache_proto::v1::{GetTokenRequest, GetTokenResponse, Token, token_service_client::TokenServiceClient};
use tonic::{Request, transport::Channel};

use crate::{
    broker::{Broker, Store},
    cli::Cli,
    idp::IdentityProvider,
};

/// The lifetime of the tokens of the client `short`.
pub(crate) const SHORT_TTL: Duration = Duration::from_secs(5);

/// How long a call of the broker may take; it is sent along as `grpc-timeout`.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where things are.
#[derive(Debug)]
pub(crate) struct Places {
    /// The identity provider and its node_modules.
    pub(crate) idp: PathBuf,
    /// The binaries of the workspace.
    pub(crate) binaries: PathBuf,
}

/// A provider and a broker that run.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The upstream.
    pub(crate) idp: IdentityProvider,
    /// The broker.
    pub(crate) broker: Broker,
    /// The command line, pointed at the broker.
    pub(crate) cli: Cli,
    /// A reflection client that knows no `.proto` file.
    pub(crate) buf: PathBuf,
    /// A client of the broker's client API.
    pub(crate) client: TokenServiceClient<Channel>,
    seen: Mutex<Vec<String>>,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn set(places: &Places, store: Store) -> Result<Self> {
        let idp = IdentityProvider::start(&places.idp, SHORT_TTL).await?;
        let mut broker = Broker::configure(places.binaries.join("tokencached"), store, &idp).await?;
        broker.start().await?;
        let cli = Cli::new(places.binaries.join("tokencache"), broker.addr(), broker.admin_addr());
        let client = TokenServiceClient::new(broker.channel()?);
        let buf = places.idp.join("node_modules/.bin/buf");
        Ok(Self { idp, broker, cli, buf, client, seen: Mutex::default() })
    }

    /// The broker's answer to a request.
    pub(crate) async fn ask(&self, request: GetTokenRequest) -> Result<GetTokenResponse> {
        let mut request = Request::new(request);
        request.set_timeout(DEADLINE);
        let response = self.client.clone().get_token(request).await?;
        ensure!(response.metadata().contains_key("x-api-node"), "an answer without x-api-node");
        let response = response.into_inner();
        if let Some(token) = &response.token {
            self.see(&token.access_token);
        }
        Ok(response)
    }

    /// The token of a credential, with its defaults.
    pub(crate) async fn token(&self, credential: &str) -> Result<Token> {
        self.ask(plain(credential)).await?.token.context("an answer without a token")
    }

    /// How many tokens the provider has minted for a client.
    pub(crate) async fn minted(&self, client: &str, grant: &str) -> Result<u64> {
        Ok(self.idp.stats().await?.minted(client, grant))
    }

    /// Remembers a token, to look for it where it must not be.
    pub(crate) fn see(&self, token: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.iter().any(|known| known == token) {
            seen.push(token.to_owned());
        }
    }

    /// Every token that was handed out.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request that leaves everything but the name to the credential's defaults.
pub(crate) fn plain(credential: &str) -> GetTokenRequest {
    GetTokenRequest { credential: credential.into(), ..Default::default() }
}
