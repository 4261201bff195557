//! The statements on endpoints, by the clock of the database.

macro_rules! millis_until {
    ($column:literal) => {
        concat!("ceil(extract(epoch FROM ", $column, " - clock_timestamp()) * 1000)::bigint")
    };
}

/// The columns of an endpoint, which may be missing from a left join.
macro_rules! state_columns {
    () => {
        concat!(
            "coalesce(failures, 0) AS failures, coalesce(openings, 0) AS openings, ",
            millis_until!("open_until"),
            " AS open_for, ",
            millis_until!("wait_until"),
            " AS wait_for, coalesce(throttled, false) AS throttled, probe_owner, ",
            millis_until!("probe_until"),
            " AS probe_for"
        )
    };
}

macro_rules! give_back {
    () => {
        "WITH lease AS (DELETE FROM leases WHERE scope = $1 AND owner = $2), \
        place AS (UPDATE endpoint_slots SET owner = NULL, expires_at = 'epoch' \
            WHERE endpoint = $3 AND slot = $4 AND owner = $2) "
    };
}

/// A place that nobody holds or that is the owner's, if the endpoint is not shut or this is its probe, and then the lease.
///
/// Claims do not wait for one another: a place that another transaction is at is passed over. That the lease comes last
/// matters, too: a statement that changes rows must not be looked at by another whose rows have moved meanwhile.
pub(super) const ADMIT: &str = "\
    WITH free AS (SELECT slot FROM endpoint_slots \
        WHERE endpoint = $4 AND slot < $5 AND (expires_at <= clock_timestamp() OR owner = $2) \
            AND ($6 OR NOT EXISTS (SELECT 1 FROM endpoints \
                WHERE endpoint = $4 AND (open_until IS NOT NULL OR wait_until > clock_timestamp()))) \
        ORDER BY owner IS DISTINCT FROM $2, slot LIMIT 1 FOR UPDATE SKIP LOCKED), \
    place AS (UPDATE endpoint_slots AS taken \
        SET owner = $2, expires_at = clock_timestamp() + $3 * interval '1 millisecond' \
        FROM free WHERE taken.endpoint = $4 AND taken.slot = free.slot RETURNING taken.slot) \
    INSERT INTO leases AS held (scope, owner, expires_at) \
    SELECT $1, $2, clock_timestamp() + $3 * interval '1 millisecond' FROM place \
    ON CONFLICT (scope) DO UPDATE SET \
        owner = excluded.owner, expires_at = clock_timestamp() + $3 * interval '1 millisecond' \
    WHERE held.expires_at <= clock_timestamp() OR held.owner = excluded.owner \
    RETURNING (SELECT slot FROM place) AS slot";

/// Why that was not granted. A place that was taken although the lease is held is given back.
pub(super) const REASON: &str = concat!(
    "WITH place AS (UPDATE endpoint_slots SET owner = NULL, expires_at = 'epoch' WHERE endpoint = $3 AND owner = $2) \
    SELECT held.owner AS holder, ",
    millis_until!("held.expires_at"),
    " AS holder_for, (SELECT count(*) FROM endpoint_slots WHERE endpoint = $3) AS slots, ",
    state_columns!(),
    " FROM (VALUES (1)) AS one LEFT JOIN leases AS held ON held.scope = $1 LEFT JOIN endpoints ON endpoint = $3"
);

pub(super) const CLAIM_PROBE: &str = "\
    UPDATE endpoints SET probe_owner = $2, probe_until = clock_timestamp() + $3 * interval '1 millisecond' \
    WHERE endpoint = $1 AND (open_until IS NOT NULL OR wait_until > clock_timestamp()) \
        AND (probe_owner IS NULL OR probe_owner = $2 OR probe_until <= clock_timestamp()) \
        AND ($4 OR probe_owner = $2 OR (coalesce(open_until, '-infinity') <= clock_timestamp() \
            AND coalesce(wait_until, '-infinity') <= clock_timestamp()))";

pub(super) const ABANDON_PROBE: &str =
    "UPDATE endpoints SET probe_owner = NULL, probe_until = NULL WHERE endpoint = $1 AND probe_owner = $2";

/// All that was admitted; a row if the lease and the place are still the owner's.
pub(super) const RENEW_PASS: &str = "\
    WITH lease AS (UPDATE leases SET expires_at = clock_timestamp() + $3 * interval '1 millisecond' \
        WHERE scope = $1 AND owner = $2 RETURNING 1), \
    place AS (UPDATE endpoint_slots SET expires_at = clock_timestamp() + $3 * interval '1 millisecond' \
        WHERE endpoint = $4 AND slot = $5 AND owner = $2 RETURNING 1), \
    probe AS (UPDATE endpoints SET probe_until = clock_timestamp() + $3 * interval '1 millisecond' \
        WHERE endpoint = $4 AND probe_owner = $2) \
    SELECT 1 FROM lease, place";

/// After a success nothing is kept of the endpoint, and nothing is written if there was nothing.
pub(super) const DEPART_WELL: &str =
    concat!(give_back!(), "DELETE FROM endpoints WHERE endpoint = $3 RETURNING ", state_columns!());

pub(super) const GIVE_BACK: &str = concat!(give_back!(), "SELECT 1");

/// The row, locked, even if there was none: of calls that fail together each counts.
pub(super) const LOCK_ENDPOINT: &str = concat!(
    "INSERT INTO endpoints (endpoint) VALUES ($1) ON CONFLICT (endpoint) DO UPDATE SET endpoint = excluded.endpoint \
    RETURNING ",
    state_columns!()
);

pub(super) const SAVE_ENDPOINT: &str = "\
    UPDATE endpoints SET failures = $2, openings = $3, \
        open_until = clock_timestamp() + $4 * interval '1 millisecond', \
        wait_until = clock_timestamp() + $5 * interval '1 millisecond', throttled = $6, probe_owner = $7, \
        probe_until = clock_timestamp() + $8 * interval '1 millisecond' \
    WHERE endpoint = $1";

pub(super) const VIEW: &str = concat!(
    "SELECT (SELECT count(*) FROM endpoint_slots WHERE endpoint = $1 AND expires_at > clock_timestamp()) AS calls, ",
    state_columns!(),
    " FROM (VALUES (1)) AS one LEFT JOIN endpoints ON endpoint = $1"
);
