//! `layerstore version`.

use serde_json::json;

use crate::args::VersionArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(_: &VersionArgs, context: &Context) -> Result<(), Failure> {
    let version = layerstore::VERSION;
    if context.out().is_json() {
        return context.out().json(&json!({ "version": version }));
    }
    context.out().line(format_args!("layerstore {version}"))
}
