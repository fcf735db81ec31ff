//! Processes that do one thing: what they use of the machine is the attack's alone.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rustix::process::{Resource, Rlimit};

/// More than any attack needs, and far below what the bombs unpack to.
pub const MEMORY_KIB: u64 = 200 << 10;

/// The processor's time that is granted to a load: many times what one of a few members takes, without optimization.
pub const CPU: Duration = Duration::from_secs(1);

/// What never comes to an end is killed after so much of the processor's time. An attack's own bound is far below.
const CPU_SECONDS: u64 = 300;

/// What takes all memory that there is fails with this much, and the machine goes on.
const DATA_BYTES: u64 = 4 << 30;

/// How long something may take on the clock that is granted so much of the processor's time. Only what hangs takes longer: it opens a
/// pipe or waits for a lock, and works on nothing meanwhile. Machines are slow, and do other things besides.
pub fn longest(cpu: Duration) -> Duration {
    (cpu * 60).clamp(Duration::from_secs(60), Duration::from_secs(900))
}

/// Runs one test of this binary in a process of its own, in a directory and with a variable set. What it says goes to a file.
/// Panics if it fails, or takes longer than `longest`.
pub fn run(test: &str, directory: &Path, variable: (&str, &Path), said: &Path, longest: Duration) {
    let out = File::create(said).unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(variable.0, variable.1)
        .current_dir(directory)
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > longest => {
                process.kill().unwrap();
                process.wait().unwrap();
                panic!("{test} hangs: it took {longest:?}\n{}", quoted(&std::fs::read(said).unwrap()));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = quoted(&std::fs::read(said).unwrap());
    assert!(status.success() && text.contains("1 passed"), "{test}: {status}\n{text}");
}

/// Indented, so that nobody takes its lines for those of this process: it speaks of a failed test, too.
pub fn quoted(said: &[u8]) -> String {
    String::from_utf8_lossy(said).lines().map(|line| format!("    {line}\n")).collect()
}

/// Bounds what this process may take before the machine suffers.
pub fn limit() {
    for (resource, most) in [(Resource::Cpu, CPU_SECONDS), (Resource::Data, DATA_BYTES)] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
    }
}

/// The processor's time that all threads of this process took. It means the same on a machine that is busy with other things.
pub fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// The processor's time of the programs that this process started and waited for, and of those that they did.
pub fn cpu_of_programs() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The state, which is the third field, is the first behind the name. These are the 16th and the 17th, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let hundredths: u64 =
        fields.split(' ').skip(13).take(2).map(|number| number.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * hundredths)
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The most memory that this process ever had.
pub fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
