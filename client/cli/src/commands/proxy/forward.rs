//! One request: checked, stripped of what belongs to its connection, sent on with a token, and its answer handed back.

use http::{
    Request, Response, StatusCode, Uri, Version,
    header::{EXPECT, HOST},
    uri::{Parts, PathAndQuery},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokencache_client::{TokenAuth, tower::TokenService};
use tower::{Layer as _, Service as _};

use super::{
    answer::{self, ResponseBody},
    headers,
    listener::HostRule,
    upgrade::Upgrade,
    upstream::Upstream,
};

/// Sends requests on. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    service: TokenService<Upstream>,
    base: Uri,
    hosts: HostRule,
}

impl Forward {
    pub(super) fn new(auth: TokenAuth, upstream: Upstream, base: Uri, hosts: HostRule) -> Self {
        Self { service: auth.layer().layer(upstream), base, hosts }
    }

    pub(super) async fn answer(mut self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        if let Some(refusal) = self.refuse(&request) {
            return refusal;
        }
        let Some(uri) = self.uri(request.uri()) else {
            return answer::sentence(StatusCode::BAD_REQUEST, "this request has no path that the upstream could know");
        };
        *request.uri_mut() = uri;
        let upgrade = headers::upgrade(request.headers()).map(|protocol| (protocol, Upgrade::of(&mut request)));
        headers::remove_hop_by_hop(request.headers_mut());
        // The upstream has a name of its own, and the program was told to continue by us.
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(EXPECT);
        *request.version_mut() = Version::HTTP_11;
        if let Some((protocol, _)) = &upgrade {
            headers::set_upgrade(request.headers_mut(), protocol.clone());
        }
        // It is always ready: the client of the upstream makes connections as it needs them.
        let mut response = match self.service.call(request).await {
            Ok(response) => response,
            Err(error) => return answer::failure(&error),
        };
        let agreed =
            headers::upgrade(response.headers()).filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
        headers::remove_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        match (agreed, upgrade) {
            (Some(protocol), Some((_, upgrade))) => {
                headers::set_upgrade(response.headers_mut(), protocol);
                upgrade.splice(&mut response);
            }
            _ if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let text = "the upstream went over to a protocol that was not asked for";
                return answer::sentence(StatusCode::BAD_GATEWAY, text);
            }
            _ => {}
        }
        response.map(BodyExt::boxed_unsync)
    }

    /// Refuses what a page in a browser may have sent behind its user's back.
    fn refuse(&self, request: &Request<Incoming>) -> Option<Response<ResponseBody>> {
        let said = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
        let host = request.uri().authority().map(|authority| authority.as_str()).or(said);
        if !self.hosts.allows(host) {
            let text = "this request is for another host than this proxy; call it by the address that it printed";
            return Some(answer::sentence(StatusCode::MISDIRECTED_REQUEST, text));
        }
        let cross_site = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        cross_site
            .then(|| answer::sentence(StatusCode::FORBIDDEN, "a page of another site may not act with this token"))
    }

    /// The same path at the upstream.
    fn uri(&self, asked: &Uri) -> Option<Uri> {
        let path = asked.path_and_query().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return None;
        }
        let mut parts = Parts::default();
        parts.scheme = self.base.scheme().cloned();
        parts.authority = self.base.authority().cloned();
        parts.path_and_query = Some(format!("{}{path}", self.base.path().trim_end_matches('/')).parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}
