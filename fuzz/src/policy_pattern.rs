//! Patterns of the policy against a second opinion.

use tokencache_server::policy::Pattern;

/// A byte for the separator, a pattern, a line feed and a text.
pub fn check(input: &[u8]) {
    let Some((way, rest)) = crate::way_of(input, 2) else { return };
    let separator = [b'/', b'.'][usize::from(way)];
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let (text, subject) = rest.split_once('\n').unwrap_or((rest, rest));
    let Ok(pattern) = Pattern::parse(text, separator) else {
        let legal = |c: char| !c.is_control() && !c.is_whitespace();
        assert!(text.is_empty() || text.len() > 2048 || text.contains("***") || !text.chars().all(legal), "{text:?}");
        return;
    };
    assert_eq!(pattern.to_string(), text);
    assert_eq!(Pattern::parse(&pattern.to_string(), separator).as_ref(), Ok(&pattern));

    let found = pattern.matches(subject);
    assert_eq!(found, expected(text.as_bytes(), subject.as_bytes(), separator), "{text:?} {subject:?}");
    if !text.contains('*') {
        assert_eq!(found, text == subject);
    }
    if pattern.is_universal() {
        assert!(found);
    }
    if text.contains('*') {
        // A star may stand for nothing, and within a segment for a star.
        assert!(pattern.matches(&text.replace('*', "")) && pattern.matches(text));
    }
    if !text.contains("**") && found {
        let parts = |text: &str| text.bytes().filter(|byte| *byte == separator).count();
        assert_eq!(parts(text), parts(subject), "{text:?} {subject:?}");
    }
}

/// The definition, from the end backwards: `matched[j]` says whether what is left of the pattern matches `subject[j..]`.
fn expected(pattern: &[u8], subject: &[u8], separator: u8) -> bool {
    let end = subject.len();
    let mut matched: Vec<bool> = (0..=end).map(|j| j == end).collect();
    let mut left = pattern.len();
    while left > 0 {
        let stars = if pattern[..left].ends_with(b"**") { 2 } else { usize::from(pattern[left - 1] == b'*') };
        let after = matched.clone();
        for j in (0..=end).rev() {
            matched[j] = match stars {
                0 => j < end && subject[j] == pattern[left - 1] && after[j + 1],
                1 => after[j] || (j < end && subject[j] != separator && matched[j + 1]),
                _ => after[j] || (j < end && matched[j + 1]),
            };
        }
        left -= stars.max(1);
    }
    matched[0]
}
