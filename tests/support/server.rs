//! A real `locker server` process: its address, its log, its memory, its end.
#![allow(dead_code, reason = "each suite needs another part of it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    let mut condition = condition;
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A command that runs the server with nothing inherited but the path; the store is in memory.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locker"));
    command.env_clear().args(["server", "--store", "memory:"]).args(args);
    command
}

pub struct Server {
    child: Child,
    /// As the first line says, with the scheme.
    pub url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it on a free port of 127.0.0.1, unless `args` say otherwise.
    pub fn start(args: &[&str], vars: &[(&str, &str)]) -> Self {
        let listens = args.contains(&"--listen");
        let mut command = command(if listens { &[] } else { &["--listen", "127.0.0.1:0"] });
        command.args(args).envs(vars.iter().copied());
        Self::spawn(command)
    }

    pub fn spawn(command: Command) -> Self {
        Self::spawn_with(command, Stdio::null())
    }

    pub fn spawn_with(mut command: Command, stdin: Stdio) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).stdin(stdin).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().expect("a first line").unwrap();
        let url = first.split_once(" listening on ").and_then(|(_, rest)| rest.split_once(", store "));
        let url = url.unwrap_or_else(|| panic!("not a first line: {first}")).0.to_owned();
        let log = Arc::new(Mutex::new(vec![first]));
        let into = Arc::clone(&log);
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line)));
        Self { child, url, log }
    }

    /// What follows the scheme.
    pub fn address(&self) -> &str {
        self.url.split_once("://").expect("a URL").1
    }

    pub fn port(&self) -> u16 {
        self.address().rsplit_once(':').expect("a port").1.parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far, the first one included.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Whether a line with this text has been written.
    pub fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// A line of `/proc/PID/status`, in KiB.
    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Most memory that was resident so far, KiB.
    pub fn peak_memory(&self) -> usize {
        self.memory("VmHWM")
    }

    /// Memory that is resident now, KiB.
    pub fn resident(&self) -> usize {
        self.memory("VmRSS")
    }

    /// Files and sockets that it has open now.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server has not ended within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            eprintln!("the end of the server's log:\n{}", log[log.len().saturating_sub(20)..].join("\n"));
        }
    }
}
