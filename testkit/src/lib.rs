//! What several test suites of the repository need.

pub mod http;
mod pgbouncer;
mod postgres;
mod process;
mod proxy;
pub mod tls;

pub use pgbouncer::PgBouncer;
pub use postgres::{OwnPostgres, PgNode, Postgres};
pub use process::{ChildGuard, free_port, steady_ports};
pub use proxy::Proxy;
