-- For which programs the schema is, by the newest version that they know: programs of two versions run side by side. An
-- expanding migration leaves this alone; a contracting one raises it, and locks it first. See CONTRIBUTING.md.
CREATE TABLE schema_versions (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one), -- There is one row.
    min_reader bigint NOT NULL,
    min_writer bigint NOT NULL CHECK (min_writer >= min_reader)
);
INSERT INTO schema_versions (min_reader, min_writer) VALUES (1, 1);

-- The newest version that a replica knows; those that do not say so know the first.
ALTER TABLE replicas ADD COLUMN schema_version bigint NOT NULL DEFAULT 1;
