//! The turns of a connection: its calls have theirs within them, and what they say leaves at the end, in one piece.
//!
//! A call must not compute for longer than the others of its connection can wait. What takes long has tasks and threads of
//! its own, such as flights and stores.

use std::{
    cell::Cell,
    error::Error as StdError,
    pin::Pin,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use futures::{Stream as _, stream::FuturesUnordered, task::AtomicWaker};
use hyper::rt::Executor;

use super::wire::Wire;

type BoxError = Box<dyn StdError + Send + Sync>;
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The connection whose calls this thread is polling.
    static POLLED: Cell<*const Turn> = const { Cell::new(ptr::null()) };
    /// How often such calls have said something.
    static SAID: Cell<u64> = const { Cell::new(0) };
}

/// What a connection, its calls and its task share.
#[derive(Default)]
struct Turn {
    task: AtomicWaker,
    /// Calls that were begun since this was last looked at, and go on.
    begun: Mutex<Vec<Work>>,
}

impl Turn {
    /// Polls calls before their connection is polled, and tells whether they said something. That they wake it each time is
    /// for nothing then, and would cost a turn.
    fn listen(&self, poll: impl FnOnce()) -> bool {
        /// Ends it, also by a panic.
        struct Ended(*const Turn);
        impl Drop for Ended {
            fn drop(&mut self) {
                POLLED.set(self.0);
            }
        }
        let (_ended, before) = (Ended(POLLED.replace(self)), SAID.get());
        poll();
        SAID.get() != before
    }

    fn begun(&self) -> MutexGuard<'_, Vec<Work>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if POLLED.get() == Arc::as_ptr(self) {
            SAID.set(SAID.get().wrapping_add(1));
        } else {
            self.task.wake();
        }
    }
}

/// Runs what can end at once where it is begun, and hands the rest to its connection.
#[derive(Clone, Default)]
pub(super) struct Inline(Arc<Turn>);

impl<F> Executor<F> for Inline
where
    F: Future<Output = ()> + Send + 'static,
{
    /// Called by hyper alone, which polls its connection afterwards.
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // Whatever it waits for is waited for anew by the connection's task, which polls it again within this turn.
        let mut goes_on = false;
        self.0.listen(|| goes_on = future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if goes_on {
            self.0.begun().push(future);
        }
    }
}

pin_project_lite::pin_project! {
    /// The turns of a connection.
    pub(super) struct Turns<C> {
        #[pin]
        connection: C,
        wire: Wire,
        turn: Arc<Turn>,
        waker: Waker,
        #[pin]
        calls: FuturesUnordered<Work>,
    }

    impl<C> PinnedDrop for Turns<C> {
        /// A call knows its connection, and would be kept by it for ever: with its place among those that are let in.
        fn drop(this: Pin<&mut Self>) {
            let begun = std::mem::take(&mut *this.turn.begun());
            drop(begun);
        }
    }
}

