//! `tokencache proxy`.

use serde_json::json;
use tokencache_client::TokenAuth;

use crate::{
    args::{Format, Proxy},
    broker::Broker,
    failure::Failure,
    output::Output,
};

mod answer;
mod forward;
mod headers;
mod listener;
mod server;
mod upgrade;
mod upstream;

use self::{forward::Forward, listener::Listener, upstream::Upstream};

pub(crate) async fn run(broker: &Broker, proxy: &Proxy, output: &mut Output) -> Result<(), Failure> {
    let source = broker.client()?.source(proxy.ask.of(&proxy.credential));
    let mut auth = TokenAuth::new(source).header(proxy.header.clone()).body_limit(proxy.max_body);
    if let Some(scheme) = &proxy.scheme {
        auth = auth.scheme(scheme);
    }
    let upstream = Upstream::new(proxy)?;
    let listener = Listener::bind(&proxy.listen, proxy.allow_remote)?;
    let address = listener.address();
    let forward = Forward::new(auth, upstream, proxy.upstream.clone(), listener.host_rule());
    match proxy.output {
        Format::Text => output.write(&format!("{address}\n"))?,
        Format::Json => output.json_line(&json!({ "listen": address }))?,
    }
    server::serve(listener, forward).await
}
