//! What several test suites of the repository need.
