//! `layerstore shutdown`.

use crate::args::ShutdownArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &ShutdownArgs, context: &Context) -> Result<(), Failure> {
    let mounted = context.existing_store()?.shutdown(args.force)?;
    if context.out().is_json() {
        context.out().json(&mounted.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    } else {
        mounted.iter().try_for_each(|layer| context.out().line(layer))?;
    }
    if mounted.is_empty() { Ok(()) } else { Err(Failure::StillMounted { count: mounted.len() }) }
}
