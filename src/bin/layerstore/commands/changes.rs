//! `layerstore changes`.

use crate::args::ChangesArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ChangeJson;
use crate::output::text;

pub fn run(args: &ChangesArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let thing = store.thing(&args.thing)?.id();
    let changes = match &args.since {
        Some(base) => store.changes_since(&thing, store.thing(base)?.id())?,
        None => store.changes(&thing)?,
    };
    if context.out().is_json() {
        let list: Vec<_> = changes.iter().map(ChangeJson::from).collect();
        return context.out().json(&list);
    }
    for change in &changes {
        let (letter, path) = (change.kind.letter(), change.path.as_bytes());
        if args.null {
            context.out().bytes(&[format!("{letter} /").as_bytes(), path, b"\0"].concat())?;
        } else {
            context.out().line(format_args!("{letter} /{}", text::path(path)))?;
        }
    }
    Ok(())
}
