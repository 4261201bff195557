//! Audit events.

use crate::{
    store::{AuditFilter, AuditRow, SharedStore},
    time::Timestamp,
};

fn row(chain: &str, sequence: u64) -> AuditRow {
    let at = Timestamp::from_millis(1_800_000_000_000 + i64::try_from(sequence).expect("a small number"));
    let (subject, credential) = ("uid:1000".to_owned(), format!("c{}", sequence % 2));
    let kind = if sequence == 0 { "started" } else { "token_issued" };
    let line = format!("{{\"sequence\":{sequence},\"text\":\"\u{e9}\\u0000'\"}}");
    AuditRow { id: 0, chain: chain.into(), sequence, at, kind: kind.into(), subject, credential, line }
}

async fn append(store: &SharedStore, rows: &[AuditRow]) {
    store.append_audit(rows.to_vec()).await.expect("the store answers");
}

async fn find(store: &SharedStore, filter: AuditFilter) -> Vec<AuditRow> {
    store.audit_events(0, filter, 1000).await.expect("the store answers")
}

fn without_place(rows: Vec<AuditRow>) -> Vec<AuditRow> {
    rows.into_iter().map(|row| AuditRow { id: 0, ..row }).collect()
}

pub(super) async fn audit_events_reload_equal_in_their_order(store: SharedStore) {
    let rows: Vec<_> = (0..300).map(|sequence| row("a", sequence)).collect();
    append(&store, &rows[..200]).await;
    append(&store, &rows[200..]).await;
    append(&store, &[]).await;
    let found = find(&store, AuditFilter::default()).await;
    assert!(found[0].id > 0 && found.is_sorted_by(|one, next| one.id < next.id));
    assert_eq!(without_place(found), rows);
}

pub(super) async fn an_audit_event_is_kept_once(store: SharedStore) {
    append(&store, &[row("a", 0), row("a", 1)]).await;
    let other = AuditRow { line: "another".into(), ..row("a", 1) };
    append(&store, &[row("a", 0), other, row("a", 2), row("b", 1)]).await;
    let found = without_place(find(&store, AuditFilter::default()).await);
    assert_eq!(found, [row("a", 0), row("a", 1), row("a", 2), row("b", 1)]);
}

pub(super) async fn audit_events_are_found_by_what_they_are(store: SharedStore) {
    let rows: Vec<_> = (0..4).map(|sequence| row("a", sequence)).collect();
    let stranger = AuditRow { subject: "anonymous".into(), ..row("b", 9) };
    append(&store, &[&rows[..], &[stranger]].concat()).await;
    let sequences = async |filter| find(&store, filter).await.into_iter().map(|row| row.sequence).collect::<Vec<_>>();
    let any = AuditFilter::default;
    assert_eq!(sequences(any()).await, [0, 1, 2, 3, 9]);
    assert_eq!(sequences(AuditFilter { kind: "started".into(), ..any() }).await, [0]);
    assert_eq!(sequences(AuditFilter { subject: "anonymous".into(), ..any() }).await, [9]);
    assert_eq!(sequences(AuditFilter { credential: "c1".into(), ..any() }).await, [1, 3, 9]);
    let both = AuditFilter { credential: "c1".into(), subject: "uid:1000".into(), ..any() };
    assert_eq!(sequences(both).await, [1, 3]);
    assert_eq!(sequences(AuditFilter { from: rows[1].at, until: rows[3].at, ..any() }).await, [1, 2]);
    assert_eq!(sequences(AuditFilter { subject: "' OR ''='".into(), ..any() }).await, Vec::<u64>::new());
}

pub(super) async fn audit_events_are_paged(store: SharedStore) {
    let rows: Vec<_> = (0..7).map(|sequence| row("a", sequence)).collect();
    append(&store, &rows).await;
    let mut seen: Vec<AuditRow> = vec![];
    loop {
        let after = seen.last().map_or(0, |row| row.id);
        let page = store.audit_events(after, AuditFilter::default(), 3).await.expect("the store answers");
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(without_place(seen), rows);
}

pub(super) async fn old_audit_events_are_pruned(store: SharedStore) {
    let rows: Vec<_> = (0..7).map(|sequence| row("a", sequence)).collect();
    append(&store, &rows).await;
    assert_eq!(store.prune_audit(Timestamp::MIN).await, Ok(0));
    assert_eq!(store.prune_audit(rows[3].at).await, Ok(3), "one is kept at its own age");
    let found = find(&store, AuditFilter::default()).await;
    let last = found.last().expect("some are left").id;
    assert_eq!(without_place(found), rows[3..]);
    assert_eq!(store.prune_audit(Timestamp::MAX).await, Ok(4));
    append(&store, &[row("b", 0)]).await;
    assert!(find(&store, AuditFilter::default()).await[0].id > last, "a place is not used again");
}
