//! The broker: obtains access tokens for a fleet, keeps them fresh and serves them over gRPC.

pub mod config;
pub mod credential;
pub mod error;
pub mod provider;
pub mod store;
pub mod time;
pub mod types;
