//! Reading of keys and the placing of problems.

use super::*;

fn with<T>(text: &str, read: impl FnOnce(&Section<'_>) -> T) -> (T, Vec<String>) {
    let problems = Problems::new("f", text, "/etc".into());
    let table = DeTable::parse(text).unwrap();
    let section = Section::new(&problems, "", table.get_ref(), 0);
    let result = read(&section);
    section.finish();
    (result, problems.into_messages())
}

#[test]
fn every_item_of_a_list_is_checked() {
    let (list, problems) = with("x = [1, \"a\", \"\"]", |section| section.strings("x"));
    assert_eq!(list, None);
    assert_eq!(
        problems,
        [
            "f:1:6: x[0]: expected a string that is not empty, found an integer",
            "f:1:14: x[2]: expected a string that is not empty, found an empty string",
        ]
    );
}

#[test]
fn integers_may_have_any_notation_of_toml() {
    for text in ["x = 16", "x = 0x10", "x = 1_6", "x = +16", "x = 0b1_0000"] {
        assert_eq!(with(text, |section| section.integer("x", 0..17)), (Some(16), vec![]), "{text}");
    }
}

#[test]
fn an_integer_beyond_64_bits_is_out_of_range() {
    let (number, problems) = with("x = 99999999999999999999999", |section| section.integer("x", 0..10));
    assert_eq!((number, problems), (None, vec!["f:1:5: x: expected an integer from 0 to 9".to_owned()]));
}

#[test]
fn an_absent_key_is_no_problem_unless_it_is_required() {
    assert_eq!(with("", |section| section.string("x")), (None, vec![]));
    let missing = vec!["f:1:1: the key `x` is missing".to_owned()];
    assert_eq!(with("", |section| section.required("x", Section::string)), (None, missing));
}

#[test]
fn an_absent_section_has_no_keys_and_no_unknown_ones() {
    let problems = Problems::new("f", "", "/etc".into());
    let section = Section::absent(&problems, "server", 0);
    assert_eq!(section.bool("x"), None);
    section.finish();
    assert!(problems.is_empty());
}

#[test]
fn debug_shows_neither_the_text_nor_values() {
    let text = "x = { y = \"hunter2\" }";
    let ((), _) = with(text, |section| {
        let shown = format!("{section:?} {:?} {:?}", section.value("x"), section.problems);
        assert!(!shown.contains("hunter2"), "{shown}");
    });
}

#[test]
fn warnings_are_placed_like_problems() {
    let problems = Problems::new("f", "\nx = 1", "/etc".into());
    problems.warn(5, "x: is one");
    assert_eq!(problems.warnings(), ["f:2:5: x: is one"]);
    assert!(problems.is_empty());
}

#[test]
fn secrets_are_remembered_with_their_place() {
    let text = "x = { env = \"A\" }\ny = { file = \"b\" }";
    let problems = Problems::new("f", text, "/etc".into());
    let table = DeTable::parse(text).unwrap();
    let section = Section::new(&problems, "s", table.get_ref(), 0);
    section.secret("x");
    section.secret("y");
    let found: Vec<_> = problems.secrets().into_iter().map(|s| (s.offset, s.path, s.source)).collect();
    let expected = [
        (4, "s.x".to_owned(), SecretSource::Env("A".into())),
        (22, "s.y".to_owned(), SecretSource::File("/etc/b".into())),
    ];
    assert_eq!(found, expected);
}
