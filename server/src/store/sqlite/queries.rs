//! The statements that only SQLite understands: those that read its clock, in milliseconds.

/// Takes the right to write at once: a transaction that asks for it later may find that it cannot get it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

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
