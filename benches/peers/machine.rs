//! What a row was measured on, and against.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::results::Session;

/// Packages whose programs are measured, or are part of how.
const PACKAGES: [&str; 8] =
    ["skopeo", "containers-storage", "tar", "pigz", "zstd", "b3sum", "coreutils", "e2fsprogs"];

pub fn session(dir: &Path, rounds: usize, quick: bool) -> Session {
    Session {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        commit: commit(),
        machine: machine(dir),
        programs: PACKAGES.iter().map(|package| version(package)).collect(),
        busy: busy(Duration::from_secs(2)),
        rounds,
        quick,
    }
}

/// Which part of the processors' time others take, while this program sleeps.
fn busy(time: Duration) -> f64 {
    // User, nice, system, idle, waiting for the disk, and more.
    let ticks = || -> (f64, f64) {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<f64> = fields.map_while(|field| field.parse().ok()).collect();
        (ticks.iter().take(8).sum(), ticks.iter().skip(3).take(2).sum())
    };
    let (all, idle) = ticks();
    std::thread::sleep(time);
    let (all_after, idle_after) = ticks();
    1.0 - (idle_after - idle) / (all_after - all)
}

fn machine(dir: &Path) -> Vec<String> {
    let field = |file: &str, name: &str| -> String {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let kibibytes: f64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let filesystem = output("df", &["--output=fstype", dir.to_str().unwrap()]);
    let filesystem = filesystem.lines().last().unwrap_or("an unknown filesystem");
    vec![
        format!(
            "{}, {processors} processors, {:.0} GiB of memory",
            field("/proc/cpuinfo", "model name"),
            kibibytes / 1024.0 / 1024.0
        ),
        format!("Linux {}, {}", output("uname", &["-r"]), debian()),
        format!("ext4 on loop devices, whose files are on {filesystem}"),
    ]
}

fn debian() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("an unknown system").trim_matches('"').to_owned()
}

fn version(package: &str) -> String {
    let version = output("dpkg-query", &["-W", "-f=${Version}", package]);
    format!("{package} {}", if version.is_empty() { "of unknown version" } else { &version })
}

fn commit() -> String {
    let id = output("git", &["rev-parse", "--short=12", "HEAD"]);
    match (
        id.as_str(),
        output("git", &["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]).as_str(),
    ) {
        ("", _) => "unknown".to_owned(),
        (_, "") => id,
        _ => format!("{id} with changes"),
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
