//! The local journal: what the store has not taken when the process has to end, in files that their owner alone can read.
//!
//! A file is on the disk before its name is, and is removed once the store has all of it. Storing twice is harmless:
//! tokens are fenced on their generation, and a refresh token that is known already is not kept again.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Commit, Fence, GrantUpdate, Write};
use crate::{
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, Secret, Selector, Token, TokenKey},
};

/// What the names of the files end with.
const ENDING: &str = "spill.json";

/// The form of the files.
const FORM: u32 = 1;

/// Room for a file's text, so that it does not grow and leave copies behind (zeroize#179).
const ROOM: usize = 256 * 1024;

/// A directory of spilled writes.
#[derive(Clone, Debug)]
pub struct Spill {
    directory: PathBuf,
}

impl Spill {
    /// One in this directory, which is made when it is needed.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes all of these into one new file, named after `name`. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// If the disk is full, or the directory cannot be written.
    pub fn save(&self, name: &str, writes: &[Write]) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let form = Form { form: FORM, writes: writes.iter().map(Spilled::from).collect() };
        let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *text, &form)?;
        let place = self.directory.join(format!("{name}.{ENDING}"));
        let unfinished = place.with_extension("unfinished");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&unfinished, &place)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(place)
    }

    /// The files that were spilled earlier, the oldest names first.
    ///
    /// # Errors
    ///
    /// If the directory is there and cannot be read.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        let is_spill = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(ENDING));
        let mut files: Vec<_> = paths.into_iter().filter(is_spill).collect();
        files.sort();
        Ok(files)
    }

    /// What is in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or was not written by [`Spill::save`]. The error tells nothing of its contents.
    pub fn read(file: &Path) -> io::Result<Vec<Write>> {
        let text = Zeroizing::new(fs::read(file)?);
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let form: Form = serde_json::from_slice(&text).map_err(|_| invalid("not a file of spilled tokens"))?;
        if form.form != FORM {
            return Err(invalid("the file was written by another version"));
        }
        let writes = form.writes.into_iter().map(|spilled| Write::try_from(spilled).map_err(invalid));
        writes.collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Form {
    form: u32,
    writes: Vec<Spilled>,
}

/// A write in clear words. It lives for as long as it takes to put it into a file or to read it.
#[derive(Serialize, Deserialize)]
struct Spilled {
    credential: String,
    token: Option<SpilledToken>,
    grant: Option<SpilledGrant>,
}

#[derive(Serialize, Deserialize)]
struct SpilledToken {
    scopes: Vec<String>,
    audience: Option<String>,
    resources: Vec<String>,
    access_token: Zeroizing<String>,
    token_type: String,
    issued_at: i64,
    expires_at: i64,
    refresh_at: i64,
    granted_scopes: Vec<String>,
    generation: u64,
    served: bool,
    attributes: BTreeMap<String, Zeroizing<String>>,
    config: String,
    last_used_at: i64,
}

#[derive(Serialize, Deserialize)]
struct SpilledGrant {
    base_version: u64,
    as_of: u64,
    sent: Zeroizing<String>,
    refresh_token: Zeroizing<String>,
    refused: Vec<Zeroizing<String>>,
    intent: Option<String>,
    at: i64,
}

impl From<&Write> for Spilled {
    fn from(write: &Write) -> Self {
        let credential = write.credential().to_string();
        match write {
            Write::Token(commit) => {
                Self { credential, token: Some(commit.into()), grant: commit.grant.as_ref().map(Into::into) }
            }
            Write::Grant(_, update) => Self { credential, token: None, grant: Some(update.into()) },
        }
    }
}

impl From<&Commit> for SpilledToken {
    fn from(commit: &Commit) -> Self {
        let (selector, token) = (commit.key.selector(), &commit.token);
        let attributes = token.attributes.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        Self {
            scopes: selector.scopes().to_vec(),
            audience: selector.audience.clone(),
            resources: selector.resources().to_vec(),
            access_token: token.access_token.expose().clone().into(),
            token_type: token.token_type.clone(),
            issued_at: token.issued_at.as_millis(),
            expires_at: token.expires_at.as_millis(),
            refresh_at: token.refresh_at.as_millis(),
            granted_scopes: token.scopes.clone(),
            generation: token.generation.get(),
            served: commit.fence == Fence::Above,
            attributes: attributes.collect(),
            config: commit.config.to_string(),
            last_used_at: commit.last_used_at.as_millis(),
        }
    }
}

impl From<&GrantUpdate> for SpilledGrant {
    fn from(update: &GrantUpdate) -> Self {
        let clear = |secret: &Secret| Zeroizing::new(secret.expose().clone());
        Self {
            base_version: update.base_version,
            as_of: update.as_of,
            sent: clear(&update.sent.value),
            refresh_token: clear(&update.refresh_token.value),
            refused: update.refused.iter().map(|refused| clear(&refused.value)).collect(),
            intent: update.intent.clone(),
            at: update.at.as_millis(),
        }
    }
}

impl TryFrom<Spilled> for Write {
    type Error = &'static str;

    fn try_from(spilled: Spilled) -> Result<Self, &'static str> {
        let credential =
            CredentialName::parse(&spilled.credential).map_err(|_| "the name of a credential is invalid")?;
        let grant = spilled.grant.map(GrantUpdate::from);
        match (spilled.token, grant) {
            (Some(token), grant) => Ok(Self::Token(token.into_commit(credential, grant)?)),
            (None, Some(update)) => Ok(Self::Grant(credential, update)),
            (None, None) => Err("neither a token nor a refresh token"),
        }
    }
}

