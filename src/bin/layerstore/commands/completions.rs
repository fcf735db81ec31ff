//! `layerstore completions`.

use crate::args::{Args, CompletionsArgs};
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &CompletionsArgs, context: &Context) -> Result<(), Failure> {
    // Into memory: the generator panics where a stream fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::definition(), "layerstore", &mut script);
    context.out().bytes(&script)
}
