//! What a service manager gives to a process that it starts, and what it wants to hear: the protocol of systemd, which
//! others speak too. See sd_listen_fds(3) and sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::effective::variable;
use crate::failure::Failure;

/// The number of the first descriptor that is given.
const FIRST: i32 = 3;

/// The socket that the service manager listens to for this process, if there is one.
///
/// To be called before anything else opens files, since it closes the descriptor with the given number. Returns
/// [`Failure::GivenSocket`] if there are several, or if it is no unix socket.
pub fn given_socket() -> Result<Option<UnixListener>, Failure> {
    let number = |name| variable(name).and_then(|text| text.to_str()?.parse::<u32>().ok());
    // The variables are inherited; they are meant for the process that they name.
    if number("LISTEN_PID") != Some(process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS").unwrap_or(0) {
        0 => Ok(None),
        1 => take().map(Some).map_err(|source| Failure::GivenSocket { source }),
        count => {
            let text = format!("there are {count}; the unit must have one ListenStream=");
            Err(Failure::GivenSocket { source: io::Error::other(text) })
        }
    }
}

/// Takes the descriptor over. The kernel makes a second one of it, which is ours by its type and is not inherited; a
/// number alone could not be owned.
fn take() -> io::Result<UnixListener> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    let socket: OwnedFd = pidfd_getfd(&this, FIRST, PidfdGetfdFlags::empty())?;
    nix::unistd::close(FIRST)?;
    let socket = UnixListener::from(socket);
    // Fails for a socket of another kind.
    socket.local_addr()?;
    Ok(socket)
}

/// Tells the service manager something, such as `READY=1`, if there is one.
pub fn tell(state: &str) -> io::Result<()> {
    let Some(address) = variable("NOTIFY_SOCKET") else { return Ok(()) };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &self::address(&address)?).map(drop)
}

/// `/path` or, for a name in the kernel, `@name`.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_names() {
        assert_eq!(address("/run/n".as_ref()).unwrap().as_pathname(), Some("/run/n".as_ref()));
        assert_eq!(address("@n".as_ref()).unwrap().as_abstract_name(), Some(&b"n"[..]));
    }
}
