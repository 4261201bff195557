//! The statements that only Postgres understands: those that read its clock and set its limits.

use crate::{store::Applied, types::ReplicaId};

/// One round trip to begin a transaction with its limits, in milliseconds.
///
/// They are set for the transaction alone. As parameters of the connection's start pgbouncer refuses them; set for the
/// session they would, behind a pooler, stay on a connection that somebody else uses next. So does a listener's LISTEN,
/// until the transaction that was given its connection ends it: sqlx takes a notification that it did not ask for for an
/// error. On a connection that never listened that costs nothing.
macro_rules! begin {
    () => {
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 5000; \
         SET LOCAL lock_timeout = 3000; SET LOCAL idle_in_transaction_session_timeout = 10000; \
         UNLISTEN *; "
    };
}

/// Tells whether the server takes writes, and for which programs the schema is; it does not ask for writes itself, for an
/// operator may have fenced the server off with the very default that this would override. To have read the table keeps a
/// migration that locks it waiting until the transaction has ended.
pub(super) const BEGIN: &str =
    concat!(begin!(), "SELECT current_setting('transaction_read_only'), min_reader, min_writer FROM schema_versions");

/// The same where there may be no schema yet.
pub(super) const BEGIN_ON_ANY_SCHEMA: &str = concat!(begin!(), "SHOW transaction_read_only");

/// The same for a migration, which may rewrite a table and waits for its fellows. The statements that an earlier client
/// of a pooled connection prepared would clash with those that sqlx's migrator prepares.
pub(super) const BEGIN_MIGRATION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 60000; \
    SET LOCAL lock_timeout = 30000; SET LOCAL idle_in_transaction_session_timeout = 60000; UNLISTEN *; DEALLOCATE ALL";

/// Ends with the transaction, and so holds over a pooler, too. The number is this table set's alone.
pub(super) const LOCK_MIGRATIONS: &str = "SELECT pg_advisory_xact_lock(7094211958412307245)";

/// Behind a pooler the next client would find the migrator's statements.
pub(super) const FORGET_STATEMENTS: &str = "DEALLOCATE ALL";

pub(super) const HAS_SCHEMA: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

pub(super) const APPLIED: &str = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";

/// Before the migration that brought it, it is not there.
pub(super) const HAS_BOUNDS: &str = "SELECT to_regclass('schema_versions') IS NOT NULL";

pub(super) const BOUNDS: &str = "SELECT min_reader, min_writer FROM schema_versions";

/// The replicas that live and could not write any more.
pub(super) const OLDER_REPLICAS: &str = "\
    SELECT id, schema_version FROM replicas \
    WHERE lease_until > clock_timestamp() AND schema_version < (SELECT min_writer FROM schema_versions) ORDER BY id";

pub(super) const COMMIT: &str = "COMMIT";

/// A notification with a word of its own, made once: a query with a volatile part is not merged into another one.
pub(super) const PROBE: &str = "\
    WITH probe AS (SELECT md5(random()::text || clock_timestamp()::text) AS word) \
    SELECT word, pg_notify('tokencache_events', word)::text FROM probe";

/// Whether anybody answers.
pub(super) const ANY: &str = "SELECT 1";

/// Tells in the same round trip when that was done, for it may take any time: a commit waits for a synchronous standby.
pub(super) const COMMIT_TIMED: &str =
    "COMMIT; SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS done_at";

/// Locks the row even where it changes nothing, so that the holder can be read after it.
pub(super) const ACQUIRE: &str = "\
    INSERT INTO leases AS held (scope, owner, expires_at) \
    VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond') \
    ON CONFLICT (scope) DO UPDATE SET \
        owner = excluded.owner, expires_at = clock_timestamp() + $3 * interval '1 millisecond' \
    WHERE held.expires_at <= clock_timestamp() OR held.owner = excluded.owner";

pub(super) const RENEW: &str = "\
    UPDATE leases SET expires_at = clock_timestamp() + $3 * interval '1 millisecond' WHERE scope = $1 AND owner = $2";

pub(super) const LEASE: &str = "\
    SELECT owner, ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint AS remaining \
    FROM leases WHERE scope = $1";

/// Without parameters: every replica asks after each rejection, while somebody waits, and they would cost two more round
/// trips.
pub(super) fn events(after: i64, limit: u32) -> String {
    format!(
        "SELECT id, kind, key_hash, credential, generation, min_generation, \
            (extract(epoch FROM at) * 1000)::bigint AS at \
        FROM events WHERE id > {after} ORDER BY id LIMIT {limit}"
    )
}

/// A bounded number at a time, so that no transaction is long.
pub(super) const PRUNE_EVENTS: &str = "\
    DELETE FROM events WHERE id IN (SELECT id FROM events \
        WHERE at < 'epoch'::timestamptz + $1 * interval '1 millisecond' ORDER BY id LIMIT $2)";

