//! Rows about endpoints, and the statements on them that both dialects understand.

use std::time::Duration;

use sqlx::FromRow;

use super::rows::signed;
use crate::store::{EndpointState, EndpointView, Holder};

/// Makes the places that are missing, up to a number.
pub(in crate::store) const MAKE_SLOTS: &str = "\
    INSERT INTO endpoint_slots (endpoint, slot) \
    WITH RECURSIVE numbers (slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM numbers WHERE slot + 1 < $2) \
    SELECT $1, slot FROM numbers WHERE true ON CONFLICT DO NOTHING";

/// Of one that works nothing is kept.
pub(in crate::store) const FORGET_ENDPOINT: &str = "DELETE FROM endpoints WHERE endpoint = $1";

/// A row of `endpoints`, with its times in milliseconds from now by the database's clock.
#[derive(FromRow)]
pub(in crate::store) struct EndpointColumns {
    failures: i64,
    openings: i64,
    open_for: Option<i64>,
    wait_for: Option<i64>,
    throttled: bool,
    probe_owner: Option<String>,
    probe_for: Option<i64>,
}

impl From<EndpointColumns> for EndpointState {
    fn from(row: EndpointColumns) -> Self {
        let count = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
        let probe = row.probe_owner.zip(row.probe_for);
        let state = Self {
            failures: count(row.failures),
            openings: count(row.openings),
            open_for: row.open_for.map(duration),
            wait: row.wait_for.map(duration).unwrap_or_default(),
            throttled: row.throttled,
            probe: probe.map(|(owner, left)| Holder { owner, remaining: duration(left) }),
        };
        // What it asked for is over.
        Self { throttled: state.throttled && !state.wait.is_zero(), ..state }
    }
}

/// What is past is over: zero.
fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A state as the parameters of a statement, in milliseconds from now.
pub(in crate::store) struct EndpointParameters {
    pub(in crate::store) failures: i64,
    pub(in crate::store) openings: i64,
    pub(in crate::store) open_for: Option<i64>,
    pub(in crate::store) wait_for: Option<i64>,
    pub(in crate::store) throttled: bool,
    pub(in crate::store) probe_owner: Option<String>,
    pub(in crate::store) probe_for: Option<i64>,
}

impl From<&EndpointState> for EndpointParameters {
    fn from(state: &EndpointState) -> Self {
        let millis = |duration: Duration| signed(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Self {
            failures: i64::from(state.failures),
            openings: i64::from(state.openings),
            open_for: state.open_for.map(millis),
            wait_for: Some(state.wait).filter(|wait| !wait.is_zero()).map(millis),
            throttled: state.throttled,
            probe_owner: state.probe.as_ref().map(|prober| prober.owner.clone()),
            probe_for: state.probe.as_ref().map(|prober| millis(prober.remaining)),
        }
    }
}

/// What is known of an endpoint, and how many call it.
#[derive(FromRow)]
pub(in crate::store) struct ViewColumns {
    calls: i64,
    #[sqlx(flatten)]
    state: EndpointColumns,
}

impl From<ViewColumns> for EndpointView {
    fn from(row: ViewColumns) -> Self {
        Self { state: row.state.into(), calls: u32::try_from(row.calls).unwrap_or(u32::MAX) }
    }
}
