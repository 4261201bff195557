//! The statements that only SQLite understands: those that read its clock, in milliseconds.

/// Takes the right to write at once: a transaction that asks for it later may find that it cannot get it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// Which of the tables are there by which a schema tells its version.
pub(super) const SCHEMA_TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ('_sqlx_migrations', 'schema_versions')";

pub(super) const APPLIED: &str = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";

pub(super) const BOUNDS: &str = "SELECT min_reader, min_writer FROM schema_versions";

pub(super) const ACQUIRE: &str = "\
    INSERT INTO leases AS held (scope, owner, expires_at) \
    VALUES ($1, $2, CAST(unixepoch('subsec') * 1000 AS INTEGER) + $3) \
    ON CONFLICT (scope) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at \
    WHERE held.expires_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER) OR held.owner = excluded.owner";

pub(super) const RENEW: &str = "\
    UPDATE leases SET expires_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $3 WHERE scope = $1 AND owner = $2";

pub(super) const LEASE: &str = "\
    SELECT owner, expires_at - CAST(unixepoch('subsec') * 1000 AS INTEGER) AS remaining FROM leases WHERE scope = $1";

pub(super) const EVENTS: &str = "\
    SELECT id, kind, key_hash, credential, generation, min_generation, at FROM events WHERE id > $1 ORDER BY id LIMIT $2";

/// A bounded number at a time, so that no writer waits for long.
pub(super) const PRUNE_EVENTS: &str =
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < $1 ORDER BY id LIMIT $2)";

/// In the transaction of the change, so that the floor is the one it left.
pub(super) const APPEND_EVENT: &str = "\
    INSERT INTO events (kind, key_hash, credential, generation, min_generation) \
    SELECT $1, key_hash, credential, $3, min_generation FROM tokens WHERE key_hash = $2 RETURNING id";

pub(super) const APPEND_GRANT_EVENT: &str =
    "INSERT INTO events (kind, key_hash, credential, generation, min_generation) VALUES ($1, $2, $3, $4, 0)";

pub(super) const LOAD_GRANT: &str = "\
    SELECT credential, version, refresh_token, previous, previous_version, seed, planted, journal, intent_owner, intent_token, \
        CAST(unixepoch('subsec') * 1000 AS INTEGER) - intent_at AS intent_age, stray_token, \
        CAST(unixepoch('subsec') * 1000 AS INTEGER) - stray_at AS stray_age, needs_reauth, retry, updated_at \
    FROM grants WHERE credential = $1";

pub(super) const BEGIN_ROTATION: &str = "\
    UPDATE grants SET journal = journal + 1, \
        stray_token = CASE WHEN intent_owner <> $4 THEN intent_token ELSE stray_token END, \
        stray_at = CASE WHEN intent_owner <> $4 THEN intent_at ELSE stray_at END, \
        intent_owner = $4, intent_token = $5, intent_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) \
    WHERE credential = $1 AND version = $2 AND journal = $3";

pub(super) const API_KEYS: &str = "\
    SELECT id, name, hash, created_at, expires_at, revoked_at, last_used_at FROM api_keys ORDER BY created_at, id";

pub(super) const ADD_API_KEY: &str =
    "INSERT INTO api_keys (id, name, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)";

pub(super) const REVOKE_API_KEY: &str = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1";

pub(super) const NOTE_API_KEY_USE: &str =
    "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

/// An event that is there already is left as it is.
pub(super) const APPEND_AUDIT: &str = "\
    INSERT INTO audit_events (chain, sequence, at, kind, subject, credential, line) VALUES ($1, $2, $3, $4, $5, $6, $7) \
    ON CONFLICT (chain, sequence) DO NOTHING";
