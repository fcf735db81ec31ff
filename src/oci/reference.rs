//! Where an image is: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REPO:TAG]`.
//!
//! The forms are those of skopeo and podman, and so is the rule for colons: the first colon after the
//! transport ends the path, since a tag can have colons itself (`localhost:5000/app:1`). A path with a colon
//! has no text form that other tools understand; [`Reference::new`] takes any path.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{OciError, shown};

/// The format of the place an image is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Transport {
    /// A directory in the form of an OCI image layout.
    Layout,
    /// A tar archive of an OCI image layout.
    OciArchive,
    /// A tar archive in the form that `docker save` writes.
    DockerArchive,
}

impl Transport {
    const ALL: [Transport; 3] = [Transport::Layout, Transport::OciArchive, Transport::DockerArchive];

    /// The name before the first colon of a reference.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Layout => "oci",
            Transport::OciArchive => "oci-archive",
            Transport::DockerArchive => "docker-archive",
        }
    }
}

/// A place for images, and perhaps the tag of one of them.
///
/// # Examples
///
/// ```
/// use layerstore::oci::Reference;
///
/// let reference: Reference = "docker-archive:/tmp/web.tar:localhost:5000/web:1".parse()?;
/// assert_eq!(reference.path().to_str(), Some("/tmp/web.tar"));
/// assert_eq!(reference.tag(), Some("localhost:5000/web:1"));
/// # Ok::<(), layerstore::OciError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reference {
    transport: Transport,
    path: PathBuf,
    tag: Option<String>,
}

impl Reference {
    /// A reference from its parts; the path may have colons.
    ///
    /// Returns [`OciError::Reference`] if the path is empty, or the tag has not the form that the transport asks
    /// for.
    pub fn new(transport: Transport, path: impl Into<PathBuf>, tag: Option<&str>) -> Result<Self, OciError> {
        let path = path.into();
        let given = || Reference { transport, path: path.clone(), tag: tag.map(str::to_owned) }.to_string();
        if path.as_os_str().is_empty() {
            return Err(error(&given(), "the path is empty"));
        }
        let tag = match (transport, tag) {
            (_, None) => None,
            (Transport::DockerArchive, Some(tag)) => {
                Some(docker_name(tag).map(|_| tag).map_err(|reason| error(&given(), reason))?)
            }
            (_, Some(tag)) if is_ref_name(tag) => Some(tag),
            (_, Some(_)) => return Err(error(&given(), "the tag has not the form that the OCI asks for")),
        };
        Ok(Reference { transport, tag: tag.map(str::to_owned), path })
    }

    /// The format.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The directory or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tag, as given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl FromStr for Reference {
    type Err = OciError;

