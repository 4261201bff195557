//! Where a secret of the configuration comes from: the environment, a file or a command; never the file itself.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use thiserror::Error;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};
use zeroize::Zeroizing;

use super::reader::Section;
use crate::types::Secret;

#[cfg(test)]
mod tests;

/// The largest secret, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// How long a source may take: a command may hang, and so may a file on a dead network file system.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The source of a secret. It is read whenever the secret is needed, so that a replaced file is seen at once.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line break is not part of the secret.
    File(PathBuf),
    /// The standard output of a program, run without a shell; one trailing line break is not part of the secret. Its
    /// standard error is dropped: it may quote the secret.
    Command(Vec<String>),
}

/// Why a secret cannot be read. No variant holds any part of it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read the file {path}: {error}", path = .0.display(), error = .1)]
    File(PathBuf, io::ErrorKind),
    /// The path leads to a directory, a pipe or a device. A pipe gives a secret only once, and opening it may hang.
    #[error("{path} is not a regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// The program cannot be run.
    #[error("cannot run {0}: {1}")]
    Spawn(String, io::ErrorKind),
    /// The program failed.
    #[error("{0} failed: {1}")]
    Failed(String, ExitStatus),
    /// The source took too long.
    #[error("{0} gave no secret within {limit} s", limit = TIME_LIMIT.as_secs())]
    Slow(SecretSource),
    /// The secret is unusable.
    #[error("the secret from {0} is {1}")]
    Unusable(SecretSource, &'static str),
}

impl fmt::Display for SecretSource {
    /// Names the source; of a command only the program, for an argument may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Command(words) => write!(f, "the command {}", words.first().map_or("", String::as_str)),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SecretSource {
    /// Reads `env`, `file` or `command`, of which exactly one must be there.
    pub fn read_from(section: &Section<'_>) -> Option<Self> {
        let env = read_env(section).map(Self::Env);
        let file = section.path_of("file").map(Self::File);
        let command = read_command(section).map(Self::Command);
        if ["env", "file", "command"].iter().filter(|key| section.has(key)).count() != 1 {
            section.problem("a secret has exactly one of `env`, `file` and `command`");
            return None;
        }
        env.or(file).or(command)
    }

    /// A text that tells this source from every other one. It has the arguments of a command, which may be secret: it is
    /// made to be hashed, not to be shown.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            Self::Env(name) => format!("env {name}"),
            Self::File(path) => format!("file {}", path.display()),
            Self::Command(words) => format!("command {words:?}"),
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// If its source cannot be read within 10 s, or it is empty, not UTF-8 or longer than 64 KiB.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let slow = |_| SecretError::Slow(self.clone());
        let bytes = match self {
            Self::Env(name) => read_variable(name)?,
            Self::File(path) => timeout(TIME_LIMIT, read_file(path.clone())).await.map_err(slow)??,
            Self::Command(words) => timeout(TIME_LIMIT, run(words)).await.map_err(slow)??,
        };
        self.secret_in(&bytes)
    }

    /// The mode of a file that others than its owner can read or write, if this is one.
    pub(crate) fn open_mode(&self) -> Option<(&Path, u32)> {
        use std::os::unix::fs::MetadataExt as _;

        let Self::File(path) = self else { return None };
        let mode = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.mode() & 0o777;
        (mode & 0o077 != 0).then_some((path, mode))
    }

    fn secret_in(&self, bytes: &[u8]) -> Result<Secret, SecretError> {
        let unusable = |what| SecretError::Unusable(self.clone(), what);
        if bytes.len() > MAX_LEN {
            return Err(unusable("longer than 64 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| unusable("not UTF-8"))?;
        let text = match self {
            Self::Env(_) => text,
            Self::File(_) | Self::Command(_) => {
                text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
            }
        };
        if text.is_empty() {
            return Err(unusable("empty"));
        }
        Ok(Secret::from(text))
    }
}

fn read_env(section: &Section<'_>) -> Option<String> {
    let name = section.string("env")?;
    if name.contains(['$', '=', '\0', '{', '}']) || name.contains(char::is_whitespace) {
        section.problem_at(
            "env",
            "expected the name of an environment variable alone, without `$`, such as \"CI_SECRET\"",
        );
        return None;
    }
    Some(name)
}

/// A program with a slash in its name is looked for from the directory of the configuration, as files are; one without
/// on the `PATH`.
fn read_command(section: &Section<'_>) -> Option<Vec<String>> {
    let mut words = section.strings("command")?;
    let Some(program) = words.first_mut() else {
        section.problem_at("command", "a command has at least the name of a program");
        return None;
    };
    if program.contains('/') {
        let path = section.value("command")?.resolve(program).into_os_string();
        *program = path.into_string().ok()?;
    }
    Some(words)
}

/// Room for the largest secret and one byte that shows it is too large, allocated once: a buffer that grows leaves
/// copies of the secret behind.
fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(MAX_LEN + 64))
}

/// Read no further than this: one byte past the largest secret.
const READ_LIMIT: u64 = MAX_LEN as u64 + 1;

fn read_variable(name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    use std::os::unix::ffi::OsStringExt as _;

    let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset(name.into()))?;
    Ok(Zeroizing::new(value.into_vec()))
}

async fn read_file(path: PathBuf) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |error: io::Error| SecretError::File(path.clone(), error.kind());
    let file = path.clone();
    let read = tokio::task::spawn_blocking(move || {
        if !std::fs::metadata(&file)?.is_file() {
            return Ok(None);
        }
        let mut bytes = buffer();
        File::open(file)?.take(READ_LIMIT).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    });
    let bytes = read.await.map_err(|_| failed(io::ErrorKind::Other.into()))?.map_err(failed)?;
    bytes.ok_or(SecretError::NotAFile(path))
}

async fn run(words: &[String]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let program = words.first().map_or("", String::as_str);
    let failed = |error: io::Error| SecretError::Spawn(program.into(), error.kind());

    let mut command = Command::new(program);
    command.args(words.iter().skip(1)).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;

    let mut bytes = buffer();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(READ_LIMIT).read_to_end(&mut bytes).await.map_err(failed)?;
    }
    if bytes.len() > MAX_LEN {
        // It may go on writing for ever; the length is refused by whoever asked.
        return Ok(bytes);
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() { Ok(bytes) } else { Err(SecretError::Failed(program.into(), status)) }
}
