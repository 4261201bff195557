//! The configuration is followed as it changes: all of it, or nothing.

use std::fs;

use tokencache_client::GetToken;
use tokencache_server::{
    app::{App, Assembly, CLIENT_API},
    config::{Config, Listen},
    lifecycle::Shutdown,
    provider::registry::ProviderRegistry,
};

use crate::broker::{Over, Stage, eventually};

fn grant(credentials: &str) -> String {
    format!("[grants.a]\nsubjects = [\"anonymous\"]\ncredentials = [{credentials:?}]\nactions = [\"get\"]\n")
}

#[tokio::test]
async fn grants_are_taken_over_as_the_file_changes_and_mistakes_change_nothing() {
    let stage = Stage::new(Over::Memory).await;
    let file = stage.path("tokencached.toml");
    let write = |grants: &str| {
        let tables = format!("{grants}{}{}", stage.credential("one", ""), stage.credential("two", ""));
        let text = stage.text_with("insecure_allow_any_caller = true\n", &tables);
        // As editors and Kubernetes do: replaced, never half written.
        fs::write(stage.path("new.toml"), text)
            .and_then(|()| fs::rename(stage.path("new.toml"), &file))
            .expect("a file");
    };
    write(&grant("one"));
    let providers = ProviderRegistry::builtin();
    let config = Config::load(&file, &providers).expect("a valid configuration");
    let assembly = Assembly { config_file: Some(file.clone()), ..Assembly::standard(false, &providers) };
    let app = App::build(config, assembly).await.expect("free ports");
    let client = app.addresses().into_iter().find_map(|(what, listen)| match listen {
        Listen::Tcp(address) if what == CLIENT_API => Some(address),
        _ => None,
    });
    let (shutdown, client) = (Shutdown::default(), client.expect("it listens"));
    let running = tokio::spawn(app.run(shutdown.clone()));
    let client = tokencache_client::Client::builder().endpoint(format!("http://{client}")).build().expect("valid");
    let may = async |name: &str| client.get_token(GetToken::of(name)).await.is_ok();
    eventually("the first grant counts", async || may("one").await && !may("two").await).await;
    write(&grant("two"));
    eventually("the second grant counts", async || may("two").await && !may("one").await).await;
    write(&(grant("one") + "[grants.b]\nsubjects = [\"nobody\"]\ncredentials = [\"two\"]\nactions = [\"get\"]\n"));
    // Longer than it takes to look at the file.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(may("two").await && !may("one").await, "a file with a mistake changes nothing");
    write(&grant("**"));
    eventually("the mended file counts", async || may("one").await && may("two").await).await;
    shutdown.orderly.cancel();
    running.await.expect("no panic").expect("nothing is left");
}
