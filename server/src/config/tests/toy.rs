//! A kind of provider that reads one key of each type.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    config::reader::Section,
    provider::{
        Capabilities, GrantUse, MintRequest, MintResult, Minted, Rotation, TokenProvider,
        registry::{Built, ProviderFactory, ProviderRegistry},
    },
    types::{Fingerprint, Secret},
};

/// A registry with the kinds `toy` and `toy_rotating`.
pub(crate) fn registry() -> ProviderRegistry {
    ProviderRegistry::builtin()
        .with(ProviderFactory { kind: "toy", build: |section, _| build(section, GrantUse::None) })
        .with(ProviderFactory {
            kind: "toy_rotating",
            build: |section, _| build(section, GrantUse::Refresh(Rotation::Strict)),
        })
}

#[derive(Debug)]
struct Toy(GrantUse);

#[async_trait]
impl TokenProvider for Toy {
    fn kind(&self) -> &'static str {
        "toy"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { grant: self.0, revocable: false }
    }

    async fn mint(&self, _request: MintRequest) -> MintResult {
        Ok(Minted {
            access_token: Secret::from("toy"),
            token_type: "Bearer".into(),
            lifetime: Duration::from_secs(1),
            scopes: None,
            attributes: Default::default(),
            grant: None,
        })
    }
}

fn build(section: &Section<'_>, grant: GrantUse) -> Option<Built> {
    let url = section.required("token_url", Section::url);
    let client_id = section.string("client_id");
    section.secret("client_secret");
    section.bool("verify");
    section.integer("size", 1..11);
    section.map("extra_params");
    section.path_of("ca_file");
    section.choice("client_auth", &[("client_secret_basic", ()), ("client_secret_post", ()), ("none", ())]);
    if let Some(http) = section.section("http") {
        http.duration("connect_timeout");
        http.finish();
    }
    let warnings = if client_id.is_none() { vec!["client_id: nobody is nobody".into()] } else { vec![] };
    let identity = Fingerprint::of_bytes(format!("{:?} {client_id:?}", url?).as_bytes());
    Some(Built { provider: Arc::new(Toy(grant)), identity, warnings })
}
