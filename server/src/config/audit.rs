//! `[audit]`: where it is recorded who got which token, and what happens if it cannot be.

use std::time::Duration;

use super::reader::{Section, Value};
use crate::audit::{AuditSettings, WhenDown};

const EXPECTED: &str = "expected \"stdout\", \"store\", { file = \"PATH\" } or \"memory\"";

/// Reads the section; what is not there has its default.
pub(super) fn read(section: &Section<'_>) -> AuditSettings {
    let default = AuditSettings::default();
    let day = Duration::from_secs(24 * 3600);
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(5));
    let mut settings = section.value("sinks").map_or_else(AuditSettings::default, |value| read_sinks(&value));
    let when_down = section.choice("when_down", &[("closed", WhenDown::Closed), ("open", WhenDown::Open)]);
    settings.when_down = when_down.unwrap_or(default.when_down);
    settings.timeout = section.duration_in("timeout", least, most).unwrap_or(default.timeout);
    settings.sync = section.bool("sync").unwrap_or(default.sync);
    settings.keep = section.duration_in("keep", day, day * 3650).unwrap_or(default.keep);
    if settings.sync && settings.file.is_none() {
        section.warn_at("sync", "it is for a file, and none of the sinks is one");
    }
    if settings.when_down == WhenDown::Open {
        section.warn_at("when_down", "tokens are handed out without an event while a sink takes none");
    }
    settings
}

fn read_sinks(value: &Value<'_>) -> AuditSettings {
    let mut settings = AuditSettings::memory();
    let Some(items) = value.items() else { return settings };
    if items.is_empty() {
        value.problem("at least one sink; write [\"memory\"] to keep events in memory alone");
    }
    let count = items.len();
    for item in &items {
        match item.get().as_str() {
            Some("stdout") if !settings.stdout => settings.stdout = true,
            Some("store") if !settings.store => settings.store = true,
            Some("memory") if count == 1 => {}
            Some("memory") => item.problem("\"memory\" stands alone; the last events are in memory in any case"),
            Some("stdout" | "store") => item.problem("it is there already"),
            Some(_) => item.problem(EXPECTED),
            None if item.get().is_table() => read_file(item, &mut settings),
            None => drop(item.expected::<()>("\"stdout\", \"store\", { file = \"PATH\" } or \"memory\"")),
        }
    }
    settings
}

fn read_file(item: &Value<'_>, settings: &mut AuditSettings) {
    let Some(section) = item.section() else { return };
    let path = section.required("file", Section::path_of);
    section.finish();
    if settings.file.is_some() {
        // Chains are joined through the file that they are written to, of which there is one.
        item.problem("there can be one file only");
    }
    settings.file = path.or(settings.file.take());
}
