//! A filesystem with few files, served by a thread of this process: a disk whose every write and flush is recorded, a
//! file for marks in that record, and disks as cuts leave them. A loop device makes block devices of the disks.
//!
//! This is what the device mapper's `log-writes` does, on a kernel without it. The files are opened for direct I/O, so
//! that no cache stands between the loop device and the record.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::disk::{Content, Event};

/// The largest write that the kernel may send.
const MAX_WRITE: usize = 1 << 20;
const MAX_PAGES: u16 = 256;
const REQUEST_HEADER: usize = 40;
const ROOT: u64 = 1;
const DISK: u64 = 2;
const MARKS: u64 = 3;
const FIRST_CUT: u64 = 16;

/// Flags of INIT: large requests.
const BIG_WRITES: u32 = 1 << 5;
const WITH_MAX_PAGES: u32 = 1 << 22;
/// Flag of OPEN: no cache.
const DIRECT_IO: u32 = 1;
const DIRECTORY_MODE: u32 = 0o040_700;
const FILE_MODE: u32 = 0o100_600;

mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
}

/// The disks, shared between the thread that serves them and the test.
#[derive(Default)]
struct Disks {
    events: Vec<Event>,
    disk: Content,
    cuts: BTreeMap<u64, Content>,
}

/// The mounted filesystem. The mount ends with the mount namespace.
pub struct Recorder {
    top: PathBuf,
    disks: Arc<Mutex<Disks>>,
}

impl Recorder {
    /// Mounts it at `top`, with a disk of `size` bytes.
    pub fn mount(top: &Path, size: u64) -> Result<Self, Errno> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,max_read={MAX_WRITE}", device.as_raw_fd());
        mount(Some("recorder"), top, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
        let disks = Arc::new(Mutex::new(Disks::default()));
        let mut server = Server { device, disks: Arc::clone(&disks), size };
        #[expect(clippy::disallowed_methods, reason = "a test has nothing to take along")]
        std::thread::Builder::new().name("disk".to_owned()).spawn(move || server.run()).unwrap();
        Ok(Recorder { top: top.to_owned(), disks })
    }

    /// The disk that is recorded.
    pub fn disk(&self) -> PathBuf {
        self.top.join("disk")
    }

    /// A file for marks: each write to it is one.
    pub fn marks(&self) -> File {
        OpenOptions::new().write(true).open(self.top.join("marks")).unwrap()
    }

    /// How many events there were.
    pub fn position(&self) -> usize {
        self.lock().events.len()
    }

    /// Takes the record, and what the disk holds now; what is written from now on begins another record.
    pub fn take(&self) -> (Vec<Event>, Content) {
        let mut disks = self.lock();
        (std::mem::take(&mut disks.events), disks.disk.clone())
    }

    /// Another disk, with this content.
    pub fn add_cut(&self, content: Content) -> PathBuf {
        let mut disks = self.lock();
        let number = disks.cuts.keys().next_back().map_or(FIRST_CUT, |last| last + 1);
        disks.cuts.insert(number, content);
        self.top.join(format!("cut{number}"))
    }

    /// Forgets the content of the disks but the first.
    pub fn remove_cuts(&self) {
        self.lock().cuts.values_mut().for_each(|content| *content = Content::default());
    }

    fn lock(&self) -> MutexGuard<'_, Disks> {
        self.disks.lock().unwrap()
    }
}

struct Server {
    device: File,
    disks: Arc<Mutex<Disks>>,
    size: u64,
}

/// A request: its header's fields, and what follows.
struct Request<'a> {
    opcode: u32,
    unique: u64,
    node: u64,
    body: &'a [u8],
}

