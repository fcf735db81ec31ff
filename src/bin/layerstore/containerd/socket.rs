//! The socket that is listened to, and its name in the filesystem.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::umask;

use super::manager;
use crate::failure::Failure;

/// How long another process may have the directory of the socket locked. Whoever does has few calls to make there.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// How long the path of a socket can be, in bytes: the kernel has room for 108, and one is the end.
const LONGEST: usize = 107;

/// A socket that is listened to.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    /// Not there for the socket of a service manager, who keeps it.
    pub name: Option<SocketName>,
}

/// The name of a socket that this process made: removed when dropped.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    /// Device and inode: by then the name may be that of another process.
    id: (u64, u64),
}

impl Socket {
    /// The socket that the service manager has for this process; else a new one at `address`. Only this user may connect.
    ///
    /// Returns [`Failure::OpenSocket`] if others may call at that of the service manager, [`Failure::SocketInUse`] if another process listens there, [`Failure::Address`] if there can be no socket,
    /// [`Failure::Setting`] if the address is no path, [`Failure::OtherSocket`] if the service manager's has another name, and
    /// [`Failure::NoSocket`] if there is neither.
    pub fn open(given: Option<UnixListener>, address: Option<&Path>) -> Result<Self, Failure> {
        address.map_or(Ok(()), check_address)?;
        match (given, address) {
            (Some(listener), wanted) => {
                check_name(&listener, wanted)?;
                check_given(&listener)?;
                Ok(Socket { listener, name: None })
            }
            (None, Some(address)) => bind(address),
            (None, None) => Err(Failure::NoSocket),
        }
    }

    /// The socket that the service manager has for this process. To be called before anything is opened.
    pub fn given() -> Result<Option<UnixListener>, Failure> {
        manager::given_socket()
    }

    /// What it is called, for people.
    pub fn shown(&self) -> String {
        let address = self.listener.local_addr().ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        path.map_or_else(|| "a socket without a name".to_owned(), |path| path.display().to_string())
    }
}

/// Refuses a socket of the service manager that is not where it is expected to be: containerd would call in vain.
fn check_name(listener: &UnixListener, wanted: Option<&Path>) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let address = listener.local_addr().map_err(|source| Failure::GivenSocket { source })?;
    if address.as_pathname() == Some(wanted) {
        return Ok(());
    }
    let found = address.as_pathname().unwrap_or(Path::new("")).to_owned();
    Err(Failure::OtherSocket { found, wanted: wanted.to_owned() })
}

/// Refuses a socket of the service manager that others may call: whoever calls has the rights of this process.
fn check_given(listener: &UnixListener) -> Result<(), Failure> {
    let failed = |source| Failure::GivenSocket { source };
    let address = listener.local_addr().map_err(failed)?;
    let Some(path) = address.as_pathname() else {
        return match address.as_abstract_name() {
            // It has no mode.
            Some(_) => Err(Failure::OpenSocket { found: "a name that is no path".to_owned() }),
            None => Ok(()),
        };
    };
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let mode = found.mode() & 0o7777;
    let is_private = [0, rustix::process::geteuid().as_raw()].contains(&found.gid());
    match mode & 0o002 != 0 || mode & 0o020 != 0 && !is_private {
        true => Err(Failure::OpenSocket { found: format!("mode {mode:04o}") }),
        false => Ok(()),
    }
}

/// Refuses an address that no socket can have, in words that say what to write instead.
fn check_address(address: &Path) -> Result<(), Failure> {
    let text = address.to_string_lossy();
    let invalid = |reason: String| Failure::Setting { name: "--address", value: text.to_string(), reason };
    if text.is_empty() {
        return Err(invalid("it is empty".to_owned()));
    }
    // As containerd's own configuration may have it.
    if let Some((scheme, path)) = text.split_once("://") {
        return Err(match scheme {
            "unix" => invalid(format!("it is a path, without unix://: {path}")),
            _ => invalid("it is the path of a socket; there are no others".to_owned()),
        });
    }
    let length = address.as_os_str().len();
    if length > LONGEST {
        return Err(invalid(format!(
            "it has {length} bytes, and a socket can have {LONGEST}: choose a shorter path"
        )));
    }
    Ok(())
}

