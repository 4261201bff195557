//! Thin client of the tokencache broker: gets tokens, watches them, reports the ones that an upstream refused.
//!
//! ```no_run
//! use tokencache_client::{Client, GetToken, Rejection, Selector};
//!
//! # async fn example() -> Result<(), tokencache_client::Error> {
//! let client = Client::builder().endpoint("http://127.0.0.1:50051").build()?;
//! let answer = client.get_token(GetToken::of("github-ci")).await?;
//! if let Some(token) = answer.token {
//!     // Send `token.authorization()` to the upstream; if it answers 401, say so:
//!     let rejection = Rejection::of_generation(Selector::new("github-ci"), token.generation).http_status(401);
//!     client.invalidate(rejection).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! Errors of the broker are an [`Error`]; a client is cheap to clone and connects when it is first used, and again
//! whenever the connection was lost.

mod admin;
mod builder;
mod client;
mod convert;
mod endpoint;
mod error;
mod event;
mod request;
mod secret;
mod status;
mod token;

pub use admin::AdminClient;
pub use builder::{Builder, DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_ENDPOINT};
pub use client::Client;
pub use endpoint::{EndpointState, EndpointStatus};
pub use error::{Error, ErrorKind, Result, Violation};
pub use event::{TokenEvent, TokenEvents, TokenUpdate};
pub use request::{GetToken, Rejection, Selector};
pub use secret::Secret;
pub use status::{
    Attempt, BulkInvalidation, CredentialDescription, CredentialPage, CredentialState, CredentialSummary, GrantStatus,
    Lease, ServerInfo, Target, TokenStatus,
};
pub use token::{Freshness, Invalidation, Token, TokenResponse};
