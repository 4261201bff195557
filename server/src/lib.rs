//! The broker: obtains access tokens for a fleet, keeps them fresh and serves them over gRPC.

pub mod app;
pub mod audit;
pub mod authn;
mod bug;
pub mod cache;
pub mod cli;
pub mod config;
pub mod credential;
pub mod dev;
pub mod error;
pub mod failpoint;
pub mod hardening;
pub mod lifecycle;
pub mod metrics;
pub mod pipeline;
pub mod policy;
pub mod provider;
pub mod rng;
pub mod rpc;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod trace;
pub mod types;
pub mod worker;
