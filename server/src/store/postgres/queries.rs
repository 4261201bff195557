//! The statements that only Postgres understands: those that read its clock and set its limits.

/// One round trip to begin a transaction with its limits, in milliseconds.
///
/// They are set for the transaction alone. As parameters of the connection's start pgbouncer refuses them; set for the
/// session they would, behind a pooler, stay on a connection that somebody else uses next.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 5000; \
    SET LOCAL lock_timeout = 3000; SET LOCAL idle_in_transaction_session_timeout = 10000";

/// The same for a migration, which may rewrite a table and waits for its fellows. The statements that an earlier client
/// of a pooled connection prepared would clash with those that sqlx's migrator prepares.
pub(super) const BEGIN_MIGRATION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 60000; \
    SET LOCAL lock_timeout = 30000; SET LOCAL idle_in_transaction_session_timeout = 60000; DEALLOCATE ALL";

/// Ends with the transaction, and so holds over a pooler, too. The number is this table set's alone.
pub(super) const LOCK_MIGRATIONS: &str = "SELECT pg_advisory_xact_lock(7094211958412307245)";

/// Behind a pooler the next client would find the migrator's statements.
pub(super) const FORGET_STATEMENTS: &str = "DEALLOCATE ALL";

pub(super) const HAS_SCHEMA: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

pub(super) const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";

pub(super) const COMMIT: &str = "COMMIT";

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

pub(super) const EVENTS: &str = "\
    SELECT id, kind, key_hash, credential, generation, min_generation, \
        (extract(epoch FROM at) * 1000)::bigint AS at \
    FROM events WHERE id > $1 ORDER BY id LIMIT $2";

/// A bounded number at a time, so that no transaction is long.
pub(super) const PRUNE_EVENTS: &str = "\
    DELETE FROM events WHERE id IN (SELECT id FROM events \
        WHERE at < 'epoch'::timestamptz + $1 * interval '1 millisecond' ORDER BY id LIMIT $2)";

/// In the transaction of the change, so that the floor is the one it left. Listeners hear of it when it commits.
pub(super) const APPEND_EVENT: &str = "\
    WITH event AS (INSERT INTO events (kind, key_hash, credential, generation, min_generation) \
        SELECT $1, key_hash, credential, $3, min_generation FROM tokens WHERE key_hash = $2 RETURNING id) \
    SELECT id, pg_notify('tokencache_events', '')::text AS notified FROM event";

pub(super) const LOAD_GRANT: &str = "\
    SELECT credential, version, refresh_token, previous, seed, intent_owner, \
        (extract(epoch FROM clock_timestamp() - intent_at) * 1000)::bigint AS intent_age, needs_reauth, updated_at \
    FROM grants WHERE credential = $1";

pub(super) const BEGIN_ROTATION: &str = "\
    UPDATE grants SET intent_owner = $3, intent_at = clock_timestamp() \
    WHERE credential = $1 AND version = $2 AND intent_owner IS NOT DISTINCT FROM $4";

pub(super) const HEARTBEAT: &str = "\
    INSERT INTO replicas AS known (id, version, lease_until, applied, missing) \
    VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond', $4, $5) \
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, applied = excluded.applied, \
        missing = excluded.missing, lease_until = clock_timestamp() + $3 * interval '1 millisecond'";

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
