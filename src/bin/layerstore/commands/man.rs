//! `layerstore man`.

use std::fs;
use std::io;

use clap_mangen::Man;

use crate::args::{Args, ManArgs};
use crate::context::Context;
use crate::failure::Failure;

pub fn run(args: &ManArgs, context: &Context) -> Result<(), Failure> {
    let mut pages = pages().map_err(Failure::Output)?;
    let Some(dir) = &args.dir else {
        return pages.drain(..1).try_for_each(|(_, page)| context.out().bytes(&page));
    };
    let failed = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| Failure::File { action: "write", path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(failed(&path))?;
    }
    Ok(())
}

/// The pages by the names of their files, that of the program first.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let program = Args::definition().display_name("layerstore");
    let mut pages = vec![("layerstore.1".to_owned(), page(program.clone())?)];
    for command in program.get_subcommands() {
        if command.get_name() == "help" {
            continue;
        }
        let name = format!("layerstore-{}", command.get_name());
        // Else the page would be that of a program with this name.
        let command = command.clone().display_name(&name).version(env!("CARGO_PKG_VERSION"));
        pages.push((format!("{name}.1"), page(command)?));
    }
    Ok(pages)
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Man::new(command)
        .source(format!("layerstore {}", env!("CARGO_PKG_VERSION")))
        .manual("layerstore manual")
        .render(&mut bytes)?;
    Ok(bytes)
}
