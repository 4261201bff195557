//! Reads a TOML table key by key and collects every problem with its line, instead of stopping at the first.
//!
//! A reader asks for the keys it knows; [`Section::finish`] then reports the ones that nobody asked for, with the nearest
//! known key. A read that fails notes the problem and returns `None`, so that the caller goes on with a default: the
//! configuration is used only if there is no problem at all.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::Range,
    path::PathBuf,
    time::Duration,
};

use toml::de::DeTable;
use url::Url;

use super::secret::SecretSource;

mod problems;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use problems::NamedSecret;
pub use problems::Problems;
pub use value::Value;

/// A table that is being read.
#[derive(Clone)]
pub struct Section<'a> {
    problems: &'a Problems,
    path: String,
    table: Option<&'a DeTable<'a>>,
    offset: usize,
    known: RefCell<Vec<&'static str>>,
    open: Cell<bool>,
}

impl std::fmt::Debug for Section<'_> {
    /// Shows where it is, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}]", self.path)
    }
}

impl<'a> Section<'a> {
    /// The table at `path`; `offset` is where problems of the table as a whole are reported.
    #[must_use]
    pub fn new(problems: &'a Problems, path: &str, table: &'a DeTable<'a>, offset: usize) -> Self {
        Self {
            problems,
            path: path.into(),
            table: Some(table),
            offset,
            known: RefCell::default(),
            open: Cell::new(false),
        }
    }

    /// A table that is not there: every key is absent. Required keys are reported at `offset`.
    #[must_use]
    pub fn absent(problems: &'a Problems, path: &str, offset: usize) -> Self {
        Self { problems, path: path.into(), table: None, offset, known: RefCell::default(), open: Cell::new(false) }
    }

    /// The dotted path of the table.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the table begins, a byte offset.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Notes a problem of the table as a whole.
    pub fn problem(&self, message: impl AsRef<str>) {
        let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        self.problems.note(self.offset, format!("{path}{}", message.as_ref()));
    }

    /// Notes a problem of one key, at its value if it is there.
    pub fn problem_at(&self, key: &str, message: impl AsRef<str>) {
        self.problems.note(self.offset_of(key), format!("{}: {}", join(&self.path, key), message.as_ref()));
    }

    /// Notes that the value of one key is allowed but unwise.
    pub fn warn_at(&self, key: &str, message: impl AsRef<str>) {
        self.problems.warn(self.offset_of(key), format!("{}: {}", join(&self.path, key), message.as_ref()));
    }

    /// Whether a key is there, whatever its value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.contains_key(key))
    }

    /// The value of a key.
    pub fn value(&self, key: &'static str) -> Option<Value<'a>> {
        #[cfg(test)]
        self.problems.asked.borrow_mut().insert(key);
        self.known.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Value { problems: self.problems, path: join(&self.path, key), value })
    }

    /// Reads a key that must be there: `section.required("client_id", Section::string)`.
    pub fn required<T>(&self, key: &'static str, read: impl Fn(&Self, &'static str) -> Option<T>) -> Option<T> {
        if self.table.and_then(|t| t.get(key)).is_none() {
            self.known.borrow_mut().push(key);
            self.problem(format!("the key `{key}` is missing"));
            return None;
        }
        read(self, key)
    }

    /// A string that is not empty.
    pub fn string(&self, key: &'static str) -> Option<String> {
        self.value(key)?.string()
    }

    /// `true` or `false`.
    pub fn bool(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        value.get().as_bool().or_else(|| value.expected("true or false"))
    }

    /// An integer in a range.
    pub fn integer(&self, key: &'static str, range: Range<u64>) -> Option<u64> {
        let value = self.value(key)?;
        value.integer_in(range.start, range.end.saturating_sub(1))
    }

    /// A duration such as `"90s"`, `"5m"` or `"1h 30m"`.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        self.value(key)?.duration()
    }

    /// A duration from `least` to `most`.
    pub fn duration_in(&self, key: &'static str, least: Duration, most: Duration) -> Option<Duration> {
        self.value(key)?.duration_in(least, most)
    }

    /// A list of strings that are not empty.
    pub fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        let items: Vec<_> = self.value(key)?.items()?.iter().map(Value::string).collect();
        items.into_iter().collect()
    }

    /// An absolute URL.
    pub fn url(&self, key: &'static str) -> Option<Url> {
        self.value(key)?.url()
    }

    /// A file, relative to the directory of the configuration.
    pub fn path_of(&self, key: &'static str) -> Option<PathBuf> {
        Some(self.problems.resolve(&self.string(key)?))
    }

    /// A table of strings.
    pub fn map(&self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let entries = self.value(key)?.entries()?;
        let entries: Vec<_> = entries.into_iter().map(|(name, value)| Some((name, value.string()?))).collect();
        entries.into_iter().collect()
    }

    /// `{ env = "X" }`, `{ file = "…" }` or `{ command = ["…"] }`.
    pub fn secret(&self, key: &'static str) -> Option<SecretSource> {
        self.value(key)?.secret()
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.value(key)?.choice(choices)
    }

    /// A table inside this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.value(key)?.section()
    }

    /// Lets every further key pass: it cannot be known which ones are right, for instance because the kind of provider
    /// is not.
    pub fn leave_open(&self) {
        self.open.set(true);
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        if self.open.get() {
            return;
        }
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let word: &str = key.get_ref();
            if !known.contains(&word) {
                let hint = nearest(word, known.iter().copied());
                self.problems.note(key.span().start, format!("{}: unknown key{hint}", join(&self.path, word)));
            }
        }
    }

    /// A path of the file, relative to its directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.problems.resolve(path)
    }

    fn offset_of(&self, key: &str) -> usize {
        self.table.and_then(|t| t.get(key)).map_or(self.offset, |value| value.span().start)
    }
}

/// A dotted path with one more key, which is quoted where TOML wants it, so that it stays on one line.
fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// `, did you mean …?` if a known word is near enough.
fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> String {
    let best = known.map(|k| (strsim::jaro_winkler(word, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, known)) if likeness > 0.75 => format!(", did you mean `{known}`?"),
        _ => String::new(),
    }
}
