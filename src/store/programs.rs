//! What a store holds decides nothing that is run for its owner.

use std::io;
use std::path::{Path, PathBuf};

use super::StoreOptions;
use crate::disk::marker;
use crate::error::Error;
use crate::sys::{exposure, mount, path};

impl StoreOptions {
    /// Refuses configuration files and a mount program that are in a store: what is there came from strangers, or was written by
    /// containers.
    ///
    /// Returns [`Error::InsideStore`] if one is below a root or run root, or is shown from there by a mount.
    pub(super) fn refuse_own_files(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| self.refuse_inside("configuration file", file))?;
        self.check_program()
    }

    /// Whether the mount program may be run, whoever has named it. A store asks whenever the program is looked for.
    ///
    /// Ask it before [`enter_user_namespace`](crate::enter_user_namespace), too: inside, a program of another user cannot be told from one of
    /// the machine's root.
    ///
    /// Returns [`Error::InsideStore`] if the program is part of a store, and [`Error::ExposedProgram`] if other users could put another in
    /// its place. Whoever uses one that is not there says so.
    pub fn check_program(&self) -> Result<(), Error> {
        let Some(program) = &self.mount_program else { return Ok(()) };
        self.refuse_inside("mount program", program)?;
        match exposure::on_the_way_to(program) {
            Ok(Some(exposed)) => Err(Error::ExposedProgram {
                program: program.clone(),
                path: exposed.path,
                by: exposed.by.to_string(),
            }),
            Ok(None) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Io { action: "find", path: program.clone(), source }),
        }
    }

    fn refuse_inside(&self, what: &'static str, file: &Path) -> Result<(), Error> {
        let failed = |source| Error::Io { action: "find", path: file.to_owned(), source };
        let directories = self.directories();
        let found = match mount::is_shown(file, &directories) {
            // Whoever uses it says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        let root = match found {
            Some(root) => Some(root.to_owned()),
            None => any_store_above(file).map_err(failed)?,
        };
        match root {
            Some(root) => Err(Error::InsideStore { what, path: file.to_owned(), root }),
            None => Ok(()),
        }
    }

    /// Where the stores are that are known, with what they mount.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let own = [self.root.clone(), self.run_root_path()].into_iter();
        let images = self.image_store_root.iter().chain(&self.image_stores).cloned();
        let layers = self.additional_layer_stores.iter().map(|store| store.path().to_owned());
        own.chain(images).chain(layers).collect()
    }
}

/// The root of a store, of whomever, that a file is below.
fn any_store_above(file: &Path) -> io::Result<Option<PathBuf>> {
    let file = path::resolve(file)?;
    let above = file.ancestors().skip(1);
    Ok(above.into_iter().find(|above| path::is_file(&above.join(marker::NAME))).map(Path::to_owned))
}
