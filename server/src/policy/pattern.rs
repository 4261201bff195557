//! Patterns of the configuration: `*` stands for any run of characters within a segment, `**` for any run at all.
//!
//! Everything else stands for itself, byte by byte: no case is folded and nothing is normalised, so a pattern never
//! matches more than it shows.

use std::fmt;

/// The longest pattern, in bytes: that of a SPIFFE ID (SPIFFE-ID section 2.3).
const MAX_LEN: usize = 2048;

/// A pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// What every match begins with.
    prefix: usize,
    rest: Box<[Piece]>,
    separator: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// Any run without a separator.
    Star,
    /// Any run.
    Stars,
}

impl Pattern {
    /// Reads a pattern whose segments are parted by `separator`, an ASCII character.
    ///
    /// # Errors
    ///
    /// If it is empty, too long, has three stars in a row, or characters that no subject, name or scope has.
    pub fn parse(text: &str, separator: u8) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("a pattern is not empty; `**` matches everything");
        }
        if text.len() > MAX_LEN {
            return Err("a pattern has at most 2048 bytes");
        }
        if text.contains("***") {
            return Err("`*` matches within a segment and `**` across segments; `***` means nothing");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("a pattern has no spaces and no control characters");
        }
        let prefix = text.find('*').unwrap_or(text.len());
        let mut rest = Vec::with_capacity(text.len() - prefix);
        let mut bytes = text.as_bytes()[prefix..].iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            rest.push(match byte {
                b'*' if bytes.next_if_eq(&b'*').is_some() => Piece::Stars,
                b'*' => Piece::Star,
                byte => Piece::Byte(byte),
            });
        }
        Ok(Self { text: text.into(), prefix, rest: rest.into(), separator })
    }

    /// Whether it matches the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(&self.text[..self.prefix]) else { return false };
        match *self.rest {
            [] => rest.is_empty(),
            [Piece::Stars] => true,
            [Piece::Star] => !rest.as_bytes().contains(&self.separator),
            _ => self.matches_rest(rest.as_bytes()),
        }
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_universal(&self) -> bool {
        &*self.text == "**"
    }

    /// Walks through all ways to match at once: `reached[i]` says whether the first `i` pieces match what was read. Never
    /// more than one step for each piece and byte.
    fn matches_rest(&self, text: &[u8]) -> bool {
        let mut reached = vec![false; self.rest.len() + 1];
        reached[0] = true;
        self.skip_stars(&mut reached);
        for &byte in text {
            let mut next = vec![false; reached.len()];
            for (i, piece) in self.rest.iter().enumerate().filter(|(i, _)| reached[*i]) {
                match *piece {
                    Piece::Byte(expected) => next[i + 1] |= expected == byte,
                    Piece::Star => next[i] |= byte != self.separator,
                    Piece::Stars => next[i] = true,
                }
            }
            self.skip_stars(&mut next);
            reached = next;
        }
        reached[self.rest.len()]
    }

    /// A star may stand for nothing.
    fn skip_stars(&self, reached: &mut [bool]) {
        for (i, piece) in self.rest.iter().enumerate() {
            if reached[i] && !matches!(piece, Piece::Byte(_)) {
                reached[i + 1] = true;
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern, b'/').expect(pattern).matches(text)
    }

    /// The definition, written down as it is read.
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| reference(rest, &text[n..])),
            [b'*', rest @ ..] => {
                (0..=text.len()).take_while(|&n| !text[..n].contains(&b'/')).any(|n| reference(rest, &text[n..]))
            }
            [byte, rest @ ..] => text.first() == Some(byte) && reference(rest, &text[1..]),
        }
    }

    #[test]
    fn a_star_stays_in_its_segment_and_two_stars_do_not() {
        for (pattern, text) in [
            ("a", "a"),
            ("a*", "a"),
            ("a*", "abc"),
            ("a/*", "a/b"),
            ("a/**", "a/b/c"),
            ("**", ""),
            ("**/c", "a/b/c"),
            ("*-ci/*", "x-ci/y"),
            ("a**b*c", "a/b/bc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", "A"), ("a*", "a/b"), ("*", "a/b"), ("a/*", "a/b/c"), ("a", "ab"), ("a/**", "a"), ("é*", "e\u{301}x")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "a***b", "a b", "a\n", "a\u{a0}b", &"x".repeat(2049)] {
            assert!(Pattern::parse(bad, b'/').is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = "a*".repeat(500) + "b";
        assert!(!matches(&pattern, &"a".repeat(2000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, max_global_rejects: 20_000, ..ProptestConfig::default() })]
        #[test]
        fn the_walk_agrees_with_the_definition(pattern in "[ab/*]{1,7}", text in "[ab/]{0,8}") {
            prop_assume!(!pattern.contains("***"));
            prop_assert_eq!(matches(&pattern, &text), reference(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
