//! The commands: one file each, one call of the library each.

mod apply;
mod backup;
mod changes;
mod check;
mod commit;
mod compact;
mod compat;
mod completions;
mod config;
mod containers;
mod create_container;
mod create_image;
mod create_layer;
mod dedup;
mod diff;
mod du;
mod events;
mod gc;
mod images;
mod inspect;
mod item;
mod layers;
mod load;
mod man;
mod mount;
mod names;
mod prune;
mod put_layer;
mod repair;
pub mod rm;
pub mod rmi;
mod save;
mod seal;
mod shutdown;
#[cfg(feature = "containerd")]
mod snapshotter;
mod status;
mod sync;
mod unmount;
mod unshare;
mod version;
pub mod wipe;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use layerstore::{Name, Store};

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;
use crate::namespace;
use crate::output::{Noting, text};

/// Runs a command.
pub fn run(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    namespace::enter_for(&command, context)?;
    let done = match command {
        Command::Check(args) => return check::run(&args, context),
        Command::Repair(args) => return repair::run(&args, context),
        Command::Load(args) => load::run(args, context),
        Command::Save(args) => save::run(&args, context),
        Command::Images(args) => images::run(&args, context),
        Command::Layers(args) => layers::run(&args, context),
        Command::Containers(args) => containers::run(&args, context),
        Command::CreateContainer(args) => create_container::run(args, context),
        Command::CreateLayer(args) => create_layer::run(args, context),
        Command::PutLayer(args) => put_layer::run(args, context),
        Command::Apply(args) => apply::run(args, context),
        Command::Seal(args) => seal::run(&args, context),
        Command::CreateImage(args) => create_image::run(args, context),
        Command::Mount(args) => mount::run(args, context),
        Command::Unmount(args) => unmount::run(&args, context),
        Command::Changes(args) => changes::run(&args, context),
        Command::Diff(args) => diff::run(&args, context),
        Command::Commit(args) => commit::run(args, context),
        Command::Rm(args) => rm::run(&args, context),
        Command::Rmi(args) => rmi::run(&args, context),
        Command::Names(args) => names::run(&args, context),
        Command::Item(args) => item::run(args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Du(args) => du::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Events(args) => events::run(&args, context),
        Command::Gc(args) => gc::run(&args, context),
        Command::Dedup(args) => dedup::run(&args, context),
        Command::Prune(args) => prune::run(&args, context),
        Command::Wipe(args) => wipe::run(&args, context),
        Command::Shutdown(args) => shutdown::run(&args, context),
        Command::Backup(args) => backup::run(&args, context),
        Command::Compact(args) => compact::run(&args, context),
        Command::Sync(args) => sync::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Unshare(args) => unshare::run(&args, context),
        Command::Compat(args) => compat::run(&args),
        #[cfg(feature = "containerd")]
        Command::Snapshotter(args) => snapshotter::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
        Command::Version(args) => version::run(&args, context),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// When something was made, for people.
fn created(time: layerstore::Timestamp) -> String {
    text::ago(crate::output::json::time(time), Timestamp::now())
}

/// Names in one cell.
fn joined(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// Does the same to several things. One that fails is told and does not keep the others from it.
fn each(
    keys: &[String],
    context: &Context,
    mut run: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let [key] = keys {
        return run(key);
    }
    let mut failed = 0usize;
    for key in keys {
        match run(key) {
            Ok(()) => {}
            // Nobody reads what comes.
            Err(failure) if context.out().is_closed() => return Err(failure),
            Err(failure) => {
                context.tell(&failure);
                failed = failed.saturating_add(1);
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Several { failed, all: keys.len() }) }
}

/// Runs `write` with the file at `path`, which comes into being when everything is written, and is none of the store's; `-` is standard
/// output.
fn write_to(
    path: &Path,
    what: &'static str,
    (store, context): (&Store, &Context),
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if path == Path::new("-") {
        return context.out().stream(what, write);
    }
    store.refuse_own_place(path)?;
    let failed = |source| Failure::File { action: "write", path: path.to_owned(), source };
    // What is no file, such as a device or a fifo, is written to as it is.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return fill(File::options().write(true).open(path).map_err(failed)?, path, write);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = Path::new(&name);
    let written = fill(File::create_new(part).map_err(failed)?, path, write)
        .and_then(|()| std::fs::rename(part, path).map_err(failed));
    if written.is_err() {
        // The failure that is told is the one before this.
        std::fs::remove_file(part).ok();
    }
    written
}

fn fill(
    file: File,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut file = Noting::new(file);
    let written = file.run(write);
    match file.failed {
        Some(source) => Err(Failure::File { action: "write", path: path.to_owned(), source }),
        None => written,
    }
}
