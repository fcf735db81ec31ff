//! Scripts of commands and what came of each, as text: so that a test shows what a person would see.
//!
//! A script has one command a line, in the form of a shell: words, with `"` or `'` around those that need it, and
//! `< TEXT` at the end for standard input. A line that begins with `%` is for a shell, which finds the path that was
//! mounted last in `$MOUNT`. A transcript has `$ COMMAND`, standard output, standard error with `! ` before each line, and
//! `= STATUS` unless that is 0.
//!
//! What differs from run to run is masked: random ids become `ID1`, `ID2` in the order in which they come up, times `TIME`,
//! the store's directories `ROOT` and `RUN`, mount points `MOUNT`, and the directory that all of them are in `DIR`, which a
//! script may write as `DIR/`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Dir, TestCommand};

/// A program with a store of its own.
#[derive(Debug)]
pub struct Session {
    program: PathBuf,
    words: Vec<OsString>,
    root: PathBuf,
    run_root: PathBuf,
    directory: PathBuf,
    mount: String,
    ids: Vec<String>,
}

impl Session {
    /// The program under test as containers-storage, with the store of `dir`.
    pub fn layerstore(dir: &Dir) -> Self {
        let link = dir.join("containers-storage");
        if !link.exists() {
            std::os::unix::fs::symlink(super::command::binary(), &link).unwrap();
        }
        let mut session = Self::new(dir, link);
        // An ordinary user stays one: not every machine lets it have a namespace.
        session.words.push("--unshare=false".into());
        session
    }

    /// The containers-storage of this machine, with a store in `dir`.
    pub fn reference(dir: &Dir) -> Self {
        Self::new(dir, "containers-storage".into())
    }

    fn new(dir: &Dir, program: PathBuf) -> Self {
        let flags = ["--graph".into(), dir.root().into(), "--run".into(), dir.run_root().into()];
        let driver = ["--storage-driver", "overlay"].map(OsString::from);
        Session {
            program,
            words: [&flags[..], &driver[..]].concat(),
            root: dir.root(),
            run_root: dir.run_root(),
            directory: dir.path().to_owned(),
            mount: String::new(),
            ids: Vec::new(),
        }
    }

    /// The program with its store, and these words.
    pub fn command(&self, words: impl IntoIterator<Item = String>) -> TestCommand {
        // What the machine has configured is not what is tested.
        TestCommand::new(&self.program)
            .args(&self.words)
            .args(words)
            .env("CONTAINERS_STORAGE_CONF", self.configuration())
            .current_dir(&self.directory)
    }

    fn configuration(&self) -> PathBuf {
        let path = self.directory.join("storage.conf");
        if !path.exists() {
            std::fs::write(&path, "[storage]\ndriver = \"overlay\"\n").unwrap();
        }
        path
    }

