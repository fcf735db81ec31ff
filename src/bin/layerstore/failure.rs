//! What went wrong, and the exit status that says so.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use layerstore::{
    CompressError, ExportError, Kind, LookupError, MetaError, MountError, NamespaceError, ValueError,
};

use crate::args::Color;
use crate::output::report;

/// The exit status of `check` when it found something, and of `repair` when it left something.
pub const FOUND: u8 = 3;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The library's error.
    #[error(transparent)]
    Store(#[from] layerstore::Error),
    /// The library's error, about something that a flag or the configuration asks for.
    #[error("{source}")]
    Asked {
        /// The error.
        source: layerstore::Error,
        /// What asks for it, and where it says so.
        by: String,
    },
    /// An archive that the command line names makes no layer.
    #[error("cannot make a layer of {archive}")]
    Archive {
        /// The file, or what else it is.
        archive: String,
        /// The cause.
        #[source]
        source: layerstore::Error,
    },
    /// A file stands where a layer should.
    #[error("there is no layer {0:?} to stand on, but a file")]
    FileAsParent(String),
    /// Standard output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A change was made, and standard output cannot be written, which was to tell of it.
    #[error("{done}, and the output cannot be written")]
    Untold {
        /// What was done, with what the output would have named.
        done: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that the command line names cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A value of the command line or the environment means nothing.
    #[error("{name} {value:?} is not valid: {reason}")]
    Setting {
        /// The flag or variable.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes would go to a terminal.
    #[error("{what} is binary data and is not written to a terminal")]
    Terminal {
        /// What would be written.
        what: &'static str,
    },
    /// Mounting needs rights that this process has not.
    #[error("cannot mount {thing}: this process is not root and not in a user namespace")]
    NotPrivileged {
        /// What was to be mounted.
        thing: String,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] layerstore::ConfigError),
    /// Snapshots of containerd cannot be read.
    #[error(transparent)]
    Snapshot(#[from] layerstore::snapshotter::SnapshotError),
    /// No user namespace can be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A command cannot be started.
    #[error("cannot run {command:?}")]
    Run {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A thing of another kind was named.
    #[error("{key:?} is a {found}; this needs {wanted}")]
    WrongKind {
        /// What was asked for.
        key: String,
        /// What it is.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// A thing is to be removed that is of another kind than the command removes.
    #[error(
        "{}",
        match *by_id {
            true => format!("{key:?} is no {wanted}, but how the id of {} begins", with_article(*found)),
            false => format!("{key:?} is {}, and no {wanted}", with_article(*found)),
        }
    )]
    OtherKind {
        /// What was asked for.
        key: String,
        /// What it is.
        found: Kind,
        /// What the command removes.
        wanted: Kind,
        /// Whether nothing but the beginning of its id says so.
        by_id: bool,
    },
    /// A mount is given back that is not there.
    #[error("{thing} is not mounted")]
    NotMounted {
        /// What was to be unmounted.
        thing: String,
    },
    /// Layers are mounted.
    #[error("{}", if *count == 1 { "1 layer is mounted".to_owned() } else { format!("{count} layers are mounted") })]
    StillMounted {
        /// How many.
        count: usize,
    },
    /// A layer is to be removed that a container needs.
    #[error("the layer {layer} is below the layer of the container {container}; remove that first")]
    BelowContainer {
        /// The layer.
        layer: String,
        /// The container's name and id.
        container: String,
    },
    /// A layer is to be changed whose digests say what is in it.
    #[error("the layer {layer} is sealed: its digests say what is in it")]
    Sealed {
        /// The layer.
        layer: String,
    },
    /// A name is taken away from something that has it not.
    #[error("{thing:?} does not have the name {name:?}")]
    NoSuchName {
        /// What was named.
        thing: String,
        /// The name that it has not.
        name: String,
    },
    /// Another process answers where this one is to listen.
    #[cfg(feature = "containerd")]
    #[error("another process listens at {}", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// There can be no socket where this process is to listen.
    #[cfg(feature = "containerd")]
    #[error("cannot listen at {}: {reason}", path.display())]
    Address {
        /// Where it was to be.
        path: PathBuf,
        /// What is in the way, and what to do.
        reason: String,
    },
    /// The service manager listens elsewhere than the command line says.
    #[cfg(feature = "containerd")]
    #[error("the service manager listens at {:?} and not at {:?}", found, wanted)]
    OtherSocket {
        /// Its socket.
        found: PathBuf,
        /// What the command line says.
        wanted: PathBuf,
    },
    /// Others may call at the socket that the service manager gave.
    #[cfg(feature = "containerd")]
    #[error("the socket that the service manager gave has {found}, so other users could call")]
    OpenSocket {
        /// What lets them.
        found: String,
    },
    /// The socket that the service manager gave cannot be used.
    #[cfg(feature = "containerd")]
    #[error("cannot use the socket that the service manager gave")]
    GivenSocket {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nobody said where to listen.
    #[cfg(feature = "containerd")]
    #[error("there is no --address, and no socket from a service manager")]
    NoSocket,
    /// Calls can no longer be answered.
    #[cfg(feature = "containerd")]
    #[error("cannot serve snapshots")]
    Serve {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Garbage that could not be removed.
    #[error("cannot remove {}", path.display())]
    Left {
        /// Where it is.
        path: PathBuf,
        /// The cause.
        #[source]
        source: layerstore::Error,
    },
    /// Damage that could not be mended.
    #[error("cannot repair {thing}")]
    Unrepaired {
        /// What is damaged.
        thing: String,
        /// The cause.
        #[source]
        source: layerstore::Error,
    },
    /// Some of several things failed; each was told already.
    #[error("{failed} of {all} failed")]
    Several {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
    },
}

impl Failure {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Failure::Store(error) => error.hint().map(Cow::into_owned),
            Failure::Archive { source, .. } | Failure::Left { source, .. } => {
                source.hint().map(Cow::into_owned)
            }
            Failure::Asked { source, by } => Some(match source.hint() {
                Some(hint) => format!("{by} asks for it; {hint}"),
                None => format!("{by} asks for it"),
            }),
            Failure::FileAsParent(file) => Some(format!("`--file {file}` takes the tar from there")),
            Failure::Terminal { .. } => Some("use -o FILE, or send the output to a file or a program".into()),
            Failure::NotPrivileged { .. } => Some(
                "start a shell in a user namespace with `layerstore unshare` and mount there; \
                 the mount is seen by what runs in that namespace"
                    .into(),
            ),
            Failure::OtherKind { found, .. } => Some(match found {
                Kind::Container => "`layerstore rm` removes containers".into(),
                Kind::Image => "`layerstore rmi` removes images".into(),
                Kind::Layer => "`layerstore rm --layer` removes layers".into(),
            }),
            Failure::StillMounted { .. } => Some("`layerstore shutdown --force` unmounts them".into()),
            Failure::Sealed { .. } => Some(
                "`layerstore apply --unseal` changes it all the same; to leave it as it is, make a layer above it with \
                 `layerstore create-layer`"
                    .into(),
            ),
            #[cfg(feature = "containerd")]
            Failure::SocketInUse { .. } => Some("end that process first, or choose another --address".into()),
            #[cfg(feature = "containerd")]
            Failure::OpenSocket { .. } => {
                Some("ListenStream= of the unit takes a path, and SocketMode=0600 keeps others out".into())
            }
            #[cfg(feature = "containerd")]
            Failure::OtherSocket { .. } => {
                Some("make --address and the ListenStream= of the unit the same, or leave out --address".into())
            }
            Failure::NotMounted { .. } => Some("`layerstore mount` lists the mounts".into()),
            _ => None,
        }
    }

    /// Whether a thing was not found.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Failure::Store(layerstore::Error::Lookup(LookupError::NotFound { .. })))
    }

    /// What to do about it, if the store was opened with `--no-write`.
    fn hint_without_writing(&self) -> Option<String> {
        match self {
            Failure::Store(
                layerstore::Error::ReadOnly { .. }
                | layerstore::Error::Meta(MetaError::OpenForReading { .. }),
            ) => Some("this changes the store: leave out --no-write".into()),
            _ => self.hint(),
        }
    }

    /// Prints it to standard error, and says which exit status it makes. `no_write`: whether the
    /// store was opened with `--no-write`.
    pub fn report(&self, color: Color, no_write: bool) -> ExitCode {
        let hint = if no_write { self.hint_without_writing() } else { self.hint() };
        report::failure(self, hint.as_deref(), color);
        match self {
            Failure::Setting { .. }
            | Failure::Config(_)
            | Failure::Store(
                layerstore::Error::InsideStore { .. } | layerstore::Error::ExposedProgram { .. },
            ) => ExitCode::from(2),
            #[cfg(feature = "containerd")]
            Failure::NoSocket => ExitCode::from(2),
            // As shells and `env` say it.
            Failure::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => ExitCode::from(127),
            Failure::Run { .. } => ExitCode::from(126),
            // Words that the library takes apart.
            Failure::Store(
                layerstore::Error::Value(ValueError::IdMap { .. })
                | layerstore::Error::Mount(MountError::Option { .. })
                | layerstore::Error::Export(ExportError::Compress(
                    CompressError::Level { .. } | CompressError::NoLevels,
                )),
            ) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

fn with_article(kind: Kind) -> &'static str {
    match kind {
        Kind::Container => "a container",
        Kind::Image => "an image",
        Kind::Layer => "a layer",
    }
}
