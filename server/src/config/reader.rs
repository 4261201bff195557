//! Reads a TOML table key by key and collects every problem with its line, instead of stopping at the first.
//!
//! A reader asks for the keys it knows; [`Section::finish`] then reports the ones that nobody asked for, with the nearest
//! known key. A read that fails notes the problem and returns `None`, so that the caller goes on with a default: the
//! configuration is used only if there is no problem at all.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, ops::Range, path::PathBuf, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use url::Url;

use super::secret::SecretSource;

/// The problems of one file.
#[derive(Debug)]
pub struct Problems {
    file: String,
    text: String,
    directory: PathBuf,
    found: RefCell<Vec<(usize, String)>>,
}

impl Problems {
    /// None yet, in `text`, which was read from `file`; relative paths in it start at `directory`.
    #[must_use]
    pub fn new(file: &str, text: &str, directory: PathBuf) -> Self {
        Self { file: file.into(), text: text.into(), directory, found: RefCell::default() }
    }

    /// Notes a problem at a byte offset of the text.
    pub fn note(&self, offset: usize, message: impl Into<String>) {
        self.found.borrow_mut().push((offset, message.into()));
    }

    /// Every problem as `file:line:column: message`, in the order of the text.
    #[must_use]
    pub fn into_messages(self) -> Vec<String> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        let locate = |offset: usize| {
            let before = &self.text[..self.text.floor_char_boundary(offset)];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            (line, column)
        };
        found
            .iter()
            .map(|(offset, message)| {
                let (line, column) = locate(*offset);
                format!("{}:{line}:{column}: {message}", self.file)
            })
            .collect()
    }
}

/// A table that is being read.
#[derive(Clone)]
pub struct Section<'a> {
    problems: &'a Problems,
    path: String,
    table: Option<&'a DeTable<'a>>,
    offset: usize,
    known: RefCell<Vec<&'static str>>,
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
        Self { problems, path: path.into(), table: Some(table), offset, known: RefCell::default() }
    }

    /// A table that is not there: every key is absent. Required keys are reported at `offset`.
    #[must_use]
    pub fn absent(problems: &'a Problems, path: &str, offset: usize) -> Self {
        Self { problems, path: path.into(), table: None, offset, known: RefCell::default() }
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
        self.problems.note(self.offset, format!("{}: {}", self.path, message.as_ref()));
    }

    /// Notes a problem of one key, at its value if it is there.
    pub fn problem_at(&self, key: &str, message: impl AsRef<str>) {
        let offset = self.table.and_then(|t| t.get(key)).map_or(self.offset, |value| value.span().start);
        self.problems.note(offset, format!("{}: {}", self.join(key), message.as_ref()));
    }

    /// The value of a key.
    pub fn value(&self, key: &'static str) -> Option<Value<'a>> {
        self.known.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Value { problems: self.problems, path: self.join(key), value })
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
        let number = value.get().as_integer().filter(|n| n.radix() == 10).and_then(|n| n.as_str().parse().ok());
        let number = number.filter(|n| range.contains(n));
        number.or_else(|| value.expected(&format!("an integer from {} to {}", range.start, range.end - 1)))
    }

    /// A duration such as `"90s"`, `"5m"` or `"1h 30m"`.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        self.value(key)?.duration()
    }

    /// A list of strings that are not empty.
    pub fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        self.value(key)?.items()?.iter().map(Value::string).collect()
    }

    /// An absolute URL.
    pub fn url(&self, key: &'static str) -> Option<Url> {
        self.value(key)?.url()
    }

    /// A file, relative to the directory of the configuration.
    pub fn path_of(&self, key: &'static str) -> Option<PathBuf> {
        Some(self.problems.directory.join(self.string(key)?))
    }

    /// A table of strings.
    pub fn map(&self, key: &'static str) -> Option<BTreeMap<String, String>> {
        self.value(key)?.entries()?.into_iter().map(|(name, value)| Some((name, value.string()?))).collect()
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

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let word: &str = key.get_ref();
            if !known.contains(&word) {
                let hint = nearest(word, known.iter().copied());
                self.problems.note(key.span().start, format!("{}: unknown key{hint}", self.join(word)));
            }
        }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

/// A value that is being read, where a key may have several forms.
#[derive(Clone)]
pub struct Value<'a> {
    problems: &'a Problems,
    path: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl std::fmt::Debug for Value<'_> {
    /// Shows where it is, not what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}

impl<'a> Value<'a> {
    /// The TOML itself.
    #[must_use]
    pub fn get(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// Notes a problem of this value.
    pub fn problem(&self, message: impl AsRef<str>) {
        self.problems.note(self.value.span().start, format!("{}: {}", self.path, message.as_ref()));
    }

    /// Notes what the value should have been.
    pub fn expected<T>(&self, what: &str) -> Option<T> {
        self.problem(format!("expected {what}, found {}", self.get().type_str()));
        None
    }

    /// A string that is not empty.
    pub fn string(&self) -> Option<String> {
        let text = self.get().as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).or_else(|| self.expected("a string that is not empty"))
    }

    /// A duration.
    pub fn duration(&self) -> Option<Duration> {
        let parsed = self.get().as_str().and_then(|text| humantime::parse_duration(text).ok());
        parsed.or_else(|| self.expected("a duration such as \"90s\", \"5m\" or \"1h\""))
    }

    /// An absolute URL.
    pub fn url(&self) -> Option<Url> {
        let parsed = self.get().as_str().and_then(|text| Url::parse(text).ok()).filter(Url::has_host);
        parsed.or_else(|| self.expected("an absolute URL such as \"https://idp.example/token\""))
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let found = self.get().as_str().and_then(|text| choices.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let hint = nearest(self.get().as_str().unwrap_or_default(), choices.iter().map(|(word, _)| *word));
            self.problem(format!("expected one of {}{hint}", words.join(", ")));
        }
        found.map(|(_, choice)| *choice)
    }

    /// A secret's source. A plain string is refused, so that no secret stands in a configuration file.
    pub fn secret(&self) -> Option<SecretSource> {
        if self.get().is_str() {
            self.problem("a secret must not stand in the file: write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"…\"] }");
            return None;
        }
        let section = self.section()?;
        let source = SecretSource::read_from(&section);
        section.finish();
        source
    }

    /// A table.
    pub fn section(&self) -> Option<Section<'a>> {
        let Some(table) = self.get().as_table() else { return self.expected("a table") };
        Some(Section::new(self.problems, &self.path, table, self.value.span().start))
    }

    /// The elements of an array.
    pub fn items(&self) -> Option<Vec<Value<'a>>> {
        let Some(array) = self.get().as_array() else { return self.expected("an array") };
        let item = |(i, value)| Value { problems: self.problems, path: format!("{}[{i}]", self.path), value };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// The entries of a table whose keys are free.
    pub fn entries(&self) -> Option<Vec<(String, Value<'a>)>> {
        let Some(table) = self.get().as_table() else { return self.expected("a table") };
        let entry = |(key, value): (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| {
            let key: &str = key.get_ref();
            (key.to_owned(), Value { problems: self.problems, path: format!("{}.{key}", self.path), value })
        };
        Some(table.iter().map(entry).collect())
    }
}

/// `, did you mean …?` if a known word is near enough.
fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> String {
    let best = known.map(|k| (strsim::jaro_winkler(word, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, known)) if likeness > 0.75 => format!(", did you mean `{known}`?"),
        _ => String::new(),
    }
}
