//! Usage texts: what a command is for goes to standard output, its flags to standard error.

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
    console.line("\nOptions:\n")?;
    flags(GLOBAL.iter().copied(), console);
    Ok(())
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
    console.line("Options:\n")?;
    flags(command.flags.iter().chain(GLOBAL).copied(), console);
    Ok(())
}

fn flags(flags: impl Iterator<Item = &'static Flag>, console: &Console) {
    let mut lines: Vec<(String, &str)> = flags.map(|flag| (spellings(flag), flag.about)).collect();
    lines.sort();
    let width = lines.iter().map(|(names, _)| names.len()).max().unwrap_or(0);
    for (names, about) in lines {
        console.tell(format_args!("  {names:<width$}    {about}"));
    }
}

fn spellings(flag: &Flag) -> String {
    let value = match flag.takes {
        Takes::Switch => "",
        Takes::Text => "=VALUE",
        Takes::List => "=VALUE ...",
    };
    format!("{}{value}", flag.names.join(", "))
}
