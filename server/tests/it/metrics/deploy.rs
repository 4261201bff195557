//! What is deployed beside the broker: dashboard, alerts, Prometheus and Grafana name only what there is.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{driven, repository, scrape};

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The metrics of ours in a text of PromQL.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("tokencache_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// The queries of a dashboard.
fn queries(dashboard: &Value) -> Vec<String> {
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| panel["targets"].as_array());
    let panels = targets.flatten().map(|target| target["expr"].as_str().expect("a query").to_owned());
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    panels.chain(variables.filter_map(|variable| Some(variable["definition"].as_str()?.to_owned()))).collect()
}

/// The names of the alerts.
fn alerts(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[tokio::test]
async fn dashboard_and_alerts_name_only_metrics_that_exist() {
    let (_stage, broker) = driven().await;
    let there = scrape(&broker).await.series();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tokencache.json")).expect("it is JSON");
    let queries = queries(&dashboard);
    assert!(queries.len() > 50, "{} queries", queries.len());
    let rules = read("deploy/prometheus/alerts.yml");
    for (file, text) in [
        ("dashboard", queries.join("\n")),
        ("alerts", rules.clone()),
        ("their tests", read("deploy/prometheus/alerts.test.yml")),
        ("service levels", read("docs/operations.md").split("## Metrics").next().expect("text").to_owned()),
    ] {
        let named = named(&text);
        let gone: Vec<_> = named.difference(&there).collect();
        assert!(gone.is_empty() && named.len() > 3, "{file}: {gone:?} of {named:?}");
    }
    broker.stop().await;
}

#[test]
fn every_alert_has_its_place_in_the_runbook_and_a_test_for_firing_and_for_silence() {
    let (rules, tests, runbook) =
        (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts.test.yml"), read("docs/operations.md"));
    let alerts = alerts(&rules);
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in &alerts {
        assert!(runbook.contains(&format!("\n### {alert}\n")), "{alert} is not in the runbook");
        for what in ["fires", "stays silent"] {
            assert!(tests.contains(&format!("- name: {alert} {what}\n")), "there is no test that {alert} {what}");
        }
    }
    let written = runbook.lines().filter_map(|line| line.strip_prefix("### Tokencache"));
    let gone: Vec<_> =
        written.filter(|name| !alerts.iter().any(|alert| alert.strip_prefix("Tokencache") == Some(name))).collect();
    assert!(gone.is_empty(), "{gone:?} are in the runbook alone");
}

#[test]
fn every_panel_says_what_it_shows_and_has_its_own_place() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tokencache.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "two panels at {x}, {y}");
            }
        }
    }
}

#[test]
fn what_is_not_there_is_found() {
    assert_eq!(named("rate(tokencache_x_total{a=\"process_b\"}[5m])").len(), 2);
    let dashboard = serde_json::json!({"panels": [{"targets": [{"expr": "a"}]}, {}],
        "templating": {"list": [{"definition": "b"}, {}]}});
    assert_eq!(queries(&dashboard), ["a", "b"]);
    assert_eq!(alerts("  - alert: A\n    expr: B\n"), ["A"]);
}
