-- The budgets of token endpoints. An endpoint is an origin, such as https://idp.example; times are milliseconds of SQLite's
-- own clock.

-- One row for each endpoint that does not simply work: a success deletes it.
CREATE TABLE endpoints (
    endpoint    TEXT PRIMARY KEY,
    failures    INTEGER NOT NULL DEFAULT 0, -- in a row
    openings    INTEGER NOT NULL DEFAULT 0, -- in a row
    open_until  INTEGER,                    -- past: half open; NULL: closed
    wait_until  INTEGER,                    -- the endpoint's Retry-After
    throttled   INTEGER NOT NULL DEFAULT 0, -- it came with a 429
    probe_owner TEXT,                       -- with probe_until: both or none
    probe_until INTEGER
) STRICT, WITHOUT ROWID;

-- The places among the calls of an endpoint. They are made when they are first needed and stay, at most as many as an
-- endpoint may have; a lapsed one is free, whoever had it.
CREATE TABLE endpoint_slots (
    endpoint   TEXT NOT NULL,
    slot       INTEGER NOT NULL,
    owner      TEXT,
    expires_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint, slot)
) STRICT, WITHOUT ROWID;