impl Server {
    /// Serves until the filesystem is unmounted.
    fn run(&mut self) {
        let mut buffer = vec![0; MAX_WRITE + 64 * 1024];
        loop {
            let length = match self.device.read(&mut buffer) {
                Ok(length) => length,
                // A request was taken back before it was read.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => {
                    continue;
                }
                Err(_) => return,
            };
            let bytes = &buffer[..length];
            let request = Request {
                opcode: u32_at(bytes, 4),
                unique: u64_at(bytes, 8),
                node: u64_at(bytes, 16),
                body: &bytes[REQUEST_HEADER..],
            };
            let reply = match request.opcode {
                opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => continue,
                _ => self.answer(&request),
            };
            let (error, body) = match reply {
                Ok(body) => (0, body),
                Err(error) => (-(error as i32), Vec::new()),
            };
            let mut answer = Vec::with_capacity(16 + body.len());
            answer.extend_from_slice(&(16 + body.len() as u32).to_le_bytes());
            answer.extend_from_slice(&error.to_le_bytes());
            answer.extend_from_slice(&request.unique.to_le_bytes());
            answer.extend_from_slice(&body);
            // It fails if the request was taken back.
            self.device.write_all(&answer).ok();
        }
    }

    fn answer(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let body = request.body;
        match request.opcode {
            opcode::INIT => Ok(init_reply(u32_at(body, 12))),
            opcode::LOOKUP => {
                let name = std::str::from_utf8(body).unwrap_or_default().trim_end_matches('\0');
                let node = self.node(name).ok_or(Errno::ENOENT)?;
                let mut reply = Fields::default();
                // Generation, and how long name and attributes stay valid: not at all.
                reply.u64s(&[node, 0, 0, 0]).u32s(&[0, 0]);
                Ok(self.attributes(reply, node))
            }
            opcode::GETATTR | opcode::SETATTR => {
                let mut reply = Fields::default();
                reply.u64s(&[0]).u32s(&[0, 0]);
                Ok(self.attributes(reply, request.node))
            }
            opcode::OPEN => {
                let mut reply = Fields::default();
                reply.u64s(&[0]).u32s(&[DIRECT_IO, 0]);
                Ok(reply.0)
            }
            opcode::READ => {
                let (offset, length) = (u64_at(body, 8), u32_at(body, 16) as usize);
                let length = length.min(self.size_of(request.node).saturating_sub(offset) as usize);
                Ok(self.with_content(request.node, |content| content.read(offset, length)))
            }
            opcode::WRITE => {
                let (offset, length) = (u64_at(body, 8), u32_at(body, 16));
                self.write(request.node, offset, &body[40..40 + length as usize]);
                let mut reply = Fields::default();
                reply.u32s(&[length, 0]);
                Ok(reply.0)
            }
            opcode::FALLOCATE => self.zero(request.node, u64_at(body, 8), u64_at(body, 16), u32_at(body, 24)),
            opcode::FSYNC => {
                if request.node == DISK {
                    self.disks.lock().unwrap().events.push(Event::Flush);
                }
                Ok(Vec::new())
            }
            opcode::FLUSH | opcode::RELEASE | opcode::DESTROY => Ok(Vec::new()),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn node(&self, name: &str) -> Option<u64> {
        match name {
            "disk" => Some(DISK),
            "marks" => Some(MARKS),
            _ => {
                let number = name.strip_prefix("cut")?.parse().ok()?;
                self.disks.lock().unwrap().cuts.contains_key(&number).then_some(number)
            }
        }
    }

    fn size_of(&self, node: u64) -> u64 {
        if matches!(node, ROOT | MARKS) { 0 } else { self.size }
    }

    fn attributes(&self, mut reply: Fields, node: u64) -> Vec<u8> {
        let size = self.size_of(node);
        let (mode, links) = if node == ROOT { (DIRECTORY_MODE, 2) } else { (FILE_MODE, 1) };
        // Number, size, blocks, three times; their nanoseconds; mode, links, owner, group, device, block size, flags.
        reply.u64s(&[node, size, size / 512, 0, 0, 0]).u32s(&[0, 0, 0, mode, links, 0, 0, 0, 4096, 0]);
        reply.0
    }

    fn with_content<T>(&self, node: u64, act: impl FnOnce(&mut Content) -> T) -> T {
        let mut disks = self.disks.lock().unwrap();
        let disks = &mut *disks;
        act(disks.cuts.get_mut(&node).unwrap_or(&mut disks.disk))
    }

    fn write(&self, node: u64, offset: u64, bytes: &[u8]) {
        let event = match node {
            MARKS => Event::Mark(bytes.to_vec()),
            _ => {
                self.with_content(node, |content| content.write(offset, bytes));
                Event::Write { offset, bytes: bytes.to_vec() }
            }
        };
        if matches!(node, DISK | MARKS) {
            self.disks.lock().unwrap().events.push(event);
        }
    }

    fn zero(&self, node: u64, offset: u64, length: u64, mode: u32) -> Result<Vec<u8>, Errno> {
        let (punch_hole, zero_range) = (2, 0x10);
        if mode & (punch_hole | zero_range) == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let length = length.min(self.size.saturating_sub(offset));
        self.with_content(node, |content| content.zero(offset, length));
        if node == DISK {
            self.disks.lock().unwrap().events.push(Event::Zero { offset, length });
        }
        Ok(Vec::new())
    }
}

fn init_reply(offered: u32) -> Vec<u8> {
    let mut reply = Fields::default();
    // Protocol 7.31, read-ahead, flags.
    reply.u32s(&[7, 31, 0, offered & (BIG_WRITES | WITH_MAX_PAGES)]);
    // Requests in the background, and from when they are throttled; the largest write; granularity of times.
    reply.u16s(&[16, 12]).u32s(&[MAX_WRITE as u32, 1]);
    reply.u16s(&[MAX_PAGES, 0]).u32s(&[0; 8]);
    reply.0
}

/// Numbers as the kernel reads them: the machines that this runs on are little-endian.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u16s(&mut self, values: &[u16]) -> &mut Self {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }

    fn u32s(&mut self, values: &[u32]) -> &mut Self {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }

    fn u64s(&mut self, values: &[u64]) -> &mut Self {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
