//! Where the broker is, and who calls it, as the arguments and the environment say it.

use std::{path::PathBuf, time::Duration};

use clap::Args;

const HEADING: &str = "Broker";

/// What is left out is taken from the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Where the broker's client API is: http://HOST:PORT, https://HOST:PORT or unix:PATH; several replicas with commas
    /// between [default: http://127.0.0.1:50051]
    #[arg(long, global = true, env = "TOKENCACHE_ADDR", value_name = "URL", help_heading = HEADING)]
    pub(crate) addr: Option<String>,

    /// Where the admin API is [default: --addr if given, else http://127.0.0.1:50052 and then the default of --addr,
    /// where a broker in dev mode serves both]
    #[arg(long, global = true, env = "TOKENCACHE_ADMIN_ADDR", value_name = "URL", help_heading = HEADING)]
    pub(crate) admin_addr: Option<String>,

    /// How long a call may take; the broker stops waiting as well [default: 15s]
    #[arg(long, global = true, env = "TOKENCACHE_TIMEOUT", value_name = "DURATION", help_heading = HEADING,
          value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// The authorities, in PEM, that certify the broker [default: those of the operating system]
    #[arg(long, global = true, env = "TOKENCACHE_CA_FILE", value_name = "FILE", help_heading = HEADING)]
    pub(crate) ca_file: Option<PathBuf>,

    /// Our certificate, in PEM, with those that lead to its authority; goes with --key-file
    #[arg(long, global = true, env = "TOKENCACHE_CERT_FILE", value_name = "FILE", help_heading = HEADING)]
    pub(crate) cert_file: Option<PathBuf>,

    /// The key of our certificate, in PEM
    #[arg(long, global = true, env = "TOKENCACHE_KEY_FILE", value_name = "FILE", help_heading = HEADING)]
    pub(crate) key_file: Option<PathBuf>,

    /// The name in the broker's certificate, where it is not the host's
    #[arg(long, global = true, env = "TOKENCACHE_SERVER_NAME", value_name = "NAME", help_heading = HEADING)]
    pub(crate) server_name: Option<String>,

    /// A file with the API key or bearer token that says who we are
    #[arg(long, global = true, env = "TOKENCACHE_TOKEN_FILE", value_name = "FILE", help_heading = HEADING)]
    pub(crate) token_file: Option<PathBuf>,

    /// A TOML file with the defaults of these flags: addr, admin_addr, timeout, ca_file, cert_file, key_file, server_name,
    /// token_file [default: tokencache/config.toml in $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, global = true, env = "TOKENCACHE_CONFIG", value_name = "FILE", help_heading = HEADING)]
    pub(crate) config: Option<PathBuf>,
}
