//! A request as the configuration describes it, with placeholders for secrets.

use std::{future::Future, pin::Pin};

use ::http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::{Number, Value as Json};
use toml::de::DeValue;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    config::reader::{Section, Value},
    error::{Error, Result},
    provider::{
        buffer::SecretBuffer,
        form::Form,
        headers::Headers,
        http::{Call, HttpSettings},
        text::{Text, is_token_placeholder},
    },
    types::Secret,
};

/// `{ method, url, headers, json | form }`.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) url: Url,
    method: Method,
    headers: Headers,
    body: Body,
}

#[derive(Clone)]
enum Body {
    None,
    Form(Vec<(String, Text)>),
    Json(Node),
}

/// A JSON value with placeholders.
///
/// A table whose only key is `env`, `file` or `command`, or `token` in a log-out, is a placeholder wherever it stands.
#[derive(Clone)]
enum Node {
    Plain(Json),
    Text(Text),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Request {
    /// Reads a request; `with_token` says whether it is about a token, as a log-out is.
    pub(super) fn read(table: &Section<'_>, http: &HttpSettings, with_token: bool) -> Option<Self> {
        let url = table.required("url", |table, key| http.read_url(table, key));
        let methods = [("GET", 0), ("POST", 1), ("PUT", 2), ("PATCH", 3), ("DELETE", 4)];
        let method = match table.value("method").map(|value| value.choice(&methods)) {
            None | Some(Some(1)) => Some(Method::POST),
            Some(Some(0)) => Some(Method::GET),
            Some(Some(2)) => Some(Method::PUT),
            Some(Some(3)) => Some(Method::PATCH),
            Some(Some(_)) => Some(Method::DELETE),
            Some(None) => None,
        };
        let headers = Headers::read(table, "headers", &[], with_token);
        let form = table.value("form").map(|value| Text::read_table(&value, with_token).map(Body::Form));
        let json = table.value("json").map(|value| Node::read(&value, with_token).map(Body::Json));
        let body = match (form, json) {
            (None, None) => Some(Body::None),
            (Some(body), None) | (None, Some(body)) => body,
            (Some(_), Some(_)) => {
                table.problem("a request has at most one of `json` and `form`");
                None
            }
        };
        table.clone().finish();
        Some(Self { url: url?, method: method?, headers: headers?, body: body? })
    }

    /// Whether the token stands anywhere in it.
    pub(super) fn mentions_token(&self) -> bool {
        let in_body = match &self.body {
            Body::None => false,
            Body::Form(fields) => fields.iter().any(|(_, text)| *text == Text::Token),
            Body::Json(node) => node.mentions_token(),
        };
        in_body || self.headers.iter().any(|(_, text)| *text == Text::Token)
    }

    /// The request itself; secrets are read anew.
    pub(super) async fn call(&self, token: Option<&Secret>) -> Result<Call> {
        let mut headers = self.headers.resolve(token).await?;
        let (content_type, body) = match &self.body {
            Body::None => (None, Zeroizing::default()),
            Body::Form(fields) => {
                let mut form = Form::default();
                for (name, text) in fields {
                    form.push(name, text.resolve(token).await?.expose());
                }
                (Some("application/x-www-form-urlencoded"), form.into_body())
            }
            Body::Json(node) => {
                let mut json = SecretBuffer::default();
                node.write(token, &mut json).await?;
                (Some("application/json"), json.into_bytes())
            }
        };
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        // A log-in that came twice leaves a session behind, or counts twice where the password is wrong.
        let (method, url) = (self.method.clone(), self.url.clone());
        Ok(Call { method, url, headers, body, within: None, repeatable: false })
    }

    /// What decides whom it authenticates to and as whom, without telling a secret.
    pub(super) fn identity(&self) -> Vec<String> {
        let mut fields = vec![self.method.to_string(), self.url.to_string()];
        fields.extend(self.headers.iter().map(|(name, text)| format!("{name}={}", text.identity())));
        match &self.body {
            Body::None => {}
            Body::Form(form) => fields.extend(form.iter().map(|(name, text)| format!("{name}={}", text.identity()))),
            Body::Json(node) => fields.push(node.identity()),
        }
        fields
    }
}

impl Node {
    fn read(value: &Value<'_>, with_token: bool) -> Option<Self> {
        match value.get() {
            DeValue::String(text) => Some(Self::Plain(Json::String(text.clone().into_owned()))),
            DeValue::Boolean(flag) => Some(Self::Plain(Json::Bool(*flag))),
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                number.map(|number| Self::Plain(number.into())).or_else(|| value.expected("an integer of 64 bits"))
            }
            DeValue::Float(number) => {
                let number = number.as_str().parse().ok().and_then(Number::from_f64);
                number.map(|number| Self::Plain(Json::Number(number))).or_else(|| value.expected("a finite number"))
            }
            DeValue::Array(_) => {
                let items: Vec<_> = value.items()?.iter().map(|item| Self::read(item, with_token)).collect();
                items.into_iter().collect::<Option<_>>().map(Self::Array)
            }
            DeValue::Table(_) if is_placeholder(value, with_token) => Text::read(value, with_token).map(Self::Text),
            DeValue::Table(_) => {
                let entries = value.entries()?.into_iter();
                let entries: Vec<_> =
                    entries.map(|(name, value)| Some((name, Self::read(&value, with_token)?))).collect();
                entries.into_iter().collect::<Option<_>>().map(Self::Object)
            }
            DeValue::Datetime(_) => value.expected("a value that JSON has"),
        }
    }

