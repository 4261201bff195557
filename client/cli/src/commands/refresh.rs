//! `tokencache refresh`.

use super::describe;
use crate::{
    args::{Format, Refresh},
    broker::Broker,
    failure::Failure,
    output::{Output, now, relative_or_dash},
};

pub(crate) async fn run(broker: &Broker, refresh: &Refresh, output: &mut Output) -> Result<(), Failure> {
    let selector = refresh.ask.of(&refresh.name);
    let token = broker.call_admin(async |client| client.refresh_token(selector.clone()).await).await?;
    match refresh.output {
        Format::Json => output.json(&describe::token_to_json(&token)),
        Format::Text => output.write(&format!(
            "refreshed: generation {}, fingerprint {}, expires {}\n",
            token.generation,
            token.fingerprint,
            relative_or_dash(token.expires_at, now()),
        )),
    }
}
