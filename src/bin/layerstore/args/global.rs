//! Flags that every command takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use layerstore::config::parse_limit;
use layerstore::{ConfigError, Limit};

const HEADING: &str = "Global options";

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct GlobalArgs {
    /// The directory of the store [env: LAYERSTORE_ROOT]
    ///
    /// `load`, and `create-container` without an image, make it if it is missing. The default is /var/lib/layerstore for root, and else layerstore in
    /// $XDG_DATA_HOME or ~/.local/share.
    #[arg(long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub root: Option<PathBuf>,

    /// The directory for what a reboot drops: mount points and mount counts [env: LAYERSTORE_RUNROOT]
    ///
    /// The default is /run/layerstore for root, and else layerstore in $XDG_RUNTIME_DIR. For a store that is
    /// named with --root or $LAYERSTORE_ROOT, and for users without $XDG_RUNTIME_DIR, it is run in the store's directory.
    #[arg(long, alias = "run-root", global = true, value_name = "DIR", help_heading = HEADING)]
    pub runroot: Option<PathBuf>,

    /// Take options from a file in the form of storage.conf [env: LAYERSTORE_CONFIG]
    ///
    /// Flags and variables count more than the file. A mount program counts in a file that the flag names, and not in one that
    /// the variable does. Without this flag no storage.conf is read: those of the machine are
    /// of other programs' stores. `layerstore config` shows what is in effect.
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub config: Option<PathBuf>,

    /// Read images and layers of this store too, and never write it; can be given several times
    ///
    /// What is in the own store counts first, then these in their order.
    #[arg(long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub image_store: Vec<PathBuf>,

    /// Keep images and their layers in a store of their own, and containers in --root
    #[arg(long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub image_store_root: Option<PathBuf>,

    /// Open the store without writing to it; what would change it fails
    ///
    /// A store on a filesystem that is read-only is opened so in any case.
    #[arg(long, global = true, help_heading = HEADING)]
    pub no_write: bool,

    /// Enter no user namespace
    ///
    /// Without it, commands of users who are not root work on their stores in a namespace such as `layerstore unshare` makes, in which files have
    /// their owners. With it, files belong to the user whatever their layers say, and layers that were written to in a namespace may be refused: it is for all commands on a store, or for none.
    #[arg(long, global = true, help_heading = HEADING)]
    pub no_unshare: bool,

    /// Keep the records of new containers in --runroot, to be gone after a reboot
    #[arg(long, global = true, help_heading = HEADING)]
    pub transient: bool,

    /// How long to wait for another process that writes; 0 tries once [default: 60]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, help_heading = HEADING)]
    pub lock_timeout: Option<Duration>,

    /// What is on the disk when a command ends [env: LAYERSTORE_SYNC] [default: full]
    ///
    /// For builders and CI hosts `records` is faster: the files of layers are left to the kernel. After a power cut each
    /// such layer is compared with its manifest before it is used; load the image again if one is not whole.
    /// `layerstore sync` brings to the disk what was left.
    #[arg(long, global = true, value_name = "MODE", help_heading = HEADING)]
    pub sync: Option<Sync>,

    /// Grant another amount to what comes in, such as unpacked_bytes=10GiB; can be given several times
    ///
    /// No real image meets a default. What asks for more is refused before the work is done, by the name of the limit; grant more only
    /// to a source that you trust. Sizes have units, counts have none. docs/cli.md has all limits with their defaults.
    #[arg(long = "limit", global = true, value_name = "NAME=VALUE", value_parser = limit, help_heading = HEADING)]
    pub limits: Vec<(Limit, u64)>,

    /// Do not keep the compressed blobs that layers came as
    ///
    /// Saves their space. An image that is saved later has the same layers, in blobs that are compressed anew.
    #[arg(long, global = true, help_heading = HEADING)]
    pub no_keep_blobs: bool,

    /// A program such as fuse-overlayfs that mounts in the kernel's place, as `mount_program` of a configuration
    ///
    /// Its full path, or the name of one in the directories of the system, whatever $PATH says. Without it the kernel mounts, and where it cannot, fuse-overlayfs if it is
    /// installed.
    #[arg(long, global = true, value_name = "PATH", help_heading = HEADING)]
    pub mount_program: Option<PathBuf>,

    /// Tell on standard error what is being done [env: LAYERSTORE_LOG]
    ///
    /// One of error, warn, info, debug and trace, or a filter such as layerstore::store=debug. A level alone is that of layerstore; what it
    /// is made with tells warnings, unless a directive names it: debug,h2=debug.
    #[arg(long, global = true, value_name = "LEVEL", help_heading = HEADING)]
    pub log: Option<String>,

    /// Print JSON
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,

    /// Show no progress; lists print only ids
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub quiet: bool,

    /// When to use colors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto",  help_heading = HEADING)]
    pub color: Color,
}

/// What is on the disk when a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Sync {
    /// Everything
    Full,
    /// The records, and not the files of layers
    Records,
    /// Nothing: for stores that a power cut may cost
    Off,
}

/// When to use colors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Color {
    /// On a terminal, unless $NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The words of an error are said behind the flag and its value.
fn limit(text: &str) -> Result<(Limit, u64), String> {
    parse_limit(text).map_err(|error| match error {
        ConfigError::Limit { reason, .. } => reason,
        error => error.to_string(),
    })
}

/// A time span in seconds, as `1.5`.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_timeouts_are_seconds() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "-1", "NaN", "inf", "1m"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
