//! What the process does, before it has read a secret, to keep its memory to itself.

use rustix::{
    io,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
};

/// Has no core dump written of this process, and lets no other process of the same user trace it or read its memory and
/// its environment (`prctl(2)`, `PR_SET_DUMPABLE`). It is for the whole process and cannot be taken back by accident:
/// programs that it starts have the limit as well.
///
/// A system that refuses one of them is no reason not to serve: it is logged.
pub fn apply() {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    // Both: the limit does not hold where the kernel hands core dumps to a program (`core(5)`), and other processes are
    // kept out by the first alone.
    warn_of(set_dumpable_behavior(DumpableBehavior::NotDumpable), "the process can be traced and dumped");
    warn_of(setrlimit(Resource::Core, nothing), "the size of core dumps is not limited");
}

fn warn_of(result: io::Result<()>, consequence: &str) {
    if let Err(error) = result {
        tracing::warn!(%error, "{consequence}");
    }
}
