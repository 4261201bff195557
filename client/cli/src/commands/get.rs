//! `tokencache get`.

use serde_json::{Value, json};
use tokencache_client::{Freshness, GetToken, Token, TokenResponse};

use crate::{
    args::{Get, TokenFormat},
    broker::Broker,
    failure::Failure,
    output::{Output, json_time},
};

pub(crate) async fn run(broker: &Broker, get: &Get, output: &mut Output) -> Result<(), Failure> {
    let request = GetToken::of(get.ask.of(&get.name)).min_validity(get.min_validity);
    let response = broker.call(async |client| client.get_token(request).await).await?;
    if response.freshness != Freshness::Verified {
        output.warn("the replica has lost touch with the fleet: a rejection of this token may have been missed")?;
    }
    let token = response.token.as_ref().expect("only a request that names a generation is answered without a token");
    match get.output {
        TokenFormat::Text => output.write(&format!("{}\n", token.access_token.expose())),
        TokenFormat::Header => output.write(&format!("Authorization: {}\n", token.authorization().expose())),
        TokenFormat::Json => output.json(&to_json(&response, token)),
    }
}

fn to_json(response: &TokenResponse, token: &Token) -> Value {
    json!({
        "access_token": token.access_token.expose(),
        "token_type": token.token_type,
        "expires_at": json_time(Some(token.expires_at)),
        "issued_at": json_time(token.issued_at),
        "scopes": token.scopes,
        "generation": token.generation,
        "fingerprint": token.fingerprint,
        "attributes": token.attributes,
        "freshness": if response.freshness == Freshness::Verified { "verified" } else { "degraded" },
        "server_time": json_time(response.server_time),
    })
}
