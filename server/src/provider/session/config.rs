//! The keys of `provider = "session"`.

use std::time::Duration;

use ::http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE},
};

use super::template::Request;
use crate::{
    config::reader::{Section, Value},
    error::Result,
    provider::{
        attributes::{Attributes, is_pointer},
        headers::secret_value,
        http::HttpSettings,
        lifetime::LifetimeRule,
        registry::identity_of,
    },
    types::{Fingerprint, Secret},
};

/// The provider as configured.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) login: Request,
    pub(super) logout: Option<Request>,
    pub(super) token: TokenPlace,
    pub(super) token_type: String,
    pub(super) told_lifetime: Option<LifetimePlace>,
    pub(super) lifetime: LifetimeRule,
    pub(super) attributes: Attributes,
    pub(super) http: HttpSettings,
}

/// Where the token is in the answer to a log-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenPlace {
    /// In the JSON body.
    Pointer(String),
    /// In a header.
    Header(HeaderName),
    /// In a cookie.
    Cookie(String),
}

/// Where the lifetime is known from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LifetimePlace {
    /// The JSON body tells it in seconds.
    Pointer(String),
    /// It is always the same.
    Always(Duration),
}

impl Config {
    /// Reads every key before it gives up, so that none is taken for an unknown one.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let http = HttpSettings::read(section);
        let login = section.required("login", |section, key| Request::read(&section.section(key)?, &http, false));
        let logout = section.section("logout").map(|table| Request::read(&table, &http, true));
        let token = section.required("token", |section, key| TokenPlace::read(&section.section(key)?));
        let token_type = section.string("token_type").unwrap_or_else(|| "Bearer".into());
        let told_lifetime = section.value("lifetime").map(|value| LifetimePlace::read(&value));
        let lifetime = LifetimeRule::read(section);
        let attributes = Attributes::read(section);
        if HeaderValue::from_str(&token_type).is_err() {
            section.problem_at("token_type", "it cannot stand in a header");
        }
        let login = login?;
        // A logout that was there and could not be read has left a problem.
        let logout = logout.flatten();
        let http = http.naming([&login.url].into_iter().chain(logout.as_ref().map(|logout| &logout.url)));
        Some(Self {
            login,
            logout,
            token: token?,
            token_type,
            told_lifetime: told_lifetime.flatten(),
            lifetime,
            attributes,
            http,
        })
    }

    /// Whom the broker authenticates to and as whom.
    pub(super) fn identity(&self) -> Fingerprint {
        let login = self.login.identity();
        let place = format!("{:?}", self.token);
        let fields: Vec<_> = ["session", &place].into_iter().chain(login.iter().map(String::as_str)).collect();
        identity_of(&fields)
    }

    /// How a log-out presents the token where its request does not mention it: as a cookie if it came as one, else in the
    /// header `Authorization`.
    pub(super) fn presentation(&self, token: &Secret) -> Result<(HeaderName, HeaderValue)> {
        let (name, text): (_, Secret) = match &self.token {
            TokenPlace::Cookie(cookie) => (COOKIE, joined(&[cookie, "=", token.expose()])),
            TokenPlace::Pointer(_) | TokenPlace::Header(_) => {
                (AUTHORIZATION, joined(&[&self.token_type, " ", token.expose()]))
            }
        };
        let value = secret_value(&name, text.expose())?;
        Ok((name, value))
    }
}

/// One text of several, allocated once: a text that grows leaves copies of the secret behind.
fn joined(parts: &[&str]) -> Secret {
    Secret::new(parts.concat())
}

impl TokenPlace {
    fn read(table: &Section<'_>) -> Option<Self> {
        let pointer = pointer(table).map(Self::Pointer);
        let header = table.string("header").and_then(|name| {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
            parsed.or_else(|| {
                table.problem_at("header", "it is not the name of a header");
                None
            })
        });
        let cookie = table.string("cookie").map(Self::Cookie);
        let is_one =
            ["json_pointer", "header", "cookie"].into_iter().filter(|key| table.value(key).is_some()).count() == 1;
        if !is_one {
            table.problem("the token is in exactly one of `json_pointer`, `header` and `cookie`");
        }
        table.clone().finish();
        pointer.or(header.map(Self::Header)).or(cookie)
    }
}

impl LifetimePlace {
    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.get().is_table() {
            let duration = value.duration()?;
            if duration < Duration::from_secs(1) {
                value.problem("expected at least \"1s\"");
            }
            return Some(Self::Always(duration));
        }
        let table = value.section()?;
        let place = table.required("json_pointer", |table, _| pointer(table)).map(Self::Pointer);
        table.finish();
        place
    }
}

fn pointer(table: &Section<'_>) -> Option<String> {
    let pointer = table.string("json_pointer")?;
    if !is_pointer(&pointer) {
        table.problem_at("json_pointer", "expected a JSON pointer such as \"/session/id\"");
    }
    Some(pointer)
}
