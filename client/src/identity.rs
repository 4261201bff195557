//! Who the caller says it is: an API key or a bearer token, sent with every call.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result, Secret};

/// Where the identity comes from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Fixed(Secret),
    /// Read again when it has changed: platforms renew what they project into a pod.
    File(Arc<IdentityFile>),
}

#[derive(Debug)]
pub(crate) struct IdentityFile {
    path: PathBuf,
    read: Mutex<Option<(SystemTime, Secret)>>,
}

impl Identity {
    pub(crate) fn file(path: PathBuf) -> Self {
        Self::File(Arc::new(IdentityFile { path, read: Mutex::default() }))
    }

    /// The value of `authorization`, RFC 6750 section 2.1.
    ///
    /// # Errors
    ///
    /// `Unauthenticated` if the file cannot be read or a header cannot carry what it holds.
    pub(crate) fn authorization(&self) -> Result<MetadataValue<Ascii>> {
        let secret = match self {
            Self::Fixed(secret) => secret.clone(),
            Self::File(file) => file.current()?,
        };
        let value = Zeroizing::new(format!("Bearer {}", secret.expose()));
        let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| {
            Error::new(ErrorKind::Unauthenticated, "this client's identity holds what no header can carry")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl IdentityFile {
    fn current(&self) -> Result<Secret> {
        let cannot = |error: std::io::Error| {
            let message = format!("cannot read this client's identity from {}: {error}", self.path.display());
            Error::new(ErrorKind::Unauthenticated, message)
        };
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).map_err(cannot)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, secret)) = &*read
            && *when == modified
        {
            return Ok(secret.clone());
        }
        let text = Zeroizing::new(fs::read_to_string(&self.path).map_err(cannot)?);
        let secret = Secret::new(text.trim());
        *read = Some((modified, secret.clone()));
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let identity = Identity::file(path.clone());
        let error = identity.authorization().expect_err("there is none");
        assert!(error.to_string().contains("token"), "{error}");
        for (second, token) in [(1, "one"), (2, "two")] {
            fs::write(&path, format!("{token}\n")).expect("a file");
            let file = fs::File::options().write(true).open(&path).expect("a file");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).expect("a time");
            let value = identity.authorization().expect("an identity");
            assert_eq!(value.to_str().ok(), Some(format!("Bearer {token}").as_str()));
        }
    }

    #[test]
    fn what_no_header_can_carry_is_an_error_without_it() {
        let error = Identity::Fixed(Secret::new("s3cr3t\n")).authorization().expect_err("two lines");
        assert!(!format!("{error:?}").contains("s3cr3t"));
        let value = Identity::Fixed(Secret::new("s3cr3t")).authorization().expect("a header");
        assert!(!format!("{value:?}").contains("s3cr3t"), "{value:?}");
    }
}
