//! The `credential_process` of the AWS SDKs.

use serde_json::json;

use super::{secret, token};
use crate::{
    args::Whose,
    broker::Broker,
    failure::Failure,
    output::{Output, json_time, whole_seconds},
};

pub(super) async fn run(broker: &Broker, whose: &Whose, output: &mut Output) -> Result<(), Failure> {
    let token = token(broker, whose).await?;
    let attribute = |name: &str| {
        token.attributes.get(name).ok_or_else(|| {
            let credential = &whose.credential;
            Failure::Other(
                format!("the token of {credential} has no attribute {name}; add it to the credential's attributes"),
                5,
            )
        })
    };
    let document = json!({
        "Version": 1,
        "AccessKeyId": attribute("access_key_id")?,
        "SecretAccessKey": attribute("secret_access_key")?,
        "SessionToken": token.access_token.expose(),
        "Expiration": json_time(Some(whole_seconds(token.expires_at))),
    });
    output.write(secret(format!("{document}\n")).expose())
}
