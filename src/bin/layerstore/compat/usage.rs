//! Usage texts. That of the program goes to standard output; of a command's, what it is for does, and its flags go to
//! standard error.

use super::console::Console;
use super::failure::Failure;
use super::flags::{Flag, Takes};
use super::table::{COMMANDS, Command, GLOBAL};

/// The usage of the program.
pub fn program(program: &str, console: &Console) -> Result<(), Failure> {
    console.line(format_args!("Usage: {program} [options] command [options] [arguments]\n\nCommands:\n"))?;
    for command in COMMANDS {
        console.line(format_args!("  {:<32}{}", command.name(), command.about))?;
    }
    console.line("")?;
    flags(GLOBAL.iter().copied()).into_iter().try_for_each(|line| console.line(line))
}

/// The usage of a command.
pub fn command(program: &str, command: &Command, console: &Console) -> Result<(), Failure> {
    let line = format!("Usage: {program} {} [options] {}", command.name(), command.arguments);
    console.line(line.trim_end())?;
    console.line(format_args!("\n{}\n", command.about))?;
    if let Some((_, aliases)) = command.names.split_first()
        && !aliases.is_empty()
    {
        console.line(format_args!("Aliases: {}\n", aliases.join(", ")))?;
    }
    flags(command.flags.iter().chain(GLOBAL).copied()).iter().for_each(|line| console.tell(line));
    Ok(())
}

/// The lines about flags, under their heading.
fn flags(flags: impl Iterator<Item = &'static Flag>) -> Vec<String> {
    let mut lines: Vec<(String, &str)> = flags.map(|flag| (spellings(flag), flag.about)).collect();
    lines.sort();
    let width = lines.iter().map(|(names, _)| names.len()).max().unwrap_or(0);
    let lines = lines.into_iter().map(|(names, about)| format!("  {names:<width$}    {about}"));
    ["Options:".to_owned(), String::new()].into_iter().chain(lines).collect()
}

fn spellings(flag: &Flag) -> String {
    let value = match flag.takes {
        Takes::Switch => "",
        Takes::Text => "=VALUE",
        Takes::List => "=VALUE ...",
    };
    format!("{}{value}", flag.names.join(", "))
}
