//! The exec plug-in of `client.authentication.k8s.io`.

use serde_json::{Value, json};

use super::{secret, token};
use crate::{
    args::Whose,
    broker::Broker,
    failure::Failure,
    output::{Output, json_time, whole_seconds},
};

const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

pub(super) async fn run(broker: &Broker, whose: &Whose, output: &mut Output) -> Result<(), Failure> {
    let info = std::env::var("KUBERNETES_EXEC_INFO").ok();
    let version = version(info.as_deref())?;
    let token = token(broker, whose).await?;
    let expiry = json_time(Some(whole_seconds(token.expires_at)));
    let status = json!({ "token": token.access_token.expose(), "expirationTimestamp": expiry });
    let document = json!({ "apiVersion": version, "kind": "ExecCredential", "status": status });
    output.write(secret(format!("{document}\n")).expose())
}

/// The version that was asked for.
fn version(info: Option<&str>) -> Result<&'static str, Failure> {
    let Some(info) = info.filter(|info| !info.is_empty()) else { return Ok(V1) };
    let info: Value = serde_json::from_str(info)
        .map_err(|_| Failure::Usage("KUBERNETES_EXEC_INFO is no JSON; leave it to kubectl to set it".into()))?;
    match info["apiVersion"].as_str() {
        None | Some(V1) => Ok(V1),
        Some(V1BETA1) => Ok(V1BETA1),
        Some(other) => Err(Failure::Usage(format!(
            "this program knows {V1} and v1beta1, not {other:?}; correct apiVersion in the kubeconfig"
        ))),
    }
}
