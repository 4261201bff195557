//! A class of work's connections: at most so many, each handed back only by a transaction that ended well.
//!
//! Not sqlx's pool: that one asks the database about a connection when it comes back, for as long as the network is silent,
//! and one that leads nowhere any more keeps its place meanwhile; it hides why it cannot connect; and it finds out about
//! dead connections one by one, a time-out each (there is no TCP keepalive: sqlx#3540). Here what one operation finds out
//! about the way to the database holds for all connections that were idle then, of every class.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{
    error::PgStoreError,
    route::{Route, lock},
};

/// How long a connection may take to be had: the wait for one that others use, and the making of a new one.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(4);

/// The first and the longest pause between two attempts to connect to a database that is just starting.
const CONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// One that nobody used for so long is closed: a firewall may have forgotten it.
const IDLE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// However well it works, so that a balancer or a changed name is followed some time.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Whoever gives up on a connection that it held so long was not waiting for the database, whose own limit on statements
/// is shorter, but for the network.
const SILENCE: Duration = Duration::from_secs(6);

/// How long a farewell may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The connections of one class of work. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    route: Route,
    permits: Arc<Semaphore>,
    /// The one that was used last is at the end, and used next: those beyond what is needed grow old at the beginning.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: PgConnection,
    made: Instant,
    since: Instant,
}

impl Idle {
    fn is_fit(&self, route: &Route) -> bool {
        self.since.elapsed() < IDLE_LIMIT && self.made.elapsed() < MAX_LIFETIME && route.trusts(self.since)
    }
}

impl Pool {
    /// At most `size` connections, of which none is made before it is needed.
    pub(super) fn new(route: Route, size: u32) -> Self {
        let permits = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { route, permits, idle: Mutex::default() }))
    }

    /// A connection: an idle one, or a new one where there are fewer than there may be.
    ///
    /// # Errors
    ///
    /// If all are in use for 4 s, or the database cannot be connected to; of that, the last reason in this time.
    pub(super) async fn acquire(&self) -> Result<Pooled, PgStoreError> {
        let deadline = Instant::now() + ACQUIRE_LIMIT;
        let permit = timeout_at(deadline, Arc::clone(&self.0.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| PgStoreError::Busy)?.map_err(|_| PgStoreError::Closed)?;
        let (connection, made) = match self.pop() {
            Some(Idle { connection, made, .. }) => (connection, made),
            None => (self.connect(deadline).await?, Instant::now()),
        };
        Ok(Pooled { connection: Some(connection), made, taken: Instant::now(), pool: self.clone(), _permit: permit })
    }

    /// See [`Route::suspect`].
    pub(super) fn suspect(&self) {
        self.0.route.suspect();
    }

    /// Refuses whoever asks for a connection from now on, and ends those that are idle.
    pub(super) async fn close(&self) {
        self.0.permits.close();
        let idle = std::mem::take(&mut *lock(&self.0.idle));
        let farewells = idle.into_iter().map(|Idle { connection, .. }| connection.close());
        // The database finds out by itself about those that were not told.
        let _ = tokio::time::timeout(CLOSE_LIMIT, futures::future::join_all(farewells)).await;
    }

    /// The idle connection that was used last of those that are fit.
    fn pop(&self) -> Option<Idle> {
        let mut idle = lock(&self.0.idle);
        std::iter::from_fn(|| idle.pop()).find(|idle| idle.is_fit(&self.0.route))
    }

    fn push(&self, connection: PgConnection, made: Instant) {
        let mut idle = lock(&self.0.idle);
        idle.retain(|idle| idle.is_fit(&self.0.route));
        if !self.0.permits.is_closed() {
            idle.push(Idle { connection, made, since: Instant::now() });
        }
    }

    /// Tries again until the deadline while the database is starting, or has too many connections.
    async fn connect(&self, deadline: Instant) -> Result<PgConnection, PgStoreError> {
        let mut pause = CONNECT_PAUSES.0;
        loop {
            let error = match timeout_at(deadline, self.0.route.connect()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => PgStoreError::Connect(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
            };
            if !error.may_pass_soon() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(CONNECT_PAUSES.1);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.0.permits.available_permits();
        f.debug_struct("Pool").field("free", &free).finish_non_exhaustive()
    }
}

/// A connection in use. Dropped, it is closed: only who knows that it is in order hands it back.
pub(super) struct Pooled {
    connection: Option<PgConnection>,
    made: Instant,
    taken: Instant,
    pool: Pool,
    /// After the connection, so that there are never more than there may be.
    _permit: OwnedSemaphorePermit,
}

impl Pooled {
    /// For the next one. Nothing may be under way on it.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.push(connection, self.made);
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if self.connection.is_some() && self.taken.elapsed() >= SILENCE {
            self.pool.suspect();
        }
    }
}

impl Deref for Pooled {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("only giving it back takes it")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only giving it back takes it")
    }
}
