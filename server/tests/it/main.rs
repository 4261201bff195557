//! The integration tests: the parts of the server together, and against recorded exchanges.

mod providers;
