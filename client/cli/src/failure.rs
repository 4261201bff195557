//! Why a command failed: one sentence with the next step, and an exit code.

use std::{fmt, io};

use tokencache_client::{Error, ErrorKind};

use crate::output;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The broker, or the way to it.
    Broker {
        /// What it said.
        error: Error,
        /// Whom we asked.
        endpoint: String,
    },
    /// What was asked for makes no sense, as the text says.
    Usage(String),
    /// Something else, as the text says, with the exit code for it.
    Other(String, u8),
    /// The broker ended a watch.
    WatchEnded,
    /// Writing, or something else of the operating system's.
    Output(io::Error),
}

impl Failure {
    /// The exit code, as `--help` tells them.
    pub(crate) fn exit_code(&self) -> u8 {
        let error = match self {
            Self::Broker { error, .. } => error,
            Self::Usage(_) => return 2,
            Self::Other(_, code) => return *code,
            Self::WatchEnded => return 4,
            Self::Output(_) => return 1,
        };
        match error.kind() {
            ErrorKind::InvalidRequest => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Unavailable | ErrorKind::Unreachable => 4,
            ErrorKind::NeedsOperator => 5,
            ErrorKind::Unauthenticated | ErrorKind::NotAllowed | ErrorKind::Throttled => 6,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (error, endpoint) = match self {
            Self::Broker { error, endpoint } => (error, endpoint),
            Self::Usage(text) | Self::Other(text, _) => return f.write_str(text),
            Self::WatchEnded => return f.write_str("the broker ended the watch: it is shutting down, so watch again"),
            Self::Output(error) => return write!(f, "cannot write the output: {error}"),
        };
        write!(f, "{error}")?;
        if let Some(reason) = error.reason() {
            write!(f, " ({reason})")?;
        }
        match error.kind() {
            ErrorKind::Unreachable => {
                write!(f, "; is tokencached listening on {endpoint}? see --addr and --admin-addr")
            }
            ErrorKind::Unimplemented => {
                write!(f, "; {endpoint} does not serve this: point --addr or --admin-addr elsewhere")
            }
            _ => match next_step(error) {
                Some(step) => write!(f, "; {step}"),
                None => Ok(()),
            },
        }
    }
}

/// What to do about an error of the broker's.
pub(crate) fn next_step(error: &Error) -> Option<String> {
    let retry = || match error.retry_after() {
        Some(delay) => format!("retry in {}", output::span(delay)),
        None => "retry later".to_owned(),
    };
    Some(match (error.reason(), error.kind()) {
        (Some("NEEDS_REAUTH"), _) => "log in again and give the broker the new grant".into(),
        (Some("MISCONFIGURED"), _) => "correct the credential's configuration".into(),
        (Some("KEY_MISSING"), _) => "give the broker its encryption key back".into(),
        (Some("CONFIG_TAMPERED"), _) => {
            "restore the credential's configuration, or configure a new refresh token".into()
        }
        (Some("TOO_MANY_INVALIDATIONS"), _) => {
            format!("the upstream refuses fresh tokens too: check the permissions there, then {}", retry())
        }
        (_, ErrorKind::NotFound) => "`tokencache list` shows what is configured".into(),
        (_, ErrorKind::Unauthenticated | ErrorKind::NotAllowed) => "ask the broker's operator for access".into(),
        (_, ErrorKind::NeedsOperator) => "`tokencache describe` tells more".into(),
        (_, ErrorKind::Internal) => "the broker's log tells more".into(),
        _ if error.is_transient() => retry(),
        _ => return None,
    })
}
