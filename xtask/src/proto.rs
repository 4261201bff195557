//! `cargo xtask proto`: whether programs that know the interface of the last release get on with this one.
//!
//! The comparison is a test of the package of the interface, so `cargo test` makes it as well; this gives it its wishes.

use anyhow::Result;
use clap::Args;

use crate::step;

#[derive(Args)]
pub(crate) struct Proto {
    /// Take the interface as it is for the one to compare with, from now on
    #[arg(long)]
    bless: bool,
    /// Fail as well where something was added since
    #[arg(long, conflicts_with = "bless")]
    exact: bool,
}

impl Proto {
    /// What a release wants.
    pub(crate) fn exact() -> Self {
        Self { bless: false, exact: true }
    }
}

/// Compares, or writes what is compared with.
pub(crate) fn run(proto: &Proto) -> Result<()> {
    let (headline, wish) = match (proto.bless, proto.exact) {
        (true, _) => ("bless the interface", "bless"),
        (_, true) => ("the interface is the one that was blessed", "exact"),
        _ => ("the interface breaks no program", ""),
    };
    let mut test = step::cargo();
    test.args(["test", "--locked", "--package", "tokencache-proto", "--lib", "--", "compatibility"]);
    step::run(headline, test.env("TOKENCACHE_PROTO_BASELINE", wish))
}
