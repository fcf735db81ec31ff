//! What one function writes is what another reads.

use std::io::{self, BufWriter, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::sys::thread::start;

/// The size of the pieces that go through.
const PIECE: usize = 128 * 1024;
/// How many pieces wait at the most.
const QUEUE: usize = 4;

/// Runs `produce` on a thread of its own, and gives what it writes to `consume`. Of two errors, that of whoever stopped
/// first is returned.
pub(crate) fn pipe<T, E: From<io::Error> + Send>(
    produce: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
) -> Result<T, E> {
    let (sender, receiver) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let producer = start(scope, "pipe", move || {
            let mut out = BufWriter::with_capacity(PIECE, Sender { sender, refused: false });
            let produced = produce(&mut out).and_then(|()| Ok(out.flush()?));
            let (Sender { sender, refused }, _) = out.into_parts();
            if produced.is_err() {
                // The reader must not take this for the end. If it has gone, nobody does.
                sender.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap_or_default();
            }
            (produced, refused)
        })?;
        let mut reader = Receive { receiver, piece: Vec::new(), at: 0 };
        let consumed = consume(&mut reader);
        drop(reader);
        let died = |_| io::Error::other("the thread that writes the archive died");
        match producer.join().map_err(died)? {
            (Err(error), false) => Err(error),
            _ => consumed,
        }
    })
}

struct Sender {
    sender: SyncSender<io::Result<Vec<u8>>>,
    /// Whether the reader has gone.
    refused: bool,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sender.send(Ok(bytes.to_vec())).is_err() {
            self.refused = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Receive {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Receive {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let left = self.piece.get(self.at..).unwrap_or_default();
        let count = left.len().min(out.len());
        out.iter_mut().zip(left).for_each(|(to, from)| *to = *from);
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}
