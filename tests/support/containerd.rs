//! Debian's containerd with the program as its snapshotter, all of it in a directory of the test's own.
//!
//! Whatever becomes of a test, no process and no mount is left: containers and their shims are not children of
//! anybody here, so they are found by the names of this directory and of a containerd namespace of its own.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::oci::{Compression, Image, Layer};
use super::tar::Member;
use super::{Dir, TestCommand, command, machine};

/// How long anything may take, in seconds, on a machine that is busy with other things.
const PATIENCE: u64 = 120;
/// Where shims keep what is known of running containers, whatever containerd's configuration says.
const RUNC_ROOT: &str = "/run/containerd/runc";

/// A running containerd, and the plugin unless it is killed.
#[derive(Debug)]
pub struct Containerd {
    dir: Dir,
    namespace: String,
    daemon: Option<Child>,
    plugin: Option<Child>,
}

/// Waits until something holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(PATIENCE), "in vain for {PATIENCE} s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that is killed when the thread that starts it ends, by whatever.
fn bound(program: impl AsRef<OsStr>, log: &Path) -> Command {
    let log = File::options().append(true).create(true).open(log).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).env("PATH", path());
    command
}

/// The path of programs, with those of administrators: an ordinary one leaves runc out.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Why containerd cannot run here.
pub fn obstacle() -> Option<String> {
    if !machine::is_real_root() {
        return Some("containerd needs the machine's root".to_owned());
    }
    for program in ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "setpriv", "timeout"] {
        let found = std::env::split_paths(&path()).any(|place| place.join(program).is_file());
        if !found {
            return Some(format!("there is no {program}: tests/images/install.sh installs it"));
        }
    }
    busybox().err()
}

/// Why no container can run here, if containerd can.
pub fn obstacle_to_containers() -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroups = |line: &&str| line.contains(" - cgroup2 ") || line.contains(" - cgroup ");
    let name = format!("layerstore-test-{}", std::process::id());
    for line in table.lines().filter(cgroups) {
        let probe = Path::new(line.split(' ').nth(4).unwrap()).join(&name);
        if fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok() {
            return None;
        }
    }
    Some("no control group can be made".to_owned())
}

/// A shell that needs no libraries.
fn busybox() -> Result<Vec<u8>, String> {
    for place in ["/bin/busybox", "/usr/bin/busybox"] {
        let Ok(bytes) = fs::read(place) else { continue };
        // Debian's other package of this name needs the C library.
        if !has_interpreter(&bytes) {
            return Ok(bytes);
        }
    }
    Err("there is no busybox without libraries: Debian's package is busybox-static".to_owned())
}

/// Whether a program of 64 bits is one that the kernel starts by another one, which finds its libraries.
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: usize = 3;
    let number = |at: usize, length| {
        elf[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|header| number(table + header * size, 4) == PT_INTERP)
}

/// The docker-like architecture of this machine, in a config document.
fn set_architecture(config: &mut serde_json::Value) {
    let name = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    config["architecture"] = name.into();
}

/// Writes an image as an OCI archive. The lowest layer has a shell, each of the `layers` above it a directory of files
/// in `/data` and one file `/etc/top` with its number.
pub fn write_image(dir: &Dir, tag: &str, layers: usize) -> PathBuf {
    let mut base: Vec<_> =
        ["bin", "data", "dev", "etc", "proc", "run", "sys", "tmp"].map(Member::directory).into();
    base.push(Member::file("bin/busybox", busybox().unwrap()).mode(0o755));
    base.push(Member::symlink("bin/sh", "busybox"));
    base.push(Member::file("etc/removed", "of the lowest layer"));
    let above = (1..=layers).map(|layer| {
        let mut members = vec![Member::directory("etc"), Member::file("etc/top", layer.to_string())];
        members.extend([Member::directory("data"), Member::directory(format!("data/{layer}"))]);
        let file = |file| Member::file(format!("data/{layer}/{file}"), format!("{layer}.{file}\n"));
        members.extend((0..20).map(file));
        if layer == layers {
            members.push(Member::whiteout("etc/removed"));
        }
        Layer::new(members).compression(Compression::Gzip)
    });
    let layout = dir.join(format!("layout-{tag}"));
    Image::new([Layer::new(base)].into_iter().chain(above)).config(set_architecture).write(&layout, tag);
    let archive = dir.join(format!("{tag}.tar"));
    let tar = TestCommand::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive);
    tar.args(["oci-layout", "index.json", "blobs"]).assert_success();
    archive
}

impl Containerd {
    /// Starts both.
    pub fn start(name: &str) -> Self {
        let dir = Dir::new(name);
        let namespace = format!("layerstore-{name}-{}", std::process::id());
        let mut started = Containerd { dir, namespace, daemon: None, plugin: None };
        started.start_plugin();
        started.dir.write("config.toml", started.configuration());
        let mut daemon = bound("containerd", &started.dir.join("containerd.log"));
        daemon.arg("--config").arg(started.dir.join("config.toml"));
        started.daemon = Some(daemon.spawn().unwrap());
        wait_until("containerd answers", || started.ctr(["version"]).output().status.success());
        started.wait_for_plugin();
        started
    }

