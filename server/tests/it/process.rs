//! The real `tokencached` as a process: how it starts, serves, ends, and what a crash leaves behind.

mod abuse;
mod audit;
mod clients;
mod commands;
mod crash;
mod daemon;
mod dev_mode;
mod ending;
mod hardening;
mod keys;
mod sockets;
mod upstream;

pub(crate) use daemon::{Daemon, FREE_PORTS, Outcome, http_client, tokencached};
