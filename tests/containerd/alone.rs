//! The socket, the signals and the service manager; nobody calls.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use layerstore::snapshotter::{Snapshotter, SnapshotterOptions};
use layerstore::{Store, StoreOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::containerd::wait_until;
use crate::support::mounter::mount;
use crate::support::{Dir, TestCommand, command, machine};

/// A plugin, killed at the end of the test unless it ended.
struct Plugin {
    child: Child,
}

impl Plugin {
    fn start(dir: &Dir, socket: &Path) -> Self {
        let mut command = Command::new(command::binary());
        command.arg("--root").arg(dir.root()).arg("--runroot").arg(dir.run_root());
        command.args(["--quiet", "snapshotter", "--address"]).arg(socket).stdin(Stdio::null());
        let plugin = Plugin { child: command.spawn().unwrap() };
        wait_until("the plugin listens", || UnixStream::connect(socket).is_ok());
        plugin
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the plugin ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn snapshotter(dir: &Dir, socket: &Path) -> TestCommand {
    dir.layerstore(["snapshotter", "--address"]).arg(socket)
}

#[test]
fn a_signal_ends_it_and_the_socket_goes() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = Dir::new("plug-signal");
        let socket = dir.join("s");
        let mut plugin = Plugin::start(&dir, &socket);
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        plugin.signal(signal);
        assert_eq!(plugin.wait().code(), Some(0));
        assert!(!socket.exists());
    }
}

/// With every change of a mode refused, the mode that the socket has is the one that it was made with.
#[test]
fn no_moment_lets_others_call() {
    let dir = Dir::new("plug-moment");
    let socket = dir.join("s");
    // All else is there.
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    let changes = "chmod,fchmod,fchmodat,?fchmodat2";
    let refused = format!("inject={changes}:error=EPERM");
    let mut traced = TestCommand::new("strace").args(["-f", "-o", "/dev/null", "-e", &refused, "true"]);
    if !machine::has_program("strace") || !traced.output().status.success() {
        skip!("strace is not here, or may not trace");
    }
    let mut command = Command::new("sh");
    command.args(["-euc", r#"umask 0; exec "$@""#, "sh", "strace", "-D", "-f", "-qq", "-o"]);
    command.arg(dir.join("calls")).args(["-e", &format!("trace=bind,{changes}"), "-e", &refused]);
    command.arg(command::binary()).arg("--root").arg(dir.root()).arg("--runroot").arg(dir.run_root());
    command.args(["--quiet", "snapshotter", "--address"]).arg(&socket).stdin(Stdio::null());
    let mut plugin = Plugin { child: command.spawn().unwrap() };
    wait_until("the plugin listens", || UnixStream::connect(&socket).is_ok());
    let mode = std::fs::symlink_metadata(&socket).unwrap().permissions().mode() & 0o7777;
    plugin.signal(Signal::TERM);
    plugin.wait();
    assert_eq!(mode, 0o600, "{}", std::fs::read_to_string(dir.join("calls")).unwrap());
}

/// What a connection of HTTP/2 begins with, and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Begins a connection and says nothing more.
fn silent_caller(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.read_exact(&mut [0; 9]).unwrap();
    stream
}

#[test]
fn a_caller_who_says_nothing_does_not_keep_it() {
    let dir = Dir::new("plug-silent");
    let socket = dir.join("s");
    let mut plugin = Plugin::start(&dir, &socket);
    let _caller = silent_caller(&socket);
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait().code(), Some(0));
}

/// A frame of HTTP/2, of the stream 1 or of none.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Begins a connection with a call of this method, with an empty message, which is the end of the request.
fn begin_call(socket: &Path, method: &str, settings: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let path = text(&format!("/containerd.services.snapshots.v1.Snapshots/{method}"));
    let (name, value) = (text("content-type"), text("application/grpc"));
    // POST, http, `:path` and `content-type`, as HPACK has them.
    let headers = [&[0x83, 0x86, 0x04], &*path, &[0x00], &*name, &*value].concat();
    let settings = frame(4, 0, 0, settings);
    let call = [PREFACE, &settings, &frame(1, 4, 1, &headers), &frame(0, 1, 1, &[0; 5])].concat();
    stream.write_all(&call).unwrap();
    stream
}

/// Reads until there are headers of an answer. Tells whether they are the end of it.
fn read_headers(stream: &mut UnixStream) -> bool {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).unwrap();
        if head[3] == 1 {
            return head[4] & 1 == 1;
        }
    }
}

/// Asks for a list, and takes no byte of the answer: its window is empty.
fn caller_who_does_not_read(socket: &Path) -> UnixStream {
    let mut stream = begin_call(socket, "List", &[0, 4, 0, 0, 0, 0]);
    assert!(!read_headers(&mut stream), "more than headers is to come");
    stream
}

