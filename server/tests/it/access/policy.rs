//! What the policy sees, and what callers learn of it.

use tokencache_proto::v1::{GetTokenRequest, InvalidateTokenRequest, invalidate_token_request::Rejected};
use tonic::{Code, Status};

use crate::broker::{Broker, Over, Stage, reason};

/// A broker where anonymous callers have this grant.
async fn broker(stage: &Stage, grant: &str, credential_keys: &str) -> Broker {
    let grant = format!("[grants.a]\nsubjects = [\"anonymous\"]\n{grant}");
    let tables = format!("{grant}{}", stage.credential("crm/prod", credential_keys));
    stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await
}

async fn get(broker: &Broker, name: &str, scopes: &[&str]) -> Result<u64, Status> {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let request = GetTokenRequest { credential: name.into(), scopes, ..Default::default() };
    let answer = broker.tokens().await.get_token(request).await?;
    Ok(answer.into_inner().token.expect("a token").generation)
}

#[tokio::test]
async fn unknown_and_forbidden_look_the_same() {
    let stage = Stage::new(Over::Memory).await;
    let broker = broker(&stage, "credentials = [\"mine/*\"]\nactions = [\"get\"]\n", "").await;
    let forbidden = get(&broker, "crm/prod", &[]).await.expect_err("not theirs");
    let unknown = get(&broker, "crm/none", &[]).await.expect_err("not theirs");
    assert_eq!(
        (forbidden.code(), forbidden.message(), forbidden.details()),
        (unknown.code(), unknown.message(), unknown.details())
    );
    // Who may have whatever is called so is told that there is nothing.
    assert_eq!(reason(&get(&broker, "mine/none", &[]).await.expect_err("there is none")), "NO_SUCH_CREDENTIAL");
    broker.stop().await;
}

#[tokio::test]
async fn no_other_spelling_of_a_name_leads_to_its_credential() {
    let stage = Stage::new(Over::Memory).await;
    let broker = broker(&stage, "credentials = [\"**\"]\nactions = [\"get\"]\n", "").await;
    let spellings = [
        "CRM/prod",
        "crm/Prod",
        "crm/prod ",
        " crm/prod",
        "crm//prod",
        "crm/./prod",
        "crm/../crm/prod",
        "/crm/prod",
        "crm/prod/",
        "crm\\prod",
        "crm%2fprod",
        "crm/prod\0",
        "crm/prod\n",
        "crm\u{2215}prod",
        "crm/pr\u{43e}d",
        "\u{ff43}rm/prod",
        "crm/prod\u{200b}",
        "crm/pro\u{301}d",
        "crm/prod\u{ad}",
        "\u{202e}crm/prod",
        "crm/prod#",
        "crm/prod?",
        "crm/prod;x",
        "",
    ];
    for name in spellings {
        let refused = get(&broker, name, &[]).await.expect_err(name);
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "BAD_NAME"), "{name:?}");
    }
    for name in ["crm/pro", "crm/prodd", "crm.prod", "crm-prod", "prod", "crm"] {
        assert_eq!(reason(&get(&broker, name, &[]).await.expect_err(name)), "NO_SUCH_CREDENTIAL", "{name:?}");
    }
    assert_eq!(stage.upstream.calls(), 0);
    assert_eq!(get(&broker, "crm/prod", &[]).await.expect("the right spelling"), 1);
    broker.stop().await;
}

#[tokio::test]
async fn the_policy_sees_the_scopes_that_will_be_asked_for() {
    let stage = Stage::new(Over::Memory).await;
    let grant = "credentials = [\"crm/*\"]\nactions = [\"get\"]\nscopes = [\"read:*\"]\n";
    let narrow = broker(&stage, grant, "scopes = [\"read:a\"]\n").await;
    // The credential's own scopes count where the request names none.
    assert_eq!(get(&narrow, "crm/prod", &[]).await.expect("within the limit"), 1);
    assert_eq!(get(&narrow, "crm/prod", &["read:b"]).await.expect("within the limit"), 1);
    for scopes in [&["write:a"][..], &["read:a", "write:a"]] {
        assert_eq!(reason(&get(&narrow, "crm/prod", scopes).await.expect_err("beyond it")), "NOT_ALLOWED");
    }
    narrow.stop().await;
    let wide = broker(&stage, grant, "scopes = [\"read:a\", \"admin\"]\n").await;
    assert_eq!(reason(&get(&wide, "crm/prod", &[]).await.expect_err("the defaults are beyond it")), "NOT_ALLOWED");
    wide.stop().await;
    let open = broker(&stage, grant, "").await;
    assert_eq!(reason(&get(&open, "crm/prod", &[]).await.expect_err("the upstream would choose")), "NOT_ALLOWED");
    open.stop().await;
}

#[tokio::test]
async fn a_report_needs_the_right_to_invalidate_whichever_rpc_carries_it() {
    let stage = Stage::new(Over::Memory).await;
    let broker = broker(&stage, "credentials = [\"**\"]\nactions = [\"get\"]\n", "").await;
    assert_eq!(get(&broker, "crm/prod", &[]).await.expect("a token"), 1);
    let report = GetTokenRequest { credential: "crm/prod".into(), rejected_generation: 1, ..Default::default() };
    let refused = broker.tokens().await.get_token(report).await.expect_err("a report");
    assert_eq!(reason(&refused), "NOT_ALLOWED");
    let report = InvalidateTokenRequest {
        credential: "crm/prod".into(),
        rejected: Some(Rejected::Generation(1)),
        ..Default::default()
    };
    assert_eq!(reason(&broker.tokens().await.invalidate_token(report).await.expect_err("a report")), "NOT_ALLOWED");
    assert_eq!((get(&broker, "crm/prod", &[]).await.expect("the same token"), stage.upstream.calls()), (1, 1));
    broker.stop().await;
}
