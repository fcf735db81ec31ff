//! One run of programs: how long it took, how busy the processors were, how much memory it had, which calls it made.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The calls that bring something to the disk.
const SYNCS: [&str; 5] = ["fsync", "fdatasync", "syncfs", "sync", "sync_file_range"];

/// The words of a command.
pub type Words = Vec<OsString>;

/// Makes [`Words`] of strings and paths.
macro_rules! words {
    ($($word:expr),* $(,)?) => {
        vec![$(std::ffi::OsString::from($word)),*]
    };
}
pub(crate) use words;

/// Pipelines, one after the other. The output of each is read by nobody.
#[derive(Clone, Default, Debug)]
pub struct Job {
    steps: Vec<Vec<Words>>,
    environment: Vec<(&'static str, OsString)>,
}

impl Job {
    pub fn of(command: Words) -> Self {
        Self::default().then(command)
    }

    pub fn then(self, command: Words) -> Self {
        self.then_pipe([command])
    }

    pub fn then_pipe(mut self, pipeline: impl IntoIterator<Item = Words>) -> Self {
        self.steps.push(pipeline.into_iter().collect());
        self
    }

    pub fn with_variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs it all, and stops the benchmark if anything fails. What it says is kept in the directory.
    pub fn run(&self, work: &Path) -> Run {
        let complaints = work.join("stderr");
        let stderr = std::fs::File::create(&complaints).unwrap();
        let (user, system) = processor_of_children();
        let begun = Instant::now();
        for pipeline in &self.steps {
            self.run_pipeline(pipeline, &stderr, &complaints);
        }
        let wall = begun.elapsed().as_secs_f64();
        let (user_after, system_after) = processor_of_children();
        Run { wall, synced: None, user: user_after - user, system: system_after - system }
    }

    fn run_pipeline(&self, pipeline: &[Words], stderr: &std::fs::File, complaints: &Path) {
        let mut children: Vec<Child> = Vec::new();
        let mut input = Stdio::null();
        for (at, words) in pipeline.iter().enumerate() {
            let is_last = at + 1 == pipeline.len();
            let mut child = Command::new(&words[0])
                .args(&words[1..])
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .env_remove("STORAGE_OPTS")
                .stdin(input)
                .stdout(if is_last { Stdio::null() } else { Stdio::piped() })
                .stderr(stderr.try_clone().unwrap())
                .spawn()
                .unwrap_or_else(|error| panic!("{words:?}: {error}"));
            input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
            children.push(child);
        }
        for (child, words) in children.iter_mut().zip(pipeline) {
            let status = child.wait().unwrap();
            let said = || std::fs::read_to_string(complaints).unwrap_or_default();
            assert!(status.success(), "{words:?}: {status}\n{}", said());
        }
    }

    /// The same, with each command as the argument of others. The files that these write are found in the directory.
    fn wrapped(&self, work: &Path, wrap: impl Fn(&Path) -> Words) -> (Self, Vec<Vec<PathBuf>>) {
        let mut files = Vec::new();
        let mut number = 0;
        let mut steps = Vec::new();
        for pipeline in &self.steps {
            let names: Vec<PathBuf> = (number..number + pipeline.len())
                .map(|number| work.join(format!("observed-{number}")))
                .collect();
            number += pipeline.len();
            let wrapped =
                pipeline.iter().zip(&names).map(|(words, file)| [wrap(file), words.clone()].concat());
            steps.push(wrapped.collect());
            files.push(names);
        }
        (Self { steps, environment: self.environment.clone() }, files)
    }

    /// Runs it and returns the most memory that it had, in bytes: that of all programs of a pipeline together. A small
    /// program starts each, since a process begins with the memory of whoever made it.
    pub fn peak_memory(&self, work: &Path) -> u64 {
        let (job, files) = self.wrapped(work, |file| words!["/usr/bin/time", "-f", "%M", "-o", file]);
        job.run(work);
        let kibibytes = |file: &PathBuf| -> u64 {
            let text = std::fs::read_to_string(file).unwrap();
            text.trim().parse().unwrap_or_else(|error| panic!("time said {text:?}: {error}"))
        };
        files.iter().map(|files| files.iter().map(kibibytes).sum::<u64>() << 10).max().unwrap_or_default()
    }

    /// Runs it and counts its system calls; only those that sync, if the others need not be known, which is faster.
    pub fn calls(&self, work: &Path, all: bool) -> Calls {
        let (job, files) = self.wrapped(work, |file| {
            let mut words = words!["strace", "-f", "-qq", "-c", "-o", file];
            if !all {
                words.extend(words!["--seccomp-bpf", "-e", format!("trace={}", SYNCS.join(","))]);
            }
            words
        });
        job.run(work);
        let mut calls = Calls::default();
        for file in files.iter().flatten() {
            calls.add(&std::fs::read_to_string(file).unwrap());
        }
        calls
    }
}

/// What one run took, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Run {
    pub wall: f64,
    /// With a sync of the filesystem after it, if that was measured.
    pub synced: Option<f64>,
    pub user: f64,
    pub system: f64,
}

impl Run {
    /// Of each of so many equal parts.
    pub fn part(self, parts: f64) -> Self {
        Self {
            wall: self.wall / parts,
            synced: self.synced.map(|synced| synced / parts),
            user: self.user / parts,
            system: self.system / parts,
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Calls {
    pub syncs: u64,
    pub all: u64,
}

impl Calls {
    /// Adds a table of `strace -c`: the calls are its fourth column, their name is the last.
    fn add(&mut self, table: &str) {
        for line in table.lines() {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (Some(name), Some(Ok(count))) =
                (columns.last(), columns.get(3).map(|count| count.parse::<u64>()))
            else {
                continue;
            };
            if *name == "total" {
                continue;
            }
            self.all += count;
            if SYNCS.contains(name) {
                self.syncs += count;
            }
        }
    }
}

/// User and system time of all processes that this one has started and waited for, and of theirs. The kernel counts it in
/// hundredths of a second.
fn processor_of_children() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is the program's name in parentheses, with whatever blanks it has.
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks = |field: usize| -> f64 { after_name.split(' ').nth(field - 3).unwrap().parse().unwrap() };
    (ticks(16) / 100.0, ticks(17) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_from_the_table() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600         100         6           fdatasync
 30.00    0.000300         150         2         1 openat
 10.00    0.000100         100         1           syncfs
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000         111         9         1 total
";
        let mut calls = Calls::default();
        calls.add(table);
        calls.add(table);
        assert_eq!(calls, Calls { syncs: 14, all: 18 });
    }

    #[test]
    fn pipelines_are_run_in_turn_and_a_failure_is_told() {
        let work = tempfile::tempdir().unwrap();
        let file = work.path().join("file");
        let script = format!("cat > {}", file.display());
        let job = Job::default()
            .then_pipe([words!["sh", "-c", "printf \"$GREETING\""], words!["sh", "-c", &script]])
            .then_pipe([words!["grep", "-q", "hello", &file]])
            .with_variable("GREETING", "hello");
        let run = job.run(work.path());
        assert!(run.wall > 0.0 && run.synced.is_none(), "{run:?}");
        let failing = Job::of(words!["sh", "-c", "echo why >&2; exit 3"]);
        let panic = std::panic::catch_unwind(|| failing.run(work.path())).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("why"));
    }

    #[test]
    fn a_part_is_of_everything() {
        let run = Run { wall: 4.0, synced: Some(8.0), user: 2.0, system: 1.0 };
        assert_eq!(run.part(2.0), Run { wall: 2.0, synced: Some(4.0), user: 1.0, system: 0.5 });
    }
}
