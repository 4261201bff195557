-- Audit events: the line as it was written and chained, and what it is found by. `at` is milliseconds since the Unix epoch by
-- the clock of the replica; rows are never changed, and deleted by age alone.
CREATE TABLE audit_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain      text NOT NULL,
    sequence   bigint NOT NULL,
    at         bigint NOT NULL,
    kind       text NOT NULL,
    subject    text NOT NULL,
    credential text NOT NULL,
    line       text NOT NULL,
    UNIQUE (chain, sequence)
);
CREATE INDEX audit_events_by_time ON audit_events (at);
