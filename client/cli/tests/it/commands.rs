//! What each command prints.

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::fake::{FINGERPRINT, SECRET, command, run, serve};

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).unwrap()
}

#[tokio::test]
async fn get_prints_the_token_alone() {
    let (_, output) = run(&["get", "demo"]).await;
    assert_eq!(stdout(&output), format!("{SECRET}\n"));
}

#[tokio::test]
async fn get_prints_the_header_for_curl() {
    let (_, output) = run(&["get", "demo", "--output", "header"]).await;
    assert_eq!(stdout(&output), format!("Authorization: Bearer {SECRET}\n"));
}

#[tokio::test]
async fn get_prints_all_that_is_known_as_json() {
    let (broker, output) = run(&["get", "demo", "--scope", "read", "--min-validity", "5m", "--output", "json"]).await;
    let object = json(&output);
    assert!(object["server_time"].is_string());
    let expected = json!({
        "access_token": SECRET,
        "token_type": "Bearer",
        "expires_at": broker.expires_at().to_string(),
        "issued_at": broker.issued_at().to_string(),
        "scopes": ["read", "write"],
        "generation": 3,
        "fingerprint": FINGERPRINT,
        "attributes": { "instance_url": "https://i.example" },
        "freshness": "verified",
        "server_time": object["server_time"],
    });
    assert_eq!(object, expected);
}

#[tokio::test]
async fn list_prints_every_page_as_one_table() {
    let (_, output) = run(&["list"]).await;
    let expected = "\
NAME   PROVIDER  STATE            TOKENS  NEXT EXPIRY
demo   oauth2    refresh-failing  1       in 3days 12h
later  session   idle             0       -
";
    assert_eq!(stdout(&output), expected);
}

#[tokio::test]
async fn list_prints_json_for_programs() {
    let (broker, output) = run(&["list", "-o", "json"]).await;
    let expiry = broker.expires_at().to_string();
    let demo = json!({
        "name": "demo", "provider": "oauth2", "state": "refresh-failing", "token_count": 1, "next_expiry": expiry,
    });
    let later =
        json!({ "name": "later", "provider": "session", "state": "idle", "token_count": 0, "next_expiry": null });
    assert_eq!(json(&output), json!({ "credentials": [demo, later] }));
}

#[tokio::test]
async fn describe_explains_a_credential_in_words() {
    let (broker, output) = run(&["describe", "demo"]).await;
    let (issued, expires) = (broker.issued_at(), broker.expires_at());
    let expected = format!(
        "\
demo (oauth2): refresh-failing
the last refresh failed
what to do: nothing yet, the token at hand is valid; if the attempts keep failing, look at the upstream

grant
  state        live
  version      5
  fingerprint  0123456789abcdef
  changed      {issued} (3days 12h ago)

endpoint
  origin      https://idp.example
  state       open
  calls       1 of 32
  failures    6 in a row
  not before  {expires} (in 3days 12h)
  probed by   nobody

token 1 of 1
  scopes        read write
  audience      -
  resources     -
  state         refresh-failing
  generation    3; served from 2 on
  fingerprint   0123456789abcdef
  issued        {issued} (3days 12h ago)
  expires       {expires} (in 3days 12h)
  next refresh  {expires} (in 3days 12h)
  not before    -
  failures      1 since the last success
  lease         r1, lapses in 3days 12h
  last used     3days 12h ago
  watchers      2

last attempts
  WHEN           TOOK  REPLICA  OUTCOME
  3days 12h ago  1s    r1       UPSTREAM_DOWN: idp.example refuses connections
  3days 12h ago  1s    r1       a token
"
    );
    assert_eq!(stdout(&output), expected);
}

#[tokio::test]
async fn describe_prints_json_for_programs() {
    let (broker, output) = run(&["describe", "demo", "-o", "json"]).await;
    let object = json(&output);
    let token = &object["tokens"][0];
    assert_eq!(object["credential"]["state"], "refresh-failing");
    assert_eq!(object["grant"]["needs_reauth_reason"], "");
    assert_eq!(object["endpoint"]["state"], "open");
    assert_eq!(object["endpoint"]["next_attempt_at"], broker.expires_at().to_string());
    assert_eq!(token["expires_at"], broker.expires_at().to_string());
    assert_eq!(token["next_attempt_at"], Value::Null);
    let error = json!({ "reason": "UPSTREAM_DOWN", "message": "idp.example refuses connections" });
    assert_eq!(token["attempts"][0]["error"], error);
    assert_eq!(token["attempts"][0]["duration_ms"], 1500);
    assert_eq!(token["attempts"][1]["error"], Value::Null);
    assert_eq!(token["lease"]["owner"], "r1");
}

