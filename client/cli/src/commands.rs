//! The commands, one file each.

use std::process::ExitCode;

use crate::{
    args::{Arguments, Command},
    broker::Broker,
    failure::Failure,
    output::Output,
};

mod audit;
mod completions;
mod describe;
mod exec;
mod explain;
mod get;
mod helper;
mod invalidate;
mod list;
mod proxy;
mod refresh;
mod replicas;
mod watch;

/// Does what the arguments say. The exit code is that of a program that was run, if any.
pub(crate) async fn run(arguments: &Arguments, output: &mut Output) -> Result<ExitCode, Failure> {
    let broker = || Broker::of(&arguments.connection);
    match &arguments.command {
        Command::Get(get) => get::run(&broker()?, get, output).await?,
        Command::Watch(watch) => watch::run(&broker()?, watch, output).await?,
        Command::Invalidate(invalidate) => invalidate::run(&broker()?, invalidate, output).await?,
        Command::List(list) => list::run(&broker()?, list, output).await?,
        Command::Describe(describe) => describe::run(&broker()?, describe, output).await?,
        Command::Explain(explain) => explain::run(&broker()?, explain, output).await?,
        Command::Refresh(refresh) => refresh::run(&broker()?, refresh, output).await?,
        Command::Replicas(replicas) => replicas::run(&broker()?, replicas, output).await?,
        Command::Audit(audit) => audit::run(&broker()?, audit, output).await?,
        Command::Exec(exec) => return exec::run(&broker()?, exec).await,
        Command::Proxy(proxy) => proxy::run(&broker()?, proxy, output).await?,
        Command::CredentialHelper(helper) => return helper::run(broker, helper, output).await,
        Command::Completions(completions) => completions::run(completions, output)?,
    }
    Ok(ExitCode::SUCCESS)
}
