//! `layerstore unshare`.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::args::UnshareArgs;
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &UnshareArgs, context: &Context) -> Result<(), Failure> {
    // Inside, this user looks like root, and is to find the same store.
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| Failure::File {
            action: "find",
            path: path.to_owned(),
            source,
        })
    };
    let (root, run_root) = (absolute(context.root())?, absolute(context.run_root())?);
    let (program, arguments) = match args.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh".into()), &[][..]),
    };
    let namespace = layerstore::enter_user_namespace()?;
    if let Some(reason) = namespace.without_ranges
        && !context.quiet()
    {
        context.note(&format!("only one id is mapped, so all files belong to root: {reason}"));
    }
    let mut command = Command::new(&program);
    command.args(arguments).env("LAYERSTORE_ROOT", root).env("LAYERSTORE_RUNROOT", run_root);
    if let Some(file) = &context.effective().file {
        command.env("LAYERSTORE_CONFIG", absolute(file)?);
    }
    let source = command.exec();
    Err(Failure::Run { command: program.to_string_lossy().into_owned(), source })
}
