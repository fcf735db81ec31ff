//! Long lists in JSON, in the form of all other JSON: threads make the text of some members each, and the texts are printed in order.
//! Most of the time that a list of thousands takes is the making of its text.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::mem;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use serde::Serialize;
use serde_json::Serializer;

use super::indented::Indented;

/// How many members a thread makes the text of at once.
const CHUNK: usize = 50;
/// For how many members there is a thread more: it takes as long to start as some hundred texts.
const WORTH_A_THREAD: usize = 1000;

/// The text of a chunk. It comes in hundreds of pieces for each member, and a buffer takes these faster than a vector does.
type Text = BufWriter<Vec<u8>>;

/// The buffer of a thread, which is larger than most chunks.
const TEXT: usize = 64 * 1024;

/// Prints the list of what `of` makes of each of `members`.
///
/// Returns the first failure. Members before it may have been printed, and none after it.
pub fn print<'m, T: Sync, V: Serialize>(
    to: impl Write + Send,
    members: &'m [T],
    of: impl Fn(&'m T) -> V + Sync,
) -> io::Result<()> {
    let print = Mutex::new(Print { to, waiting: BTreeMap::new(), printed: 0, failed: None });
    let list = List { members, of, next: AtomicUsize::new(0), print };
    thread::scope(|scope| {
        for _ in 1..threads(members.len()) {
            #[expect(clippy::disallowed_methods, reason = "the library does not lend its own")]
            let started = Builder::new().name("json".to_owned()).spawn_scoped(scope, || list.work());
            // Fewer do as well, where a limit of processes refuses more.
            if started.is_err() {
                break;
            }
        }
        list.work();
    });
    let Print { mut to, failed, .. } = list.print.into_inner().unwrap_or_else(PoisonError::into_inner);
    let end: &[u8] = if members.is_empty() { b"[]\n" } else { b"\n]\n" };
    failed.map_or_else(|| to.write_all(end), Err)
}

/// How many threads are worth having, the calling one included.
fn threads(members: usize) -> usize {
    match members / WORTH_A_THREAD {
        0 => 1,
        worth => thread::available_parallelism().map_or(1, NonZero::get).min(worth.saturating_add(1)),
    }
}

struct List<'m, T, F, W> {
    members: &'m [T],
    of: F,
    /// The first chunk that no thread has taken.
    next: AtomicUsize,
    print: Mutex<Print<W>>,
}

/// The texts on their way out.
struct Print<W> {
    to: W,
    /// Texts of chunks before which others have to be printed.
    waiting: BTreeMap<usize, io::Result<Vec<u8>>>,
    /// How many were printed.
    printed: usize,
    failed: Option<io::Error>,
}

impl<'m, T, V: Serialize, F: Fn(&'m T) -> V, W: Write> List<'m, T, F, W> {
    /// Makes texts until all chunks are taken.
    fn work(&self) {
        let mut text = Text::with_capacity(TEXT, Vec::new());
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = self.members.chunks(CHUNK).nth(number) else { return };
            let made = self.make(number, chunk, &mut text).map(|()| mem::take(text.get_mut()));
            *text.get_mut() = self.print(number, made);
        }
    }

    fn make(&self, number: usize, chunk: &'m [T], text: &mut Text) -> io::Result<()> {
        for (position, member) in chunk.iter().enumerate() {
            let between: &[u8] = if (number, position) == (0, 0) { b"[\n  " } else { b",\n  " };
            text.write_all(between)?;
            (self.of)(member).serialize(&mut Serializer::with_formatter(&mut *text, Indented::within(1)))?;
        }
        text.flush()
    }

    /// Prints a text, and those that waited for it, if it is its turn. What comes back is an empty buffer for the next text.
    fn print(&self, number: usize, text: io::Result<Vec<u8>>) -> Vec<u8> {
        let mut print = self.print.lock().unwrap_or_else(PoisonError::into_inner);
        let Print { to, waiting, printed, failed } = &mut *print;
        waiting.insert(number, text);
        let mut buffer = Vec::new();
        while let Some(text) = waiting.remove(printed) {
            match text.and_then(|text| to.write_all(&text).map(|()| text)) {
                Ok(text) => buffer = text,
                Err(error) => {
                    *failed = Some(error);
                    // Nobody takes another.
                    self.next.store(self.members.len(), Ordering::Relaxed);
                    break;
                }
            }
            *printed = printed.saturating_add(1);
        }
        buffer.clear();
        buffer
    }
}

#[cfg(test)]
mod tests {
    use serde::ser::Error;

    use super::*;

    #[test]
    fn a_list_is_as_any_other_json_however_many_make_it() {
        for count in [0, 1, CHUNK, CHUNK + 1, WORTH_A_THREAD * 5] {
            let members: Vec<usize> = (0..count).collect();
            let value = |member: &usize| vec![*member; member % 3];
            let mut text = Vec::new();
            print(&mut text, &members, value).unwrap();
            let all: Vec<_> = members.iter().map(value).collect();
            let expected = serde_json::to_string_pretty(&all).unwrap() + "\n";
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{count}");
        }
    }

    /// A number that has no JSON if it is the bad one.
    struct Number(usize);

    const BAD: usize = 3 * CHUNK + 5;

    impl Serialize for Number {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 == BAD { Err(S::Error::custom("bad")) } else { self.0.serialize(serializer) }
        }
    }

    #[test]
    fn what_comes_before_a_failure_is_printed_and_nothing_after_it() {
        let members: Vec<usize> = (0..WORTH_A_THREAD * 5).collect();
        let mut text = Vec::new();
        assert!(print(&mut text, &members, |member| Number(*member)).is_err());
        let whole = serde_json::to_string_pretty(&members).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(whole.starts_with(&text) && text.ends_with(&format!("\n  {}", 3 * CHUNK - 1)), "{text}");
    }

    /// A pipe whose other side is closed after so many bytes.
    struct Pipe(usize);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_made_for_long_once_nobody_reads() {
        let members: Vec<usize> = (0..WORTH_A_THREAD * 500).collect();
        let made = AtomicUsize::new(0);
        let failed = print(Pipe(2000), &members, |member| {
            made.fetch_add(1, Ordering::Relaxed);
            *member
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(made.into_inner() < members.len() / 2);
    }
}
