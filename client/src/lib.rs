//! Thin client of the tokencache broker: keeps tokens at hand, attaches them to the requests of the user's own HTTP stack, and
//! after a 401 reports the token, takes its replacement and sends the request again.
//!
//! ```no_run
//! use tokencache_client::Client;
//!
//! # async fn example() -> Result<(), tokencache_client::Error> {
//! let client = Client::builder().endpoint("http://127.0.0.1:50051").build()?;
//! let source = client.source("github-ci");
//! let token = source.get().await?;
//! // Send `token.authorization()` to the upstream; if it answers 401, say so and go on with another one:
//! if let Some(newer) = source.rejected(&token, 401).await? {
//!     println!("generation {}", newer.generation);
//! }
//! # Ok(()) }
//! ```
//!
//! A [`TokenSource`] is read in nanoseconds, is kept fresh by the broker's stream, and outlives the broker's absence for as
//! long as its token is valid. `TokenAuth` puts one into an HTTP stack, each behind the feature of its name:
//!
//! | feature | |
//! |---|---|
//! | `reqwest` | module `reqwest`: a middleware around your own `reqwest::Client` |
//! | `tower` | module `tower`: a layer for hyper, tonic and whatever else sends `http` requests |
//! | `blocking` | module `blocking`: for programs without an async runtime, with ureq for example |
//! | `testing` | module `testing`: a broker in memory, and recorded upstreams |
//!
//! Errors of the broker are an [`Error`]; what an upstream answers never is one. A client is cheap to clone, connects when
//! it is first used, and again whenever the connection was lost.

mod address;
mod admin;
mod audit;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod auth;
mod backoff;
#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub mod body;
mod builder;
mod client;
mod clock;
mod connection;
mod convert;
mod dial;
mod endpoint_status;
mod error;
mod event;
mod identity;
mod refusal;
mod replicas;
mod request;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod secret;
mod source;
mod status;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod token;
#[cfg(feature = "tower")]
pub mod tower;
mod trace;

pub use admin::AdminClient;
pub use audit::{AuditEvent, AuditEvents, AuditFilter, AuditPage};
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub use auth::{DEFAULT_BODY_LIMIT, Timing, TokenAuth};
pub use builder::{Builder, DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_ENDPOINT};
pub use client::Client;
pub use endpoint_status::{EndpointState, EndpointStatus};
pub use error::{Error, ErrorKind, Result, Violation};
pub use event::{TokenEvent, TokenEvents, TokenUpdate};
pub use refusal::Refusal;
pub use request::{GetToken, Rejection, Selector};
pub use secret::Secret;
pub use source::{CurrentToken, SourceBuilder, TokenSource};
pub use status::{
    Attempt, BulkInvalidation, CredentialDescription, CredentialPage, CredentialState, CredentialSummary, GrantStatus,
    Lease, ReplicaStatus, ServerInfo, Target, TokenStatus,
};
pub use token::{Freshness, Invalidation, Token, TokenResponse};
