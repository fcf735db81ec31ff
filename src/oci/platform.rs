//! Platforms: what an image runs on, and which of several images fits.
//!
//! Names are Go's (`amd64`, not `x86_64`). Within an architecture a machine runs images made for its own
//! variant and all lower ones, best first; a missing variant means the one that Go assumes: `v7` for arm,
//! `v8` for arm64, `v1` for amd64.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::manifest::Descriptor;
use crate::error::{Choices, OciError, shown};
use crate::sys::machine;

/// What an image runs on.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, in Go's names.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, in Go's names.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system; of use on Windows only.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "mips64" if cfg!(target_endian = "little") => "mips64le",
            "mips" if cfg!(target_endian = "little") => "mipsle",
            "loongarch64" => "loong64",
            other => other,
        };
        let variant = if architecture == "arm" { arm_variant() } else { None };
        let os = std::env::consts::OS.to_owned();
        Platform { os, architecture: architecture.to_owned(), variant, os_version: None }
    }

    /// How well an image for `offered` runs where `self` is wanted: `None` not at all, else lower is better.
    fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        if self.os_version.is_some() && self.os_version != offered.os_version {
            return None;
        }
        let (wanted, found) = (self.effective_variant(), offered.effective_variant());
        match (level(wanted), level(found)) {
            (Some(wanted), Some(found)) => wanted.checked_sub(found),
            _ if wanted == found => Some(0),
            _ => None,
        }
    }

    /// Whether an image whose config says `offered` runs where `self` is wanted. Many configs leave out the
    /// variant that their index states, so one that is missing is no contradiction.
    pub(super) fn accepts(&self, offered: &Platform) -> bool {
        let variant = offered.variant.clone().or_else(|| self.variant.clone());
        self.rank(&Platform { variant, ..offered.clone() }).is_some()
    }

    fn effective_variant(&self) -> &str {
        match (self.variant.as_deref().unwrap_or(""), self.architecture.as_str()) {
            ("", "arm") | ("7", "arm") => "v7",
            ("6", "arm") => "v6",
            ("5", "arm") => "v5",
            ("", "arm64") | ("8", "arm64") => "v8",
            ("", "amd64") => "v1",
            (variant, _) => variant,
        }
    }
}

/// The number in a variant such as `v7`.
fn level(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

/// The variant of this 32-bit arm machine, from the kernel's name for it (`armv6l`).
fn arm_variant() -> Option<String> {
    let machine = machine::processor().ok()?;
    let level = machine.strip_prefix("armv")?.chars().next().filter(char::is_ascii_digit)?;
    Some(format!("v{level}"))
}

impl FromStr for Platform {
    type Err = OciError;

    /// Returns [`OciError::Platform`] if `text` is not `os/architecture` or `os/architecture/variant`.
    fn from_str(text: &str) -> Result<Self, OciError> {
        let error = || OciError::Platform(shown(text));
        let plain = |part: &&str| {
            (1..=64).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let parts: Vec<&str> = text.split('/').take(4).collect();
        if !parts.iter().all(plain) {
            return Err(error());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => return Err(error()),
        };
        let architecture = match *architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            other => other,
        };
        Ok(Platform {
            os: (*os).to_owned(),
            architecture: architecture.to_owned(),
            variant,
            os_version: None,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .filter(|variant| !variant.is_empty())
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Whether a descriptor is of something that stands beside the images of an index: BuildKit's attestations.
pub(super) fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
}

/// Chooses the image that fits `wanted` best; of equals, the first.
///
/// An image that does not say what it runs on is taken when there is no other.
pub(super) fn choose<'a>(images: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, OciError> {
    if let [only] = images
        && only.platform.as_ref().is_none_or(|platform| platform.os.is_empty() || platform.os == "unknown")
    {
        return Ok(only);
    }
    let ranked = images.iter().filter_map(|image| Some((wanted.rank(image.platform.as_ref()?)?, image)));
    match ranked.min_by_key(|(rank, _)| *rank) {
        Some((_, image)) => Ok(image),
        None => {
            let name = |image: &Descriptor| {
                let unnamed = || format!("{} (without platform)", image.digest);
                image.platform.as_ref().map_or_else(unnamed, Platform::to_string)
            };
            let available = Choices(images.iter().map(name).collect());
            Err(OciError::PlatformMissing { wanted: wanted.to_string(), available })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::OCI_MANIFEST;
    use crate::types::Digest;

    fn image(platform: &str) -> Descriptor {
        let image = Descriptor::new(OCI_MANIFEST, Digest::sha256(platform.as_bytes()), 1);
        if platform.is_empty() { image } else { image.with_platform(platform.parse().unwrap()) }
    }

    fn chosen(images: &[&str], wanted: &str) -> Option<String> {
        let images: Vec<_> = images.iter().map(|text| image(text)).collect();
        let chosen = choose(&images, &wanted.parse().unwrap()).ok()?;
        Some(chosen.platform.as_ref().map(Platform::to_string).unwrap_or_default())
    }

    #[test]
    fn the_best_variant_that_runs_is_taken() {
        let arms = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64"];
        for (wanted, expected) in [
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm/v8", "linux/arm/v7"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/aarch64/v9", "linux/arm64/v8"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64"),
        ] {
            assert_eq!(chosen(&arms, wanted).as_deref(), Some(expected), "{wanted}");
        }
        assert_eq!(chosen(&["linux/arm/v7"], "linux/arm/v6"), None);
        assert_eq!(chosen(&["linux/amd64/v3"], "linux/amd64"), None);
        assert_eq!(chosen(&arms, "windows/amd64"), None);
    }

    #[test]
    fn an_image_without_platform_counts_alone() {
        assert_eq!(chosen(&[""], "linux/amd64").as_deref(), Some(""));
        assert_eq!(chosen(&["", "linux/arm64"], "linux/amd64"), None);
        let error = choose(&[image("linux/s390x"), image("")], &"linux/amd64".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("there are linux/s390x, sha256:"), "{error}");
    }

    #[test]
    fn a_config_may_leave_out_the_variant() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/arm/v6").accepts(&platform("linux/arm")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm64")));
    }

    #[test]
    fn platforms_are_text() {
        assert_eq!(Platform::host().to_string().parse::<Platform>().unwrap(), Platform::host());
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b"] {
            assert!(matches!(bad.parse::<Platform>(), Err(OciError::Platform(_))), "{bad}");
        }
    }
}
