-- Secrets are sealed from now on: what a program that does not know of it reads is no token, and it would send it. Nor would
-- it tell two refresh tokens apart, for the same one sealed twice differs: fingerprints do. They are NULL in rows that were
-- written before, whose secrets are in the clear.
LOCK TABLE schema_versions IN ACCESS EXCLUSIVE MODE;
UPDATE schema_versions SET min_reader = 5, min_writer = 5;

ALTER TABLE grants
    ADD COLUMN fingerprint          text,                     -- of the refresh token
    ADD COLUMN previous_fingerprint text,                     -- of the one before
    ADD COLUMN previous_version     bigint NOT NULL DEFAULT 0; -- the version with which it became that

ALTER TABLE grant_candidates ADD COLUMN fingerprint text; -- of the refresh token
