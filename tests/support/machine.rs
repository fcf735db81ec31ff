//! What this machine lets a test do, found out by trying.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::{TestCommand, command};

/// Writes why a test is skipped to the real standard error: `eprintln!` is captured when a test passes.
/// `./test` collects these lines for its summary.
pub fn note_skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("skipped {}: {why}\n", thread.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The top of the source. A run as another user, who may not read the place where it was built, has a copy
/// that `LAYERSTORE_REPOSITORY` names.
pub fn repository() -> PathBuf {
    std::env::var_os("LAYERSTORE_REPOSITORY")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// Whether this process is root, perhaps only inside a user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process runs in a user namespace other than the machine's first one: its map is not
/// the identity over all ids.
pub fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// Root of the machine: may create device nodes and give files to any id.
pub fn is_real_root() -> bool {
    is_root() && !in_user_namespace()
}

/// Whether `id` means something here; a namespace with one mapped id knows only that one.
pub fn is_mapped(id: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (numbers[0]..numbers[0] + numbers[2]).contains(&u64::from(id))
    })
}

/// Whether the group of this process has the number of its user, outside of every namespace: nobody else is in it then.
pub fn has_group_of_own_number() -> bool {
    let outside = |kind: &str, id: u32| {
        let map = std::fs::read_to_string(format!("/proc/self/{kind}_map")).unwrap();
        map.lines().find_map(|line| {
            let numbers: Vec<u32> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let offset = id.checked_sub(numbers[0]).filter(|offset| *offset < numbers[2])?;
            Some(numbers[1] + offset)
        })
    };
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    outside("uid", user) == outside("gid", group)
}

/// Whether the system calls of the program can be written down.
pub fn can_trace() -> bool {
    let mut strace =
        TestCommand::new("strace").args(["-f", "-o", "/dev/null"]).arg(command::binary()).arg("version");
    has_program("strace") && strace.output().status.success()
}

/// Whether a program can be started.
pub fn has_program(name: &str) -> bool {
    Command::new(name)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// The directory with the real image, `gzip` and `zstd` below, if it was built:
/// `LAYERSTORE_IMAGES`, else `target/images/debian`.
pub fn debian_image() -> Option<PathBuf> {
    let path = match std::env::var_os("LAYERSTORE_IMAGES") {
        Some(path) => PathBuf::from(path),
        None => repository().join("target/images/debian"),
    };
    path.join("stamp").is_file().then_some(path)
}

/// Why no ordinary user with a user namespace can be tried, if none can.
pub fn no_other_user() -> Option<&'static str> {
    if !is_real_root() || !has_program("setpriv") {
        return Some("becoming another user needs real root and setpriv");
    }
    let probe = TestCommand::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--mount", "true"])
        .output();
    (!probe.status.success()).then_some("this machine lets no ordinary user make namespaces")
}

/// An ordinary user with ranges of ids, whom this process can become: user, group, and the first user and group of the ranges. Else why
/// there is none.
pub fn other_user_with_ranges() -> Result<(u32, u32, [u32; 2]), &'static str> {
    match no_other_user() {
        Some(obstacle) => Err(obstacle),
        None => user_with_ranges()
            .ok_or("no user has ranges in /etc/subuid and /etc/subgid, and newuidmap to use them"),
    }
}

/// By the files and by the programs that write maps.
fn user_with_ranges() -> Option<(u32, u32, [u32; 2])> {
    let has_programs = has_program("newuidmap") && has_program("newgidmap");
    let users = std::fs::read_to_string("/etc/passwd").ok().filter(|_| has_programs)?;
    let (uids, gids) =
        (std::fs::read_to_string("/etc/subuid").ok()?, std::fs::read_to_string("/etc/subgid").ok()?);
    let first = |lines: &str, name: &str| {
        let line = lines.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(1)?.parse::<u32>().ok()
    };
    users.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let ranges = [first(&uids, fields[0])?, first(&gids, fields[0])?];
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?, ranges))
    })
}

/// Takes a mount away that no store knows of. What another test starts has our open files until it is another program.
pub fn unmount(at: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match rustix::mount::unmount(at, UnmountFlags::empty()) {
            Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            unmounted => return unmounted.unwrap(),
        }
    }
}
