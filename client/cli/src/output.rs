//! Writes what a command found out, for people and for programs.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::failure::Failure;

/// Where a command writes, and what time it is.
pub(crate) struct Output(Box<dyn Write>);

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self(Box::new(io::stdout()))
    }

    /// Writes a text, which ends with a line break, and makes sure that a reader sees it.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush()).map_err(Failure::Output)
    }

    /// Writes an object for programs, indented.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.write(&format!("{value:#}\n"))
    }

    /// Writes an object for programs, on one line.
    pub(crate) fn json_line(&mut self, value: &Value) -> Result<(), Failure> {
        self.write(&format!("{value}\n"))
    }

    /// Says something that a person should know beside the output.
    pub(crate) fn warn(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(io::stderr(), "warning: {text}").map_err(Failure::Output)
    }
}

/// What time it is.
pub(crate) fn now() -> SystemTime {
    Timestamp::now().into()
}

/// A time as RFC 3339 in UTC; empty if it is beyond the year 9999.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

/// A time without its fraction, for programs that take none.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// A time that may be absent, for programs.
pub(crate) fn json_time(time: Option<SystemTime>) -> Value {
    time.map(rfc3339).filter(|text| !text.is_empty()).map_or(Value::Null, Value::String)
}

/// A duration in words: two units, e.g. `5m 3s`.
pub(crate) fn span(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A time as seen from now: `in 35s`, `2m ago`.
pub(crate) fn relative(time: SystemTime, now: SystemTime) -> String {
    match time.duration_since(now) {
        Ok(ahead) => format!("in {}", span(ahead)),
        Err(error) => format!("{} ago", span(error.duration())),
    }
}

/// A time that may be absent, for people.
pub(crate) fn relative_or_dash(time: Option<SystemTime>, now: SystemTime) -> String {
    time.map_or_else(|| "-".to_owned(), |time| relative(time, now))
}

/// A time that may be absent, for people who may want to look it up in a log.
pub(crate) fn exact_or_dash(time: Option<SystemTime>, now: SystemTime) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{} ({})", rfc3339(time), relative(time, now)))
}

/// Texts with spaces between; `-` for none.
pub(crate) fn words_or_dash(words: &[String]) -> String {
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

/// Rows in columns, without lines, so that `awk` and `cut` can read them too.
pub(crate) fn table<const N: usize>(header: Option<[&str; N]>, rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(header) = header {
        table.set_header(header);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(relative(now + Duration::from_millis(35_700), now), "in 35s");
        assert_eq!(relative(now - Duration::from_secs(121), now), "2m 1s ago");
        assert_eq!(relative(now, now), "in 0ms");
        assert_eq!(relative_or_dash(None, now), "-");
    }

    #[test]
    fn times_for_programs_are_rfc_3339() {
        assert_eq!(json_time(Some(SystemTime::UNIX_EPOCH)), Value::from("1970-01-01T00:00:00Z"));
        assert_eq!(json_time(None), Value::Null);
    }

    #[test]
    fn a_table_has_no_lines_and_no_trailing_spaces() {
        let text = table(Some(["A", "B"]), [["long".into(), "x".into()], ["y".into(), "z".into()]]);
        assert_eq!(text, "A     B\nlong  x\ny     z\n");
    }
}
