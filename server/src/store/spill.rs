//! The local journal: what the store has not taken when the process has to end, in files that their owner alone can read and
//! that are sealed where the store is: each write for its place in its file, and for the configuration of its credential.
//!
//! A file is on the disk before its name is, and is removed once the store has all of it. Storing twice is harmless:
//! tokens are fenced on their generation, and a refresh token that is known already is not kept again.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Commit, Fence, GrantUpdate, Write,
    sealed::{Place, Sealer},
};
use crate::{
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, Secret, Selector, Terms, Token, TokenKey},
};

/// What the names of the files end with.
const ENDING: &str = "spill.json";

/// The form of the files whose writes are sealed.
const FORM: u32 = 2;

/// The form of those in the clear.
const CLEAR_FORM: u32 = 1;

/// Room for a file's text, so that it does not grow and leave copies behind (zeroize#179).
const ROOM: usize = 256 * 1024;

/// A directory of spilled writes.
#[derive(Clone, Debug)]
pub struct Spill {
    directory: PathBuf,
    sealer: Option<Arc<Sealer>>,
}

/// What is in a file.
#[derive(Debug)]
pub struct Spilt {
    /// What can be stored.
    pub writes: Vec<Write>,
    /// Why others cannot: whose, and what is wrong.
    pub left: Vec<String>,
}

impl Spill {
    /// One in this directory, which is made when it is needed; sealed, if there is anything to seal it with.
    #[must_use]
    pub fn new(directory: &Path, sealer: Option<Arc<Sealer>>) -> Self {
        Self { directory: directory.to_owned(), sealer }
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
        let text = match &self.sealer {
            Some(sealer) => sealed(sealer, name, writes)?,
            None => in_the_clear(writes)?,
        };
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
    /// If it cannot be read, or was not written by [`Spill::save`], or is in the clear where that is not accepted. The error
    /// tells nothing of its contents.
    pub fn read(&self, file: &Path) -> io::Result<Spilt> {
        let text = Zeroizing::new(fs::read(file)?);
        let no_spill = |_| invalid("not a file of spilled tokens");
        let head: Head = serde_json::from_slice(&text).map_err(no_spill)?;
        match (head.form, &self.sealer) {
            (FORM, Some(sealer)) => {
                let form: Form<SealedWrite> = serde_json::from_slice(&text).map_err(no_spill)?;
                Ok(open(sealer, &stem(file), form.writes))
            }
            (FORM, None) => Err(invalid("the file is sealed, and there is no key")),
            (CLEAR_FORM, Some(sealer)) if !sealer.accepts_plaintext() => {
                Err(invalid("the file is in the clear: set encryption.accept_plaintext = true to have it stored"))
            }
            (CLEAR_FORM, _) => {
                let form: Form<Spilled> = serde_json::from_slice(&text).map_err(no_spill)?;
                let writes = form.writes.into_iter().map(|spilled| Write::try_from(spilled).map_err(invalid));
                Ok(Spilt { writes: writes.collect::<io::Result<_>>()?, left: vec![] })
            }
            _ => Err(invalid("the file was written by another version")),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The name of a file without its ending: what its writes are sealed for.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(ENDING).and_then(|name| name.strip_suffix('.')).unwrap_or_default().to_owned()
}

fn in_the_clear(writes: &[Write]) -> io::Result<Zeroizing<Vec<u8>>> {
    let form = Form { form: CLEAR_FORM, writes: writes.iter().map(Spilled::from).collect() };
    let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
    serde_json::to_writer(&mut *text, &form)?;
    Ok(text)
}

fn sealed(sealer: &Sealer, name: &str, writes: &[Write]) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut form = Form { form: FORM, writes: Vec::with_capacity(writes.len()) };
    for (number, write) in (0..).zip(writes) {
        let config = sealer.config_of(write.credential()).map_err(io::Error::other)?;
        let place = Place::of_spilled(name, write.credential(), number, config);
        let mut clear = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *clear, &Spilled::from(write))?;
        let clear = std::str::from_utf8(&clear).map(Secret::from).map_err(io::Error::other)?;
        let sealed = sealer.seal(&place, &clear).map_err(io::Error::other)?;
        form.writes.push(SealedWrite { credential: write.credential().to_string(), sealed: sealed.expose().clone() });
    }
    Ok(Zeroizing::new(serde_json::to_vec(&form)?))
}

fn open(sealer: &Sealer, name: &str, writes: Vec<SealedWrite>) -> Spilt {
    let mut spilt = Spilt { writes: vec![], left: vec![] };
    for (number, write) in (0..).zip(writes) {
        match write.open(sealer, name, number) {
            Ok(write) => spilt.writes.push(write),
            Err(why) => spilt.left.push(format!("{}: {why}", write.credential)),
        }
    }
    spilt
}

#[derive(Deserialize)]
struct Head {
    form: u32,
}

#[derive(Serialize, Deserialize)]
struct Form<W> {
    form: u32,
    writes: Vec<W>,
}

/// A write that is sealed.
#[derive(Serialize, Deserialize)]
struct SealedWrite {
    credential: String,
    sealed: String,
}

impl SealedWrite {
    fn open(&self, sealer: &Sealer, name: &str, number: u64) -> Result<Write, String> {
        let credential = CredentialName::parse(&self.credential).map_err(|rule| rule.to_string())?;
        let config = sealer.config_of(&credential).map_err(|error| error.to_string())?;
        let place = Place::of_spilled(name, &credential, number, config);
        let clear = sealer.open(&place, &self.sealed.as_str().into());
        let clear =
            clear.map_err(|why| format!("it does not open under the present keys and configuration ({why:?})"))?;
        let spilled: Spilled = serde_json::from_str(clear.expose()).map_err(|_| "it is damaged")?;
        Ok(Write::try_from(spilled)?)
    }
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
        let attributes = token.terms.attributes().iter().map(|(name, value)| (name.clone(), value.clone().into()));
        Self {
            scopes: selector.scopes().to_vec(),
            audience: selector.audience().map(str::to_owned),
            resources: selector.resources().to_vec(),
            access_token: token.access_token.expose().clone().into(),
            token_type: token.terms.token_type().to_owned(),
            issued_at: token.issued_at.as_millis(),
            expires_at: token.expires_at.as_millis(),
            refresh_at: token.refresh_at.as_millis(),
            granted_scopes: token.terms.scopes().to_vec(),
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
            terms: Terms::new(
                self.token_type,
                self.granted_scopes,
                self.attributes.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
            ),
            issued_at: time(self.issued_at),
            expires_at: time(self.expires_at),
            refresh_at: time(self.refresh_at),
            generation: Generation::new(self.generation),
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
mod tests;
