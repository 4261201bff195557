//! What several test suites of the repository need.

pub mod http;
mod postgres;
mod process;

pub use postgres::Postgres;
pub use process::{ChildGuard, free_port};
