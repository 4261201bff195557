//! `tokencache invalidate`.

use serde_json::json;

use crate::{
    args::{Format, Invalidate},
    broker::Broker,
    failure::Failure,
    output::Output,
};

pub(crate) async fn run(broker: &Broker, invalidate: &Invalidate, output: &mut Output) -> Result<(), Failure> {
    let answer = broker.call(async |client| client.invalidate(invalidate.rejection()).await).await?;
    let min = answer.min_generation;
    match invalidate.output {
        Format::Json => output.json(&json!({ "invalidated": answer.invalidated, "min_generation": min })),
        Format::Text if answer.invalidated => {
            output.write(&format!("invalidated: generation {min} is the lowest that may still be used\n"))
        }
        Format::Text => output.write(&format!(
            "unchanged: the token was already replaced or is unknown, or the credential's reject_on says that such an \
             answer does not mean a dead token; generation {min} is the lowest that may still be used\n"
        )),
    }
}
