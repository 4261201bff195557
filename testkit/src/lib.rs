//! What several test suites of the repository need.

pub mod http;
