//! What the documents show must work: whole files, and blocks of TOML in texts.

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Parses a sample as a user would have it. Files that it names are there, for factories read certificates.
fn parse_sample(name: &str, text: &str) {
    let files = root().join("server/tests/fixtures/samples");
    match Config::parse(name, text, files, &ProviderRegistry::builtin()) {
        Ok(config) => assert_eq!(config.warnings, Vec::<String>::new(), "{text}"),
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn files_in(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The blocks of a Markdown text that are marked as TOML. One that begins with `# Cargo.toml` is for Cargo.
fn toml_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("\n```toml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap_or(rest).to_owned());
    blocks.filter(|block| !block.starts_with("# Cargo.toml")).collect()
}

#[test]
fn every_sample_file_is_valid() {
    let samples = files_in(&root().join("docs/examples"), "toml");
    assert!(samples.len() >= 6, "{samples:?}");
    for path in samples {
        parse_sample(&path.display().to_string(), &fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn every_block_of_toml_in_the_documents_is_valid() {
    let mut documents = files_in(&root().join("docs"), "md");
    documents.extend(fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()));
    for path in documents.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        for block in toml_blocks(&fs::read_to_string(path).unwrap()) {
            parse_sample(&path.display().to_string(), &block);
        }
    }
    assert_eq!(toml_blocks("a\n```toml\nx = 1\n```\nb\n```sh\n```\n```toml\ny = 2\n```"), ["x = 1", "y = 2"]);
}

/// The default file with all of its examples in force.
fn uncommented() -> String {
    let is_option = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let uncomment = |line| str::strip_prefix(line, "#").filter(is_option).unwrap_or(line);
    let lines: Vec<_> = DEFAULT.lines().map(uncomment).collect();
    lines.join("\n").replace("sqlite:tokencache.db", "postgres://tokencache@localhost/tokencache")
}

#[test]
fn every_example_in_the_default_file_is_valid() {
    parse_sample("default.toml", &uncommented());
    assert_eq!(uncommented().matches("\n[credentials.").count(), 6);
}

#[test]
fn every_option_is_in_the_default_file() {
    let reading = Reading::of_text("default.toml", &uncommented(), root(), &ProviderRegistry::builtin());
    let asked = reading.problems.asked.borrow();
    let words: Vec<_> = DEFAULT.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = asked.iter().filter(|key| !words.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(asked.len() >= 60, "{asked:?}");
}
