//! `layerstore config`.

use serde_json::{Map, Value, json};

use crate::args::ConfigArgs;
use crate::context::Context;
use crate::effective::{LIMITS, shown};
use crate::failure::Failure;
use crate::output::table::{Align, Table};

pub fn run(_: &ConfigArgs, context: &Context) -> Result<(), Failure> {
    let effective = context.effective();
    context.tell_warnings();
    if context.out().is_json() {
        let option = |line: &crate::effective::Line| {
            let mut told = json!({ "value": line.value, "from": line.from() });
            if let (LIMITS, Some(fields)) = (line.option, told.as_object_mut()) {
                let each =
                    line.each.iter().map(|(name, origin)| ((*name).to_owned(), origin.to_string().into()));
                fields.insert("each".to_owned(), Value::Object(each.collect()));
            }
            (line.option.to_owned(), told)
        };
        return context.out().json(&effective.lines.iter().map(option).collect::<Map<_, _>>());
    }
    let mut table = Table::new([("OPTION", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
    for line in &effective.lines {
        if line.each.is_empty() {
            table.row([line.option.to_owned(), shown(&line.value), line.origin.to_string()]);
        }
        for (name, origin) in &line.each {
            let value = line.value.get(name).map(shown).unwrap_or_default();
            table.row([line.option.to_owned(), format!("{name}={value}"), origin.to_string()]);
        }
    }
    context.out().table(&table)
}
