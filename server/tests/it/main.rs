//! The tests that need a database, a network or a whole server: one binary, so that all of it is linked once.

mod admin;
mod api;
mod bad_answers;
mod bad_requests;
mod broker;
mod canary;
mod cancellations;
mod database;
mod endpoints;
mod headers;
mod herd;
mod layers;
mod outage;
mod process;
mod providers;
mod reflection;
mod rejections;
mod restart;
mod rotation;
mod sealed;
mod secrecy;
mod serving;
mod stores;
mod upstream;
mod watching;
