-- The budgets of token endpoints. An endpoint is an origin, such as https://idp.example; times are the database's.

-- One row for each endpoint that does not simply work: a success deletes it.
CREATE TABLE endpoints (
    endpoint    text PRIMARY KEY,
    failures    bigint NOT NULL DEFAULT 0,      -- in a row
    openings    bigint NOT NULL DEFAULT 0,      -- in a row
    open_until  timestamptz,                    -- past: half open; NULL: closed
    wait_until  timestamptz,                    -- the endpoint's Retry-After
    throttled   boolean NOT NULL DEFAULT false, -- it came with a 429
    probe_owner text,                           -- with probe_until: both or none
    probe_until timestamptz
);

-- The places among the calls of an endpoint. They are made when they are first needed and stay, at most as many as an
-- endpoint may have; a lapsed one is free, whoever had it.
CREATE TABLE endpoint_slots (
    endpoint   text NOT NULL,
    slot       bigint NOT NULL,
    owner      text,
    expires_at timestamptz NOT NULL DEFAULT 'epoch',
    PRIMARY KEY (endpoint, slot)
);
