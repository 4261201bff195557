//! The layers of the broker, read from its sources: which module may know which, and where foreign types may appear.
//!
//! Lines of code are read, comments and unit tests are not. `super::` counts as what it leads to.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules from the ground up. A module may use its own, those that share its line as `together`, and every one
/// below; the longest name that fits a module counts.
const LAYERS: &[Layer] = &[
    Layer::together(&[
        "bug",
        "error",
        "failpoint",
        "hardening",
        "lifecycle",
        "metrics",
        "rng",
        "telemetry",
        "time",
        "trace",
        "types",
        "worker",
    ]),
    // Plug-ins read their own tables and secrets with these, and `dev` writes a configuration without reading one.
    Layer::together(&["config::reader", "config::secret"]),
    Layer::apart(&["dev", "provider", "store"]),
    Layer::apart(&["credential"]),
    Layer::apart(&["audit"]),
    Layer::apart(&["authn", "policy"]),
    Layer::apart(&["config"]),
    Layer::apart(&["cache"]),
    Layer::apart(&["pipeline"]),
    Layer::apart(&["rpc"]),
    Layer::apart(&["app"]),
    Layer::apart(&["cli"]),
    Layer::apart(&["main"]),
];

/// What only some modules may name: the beginning of a path, and the modules.
const BORDERS: &[(&str, &[&str])] = &[
    ("tonic", &["rpc", "app"]),
    ("prost", &["rpc"]),
    ("tokencache_proto", &["rpc"]),
    ("axum", &["rpc::http", "rpc::routes", "dev"]),
    ("tower", &["rpc::front", "rpc::guard", "provider::http::kept"]),
    ("sqlx", &["store::postgres", "store::sqlite", "store::sql"]),
    ("reqwest", &["provider::http"]),
    ("opentelemetry", &["trace"]),
    ("moka", &["authn::jwt", "cache::history", "cache::memory", "rpc::standing"]),
    ("clap", &["cli", "main"]),
    // Single flight alone talks to both the store and the provider. The rest of the cache gets at a provider only through
    // a credential, to revoke what was taken out of service.
    ("crate::provider", &["provider", "authn::jwt", "credential", "config", "cache::flight", "app", "cli"]),
    ("crate::provider::fixed", &["provider::fixed", "provider::registry"]),
    ("crate::provider::oauth2", &["provider::oauth2", "provider::registry"]),
    ("crate::provider::session", &["provider::session", "provider::registry"]),
    ("crate::store::memory", &["store"]),
    ("crate::store::postgres", &["store"]),
    ("crate::store::sqlite", &["store"]),
    ("crate::authn::AnyCaller", &["app"]),
    ("crate::policy::AllowAll", &["app"]),
];

/// Words that only some files may contain: concrete plug-ins, and the calls of which there must be one door. The suites
/// that every plug-in passes try them all.
const DOORS: &[(&str, &[&str])] = &[
    ("MemoryTokenStore", &["store", "store::memory", "store::registry"]),
    (
        "PgTokenStore",
        &[
            "store",
            "store::postgres",
            "store::postgres::api_keys",
            "store::postgres::audit",
            "store::postgres::endpoints",
            "store::postgres::events",
            "store::postgres::fleet",
            "store::postgres::grants",
            "store::postgres::secrets",
            "store::postgres::tokens",
            "store::registry",
        ],
    ),
    (
        "SqliteTokenStore",
        &[
            "store",
            "store::sqlite",
            "store::sqlite::api_keys",
            "store::sqlite::audit",
            "store::sqlite::endpoints",
            "store::sqlite::grants",
            "store::sqlite::secrets",
            "store::sqlite::tokens",
            "store::registry",
        ],
    ),
    ("Registry::builtin", &["app", "cli", "cli::api_key", "cli::explain", "cli::key", "cli::verify"]),
    (".mint(", &["cache::flight::attempt", "provider::deadline"]),
    (".configured_grant(", &["cache::flight::grant", "provider::deadline"]),
    (".revoke(", &["cache::reject", "provider::deadline", "dev::api", "dev::oauth2"]),
    ("store.admit(", &["cache::flight::budget", "store::detached"]),
    ("store.depart(", &["cache::flight::budget", "store::detached"]),
    (".advance_grant(", &["app::replay", "cache::flight::grant", "cache::pending", "store::detached"]),
    (".begin_rotation(", &["cache::flight::grant", "store::detached"]),
];

/// No file is longer than this, without its tests (STYLE 18).
const MAX_LINES: usize = 600;

const MAX_LINES_OF_MAIN: usize = 100;

#[derive(Clone, Copy)]
struct Layer {
    modules: &'static [&'static str],
    /// Whether the modules may use each other.
    together: bool,
}

impl Layer {
    const fn together(modules: &'static [&'static str]) -> Self {
        Self { modules, together: true }
    }

    const fn apart(modules: &'static [&'static str]) -> Self {
        Self { modules, together: false }
    }
}

