//! Where a secret of the configuration comes from: the environment, a file or a command; never the file itself.

use std::{fmt, path::PathBuf, process::Stdio, time::Duration};

use thiserror::Error;
use tokio::{process::Command, time::timeout};

use super::reader::Section;
use crate::types::Secret;

/// The largest secret, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The source of a secret. It is read whenever the secret is needed, so that a replaced file is seen at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line break is not part of the secret.
    File(PathBuf),
    /// The standard output of a program, run without a shell; one trailing line break is not part of the secret.
    Command(Vec<String>),
}

/// Why a secret cannot be read. No variant holds any part of it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set, or is not Unicode.
    #[error("the environment variable {0} is not set or not UTF-8")]
    Env(String),
    /// The file cannot be read.
    #[error("cannot read the file {path}: {error}", path = .0.display(), error = .1)]
    File(PathBuf, std::io::ErrorKind),
    /// The program cannot be run.
    #[error("cannot run {0}: {1}")]
    Spawn(String, std::io::ErrorKind),
    /// The program failed.
    #[error("{0} failed: {1}")]
    Failed(String, std::process::ExitStatus),
    /// The program took too long.
    #[error("{0} did not end within {limit} s", limit = COMMAND_TIMEOUT.as_secs())]
    Slow(String),
    /// The secret is unusable.
    #[error("the secret from {0} is {1}")]
    Unusable(SecretSource, &'static str),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Command(words) => write!(f, "the command {}", words.first().map_or("", String::as_str)),
        }
    }
}

impl SecretSource {
    /// Reads `env`, `file` or `command`, of which exactly one must be there.
    pub fn read_from(section: &Section<'_>) -> Option<Self> {
        let env = section.string("env").map(Self::Env);
        let file = section.path_of("file").map(Self::File);
        let command = section.strings("command").filter(|words| !words.is_empty()).map(Self::Command);
        let mut sources: Vec<_> = [env, file, command].into_iter().flatten().collect();
        if sources.len() != 1 {
            section.problem("a secret has exactly one of `env`, `file` and `command`");
            return None;
        }
        sources.pop()
    }

    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// If its source cannot be read, or it is empty, not UTF-8 or longer than 64 KiB.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let unusable = |what| SecretError::Unusable(self.clone(), what);
        let bytes = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(name.clone()))?.into_bytes(),
            Self::File(path) => {
                tokio::fs::read(path).await.map_err(|error| SecretError::File(path.clone(), error.kind()))?
            }
            Self::Command(words) => run(words).await?,
        };
        if bytes.len() > MAX_LEN {
            return Err(unusable("longer than 64 KiB"));
        }
        let mut text = String::from_utf8(bytes).map_err(|_| unusable("not UTF-8"))?;
        if !matches!(self, Self::Env(_)) {
            let end = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).map_or(text.len(), str::len);
            text.truncate(end);
        }
        if text.is_empty() {
            return Err(unusable("empty"));
        }
        Ok(Secret::new(text))
    }
}

async fn run(words: &[String]) -> Result<Vec<u8>, SecretError> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| SecretError::Spawn(String::new(), std::io::ErrorKind::InvalidInput))?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(COMMAND_TIMEOUT, output).await.map_err(|_| SecretError::Slow(program.clone()))?;
    let output = output.map_err(|error| SecretError::Spawn(program.clone(), error.kind()))?;
    if !output.status.success() {
        return Err(SecretError::Failed(program.clone(), output.status));
    }
    Ok(output.stdout)
}
