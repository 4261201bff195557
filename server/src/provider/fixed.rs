//! `provider = "fixed"`: a token that a person supplies, read anew at each mint.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Capabilities, GrantUse, MintFailure, MintRequest, MintResult, Minted, TokenProvider,
    lifetime::{LONGEST, LifetimeRule, at_least_a_second},
    registry::{BuildContext, Built, ProviderFactory, identity_of},
    text::{is_presentable, read_secret},
};
use crate::{
    config::{reader::Section, secret::SecretSource},
    error::{Error, ErrorKind},
    time::SharedClock,
};

/// The row of the registry.
pub const FACTORY: ProviderFactory = ProviderFactory { kind: "fixed", build };

/// Serves a token from a secret.
///
/// Without a `lifetime` it is taken to be valid for ten years, or until its `exp` if it is a JWT.
#[derive(Debug)]
pub struct FixedProvider {
    token: SecretSource,
    token_type: String,
    lifetime: Duration,
    clock: SharedClock,
}

fn build(section: &Section<'_>, context: &BuildContext) -> Option<Built> {
    let token = section.required("token", Section::secret);
    let token_type = section.string("token_type").unwrap_or_else(|| "Bearer".into());
    let lifetime = at_least_a_second(section, "lifetime").unwrap_or(LONGEST);
    let token = token?;
    let identity = identity_of(&["fixed", &token.identity()]);
    let provider = FixedProvider { token, token_type, lifetime, clock: Arc::clone(&context.clock) };
    Some(Built { provider: Arc::new(provider), identity, warnings: vec![] })
}

#[async_trait]
impl TokenProvider for FixedProvider {
    fn kind(&self) -> &'static str {
        "fixed"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { grant: GrantUse::None, revocable: false }
    }

    async fn mint(&self, _: MintRequest) -> MintResult {
        let access_token = read_secret(&self.token).await.map_err(MintFailure::harmless)?;
        if !is_presentable(access_token.expose()) {
            let text = format!("the token from {} has spaces at its ends or is not visible ASCII", self.token);
            return Err(MintFailure::harmless(Error::new(ErrorKind::Misconfigured, text)));
        }
        let lifetime = LifetimeRule::default().apply(Some(self.lifetime), &access_token, self.clock.now());
        Ok(Minted {
            access_token,
            token_type: self.token_type.clone(),
            lifetime,
            scopes: None,
            attributes: BTreeMap::new(),
            grant: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{conformance::request, registry::tests::build_in};

    #[tokio::test]
    async fn the_token_is_read_anew_at_each_mint() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api.token");
        std::fs::write(&file, "one\n").unwrap();
        let keys = "provider = \"fixed\"\ntoken = { file = \"api.token\" }\ntoken_type = \"Token\"";
        let provider = build_in(directory.path(), keys).unwrap().provider;

        let minted = provider.mint(request()).await.unwrap();
        assert_eq!((minted.access_token.expose().as_str(), minted.lifetime), ("one", LONGEST));
        assert_eq!(minted.token_type, "Token");
        std::fs::write(&file, "two").unwrap();
        assert_eq!(provider.mint(request()).await.unwrap().access_token.expose(), "two");
    }

    #[tokio::test]
    async fn a_token_that_cannot_stand_in_a_header_is_a_mistake_of_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let keys = "provider = \"fixed\"\ntoken = { file = \"t\" }\nlifetime = \"1h\"";
        let provider = build_in(directory.path(), keys).unwrap().provider;
        let missing = provider.mint(request()).await.unwrap_err();
        assert_eq!(missing.error.kind(), ErrorKind::Misconfigured, "{missing:?}");

        std::fs::write(directory.path().join("t"), "s3cr3t\r\nx: y").unwrap();
        let failure = provider.mint(request()).await.unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::Misconfigured);
        assert!(!failure.in_doubt && !failure.error.to_string().contains("s3cr3t"), "{failure:?}");
    }
}
