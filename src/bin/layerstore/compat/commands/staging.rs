//! `applydiff-using-staging-dir`.

mod archive;

use std::fs::File;
use std::io::Seek;
use std::path::Path;

use layerstore::{ApplyOptions, Digest, Error, Layer, LayerId, LayerOptions};
use rustix::fs::{CWD, Mode, OFlags};

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::golang::call_failed;
use super::super::lookup;

/// The option for pulling that the command wants.
const PARTIAL_IMAGES: &str = "enable_partial_images";

/// The data items that the reference keeps with such a layer: the form of its directory, and its table of contents.
const FORM: (&str, &[u8]) = ("zstd-chunked-layer-data", br#"{"format":0}"#);
const CONTENTS: &str = "zstd-chunked-manifest";

/// Puts what is in a directory into a layer, as if it had been fetched by a table of contents.
pub fn apply(call: &Call<'_>) -> Result<(), Failure> {
    let pull = call.place.settings.pull_options();
    if pull.get(PARTIAL_IMAGES).is_none_or(|value| value != "true") {
        return Err(Failure::new(known::NOT_PARTIAL));
    }
    let target = match lookup::layer(&call.store, call.arg(0))? {
        Some(layer) => Target::Known(layer.id),
        None => Target::New(call.arg(0).parse().map_err(Error::from)?),
    };
    // The digest of the table has to be known before the archive is read.
    let mut spool = unnamed_file(call.store.root())?;
    let contents = archive::write(Path::new(call.arg(1)), &spool)?;
    let failed = |error| Failure::Text(call_failed("seek", call.store.root(), &error));
    spool.rewind().map_err(failed)?;
    let mut options = ApplyOptions::default();
    options.toc_digest = Some(Digest::sha256(&contents));
    // Here nobody is asked.
    options.change_under_others = true;
    options.allow_empty = true;
    let staged = call.store.stage_diff(spool, &options)?;
    let layer = match target {
        Target::Known(id) => staged.apply_to(&id)?,
        Target::New(id) => staged.insert(None, &LayerOptions::with_id(id))?,
    };
    keep_contents(call, &layer, &contents)
}

/// The layer that gets the content.
enum Target {
    Known(LayerId),
    New(LayerId),
}

fn keep_contents(call: &Call<'_>, layer: &Layer, contents: &[u8]) -> Result<(), Failure> {
    // A layer that had something before is not what the table says.
    if layer.toc_digest.is_none() {
        return Ok(());
    }
    call.store.write(|txn| {
        txn.put_item(layer, FORM.0, FORM.1)?;
        txn.put_item(layer, CONTENTS, contents)
    })?;
    Ok(())
}

/// A file for what is only needed for a moment: it goes with the process.
fn unnamed_file(directory: &Path) -> Result<File, Failure> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, directory, flags, Mode::from(0o600));
    Ok(file.map_err(|error| Failure::Text(call_failed("open", directory, &error.into())))?.into())
}
