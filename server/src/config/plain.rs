//! Warns of secrets that stand in the file where any text may stand: in the parameters and bodies of requests.

use super::reader::Value;

/// What the names of secrets have in common, in lower case.
const TELLING: [&str; 8] =
    ["authorization", "passwd", "password", "passphrase", "secret", "api_key", "apikey", "api-key"];

/// Looks into the tables of a credential. Its own keys are left out: those for secrets take no plain text anyway.
pub(super) fn warn_of_plain_secrets(credential: &Value<'_>) {
    for (_, value) in credential.entries().unwrap_or_default() {
        look_into(&value);
    }
}

/// Goes as deep as the parser of TOML allows, which is bounded.
fn look_into(value: &Value<'_>) {
    if value.get().is_array() {
        value.items().unwrap_or_default().iter().for_each(look_into);
    }
    if !value.get().is_table() {
        return;
    }
    for (key, inner) in value.entries().unwrap_or_default() {
        let key = key.to_ascii_lowercase();
        if inner.get().is_str() && TELLING.iter().any(|word| key.contains(word)) {
            inner.warn(
                "this looks like a secret in plain text: \
                 write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"PROGRAM\", …] }",
            );
        }
        look_into(&inner);
    }
}