/// What is in the way of a socket at this path.
fn check_place(path: &Path) -> Result<(), Failure> {
    let refused = |reason: String| Err(Failure::Address { path: path.to_owned(), reason });
    let directory = directory_of(path);
    match fs::metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return refused(format!("there is no directory {}; make it first", directory.display()));
        }
        Ok(metadata) if !metadata.is_dir() => {
            return refused(format!("{} is no directory", directory.display()));
        }
        // What else is wrong is told by who opens it.
        _ => {}
    }
    match fs::symlink_metadata(path).map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_dir() => refused("it is a directory; name a socket in it".to_owned()),
        Ok(kind) if kind.is_symlink() => refused("it is a symbolic link; name the socket itself".to_owned()),
        Ok(kind) if !kind.is_socket() => {
            refused("it is a file, and no socket; remove it, or choose another address".to_owned())
        }
        _ => Ok(()),
    }
}

/// Makes a socket. One that nobody listens to any more is replaced.
fn bind(path: &Path) -> Result<Socket, Failure> {
    let failed = |source| Failure::File { action: "listen at", path: path.to_owned(), source };
    check_place(path)?;
    let _locked = lock_directory(path).map_err(failed)?;
    match UnixStream::connect(path) {
        Ok(_) => return Err(Failure::SocketInUse { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => remove_dead(path).map_err(failed)?,
        Err(error) => return Err(failed(error)),
    }
    let listener = bind_private(path).map_err(failed)?;
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let name = SocketName { path: path.to_owned(), id: (metadata.dev(), metadata.ino()) };
    Ok(Socket { listener, name: Some(name) })
}

/// Removes a socket that refuses connections. A file of another kind does so too, and stays.
fn remove_dead(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.file_type().is_socket() {
        return fs::remove_file(path);
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"))
}

/// Binds, so that nobody else can connect at any moment. The mode of a socket is that of the process's mask, of which there is
/// one for all threads: this process has one by now.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_retain(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// Locks the directory of a socket, so that of two processes that find it dead, not the second replaces the first one's.
/// The lock ends with the descriptor.
fn lock_directory(path: &Path) -> io::Result<impl Sized> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory_of(path), flags, Mode::empty())?;
    let begun = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_TIMEOUT => thread::sleep(LOCK_INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let Ok(_locked) = lock_directory(&self.path) else { return };
        let is_ours = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| is_ours(&metadata)) {
            // What stays is a dead socket, which the next one replaces.
            fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(path: &Path) -> Result<Socket, Failure> {
        Socket::open(None, Some(path))
    }

    #[test]
    fn a_new_socket_is_for_its_owner_and_goes_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let socket = open(&path).unwrap();
        assert!(matches!(open(&path), Err(Failure::SocketInUse { .. })));
        UnixStream::connect(&path).unwrap();
        // Its name is another's by now.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn files_are_not_taken_for_dead_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Failure::Address { .. }), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn an_address_that_can_be_none_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        for (address, told) in [
            (at("missing/s"), "make it first"),
            (at("file/s"), "is no directory"),
            (dir.path().to_owned(), "name a socket in it"),
            (at("file"), "is a file, and no socket"),
            (at("link"), "is a symbolic link"),
            (at(&"s".repeat(108)), "choose a shorter path"),
            ("unix:///run/s".into(), "without unix://: /run/s"),
            ("tcp://0.0.0.0:1".into(), "the path of a socket"),
            ("".into(), "empty"),
        ] {
            let error = open(&address).unwrap_err().to_string();
            assert!(error.contains(told), "{}: {error}", address.display());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_given_socket_must_be_the_one_that_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let again = || Some(listener.try_clone().unwrap());
        let other = dir.path().join("t");
        assert!(matches!(Socket::open(again(), Some(&other)), Err(Failure::OtherSocket { .. })));
        for address in [None, Some(&*path)] {
            drop(Socket::open(again(), address).unwrap());
            assert!(path.exists(), "the service manager's name was removed");
        }
        assert!(matches!(Socket::open(None, None), Err(Failure::NoSocket)));
    }

    #[test]
    fn a_given_socket_is_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let open = |mode| {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            Socket::open(Some(listener.try_clone().unwrap()), None)
        };
        for mode in [0o600, 0o700, 0o755] {
            open(mode).unwrap();
        }
        let error = open(0o666).unwrap_err();
        assert!(matches!(error, Failure::OpenSocket { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("SocketMode=0600"));
        let name = std::os::unix::net::SocketAddr::from_abstract_name(path.to_str().unwrap()).unwrap();
        let named = UnixListener::bind_addr(&name).unwrap();
        assert!(matches!(Socket::open(Some(named), None), Err(Failure::OpenSocket { .. })));
    }
}
