//! Connections that went on with another protocol, a WebSocket for example: bytes go both ways until one side ends.

use http::{Request, Response};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::TokioIo;

/// The program's side of a connection that may be upgraded.
#[derive(Debug)]
pub(super) struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Takes it out of a request.
    pub(super) fn of(request: &mut Request<Incoming>) -> Self {
        Self(on(request))
    }

    /// Connects it with the upstream's side, once both have gone over.
    pub(super) fn splice<B>(self, response: &mut Response<B>) {
        let (ours, theirs) = (self.0, on(response));
        tokio::spawn(async move {
            // Whichever side fails, the other sees its connection end, which is all that can be said in its protocol.
            if let Ok((ours, theirs)) = tokio::try_join!(ours, theirs) {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
            }
        });
    }
}
