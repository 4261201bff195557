//! The keys of `provider = "oauth2"`.

use ::http::header::AUTHORIZATION;
use url::Url;

use super::{client_auth::ClientAuth, discovery::Issuer};
use crate::{
    config::{reader::Section, secret::SecretSource},
    provider::{
        Rotation, attributes::Attributes, headers::Headers, http::HttpSettings, lifetime::LifetimeRule,
        registry::identity_of, text::Text,
    },
    types::Fingerprint,
};

/// The parameters that the provider itself sets.
const OWN_PARAMS: [&str; 10] = [
    "grant_type",
    "client_id",
    "client_secret",
    "scope",
    "audience",
    "resource",
    "refresh_token",
    "username",
    "password",
    "token",
];

/// The grants, by name, that are planned but not there yet.
const LATER_GRANTS: [&str; 4] = ["jwt_bearer", "token_exchange", "device_code", "authorization_code"];

/// The provider as configured.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) grant: Grant,
    pub(super) endpoints: Endpoints,
    pub(super) revocation_url: Option<Url>,
    pub(super) client_id: String,
    pub(super) client_auth: ClientAuth,
    pub(super) extra_params: Vec<(String, Text)>,
    pub(super) extra_headers: Headers,
    pub(super) rules: AnswerRules,
    pub(super) http: HttpSettings,
}

/// How the token is obtained.
#[derive(Clone, Debug)]
pub(super) enum Grant {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 6.
    RefreshToken { first: SecretSource, rotation: Rotation },
    /// RFC 6749 section 4.3.
    Password { username: String, password: SecretSource },
}

impl Grant {
    /// Whether `invalid_grant` means that a person has to log in again, rather than that the configuration is wrong.
    pub(super) fn is_lost_by_invalid_grant(&self) -> bool {
        matches!(self, Self::RefreshToken { .. })
    }

    /// Whether asking twice costs no more than a token that nobody uses. A refresh token may be used up by the first time,
    /// and a wrong password counts twice.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self, Self::ClientCredentials)
    }
}

/// Where the endpoints are known from.
#[derive(Clone)]
pub(super) enum Endpoints {
    /// The server's metadata.
    Issuer(Issuer),
    /// The URL of the token endpoint.
    Explicit(Url),
}

impl Endpoints {
    /// The URL that stands in the configuration.
    fn url(&self) -> &Url {
        match self {
            Self::Issuer(issuer) => issuer.url(),
            Self::Explicit(url) => url,
        }
    }
}

/// How an answer is read.
#[derive(Clone, Debug)]
pub(super) struct AnswerRules {
    pub(super) lifetime: LifetimeRule,
    pub(super) attributes: Attributes,
    /// The token types that are accepted, spelled as they are served.
    pub(super) token_types: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum GrantName {
    ClientCredentials,
    RefreshToken,
    Password,
}

impl Config {
    /// Reads every key before it gives up, so that none is taken for an unknown one.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let http = HttpSettings::read(section);
        let grant = read_grant(section);
        let endpoints = read_endpoints(section, &http);
        let revocation_url = http.read_url(section, "revocation_url");
        let client_id = section.required("client_id", Section::string);
        let client_auth = ClientAuth::read(section);
        let extra_params = read_extra_params(section);
        let reserved = if matches!(client_auth, Some(ClientAuth::Basic(_))) { &[AUTHORIZATION][..] } else { &[] };
        let extra_headers = Headers::read(section, "extra_headers", reserved, false);
        let rules = AnswerRules {
            lifetime: LifetimeRule::read(section),
            attributes: Attributes::read(section),
            token_types: read_token_types(section),
        };
        let endpoints = endpoints?;
        let http = http.naming([endpoints.url()].into_iter().chain(&revocation_url));
        Some(Self {
            grant: grant?,
            endpoints,
            revocation_url,
            client_id: client_id?,
            client_auth: client_auth?,
            extra_params: extra_params?,
            extra_headers: extra_headers?,
            rules,
            http,
        })
    }

