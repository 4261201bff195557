//! Sends a request with your own `reqwest::Client` and a token of the broker's:
//! `cargo run -p tokencache-client --features reqwest --example reqwest -- CREDENTIAL URL`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is an example of a program")]

use std::{error::Error, time::Duration};

use tokencache_client::{Client, Timing, TokenAuth};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(credential), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: reqwest CREDENTIAL URL".into());
    };
    let broker = Client::builder().build()?;
    // Yours: proxies, certificates, cookies, time-outs, redirects.
    let session = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let auth = TokenAuth::new(broker.source(credential));
    let session = reqwest_middleware::ClientBuilder::new(session).with(auth.middleware()).build();

    let answer = session.get(url).send().await?;
    let timing = answer.extensions().get::<Timing>().copied().unwrap_or_default();
    eprintln!("{} {timing:?}", answer.status());
    println!("{}", answer.text().await?);
    Ok(())
}