    /// Runs a script, and tells what came of it.
    pub fn run(&mut self, script: &str) -> String {
        let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| self.run_line(line)).collect()
    }

    /// Runs the commands of a transcript, and expects what it says.
    #[track_caller]
    pub fn expect(&mut self, transcript: &str) {
        let lines: Vec<&str> = transcript.lines().filter(|line| !line.is_empty()).collect();
        let commands = lines
            .iter()
            .filter_map(|line| line.strip_prefix("$ ").or_else(|| line.starts_with('%').then_some(*line)));
        let script: Vec<&str> = commands.collect();
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let told = self.run(&script.join("\n"));
        assert_eq!(told, expected, "\n---- expected\n{expected}\n---- told\n{told}");
    }

    fn run_line(&mut self, line: &str) -> String {
        if let Some(text) = line.strip_prefix('%') {
            let shell = TestCommand::new("sh").args(["-euc", text]).env("MOUNT", &self.mount);
            shell.current_dir(&self.directory).assert_success();
            return format!("{line}\n");
        }
        let (words, input) = match line.split_once(" < ") {
            Some((words, input)) => (words, input),
            None => (line, ""),
        };
        let directory = format!("{}/", self.directory.display());
        let arguments = split(words).into_iter().map(|word| word.replace("DIR/", &directory));
        let output = self.command(arguments).stdin(input).output();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let mut told = format!("$ {line}\n");
        for (lines, before) in [(out, ""), (err, "! ")] {
            for line in lines.lines() {
                if output.status.success() && words.starts_with("mount ") && line.starts_with('/') {
                    self.mount = line.to_owned();
                }
                // An empty line would be lost among those that only set a transcript apart.
                let shown = if line.is_empty() { "(empty)".to_owned() } else { self.masked(line) };
                told.push_str(&format!("{before}{shown}\n"));
            }
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => told.push_str(&format!("= {code}\n")),
            None => told.push_str(&format!("= {}\n", output.status)),
        }
        told
    }

    fn masked(&mut self, line: &str) -> String {
        let (root, run) = (self.root.to_str().unwrap(), self.run_root.to_str().unwrap());
        // One is not the beginning of the other.
        let text = line.replace(run, "RUN").replace(root, "ROOT");
        let text = text.replace(self.directory.to_str().unwrap(), "DIR");
        let text = mask_mounts(&mask_times(&text));
        self.mask_ids(&text)
    }

    /// 64 hex digits are a random id, unless they are a digest.
    fn mask_ids(&mut self, text: &str) -> String {
        let mut masked = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
            let (before, digits) = rest.split_at(at);
            let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let (digits, after) = digits.split_at(end);
            masked.push_str(before);
            if digits.len() == 64 && !masked.ends_with("sha256:") {
                let known = self.ids.iter().position(|id| id == digits).unwrap_or_else(|| {
                    self.ids.push(digits.to_owned());
                    self.ids.len() - 1
                });
                masked.push_str(&format!("ID{}", known + 1));
            } else {
                masked.push_str(digits);
            }
            rest = after;
        }
        masked + rest
    }
}

/// Splits words as a shell does.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, ' ') => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// A date, a `T`, and all that a time can have.
fn mask_times(text: &str) -> String {
    let is_time = |at: usize| {
        let date = text.as_bytes().get(at..at + 11);
        date.is_some_and(|date| {
            let like = b"0000-00-00T".iter().zip(date);
            like.into_iter()
                .all(|(like, byte)| if *like == b'0' { byte.is_ascii_digit() } else { like == byte })
        })
    };
    let mut masked = String::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if is_time(at) {
            let part = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T' | 'Z' | '+');
            at += text[at..].find(|c| !part(c)).unwrap_or(text.len() - at);
            masked.push_str("TIME");
        } else {
            masked.push(c);
            at += c.len_utf8();
        }
    }
    masked
}

/// Each program has its mount points where it likes.
fn mask_mounts(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some((at, after)) = ["RUN/mnt/", "ROOT/overlay/"].into_iter().find_map(|start| {
        let at = rest.find(start)?;
        Some((at, &rest[at + start.len()..]))
    }) {
        masked.push_str(&rest[..at]);
        masked.push_str("MOUNT");
        let end = after.find(['"', ' ', ':']).unwrap_or(after.len());
        rest = &after[end..];
    }
    masked + rest
}

#[test]
fn lines_are_split_and_masked() {
    assert_eq!(split("a  '' \"b c\" d='e f'"), ["a", "", "b c", "d=e f"]);
    assert_eq!(mask_times("at 2026-01-31T12:00:00.5Z, \"2026-01-31\""), "at TIME, \"2026-01-31\"");
    assert_eq!(mask_mounts("x ROOT/overlay/two/merged y"), "x MOUNT y");
    let dir = Dir::new("masks");
    let mut session = Session::reference(&dir);
    let (one, two) = ("a".repeat(64), "b".repeat(64));
    assert_eq!(
        session.masked(&format!("{two}: {one} {two} sha256:{one} abc")),
        format!("ID1: ID2 ID1 sha256:{one} abc")
    );
}
