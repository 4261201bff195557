//! The tests that need a database, a network or a whole server: one binary, so that all of it is linked once.

mod providers;
mod stores;
