//! The words of the service as types. No IO.

mod caller;
mod ids;
mod key;
mod origin;
mod request;
mod secret;
mod token;

pub use caller::{ANONYMOUS, Caller, Claims, Evidence, Peer, PeerUser};
pub use ids::{BadName, CredentialName, Fingerprint, Generation, ReplicaId};
pub use key::{KeyHash, TokenKey};
pub use origin::Origin;
pub use request::{RejectedToken, Rejection, Selector, TokenRequest};
pub use secret::Secret;
pub use token::{Terms, Token};
