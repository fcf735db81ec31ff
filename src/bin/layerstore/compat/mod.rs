//! The command line of containers-storage: `layerstore compat`, and this program under the name `containers-storage`.
//!
//! Scripts that were written for the other program find what they compare: flags, output, messages, exit status. What is
//! kept, and which test shows it, is in `docs/compat.md`.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`flags`] | the rules of flags |
//! | [`table`] | every command: names, arguments, flags |
//! | [`usage`] | usage texts |
//! | [`place`] | what the global flags mean |
//! | [`call`] | what a command works with |
//! | [`lookup`] | words to things |
//! | [`idmap`] | id maps of flags |
//! | [`records`] | layers, images and containers as JSON |
//! | [`golang`] | how Go prints |
//! | [`console`] | where everything is printed |
//! | [`failure`] | the library's errors in the reference's words |
//! | [`commands`] | the commands |

mod call;
mod commands;
mod console;
mod failure;
mod flags;
mod golang;
mod idmap;
mod lookup;
mod place;
mod records;
mod table;
mod usage;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::ExitCode;

use layerstore::WithoutRanges;

use call::Call;
use console::Console;
use failure::Failure;
use flags::{FlagError, Flags};
use place::Place;
use table::{Command, GLOBAL, Run};

use crate::namespace;

/// The exit status of a command with wrong flags, and of its usage.
const WRONG_FLAGS: u8 = 125;

/// Runs the command that `words` name, for a program that calls itself `program`.
pub fn run(program: &str, words: impl Iterator<Item = OsString>) -> ExitCode {
    let console = Console::new();
    let done = interpret(program, words, &console);
    let flushed = console.flush();
    // Whoever reads the output has seen enough: a quiet end.
    if console.is_closed() {
        return ExitCode::SUCCESS;
    }
    match done.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(failure) => {
            console.tell(failure.text());
            ExitCode::FAILURE
        }
    }
}

fn interpret(
    program: &str,
    words: impl Iterator<Item = OsString>,
    console: &Console,
) -> Result<ExitCode, Failure> {
    let words = words.map(OsString::into_string).collect::<Result<VecDeque<_>, _>>();
    let mut words = words.map_err(|word| Failure::Text(format!("{word:?} is not UTF-8")))?;
    let mut flags = Flags::default();
    match flags.parse(GLOBAL, &mut words) {
        Ok(()) => {}
        Err(FlagError::Help) => {
            usage::program(program, console)?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(FlagError::Wrong(text)) => {
            console.tell(format_args!("{text}\nSee '{program} --help'."));
            console.line(format_args!("{text} while parsing arguments (1)"))?;
            usage::program(program, console)?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let Some(name) = words.pop_front() else {
        usage::program(program, console)?;
        return Ok(ExitCode::FAILURE);
    };
    let Some(command) = table::find(&name) else {
        console.line(format_args!("{name}: unrecognized command."))?;
        return Ok(ExitCode::FAILURE);
    };
    let known: Vec<_> = command.flags.iter().chain(GLOBAL).copied().collect();
    match flags.parse(&known, &mut words) {
        Ok(()) => {}
        Err(FlagError::Help) => {
            usage::command(program, command, console)?;
            return Ok(ExitCode::from(WRONG_FLAGS));
        }
        Err(FlagError::Wrong(text)) => {
            console.tell(format_args!("{text}\nSee '{program} {name} --help'."));
            return Ok(ExitCode::from(WRONG_FLAGS));
        }
    }
    let args = Vec::from(words);
    if let Some(problem) = wrong_number(command, &args) {
        console.line(format_args!("{name}: {problem}."))?;
        usage::command(program, command, console)?;
        return Ok(ExitCode::FAILURE);
    }
    execute(command, flags, args, console)
}

fn wrong_number(command: &Command, args: &[String]) -> Option<String> {
    if args.len() < command.arguments_least {
        return Some("more arguments required".to_owned());
    }
    let too_many = command.arguments_most.is_some_and(|most| args.len() > most);
    too_many.then(|| format!("too many arguments ({})", golang::list(args)))
}

fn execute(
    command: &'static Command,
    flags: Flags,
    args: Vec<String>,
    console: &Console,
) -> Result<ExitCode, Failure> {
    let run = match command.run {
        Run::Alone(run) => return run(&args, console).map(|()| ExitCode::SUCCESS),
        Run::OnStore(run) => run,
    };
    // Before a namespace is entered: inside, everybody is root.
    let place = Place::new(&flags);
    let opened = place.and_then(|place| {
        enter_namespace(&flags, &place, console)?;
        if flags.is(&table::DEBUG) {
            place.debug_lines().iter().for_each(|line| console.log("debug", line));
            place.notes().for_each(|note| console.log("debug", &note));
        }
        let store = place.open()?;
        if flags.is(&table::DEBUG) {
            store.open_roots()?.iter().for_each(|root| console.log("debug", &root.to_string()));
        }
        Ok((place, store))
    });
    let (place, store) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            console.line(format_args!("error initializing: {}", failure.text()))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    run(&Call { flags, args, place, store, console })?;
    Ok(ExitCode::SUCCESS)
}

/// Enters a user namespace if the flags say so: by default if this is not root.
fn enter_namespace(flags: &Flags, place: &Place, console: &Console) -> Result<(), Failure> {
    if flags.switch(&table::UNSHARE).unwrap_or_else(namespace::is_for_this_user) {
        place.check_program()?;
        enter(console)?;
    }
    Ok(())
}

/// Enters a user namespace. Like the other program, tells where the ranges of ids could not be mapped.
fn enter(console: &Console) -> Result<(), Failure> {
    let entered = layerstore::enter_user_namespace().map_err(|error| Failure::Text(error.to_string()))?;
    if let Some(WithoutRanges::NotMapped(reason)) = entered.without_ranges {
        console.log("warning", &format!("{}: {reason}", namespace::NOT_MAPPED));
    }
    Ok(())
}
