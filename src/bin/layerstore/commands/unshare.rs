//! `layerstore unshare`.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use layerstore::config::Origin;

use crate::args::UnshareArgs;
use crate::context::Context;
use crate::effective::Line;
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
    let said = if layerstore::is_privileged() {
        // In a namespace of its own, root would lose its store, and all ids but one.
        Some(
            "this is root, who may mount already: the command runs without another user namespace".to_owned(),
        )
    } else {
        let reason = layerstore::enter_user_namespace()?.without_ranges;
        reason.map(|reason| format!("only one id is mapped, so all files belong to root: {reason}"))
    };
    if let Some(said) = said.filter(|_| !context.quiet()) {
        context.note(&said);
    }
    let mut command = Command::new(&program);
    command.args(arguments).env("LAYERSTORE_ROOT", root).env("LAYERSTORE_RUNROOT", run_root);
    if let Some(file) = &context.effective().file {
        let is_of_file =
            |line: &Line| line.option == "mount_program" && matches!(line.origin, Origin::File { .. });
        if !context.quiet() && context.effective().lines.iter().any(is_of_file) {
            context.note(
                "inside, the mount program has to be named again (--config): no variable decides what is run",
            );
        }
        command.env("LAYERSTORE_CONFIG", absolute(file)?);
    }
    let source = command.exec();
    Err(Failure::Run { command: program.to_string_lossy().into_owned(), source })
}
