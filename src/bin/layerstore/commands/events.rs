//! `layerstore events`.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use layerstore::{Event, Subject, Watch, WatchOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::joined;
use crate::args::{EventsArgs, Filter, FilterKey, Since};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::EventJson;
use crate::output::text;

/// How long a wait lasts at the most: the descriptor of a watch only says when to look, and may miss it.
const LOOK_AT_LEAST: Duration = Duration::from_secs(5);

pub fn run(args: &EventsArgs, context: &Context) -> Result<(), Failure> {
    let store = context.existing_store()?;
    let options = match args.since {
        Some(Since::Position(position)) => WatchOptions::since(position),
        None if args.follow => WatchOptions::default(),
        Some(Since::Oldest) | None => WatchOptions::oldest(),
    };
    let mut watch = store.watch(&options)?;
    let deadline = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        while let Some(event) = watch.try_next()? {
            if is_wanted(&event, &args.filters) {
                print(&event, args.no_trunc, context)?;
            }
        }
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !args.follow || rest == Some(Duration::ZERO) {
            return Ok(());
        }
        if is_hung_up(&watch, rest.map_or(LOOK_AT_LEAST, |rest| rest.min(LOOK_AT_LEAST)))? {
            return Ok(());
        }
    }
}

/// Waits for changes, and returns whether whoever reads the output has gone meanwhile: then `head -1` ends the pipe with
/// the first line, and not with the second.
fn is_hung_up(watch: &Watch, timeout: Duration) -> Result<bool, Failure> {
    let failed = |error: Errno| Failure::Output(error.into());
    let timeout = Timespec::try_from(timeout).map_err(|_| failed(Errno::INVAL))?;
    let stdout = io::stdout();
    let output = stdout.as_fd();
    let mut fds = [PollFd::new(watch, PollFlags::IN), PollFd::from_borrowed_fd(output, PollFlags::empty())];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(failed(error)),
    }
    let [_, output] = fds;
    Ok(output.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// Of several filters with one key any must hold, and of several keys all.
fn is_wanted(event: &Event, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| {
        let same_key = filters.iter().filter(|other| other.key == filter.key);
        same_key.into_iter().any(|filter| holds(event, filter))
    })
}

fn holds(event: &Event, filter: &Filter) -> bool {
    let value = filter.value.as_str();
    match filter.key {
        FilterKey::Kind => event.subject.word() == value,
        FilterKey::Event => event.kind.word() == value,
        FilterKey::Id => event.subject.to_string().starts_with(value),
        FilterKey::Name => event.names.iter().any(|name| name.as_str() == value),
        FilterKey::Changed => event.aspects.iter().any(|aspect| aspect.word() == value),
    }
}

/// Prints a line and brings it out.
fn print(event: &Event, whole: bool, context: &Context) -> Result<(), Failure> {
    if context.out().is_json() {
        context.out().json_line(&EventJson::from(event))?;
    } else if context.quiet() {
        context.out().line(&event.subject)?;
    } else {
        context.out().line(line(event, whole))?;
    }
    context.out().flush().map_err(Failure::Output)
}

/// `2026-01-31T12:00:00Z 17 container changed 0123456789ab web (names, items)`
fn line(event: &Event, whole: bool) -> String {
    let time = crate::output::json::time(event.time);
    let (kind, what) = (event.subject.word(), event.kind.word());
    let id = event.subject.to_string();
    let id = match &event.subject {
        Subject::Thing(_) => text::short(&id, whole),
        _ => id.as_str(),
    };
    let mut line = format!("{time:.0} {} {kind} {what} {id}", event.sequence);
    if !event.names.is_empty() {
        line.push(' ');
        line.push_str(&text::printable(&joined(&event.names)));
    }
    if !event.aspects.is_empty() {
        let aspects: Vec<_> = event.aspects.iter().map(|aspect| aspect.word()).collect();
        line.push_str(&format!(" ({})", aspects.join(", ")));
    }
    line
}
