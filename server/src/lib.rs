//! The broker: obtains access tokens for a fleet, keeps them fresh and serves them over gRPC.

pub mod authn;
pub mod cache;
pub mod config;
pub mod credential;
pub mod dev;
pub mod error;
pub mod metrics;
pub mod policy;
pub mod provider;
pub mod rng;
pub mod store;
pub mod time;
pub mod types;
