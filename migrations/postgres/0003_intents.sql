-- What the journal has to remember of calls that may be under way. A program that does not count its intents would let
-- another one send the refresh token that it is sending itself.
LOCK TABLE schema_versions IN ACCESS EXCLUSIVE MODE;
UPDATE schema_versions SET min_writer = 3;

ALTER TABLE grants
    ADD COLUMN planted      bigint NOT NULL DEFAULT 1,     -- the version with which a person supplied the refresh token
    ADD COLUMN journal      bigint NOT NULL DEFAULT 0,     -- counts the intents and losses; it never goes back
    ADD COLUMN intent_token text,                          -- fingerprint of the refresh token that the open intent sends
    ADD COLUMN stray_token  text,                          -- the same of the youngest intent that was overtaken
    ADD COLUMN stray_at     timestamptz,
    ADD COLUMN lost_at      bigint NOT NULL DEFAULT 0,     -- the journal's count at the last loss
    ADD COLUMN retry        boolean NOT NULL DEFAULT false; -- a refresh token has come since the loss

-- Of a grant that is there already nobody knows when it was planted: the one before may be another person's.
UPDATE grants SET planted = version;
