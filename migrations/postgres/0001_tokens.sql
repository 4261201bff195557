-- Times of tokens are milliseconds since the Unix epoch: they come from the broker's clock, are compared by it alone, and
-- keep any value that it can have. Times of leases, intents and events are timestamptz: they come from the clock of the database
-- and are compared by it. Secrets have columns of their own, as bytes.

CREATE TABLE tokens (
    key_hash        bytea PRIMARY KEY,
    credential      text NOT NULL,
    scopes          text NOT NULL, -- JSON array
    audience        text,
    resources       text NOT NULL, -- JSON array
    generation      bigint NOT NULL,
    min_generation  bigint NOT NULL DEFAULT 0,
    reject_event    bigint NOT NULL DEFAULT 0, -- the event of the last rejection
    access_token    bytea,         -- secret; with the columns up to fingerprint: all or none
    token_type      text,
    issued_at       bigint,
    expires_at      bigint,
    refresh_at      bigint,
    granted_scopes  text,          -- JSON array
    attributes      bytea,         -- secret; JSON object
    fingerprint     text,
    config          text NOT NULL,
    failure_count   bigint,        -- with the columns up to failure_config: all or none
    failure_kind    text,
    failure_message text,
    failed_at       bigint,
    next_attempt_at bigint,
    failure_config  text,
    last_used_at    bigint NOT NULL
);
CREATE INDEX tokens_by_credential ON tokens (credential, key_hash);

CREATE TABLE grants (
    credential    text PRIMARY KEY,
    version       bigint NOT NULL,
    refresh_token bytea NOT NULL,  -- secret
    previous      bytea,           -- secret
    seed          text NOT NULL,
    intent_owner  text,
    intent_at     timestamptz,
    needs_reauth  text,
    updated_at    bigint NOT NULL
);

-- No foreign key: a refresh token is kept even where its grant is not known.
CREATE TABLE grant_candidates (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    credential    text NOT NULL,
    base_version  bigint NOT NULL,
    refresh_token bytea NOT NULL,  -- secret
    received_at   bigint NOT NULL
);
CREATE INDEX grant_candidates_by_credential ON grant_candidates (credential, id);

CREATE TABLE leases (
    scope      text PRIMARY KEY,
    owner      text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The replicas that share the database, and how far each has read the events.
CREATE TABLE replicas (
    id          text PRIMARY KEY,
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    applied     bigint NOT NULL,
    missing     bigint[] NOT NULL
);

CREATE TABLE events (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL,
    key_hash       bytea NOT NULL,
    credential     text NOT NULL,
    generation     bigint NOT NULL,
    min_generation bigint NOT NULL,
    -- To the millisecond, so that what a replica read equals what is compared here.
    at             timestamptz NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp())
);
CREATE INDEX events_by_time ON events (at);
