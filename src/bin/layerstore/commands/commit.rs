//! `layerstore commit`.

use layerstore::oci::CommitOptions;
use layerstore::{Progress, Timestamp};

use crate::args::{self, CommitArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::ImageJson;

pub fn run(args: CommitArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let container = store.container(&args.container)?;
    let bars = context.progress();
    let update = |progress: &Progress<'_>| bars.update(progress);
    let mut options = CommitOptions::default();
    options.names = args.names;
    options.author = args.author;
    options.comment = args.message;
    options.created = args.created.map_or_else(source_date_epoch, |time| Ok(Some(time)))?.map(timestamp);
    options.progress = Some(&update);
    let committed = store.commit(&container.id, &options);
    drop(bars);
    let image = committed?;
    let printed = match context.out().is_json() {
        true => context.out().json(&ImageJson::new(&image, store.usage(&image)?.total)),
        false => context.out().line(&image.id),
    };
    context.out().told(printed, || format!("the image {} was made", image.id))
}

/// The time that builds which are to be the same every time set for whatever they make.
fn source_date_epoch() -> Result<Option<jiff::Timestamp>, Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let Some(value) = std::env::var_os(NAME) else { return Ok(None) };
    let value = value.to_string_lossy().into_owned();
    args::time(&value).map(Some).map_err(|reason| Failure::Setting { name: NAME, value, reason })
}

/// The library counts nanoseconds forward from the second, also before 1970.
fn timestamp(time: jiff::Timestamp) -> Timestamp {
    let nanoseconds = i64::from(time.subsec_nanosecond());
    let seconds = time.as_second().saturating_sub(i64::from(nanoseconds < 0));
    let forward = nanoseconds.rem_euclid(1_000_000_000);
    Timestamp { seconds, nanoseconds: u32::try_from(forward).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_in_and_out() {
        for nanoseconds in [0i128, 1, -1, 1_500_000_000, -1_500_000_000, 1_700_000_000_123_456_789] {
            let time = jiff::Timestamp::from_nanosecond(nanoseconds).unwrap();
            assert_eq!(crate::output::json::time(timestamp(time)), time);
        }
    }
}
