//! `tokencache credential-helper`.

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use tokencache_client::{GetToken, Rejection, Secret, Token};
use zeroize::Zeroizing;

use crate::{
    args::{Helper, Kind, Whose},
    broker::Broker,
    failure::Failure,
    output::Output,
};

mod aws;
mod docker;
mod git;
mod kubernetes;

/// More than any program that asks has to say.
const LONGEST_QUESTION: u64 = 1 << 20;

pub(crate) async fn run(
    broker: impl FnOnce() -> Result<Broker, Failure>,
    helper: &Helper,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    match &helper.kind {
        Kind::Git(git) => git::run(&broker()?, git, output).await?,
        Kind::Docker(docker) => return docker::run(broker, docker, output).await,
        Kind::Kubernetes(whose) => kubernetes::run(&broker()?, whose, output).await?,
        Kind::Aws(whose) => aws::run(&broker()?, whose, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn token(broker: &Broker, whose: &Whose) -> Result<Token, Failure> {
    let request = GetToken::of(whose.ask.of(&whose.credential));
    let response = broker.call(async |client| client.get_token(request).await).await?;
    Ok(response.token.expect("only a request that names a generation is answered without a token"))
}

/// Reports a token that the upstream refused.
async fn report(broker: &Broker, whose: &Whose, refused: &str) -> Result<(), Failure> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, refused.as_bytes());
    let fingerprint = hex::encode(&digest.as_ref()[..8]);
    let rejection = Rejection::of_fingerprint(whose.ask.of(&whose.credential), fingerprint).http_status(401);
    broker.call(async |client| client.invalidate(rejection).await).await?;
    Ok(())
}

/// What the program that asks has to say.
fn question() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin().lock().take(LONGEST_QUESTION).read_to_string(&mut text);
    read.map_err(|error| Failure::Usage(format!("cannot read the question from the standard input: {error}")))?;
    Ok(text)
}

/// Puts lines or documents together that hold a secret.
fn secret(text: impl Into<String>) -> Secret {
    Secret::new(text)
}
