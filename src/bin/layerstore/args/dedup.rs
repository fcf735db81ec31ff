//! `layerstore dedup`.

use clap::Args;

/// Let equal files of layers share their space on the disk
///
/// Works on Btrfs, and on XFS with reflinks. Which files are equal is on record for all layers that came from archives or were
/// sealed, so only those that are equal are read, and not twice. It is safe at any time, also while other processes use
/// the store: the kernel compares the bytes before it shares them, no file changes, and who writes to one later gets space
/// of its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore dedup --dry-run
  layerstore dedup
  layerstore dedup --writable --min-size 64K")]
pub struct DedupArgs {
    /// Leave out files that are smaller: bytes, or with K, M or G
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4K")]
    pub min_size: u64,

    /// Also files of containers and other layers that are written to; those are read that are as long as another one
    #[arg(long)]
    pub writable: bool,

    /// Only show how much could be shared
    #[arg(long)]
    pub dry_run: bool,
}

/// `4096`, `4K`, `1M`, `2G`: powers of 1024, as blocks are.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [([char; 2], u64); 3] =
        [(['k', 'K'], 1 << 10), (['m', 'M'], 1 << 20), (['g', 'G'], 1 << 30)];
    let in_units = UNITS.into_iter().find_map(|(letters, unit)| Some((text.strip_suffix(letters)?, unit)));
    let (digits, unit) = in_units.unwrap_or((text, 1));
    // The number may not have a sign.
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "a size is a number of bytes, or one with K, M or G behind it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4K"), Ok(4096));
        assert_eq!(size("3m"), Ok(3 << 20));
        assert_eq!(size("17179869183G"), Ok(17_179_869_183 << 30));
        for wrong in ["", "K", "-1", "+1", "1.5M", "4KiB", "17179869184G", "99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
