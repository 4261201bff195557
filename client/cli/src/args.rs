//! The command line's arguments.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tokencache_client::{Rejection, Selector};

mod audit;
mod connection;
mod exec;
mod helper;
mod proxy;

pub(crate) use self::{
    audit::{Audit, AuditCommand, AuditList, AuditTail, Wanted},
    connection::Connection,
    exec::Exec,
    helper::{Action, Docker, Git, Helper, Kind, Whose},
    proxy::Proxy,
};

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  another failure
  2  wrong usage or an invalid request
  3  there is no such credential
  4  the broker, its store or the upstream is unavailable: retry later
  5  a person has to log in again or to correct the configuration
  6  refused: no permission, or too many requests
exec ends as its command does: 128 + N after signal N, 126 or 127 if it cannot be run.";

/// Gets, watches and inspects the access tokens of a tokencache broker
#[derive(Debug, Parser)]
#[command(name = "tokencache", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a token
    Get(Get),
    /// Print what happens to tokens, one line per event, until interrupted
    Watch(Watch),
    /// Report that the upstream refused a token
    Invalidate(Invalidate),
    /// List the credentials
    List(List),
    /// Explain a credential: its state, its tokens, the last attempts and what to do
    Describe(Describe),
    /// Say in a few sentences how a credential is and what to do
    Explain(Explain),
    /// Replace a token now
    Refresh(Refresh),
    /// List the replicas of the broker that share its store
    Replicas(Replicas),
    /// Show what the broker has recorded: who got which token, who was refused, and why
    Audit(Audit),
    /// Run a command with tokens in its environment, or in files that are kept fresh
    Exec(Exec),
    /// Listen for HTTP requests and send them on with a token
    Proxy(Proxy),
    /// Answer the programs that ask a helper for credentials
    CredentialHelper(Helper),
    /// Print what makes a shell complete this program's arguments
    Completions(Completions),
}

/// What is asked of a credential; what is left out is as configured.
#[derive(Args, Debug)]
pub(crate) struct Ask {
    /// A scope; may be repeated
    #[arg(long = "scope", value_name = "S")]
    scopes: Vec<String>,

    /// The audience
    #[arg(long, value_name = "A", default_value = "", hide_default_value = true)]
    audience: String,

    /// A resource indicator (RFC 8707); may be repeated
    #[arg(long = "resource", value_name = "R")]
    resources: Vec<String>,
}

impl Ask {
    pub(crate) fn of(&self, name: &str) -> Selector {
        Selector::new(name)
            .with_scopes(self.scopes.iter().cloned())
            .with_audience(self.audience.as_str())
            .with_resources(self.resources.iter().cloned())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The credential
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) ask: Ask,

    /// How long the token must still be valid, e.g. 5m
    #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true, value_parser = humantime::parse_duration)]
    pub(crate) min_validity: Duration,

    /// text: the token alone; header: "Authorization: Bearer ..."; json: all that is known of it
    #[arg(long, short, value_enum, default_value_t = TokenFormat::Text)]
    pub(crate) output: TokenFormat,
}

#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// The credentials
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) ask: Ask,

    /// text: a line for people; json: an object per line
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    /// Put the tokens into the JSON lines
    #[arg(long)]
    pub(crate) show_token: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Invalidate {
    /// The credential
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) ask: Ask,

    #[command(flatten)]
    which: Which,

    /// The upstream's HTTP status [default: counts as 401]
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..=599))]
    http_status: Option<u16>,

    /// The upstream's error code, e.g. invalid_token
    #[arg(long, value_name = "CODE")]
    error: Option<String>,

    /// text: a sentence; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// The token's generation
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    generation: Option<u64>,

    /// The token's fingerprint: the first 16 hexadecimal digits of its SHA-256
    #[arg(long, value_name = "F")]
    fingerprint: Option<String>,
}

impl Invalidate {
    pub(crate) fn rejection(&self) -> Rejection {
        let selector = self.ask.of(&self.name);
        let mut rejection = match (&self.which.fingerprint, self.which.generation) {
            (Some(fingerprint), _) => Rejection::of_fingerprint(selector, fingerprint),
            (None, generation) => Rejection::of_generation(selector, generation.unwrap_or_default()),
        };
        if let Some(status) = self.http_status {
            rejection = rejection.http_status(status);
        }
        if let Some(code) = &self.error {
            rejection = rejection.error(code);
        }
        rejection
    }
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// text: a table; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Describe {
    /// The credential
    pub(crate) name: String,

    /// text: words and tables; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The credential
    pub(crate) name: String,

    /// text: sentences; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Replicas {
    /// text: a table; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct Refresh {
    /// The credential
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) ask: Ask,

    /// text: a sentence; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenFormat {
    Text,
    Json,
    Header,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_arguments_contradict_nothing() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_get_takes_all_that_can_be_asked() {
        let line =
            "tokencache get crm/prod --scope a --scope b --audience x --resource urn:r --min-validity 5m -o json";
        let Command::Get(get) = parse(line).unwrap().command else { panic!("not a get") };
        let asked = Selector::new("crm/prod").with_scopes(["a", "b"]).with_audience("x").with_resources(["urn:r"]);
        assert_eq!(get.ask.of(&get.name), asked);
        assert_eq!((get.min_validity, get.output), (Duration::from_secs(300), TokenFormat::Json));
    }

    #[test]
    fn a_report_names_exactly_one_token() {
        let kind = |line: &str| parse(line).unwrap_err().kind();
        assert_eq!(kind("tokencache invalidate x"), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("tokencache invalidate x --generation 1 --fingerprint f"), ErrorKind::ArgumentConflict);
        assert_eq!(kind("tokencache invalidate x --generation 0"), ErrorKind::ValueValidation);
        assert_eq!(kind("tokencache invalidate x --generation 1 --http-status 99"), ErrorKind::ValueValidation);
    }

    #[test]
    fn a_report_carries_what_the_upstream_said() {
        let line = "tokencache invalidate x --fingerprint f --http-status 403 --error SESSION_EXPIRED";
        let Command::Invalidate(invalidate) = parse(line).unwrap().command else { panic!("not an invalidate") };
        let expected = Rejection::of_fingerprint("x", "f").http_status(403).error("SESSION_EXPIRED");
        assert_eq!(invalidate.rejection(), expected);
    }

    #[test]
    fn a_watch_needs_a_name() {
        assert_eq!(parse("tokencache watch").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
        let Command::Watch(watch) = parse("tokencache watch a b").unwrap().command else { panic!("not a watch") };
        assert_eq!(watch.names, ["a", "b"]);
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(parse("tokencache get x --min-validity 5").unwrap_err().kind(), ErrorKind::ValueValidation);
    }
}
