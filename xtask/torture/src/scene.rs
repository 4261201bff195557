//! What is set up: which credentials there are, and the configuration of a replica.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

/// How long an access token is valid, if nothing else is said.
pub(crate) const LIFETIME: Duration = Duration::from_secs(12);

/// How long the broker lets a call of the token endpoint take, if nothing else is said.
pub(crate) const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(3);

/// How long after a rotation the previous refresh token is still taken, where there is grace.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// How an upstream treats refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// There are none: client credentials.
    Plain,
    /// They stay.
    Kept,
    /// They rotate; the previous one brings the same successor for a while.
    Grace,
    /// They rotate; the previous one brings the same successor until that has been used, as FAPI 2.0 wants it where they
    /// rotate at all.
    Overlap,
    /// They rotate; a replay ends the family (RFC 9700 section 4.14.2).
    Strict,
}

impl Mode {
    /// Whether a call that was not seen to its end may cost the family.
    pub(crate) fn may_be_lost(self) -> bool {
        self == Self::Strict
    }

    /// Whether each use brings a new refresh token.
    pub(crate) fn rotates(self) -> bool {
        matches!(self, Self::Grace | Self::Overlap | Self::Strict)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Kept => "kept",
            Self::Grace => "grace",
            Self::Overlap => "overlap",
            Self::Strict => "strict",
        })
    }
}

/// A credential, which is a client of the provider, too, by the same name.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    /// Further lines of its section, each with its line break.
    pub(crate) rules: &'static str,
}

/// What runs, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) replicas: usize,
    pub(crate) credentials: Vec<Credential>,
    /// Of all that is random outside the replicas.
    pub(crate) seed: u64,
    /// Whether the database has a standby, where it can have one.
    pub(crate) with_standby: bool,
    /// How long the broker lets a call of the token endpoint take.
    pub(crate) timeout: Duration,
    /// Further lines of `[server]`, each with its line break.
    pub(crate) server: String,
    /// Further lines of `[defaults]`.
    pub(crate) defaults: String,
    /// What the replicas log, as `RUST_LOG` has it.
    pub(crate) log: String,
}

impl Plan {
    /// A fleet of the default rules.
    pub(crate) fn new(replicas: usize, credentials: Vec<Credential>, seed: u64) -> Self {
        Self {
            replicas,
            credentials,
            seed,
            with_standby: false,
            timeout: UPSTREAM_TIMEOUT,
            server: String::new(),
            defaults: String::new(),
            log: "info,tokencache_server=debug".to_owned(),
        }
    }
}

/// `count` credentials, of the modes in turn, with the rotating ones twice as often.
pub(crate) fn credentials(count: usize) -> Vec<Credential> {
    let modes = [Mode::Grace, Mode::Strict, Mode::Kept, Mode::Strict, Mode::Overlap, Mode::Plain];
    of_modes(&modes, count)
}

/// `count` credentials, of these modes in turn.
pub(crate) fn of_modes(modes: &[Mode], count: usize) -> Vec<Credential> {
    let of = |(i, mode): (usize, Mode)| Credential { name: format!("{mode}-{i}"), mode, rules: "" };
    modes.iter().copied().cycle().take(count).enumerate().map(|(i, mode)| of((i, mode))).collect()
}

/// The ports of a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    pub(crate) admin: u16,
    pub(crate) metrics: u16,
}

/// Where among the secrets the key is that all replicas seal with.
pub(crate) const ENCRYPTION_KEY: &str = "encryption.key";

/// Where a replica finds the others' work and the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) replica: usize,
    pub(crate) ports: Ports,
    /// The database, through the replica's own proxy.
    pub(crate) store: &'a str,
    /// The upstream's port, the same for all: it is part of what identifies a credential.
    pub(crate) upstream: u16,
    /// The upstream's port that tells which replica asks: it is configured as a proxy, which identifies nothing.
    pub(crate) own_upstream: u16,
    /// Where refresh tokens lie, as a person leaves them there.
    pub(crate) secrets: &'a Path,
}

/// The configuration of a replica.
pub(crate) fn configuration(around: &Surroundings<'_>, plan: &Plan) -> String {
    let Surroundings { replica, ports, store, .. } = around;
    let Ports { client, admin, metrics } = ports;
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:{client}\"\nadmin_listen = \"127.0.0.1:{admin}\"\n\
         metrics_listen = \"127.0.0.1:{metrics}\"\ninsecure_allow_any_caller = true\nreplica = \"r{replica}\"\n{}\n\
         [store]\nurl = \"{store}\"\n\n\
         [encryption]\nactive = \"torture\"\nkeys = {{ torture = {{ file = \"{}/{ENCRYPTION_KEY}\" }} }}\n\n\
         [defaults]\ntimeout = \"{}s\"\n{}",
        plan.server,
        around.secrets.display(),
        plan.timeout.as_secs(),
        plan.defaults
    );
    for credential in &plan.credentials {
        text.push_str(&section(around, plan.timeout, credential));
    }
    text
}

fn section(around: &Surroundings<'_>, timeout: Duration, credential: &Credential) -> String {
    let Credential { name, mode, rules } = credential;
    let secrets = around.secrets.display();
    let refresh = format!("grant = \"refresh_token\"\nrefresh_token = {{ file = \"{secrets}/{name}.rt\" }}\n");
    let grant = match mode {
        Mode::Plain => "grant = \"client_credentials\"\n".to_owned(),
        Mode::Kept => format!("{refresh}rotation = \"none\"\n"),
        // Ours for "somebody may be at it still, and a replay is no harm".
        Mode::Grace | Mode::Overlap => format!("{refresh}rotation = {{ grace = \"{}s\" }}\n", GRACE.as_secs()),
        Mode::Strict => format!("{refresh}rotation = \"strict\"\n"),
    };
    format!(
        "\n[credentials.{name}]\nprovider = \"oauth2\"\ntoken_url = \"http://127.0.0.1:{}/token\"\n\
         client_id = \"{name}\"\nclient_auth = \"client_secret_post\"\nclient_secret = {{ file = \"{secrets}/client\" }}\n\
         {grant}{rules}http = {{ proxy = \"http://127.0.0.1:{}\", connect_timeout = \"1s\", timeout = \"{}s\" }}\n",
        around.upstream,
        around.own_upstream,
        timeout.as_secs()
    )
}

/// Puts a secret into its place at once, so that nobody reads half of it.
pub(crate) fn write_secret(directory: &Path, name: &str, secret: &str) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let (new, place) = (directory.join(format!("{name}.new")), directory.join(name));
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(secret.as_bytes())?;
    fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))
}
