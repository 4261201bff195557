//! A configuration with every kind of secret, from every kind of source, for upstreams that answer in every way.

use std::{fmt::Write as _, fs, path::Path};

use super::{
    search::canary,
    upstream::{CASES, GOOD, Upstreams},
};

/// The names of the credentials that are not named after a case.
const OTHERS: [&str; 18] = [
    "post",
    "rotating",
    "rotating-lost",
    "rotating-odd",
    "password",
    "session-json",
    "session-header",
    "session-cookie",
    "session-refused",
    "static",
    "static-illegible",
    "static-unset",
    "static-failing",
    "proxied",
    "tls",
    "discovered",
    "discovered-badly",
    "not-http",
];

/// The names of all credentials.
pub(super) fn names() -> Vec<String> {
    CASES.iter().map(|case| format!("case-{case}")).chain(OTHERS.map(str::to_owned)).collect()
}

/// The names of the credentials that bring tokens whatever the others fail with.
pub(super) fn serving() -> Vec<String> {
    let others = ["post", "rotating", "rotating-odd", "password", "session-json", "session-header", "session-cookie"];
    // Not `static`: once its only token was rejected it has none.
    let apart = ["proxied", "tls", "discovered"];
    let cases = GOOD.iter().map(|case| format!("case-{case}"));
    cases.chain(others.iter().chain(&apart).map(|name| (*name).to_owned())).collect()
}

/// The secrets that are handed over in the environment.
pub(super) fn environment() -> [(&'static str, String); 3] {
    [
        ("CLIENT_SECRET", format!("{} +%/:", canary("client secret by env"))),
        ("HINT", canary("hint by env")),
        ("PASSWORD", format!("{} \"&=+", canary("password by env"))),
    ]
}

/// The configuration. Writes the files that it names.
pub(super) fn text(directory: &Path, upstreams: &Upstreams, store: &str) -> String {
    for (file, secret) in [
        ("client.secret", canary("client secret by file")),
        ("first.rt", canary("refresh token by file")),
        ("api.token", canary("static token by file")),
        ("two.lines", format!("{}\nsecond line", canary("illegible"))),
    ] {
        fs::write(directory.join(file), secret).expect("a file");
    }
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/ca.pem"), directory.join("ca.pem")).expect("a copy");

    let mut text = crate::process::FREE_PORTS.to_owned();
    write!(text, "\n[store]\n{store}\n").expect("a String takes all");
    for case in CASES {
        let upstream = if GOOD.contains(&case) { &upstreams.plain } else { &upstreams.failing };
        let credential = oauth2("client_credentials", &format!("{upstream}/{case}"));
        write!(text, "\n[credentials.case-{case}]\n{credential}").expect("a String takes all");
    }
    text + &others(upstreams)
}

fn oauth2(grant: &str, token_url: &str) -> String {
    format!(
        "provider = \"oauth2\"\ngrant = \"{grant}\"\ntoken_url = \"{token_url}\"\nrevocation_url = \"{token_url}\"\n\
         client_id = \"c\"\nclient_secret = {{ env = \"CLIENT_SECRET\" }}\n"
    )
}

fn others(Upstreams { plain, failing, tls, garbage, .. }: &Upstreams) -> String {
    let echoed = canary("by command");
    let refresh = "refresh_token = { file = \"first.rt\" }";
    let login = format!(
        "provider = \"session\"\nlogin = {{ url = \"{plain}/ok\", headers = {{ x-hint = {{ env = \"HINT\" }} }}, \
         json = {{ password = {{ env = \"PASSWORD\" }} }} }}\nlogout = {{ url = \"{failing}/broken\" }}"
    );
    let client = |grant: &str, case: &str| oauth2(grant, &format!("{plain}/{case}"));
    format!(
        r#"
[credentials.post]
provider = "oauth2"
grant = "client_credentials"
token_url = "{plain}/ok"
client_id = "c"
client_auth = "client_secret_post"
client_secret = {{ file = "client.secret" }}
extra_params = {{ hint = {{ command = ["echo", "{echoed}"] }} }}
extra_headers = {{ x-hint = {{ env = "HINT" }} }}

[credentials.rotating]
{ok}{refresh}

[credentials.rotating-lost]
{lost}{refresh}

[credentials.rotating-odd]
{odd}{refresh}
rotation = {{ grace = "30s" }}

[credentials.password]
{password}username = "bot"
password = {{ env = "PASSWORD" }}

[credentials.session-json]
{login}
token = {{ json_pointer = "/access_token" }}
lifetime = {{ json_pointer = "/refresh_token" }}

[credentials.session-header]
{login}
token = {{ header = "x-session" }}

[credentials.session-cookie]
{login}
token = {{ cookie = "SID" }}

[credentials.session-refused]
provider = "session"
login = {{ url = "{failing}/denied", form = {{ password = {{ env = "PASSWORD" }} }} }}
token = {{ cookie = "SID" }}

[credentials.static]
provider = "fixed"
token = {{ file = "api.token" }}

[credentials.static-illegible]
provider = "fixed"
token = {{ file = "two.lines" }}

[credentials.static-unset]
provider = "fixed"
token = {{ env = "NOT_SET_ANYWHERE" }}

[credentials.static-failing]
provider = "fixed"
token = {{ command = ["sh", "-c", "echo {echoed}; echo {echoed} >&2; exit 3"] }}

[credentials.proxied]
{proxied}http = {{ proxy = "{plain}", allow_http = true }}

[credentials.tls]
{tls}http = {{ ca_file = "ca.pem" }}

[credentials.discovered]
provider = "oauth2"
grant = "client_credentials"
issuer = "{plain}"
client_id = "c"
client_secret = {{ env = "CLIENT_SECRET" }}

[credentials.discovered-badly]
provider = "oauth2"
grant = "client_credentials"
issuer = "{plain}/odd"
client_id = "c"
client_secret = {{ env = "CLIENT_SECRET" }}

[credentials.not-http]
{garbage}"#,
        ok = client("refresh_token", "ok"),
        lost = oauth2("refresh_token", &format!("{failing}/lost")),
        odd = client("refresh_token", "odd_refresh_token"),
        password = client("password", "ok"),
        proxied = oauth2("client_credentials", "http://idp.invalid/ok"),
        tls = oauth2("client_credentials", &format!("{tls}/ok")),
        garbage = oauth2("client_credentials", garbage),
    )
}