    fn mentions_token(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Text(text) => *text == Text::Token,
            Self::Array(items) => items.iter().any(Self::mentions_token),
            Self::Object(entries) => entries.iter().any(|(_, node)| node.mentions_token()),
        }
    }

    /// Writes it as JSON. It never becomes a value of its own, which would keep the secrets.
    fn write<'a>(
        &'a self,
        token: Option<&'a Secret>,
        json: &'a mut SecretBuffer,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        Box::pin(async move {
            match self {
                Self::Plain(value) => write_json(json, value)?,
                Self::Text(text) => write_json(json, text.resolve(token).await?.expose())?,
                Self::Array(items) => {
                    json.push(b"[");
                    for (i, item) in items.iter().enumerate() {
                        json.push(if i > 0 { b"," } else { b"" });
                        item.write(token, json).await?;
                    }
                    json.push(b"]");
                }
                Self::Object(entries) => {
                    json.push(b"{");
                    for (i, (name, node)) in entries.iter().enumerate() {
                        json.push(if i > 0 { b"," } else { b"" });
                        write_json(json, name)?;
                        json.push(b":");
                        node.write(token, json).await?;
                    }
                    json.push(b"}");
                }
            }
            Ok(())
        })
    }

    fn identity(&self) -> String {
        match self {
            Self::Plain(value) => value.to_string(),
            Self::Text(text) => text.identity(),
            Self::Array(items) => format!("{:?}", items.iter().map(Self::identity).collect::<Vec<_>>()),
            Self::Object(entries) => {
                format!("{:?}", entries.iter().map(|(name, node)| (name, node.identity())).collect::<Vec<_>>())
            }
        }
    }
}

fn write_json(json: &mut SecretBuffer, value: &(impl serde::Serialize + ?Sized)) -> Result<()> {
    serde_json::to_writer(json, value).map_err(|_| Error::bug("a text that JSON has no form for"))
}

/// Whether a table stands for a secret or for the token.
fn is_placeholder(value: &Value<'_>, with_token: bool) -> bool {
    let table = value.get().as_table().filter(|table| table.len() == 1);
    let is_secret = table.is_some_and(|table| ["env", "file", "command"].iter().any(|key| table.contains_key(*key)));
    is_secret || (with_token && is_token_placeholder(value))
}