/// In the transaction of the change, so that the floor is the one it left. Listeners hear of it when it commits.
pub(super) const APPEND_EVENT: &str = "\
    WITH event AS (INSERT INTO events (kind, key_hash, credential, generation, min_generation) \
        SELECT $1, key_hash, credential, $3, min_generation FROM tokens WHERE key_hash = $2 RETURNING id, at) \
    SELECT id, (extract(epoch FROM at) * 1000)::bigint AS at, pg_notify('tokencache_events', '')::text AS notified \
    FROM event";

/// Nobody waits for it to be heard, so it is not timed as the others are.
pub(super) const APPEND_GRANT_EVENT: &str = "\
    WITH event AS (INSERT INTO events (kind, key_hash, credential, generation, min_generation) \
        VALUES ($1, $2, $3, $4, 0)) \
    SELECT pg_notify('tokencache_events', '')::text";

/// Whether an event is so young that no replica can have given up its id before it was visible.
pub(super) const IS_YOUNG: &str =
    "SELECT 1 FROM events WHERE id = $1 AND at > clock_timestamp() - $2 * interval '1 millisecond'";

/// The same for the event of a token's commit.
pub(super) const COMMIT_IS_YOUNG: &str = "\
    SELECT 1 FROM events WHERE at > clock_timestamp() - $4 * interval '1 millisecond' \
        AND kind = $1 AND key_hash = $2 AND generation = $3 LIMIT 1";

pub(super) const LOAD_GRANT: &str = "\
    SELECT credential, version, refresh_token, previous, previous_version, seed, planted, journal, intent_owner, intent_token, \
        (extract(epoch FROM clock_timestamp() - intent_at) * 1000)::bigint AS intent_age, stray_token, \
        (extract(epoch FROM clock_timestamp() - stray_at) * 1000)::bigint AS stray_age, \
        needs_reauth, retry, updated_at \
    FROM grants WHERE credential = $1";

pub(super) const BEGIN_ROTATION: &str = "\
    UPDATE grants SET journal = journal + 1, \
        stray_token = CASE WHEN intent_owner <> $4 THEN intent_token ELSE stray_token END, \
        stray_at = CASE WHEN intent_owner <> $4 THEN intent_at ELSE stray_at END, \
        intent_owner = $4, intent_token = $5, intent_at = clock_timestamp() \
    WHERE credential = $1 AND version = $2 AND journal = $3";

pub(super) const HEARTBEAT: &str = "\
    INSERT INTO replicas AS known (id, version, lease_until, applied, missing, schema_version) \
    VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond', $4, $5, $6) \
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, applied = excluded.applied, \
        schema_version = excluded.schema_version, \
        missing = excluded.missing, lease_until = clock_timestamp() + $3 * interval '1 millisecond'";

/// Without parameters, as [`events`]; the id, which is text, in hexadecimal digits. It need not outlive a crash of the
/// server: what is lost is told with the next sign of life, and whoever waits does so for longer. The lease, which a crash
/// must not shorten, stays as it is.
pub(super) fn applied(replica: &ReplicaId, applied: &Applied, known: i64) -> String {
    let id = hex::encode(replica.as_str());
    let missing = applied.missing.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    format!(
        "SET LOCAL synchronous_commit = off; UPDATE replicas SET applied = {through}, missing = '{{{missing}}}' \
        FROM schema_versions WHERE id = convert_from(decode('{id}', 'hex'), 'UTF8') AND min_writer <= {known} RETURNING 1",
        through = applied.through
    )
}

pub(super) const REPLICAS: &str = "\
    SELECT id, version, (extract(epoch FROM started_at) * 1000)::bigint AS started_at, \
        ceil(extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint AS remaining, applied, missing \
    FROM replicas ORDER BY id";

pub(super) const LEAVE: &str = "DELETE FROM replicas WHERE id = $1";

/// Those that nobody has heard of for long.
pub(super) const PRUNE_REPLICAS: &str = "DELETE FROM replicas WHERE id IN (SELECT id FROM replicas \
    WHERE lease_until < 'epoch'::timestamptz + $1 * interval '1 millisecond' ORDER BY id LIMIT $2)";

pub(super) const EVENT_HORIZON: &str = "\
    SELECT coalesce((SELECT min(id) - 1 FROM events WHERE at >= clock_timestamp() - $1 * interval '1 millisecond'), \
        (SELECT max(id) FROM events), 0)";

/// Many events in one statement; one that is there already is left as it is.
pub(super) const APPEND_AUDIT: &str = "\
    INSERT INTO audit_events (chain, sequence, at, kind, subject, credential, line) \
    SELECT chain, sequence, at, kind, subject, credential, line FROM unnest( \
        $1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[]) \
        WITH ORDINALITY AS new (chain, sequence, at, kind, subject, credential, line, place) ORDER BY place \
    ON CONFLICT (chain, sequence) DO NOTHING";
