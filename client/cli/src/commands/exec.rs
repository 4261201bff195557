//! `tokencache exec`.

use std::{
    collections::BTreeMap,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use tokencache_client::{GetToken, Secret};

use crate::{args::Exec, broker::Broker, failure::Failure};

mod child;
mod file;

use self::file::RefreshFile;

pub(crate) async fn run(broker: &Broker, exec: &Exec) -> Result<ExitCode, Failure> {
    let variables = variables(exec)?;
    let (program, arguments) = exec.command.split_first().expect("clap requires it");
    let mut command = Command::new(program);
    command.args(arguments);
    let files = keep_files(broker, exec).await?;
    for (variable, token) in tokens(broker, exec, &variables, &files).await? {
        command.env(variable, token.expose());
    }
    if files.is_empty() {
        // We become the command: signals, the exit code and the terminal are its own.
        return Err(cannot_run(program, &command.exec()));
    }
    let mut command = tokio::process::Command::from(command);
    let signals = child::signals()?;
    let child = command.spawn().map_err(|error| cannot_run(program, &error))?;
    child::run(child, signals, files).await
}

/// The variable from which this program takes the name of a file, which a token must never be taken for.
const RESERVED: &str = "TOKENCACHE_TOKEN_FILE";

/// Which credential's token is in which variable.
fn variables(exec: &Exec) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    let mut add = |variable: String, name: &str| {
        if variable == RESERVED {
            let text = format!("{RESERVED} names a file for tokencache itself; choose another with --env VAR={name}");
            return Err(Failure::Usage(text));
        }
        match variables.insert(variable.clone(), name.to_owned()) {
            Some(other) if other != name => Err(Failure::Usage(format!(
                "{variable} would be the token of both {other} and {name}; choose other variables with --env VAR=NAME"
            ))),
            _ => Ok(()),
        }
    };
    for (variable, name) in &exec.variables {
        add(variable.clone(), name)?;
    }
    for name in &exec.names {
        if exec.variables.iter().any(|(_, chosen)| chosen == name) {
            continue;
        }
        if exec.names.len() == 1 {
            add("TOKENCACHE_TOKEN".into(), name)?;
        }
        let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
        add(format!("TOKENCACHE_TOKEN_{}", name.chars().map(letter).collect::<String>()), name)?;
    }
    Ok(variables)
}

/// Writes the files for the first time.
async fn keep_files(broker: &Broker, exec: &Exec) -> Result<Vec<RefreshFile>, Failure> {
    let mut files = vec![];
    if exec.refresh_files.is_empty() {
        return Ok(files);
    }
    let client = broker.client()?;
    for (name, path) in &exec.refresh_files {
        let mut file = RefreshFile::new(&client, exec.ask.of(name), path);
        broker.wait(file.source().get()).await?;
        file.write_next().await?;
        files.push(file);
    }
    Ok(files)
}

async fn tokens(
    broker: &Broker,
    exec: &Exec,
    variables: &BTreeMap<String, String>,
    files: &[RefreshFile],
) -> Result<Vec<(String, Secret)>, Failure> {
    let mut known = BTreeMap::new();
    for source in files.iter().map(RefreshFile::source) {
        let token = broker.wait(source.get()).await?;
        known.insert(source.selector().credential().to_owned(), token.access_token.clone());
    }
    let mut tokens = vec![];
    for (variable, name) in variables {
        if !known.contains_key(name) {
            let request = GetToken::of(exec.ask.of(name));
            let response = broker.call(async |client| client.get_token(request).await).await?;
            let token = response.token.expect("only a request that names a generation is answered without a token");
            known.insert(name.clone(), token.access_token);
        }
        tokens.push((variable.clone(), known[name].clone()));
    }
    Ok(tokens)
}

/// With the exit codes of a shell.
fn cannot_run(program: &std::ffi::OsStr, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Failure::Other(format!("cannot run {}: {error}; is it in PATH?", program.display()), code)
}
