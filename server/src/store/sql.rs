//! What the SQL stores share: the statements that both dialects understand, and the mapping of rows.
//!
//! Writes compare and set in one statement; how many rows it changed is the answer. None of them depends on a clock:
//! those are in `queries.rs` of each back end.

pub(super) mod api_keys;
pub(super) mod endpoints;
pub(super) mod rows;
pub(super) mod schema;
pub(super) mod secrets;

macro_rules! token_columns {
    () => {
        "key_hash, credential, scopes, audience, resources, generation, min_generation, access_token, token_type, \
         issued_at, expires_at, refresh_at, granted_scopes, attributes, fingerprint, config, failure_count, \
         failure_kind, failure_message, failed_at, next_attempt_at, failure_config, last_used_at"
    };
}

pub(super) const LOAD: &str = concat!("SELECT ", token_columns!(), " FROM tokens WHERE key_hash = $1");

/// Every hash is greater than the empty one, which stands for the beginning.
pub(super) const SCAN: &str =
    concat!("SELECT ", token_columns!(), " FROM tokens WHERE key_hash > $1 ORDER BY key_hash LIMIT $2");

pub(super) const ROWS_OF: &str =
    concat!("SELECT ", token_columns!(), " FROM tokens WHERE credential = $1 ORDER BY key_hash LIMIT $2");

/// The fence on the generation. With `Next` only the first is stored where there is no row, else only the one after the
/// row's; with `Above` ($17) every later one.
pub(super) const COMMIT_TOKEN: &str = "\
    INSERT INTO tokens (key_hash, credential, scopes, audience, resources, generation, access_token, token_type, \
        issued_at, expires_at, refresh_at, granted_scopes, attributes, fingerprint, config, last_used_at) \
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16 \
        WHERE $6 = 1 OR $17 OR EXISTS (SELECT 1 FROM tokens WHERE key_hash = $1) \
    ON CONFLICT (key_hash) DO UPDATE SET \
        generation = excluded.generation, access_token = excluded.access_token, token_type = excluded.token_type, \
        issued_at = excluded.issued_at, expires_at = excluded.expires_at, refresh_at = excluded.refresh_at, \
        granted_scopes = excluded.granted_scopes, attributes = excluded.attributes, \
        fingerprint = excluded.fingerprint, config = excluded.config, failure_count = NULL, failure_kind = NULL, \
        failure_message = NULL, failed_at = NULL, next_attempt_at = NULL, failure_config = NULL, \
        last_used_at = CASE WHEN tokens.last_used_at > excluded.last_used_at \
            THEN tokens.last_used_at ELSE excluded.last_used_at END \
    WHERE tokens.generation = excluded.generation - 1 OR ($17 AND tokens.generation < excluded.generation)";

/// Whether this very token is the stored one: then the commit is a repetition.
pub(super) const IS_STORED: &str = "SELECT 1 FROM tokens WHERE key_hash = $1 AND generation = $2 AND fingerprint = $3";

pub(super) const RECORD_FAILURE: &str = "\
    INSERT INTO tokens (key_hash, credential, scopes, audience, resources, generation, config, failure_count, \
        failure_kind, failure_message, failed_at, next_attempt_at, failure_config, last_used_at) \
    VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $6, $10) \
    ON CONFLICT (key_hash) DO UPDATE SET failure_count = excluded.failure_count, \
        failure_kind = excluded.failure_kind, failure_message = excluded.failure_message, \
        failed_at = excluded.failed_at, next_attempt_at = excluded.next_attempt_at, \
        failure_config = excluded.failure_config \
    WHERE tokens.generation <= $12";

/// A bounded number at a time, so that no transaction is long.
pub(super) const PRUNE_ROWS: &str = "\
    DELETE FROM tokens WHERE key_hash IN (SELECT key_hash FROM tokens \
        WHERE access_token IS NULL AND failed_at < $1 ORDER BY key_hash LIMIT $2)";

pub(super) const REJECT: &str = "\
    UPDATE tokens SET min_generation = $3 WHERE key_hash = $1 AND generation >= $2 AND min_generation <= $2";

/// The floor of a row, its last generation, and the event that set the floor.
pub(super) const FLOOR: &str = "SELECT min_generation, generation, reject_event FROM tokens WHERE key_hash = $1";

pub(super) const SET_REJECT_EVENT: &str = "UPDATE tokens SET reject_event = $2 WHERE key_hash = $1";

pub(super) const CANDIDATES: &str = "\
    SELECT base_version, refresh_token, fingerprint, received_at FROM grant_candidates WHERE credential = $1 ORDER BY id";

/// The first grant of a credential.
pub(super) const INSERT_GRANT: &str = "\
    INSERT INTO grants (credential, version, planted, refresh_token, fingerprint, seed, updated_at) \
    VALUES ($1, 1, 1, $2, $3, $3, $4) \
    ON CONFLICT (credential) DO NOTHING";

