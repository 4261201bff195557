//! What is kept of an answer beside the token, by JSON pointer (RFC 6901).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::reader::Section;

/// Names and where to find their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Reads the key `attributes`, which may be absent.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let pointers = section.map("attributes").unwrap_or_default();
        for (name, pointer) in &pointers {
            if !is_pointer(pointer) {
                section.problem_at("attributes", format!("`{name}` is not a JSON pointer such as \"/instance_url\""));
            }
        }
        Self(pointers)
    }

    /// The values that are there. A string is kept as it is, anything else as JSON; null counts as absent.
    pub(crate) fn pick(&self, document: &Value) -> BTreeMap<String, String> {
        let found = self.0.iter().filter_map(|(name, pointer)| Some((name.clone(), text(document.pointer(pointer)?)?)));
        found.collect()
    }

    /// Whether there is anything to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Whether a text is a JSON pointer.
pub(crate) fn is_pointer(text: &str) -> bool {
    text.starts_with('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_found_by_pointer_and_absent_ones_left_out() {
        let pointers = [("url", "/a/url"), ("id", "/id"), ("none", "/x"), ("null", "/null"), ("list", "/list/1")];
        let attributes = Attributes(pointers.map(|(k, v)| (k.into(), v.into())).into());
        let document = json!({"a": {"url": "u"}, "id": 7, "null": null, "list": [0, {"b": true}]});
        let found = attributes.pick(&document);
        let expected = [("id", "7"), ("list", "{\"b\":true}"), ("url", "u")];
        assert_eq!(found, expected.map(|(k, v)| (k.into(), v.into())).into());
    }
}
