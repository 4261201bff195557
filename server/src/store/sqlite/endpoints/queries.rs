//! The statements on endpoints, by SQLite's clock in milliseconds.

macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

macro_rules! state_columns {
    () => {
        concat!(
            "coalesce(failures, 0) AS failures, coalesce(openings, 0) AS openings, open_until - ",
            now!(),
            " AS open_for, wait_until - ",
            now!(),
            " AS wait_for, coalesce(throttled, 0) AS throttled, probe_owner, probe_until - ",
            now!(),
            " AS probe_for"
        )
    };
}

pub(super) const LOAD_ENDPOINT: &str = concat!("SELECT ", state_columns!(), " FROM endpoints WHERE endpoint = $1");

pub(super) const TAKE_SLOT: &str = concat!(
    "UPDATE endpoint_slots SET owner = $2, expires_at = ",
    now!(),
    " + $3 WHERE endpoint = $1 AND slot = (SELECT slot FROM endpoint_slots \
        WHERE endpoint = $1 AND slot < $4 AND (expires_at <= ",
    now!(),
    " OR owner = $2) ORDER BY owner IS NOT $2, slot LIMIT 1) RETURNING slot"
);

pub(super) const CLAIM_PROBE: &str =
    concat!("UPDATE endpoints SET probe_owner = $2, probe_until = ", now!(), " + $3 WHERE endpoint = $1");

pub(super) const RENEW_SLOT: &str = concat!(
    "UPDATE endpoint_slots SET expires_at = ",
    now!(),
    " + $3 WHERE endpoint = $1 AND slot = $4 AND owner = $2"
);

pub(super) const RENEW_PROBE: &str =
    concat!("UPDATE endpoints SET probe_until = ", now!(), " + $3 WHERE endpoint = $1 AND probe_owner = $2");

pub(super) const FREE_SLOT: &str =
    "UPDATE endpoint_slots SET owner = NULL, expires_at = 0 WHERE endpoint = $1 AND slot = $3 AND owner = $2";

pub(super) const SAVE_ENDPOINT: &str = concat!(
    "INSERT INTO endpoints (endpoint, failures, openings, open_until, wait_until, throttled, probe_owner, probe_until) \
    VALUES ($1, $2, $3, ",
    now!(),
    " + $4, ",
    now!(),
    " + $5, $6, $7, ",
    now!(),
    " + $8) ON CONFLICT (endpoint) DO UPDATE SET failures = excluded.failures, openings = excluded.openings, \
        open_until = excluded.open_until, wait_until = excluded.wait_until, throttled = excluded.throttled, \
        probe_owner = excluded.probe_owner, probe_until = excluded.probe_until"
);

pub(super) const VIEW: &str = concat!(
    "SELECT (SELECT count(*) FROM endpoint_slots WHERE endpoint = $1 AND expires_at > ",
    now!(),
    ") AS calls, ",
    state_columns!(),
    " FROM (SELECT 1) LEFT JOIN endpoints ON endpoint = $1"
);
