-- What the journal has to remember of calls that may be under way. A program that does not count its intents would let
-- another one send the refresh token that it is sending itself.
UPDATE schema_versions SET min_writer = 3;

ALTER TABLE grants ADD COLUMN planted INTEGER NOT NULL DEFAULT 1; -- the version with which a person supplied it
ALTER TABLE grants ADD COLUMN journal INTEGER NOT NULL DEFAULT 0; -- counts the intents and losses; it never goes back
ALTER TABLE grants ADD COLUMN intent_token TEXT; -- fingerprint of the refresh token that the open intent sends
ALTER TABLE grants ADD COLUMN stray_token TEXT; -- the same of the youngest intent that was overtaken
ALTER TABLE grants ADD COLUMN stray_at INTEGER;
ALTER TABLE grants ADD COLUMN lost_at INTEGER NOT NULL DEFAULT 0; -- the journal's count at the last loss
ALTER TABLE grants ADD COLUMN retry INTEGER NOT NULL DEFAULT FALSE; -- a refresh token has come since the loss

-- Of a grant that is there already nobody knows when it was planted: the one before may be another person's.
UPDATE grants SET planted = version;
