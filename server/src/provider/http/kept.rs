//! Whether a request went over a connection that was kept: one that fails there says nothing of the upstream, which may have
//! closed the connection just before.

use std::{cell::Cell, error::Error};

use reqwest::ClientBuilder;
use tokio::task_local;
use tower::util::MapRequestLayer;

use super::causes;

task_local! {
    static OPENING: Cell<bool>;
}

/// Has the client's requests tell when they begin to open a connection.
pub(super) fn watched(builder: ClientBuilder) -> ClientBuilder {
    builder.connector_layer(MapRequestLayer::new(note))
}

fn note<T>(request: T) -> T {
    // A connection that is opened in the background belongs to no request.
    let _ = OPENING.try_with(|opening| opening.set(true));
    request
}

/// Whether a request ended because its connection had ceased to answer pings. `reqwest` calls that a timeout as well, although
/// the request had time left.
pub(super) fn fell_silent(error: &reqwest::Error) -> bool {
    let timed_out =
        |cause: &(dyn Error + 'static)| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout);
    causes(error).any(timed_out)
}

/// Makes a request of such a client, and says whether it certainly went over a connection that was kept: that none was begun
/// to be opened for it.
pub(super) async fn over_kept<T>(request: impl Future<Output = T>) -> (T, bool) {
    let watched = async { (request.await, OPENING.with(|opening| !opening.get())) };
    OPENING.scope(Cell::new(false), watched).await
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        path::{Path, PathBuf},
        sync::atomic::{AtomicU32, Ordering},
    };

    use ::http::{HeaderMap, Method, Response};
    use bytes::Bytes;
    use futures::{
        StreamExt as _,
        future::ready,
        stream::{once, pending},
    };
    use http_body_util::{Full, StreamBody};
    use hyper::{
        body::{Body, Frame},
        server::conn::http2,
        service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokencache_testkit::{Proxy, tls::TlsIdentity};
    use tokio::net::TcpListener;
    use url::Url;
    use zeroize::Zeroizing;

    use super::{
        super::{BodyFault, Call, HttpClient, HttpClients, HttpSettings, read_body},
        Error,
    };

    fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls")
    }

    type BoxError = Box<dyn Error + Send + Sync>;

    /// Serves HTTP/2 alone, and answers with a body by the number of the connection.
    async fn serve<B>(listener: TcpListener, body: fn(u32) -> B)
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let identity = TlsIdentity::in_directory(&directory()).expect("a certificate and its key");
        let acceptor = identity.acceptor(None, &[b"h2"]).expect("a pair");
        let count = AtomicU32::new(0);
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (acceptor, number) = (acceptor.clone(), count.fetch_add(1, Ordering::Relaxed) + 1);
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.expect("a handshake");
                let answer = service_fn(move |_| async move { Ok::<_, Infallible>(Response::new(body(number))) });
                // It ends with its client.
                drop(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await);
            });
        }
    }

    /// A server behind a proxy, a client that trusts it, and where it is.
    async fn start<B>(body: fn(u32) -> B) -> (Proxy, HttpClient, Url)
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("an address").port()).await.expect("a proxy");
        tokio::spawn(serve(listener, body));
        let url = Url::parse(&format!("https://127.0.0.1:{}/", proxy.port())).expect("a URL");
        let settings =
            HttpSettings { ca_file: Some(directory().join("ca.pem")), ..HttpSettings::default() }.naming([&url]);
        (proxy, HttpClients::default().get(&settings).expect("a client"), url)
    }

    #[tokio::test]
    async fn a_body_whose_connection_falls_silent_breaks_off() {
        let half = |_| StreamBody::new(once(ready(Ok::<_, Infallible>(Frame::data("half".into())))).chain(pending()));
        let (proxy, client, url) = start(half).await;
        let mut response = client.keeping.post(url).send().await.expect("an answer");
        assert_eq!(response.chunk().await.expect("a part of it").as_deref(), Some(&b"half"[..]));
        proxy.swallow();
        let (rest, fault) = read_body(&mut response).await;
        assert_eq!((&**rest, fault), (&b""[..], Some(BodyFault::Truncated)), "there was time left");
    }

    #[tokio::test]
    async fn a_kept_connection_that_has_fallen_silent_is_given_up_for_another_one() {
        let (proxy, client, url) = start(|number| Full::new(Bytes::from(number.to_string()))).await;
        let ask = async || {
            let call = Call {
                method: Method::POST,
                url: url.clone(),
                headers: HeaderMap::new(),
                body: Zeroizing::default(),
                within: None,
                repeatable: true,
            };
            client.send(call).await.map(|answer| String::from_utf8_lossy(&answer.body).into_owned())
        };
        assert_eq!(ask().await.expect("an answer"), "1");
        assert_eq!(ask().await.expect("an answer"), "1", "the connection is kept");
        proxy.swallow();
        // Without the pings this one would wait until its time is up, and so would all that follow.
        assert_eq!(ask().await.expect("an answer over another connection"), "2");
        assert_eq!(ask().await.expect("an answer"), "3", "and that one is not kept");
        assert_eq!(ask().await.expect("an answer"), "3", "as this one is");
    }
}