    fn configuration(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let unwanted = ["grpc.v1.cri", "internal.v1.opt", "tracing.processor.v1.otlp"]
            .map(|name| format!("\"io.containerd.{name}\""));
        format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{}]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [proxy_plugins.layerstore]\ntype = \"snapshot\"\naddress = {:?}\n",
            path("c"),
            path("cs"),
            unwanted.join(", "),
            path("c.sock"),
            path("t.sock"),
            path("l.sock"),
        )
    }

    /// The directory, with the plugin's store.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The command line of containerd.
    pub fn ctr<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> TestCommand {
        TestCommand::new("timeout")
            .args(["-k", "5", &PATIENCE.to_string(), "ctr", "--address"])
            .arg(self.dir.join("c.sock"))
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .env("PATH", path())
    }

    /// Its commands for snapshots.
    pub fn snapshots<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> TestCommand {
        self.ctr(["snapshots", "--snapshotter", "layerstore"]).args(arguments)
    }

    /// Imports an archive, with the snapshots of its layers.
    pub fn import(&self, archive: &Path) -> TestCommand {
        self.ctr(["images", "import", "--snapshotter", "layerstore", "--base-name", "test"]).arg(archive)
    }

    /// Runs an image in a container.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> TestCommand {
        self.ctr(["run", "--snapshotter", "layerstore", "--cgroup", ""]).args(arguments)
    }

    /// The keys, parents and kinds of all snapshots, by key.
    pub fn listed(&self) -> Vec<[String; 3]> {
        let text = self.snapshots(["ls"]).stdout();
        let mut rows: Vec<_> = text.lines().skip(1).map(row).collect();
        rows.sort();
        rows
    }

    /// The plugin's log, for failures.
    pub fn plugin_log(&self) -> String {
        fs::read_to_string(self.dir.join("plugin.log")).unwrap_or_default()
    }

    /// Starts the plugin, and returns when it listens.
    pub fn start_plugin(&mut self) {
        let socket = self.dir.join("l.sock");
        let mut plugin = bound(command::binary(), &self.dir.join("plugin.log"));
        plugin.arg("--root").arg(self.dir.root()).arg("--runroot").arg(self.dir.run_root());
        plugin.args(["snapshotter", "--address"]).arg(&socket);
        self.plugin = Some(plugin.spawn().unwrap());
        wait_until("the plugin listens", || UnixStream::connect(&socket).is_ok());
    }

    /// Waits until containerd has called it: a list of no snapshots would need no call. It connects again every few seconds.
    pub fn wait_for_plugin(&self) {
        wait_until("containerd finds the plugin", || {
            let output = self.snapshots(["prepare", "probe"]).output();
            // It may have been prepared by a call that was not answered.
            output.status.success() || String::from_utf8_lossy(&output.stderr).contains("already exists")
        });
        self.snapshots(["rm", "probe"]).assert_success();
    }

    /// Kills the plugin, wherever it is.
    pub fn kill_plugin(&mut self) {
        let mut plugin = self.plugin.take().unwrap();
        plugin.kill().unwrap();
        plugin.wait().unwrap();
    }

    /// The processes that name this directory, such as the shims, and all below them.
    fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        let mut parents = Vec::new();
        let own = self.dir.path().as_os_str().as_encoded_bytes();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
            if field("State:").starts_with('Z') {
                continue;
            }
            parents.push((id, field("PPid:").parse::<i32>().unwrap_or(0)));
            if words.windows(own.len()).any(|window| window == own) {
                found.insert(id);
            }
        }
        found.remove(&(std::process::id() as i32));
        loop {
            let below = |(id, parent): &&(i32, i32)| found.contains(parent) && !found.contains(id);
            let Some((id, _)) = parents.iter().find(below) else { return found };
            found.insert(*id);
        }
    }

    /// Ends containers that a failed test left, with their control groups.
    fn delete_containers(&self) {
        let root = Path::new(RUNC_ROOT).join(&self.namespace);
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let mut delete = Command::new("timeout");
            delete.args(["-k", "5", "30", "runc", "--root"]).arg(&root).args(["delete", "--force"]);
            delete.arg(entry.file_name()).env("PATH", path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Err(error) = delete.stderr(Stdio::null()).status() {
                eprintln!("cannot run runc: {error}");
            }
        }
        fs::remove_dir_all(&root).ok();
        // The sockets of their shims, which these remove when they end by themselves.
        let tasks = self.dir.join("cs/io.containerd.runtime.v2.task").join(&self.namespace);
        for entry in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if let Some(socket) = address.strip_prefix("unix://") {
                fs::remove_file(socket).ok();
            }
        }
    }
}

/// A key, its parent and its kind; the parent may be empty.
fn row(line: &str) -> [String; 3] {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [key, kind] => [key, "", kind].map(str::to_owned),
        [key, parent, kind] => [key, parent, kind].map(str::to_owned),
        _ => panic!("not a snapshot: {line:?}"),
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            for log in ["plugin.log", "containerd.log"] {
                let text = fs::read_to_string(self.dir.join(log)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("---- the end of {log}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        self.delete_containers();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            let processes = self.processes();
            for id in &processes {
                if let Some(id) = Pid::from_raw(*id) {
                    kill_process(id, Signal::KILL).ok();
                }
            }
            for mut child in [self.daemon.take(), self.plugin.take()].into_iter().flatten() {
                child.wait().ok();
            }
            if processes.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
