//! A model of what the replicas of a fleet do, small enough to be explored exhaustively: the specification of the fleet
//! protocol that a machine can check.
//!
//! - [`refresh`]: who may ask the upstream, and what becomes of refresh tokens;
//! - [`rejection`]: how a rejected token goes out of service on all replicas before the rejection is acknowledged.
//!
//! A step of a model is one that the code takes without interruption: a transaction, a message sent, a message taken in.
//! Steps bear the names that they have in the code. Between any two of a replica's steps any number of other replicas'
//! may come, and any time may pass: a replica that is slow, stopped or swapped out takes no steps while its clock goes on.
//! Time passes in ticks that all clocks share; what the protocol needs of clocks is no more than that.
//!
//! What the models show holds within their bounds, which each states. Each rule of the protocol can be left out
//! ([`Bug`]), and the checker then finds what goes wrong: a rule that nothing misses would be superfluous.

mod bug;
mod explore;
pub mod refresh;
pub mod rejection;

pub use bug::Bug;
pub use explore::{Explored, explore};
