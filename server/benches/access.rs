//! What it costs a call to know its caller and to ask the policy: `cargo bench -p tokencache-server --bench access`.
//!
//! An API key or a certificate is shown, and the last of 100 grants is the one that decides. One thread, no transport.

use std::{fs, sync::Arc, time::Duration};

use tokencache_server::{
    authn::{Authenticator as _, Methods, api_key},
    policy::{
        Action, Decision, Pattern, Policy as _, Question,
        rules::{Actions, Grant, Rules, SubjectPattern},
    },
    rng::SharedRng,
    store::{MemoryTokenStore, SharedStore},
    time::{SharedClock, SystemClock},
    types::{Caller, CredentialName, Evidence, Peer, Secret, Selector},
};
use tokio::runtime::Builder;

const CALLS: u32 = 500_000;
const GRANTS: usize = 100;

fn grant(number: usize) -> Grant {
    let subject = if number + 1 == GRANTS { "key:ci".to_owned() } else { format!("spiffe://prod/ns/team-{number}/**") };
    let certificate = if number + 1 == GRANTS { "spiffe://prod/ns/ci/*" } else { "spiffe://prod/none" };
    let parse = |text: &str| SubjectPattern::parse(text).expect("a pattern");
    Grant {
        name: format!("grant-{number}").into(),
        subjects: vec![parse(&subject), parse(certificate)],
        claims: [].into(),
        credentials: vec![Pattern::parse("github-*", b'/').expect("a pattern")],
        actions: Actions::default().with(Action::Get),
        scopes: Some(vec![Pattern::parse("repo", b'/').expect("a pattern")]),
        audiences: None,
        resources: None,
    }
}

/// What the process has used of the processor.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").expect("Linux");
    // After the name, which may have spaces: fields 14 and 15, in ticks of 10 ms.
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let clock: SharedClock = Arc::new(SystemClock);
    let store: SharedStore = Arc::new(MemoryTokenStore::new(Arc::clone(&clock)));
    let (key, row) = api_key::generate("ci", clock.now(), None, &SharedRng::from_os());
    runtime.block_on(store.add_api_key(row)).expect("it is kept");
    let keys = Arc::new(api_key::ApiKeys::new(store, Arc::clone(&clock)));
    let methods = Methods { bearers: vec![keys], peer_users: false, anonymous: false, clock };
    let rules = Rules::new((0..GRANTS).map(grant).collect());
    let name = CredentialName::parse("github-ci").expect("a name");
    let selector = Selector::new(name.clone(), vec!["repo".into()], None, vec![]);
    let question = Question { action: Action::Get, credential: Some(&name), selector: Some(&selector) };

    let nobody = Evidence::of_peer(Peer::Unknown);
    let with_key = Evidence { bearer: Some(Ok(Secret::from(key.expose().as_str()))), ..nobody.clone() };
    let certificate = Caller::new("spiffe://prod/ns/ci/build");
    let with_certificate = Evidence { certificate: Some(Ok(certificate)), ..nobody };
    for (what, evidence) in [("API key", &with_key), ("certificate", &with_certificate)] {
        let begun = processor_time();
        runtime.block_on(async {
            for _ in 0..CALLS {
                let caller = methods.authenticate(evidence).await.expect("known");
                assert_ne!(rules.decide(&caller, &question), Decision::Denied);
            }
        });
        let each = (processor_time() - begun) / CALLS;
        println!("{what}, {GRANTS} grants: {} ns of the processor for each call", each.as_nanos());
    }
}
