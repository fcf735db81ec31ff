//! The messages of the protocol and the library's types, each as the other.

use std::error::Error;
use std::ffi::OsString;
use std::time::SystemTime;

use layerstore::MountEntry;
use layerstore::snapshotter::{Code, Info, Kind, SnapshotError, Usage};
use tonic::Status;

use super::protocol::{snapshots as proto, types};

/// The mounts, as the protocol has them.
///
/// Returns `INTERNAL` for a mount that it cannot say: with paths that are not UTF-8, or not from the root.
pub fn mounts(entries: Vec<MountEntry>) -> Result<Vec<types::Mount>, Status> {
    entries.into_iter().map(mount).collect()
}

fn mount(entry: MountEntry) -> Result<types::Mount, Status> {
    if let Some(directory) = &entry.directory {
        let text = format!("the paths of a mount begin at {} and not at the root", directory.display());
        return Err(Status::internal(text));
    }
    Ok(types::Mount {
        r#type: entry.kind,
        source: text(entry.source)?,
        target: String::new(),
        options: entry.options.into_iter().map(text).collect::<Result<_, _>>()?,
    })
}

fn text(text: OsString) -> Result<String, Status> {
    let told = |text: OsString| Status::internal(format!("{} is not UTF-8", text.display()));
    text.into_string().map_err(told)
}

/// A snapshot, as the protocol has it.
pub fn info(info: Info) -> proto::Info {
    let kind = match info.kind {
        Kind::Active => proto::Kind::Active,
        Kind::View => proto::Kind::View,
        Kind::Committed => proto::Kind::Committed,
    };
    proto::Info {
        name: info.name,
        parent: info.parent.unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(info.created.into()),
        updated_at: Some(info.updated.into()),
        labels: info.labels.into_iter().collect(),
    }
}

/// A snapshot as a caller wants it to be. What it leaves out is as in a snapshot that was made just now: only labels can be
/// changed, and of these only those that the caller names.
pub fn wanted(info: proto::Info) -> Info {
    let time = |time: Option<prost_types::Timestamp>| time.and_then(|time| SystemTime::try_from(time).ok());
    let kind = match info.kind() {
        proto::Kind::View => Kind::View,
        proto::Kind::Committed => Kind::Committed,
        proto::Kind::Active | proto::Kind::Unknown => Kind::Active,
    };
    Info {
        kind,
        name: info.name,
        parent: parent(info.parent),
        labels: info.labels.into_iter().collect(),
        created: time(info.created_at).unwrap_or(SystemTime::UNIX_EPOCH),
        updated: time(info.updated_at).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

/// A parent; the protocol has an empty one for none.
pub fn parent(name: String) -> Option<String> {
    (!name.is_empty()).then_some(name)
}

/// What a snapshot takes, as the protocol has it.
pub fn usage(usage: Usage) -> proto::UsageResponse {
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    proto::UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) }
}

/// A failure, as the protocol has it: containerd knows what to do by the code, and shows the text.
pub fn status(error: &SnapshotError) -> Status {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    match error.code() {
        Code::NotFound => Status::not_found(text),
        Code::AlreadyExists => Status::already_exists(text),
        Code::FailedPrecondition => Status::failed_precondition(text),
        Code::InvalidArgument => Status::invalid_argument(text),
        Code::ResourceExhausted => Status::resource_exhausted(text),
        Code::Unavailable => Status::unavailable(text),
        Code::Aborted => Status::aborted(text),
        _ => Status::unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use layerstore::{CreateError, InUseError};

    use super::*;

    fn entry(source: &str, options: &[&str]) -> MountEntry {
        MountEntry {
            kind: "overlay".to_owned(),
            source: source.into(),
            options: options.iter().map(OsString::from).collect(),
            directory: None,
        }
    }

    #[test]
    fn mounts_keep_kind_source_and_options() {
        let made = mounts(vec![entry("overlay", &["lowerdir=/a:/b", "ro"])]).unwrap();
        let [mount] = &made[..] else { panic!("{made:?}") };
        assert_eq!((&*mount.r#type, &*mount.source, &*mount.target), ("overlay", "overlay", ""));
        assert_eq!(mount.options, ["lowerdir=/a:/b", "ro"]);
    }

    #[test]
    fn mounts_that_the_protocol_cannot_say_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let mut relative = entry("overlay", &["lowerdir=1"]);
        relative.directory = Some("/var".into());
        let mut bytes = entry("overlay", &[]);
        bytes.options.push(OsString::from_vec(b"lowerdir=/\xff".to_vec()));
        for entry in [relative, bytes] {
            assert_eq!(mounts(vec![entry]).unwrap_err().code(), tonic::Code::Internal);
        }
    }

    #[test]
    fn snapshots_come_back_as_they_went() {
        let whole = Info {
            kind: Kind::View,
            name: "k8s.io/1/a b".to_owned(),
            parent: Some("p".to_owned()),
            labels: [("a".to_owned(), "1".to_owned())].into(),
            created: SystemTime::UNIX_EPOCH + Duration::new(5, 7),
            updated: SystemTime::UNIX_EPOCH + Duration::new(6, 8),
        };
        assert_eq!(wanted(info(whole.clone())), whole);
        for kind in [Kind::Active, Kind::Committed] {
            let other = Info { kind, parent: None, ..whole.clone() };
            assert_eq!(wanted(info(other.clone())), other);
        }
        assert_eq!(info(Info { parent: None, ..whole }).parent, "");
    }

    #[test]
    fn failures_have_the_codes_that_containerd_knows() {
        let key = || "a".to_owned();
        let full = layerstore::Error::Io {
            action: "write",
            path: "file".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        for (error, code) in [
            (SnapshotError::NotFound { key: key() }, tonic::Code::NotFound),
            (SnapshotError::AlreadyExists { key: key() }, tonic::Code::AlreadyExists),
            (
                SnapshotError::FailedPrecondition { key: key(), reason: "is no more".to_owned() },
                tonic::Code::FailedPrecondition,
            ),
            (
                SnapshotError::InvalidArgument { what: "the key", value: key(), reason: key() },
                tonic::Code::InvalidArgument,
            ),
            (SnapshotError::Visitor("no more".into()), tonic::Code::Aborted),
            (SnapshotError::Store(InUseError::Busy { layer: key() }.into()), tonic::Code::Unavailable),
            (SnapshotError::Store(full), tonic::Code::ResourceExhausted),
            (
                SnapshotError::Store(CreateError::IdInUse { kind: "layer", id: key() }.into()),
                tonic::Code::AlreadyExists,
            ),
            (
                SnapshotError::Store(CreateError::ParentAbove { layer: key(), parent: key() }.into()),
                tonic::Code::FailedPrecondition,
            ),
            (
                SnapshotError::Store(layerstore::Error::Random(std::io::ErrorKind::Other.into())),
                tonic::Code::Unknown,
            ),
        ] {
            assert_eq!(status(&error).code(), code);
            assert!(!status(&error).message().is_empty());
        }
    }

    #[test]
    fn usage_is_bytes_and_inodes() {
        let sent = super::usage(Usage { inodes: 1, size: u64::MAX });
        assert_eq!((sent.inodes, sent.size), (1, i64::MAX));
    }

    #[test]
    fn causes_are_told() {
        let error = SnapshotError::Visitor("the reader went away".into());
        assert!(status(&error).message().ends_with(": the reader went away"), "{error}");
    }
}
