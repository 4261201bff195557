//! Runs the real `tokencache`.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{process::Command, time::timeout};

/// A call takes no longer than this, or hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line of tokencache, pointed at one broker.
#[derive(Debug)]
pub(crate) struct Cli {
    program: PathBuf,
    addr: String,
    admin_addr: String,
}

/// What a call printed and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output without white space at its end.
    pub(crate) text: String,
    /// Standard error likewise.
    pub(crate) complaint: String,
}

impl Cli {
    /// The program, to talk to these two addresses.
    pub(crate) fn new(program: PathBuf, addr: String, admin_addr: String) -> Self {
        Self { program, addr, admin_addr }
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Printed> {
        let mut command = Command::new(&self.program);
        command.args(["--addr", &self.addr, "--admin-addr", &self.admin_addr]).args(arguments);
        output(command).await
    }

    /// Runs it and takes what it prints, if it succeeds.
    pub(crate) async fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let printed = self.run(arguments).await?;
        ensure!(
            printed.code == 0,
            "tokencache {} ended with {}: {}",
            arguments.join(" "),
            printed.code,
            printed.complaint
        );
        Ok(printed.text)
    }
}

/// Runs a command to its end.
pub(crate) async fn output(mut command: Command) -> Result<Printed> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = timeout(PATIENCE, command.output()).await.with_context(|| format!("{program} hangs"))?;
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let code = output.status.code().with_context(|| format!("{program} ended with {}", output.status))?;
    Ok(Printed { code, text: text(&output.stdout), complaint: text(&output.stderr) })
}
