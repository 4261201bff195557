//! `[grants.NAME]`: who may do what with which credentials.

use std::collections::BTreeMap;

use super::reader::{Section, Value};
use crate::policy::{
    Action, Pattern,
    rules::{Actions, Grant, Rules, SubjectPattern},
};

/// Reads all grants.
pub(super) fn read_all(table: Option<&Value<'_>>) -> Rules {
    let Some(table) = table else { return Rules::default() };
    if !table.get().is_table() {
        table.problem("expected a table for each grant, which begins with [grants.NAME]");
        return Rules::default();
    }
    let entries = table.entries().unwrap_or_default();
    Rules::new(entries.iter().filter_map(|(name, value)| read(name, value)).collect())
}

fn read(name: &str, value: &Value<'_>) -> Option<Grant> {
    if name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        value.problem("the name of a grant has at most 64 of a-z, A-Z, 0-9, '.', '_' and '-'");
    }
    let section = value.section()?;
    let subjects = required_list(&section, "subjects", SubjectPattern::parse);
    let credentials = required_list(&section, "credentials", path);
    let actions = required_list(&section, "actions", action);
    let grant = Grant {
        name: name.into(),
        claims: read_claims(&section),
        scopes: list(&section, "scopes", path),
        audiences: list(&section, "audiences", path),
        resources: list(&section, "resources", path),
        subjects,
        credentials,
        actions: actions.into_iter().fold(Actions::default(), Actions::with),
    };
    section.finish();
    Some(grant)
}

fn path(text: &str) -> Result<Pattern, &'static str> {
    Pattern::parse(text, b'/')
}

fn action(text: &str) -> Result<Action, &'static str> {
    let known = Action::ALL.into_iter().find(|(word, _)| *word == text);
    known
        .map(|(_, action)| action)
        .ok_or("an action is \"get\", \"watch\", \"invalidate\", \"inspect\", \"operate\" or \"audit\"")
}

/// A list that gives nothing if it is empty, which is a mistake.
fn required_list<T>(
    section: &Section<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Vec<T> {
    let items = list(section, key, parse);
    if !section.has(key) {
        section.problem(format!("the key `{key}` is missing"));
    } else if items.as_ref().is_some_and(Vec::is_empty) {
        section.problem_at(key, "an empty list: the grant would give nothing to anybody");
    }
    items.unwrap_or_default()
}

fn list<T>(
    section: &Section<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Option<Vec<T>> {
    let items = section.value(key)?.items().unwrap_or_default();
    let parsed = items.iter().filter_map(|item| match parse(&item.string()?) {
        Ok(parsed) => Some(parsed),
        Err(rule) => {
            item.problem(rule);
            None
        }
    });
    Some(parsed.collect())
}

/// Each claim with one value or a list of them.
fn read_claims(section: &Section<'_>) -> BTreeMap<String, Vec<String>> {
    let entries = section.value("claims").and_then(|value| value.entries()).unwrap_or_default();
    let read = |value: &Value<'_>| -> Option<Vec<String>> {
        if value.get().as_str().is_some() {
            return Some(vec![value.string()?]);
        }
        value.items()?.iter().map(Value::string).collect()
    };
    entries.into_iter().filter_map(|(name, value)| Some((name, read(&value)?))).collect()
}
