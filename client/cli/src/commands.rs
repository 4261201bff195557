//! The commands, one file each, and how they reach the broker.

use tokencache_client::{AdminClient, Client, Error, ErrorKind};

use crate::{
    args::{Arguments, Command},
    failure::Failure,
    output::Output,
};

mod describe;
mod get;
mod invalidate;
mod list;
mod refresh;
mod watch;

/// Does what the arguments say.
pub(crate) async fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    match &arguments.command {
        Command::Get(get) => get::run(arguments, get, output).await,
        Command::Watch(watch) => watch::run(arguments, watch, output).await,
        Command::Invalidate(invalidate) => invalidate::run(arguments, invalidate, output).await,
        Command::List(list) => list::run(arguments, list, output).await,
        Command::Describe(describe) => describe::run(arguments, describe, output).await,
        Command::Refresh(refresh) => refresh::run(arguments, refresh, output).await,
    }
}

/// Makes a call to the client API.
async fn call<T>(arguments: &Arguments, call: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Failure> {
    let endpoint = arguments.endpoint();
    let failure = |error| Failure::Broker { error, endpoint: endpoint.into() };
    let client = Client::builder().endpoint(endpoint).deadline(arguments.timeout).build().map_err(failure)?;
    call(client).await.map_err(failure)
}

/// Makes a call to the admin API, wherever it is.
async fn call_admin<T>(
    arguments: &Arguments,
    call: impl AsyncFn(AdminClient) -> Result<T, Error>,
) -> Result<T, Failure> {
    let endpoints = arguments.admin_endpoints();
    let mut unreachable = None;
    for endpoint in &endpoints {
        let failure = |error| Failure::Broker { error, endpoint: (*endpoint).into() };
        let builder = AdminClient::builder().endpoint(*endpoint).deadline(arguments.timeout);
        match call(builder.build_admin().map_err(failure)?).await {
            Err(error) if error.kind() == ErrorKind::Unreachable => unreachable = Some(error),
            result => return result.map_err(failure),
        }
    }
    let error = unreachable.expect("there is an endpoint, and every one of them was unreachable");
    Err(Failure::Broker { error, endpoint: endpoints.join(" or ") })
}