    /// Returns [`OciError::Reference`], which shows the right forms, if `text` has none of them.
    fn from_str(text: &str) -> Result<Self, OciError> {
        let (name, rest) = text.split_once(':').ok_or_else(|| error(text, "it has no colon"))?;
        let transport = Transport::ALL
            .into_iter()
            .find(|transport| transport.name() == name)
            .ok_or_else(|| error(text, unknown(name)))?;
        let (path, tag) = match rest.split_once(':') {
            Some((_, "")) => return Err(error(text, "the tag after the last colon is empty")),
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.contains('\0') {
            return Err(error(text, "the path has a NUL byte"));
        }
        Reference::new(transport, path, tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.name(), self.path.display())?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

/// Why a transport is none. Others of the field have names that one may well expect here.
fn unknown(transport: &str) -> &'static str {
    match transport {
        "docker" | "docker-daemon" | "containers-storage" | "dir" => {
            "other places are reached by `skopeo copy`, from or to an oci:DIR:TAG"
        }
        _ => "its transport is unknown",
    }
}

fn error(text: &str, reason: &'static str) -> OciError {
    OciError::Reference { text: shown(text), reason }
}

/// Whether `text` follows the grammar of `org.opencontainers.image.ref.name` (OCI image specification,
/// `annotations.md`): parts of letters and digits, joined by one of `-._:@+/` or by `--`.
fn is_ref_name(text: &str) -> bool {
    let part_is_good = |part: &str| {
        let joined = part.replace("--", "-");
        !joined.is_empty()
            && joined
                .split(['-', '.', '_', ':', '@', '+'])
                .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    text.len() <= 1024 && text.split('/').all(part_is_good)
}

/// How long the full form of a docker image name is at the most.
const LONGEST: usize = 512;

/// The full form of a docker image name: `web` is `docker.io/library/web:latest`.
///
/// Returns what is wrong with `text` if it is no name with an optional tag.
pub(super) fn docker_name(text: &str) -> Result<String, &'static str> {
    if text.contains('@') {
        return Err("an image in a docker archive has a name and a tag, no digest");
    }
    let name_end = text.rfind('/').map_or(0, |slash| slash.saturating_add(1));
    let (name, tag) = match text.get(name_end..).and_then(|last| last.rfind(':')) {
        Some(colon) => text.split_at_checked(name_end.saturating_add(colon)).unwrap_or((text, ":latest")),
        None => (text, ":latest"),
    };
    let tag = tag.trim_start_matches(':');
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    // Docker's own images, whether the registry is said or not.
    let is_official = domain == "docker.io" && !path.contains('/');
    let path = if is_official { format!("library/{path}") } else { path.to_owned() };
    if !domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
        return Err("the registry in the image name is malformed");
    }
    if !path.split('/').all(is_repository_part) {
        return Err(
            "the repository must be of lower-case letters and digits, joined by '.', '_', '-' or '/'",
        );
    }
    let tag_is_good = (1..=128).contains(&tag.len())
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !tag.starts_with(['.', '-']);
    if !tag_is_good {
        return Err("the tag must be of 1 to 128 letters, digits, '_', '.' and '-'");
    }
    let full = format!("{domain}/{path}:{tag}");
    // The form that is kept is read again, so it counts, and not what was left out.
    if full.len() > LONGEST { Err("the image name, in full, is longer than 512 bytes") } else { Ok(full) }
}

pub(super) fn is_domain(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_repository_part(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
        && part.bytes().next().is_some_and(plain)
        && part.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_back_as_written() {
        for (text, transport, path, tag) in [
            ("oci:/a/b", Transport::Layout, "/a/b", None),
            ("oci:b:v1.2", Transport::Layout, "b", Some("v1.2")),
            ("oci:b:docker.io/library/x:1", Transport::Layout, "b", Some("docker.io/library/x:1")),
            ("oci-archive:x.tar:latest", Transport::OciArchive, "x.tar", Some("latest")),
            ("docker-archive:x.tar", Transport::DockerArchive, "x.tar", None),
            ("docker-archive:x.tar:web", Transport::DockerArchive, "x.tar", Some("web")),
            ("docker-archive:x.tar:h:5000/w:1", Transport::DockerArchive, "x.tar", Some("h:5000/w:1")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.transport(), transport, "{text}");
            assert_eq!(reference.path(), Path::new(path), "{text}");
            assert_eq!(reference.tag(), tag, "{text}");
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_shows_the_forms() {
        for bad in [
            "",
            "oci",
            "oci:",
            "oci::tag",
            "oci:dir:",
            "docker://x",
            "docker-daemon:x:1",
            "containers-storage:x",
            "dir:x",
            "oci:dir:a//b",
            "oci:dir:-a",
            "oci:dir:a b",
            "oci:dir:a---b",
            "oci:a\0b",
            "docker-archive:f:UPPER:1",
            "docker-archive:f:a@sha256:00",
            "docker-archive:f:a:.x",
        ] {
            let error = bad.parse::<Reference>().unwrap_err();
            assert!(matches!(error, OciError::Reference { .. }), "{bad}");
            assert!(error.to_string().contains("docker-archive:FILE[:REPO:TAG]"), "{error}");
            let is_elsewhere = ["docker:", "docker-daemon:", "containers-storage:", "dir:"]
                .iter()
                .any(|start| bad.starts_with(start));
            assert_eq!(error.to_string().contains("`skopeo copy`"), is_elsewhere, "{error}");
        }
    }

    #[test]
    fn a_path_with_a_colon_needs_no_text_form() {
        let reference = Reference::new(Transport::Layout, "/a:b", Some("t")).unwrap();
        assert_eq!(reference.path(), Path::new("/a:b"));
    }

    #[test]
    fn docker_names_are_filled_in() {
        for (short, full) in [
            ("web", "docker.io/library/web:latest"),
            ("web:1", "docker.io/library/web:1"),
            ("me/web:1", "docker.io/me/web:1"),
            ("localhost/web", "localhost/web:latest"),
            ("h:5000/a/b:2", "h:5000/a/b:2"),
            ("docker.io/library/web:1", "docker.io/library/web:1"),
            ("index.docker.io/library/web:1", "docker.io/library/web:1"),
            ("docker.io/web", "docker.io/library/web:latest"),
            ("index.docker.io/web:1", "docker.io/library/web:1"),
        ] {
            assert_eq!(docker_name(short).as_deref(), Ok(full));
        }
        let (most, more) = (LONGEST - "docker.io/library/:latest".len(), LONGEST - ":latest".len());
        let full = docker_name(&"a".repeat(most)).unwrap();
        assert_eq!(docker_name(&full), Ok(full));
        for long in [most + 1, more, LONGEST + 1] {
            assert!(docker_name(&"a".repeat(long)).is_err(), "{long}");
        }
        for bad in ["", ":1", "a/:1", "/a", "a//b", "a:", "a:b c"] {
            assert!(docker_name(bad).is_err(), "{bad}");
        }
    }
}
