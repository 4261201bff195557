//! One value of the file, where a key may have several forms.

use std::{borrow::Cow, fmt, path::PathBuf, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use url::Url;

use super::{NamedSecret, Problems, Section, join, nearest};
use crate::config::secret::SecretSource;

/// A value that is being read, where a key may have several forms.
#[derive(Clone)]
pub struct Value<'a> {
    pub(super) problems: &'a Problems,
    pub(super) path: String,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl fmt::Debug for Value<'_> {
    /// Shows where it is, not what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

    /// Notes that this value is allowed but unwise.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.problems.warn(self.value.span().start, format!("{}: {}", self.path, message.as_ref()));
    }

    /// Notes what type the value should have had.
    pub fn expected<T>(&self, what: &str) -> Option<T> {
        let found = match self.get() {
            DeValue::String(text) if text.is_empty() => "an empty string",
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("expected {what}, found {found}"));
        None
    }

    /// A string that is not empty.
    pub fn string(&self) -> Option<String> {
        let text = self.get().as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).or_else(|| self.expected("a string that is not empty"))
    }

    /// An integer from `least` to `most`.
    pub fn integer_in(&self, least: u64, most: u64) -> Option<u64> {
        let what = format!("an integer from {least} to {most}");
        let Some(integer) = self.get().as_integer() else { return self.expected(&what) };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|n| (least..=most).contains(n));
        if number.is_none() {
            self.problem(format!("expected {what}"));
        }
        number
    }

    /// A duration.
    pub fn duration(&self) -> Option<Duration> {
        let example = "such as \"90s\", \"5m\" or \"1h 30m\"";
        let Some(text) = self.get().as_str() else { return self.expected(&format!("a duration {example}")) };
        let parsed = humantime::parse_duration(text).ok();
        if parsed.is_none() {
            self.problem(format!("not a duration; write a number and a unit, {example}"));
        }
        parsed
    }

    /// A duration from `least` to `most`.
    pub fn duration_in(&self, least: Duration, most: Duration) -> Option<Duration> {
        let duration = self.duration()?;
        if !(least..=most).contains(&duration) {
            self.problem(format!("expected a duration from {} to {}", in_one_unit(least), in_one_unit(most)));
            return None;
        }
        Some(duration)
    }

    /// An absolute URL. One with a password in it is refused, so that no secret stands in a configuration file.
    pub fn url(&self) -> Option<Url> {
        let example = "such as \"https://idp.example/token\"";
        let Some(text) = self.get().as_str() else { return self.expected(&format!("an absolute URL {example}")) };
        let Some(url) = Url::parse(text).ok().filter(Url::has_host) else {
            self.problem(format!("not an absolute URL; write one {example}"));
            return None;
        };
        if url.password().is_some() {
            self.problem("a URL must not hold a password");
            return None;
        }
        Some(url)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let what = format!("one of {}", words.join(", "));
        let Some(text) = self.get().as_str() else { return self.expected(&what) };
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let hint = nearest(text, choices.iter().map(|(word, _)| *word));
            self.problem(format!("expected {what}{hint}"));
        }
        found.map(|(_, choice)| *choice)
    }

    /// A secret's source. A plain value is refused, so that no secret stands in a configuration file.
    pub fn secret(&self) -> Option<SecretSource> {
        if !self.get().is_table() {
            self.problem(
                "a secret must not stand in the file: \
                 write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"PROGRAM\", …] }",
            );
            return None;
        }
        let section = self.section()?;
        let source = SecretSource::read_from(&section);
        section.finish();
        let source = source?;
        self.problems.remember(NamedSecret {
            offset: self.value.span().start,
            path: self.path.clone(),
            source: source.clone(),
        });
        Some(source)
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
            (key.to_owned(), Value { problems: self.problems, path: join(&self.path, key), value })
        };
        Some(DeTable::iter(table).map(entry).collect())
    }

    /// A path of the file, relative to its directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.problems.resolve(path)
    }
}

/// A duration in the largest unit that needs no fraction: nobody writes a year as 11 months and some days.
fn in_one_unit(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size));
    match unit {
        Some((size, name)) if duration.subsec_nanos() == 0 => format!("{}{name}", seconds / size),
        _ => humantime::format_duration(duration).to_string(),
    }
}
