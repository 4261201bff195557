//! Sends a request with ureq and a token of the broker's, without an async runtime:
//! `cargo run -p tokencache-client --features blocking --example blocking -- CREDENTIAL http://HOST/PATH`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is an example of a program")]

use std::error::Error;

use tokencache_client::{Client, Refusal, blocking::BlockingSource};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(credential), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: blocking CREDENTIAL URL".into());
    };
    let source = BlockingSource::new(Client::builder(), credential)?;
    let session = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let mut answer = source.send(
        |token| session.get(&url).header("authorization", token.authorization().expose()).call(),
        |answer| (answer.status() == 401).then(|| Refusal::status(401)),
    )??;
    eprintln!("{}", answer.status());
    println!("{}", answer.body_mut().read_to_string()?);
    Ok(())
}
