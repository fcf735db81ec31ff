//! `layerstore seal`.

use crate::args::SealArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::LayerJson;

pub fn run(args: &SealArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let mut done = Vec::new();
    let all = super::each(&args.layers, context, |key| {
        let id = store.layer(key)?.id;
        let layer = if args.unseal { store.unseal(&id)? } else { store.seal(&id)? };
        if !context.out().is_json() {
            return context.out().line(&layer.id);
        }
        done.push((store.layer_size(&layer.id)?, layer));
        Ok(())
    });
    if context.out().is_json() {
        let done: Vec<_> = done.iter().map(|(size, layer)| LayerJson::new(layer, *size)).collect();
        context.out().json(&done)?;
    }
    all
}