impl SpilledToken {
    fn into_commit(self, credential: CredentialName, grant: Option<GrantUpdate>) -> Result<Commit, &'static str> {
        let config = Fingerprint::parse(&self.config).ok_or("a fingerprint is invalid")?;
        let access_token = Secret::from(self.access_token.as_str());
        let time = Timestamp::from_millis;
        let token = Token {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            token_type: self.token_type,
            issued_at: time(self.issued_at),
            expires_at: time(self.expires_at),
            refresh_at: time(self.refresh_at),
            scopes: self.granted_scopes,
            generation: Generation::new(self.generation),
            attributes: self.attributes.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
        };
        let key = TokenKey::new(Selector::new(credential, self.scopes, self.audience, self.resources));
        let fence = if self.served { Fence::Above } else { Fence::Next };
        Ok(Commit { key, token, fence, config, last_used_at: time(self.last_used_at), grant })
    }
}

impl From<SpilledGrant> for GrantUpdate {
    fn from(spilled: SpilledGrant) -> Self {
        let secret = |clear: &Zeroizing<String>| Secret::from(clear.as_str());
        Self {
            base_version: spilled.base_version,
            as_of: spilled.as_of,
            sent: secret(&spilled.sent).into(),
            refresh_token: secret(&spilled.refresh_token).into(),
            late: None,
            refused: spilled.refused.iter().map(|refused| secret(refused).into()).collect(),
            intent: spilled.intent,
            at: Timestamp::from_millis(spilled.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::conformance::samples::{commit_with_grant, credential, key};

    fn writes() -> Vec<Write> {
        let served = Commit { fence: Fence::Above, ..commit_with_grant(&key("b/c"), 9, 3, "r2") };
        let Some(update) = served.grant.clone() else { unreachable!("it has one") };
        vec![
            Write::Token(Commit { grant: None, ..commit_with_grant(&key("a"), 1, 0, "") }),
            Write::Token(served),
            Write::Grant(credential("c"), update),
        ]
    }

    #[test]
    fn what_is_spilled_is_read_again_to_the_byte() {
        let directory = tempfile::tempdir().expect("a directory");
        let spill = Spill::new(&directory.path().join("made/when/needed"));
        assert_eq!(spill.files().expect("none yet"), Vec::<PathBuf>::new());
        let file = spill.save("r1-1", &writes()).expect("written");
        assert_eq!(spill.files().expect("readable"), std::slice::from_ref(&file));
        // Debug hides the secrets; the tokens are compared by themselves.
        let read = Spill::read(&file).expect("valid");
        assert_eq!(format!("{read:?}"), format!("{:?}", writes()));
        let tokens = |writes: &[Write]| -> Vec<Option<Token>> {
            let token =
                |write: &Write| if let Write::Token(commit) = write { Some(commit.token.clone()) } else { None };
            writes.iter().map(token).collect()
        };
        assert_eq!(tokens(&read), tokens(&writes()));
        let secret = |write: &Write| match write {
            Write::Token(commit) => commit.grant.as_ref().map(|grant| grant.refresh_token.value.clone()),
            Write::Grant(_, update) => Some(update.refresh_token.value.clone()),
        };
        assert_eq!(read.iter().map(secret).collect::<Vec<_>>(), writes().iter().map(secret).collect::<Vec<_>>());
    }

    #[test]
    fn its_owner_alone_can_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let spill = Spill::new(&directory.path().join("spill"));
        let file = spill.save("r1-1", &writes()).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(spill.directory())), (0o600, 0o700));
    }

    #[test]
    fn a_file_that_is_no_spill_is_an_error_that_tells_nothing_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        for text in ["s3cr3t", r#"{"form":2,"writes":[]}"#, r#"{"form":1,"writes":[{"credential":"s3cr3t !"}]}"#] {
            let file = directory.path().join("x.spill.json");
            fs::write(&file, text).expect("written");
            let error = Spill::read(&file).expect_err(text);
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }
}
