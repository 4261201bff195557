-- For which programs the schema is, by the newest version that they know. An expanding migration leaves this alone; a
-- contracting one raises it. See CONTRIBUTING.md.
CREATE TABLE schema_versions (
    one        INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1), -- There is one row.
    min_reader INTEGER NOT NULL,
    min_writer INTEGER NOT NULL CHECK (min_writer >= min_reader)
) STRICT;
INSERT INTO schema_versions (min_reader, min_writer) VALUES (1, 1);