impl<C> Turns<C> {
    /// Of a connection over `wire` whose calls are run by `inline`.
    pub(super) fn new(connection: C, wire: Wire, inline: &Inline) -> Self {
        let (turn, waker) = (Arc::clone(&inline.0), Waker::from(Arc::clone(&inline.0)));
        Self { connection, wire, turn, waker, calls: FuturesUnordered::new() }
    }

    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future<Output = Result<(), BoxError>>> Future for Turns<C> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.turn.task.register(context.waker());
        // What waits to be sent goes first: meanwhile nothing new is taken on.
        if this.wire.poll_release(context)?.is_pending() {
            return Poll::Pending;
        }
        // Calls that waited for one token are woken together, and answered together.
        poll_calls(this.turn, this.calls.as_mut(), context);
        loop {
            if let Poll::Ready(ended) = this.connection.as_mut().poll(&mut Context::from_waker(this.waker)) {
                return Poll::Ready(ended);
            }
            this.calls.extend(this.turn.begun().drain(..));
            if !poll_calls(this.turn, this.calls.as_mut(), context) {
                break;
            }
        }
        match this.wire.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Polls the calls that were woken. Whether they said something.
fn poll_calls(turn: &Turn, mut calls: Pin<&mut FuturesUnordered<Work>>, context: &mut Context<'_>) -> bool {
    !calls.is_empty() && turn.listen(|| while let Poll::Ready(Some(())) = calls.as_mut().poll_next(context) {})
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use tokio::{net::UnixStream, sync::watch};

    use super::{
        super::{hold::Hold, wire::Stream},
        *,
    };

    /// Counts how often a connection's task is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// What stands for hyper's connection: it is woken by its calls as h2 is, once for each time that it was polled.
    #[derive(Clone, Default)]
    struct Protocol(Arc<(Mutex<Option<Waker>>, AtomicUsize)>);

    impl Protocol {
        fn poll(&self, context: &Context<'_>) -> Poll<Result<(), BoxError>> {
            *self.0.0.lock().unwrap() = Some(context.waker().clone());
            self.0.1.fetch_add(1, SeqCst);
            Poll::Pending
        }

        fn polls(&self) -> usize {
            self.0.1.swap(0, SeqCst)
        }

        /// What a call does that has something to say.
        fn wake(&self) {
            let waker = self.0.0.lock().unwrap().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    struct Connection {
        turns: Pin<Box<dyn Future<Output = Result<(), BoxError>>>>,
        inline: Inline,
        protocol: Protocol,
        task: Arc<Task>,
        _peer: UnixStream,
    }

    impl Connection {
        fn new() -> Self {
            let (stream, peer) = UnixStream::pair().unwrap();
            let (inline, protocol, task) = (Inline::default(), Protocol::default(), Arc::<Task>::default());
            let wire = Wire::new(Stream::Unix(stream), false, Hold::default());
            let polled = protocol.clone();
            let turns = Turns::new(poll_fn(move |context| polled.poll(context)), wire, &inline);
            Self { turns: Box::pin(turns), inline, protocol, task, _peer: peer }
        }

        /// How often its protocol was polled in a turn, and its task woken since the last one.
        fn turn(&mut self) -> (usize, usize) {
            let woken = self.task.0.swap(0, SeqCst);
            let waker = Waker::from(Arc::clone(&self.task));
            assert!(self.turns.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            (self.protocol.polls(), woken)
        }

        fn woken(&self) -> usize {
            self.task.0.load(SeqCst)
        }
    }

    #[tokio::test]
    async fn calls_that_are_woken_together_are_answered_in_one_turn() {
        let mut connection = Connection::new();
        let (land, landing) = watch::channel(false);
        for _ in 0..100 {
            let (mut landing, protocol) = (landing.clone(), connection.protocol.clone());
            connection.inline.execute(async move {
                landing.wait_for(|landed| *landed).await.unwrap();
                protocol.wake();
            });
        }
        assert_eq!(connection.turn().0, 1, "all of them wait");
        land.send_replace(true);
        assert_eq!(connection.turn().0, 1, "for what all of them say");
        assert_eq!(land.receiver_count(), 1, "all of them have ended");
    }

    #[tokio::test]
    async fn what_a_call_says_when_it_is_polled_anew_is_sent_within_the_turn() {
        let mut connection = Connection::new();
        let (protocol, mut polls) = (connection.protocol.clone(), 0);
        // As a stream of messages does, it goes on.
        connection.inline.execute(poll_fn(move |_| {
            polls += 1;
            if polls == 2 {
                protocol.wake();
            }
            Poll::Pending
        }));
        assert_eq!(connection.turn().0, 2);
    }

    #[tokio::test]
    async fn whatever_else_wakes_a_connection_is_heard() {
        let (mut one, mut other) = (Connection::new(), Connection::new());
        assert_eq!((one.turn(), other.turn()), ((1, 0), (1, 0)));
        one.protocol.wake();
        assert_eq!(one.turn(), (1, 1), "of nobody's call");
        let protocol = other.protocol.clone();
        one.inline.execute(async move { protocol.wake() });
        assert_eq!((one.woken(), other.woken()), (0, 1), "of another connection's call");
        let protocol = one.protocol.clone();
        one.inline.execute(async move { protocol.wake() });
        assert_eq!((one.woken(), one.turn().0), (0, 1), "of its own call, after which it is polled anyway");
        // A call that panics leaves nothing behind.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            one.inline.execute(async { panic!("on purpose") });
        }));
        assert!(panicked.is_err());
        one.protocol.wake();
        assert_eq!(one.woken(), 1);
    }

    /// A call that goes on for ever; closed once it is dropped. It knows its connection, as hyper's do.
    fn endless(inline: &Inline) -> watch::Sender<()> {
        let (call, held) = watch::channel(());
        let known = inline.clone();
        inline.execute(async move {
            let _held = (held, known);
            pending::<()>().await;
        });
        call
    }

    #[tokio::test]
    async fn the_calls_of_a_connection_go_with_it() {
        let Connection { mut turns, inline, .. } = Connection::new();
        let waiting = endless(&inline);
        assert!(turns.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // It has not been looked at yet, as of a peer that asks and hangs up at once.
        let begun = endless(&inline);
        assert_eq!((waiting.is_closed(), begun.is_closed()), (false, false));
        drop((turns, inline));
        assert_eq!((waiting.is_closed(), begun.is_closed()), (true, true));
    }
}
