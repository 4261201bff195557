-- All times are milliseconds since the Unix epoch; those of leases and events come from SQLite's own clock. Secrets have
-- columns of their own, as bytes.

CREATE TABLE tokens (
    key_hash        BLOB PRIMARY KEY,
    credential      TEXT NOT NULL,
    scopes          TEXT NOT NULL, -- JSON array
    audience        TEXT,
    resources       TEXT NOT NULL, -- JSON array
    generation      INTEGER NOT NULL,
    min_generation  INTEGER NOT NULL DEFAULT 0,
    reject_event    INTEGER NOT NULL DEFAULT 0, -- the event of the last rejection
    access_token    BLOB,          -- secret; with the columns up to fingerprint: all or none
    token_type      TEXT,
    issued_at       INTEGER,
    expires_at      INTEGER,
    refresh_at      INTEGER,
    granted_scopes  TEXT,          -- JSON array
    attributes      BLOB,          -- secret; JSON object
    fingerprint     TEXT,
    config          TEXT NOT NULL,
    failure_count   INTEGER,       -- with the columns up to failure_config: all or none
    failure_kind    TEXT,
    failure_message TEXT,
    failed_at       INTEGER,
    next_attempt_at INTEGER,
    failure_config  TEXT,
    last_used_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_credential ON tokens (credential, key_hash);

CREATE TABLE grants (
    credential    TEXT PRIMARY KEY,
    version       INTEGER NOT NULL,
    refresh_token BLOB NOT NULL,   -- secret
    previous      BLOB,            -- secret
    seed          TEXT NOT NULL,
    intent_owner  TEXT,
    intent_at     INTEGER,
    needs_reauth  TEXT,
    updated_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- No foreign key: a refresh token is kept even where its grant is not known.
CREATE TABLE grant_candidates (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    credential    TEXT NOT NULL,
    base_version  INTEGER NOT NULL,
    refresh_token BLOB NOT NULL,   -- secret
    received_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX grant_candidates_by_credential ON grant_candidates (credential, id);

CREATE TABLE leases (
    scope      TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: an id is not used again after the newest event was pruned.
CREATE TABLE events (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    kind           TEXT NOT NULL,
    key_hash       BLOB NOT NULL,
    credential     TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    min_generation INTEGER NOT NULL,
    at             INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
) STRICT;
CREATE INDEX events_by_time ON events (at);
