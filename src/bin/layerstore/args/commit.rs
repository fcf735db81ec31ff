//! `layerstore commit`.

use clap::Args;

/// Make an image of a container
///
/// The image has the layers of the container's image, and one more with what was written into the container. The
/// container stays as it is. Prints the image's id. A name that another image has moves to this one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore commit web --name web:1
  layerstore commit web --name web:2 --author 'Ada <ada@example.org>' --message 'nginx configured'")]
pub struct CommitArgs {
    /// The container: its id, the beginning of it, or a name
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// A name for the image; may be repeated
    #[arg(long = "name", value_name = "NAME", value_parser = super::create_container::name)]
    pub names: Vec<String>,

    /// Who made it, for the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub author: Option<String>,

    /// What was done, for the image's history
    #[arg(short, long, value_name = "TEXT", visible_alias = "comment")]
    pub message: Option<String>,

    /// When it was made, such as 2026-01-31T12:00:00Z or @SECONDS since 1970 [default: $SOURCE_DATE_EPOCH, else now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub created: Option<jiff::Timestamp>,
}

/// A time as RFC 3339 has it, or seconds since 1970, as `SOURCE_DATE_EPOCH` has them.
pub fn time(text: &str) -> Result<jiff::Timestamp, String> {
    let digits = text.strip_prefix('@').unwrap_or(text);
    match digits.parse::<i64>() {
        Ok(seconds) => jiff::Timestamp::from_second(seconds).map_err(|error| error.to_string()),
        Err(_) => text
            .parse()
            .map_err(|error: jiff::Error| format!("neither RFC 3339 nor seconds since 1970: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_rfc_3339_or_seconds() {
        assert_eq!(time("1970-01-01T00:01:00Z"), time("@60"));
        assert_eq!(time("60"), time("@60"));
        assert!(time("60").is_ok());
        for bad in ["", "@", "yesterday", "2026-13-01T00:00:00Z"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
