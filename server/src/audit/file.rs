//! A file of JSON lines: private, append-only, of one process; and a pipe in its place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::chain::{Hash, checked_hash};

/// How much of the end of a file is looked at: more than a line has at most.
const TAIL: u64 = 1024 * 1024;

/// A file that is appended to.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    /// `None`: a pipe that nobody reads (yet).
    file: Option<File>,
    sync: bool,
}

impl AuditFile {
    /// Opens a file, and makes it if it is not there. Returns the hash of its last line, if that is whole; a line that a
    /// crash has cut off is ended, not overwritten.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or another process writes to it.
    pub(super) fn open(path: &Path, sync: bool) -> io::Result<(Self, Option<Hash>)> {
        let (file, last) = match open(path) {
            Ok(file) => {
                let last = if file.metadata()?.is_file() { end_of(&file)? } else { None };
                (Some(file), last)
            }
            // It may find a reader later, and be opened then.
            Err(_) if is_pipe(path) => (None, None),
            Err(error) => return Err(error),
        };
        Ok((Self { path: path.to_owned(), file, sync }, last))
    }

    /// The file that has this path now: the old one was moved away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.settle()?;
        // The lock of the old one is free first, for it may be the same.
        self.file = None;
        let (reopened, _) = Self::open(&self.path, self.sync)?;
        *self = reopened;
        Ok(())
    }

    /// Writes some of it. Never blocks on a pipe.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() {
            self.file = Some(open(&self.path)?);
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let written = file.write(bytes);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.file = None;
        }
        written
    }

    /// Has the disk take what was written, if it is to.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        match &self.file {
            Some(file) if self.sync => file.sync_data(),
            _ => Ok(()),
        }
    }
}

/// Rust's files are closed on exec.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(nonblocking);
    // Reading as well would make this process a reader of its own pipe.
    let file = options.read(!is_pipe(path)).open(path)?;
    if file.metadata()?.is_file() {
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process writes to it"),
            fs::TryLockError::Error(error) => error,
        })?;
    }
    Ok(file)
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// The hash of the last line. One that was cut off is ended, and the one before it counts; one that was ended and is
/// damaged all the same has none.
fn end_of(mut file: &File) -> io::Result<Option<Hash>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < tail.len() {
        file.write_all(b"\n")?;
    }
    let last = tail[..whole].strip_suffix(b"\n").unwrap_or_default();
    let begin = last.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(checked_hash(&last[begin..]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_new_file_is_its_owners_alone_and_no_second_process_may_write_to_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (_file, last) = AuditFile::open(&path, false).unwrap();
        assert_eq!(last, None);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(AuditFile::open(&path, false).is_err_and(|error| error.to_string().contains("another process")));
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_and_not_overwritten() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("audit.jsonl");
        fs::write(&path, "whole\n{\"half\":").unwrap();
        drop(AuditFile::open(&path, false).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n{\"half\":\n");
        drop(AuditFile::open(&path, false).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n{\"half\":\n", "once is enough");
    }
}
