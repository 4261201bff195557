//! What several test suites of the repository need.

pub mod http;
mod pgbouncer;
mod postgres;
mod process;
mod proxy;

pub use pgbouncer::PgBouncer;
pub use postgres::{OwnPostgres, Postgres};
pub use process::{ChildGuard, free_port};
pub use proxy::Proxy;
