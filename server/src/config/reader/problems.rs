//! What is noted while a file is read: problems, warnings and the secrets that it names, each with its place.

use std::{borrow::Cow, cell::RefCell, fmt, path::PathBuf};

use crate::config::secret::SecretSource;

/// The problems of one file.
pub struct Problems {
    file: String,
    text: String,
    directory: PathBuf,
    found: RefCell<Vec<(usize, String)>>,
    warnings: RefCell<Vec<(usize, String)>>,
    secrets: RefCell<Vec<NamedSecret>>,
    /// Every key that was asked for, so that a test can look for it in the documentation.
    #[cfg(test)]
    pub(crate) asked: RefCell<std::collections::BTreeSet<&'static str>>,
}

/// A secret that the file names, and where.
#[derive(Clone, Debug)]
pub(crate) struct NamedSecret {
    /// The byte offset of its value.
    pub(crate) offset: usize,
    /// The dotted path of its key.
    pub(crate) path: String,
    /// Where it comes from.
    pub(crate) source: SecretSource,
}

impl Problems {
    /// None yet, in `text`, which was read from `file`; relative paths in it start at `directory`.
    #[must_use]
    pub fn new(file: &str, text: &str, directory: PathBuf) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
            directory,
            found: RefCell::default(),
            warnings: RefCell::default(),
            secrets: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Notes a problem at a byte offset of the text.
    pub fn note(&self, offset: usize, message: impl Into<String>) {
        self.found.borrow_mut().push((offset, message.into()));
    }

    /// Notes what is allowed but unwise, at a byte offset of the text.
    pub fn warn(&self, offset: usize, message: impl Into<String>) {
        self.warnings.borrow_mut().push((offset, message.into()));
    }

    /// Whether there is no problem so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The warnings so far, as `file:line:column: message`, in the order of the text.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.placed(self.warnings.borrow().clone())
    }

    /// Every problem as `file:line:column: message`, in the order of the text.
    #[must_use]
    pub fn into_messages(self) -> Vec<String> {
        self.placed(self.found.borrow().clone())
    }

    /// A path of the file, relative to its directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Remembers a secret, so that a check can try to read it.
    pub(super) fn remember(&self, secret: NamedSecret) {
        self.secrets.borrow_mut().push(secret);
    }

    /// The secrets that the file names.
    pub(crate) fn secrets(&self) -> Vec<NamedSecret> {
        self.secrets.borrow().clone()
    }

    fn placed(&self, mut messages: Vec<(usize, String)>) -> Vec<String> {
        messages.sort();
        messages.dedup();
        let mut lines = Lines { text: &self.text, start: 0, number: 1 };
        let place = |(offset, message): &(usize, String)| {
            let (line, column) = lines.place(*offset);
            format!("{}:{line}:{column}: {}", self.file, in_one_line(message))
        };
        messages.iter().map(place).collect()
    }
}

/// A message with what would break its line, such as a path that has a line break in it, as Rust would escape it.
fn in_one_line(message: &str) -> Cow<'_, str> {
    if !message.contains(char::is_control) {
        return Cow::Borrowed(message);
    }
    let mut line = String::with_capacity(message.len() + 8);
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    Cow::Owned(line)
}

/// Counts lines forward, so that many places in a long text take one pass.
struct Lines<'a> {
    text: &'a str,
    start: usize,
    number: usize,
}

impl Lines<'_> {
    /// The line and the column of a byte offset, which is not before the last one asked for.
    fn place(&mut self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let passed = &self.text[self.start..offset];
        if let Some(last) = passed.rfind('\n') {
            self.number += passed.matches('\n').count();
            self.start += last + 1;
        }
        (self.number, self.text[self.start..offset].chars().count() + 1)
    }
}

impl fmt::Debug for Problems {
    /// Leaves out the text: somebody may have written a secret into it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problems").field("file", &self.file).field("found", &self.found).finish_non_exhaustive()
    }
}
