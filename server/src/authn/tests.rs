//! Which proof decides where a caller shows several.

use super::*;
use crate::time::{Clock, Timestamp};

#[derive(Debug)]
struct At(i64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }

    fn uptime(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// Takes tokens that begin with its name; `NAME-bad` is a bad one.
#[derive(Debug)]
struct Named(&'static str);

#[async_trait]
impl BearerAuthenticator for Named {
    async fn recognise(&self, token: &Secret) -> Result<Option<Caller>> {
        match token.expose().strip_prefix(self.0) {
            None => Ok(None),
            Some("-bad") => Err(bad("bad")),
            Some(_) => Ok(Some(Caller::new(format!("key:{}", self.0)))),
        }
    }
}

fn methods(anonymous: bool) -> Methods {
    Methods {
        bearers: vec![Arc::new(Named("one")), Arc::new(Named("two"))],
        peer_users: true,
        anonymous,
        clock: Arc::new(At(1000)),
    }
}

fn evidence(bearer: Option<&str>, certificate: Option<Result<Caller, &'static str>>) -> Evidence {
    let peer = Peer::Unix(Some(PeerUser { uid: 7, gid: 8 }));
    Evidence { peer, certificate, bearer: bearer.map(|token| Ok(Secret::from(token))) }
}

async fn subject(methods: &Methods, evidence: &Evidence) -> Result<String, ErrorKind> {
    methods.authenticate(evidence).await.map(|caller| caller.subject().to_owned()).map_err(|error| error.kind())
}

#[tokio::test]
async fn a_bearer_token_decides_alone_then_the_certificate_then_the_user() {
    let certificate = || Some(Ok(Caller::new("spiffe://prod/a")));
    for anonymous in [false, true] {
        let methods = methods(anonymous);
        let subject = async |bearer, certificate| subject(&methods, &evidence(bearer, certificate)).await;
        assert_eq!(subject(Some("two-x"), certificate()).await, Ok("key:two".into()));
        assert_eq!(subject(None, certificate()).await, Ok("spiffe://prod/a".into()));
        assert_eq!(subject(None, None).await, Ok("uid:7".into()));
        // A bad proof is never made up for by another one, nor by letting everybody in.
        assert_eq!(subject(Some("one-bad"), certificate()).await, Err(ErrorKind::BadIdentity));
        assert_eq!(subject(Some("three"), certificate()).await, Err(ErrorKind::BadIdentity));
        assert_eq!(subject(None, Some(Err("no SPIFFE ID"))).await, Err(ErrorKind::BadIdentity));
    }
    let mut garbled = evidence(None, certificate());
    garbled.bearer = Some(Err("not Bearer"));
    assert_eq!(subject(&methods(true), &garbled).await, Err(ErrorKind::BadIdentity));
}

#[tokio::test]
async fn who_shows_nothing_is_let_in_only_where_the_configuration_says_so() {
    let nothing = Evidence::of_peer(Peer::Unknown);
    assert_eq!(subject(&methods(false), &nothing).await, Err(ErrorKind::NoIdentity));
    assert_eq!(subject(&methods(true), &nothing).await, Ok("anonymous".into()));
    let users_do_not_count = Methods { peer_users: false, ..methods(false) };
    assert_eq!(subject(&users_do_not_count, &evidence(None, None)).await, Err(ErrorKind::NoIdentity));
}

#[tokio::test]
async fn an_identity_counts_until_it_expires() {
    for (end, known) in [(1001, true), (1000, false), (999, false)] {
        let caller = Caller::with_claims("spiffe://prod/a", [].into(), Some(Timestamp::from_millis(end)));
        let judged = subject(&methods(true), &evidence(None, Some(Ok(caller)))).await;
        assert_eq!(judged.is_ok(), known, "{end}");
    }
}
