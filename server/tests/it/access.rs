//! Who gets in and how far: identities, grants, TLS and limits, over real connections.

mod api_keys;
mod certificates;
mod limits;
mod methods;
mod policy;
mod reload;
