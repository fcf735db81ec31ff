//! `layerstore load`.

use std::time::Duration;

use clap::Args;
use layerstore::oci::{Platform, Reference};

/// Bring an image in from an OCI layout or an archive
///
/// Everything is checked on its way in: the digests of the blobs and the diffIDs of the layers. Layers that the store
/// has already are not read again. If anything fails, nothing of the image is in the store, unless --lease keeps the
/// finished layers for the next try.
///
/// Prints the image's id. A name that another image has moves to this one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore load oci:debian.oci:12
  layerstore load oci-archive:debian.tar --name debian:12
  layerstore load docker-archive:web.tar:example.org/web:1 --name web
  layerstore load oci:multi --platform linux/arm64

A layout or archive with several images needs the tag of one. Without --name the image gets the name that the \
source has for it, if any. A docker archive has names in full: an image that was saved as `web` comes as \
`docker.io/library/web:latest`.")]
pub struct LoadArgs {
    /// Where it is: oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REPO:TAG]
    #[arg(value_name = "SOURCE")]
    pub source: Reference,

    /// A name for the image, in place of those of the source; may be repeated
    #[arg(long = "name", value_name = "NAME", value_parser = super::create_container::name)]
    pub names: Vec<String>,

    /// If a layer fails, keep the finished layers below it for so long, such as 1h or 2d: the next try goes on from there
    ///
    /// The lease of an earlier try that ends later keeps its end. `gc` removes the layers when the time is over, and
    /// `prune --leases` at any time; `status` shows the leases.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lease: Option<Duration>,

    /// Let files that the image brings share their space with equal ones that are there, on Btrfs and XFS
    ///
    /// As `dedup` does later, and only for what is new. It takes longer: the files are written to the disk and compared.
    #[arg(long)]
    pub dedup: bool,

    /// Tell on standard error how long reading, decompressing, hashing, writing, syncing and waiting for locks took
    ///
    /// In seconds, summed over all threads, and for each layer, with the time from beginning to end; with --json as `timings`.
    #[arg(long)]
    pub timings: bool,

    /// Which image of a multi-platform one: OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "write 30m, 1h or 2d";
    let span: jiff::Span = text.parse().map_err(|_| FORM)?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| FORM)?;
    // A lease of no time keeps nothing.
    Duration::try_from(time).ok().filter(|time| !time.is_zero()).ok_or(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90s", 90), ("1h", 3600), ("1h 30m", 5400), ("2d", 172_800), ("1w", 604_800)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0", "0s", "1", "x", "-1h", "1 month", "soon"] {
            assert_eq!(duration(bad), Err("write 30m, 1h or 2d"), "{bad}");
        }
    }
}