/// A new grant by a person's hand: calls with the old one have nothing to do with it.
pub(super) const REPLACE_GRANT: &str = "\
    UPDATE grants SET version = version + 1, planted = version + 1, previous = $6, previous_fingerprint = $7, \
        previous_version = version + 1, refresh_token = $3, fingerprint = $4, seed = $4, intent_owner = NULL, intent_token = NULL, intent_at = NULL, stray_token = NULL, stray_at = NULL, \
        needs_reauth = NULL, retry = FALSE, updated_at = $5 \
    WHERE credential = $1 AND version = $2";

/// A new refresh token from the upstream; one that came back unchanged does not displace the one before. A loss that was
/// recorded after its call was begun stays.
pub(super) const ROTATE_GRANT: &str = "\
    UPDATE grants SET version = version + 1, previous = CASE WHEN $8 = $7 THEN previous ELSE $4 END, \
        previous_fingerprint = CASE WHEN $8 = $7 THEN previous_fingerprint ELSE $8 END, \
        previous_version = CASE WHEN $8 = $7 THEN previous_version ELSE version + 1 END, \
        refresh_token = $3, fingerprint = $7, needs_reauth = CASE WHEN $5 < lost_at THEN needs_reauth END, \
        retry = (needs_reauth IS NOT NULL AND $5 < lost_at), updated_at = $6 \
    WHERE credential = $1 AND version = $2";

/// A refresh token that is late, unless it is known already because its commit is repeated. It is known by its fingerprint;
/// of a row that was written before there were any, by its value, which was never sealed.
pub(super) const INSERT_CANDIDATE: &str = "\
    INSERT INTO grant_candidates (credential, base_version, refresh_token, received_at, fingerprint) \
    SELECT $1, $2, $3, $4, $5 \
    WHERE NOT EXISTS (SELECT 1 FROM grants WHERE credential = $1 AND (fingerprint = $5 OR previous_fingerprint = $5 \
            OR (fingerprint IS NULL AND refresh_token = $3) OR (previous_fingerprint IS NULL AND previous = $3))) \
        AND NOT EXISTS (SELECT 1 FROM grant_candidates WHERE credential = $1 \
            AND (fingerprint = $5 OR (fingerprint IS NULL AND refresh_token = $3)))";

/// After a candidate of the same person's log-in: if the grant is lost, there is something to try.
pub(super) const REVIVE: &str = "\
    UPDATE grants SET retry = TRUE WHERE credential = $1 AND needs_reauth IS NOT NULL AND planted <= $2";

pub(super) const DROP_CANDIDATE: &str = "\
    DELETE FROM grant_candidates \
    WHERE credential = $1 AND (fingerprint = $3 OR (fingerprint IS NULL AND refresh_token = $2))";

/// The owner's own, never a successor's.
pub(super) const END_INTENT: &str = "\
    UPDATE grants SET intent_owner = NULL, intent_token = NULL, intent_at = NULL \
    WHERE credential = $1 AND intent_owner = $2";

pub(super) const LOSE_GRANT: &str = "\
    UPDATE grants SET needs_reauth = $3, retry = FALSE, journal = journal + 1, lost_at = journal + 1 \
    WHERE credential = $1 AND version = $2";

/// Every hash is greater than the empty one, every name than the empty text.
pub(super) const TOKEN_SECRETS: &str = "\
    SELECT key_hash, generation, config, access_token, attributes FROM tokens \
    WHERE key_hash > $1 AND access_token IS NOT NULL ORDER BY key_hash LIMIT $2";

pub(super) const GRANT_SECRETS: &str = "\
    SELECT credential, version, refresh_token, fingerprint, previous, previous_fingerprint, previous_version \
    FROM grants WHERE credential > $1 ORDER BY credential LIMIT $2";

pub(super) const CANDIDATE_SECRETS: &str = "\
    SELECT id, credential, base_version, refresh_token, fingerprint FROM grant_candidates \
    WHERE id > $1 ORDER BY id LIMIT $2";

/// The attributes change with the token alone.
pub(super) const RESEAL_TOKEN: &str = "\
    UPDATE tokens SET access_token = $4, attributes = $5 WHERE key_hash = $1 AND generation = $2 AND access_token = $3";

/// The one before changes with the version alone.
pub(super) const RESEAL_GRANT: &str = "\
    UPDATE grants SET refresh_token = $4, fingerprint = $5, previous = $6, previous_fingerprint = $7 \
    WHERE credential = $1 AND version = $2 AND refresh_token = $3";

pub(super) const RESEAL_CANDIDATE: &str =
    "UPDATE grant_candidates SET refresh_token = $3, fingerprint = $4 WHERE id = $1 AND refresh_token = $2";

pub(super) const RELEASE: &str = "DELETE FROM leases WHERE scope = $1 AND owner = $2";

/// An empty text matches all.
pub(super) const AUDIT_EVENTS: &str = "\
    SELECT id, chain, sequence, at, kind, subject, credential, line FROM audit_events \
    WHERE id > $1 AND at >= $2 AND at < $3 AND ($4 = '' OR subject = $4) AND ($5 = '' OR credential = $5) \
        AND ($6 = '' OR kind = $6) ORDER BY id LIMIT $7";

pub(super) const PRUNE_AUDIT: &str = "\
    DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE at < $1 ORDER BY at LIMIT $2)";
