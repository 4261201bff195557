//! `tokencache list`.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokencache_client::{AdminClient, CredentialSummary, Error};

use crate::{
    args::{Format, List},
    broker::Broker,
    failure::Failure,
    output::{Output, json_time, now, relative_or_dash, table},
};

pub(crate) async fn run(broker: &Broker, list: &List, output: &mut Output) -> Result<(), Failure> {
    let credentials = broker.call_admin(async |client| all_pages(&client).await).await?;
    match list.output {
        Format::Json => output.json(&json!({ "credentials": credentials.iter().map(to_json).collect::<Vec<_>>() })),
        Format::Text if credentials.is_empty() => output.write("no credential is configured\n"),
        Format::Text => output.write(&to_table(&credentials, now())),
    }
}

async fn all_pages(client: &AdminClient) -> Result<Vec<CredentialSummary>, Error> {
    let mut credentials = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client.list_credentials(0, &page_token).await?;
        credentials.extend(page.credentials);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(credentials);
        }
    }
}

fn to_table(credentials: &[CredentialSummary], now: SystemTime) -> String {
    let row = |credential: &CredentialSummary| {
        [
            credential.name.clone(),
            credential.provider.clone(),
            credential.state.to_string(),
            credential.token_count.to_string(),
            relative_or_dash(credential.next_expiry, now),
        ]
    };
    table(Some(["NAME", "PROVIDER", "STATE", "TOKENS", "NEXT EXPIRY"]), credentials.iter().map(row))
}

pub(crate) fn to_json(credential: &CredentialSummary) -> Value {
    json!({
        "name": credential.name,
        "provider": credential.provider,
        "state": credential.state.as_str(),
        "token_count": credential.token_count,
        "next_expiry": json_time(credential.next_expiry),
    })
}