#[test]
fn an_answer_that_nobody_reads_does_not_keep_it() {
    let dir = Dir::new("plug-unread");
    let socket = dir.join("s");
    let place = StoreOptions::at(dir.root()).run_root(dir.run_root());
    let snapshotter = Snapshotter::new(Store::open(&place).unwrap(), SnapshotterOptions::default()).unwrap();
    snapshotter.prepare("key", None, &[].into()).unwrap();
    let mut plugin = Plugin::start(&dir, &socket);
    let _caller = caller_who_does_not_read(&socket);
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait().code(), Some(0));
}

#[test]
fn a_live_socket_is_refused_and_a_dead_one_is_replaced() {
    let dir = Dir::new("plug-socket");
    let socket = dir.join("s");
    let mut first = Plugin::start(&dir, &socket);
    let told = snapshotter(&dir, &socket).assert_exit(1);
    assert!(told.contains("another process listens at") && told.contains("hint:"), "{told}");
    UnixStream::connect(&socket).unwrap();
    first.signal(Signal::KILL);
    first.wait();
    assert!(socket.exists());
    let second = Plugin::start(&dir, &socket);
    second.signal(Signal::TERM);
}

#[test]
fn a_file_in_the_place_of_the_socket_stays() {
    let dir = Dir::new("plug-file");
    let file = dir.write("s", "precious");
    let told = snapshotter(&dir, &file).assert_exit(1);
    assert!(told.contains("cannot listen at"), "{told}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_wrong_address_makes_no_store() {
    let dir = Dir::new("plug-address");
    dir.create_dir("directory");
    let file = dir.write("file", "");
    let uri = format!("unix://{}", dir.join("s").display());
    let long = dir.join("s".repeat(120));
    for (address, code, told) in [
        (dir.join("missing/s"), 1, "make it first"),
        (dir.join("directory"), 1, "it is a directory"),
        (file.join("s"), 1, "is no directory"),
        (file, 1, "no socket"),
        (uri.into(), 2, "without unix://"),
        (long, 2, "choose a shorter path"),
    ] {
        let said = snapshotter(&dir, &address).assert_exit(code);
        assert!(said.contains(told) && said.contains("address") | said.contains("listen at"), "{said}");
        assert!(!dir.root().exists() && !dir.run_root().exists(), "{}", address.display());
    }
    let socket = dir.join("s");
    let other = UnixListener::bind(&socket).unwrap();
    let said = snapshotter(&dir, &socket).assert_exit(1);
    assert!(said.contains("another process listens at"), "{said}");
    assert!(!dir.root().exists());
    drop(other);
}

/// The units of the documentation, with this program in the place of the installed one.
fn write_units(dir: &Dir) -> Vec<std::path::PathBuf> {
    let text = std::fs::read_to_string(machine::repository().join("docs/containerd.md")).unwrap();
    let mut units = Vec::new();
    for part in text.split("`/etc/systemd/system/").skip(1) {
        let name = part.split('`').next().unwrap();
        let unit = part.split("```ini\n").nth(1).and_then(|unit| unit.split("```").next()).unwrap();
        let program = command::binary().display().to_string();
        units.push(dir.write(name, unit.replace("/usr/bin/layerstore", &program)));
    }
    units
}

#[test]
fn the_units_of_the_documentation_are_right() {
    if !machine::has_program("systemd-analyze") {
        skip!("there is no systemd-analyze: tests/images/install.sh installs it");
    }
    let dir = Dir::new("plug-units");
    let units = write_units(&dir);
    assert_eq!(units.len(), 2);
    let service = units.iter().find(|unit| unit.extension().is_some_and(|kind| kind == "service")).unwrap();
    let told = |units: &[std::path::PathBuf]| {
        let output = TestCommand::new("timeout")
            .args(["60", "systemd-analyze", "verify", "--man=no"])
            .args(units)
            .output();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_right, text) = told(&units);
    if text.contains("Failed to initialize manager") || text.contains("Failed to create") {
        skip!("systemd-analyze does not run here: {text}");
    }
    assert!(is_right && text.is_empty(), "{text}");
    // What is wrong is found.
    let wrong = std::fs::read_to_string(service).unwrap().replace("NoNewPrivileges", "NoSuchKey");
    std::fs::write(service, wrong).unwrap();
    assert!(told(&units).1.contains("NoSuchKey"));
    // The socket of the unit is where the command line of the documentation says.
    let text = std::fs::read_to_string(dir.join("layerstore-snapshotter.socket")).unwrap();
    assert!(text.contains("ListenStream=/run/layerstore-snapshotter.sock"));
}

#[test]
fn a_log_level_is_that_of_the_store_alone() {
    let dir = Dir::new("plug-log");
    let socket = dir.join("s");
    let log = |filter: &str| {
        let mut command = Command::new(command::binary());
        command.arg("--root").arg(dir.root()).arg("--runroot").arg(dir.run_root()).args(["--log", filter]);
        command.args(["snapshotter", "--address"]).arg(&socket).stdin(Stdio::null());
        let mut plugin = Plugin { child: command.stderr(Stdio::piped()).spawn().unwrap() };
        wait_until("the plugin listens", || UnixStream::connect(&socket).is_ok());
        drop(caller_who_does_not_read(&socket));
        plugin.signal(Signal::TERM);
        plugin.wait();
        let mut text = String::new();
        plugin.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let text = log("trace");
    assert!(text.contains(" layerstore::") && !text.contains(" h2::"), "{text}");
    assert!(log("trace,h2=trace").contains(" h2::"));
}

/// The answer to a cleanup is that it was done, as it is with containerd's own; who looks for the space finds the path.
#[test]
fn what_a_cleanup_cannot_remove_is_told() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("plug-cleanup");
    let socket = dir.join("s");
    let place = StoreOptions::at(dir.root()).run_root(dir.run_root());
    let snapshotter = Snapshotter::new(Store::open(&place).unwrap(), SnapshotterOptions::default()).unwrap();
    let mounts = |key| snapshotter.prepare(key, None, &[].into()).unwrap();
    let inside = Path::new(&mounts("key")[0].source).join("mnt");
    // Moves with the directory; the end of the test unmounts it.
    std::fs::create_dir(&inside).unwrap();
    mount(&mounts("other")[0], &inside).unwrap();
    snapshotter.remove("key").unwrap();
    let mut command = Command::new(command::binary());
    command.arg("--root").arg(dir.root()).arg("--runroot").arg(dir.run_root()).args(["--log", "warn"]);
    command.args(["snapshotter", "--address"]).arg(&socket).stdin(Stdio::null());
    let mut plugin = Plugin { child: command.stderr(Stdio::piped()).spawn().unwrap() };
    wait_until("the plugin listens", || UnixStream::connect(&socket).is_ok());
    let mut caller = begin_call(&socket, "Cleanup", &[]);
    read_headers(&mut caller);
    plugin.signal(Signal::TERM);
    plugin.wait();
    let mut text = String::new();
    plugin.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let trash = dir.root().join("trash").display().to_string();
    let told = format!("mounted at \"{trash}/");
    assert!(text.contains("WARN") && text.contains(&told) && text.contains("unmount it first"), "{text}");
}

#[test]
fn without_an_address_or_a_service_manager_it_is_used_wrongly() {
    let dir = Dir::new("plug-nowhere");
    let told = dir.layerstore(["snapshotter"]).assert_exit(2);
    assert!(told.contains("--address"), "{told}");
    // Those are for another process.
    let told = dir.layerstore(["snapshotter"]).env("LISTEN_FDS", "1").env("LISTEN_PID", "1").assert_exit(2);
    assert!(told.contains("--address"), "{told}");
}

/// Starts the plugin as systemd does: the socket is descriptor 3, and the variables say so.
fn activated(dir: &Dir, listener: &UnixListener, count: &str, notify: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=$COUNT exec \"$@\" 3<&0 </dev/null", "sh"]);
    shell.env("COUNT", count).env("NOTIFY_SOCKET", notify);
    shell.arg(command::binary()).arg("--root").arg(dir.root()).arg("--runroot").arg(dir.run_root());
    shell.args(["--quiet", "snapshotter"]).stdin(OwnedFd::from(listener.try_clone().unwrap()));
    shell
}