#[tokio::test]
async fn refresh_tells_of_the_new_token_without_showing_it() {
    let (_, output) = run(&["refresh", "demo"]).await;
    assert_eq!(stdout(&output), "refreshed: generation 3, fingerprint 0123456789abcdef, expires in 3days 12h\n");
    let (_, output) = run(&["refresh", "demo", "-o", "json"]).await;
    assert_eq!(json(&output)["generation"], 3);
}

#[tokio::test]
async fn invalidate_tells_whether_the_report_changed_anything() {
    let (_, output) = run(&["invalidate", "demo", "--generation", "3"]).await;
    assert_eq!(stdout(&output), "invalidated: generation 4 is the lowest that may still be used\n");
    let forbidden = ["invalidate", "demo", "--fingerprint", FINGERPRINT, "--http-status", "403", "-o", "json"];
    let (_, output) = run(&forbidden).await;
    assert_eq!(json(&output), json!({ "invalidated": false, "min_generation": 4 }));
    let (_, output) = run(&["invalidate", "demo", "--generation", "2"]).await;
    assert!(stdout(&output).starts_with("unchanged: "));
}

#[tokio::test]
async fn watch_prints_a_line_per_event_without_the_token() {
    let (_, output) = run(&["watch", "demo"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once("Z demo ").unwrap().1).collect();
    let expected = [
        "token generation=3 fingerprint=0123456789abcdef expires in 3days 12h",
        "invalidated: generations below 4 are refused by the upstream",
        "unavailable: idp.example refuses connections (UPSTREAM_DOWN); retry later",
    ];
    assert_eq!(lines, expected);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the broker ended the watch"));
}

#[tokio::test]
async fn watch_puts_the_token_into_json_lines_only_when_told_to() {
    for (show, expected) in [(false, Value::Null), (true, Value::from(SECRET))] {
        let arguments = ["watch", "demo", "-o", "json", "--show-token"];
        let (_, output) = run(&arguments[..if show { 5 } else { 4 }]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["access_token"], expected);
        assert_eq!(lines[0]["event"], "token");
        assert_eq!(lines[1]["min_generation"], 4);
        assert_eq!(lines[2]["reason"], "UPSTREAM_DOWN");
    }
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_failure() {
    let (_, endpoint) = serve().await;
    let mut child =
        command(&["--addr", &endpoint, "watch", "demo"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[tokio::test]
async fn replicas_shows_who_has_lost_touch() {
    let (_, output) = run(&["replicas"]).await;
    let expected = "\
REPLICA       VERSION  STARTED        IN TOUCH                    APPLIED EVENT  MISSING
r1 (answers)  0.1.0    3days 12h ago  for 2s                      41             0
r2            0.1.0    3days 12h ago  lapsed: it serves degraded  41             1
";
    assert_eq!(stdout(&output), expected);
    let (broker, output) = run(&["replicas", "-o", "json"]).await;
    let object = json(&output);
    assert_eq!(object["replicas"][0]["started_at"], broker.issued_at().to_string());
    assert_eq!(object["replicas"][1]["lease_remaining_ms"], 0);
    assert_eq!(object["replicas"][1]["missing_events"], json!([39]));
}

#[tokio::test]
async fn explain_says_in_sentences_what_is_and_what_to_do() {
    let (_, output) = run(&["explain", "demo"]).await;
    let expected = "\
demo is refresh-failing. The last refresh failed.
The last attempt, 3days 12h ago, failed: idp.example refuses connections (UPSTREAM_DOWN).
Next step: nothing yet, the token at hand is valid; if the attempts keep failing, look at the upstream.
";
    assert_eq!(stdout(&output), expected);
    let (_, output) = run(&["explain", "demo", "-o", "json"]).await;
    let object = json(&output);
    assert_eq!(object["state"], "refresh-failing");
    assert_eq!(object["last_error"], "idp.example refuses connections (UPSTREAM_DOWN)");
}

#[tokio::test]
async fn completions_need_no_broker() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = command(&["completions", shell]).output().await.unwrap();
        assert!(stdout(&output).contains("replicas"), "{shell}");
    }
}

#[tokio::test]
async fn audit_list_shows_all_pages_and_audit_tail_what_comes() {
    for (arguments, code) in [(["audit", "list"], 0), (["audit", "tail"], 4)] {
        let (_, output) = run(&arguments).await;
        assert_eq!(output.status.code(), Some(code), "a broker that ends the stream is shutting down: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("2027-01-15T08:00:00Z r1 token_issued OK subject=uid:1000 peer=unix"), "{text}");
        assert!(lines[0].contains("credential=demo") && lines[0].contains("fingerprint=0123456789abcdef"), "{text}");
    }
    let (_, output) = run(&["audit", "list", "--limit", "1", "-o", "json"]).await;
    assert_eq!(stdout(&output), "{}\n");
    let (_, output) = run(&["audit", "list", "--kind", "nonsense"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
