//! `tokencache completions`.

use clap::CommandFactory as _;

use crate::{
    args::{Arguments, Completions},
    failure::Failure,
    output::Output,
};

pub(crate) fn run(completions: &Completions, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Arguments::command(), "tokencache", &mut script);
    output.write(&String::from_utf8_lossy(&script))
}
