//! For the tests of those who use this: a broker in memory, and upstreams that are recorded once and replayed for ever.
//!
//! ```
//! use std::time::Duration;
//! use tokencache_client::testing::MemoryBroker;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tokencache_client::Error> {
//! let broker = MemoryBroker::new();
//! broker.add("github-ci", Duration::from_secs(3600));
//! let source = broker.client().source("github-ci");
//! let token = source.get().await?;
//! let newer = source.rejected(&token, 401).await?.expect("a replacement");
//! assert_eq!(newer.generation, token.generation + 1);
//! assert_eq!((broker.minted("github-ci"), broker.reports("github-ci")), (2, 1));
//! # Ok(()) }
//! ```

mod broker;
mod cassette;

pub use broker::MemoryBroker;
pub use cassette::{Cassette, CassetteError};
