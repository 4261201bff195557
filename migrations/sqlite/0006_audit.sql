-- Audit events: the line as it was written and chained, and what it is found by. `at` is milliseconds since the Unix epoch by
-- the clock of the replica; rows are never changed, and deleted by age alone.
CREATE TABLE audit_events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    chain      TEXT NOT NULL,
    sequence   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    credential TEXT NOT NULL,
    line       TEXT NOT NULL,
    UNIQUE (chain, sequence)
) STRICT;
CREATE INDEX audit_events_by_time ON audit_events (at);
