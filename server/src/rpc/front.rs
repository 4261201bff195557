//! What every call passes first: the shedding of what is too much, its deadline, and the two ways on.

use std::{
    convert::Infallible,
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service as _;

use super::{
    accept::Facts,
    answer::Answer,
    calls::{Calls, Row},
    get_token::{self, Asked, AtOnce},
    headers::AnswerHeaders,
    hold::Hold,
    message::Again,
    shed::Shed,
    timeout_of,
    token_service::Tokens,
    traced, watch_tokens,
};
use crate::trace::{Span, Tracer};

/// What a caller is told whose call panicked.
const PANIC: &str = "the broker has a bug; its log tells more";

/// The services of a listener.
#[derive(Clone, Debug)]
pub struct Offer {
    /// All of them.
    pub routes: Routes,
    /// `TokenService`, where it is among them: its hits have a shorter way.
    pub tokens: Option<Tokens>,
}

/// Stands before the services of a listener.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) offer: Offer,
    pub(super) shed: Shed,
    pub(super) headers: AnswerHeaders,
    pub(super) calls: Calls,
    pub(super) tracer: Tracer,
}

/// What is left to do about a call that was not answered at once.
enum Left {
    /// It was understood, and has to wait.
    Asked(Box<Asked>),
    /// All of it.
    Request(Box<Request<Again>>),
}

/// An answer that is there, or is to be waited for.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

impl Front {
    /// Answers a request: a hit before this returns, whatever has to wait by a future.
    pub(super) fn answer(self: &Arc<Self>, facts: &Arc<Facts>, hold: &Hold, request: Request<Incoming>) -> Answering {
        let (begun, row) = (Instant::now(), Row::of(request.uri().path()));
        let place = match self.shed.admit() {
            Ok(place) => place,
            Err(status) => return Box::pin(ready(Ok(self.seal(begun, row, refusal(&status))))),
        };
        let span = traced::begin(&self.tracer, row, &request);
        let mut request = request.map(Again::new);
        let mut asked = None;
        if let Some(tokens) = self.offer.tokens.as_ref().filter(|_| span.is_none() && row == Row::GET_TOKEN) {
            let attempt = AssertUnwindSafe(|| get_token::answer_at_once(tokens, begun, facts, hold, &mut request));
            let attempt = catch_unwind(attempt);
            match attempt.unwrap_or_else(|_| AtOnce::Answered(refusal(&Status::internal(PANIC)))) {
                AtOnce::Answered(response) => return Box::pin(ready(Ok(self.seal(begun, row, response)))),
                AtOnce::Understood(call) => asked = Some(call),
                AtOnce::Unusual => {}
            }
        }
        let (front, facts, hold) = (Arc::clone(self), Arc::clone(facts), hold.clone());
        let deadline = timeout_of(request.headers());
        // Boxed, for each of the futures below has room for it. Of ten thousand calls that wait for one token that counts.
        let (left, span) = (asked.map_or_else(|| Left::Request(Box::new(request)), Left::Asked), span.map(Box::new));
        Box::pin(async move {
            let response = front.answer_later(facts, hold, span, deadline, left).await;
            drop(place);
            Ok(front.seal(begun, row, response))
        })
    }

    /// Answers a request that may have to wait, within its caller's deadline and as part of its span.
    async fn answer_later(
        &self,
        facts: Arc<Facts>,
        hold: Hold,
        span: Option<Box<Span>>,
        deadline: Option<Duration>,
        left: Left,
    ) -> Response<Answer> {
        // A panic ends its call; without this it would end the connection, with all of its calls. Pinned where it is made,
        // and lent: whatever takes a future by value, a variable as well, has room for all of it.
        let served = pin!(AssertUnwindSafe(self.serve(facts, &hold, left)).catch_unwind());
        let answer = within(deadline, async {
            let served = served.await;
            served.unwrap_or_else(|_| refusal(&Status::internal(PANIC)))
        });
        match span {
            None => answer.await,
            Some(span) => Box::pin(traced::record(*span, answer)).await,
        }
    }

    /// Counts an answer, and adds what every answer has.
    fn seal(&self, begun: Instant, row: Row, mut response: Response<Answer>) -> Response<Answer> {
        self.calls.count(row, response.status(), response.headers());
        self.headers.add(response.headers_mut(), begun.elapsed());
        response
    }

    async fn serve(&self, facts: Arc<Facts>, hold: &Hold, left: Left) -> Response<Answer> {
        let request = match left {
            Left::Asked(asked) => return get_token::answer_asked(hold, asked).await,
            Left::Request(request) => request,
        };
        let answered = match (&self.offer.tokens, request.uri().path()) {
            (Some(tokens), get_token::PATH) => get_token::answer(tokens, &facts, hold, request).await,
            (Some(tokens), watch_tokens::PATH) => Box::pin(watch_tokens::answer(tokens, &facts, hold, request)).await,
            _ => Err(request),
        };
        match answered {
            Ok(response) => response,
            // It is not as nearly all are: tonic knows what to say.
            Err(request) => Box::pin(self.route(facts, request)).await,
        }
    }

    async fn route(&self, facts: Arc<Facts>, mut request: Box<Request<Again>>) -> Response<Answer> {
        request.extensions_mut().insert(facts);
        let Ok(response) = self.offer.routes.clone().call(*request).await;
        response.map(Answer::from)
    }
}

/// Ends a call when its caller has stopped waiting. As a rule its own layers have done so before, in better words.
async fn within(deadline: Option<Duration>, answer: impl Future<Output = Response<Answer>>) -> Response<Answer> {
    match deadline {
        None => answer.await,
        Some(deadline) => timeout(deadline, answer)
            .await
            .unwrap_or_else(|_| refusal(&Status::new(Code::DeadlineExceeded, "the caller's deadline passed"))),
    }
}

fn refusal(status: &Status) -> Response<Answer> {
    status.clone().into_http::<Body>().map(Answer::from)
}