#[test]
fn a_service_manager_gives_the_socket_and_hears_how_it_goes() {
    let dir = Dir::new("plug-activated");
    let (socket, notify) = (dir.join("s"), dir.join("n"));
    let listener = UnixListener::bind(&socket).unwrap();
    let heard = UnixDatagram::bind(&notify).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let hear = || {
        let mut buffer = [0; 64];
        let length = heard.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    // A caller who was there first is answered as well.
    let mut early = UnixStream::connect(&socket).unwrap();
    early.write_all(PREFACE).unwrap();
    let mut command = activated(&dir, &listener, "1", &notify);
    let mut plugin = Plugin { child: command.arg("--address").arg(&socket).spawn().unwrap() };
    assert_eq!(hear(), "READY=1");
    early.read_exact(&mut [0; 9]).unwrap();
    drop(early);
    plugin.signal(Signal::TERM);
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(plugin.wait().code(), Some(0));
    // It is the service manager's, who listens on.
    UnixStream::connect(&socket).unwrap();
}

#[test]
fn a_service_manager_with_other_sockets_is_told() {
    let dir = Dir::new("plug-other");
    let (socket, notify) = (dir.join("s"), dir.join("n"));
    let listener = UnixListener::bind(&socket).unwrap();
    let fail = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = fail(activated(&dir, &listener, "1", &notify).arg("--address").arg(dir.join("t")));
    assert!(told.contains("listens at") && told.contains("ListenStream="), "{told}");
    let told = fail(&mut activated(&dir, &listener, "2", &notify));
    assert!(told.contains("there are 2"), "{told}");
}
