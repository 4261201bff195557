//! `[authn]`: how callers prove who they are.

use std::{path::PathBuf, time::Duration};

use super::reader::{Section, Value};
use crate::{
    authn::{
        jwt::{Algorithm, JwtRules, KeySource},
        mtls::CertificateRules,
        spiffe,
    },
    provider::http::HttpSettings,
};

/// The longest that clocks may differ, in the mind of who checks a JWT.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// How callers prove who they are: any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthnConfig {
    /// By a client certificate.
    pub mtls: Option<MtlsConfig>,
    /// By a JWT of one of these issuers.
    pub jwt: Vec<JwtRules>,
    /// By an API key.
    pub api_keys: bool,
    /// By being a user of this machine, at the other end of a Unix socket.
    pub unix_users: bool,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtlsConfig {
    /// Who signs them, PEM.
    pub ca_file: PathBuf,
    /// What they say.
    pub rules: CertificateRules,
}

impl AuthnConfig {
    /// Whether nobody can prove anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            mtls: section.section("mtls").and_then(|mtls| read_mtls(&mtls)),
            jwt: section.value("jwt").map(|table| read_issuers(&table)).unwrap_or_default(),
            api_keys: section.bool("api_keys").unwrap_or_default(),
            unix_users: section.bool("unix_users").unwrap_or_default(),
        }
    }
}

fn read_mtls(section: &Section<'_>) -> Option<MtlsConfig> {
    let ca_file = section.required("ca_file", Section::path_of);
    let trust_domain = section.string("trust_domain");
    let dns_names = section.bool("dns_names").unwrap_or_default();
    if trust_domain.as_deref().is_some_and(|domain| !spiffe::is_trust_domain(domain)) {
        section.problem_at(
            "trust_domain",
            "a trust domain consists of a-z, 0-9, '.', '-' and '_', such as \"prod.example\"",
        );
    }
    if trust_domain.is_none() && !dns_names {
        section.problem(
            "set `trust_domain`, for SPIFFE IDs, or `dns_names = true`: otherwise no certificate says anything",
        );
    }
    let rules = CertificateRules { trust_domain, dns_names };
    if let Some(file) = &ca_file
        && std::fs::metadata(file).is_err()
    {
        section.problem_at("ca_file", format!("cannot read {}", file.display()));
    }
    let mtls = ca_file.map(|ca_file| MtlsConfig { ca_file, rules });
    section.clone().finish();
    mtls
}

fn read_issuers(table: &Value<'_>) -> Vec<JwtRules> {
    let entries = table.entries().unwrap_or_default();
    entries.iter().filter_map(|(name, value)| read_issuer(name, value)).collect()
}

fn read_issuer(name: &str, value: &Value<'_>) -> Option<JwtRules> {
    let section = value.section()?;
    if name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        value.problem("the name of an issuer has at most 64 of a-z, A-Z, 0-9, '_' and '-': subjects begin with it");
    }
    let http = HttpSettings::read(&section);
    let issuer = section.required("issuer", Section::string);
    let keys = read_keys(&section, &http, issuer.as_deref());
    let audiences = section.required("audiences", Section::strings);
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        section.problem_at("audiences", "at least one name of this broker");
    }
    let leeway = section.duration_in("leeway", Duration::ZERO, MAX_LEEWAY);
    let named = match &keys {
        Some(KeySource::Discovery(url) | KeySource::Url(url)) => Some(url.clone()),
        Some(KeySource::File(_)) | None => None,
    };
    let http = http.naming(named.as_ref());
    let rules = JwtRules {
        name: name.into(),
        issuer: issuer.unwrap_or_default(),
        audiences: audiences.unwrap_or_default(),
        keys: keys?,
        algorithms: read_algorithms(&section),
        claims: section.strings("claims").unwrap_or_default(),
        leeway: leeway.unwrap_or(Duration::from_secs(30)),
        http,
    };
    section.finish();
    Some(rules)
}

fn read_keys(section: &Section<'_>, http: &HttpSettings, issuer: Option<&str>) -> Option<KeySource> {
    let url = http.read_url(section, "jwks_url").map(KeySource::Url);
    let file = section.path_of("jwks_file").map(KeySource::File);
    match (url, file) {
        (Some(_), Some(_)) => {
            section.problem_at("jwks_file", "either `jwks_url` or `jwks_file`");
            None
        }
        (None, None) if section.has("jwks_url") || section.has("jwks_file") => None,
        (None, None) => {
            let url = issuer.and_then(|issuer| url::Url::parse(issuer).ok());
            let url = url.filter(|url| http.check_url(url).is_ok());
            if url.is_none() && issuer.is_some() {
                section.problem_at(
                    "issuer",
                    "not an https URL, so its keys cannot be discovered: set `jwks_url` or `jwks_file`",
                );
            }
            url.map(KeySource::Discovery)
        }
        (url, file) => url.or(file),
    }
}

fn read_algorithms(section: &Section<'_>) -> Vec<Algorithm> {
    let Some(value) = section.value("algorithms") else { return vec![Algorithm::RS256, Algorithm::ES256] };
    let items = value.items().unwrap_or_default();
    let mut read = Vec::with_capacity(items.len());
    for item in &items {
        let Some(text) = item.string() else { continue };
        match Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == text) {
            Some(algorithm) => read.push(algorithm),
            None => item.problem(format!(
                "not an algorithm that is accepted: {}; those with a shared secret and \"none\" never are",
                Algorithm::ALL.map(Algorithm::name).join(", ")
            )),
        }
    }
    if items.is_empty() {
        value.problem("an empty list accepts no JWT");
    }
    read
}
