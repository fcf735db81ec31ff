//! Which keys the documents of images have, in any program that reads them.
//!
//! Those in Go take a key for another of other letters; see [`crate::types::keys`]. So each key that one of them knows is here, also
//! where nothing is read of it.

/// What is known of a value.
#[derive(Debug)]
pub(super) enum Shape {
    /// Nothing: in annotations and labels, any keys are different ones.
    Any,
    /// A list of values of one shape.
    List(&'static Shape),
    /// An object with these keys: the plain ones, and those with something inside. There can be others, which nobody knows.
    Object {
        /// Keys whose values have no keys, or any.
        plain: &'static [&'static str],
        /// Keys of values that have keys of their own.
        inside: &'static [(&'static str, &'static Shape)],
    },
}

impl Shape {
    /// The keys that are known.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        let (plain, inside) = match self {
            Shape::Object { plain, inside } => (*plain, *inside),
            Shape::Any | Shape::List(_) => Default::default(),
        };
        plain.iter().copied().chain(inside.iter().map(|(key, _)| *key))
    }

    /// What is known of the value of a key.
    pub(super) fn of(&self, key: &str) -> &'static Shape {
        let Shape::Object { inside, .. } = self else { return &Shape::Any };
        inside.iter().find(|(known, _)| *known == key).map_or(&Shape::Any, |(_, shape)| shape)
    }
}

const fn object(plain: &'static [&'static str]) -> Shape {
    Shape::Object { plain, inside: &[] }
}

/// The mark of a layout.
pub(super) const LAYOUT: Shape = object(&["imageLayoutVersion"]);

const PLATFORM: Shape = object(&["architecture", "os", "os.version", "os.features", "variant", "features"]);

const DESCRIPTOR: Shape = Shape::Object {
    plain: &["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType"],
    inside: &[("platform", &PLATFORM)],
};

/// A manifest and an index: which of them it is, the keys tell too.
pub(super) const MANIFEST: Shape = Shape::Object {
    plain: &["schemaVersion", "mediaType", "artifactType", "annotations", "fsLayers", "signatures"],
    inside: &[
        ("config", &DESCRIPTOR),
        ("layers", &Shape::List(&DESCRIPTOR)),
        ("manifests", &Shape::List(&DESCRIPTOR)),
        ("subject", &DESCRIPTOR),
    ],
};

/// How a container is run. Docker and podman write more than the specification has.
const RUN: Shape = Shape::Object {
    plain: &[
        "Hostname",
        "Domainname",
        "User",
        "Memory",
        "MemorySwap",
        "CpuShares",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "ExposedPorts",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Env",
        "Cmd",
        "ArgsEscaped",
        "Image",
        "Volumes",
        "WorkingDir",
        "Entrypoint",
        "NetworkDisabled",
        "MacAddress",
        "OnBuild",
        "Labels",
        "StopSignal",
        "StopTimeout",
        "Shell",
    ],
    inside: &[(
        "Healthcheck",
        &object(&["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"]),
    )],
};

/// A config.
pub(super) const CONFIG: Shape = Shape::Object {
    plain: &[
        "id",
        "parent",
        "comment",
        "created",
        "author",
        "architecture",
        "os",
        "os.version",
        "os.features",
        "variant",
        "container",
        "docker_version",
    ],
    inside: &[
        ("config", &RUN),
        ("container_config", &RUN),
        ("rootfs", &object(&["type", "diff_ids"])),
        ("history", &Shape::List(&object(&["created", "created_by", "author", "comment", "empty_layer"]))),
    ],
};

/// The list of a docker archive.
pub(super) const LIST: Shape =
    Shape::List(&object(&["Config", "RepoTags", "Layers", "Parent", "LayerSources"]));
