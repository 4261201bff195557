//! What the decorators of the HTTP stacks share: how a token is attached, what counts as its refusal, and how often a
//! request is sent again.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::AUTHORIZATION};
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Refusal, Result, Token, TokenSource};

/// How many bytes of a request's body are kept for a replay unless told otherwise.
pub const DEFAULT_BODY_LIMIT: usize = 64 * 1024;

type HeadRule = dyn Fn(StatusCode, &HeaderMap) -> Option<Refusal> + Send + Sync;
type BodyRule = dyn Fn(StatusCode, &HeaderMap, &[u8]) -> Option<Refusal> + Send + Sync;

/// Attaches the token of a source to requests and, where the upstream refuses it, reports that, takes the replacement and
/// sends the original request again.
///
/// It is made into what an HTTP stack takes: a `reqwest` middleware or a `tower` layer, each behind the feature of that name.
/// Cheap to clone.
#[derive(Clone)]
#[must_use]
pub struct TokenAuth {
    pub(crate) source: TokenSource,
    header: HeaderName,
    /// `None`: the token's type.
    scheme: Option<String>,
    pub(crate) max_replays: u32,
    any_method: bool,
    pub(crate) body_limit: usize,
    by_head: Arc<HeadRule>,
    by_body: Option<(usize, Arc<BodyRule>)>,
}

/// How long a request took, in the extensions of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Waiting for tokens: nothing, as a rule.
    pub broker: Duration,
    /// Waiting for the upstream's answers.
    pub upstream: Duration,
    /// How often the request was sent again.
    pub replays: u32,
}

impl TokenAuth {
    /// With the header `Authorization`, the token's own type, 401 as the refusal, one replay, and
    /// [`DEFAULT_BODY_LIMIT`].
    pub fn new(source: TokenSource) -> Self {
        Self {
            source,
            header: AUTHORIZATION,
            scheme: None,
            max_replays: 1,
            any_method: false,
            body_limit: DEFAULT_BODY_LIMIT,
            by_head: Arc::new(|status, _| (status == StatusCode::UNAUTHORIZED).then(|| status.into())),
            by_body: None,
        }
    }

    /// In another header, e.g. `x-session`. HTTP stacks that follow redirects keep `Authorization` to its host, but no
    /// header of your own: see that they follow none to another host.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// With this before the token, and a space; empty: the token alone.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = Some(scheme.into());
        self
    }

    /// How often a request is sent again at most. 0: a refusal is reported and handed through.
    pub fn max_replays(mut self, replays: u32) -> Self {
        self.max_replays = replays;
        self
    }

    /// Whether requests of all methods are sent again after any refusal. Default: after a 401, by which an upstream refuses a
    /// request before it acts, all are; after another refusal those alone whose method is idempotent (RFC 9110 section
    /// 9.2.2). Say so of an upstream that refuses before it acts in its own way, such as gRPC or SOAP.
    pub fn replay_any_method(mut self, replay: bool) -> Self {
        self.any_method = replay;
        self
    }

    /// How many bytes of a streamed body are kept, so that it can be sent again. One that is longer is sent as it is, and a
    /// refusal is reported and handed through. A body in memory is sent again whatever its length. 0: streams are not touched,
    /// as conversations in both directions need it.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// What counts as a refusal, by status and headers. Default: 401. The broker is told, and has the last word: an answer
    /// that by the credential's `reject_on` does not mean a dead token is handed through.
    /// See [`TokenAuth::replay_any_method`] for what is sent again.
    pub fn refused_by(
        mut self,
        rule: impl Fn(StatusCode, &HeaderMap) -> Option<Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.by_head = Arc::new(rule);
        self
    }

    /// The same by the first bytes of the body, for upstreams that answer 200 with an error code. Of responses that are not
    /// refused by their head, up to `limit` bytes are read before they are handed on; `rule` sees a body only if that is
    /// all of it.
    pub fn refused_by_body(
        mut self,
        limit: usize,
        rule: impl Fn(StatusCode, &HeaderMap, &[u8]) -> Option<Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.by_body = Some((limit, Arc::new(rule)));
        self
    }

    /// The header that carries a token.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`] if a header cannot carry it.
    pub(crate) fn attach(&self, headers: &mut HeaderMap, token: &Token) -> Result<()> {
        let scheme = self.scheme.as_deref().unwrap_or(&token.token_type);
        let secret = token.access_token.expose();
        let text = Zeroizing::new(if scheme.is_empty() { secret.to_owned() } else { format!("{scheme} {secret}") });
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Error::new(ErrorKind::Internal, "no header can carry this token with this scheme"))?;
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
        Ok(())
    }

    /// Whether the head of a response is a refusal.
    pub(crate) fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Option<Refusal> {
        (self.by_head)(status, headers)
    }

    /// How much of a body has to be read to know.
    pub(crate) fn reads_body(&self) -> Option<usize> {
        self.by_body.as_ref().map(|(limit, _)| *limit)
    }

    /// Whether a body is a refusal.
    pub(crate) fn refusal_in(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Refusal> {
        self.by_body.as_ref().and_then(|(_, rule)| rule(status, headers, body))
    }

    /// Whether a request that was refused with this status may be sent again.
    pub(crate) fn may_replay(&self, method: &Method, refused_with: StatusCode) -> bool {
        self.any_method || refused_with == StatusCode::UNAUTHORIZED || method.is_idempotent()
    }

    /// What to send the request again with. `None`: the refusal is handed through, because the broker says that the token is
    /// not dead, or gives no other one.
    pub(crate) async fn replacement(&self, refused: &Token, refusal: Refusal) -> Option<Arc<Token>> {
        self.source.rejected(refused, refusal).await.ok().flatten()
    }

    /// Reports a refusal; nobody waits for the replacement.
    pub(crate) fn report(&self, refused: &Arc<Token>, refusal: Refusal) {
        let (auth, refused) = (self.clone(), Arc::clone(refused));
        tokio::spawn(async move { auth.replacement(&refused, refusal).await });
    }
}

impl fmt::Debug for TokenAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuth")
            .field("source", &self.source)
            .field("header", &self.header)
            .field("max_replays", &self.max_replays)
            .finish_non_exhaustive()
    }
}
