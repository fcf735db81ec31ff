//! `layerstore config`.

use serde_json::{Map, json};

use crate::args::ConfigArgs;
use crate::context::Context;
use crate::effective::shown;
use crate::failure::Failure;
use crate::output::table::{Align, Table};

pub fn run(_: &ConfigArgs, context: &Context) -> Result<(), Failure> {
    let effective = context.effective();
    context.tell_warnings();
    if context.out().is_json() {
        let option = |line: &crate::effective::Line| {
            let value = json!({ "value": line.value, "from": line.origin.to_string() });
            (line.option.to_owned(), value)
        };
        return context.out().json(&effective.lines.iter().map(option).collect::<Map<_, _>>());
    }
    let mut table = Table::new([("OPTION", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
    for line in &effective.lines {
        table.row([line.option.to_owned(), shown(&line.value), line.origin.to_string()]);
    }
    context.out().table(&table)
}
