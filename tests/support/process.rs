//! Processes whose output is captured while they run.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::wait::{PATIENCE, eventually, within};

/// The binary under test: the one that was built with the tests, or the one that `LOCKER_BINARY` names, which may be
/// another build (the image tests the binary that it ships).
pub fn binary() -> &'static str {
    static BINARY: LazyLock<String> =
        LazyLock::new(|| std::env::var("LOCKER_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_locker").to_owned()));
    &BINARY
}

/// A command without the environment of the test.
pub fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    // Short pauses: tests check that there is another attempt, not how long it takes.
    command.env("LOCKER_RETRY_MAX", "100ms");
    command
}

/// A process whose output is captured while it runs.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Done {
    /// The exit code, or 128 plus the signal that killed the process.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    pub fn start(command: &mut Command, stdin: &[u8]) -> Self {
        let mut running = Self::start_with(command, Stdio::piped());
        // A process that refuses early may not read its stdin.
        let _ = running.child.stdin.take().unwrap().write_all(stdin);
        running
    }

    pub fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let mut child =
            command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let (stdout, stderr) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<String>>::default());
        let (mut out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to_out, to_err) = (Arc::clone(&stdout), Arc::clone(&stderr));
        let readers = vec![
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let _ = out.read_to_end(&mut all);
                to_out.lock().unwrap().extend(all);
            }),
            std::thread::spawn(move || {
                for line in BufReader::new(err).lines().map_while(Result::ok) {
                    // A thread of ours that panics is a bug in every test.
                    if line.contains("panicked") {
                        eprintln!("{line}");
                    }
                    let mut text = to_err.lock().unwrap();
                    text.push_str(&line);
                    text.push('\n');
                }
            }),
        ];
        Self { child, stdout, stderr, readers }
    }

    /// What it has written to stdout. Complete once it has ended.
    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.lock().unwrap().clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// The first line on stderr so far that contains `text`.
    pub fn said(&self, text: &str) -> Option<String> {
        self.stderr.lock().unwrap().lines().find(|line| line.contains(text)).map(str::to_owned)
    }

    /// Waits for a line with `text` on stderr.
    #[track_caller]
    pub fn until_stderr(&self, text: &str) -> String {
        eventually(&format!("{text:?} on stderr"), || self.said(text))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill(self.pid(), signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and returns its output.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(PATIENCE)
    }

    #[track_caller]
    fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        let status = within(patience, "the end of a process", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    #[track_caller]
    pub fn finish(self) -> Done {
        self.finish_within(PATIENCE)
    }

    #[track_caller]
    pub fn finish_within(mut self, patience: Duration) -> Done {
        let status = self.wait_within(patience);
        let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap();
        Done { code, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Done {
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts that it failed with this code, printed nothing on stdout, and wrote `text` to stderr.
    pub fn failed(self, code: i32, text: &str) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:?}");
        assert!(self.stderr.contains(text), "{text:?} is not in {}", self.stderr);
        self
    }

    /// Asserts the exit code and the last line that it printed.
    pub fn ended(self, code: i32, line: &str) -> Self {
        assert_eq!((self.code, self.stdout.lines().last().unwrap_or_default()), (code, line), "{self:?}");
        self
    }

    /// Asserts that it printed this on stdout.
    pub fn printed(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not in {}", self.stdout);
        self
    }

    /// Asserts that it wrote this to stderr.
    pub fn said(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in {}", self.stderr);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The version that `in` or `out` printed.
    pub fn version(&self) -> String {
        self.json()["version"]["ref"].as_str().unwrap().to_owned()
    }

    /// One value of the metadata that was printed.
    pub fn metadata(&self, name: &str) -> Option<String> {
        let json = self.json();
        let pairs = json["metadata"].as_array().unwrap();
        pairs.iter().find(|p| p["name"] == name).map(|p| p["value"].as_str().unwrap().to_owned())
    }
}
