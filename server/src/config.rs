//! The configuration file.

pub mod reader;
pub mod secret;
