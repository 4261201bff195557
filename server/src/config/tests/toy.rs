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

/// A registry with the kinds `toy`, `toy_rotating` and `toy_hung`, which never answers.
pub(crate) fn registry() -> ProviderRegistry {
    const KINDS: [ProviderFactory; 3] = [
        ProviderFactory { kind: "toy", build: |section, _| build(section, Toy::default()) },
        ProviderFactory {
            kind: "toy_rotating",
            build: |section, _| build(section, Toy { rotates: true, hangs: false }),
        },
        ProviderFactory { kind: "toy_hung", build: |section, _| build(section, Toy { rotates: false, hangs: true }) },
    ];
    KINDS.into_iter().fold(ProviderRegistry::builtin(), ProviderRegistry::with)
}

#[derive(Debug, Default)]
struct Toy {
    rotates: bool,
    hangs: bool,
}

#[async_trait]
impl TokenProvider for Toy {
    fn kind(&self) -> &'static str {
        "toy"
    }

    fn capabilities(&self) -> Capabilities {
        let grant = if self.rotates { GrantUse::Refresh(Rotation::Strict) } else { GrantUse::None };
        Capabilities { grant, revocable: false }
    }

    async fn mint(&self, _request: MintRequest) -> MintResult {
        if self.hangs {
            std::future::pending::<()>().await;
        }
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

fn build(section: &Section<'_>, toy: Toy) -> Option<Built> {
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
    Some(Built { provider: Arc::new(toy), identity, warnings })
}
