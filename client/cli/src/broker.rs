//! How commands reach the broker.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tokencache_client::{AdminClient, Client, Error, ErrorKind};

use crate::{args::Connection, failure::Failure, settings::Settings};

/// After this time a person is told that we wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The broker, as the settings describe it.
#[derive(Debug)]
pub(crate) struct Broker(Settings);

impl Broker {
    /// Where the arguments, the environment and the file say.
    pub(crate) fn of(connection: &Connection) -> Result<Self, Failure> {
        Settings::load(connection).map(Self)
    }

    /// A client of the client API.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let builder = Client::builder().endpoints(self.0.endpoints());
        self.0.build(builder).build().map_err(|error| self.failure(error))
    }

    /// Makes a call to the client API.
    pub(crate) async fn call<T>(&self, call: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Failure> {
        let client = self.client()?;
        self.wait(call(client)).await
    }

    /// Waits for an answer; a person at a terminal is told if that takes long.
    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        patiently(&self.place(), answer).await.map_err(|error| self.failure(error))
    }

    /// Makes a call to the admin API, wherever it is.
    pub(crate) async fn call_admin<T>(
        &self,
        call: impl AsyncFn(AdminClient) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let places = self.0.admin_endpoints();
        let mut unreachable = None;
        for endpoints in &places {
            let failure = |error| Failure::Broker { error, endpoint: endpoints.join(", ") };
            let builder = self.0.build(AdminClient::builder().endpoints(endpoints.iter().copied()));
            let client = builder.build_admin().map_err(failure)?;
            match patiently(&endpoints.join(", "), call(client)).await {
                Err(error) if error.kind() == ErrorKind::Unreachable => unreachable = Some(error),
                result => return result.map_err(failure),
            }
        }
        let error = unreachable.expect("there is an endpoint, and every one of them was unreachable");
        let places: Vec<_> = places.iter().map(|endpoints| endpoints.join(", ")).collect();
        Err(Failure::Broker { error, endpoint: places.join(" or ") })
    }

    /// An error of the client API's.
    pub(crate) fn failure(&self, error: Error) -> Failure {
        Failure::Broker { error, endpoint: self.place() }
    }

    fn place(&self) -> String {
        self.0.endpoints().join(", ")
    }
}

async fn patiently<T>(place: &str, answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    if io::stderr().is_terminal() {
        tokio::select! {
            answer = &mut answer => return answer,
            () = tokio::time::sleep(PATIENCE) => {
                // If nobody reads it, nobody needed it.
                let _ = writeln!(io::stderr(), "waiting for the broker at {place} ...");
            }
        }
    }
    answer.await
}
