//! The command line: parses, makes one call of the library, prints what came of it.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`args`] | what was typed, one file per command |
//! | [`effective`] | the options of the store, from flags, variables and configuration |
//! | [`context`] | what it means: how the store is opened, how to print |
//! | [`namespace`] | the user namespace in which users who are not root work on their stores |
//! | [`commands`] | the commands, one file each |
//! | [`output`] | everything that is printed |
//! | [`failure`] | what went wrong, and the exit status |
//! | [`compat`] | the command line of containers-storage |
//! | `containerd` | the program as a snapshotter of containerd |

// What the lints of the workspace begin. Tests may do all of it.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::get_unwrap,
        clippy::string_slice,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_in_result
    )
)]

mod args;
mod commands;
mod compat;
#[cfg(feature = "containerd")]
mod containerd;
mod context;
mod effective;
mod failure;
mod namespace;
mod output;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use args::Args;
use context::Context;
use failure::Failure;

/// The name under which this program is another one.
const REFERENCE: &str = "containers-storage";

fn main() -> ExitCode {
    tell_of_own_panics_only();
    layerstore::hear_children();
    layerstore::hear_file_limit();
    // Before anything is parsed: the other command line has rules of its own.
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    if Path::new(&program).file_name() == Some(OsStr::new(REFERENCE)) {
        return compat::run(REFERENCE, words);
    }
    if words.next().is_some_and(|word| word == "compat") {
        return compat::run("layerstore compat", words);
    }
    let args = Args::of_process();
    let context = match Context::new(&args.global) {
        Ok(context) => context,
        Err(failure) => return failure.report(args.global.color, args.global.no_write),
    };
    let done = commands::run(args.command, &context);
    let flushed = context.out().flush();
    // Whoever reads the output has seen enough: a quiet end, whatever it did to the operation.
    if context.out().is_closed() {
        return ExitCode::SUCCESS;
    }
    match done.and_then(|code| flushed.map(|()| code).map_err(Failure::Output)) {
        Ok(code) => code,
        Err(failure) => context.explained(failure).report(args.global.color, args.global.no_write),
    }
}

/// The library makes an error of what its database panics on in a damaged file; that error is what is printed.
fn tell_of_own_panics_only() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_of_database = |file: &str| {
            let version = file.split("/redb-").nth(1);
            version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        };
        match panic.location() {
            Some(at) if is_of_database(at.file()) => tracing::debug!(%at, "the database is damaged"),
            _ => tell(panic),
        }
    }));
}