/// A source file without its comments and its unit tests.
struct Source {
    /// Its place in the crate, such as `cache::flight`; `lib` and `main` have their own names.
    module: String,
    code: String,
}

impl Source {
    fn new(module: &str, text: &str) -> Self {
        let code = text.split_once("#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code);
        let lines = code.lines().map(|line| line.trim_start()).filter(|line| !line.starts_with("//"));
        Self { module: module.into(), code: lines.collect::<Vec<_>>().join("\n") }
    }

    /// Every path in the code, from its root on: `crate::time::Clock`, `sqlx::query`. Groups are spelt out.
    fn paths(&self) -> Vec<String> {
        let bytes = self.code.as_bytes();
        let begins = |at: usize| at == 0 || !(is_word(bytes[at - 1]) || bytes[at - 1] == b':');
        let starts = (0..bytes.len()).filter(|&at| is_word(bytes[at]) && begins(at));
        let mut paths = Vec::new();
        for start in starts {
            let path = &self.code[start..];
            let length = path.bytes().take_while(|byte| is_word(*byte)).count();
            if path[length..].starts_with("::") {
                spell_out("", path, &mut paths);
            }
        }
        paths.into_iter().map(|path| self.absolute(&path)).collect()
    }

    /// A path with `super` and `self` replaced by what they lead to.
    fn absolute(&self, path: &str) -> String {
        let mut place: Vec<&str> = self.module.split("::").filter(|name| *name != "lib").collect();
        let mut rest = path;
        while let Some(tail) = rest.strip_prefix("super::") {
            place.pop();
            rest = tail;
        }
        if rest.len() < path.len() {
            return [&["crate"], &place[..], &[rest]].concat().join("::");
        }
        match path.strip_prefix("self::") {
            Some(rest) => [&["crate"], &place[..], &[rest]].concat().join("::"),
            None => path.to_owned(),
        }
    }
}

/// Adds the paths of a use tree to `paths`; returns what follows it.
fn spell_out<'a>(prefix: &str, tree: &'a str, paths: &mut Vec<String>) -> &'a str {
    let tree = tree.trim_start();
    if let Some(mut rest) = tree.strip_prefix('{') {
        loop {
            rest = spell_out(prefix, rest, paths).trim_start();
            match rest.as_bytes().first() {
                Some(b',') => rest = &rest[1..],
                Some(b'}') => return &rest[1..],
                _ => return rest,
            }
        }
    }
    let length = tree.bytes().take_while(|byte| is_word(*byte) || *byte == b'*').count();
    let (name, rest) = tree.split_at(length);
    let path = format!("{prefix}{name}");
    match rest.strip_prefix("::") {
        Some(rest)
            if rest.trim_start().starts_with(|c: char| c == '{' || c == '*' || c == '_' || c.is_alphabetic()) =>
        {
            spell_out(&format!("{path}::"), rest, paths)
        }
        _ => {
            if !name.is_empty() {
                paths.push(path);
            }
            rest.strip_prefix(" as ")
                .map_or(rest, |rest| rest.trim_start_matches(|c: char| c == '_' || c.is_alphanumeric()))
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Whether a path or a module is `root` or below it.
fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The layer of a path inside the crate and the module of it that the path belongs to.
fn layer_of(path: &str) -> Option<(usize, &'static str)> {
    let entries = LAYERS.iter().enumerate().flat_map(|(rank, layer)| layer.modules.iter().map(move |m| (rank, *m)));
    entries.filter(|(_, module)| is_within(path, module)).max_by_key(|(_, module)| module.len())
}

/// Everything in a source that breaks a rule.
fn violations(source: &Source) -> Vec<String> {
    let paths = source.paths();
    let mut found: Vec<_> = paths.iter().filter_map(|path| runs_back(&source.module, path)).collect();
    for (root, allowed) in BORDERS {
        // A crate's companions, such as tonic-health, are as foreign as itself.
        let inside = |path: &String| is_within(path, root) || (!root.contains("::") && is_companion(path, root));
        if let Some(path) = paths.iter().find(|path| inside(path)).filter(|_| !is_any_of(&source.module, allowed)) {
            found.push(format!("{}: {path} stays in {}", source.module, allowed.join(", ")));
        }
    }
    for (word, allowed) in DOORS {
        let may = allowed.contains(&source.module.as_str()) || source.module.contains("::conformance");
        if source.code.contains(word) && !may {
            found.push(format!("{}: `{word}` stays in {}", source.module, allowed.join(", ")));
        }
    }
    found
}

fn is_companion(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.starts_with('_'))
}

fn is_any_of(module: &str, roots: &[&str]) -> bool {
    roots.iter().any(|root| is_within(module, root))
}

fn runs_back(module: &str, path: &str) -> Option<String> {
    // `main` is a crate of its own and knows the library by its name.
    let path = path.strip_prefix("crate::").or_else(|| path.strip_prefix("tokencache_server::"))?;
    let Some((from, own)) = layer_of(module) else { return Some(format!("{module}: no layer is known for it")) };
    let Some((to, other)) = layer_of(path) else { return Some(format!("{module}: no layer is known for {path}")) };
    let allowed = own == other || to < from || (to == from && LAYERS[from].together);
    (!allowed).then(|| format!("{module}: {path} is not below it"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module of a file, or none if it holds tests.
fn module_of(path: &Path) -> Option<String> {
    let path = path.strip_prefix(root()).expect("a file of the sources").with_extension("");
    let names: Vec<_> = path.iter().map(|name| name.to_str().expect("UTF-8")).collect();
    (!names.contains(&"tests")).then(|| names.join("::"))
}

/// All sources but those of tests, with their text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(module) = module_of(&path)
            {
                found.push((module, fs::read_to_string(path).expect("UTF-8")));
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "only {} sources were found", found.len());
    found
}

#[test]
fn no_module_knows_one_above_it_and_foreign_types_stay_at_their_border() {
    let found: Vec<_> = sources()
        .iter()
        // The crate's root only lists the modules.
        .filter(|(module, _)| module != "lib")
        .flat_map(|(module, text)| violations(&Source::new(module, text)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_is_too_long_and_main_is_short() {
    for (module, text) in sources() {
        let code = text.split_once("#[cfg(test)]\nmod tests").map_or(&text[..], |(code, _)| code);
        let most = if module == "main" { MAX_LINES_OF_MAIN } else { MAX_LINES };
        assert!(code.lines().count() <= most, "{module} has more than {most} lines");
    }
}

#[test]
fn no_rule_names_a_module_that_is_gone() {
    let modules: Vec<_> = sources().into_iter().map(|(module, _)| module).collect();
    let layered = LAYERS.iter().flat_map(|layer| layer.modules);
    let bordered = BORDERS.iter().chain(DOORS).flat_map(|(_, allowed)| *allowed);
    for name in layered.chain(bordered) {
        assert!(modules.iter().any(|module| module == name), "there is no module {name}");
    }
    for (word, _) in DOORS {
        assert!(sources().iter().any(|(_, text)| text.contains(word)), "nothing contains `{word}`");
    }
}

/// What the rules say of a line in a module.
fn judge(module: &str, line: &str) -> Vec<String> {
    violations(&Source::new(module, line))
}

#[test]
fn every_kind_of_violation_is_found() {
    for (module, line, rule) in [
        ("store::sqlite", "use crate::provider::Minted;", "provider::Minted is not below it"),
        ("provider", "use crate::{\n    error::Error,\n    store::SharedStore,\n};", "store::SharedStore is not below"),
        ("types::key", "use crate::{error::Error, cache::{Parts, entry::{self, Token}}};", "entry::Token is not below"),
        ("cache::memory", "fn f(call: &crate::pipeline::Call) {}", "pipeline::Call is not below it"),
        ("authn", "use super::policy::Policy;", "policy::Policy is not below it"),
        ("cache::inspect", "use super::super::provider::Minted;", "crate::provider::Minted stays in"),
        ("cache::reject", "use crate::provider::Minted;", "crate::provider::Minted stays in"),
        ("pipeline", "use tonic::Status;", "tonic::Status stays in"),
        ("cache::hub", "fn f() -> tonic_types::pb::Status {}", "tonic_types::pb::Status stays in"),
        ("app", "let rows = sqlx::query(\"SELECT 1\");", "sqlx::query stays in"),
        ("provider::oauth2", "use reqwest::Client;", "reqwest::Client stays in"),
        ("pipeline", "use crate::policy::{AllowAll, Policy};", "crate::policy::AllowAll stays in"),
        ("config::load", "use crate::provider::oauth2::FACTORY;", "crate::provider::oauth2::FACTORY stays in"),
        ("rpc::serve", "let stores = StoreRegistry::builtin();", "`Registry::builtin` stays in"),
        ("cache::refresher", "credential.provider.mint(request).await", "`.mint(` stays in"),
        ("newcomer", "use crate::error::Error;", "no layer is known for it"),
        ("main", "use tokencache_server::newcomer;", "no layer is known for newcomer"),
    ] {
        let found = judge(module, line);
        assert!(found.iter().any(|found| found.contains(rule)), "{module}: {line}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    for (module, line) in [
        ("cache::flight::grant", "use crate::{provider::{MintFailure, Rotation}, store::{Grant, GrantSeed as Seed}};"),
        ("cache", "/// As [`crate::rpc::call`].\n// use crate::rpc::call;"),
        ("cache", "use crate::time::Timestamp;\n#[cfg(test)]\nmod tests { use crate::pipeline::Call; }"),
        ("provider::http", "use reqwest::{Certificate, tls};"),
        ("store::sql::rows", "use crate::store::{self, TokenRow};"),
        ("rpc::status", "use tonic_types::{ErrorDetails, StatusExt as _, pb};"),
        ("dev::api", "use super::{tokens::Kind, upstream::Demo};"),
    ] {
        assert!(judge(module, line).is_empty(), "{module}: {line}: {:?}", judge(module, line));
    }
}
