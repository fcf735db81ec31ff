//! Running programs with captured output, and failing with everything that they said.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A program with its arguments, not yet run.
///
/// Standard input is empty and the locale is fixed. The environment of the caller reaches the program
/// except for the variables that would change what it does.
#[derive(Debug)]
pub struct TestCommand {
    command: Command,
    stdin: Vec<u8>,
}

impl TestCommand {
    /// Any program.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env_remove("LAYERSTORE_ROOT").env_remove("LAYERSTORE_RUNROOT");
        command
            .env_remove("LAYERSTORE_SYNC")
            .env_remove("LAYERSTORE_CONFIG")
            .env_remove("STORAGE_DRIVER")
            .env_remove("STORAGE_OPTS")
            .env_remove("LAYERSTORE_LOG")
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .env_remove("CONTAINERS_STORAGE_CONF_OVERRIDE")
            .env_remove("STORAGE_DRIVER")
            .env_remove("STORAGE_OPTS");
        Self { command, stdin: Vec::new() }
    }

    /// Any program, which has nothing open but its standard streams: what this process was given besides is taken off a limit of
    /// open files.
    pub fn bare(program: impl AsRef<OsStr>) -> Self {
        // Other shells take one digit only.
        let script = r#"
            for descriptor in /proc/self/fd/*; do
                descriptor=${descriptor##*/}
                [ $descriptor -le 2 ] || eval "exec $descriptor>&-"
            done
            exec "$@"
        "#;
        Self::new("bash").args(["-c", script, "bash"]).arg(program)
    }

    /// The program under test. `LAYERSTORE_BIN` names another copy than the one that cargo built.
    pub fn layerstore() -> Self {
        Self::new(binary())
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in this directory.
    pub fn current_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Gives the program these bytes as standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it, whatever the outcome.
    pub fn output(&mut self) -> Output {
        // A file, not a pipe: neither side can block the other.
        let mut input = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut input, &self.stdin).unwrap();
        std::io::Seek::rewind(&mut input).unwrap();
        let result = self.command.stdin(Stdio::from(input)).output();
        result.unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.command))
    }

    /// Starts it with a pipe as standard input, its output thrown away.
    pub fn spawn_with_pipe(&mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it, expects success, returns the bytes of standard output.
    pub fn stdout_bytes(&mut self) -> Vec<u8> {
        let output = self.output();
        assert!(output.status.success(), "{}", self.story(&output, "success"));
        output.stdout
    }

    /// Runs it, expects success, returns standard output.
    pub fn stdout(&mut self) -> String {
        String::from_utf8(self.stdout_bytes()).unwrap()
    }

    /// Runs it, expects success, returns the one line that it printed as a path.
    pub fn stdout_path(&mut self) -> PathBuf {
        let mut bytes = self.stdout_bytes();
        assert_eq!(bytes.pop(), Some(b'\n'), "{:?} printed no line", self.command);
        PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
    }

    /// Runs it, expects success, returns standard output as a JSON document.
    pub fn json(&mut self) -> serde_json::Value {
        let bytes = self.stdout_bytes();
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            panic!("{:?}: {error}\n{}", self.command, String::from_utf8_lossy(&bytes))
        })
    }

    /// Runs it, expects success.
    pub fn assert_success(&mut self) {
        self.stdout_bytes();
    }

    /// Runs it, expects this exit status, returns standard error.
    pub fn assert_exit(&mut self, code: i32) -> String {
        let output = self.output();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}",
            self.story(&output, &format!("exit status {code}"))
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs it, expects a failure that is no crash, returns standard error, which says something.
    pub fn assert_failure(&mut self) -> String {
        let output = self.output();
        let story = self.story(&output, "a failure");
        // 101 is a panic; no code at all is a signal.
        assert!(!matches!(output.status.code(), None | Some(0 | 101)), "{story}");
        assert!(!output.stderr.is_empty(), "{story}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn story(&self, output: &Output, expected: &str) -> String {
        format!(
            "\n{:?}\nexpected {expected}, got {}\n---- standard output\n{}\n---- standard error\n{}\n----",
            self.command,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        )
    }
}

/// The program under test.
pub fn binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_layerstore").map(PathBuf::from);
    let Some(path) = std::env::var_os("LAYERSTORE_BIN").map(PathBuf::from).or(built) else {
        panic!("there is no program to test: build with the feature `cli`, or set LAYERSTORE_BIN");
    };
    path
}

/// Copies the program under test for others, who may not read where it was built.
///
/// By a process of its own: what another test starts meanwhile would have a file that is open here to be written, and while it has, the
/// copy cannot be run.
pub fn copy_binary(to: &Path) {
    let copied = std::process::Command::new("cp").arg(binary()).arg(to).status().unwrap();
    assert!(copied.success(), "cp: {copied}");
}

/// Whether the program has this command. A test that is ahead of the program skips itself.
pub fn has_command(name: &str) -> bool {
    let output = TestCommand::layerstore().args([name, "--help"]).output();
    output.status.success() && !output.stdout.is_empty()
}
