//! `layerstore prune`.

use layerstore::{Error, LayerId, LookupError};
use serde_json::json;

use crate::args::PruneArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text;

pub fn run(args: &PruneArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let (mut ended, mut layers) = (0u64, Vec::new());
    if args.leases {
        for lease in store.leases()? {
            match store.end_lease(&lease.id) {
                // Its time was over, and a writer that came by, this one perhaps, has collected it.
                Err(Error::Lookup(LookupError::NoLease { .. })) => {}
                removed => layers.extend(removed?),
            }
            ended = ended.saturating_add(1);
        }
    }
    let copies = if args.copies { store.drop_mapped_copies()? } else { Vec::new() };
    let bytes = if args.blobs { store.drop_blobs(None)? } else { 0 };
    if context.out().is_json() {
        let ids = |layers: &[LayerId]| layers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (layers, copies) = (ids(&layers), ids(&copies));
        return context
            .out()
            .json(&json!({ "bytes": bytes, "leases": ended, "layers": layers, "copies": copies }));
    }
    if context.quiet() {
        return Ok(());
    }
    if args.leases {
        let removed = text::count(u64::try_from(layers.len()).unwrap_or(u64::MAX), "layer");
        context.out().line(format_args!("ended {}, removed {removed}", text::count(ended, "lease")))?;
    }
    if args.copies {
        let removed = text::count(u64::try_from(copies.len()).unwrap_or(u64::MAX), "mapped layer");
        context.out().line(format_args!("removed {removed}"))?;
    }
    if args.blobs {
        context.out().line(format_args!("freed {}", text::size(bytes)))?;
    }
    Ok(())
}
