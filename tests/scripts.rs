//! What the scripts of users do: long chains of commands, each a process of its own, on both command lines.

mod chains;
mod damage;
mod depth;
mod junk;
mod processes;

use std::path::PathBuf;

use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand, machine};

/// A command line, and the program that understands it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CommandLine {
    /// `layerstore`.
    Own,
    /// `layerstore compat`.
    Compat,
    /// Debian's containers-storage.
    Reference,
}
use CommandLine::{Compat, Own, Reference};

/// A store, and the command line that it is used by.
#[derive(Debug)]
struct Scripted {
    line: CommandLine,
    dir: Dir,
}

impl Scripted {
    fn new(line: CommandLine, name: &str) -> Self {
        Scripted { line, dir: Dir::new(name) }
    }

    /// A command with the flags that say where the store is.
    fn command(&self, words: &[&str]) -> TestCommand {
        let session = match self.line {
            Own => return self.dir.layerstore(["--sync", "off"]).args(words),
            Compat => Session::layerstore(&self.dir),
            Reference => Session::reference(&self.dir),
        };
        session.command(words.iter().map(|word| (*word).to_owned()))
    }

    /// Makes an empty layer.
    fn create_layer(&self, id: &str, parent: Option<&str>) {
        let flag = if self.line == Own { "--id" } else { "-i" };
        let words = ["create-layer", flag, id].into_iter().chain(parent);
        self.command(&words.collect::<Vec<_>>()).assert_success();
    }

    /// Makes a layer of an archive.
    fn put_layer(&self, id: &str, parent: Option<&str>, archive: &[u8]) {
        self.put_layer_command(id, parent).stdin(archive).assert_success();
    }

    fn put_layer_command(&self, id: &str, parent: Option<&str>) -> TestCommand {
        match (self.line, parent) {
            (Own, Some(parent)) => self.command(&["put-layer", parent, "--id", id, "--file", "-"]),
            (Own, None) => self.command(&["put-layer", "--id", id, "--file", "-"]),
            (_, parent) => self.command(&["import-layer", "-i", id, parent.unwrap_or_default()]),
        }
    }

    /// Puts an archive into a layer.
    fn apply(&self, id: &str, archive: &[u8]) {
        self.apply_command(id).stdin(archive).assert_success();
    }

    fn apply_command(&self, id: &str) -> TestCommand {
        match self.line {
            Own => self.command(&["apply", "--unseal", id]),
            _ => self.command(&["applydiff", id]),
        }
    }

    /// The archive of what a layer changes.
    fn diff(&self, id: &str) -> Vec<u8> {
        match self.line {
            Own => self.command(&["diff", id]),
            _ => self.command(&["diff", "-u", id]),
        }
        .stdout_bytes()
    }

    /// The same, compressed by the program.
    fn compressed_diffs(&self, id: &str) -> Vec<Vec<u8>> {
        let gzip: &[&str] = match self.line {
            Own => &["diff", id, "--compression", "gzip"],
            _ => &["diff", "-c", id],
        };
        let zstd: &[&str] = &["diff", id, "--compression", "zstd"];
        let all = if self.line == Own { &[gzip, zstd][..] } else { &[gzip] };
        all.iter().map(|words| self.command(words).stdout_bytes()).collect()
    }

    fn mount(&self, id: &str) -> PathBuf {
        let path = self.command(&["mount", id]).stdout_path();
        assert!(path.is_dir() && path.starts_with(self.dir.path()), "{}", path.display());
        path
    }

    fn unmount(&self, id: &str) {
        self.command(&["unmount", id]).assert_success();
    }

    /// Mounts what stands on a layer, which stays as it is.
    fn mount_above(&self, id: &str) -> PathBuf {
        let above = format!("above-{id}");
        self.create_layer(&above, Some(id));
        self.mount(&above)
    }

    /// The opposite of [`mount_above`](Self::mount_above).
    fn unmount_above(&self, id: &str) {
        let above = format!("above-{id}");
        self.unmount(&above);
        let words = if self.line == Own {
            ["rm", "--layer", &above].to_vec()
        } else {
            ["delete-layer", &above].to_vec()
        };
        self.command(&words).assert_success();
    }

    /// The ids of the layers, in no order.
    fn layers(&self) -> Vec<String> {
        let text = match self.line {
            Own => self.command(&["layers", "-q", "--no-trunc"]),
            _ => self.command(&["storage-layers"]),
        }
        .stdout();
        let mut ids: Vec<_> = text.lines().map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    }

    /// Nothing is damaged, and nothing lies about.
    #[track_caller]
    fn assert_whole(&self) {
        if self.line == Reference {
            return;
        }
        self.dir.layerstore(["check", "--deep"]).assert_success();
        let garbage = self.dir.layerstore(["gc", "--dry-run", "--json"]).json();
        assert_eq!(garbage["removed"].as_array().map(Vec::len), Some(0), "{garbage}");
    }
}

/// Whether this process may mount.
fn can_mount() -> bool {
    machine::is_root()
}
