//! `cargo xtask drill`: builds the server with its failpoints, and has the driver in `xtask/torture` measure one promise.

use anyhow::Result;
use clap::Args;

use crate::{
    postgres, step,
    torture::{Profile, build, driver},
};

#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Drill {
    /// How the programs are built; some promises need `release`
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
    /// Which drill, and its options; `help` lists the drills, `NAME --help` its options
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    drill: Vec<String>,
}

/// Builds and performs; a broken promise is an error.
pub(crate) fn run(drill: &Drill) -> Result<()> {
    postgres::ensure()?;
    build(drill.profile)?;
    perform(drill.profile, &drill.drill)
}

/// Performs a drill with programs that are built.
pub(crate) fn perform(profile: Profile, drill: &[String]) -> Result<()> {
    step::run(&format!("drill {}", drill.join(" ")), driver(profile).arg("drill").args(drill))
}