    /// Whom the broker authenticates to and as whom.
    pub(super) fn identity(&self) -> Fingerprint {
        let grant = match &self.grant {
            Grant::ClientCredentials => "client_credentials".to_owned(),
            Grant::RefreshToken { .. } => "refresh_token".to_owned(),
            Grant::Password { username, .. } => format!("password {username}"),
        };
        let endpoint = match &self.endpoints {
            Endpoints::Issuer(issuer) => format!("issuer {}", issuer.text()),
            Endpoints::Explicit(url) => format!("token_url {url}"),
        };
        // An extra parameter or header may name a tenant or an account.
        let params = self.extra_params.iter().map(|(name, value)| (name.as_str(), value));
        let headers = self.extra_headers.iter();
        let extras: Vec<_> =
            params.chain(headers).map(|(name, value)| format!("{name}={}", value.identity())).collect();
        let mut fields = vec!["oauth2", &grant, &endpoint, &self.client_id];
        fields.extend(extras.iter().map(String::as_str));
        identity_of(&fields)
    }
}

fn read_grant(section: &Section<'_>) -> Option<Grant> {
    let name = section.required("grant", |section, key| {
        let choices = [
            ("client_credentials", GrantName::ClientCredentials),
            ("refresh_token", GrantName::RefreshToken),
            ("password", GrantName::Password),
        ];
        let value = section.value(key)?;
        if let Some(later) = value.get().as_str().filter(|name| LATER_GRANTS.contains(name)) {
            let known = "\"client_credentials\", \"refresh_token\" and \"password\"";
            value.problem(format!("\"{later}\" is not supported yet, only {known} are"));
            return None;
        }
        value.choice(&choices)
    });
    let first = section.secret("refresh_token");
    let rotation = read_rotation(section);
    let username = section.string("username");
    let password = section.secret("password");

    let name = name?;
    let needs = |key: &str, fitting: GrantName, present: bool| match (name == fitting, present) {
        (true, false) => section.problem(format!("this grant needs the key `{key}`")),
        (false, true) => section.problem_at(key, "this grant does not use it"),
        _ => {}
    };
    needs("refresh_token", GrantName::RefreshToken, section.value("refresh_token").is_some());
    needs("username", GrantName::Password, section.value("username").is_some());
    needs("password", GrantName::Password, section.value("password").is_some());
    if name != GrantName::RefreshToken && section.value("rotation").is_some() {
        section.problem_at("rotation", "this grant does not use it");
    }
    match name {
        GrantName::ClientCredentials => Some(Grant::ClientCredentials),
        GrantName::RefreshToken => Some(Grant::RefreshToken { first: first?, rotation: rotation? }),
        GrantName::Password => Some(Grant::Password { username: username?, password: password? }),
    }
}

/// `"none"`, `"strict"` (the default) or `{ grace = "30s" }`.
fn read_rotation(section: &Section<'_>) -> Option<Rotation> {
    let Some(value) = section.value("rotation") else { return Some(Rotation::Strict) };
    if value.get().is_table() {
        let table = value.section()?;
        let grace = table.required("grace", Section::duration).map(Rotation::Grace);
        table.finish();
        return grace;
    }
    value.choice(&[("none", Rotation::None), ("strict", Rotation::Strict)]).or_else(|| {
        value.problem("a grace period is written as { grace = \"30s\" }");
        None
    })
}

fn read_endpoints(section: &Section<'_>, http: &HttpSettings) -> Option<Endpoints> {
    let has_issuer = section.value("issuer").is_some();
    let has_url = section.value("token_url").is_some();
    match (has_issuer, has_url) {
        (true, false) => Issuer::read(section, http).map(Endpoints::Issuer),
        (false, true) => http.read_url(section, "token_url").map(Endpoints::Explicit),
        _ => {
            section.problem("exactly one of `issuer` and `token_url` is needed");
            None
        }
    }
}

fn read_token_types(section: &Section<'_>) -> Vec<String> {
    let types = section.strings("token_types").unwrap_or_else(|| vec!["Bearer".into()]);
    if types.is_empty() {
        section.problem_at("token_types", "without a token type no token could be accepted");
    }
    types
}

fn read_extra_params(section: &Section<'_>) -> Option<Vec<(String, Text)>> {
    let Some(value) = section.value("extra_params") else { return Some(vec![]) };
    let params = Text::read_table(&value, false)?;
    for (name, _) in params.iter().filter(|(name, _)| OWN_PARAMS.contains(&name.as_str())) {
        value.problem(format!("`{name}` is set by the provider itself"));
    }
    Some(params)
}
