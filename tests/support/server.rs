//! A real `locker server`: its address, its log, its memory, its end. Tests can kill it and start it again.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Answer, Client};
use super::process::{Done, Running, binary, clean};
use super::wait::eventually;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `sqlite:FILE` or `memory:`.
    pub store: String,
    /// Flags and their values. Without `--listen` it listens on a free port of 127.0.0.1.
    pub flags: Vec<String>,
    pub vars: Vec<(String, String)>,
}

impl Setup {
    pub fn memory() -> Self {
        Self { store: "memory:".into(), flags: Vec::new(), vars: Vec::new() }
    }

    pub fn sqlite(directory: &Path) -> Self {
        Self { store: format!("sqlite:{}", directory.join("locker.db").display()), ..Self::memory() }
    }

    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    #[must_use]
    pub fn flag(self, flag: &str, value: &str) -> Self {
        self.flags(&[flag, value])
    }

    #[must_use]
    pub fn vars(mut self, vars: &[(&str, &str)]) -> Self {
        self.vars.extend(vars.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// Plants the bug of this name, in a build with the `plant` feature.
    #[must_use]
    pub fn plant(self, bug: &str) -> Self {
        self.vars(&[("LOCKER_PLANT", bug)])
    }

    pub fn command(&self) -> Command {
        let mut command = clean(binary());
        command.args(["server", "--store", &self.store]).args(&self.flags);
        if !self.flags.iter().any(|flag| flag == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the process without waiting until it listens.
    pub fn launch(&self) -> Running {
        Running::start(&mut self.command(), b"")
    }
}

/// A running server, killed when dropped.
pub struct Server {
    running: Option<Running>,
    /// The URL from its first line.
    pub url: String,
    setup: Setup,
    /// The directory of its store, if the store is its own.
    _dir: Option<TempDir>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_as(&Setup::memory())
    }

    /// A server with its own store file, so that it can be killed and started again.
    pub fn start_durable() -> Self {
        Self::start_with("sqlite", &[], &[])
    }

    /// A server on this store (`sqlite`: its own file), with more flags and variables.
    pub fn start_with(store: &str, flags: &[&str], vars: &[(&str, &str)]) -> Self {
        let dir = (store == "sqlite").then(|| tempfile::tempdir().unwrap());
        let setup = match &dir {
            Some(dir) => Setup::sqlite(dir.path()),
            None => Setup { store: store.to_owned(), ..Setup::memory() },
        };
        let setup = setup.flags(flags).vars(vars);
        Self::listening(setup.launch(), setup, dir)
    }

    /// # Panics
    /// When it ends, or does not listen in time. The message has its output.
    pub fn start_as(setup: &Setup) -> Self {
        Self::listening(setup.launch(), setup.clone(), None)
    }

    /// Starts a server with this command.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_with(command, Stdio::null())
    }

    pub fn spawn_with(mut command: Command, stdin: Stdio) -> Self {
        Self::listening(Running::start_with(&mut command, stdin), Setup::memory(), None)
    }

    fn listening(mut running: Running, setup: Setup, dir: Option<TempDir>) -> Self {
        let url = eventually("the server listens", || {
            let said = running.said(" listening on ");
            assert!(said.is_some() || running.is_running(), "the server does not listen: {}", running.stderr());
            said.and_then(|line| Some(line.split_once(" listening on ")?.1.split_once(", store ")?.0.to_owned()))
        });
        Self { running: Some(running), url, setup, _dir: dir }
    }

    /// Starts it again at the same address.
    pub fn again(&mut self) {
        let mut setup = self.setup.clone();
        setup.flags.extend(["--listen".to_owned(), self.address().to_owned()]);
        let mut server = Self::start_as(&setup);
        self.running = server.running.take();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    /// Its store, as `--store` takes it.
    pub fn store(&self) -> &str {
        &self.setup.store
    }

    /// Its URL without the scheme.
    pub fn address(&self) -> &str {
        self.url.split_once("://").expect("a URL").1
    }

    pub fn socket(&self) -> SocketAddr {
        self.address().parse().expect("a TCP address")
    }

    pub fn port(&self) -> u16 {
        self.socket().port()
    }

    pub fn pid(&self) -> Pid {
        self.running().pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Everything that it has written since its last start.
    pub fn log(&self) -> String {
        self.running.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Whether it has written a line with this text.
    pub fn has_said(&self, text: &str) -> bool {
        self.running().said(text).is_some()
    }

    /// Waits until it has written a line with this text.
    pub fn until_log(&self, text: &str) -> String {
        self.running().until_stderr(text)
    }

    /// Sends SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.running.as_mut().expect("it runs").wait()
    }

    /// Sends SIGTERM. It must exit with 0.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::is_running)
    }

    /// A value from `/proc/PID/status`, in KiB.
    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The peak resident memory so far, in KiB.
    pub fn peak_memory(&self) -> usize {
        self.memory("VmHWM")
    }

    /// The present resident memory, in KiB.
    pub fn resident(&self) -> usize {
        self.memory("VmRSS")
    }

    /// The number of files and sockets that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The command line, with this server's address.
    pub fn cli(&self, args: &[&str]) -> Done {
        self.cli_with(args, b"")
    }

    pub fn cli_with(&self, args: &[&str], stdin: &[u8]) -> Done {
        Running::start(self.cli_command().args(args), stdin).finish()
    }

    pub fn cli_command(&self) -> Command {
        let mut command = clean(binary());
        command.env("LOCKER_URI", &self.url).env("USER", "ada");
        command
    }

    /// A connection to it.
    pub fn connect(&self) -> Client {
        Client::new(self.address())
    }

    /// One request on a new connection: `METHOD target`, and a body if it is not empty.
    #[track_caller]
    pub fn call(&self, line: &str, body: &str) -> Answer {
        self.connect().call(line, body)
    }

    /// One request to its own API, such as `/pools`.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask(method, &format!("/api/v1{path}"), body)
    }

    /// One request, with this JSON unless it is null: the status and the JSON of the answer.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.call(&format!("{method} {target}"), &body);
        (answer.status, answer.json())
    }

    /// `locker status POOL --json`.
    pub fn pool(&self, pool: &str) -> Value {
        self.cli(&["status", pool, "--json"]).ok().json()
    }

    /// Waits until this many claims wait in the pool.
    pub fn until_waiting(&self, pool: &str, count: u64) {
        eventually(&format!("{count} waiting"), || self.pool(pool)["waiting"] == count);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the server's log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}
