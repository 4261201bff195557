//! Sends a request with a hyper client and a token of the broker's:
//! `cargo run -p tokencache-client --features tower --example tower -- CREDENTIAL http://HOST/PATH`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is an example of a program")]

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client as Hyper, rt::TokioExecutor};
use tokencache_client::{Client, TokenAuth, tower::BodyError};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BodyError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(credential), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tower CREDENTIAL URL".into());
    };
    let broker = Client::builder().build()?;
    let session = Hyper::builder(TokioExecutor::new()).build_http();
    let auth = TokenAuth::new(broker.source(credential));
    let mut session = ServiceBuilder::new().layer(auth.layer()).service(session);

    let request = http::Request::get(url).body(Full::<Bytes>::default())?;
    let answer = session.ready().await?.call(request).await?;
    eprintln!("{}", answer.status());
    println!("{}", String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()));
    Ok(())
}
