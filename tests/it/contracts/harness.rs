//! A real server in this process, on real sockets, and a client that shows every byte of an answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use locker::core::settings::Settings;
use locker::core::state::{Changes, Loaded};
use locker::env::{Env, Signal, Signals, SystemClock};
use locker::server::build_watch::settings::WatchSettings;
use locker::server::door::{self, DoorSettings, Stop};
use locker::server::logs::{LogFormat, LogLevel, LogSettings};
use locker::server::long_polls::LongPolls;
use locker::server::notices::Notices;
use locker::server::routes::Routes;
use locker::server::{self, ServerSettings, engine};
use locker::store::Store;
use locker::store::memory::MemoryStore;
use locker::wire::contracts::{Contracts, UnlockMissing};
use serde_json::Value;

/// Longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` brings something.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server on a memory store, open to anybody.
pub fn settings() -> ServerSettings {
    ServerSettings {
        listen: "127.0.0.1:0".into(),
        store: "memory:".into(),
        rules: Settings::default(),
        door: DoorSettings {
            backends: 8,
            linger: Duration::from_millis(300),
            threads: Some(2),
            ..DoorSettings::default()
        },
        grace: Duration::from_secs(5),
        runtime_dir: None,
        auth: None,
        no_auth: true,
        contracts: Contracts::default(),
        lockd_unlock_missing: UnlockMissing::default(),
        locker_config: None,
        tls: None,
        log: LogSettings { format: LogFormat::Text, level: LogLevel::Error },
        watch: WatchSettings::default(),
    }
}

/// A running `locker server`.
pub struct Server {
    pub address: SocketAddr,
    /// What it said when it had started: that it listens, and what became of an import.
    pub said: Vec<String>,
    signals: Signals,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Hands on what is written, line by line.
struct Lines {
    to: mpsc::Sender<String>,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let _ = self.to.send(String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned());
            } else {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Server {
    pub fn start() -> Self {
        Self::with(settings())
    }

    /// A process that another test starts just now has, for a moment, a copy of the descriptor that locks the store of
    /// the server before: that is tried again.
    pub fn with(settings: ServerSettings) -> Self {
        eventually("the store is free", || match Self::try_with(settings.clone()) {
            Ok(server) => Some(server),
            Err(error) if format!("{error:#}").contains("uses this store") => None,
            Err(error) => panic!("{error:#}"),
        })
    }

    /// Starts it, or brings the error with which it refused.
    pub fn try_with(settings: ServerSettings) -> anyhow::Result<Self> {
        let signals = Signals::default();
        let (to, lines) = mpsc::channel();
        let for_server = signals.clone();
        let imports = settings.locker_config.is_some();
        let thread = thread::spawn(move || {
            let mut env = Env {
                args: vec!["locker".into()],
                vars: std::collections::BTreeMap::new(),
                stdin: &mut io::empty(),
                stdout: &mut io::sink(),
                stderr: &mut Lines { to, line: Vec::new() },
                is_terminal: false,
                hostname: "test".into(),
                clock: Arc::new(SystemClock::default()),
                signals: for_server,
            };
            server::run(settings, &mut env)
        });
        let mut said = Vec::new();
        let address = loop {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                return Err(thread.join().unwrap().expect_err("a server that listens says so"));
            };
            let address = line.split_once("http://").and_then(|(_, rest)| rest.split([',', ' ']).next());
            let address = address.filter(|_| line.contains(" listening on ")).map(|text| text.parse().unwrap());
            said.push(line);
            if let Some(address) = address {
                break address;
            }
        };
        if imports {
            said.push(lines.recv_timeout(PATIENCE).expect("a line about the import"));
        }
        thread::spawn(move || lines.into_iter().for_each(drop));
        Ok(Self { address, said, signals, thread: Some(thread) })
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// One request on a connection of its own: `METHOD target`, body (empty: none).
    #[track_caller]
    pub fn call(&self, request: &str, body: &str) -> Answer {
        self.client().call(request, body)
    }

    pub fn stop(&mut self) {
        self.signals.raise(Signal::Term);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signals.raise(Signal::Term);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// A server as a process of its own, to be killed.
pub struct Process {
    pub address: SocketAddr,
    child: std::process::Child,
}

impl Process {
    pub fn start(store: &str) -> Self {
        Self::with(store, &[], &[])
    }

    /// With more flags and variables.
    pub fn with(store: &str, flags: &[&str], vars: &[(&str, &str)]) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_locker"));
        command.args(["server", "--listen", "127.0.0.1:0", "--store", store]).stderr(std::process::Stdio::piped());
        command.args(flags).envs(vars.iter().copied());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        // What else it says must not fill the pipe.
        thread::spawn(move || io::copy(&mut stderr, &mut io::sink()));
        let address = address.unwrap_or_else(|| panic!("it does not listen: {line}"));
        Self { address, child }
    }

    #[track_caller]
    pub fn call(&self, request: &str, body: &str) -> Answer {
        Client::new(self.address).call(request, body)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The routes behind a door, on a store that can be told to fail.
pub struct Failing {
    pub address: SocketAddr,
    pub fails: Arc<AtomicBool>,
    stop: Stop,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    _dir: tempfile::TempDir,
}

struct FailingStore {
    inner: MemoryStore,
    fails: Arc<AtomicBool>,
}

impl Store for FailingStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.inner.load()
    }
    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        anyhow::ensure!(!self.fails.load(Ordering::SeqCst), "planned failure");
        self.inner.commit(changes)
    }
    fn store_id(&self) -> &str {
        self.inner.store_id()
    }
}

impl Failing {
    pub fn start() -> Self {
        let fails = Arc::new(AtomicBool::new(false));
        let store = FailingStore { inner: MemoryStore::new().unwrap(), fails: Arc::clone(&fails) };
        let (notices, long_polls, stop) = (Notices::default(), LongPolls::default(), Stop::new());
        let clock = Arc::new(SystemClock::default());
        let rules = Settings::default();
        let (engine, _) =
            engine::start(Box::new(store), rules, clock, notices.clone(), long_polls.clone(), |_| {}).unwrap();
        let routes = Arc::new(Routes::new(engine, long_polls, Arc::new(|| Ok(()))));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (dirs, door_stop) = (vec![dir.path().to_owned()], stop.clone());
        let thread = thread::spawn(move || door::serve(listener, routes, notices, settings().door, &dirs, door_stop));
        Self { address, fails, stop, thread: Some(thread), _dir: dir }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.stop.trigger(Duration::from_secs(5));
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// An answer as it stood on the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status_line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).unwrap().parse().unwrap()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    /// The answer to the request on its way has no body.
    is_head: bool,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(socket), is_head: false }
    }

    /// Sends `METHOD target` with a body, as curl does: of some content type that nobody looks at.
    pub fn send(&mut self, request: &str, body: &str) {
        self.send_with(request, "", body);
    }

    /// The same with more header lines, each ended by CR LF.
    pub fn send_with(&mut self, request: &str, headers: &str, body: &str) {
        self.is_head = request.starts_with("HEAD ");
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len())
        };
        let bytes = format!("{request} HTTP/1.1\r\nHost: locker\r\n{headers}{length}\r\n{body}");
        self.reader.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// Whether an answer has begun to arrive within `time`.
    pub fn is_answered(&mut self, time: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(time)).unwrap();
        let answered = self.reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        answered
    }

    #[track_caller]
    pub fn read(&mut self) -> Answer {
        let mut status_line = String::new();
        self.reader.read_line(&mut status_line).unwrap();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status_line: status_line.trim_end().to_owned(), headers, body: Vec::new() };
        let length = answer.header("content-length").filter(|_| !self.is_head);
        let length = length.map_or(0, |value| value.parse().unwrap());
        answer.body.resize(length, 0);
        self.reader.read_exact(&mut answer.body).unwrap();
        answer
    }

    #[track_caller]
    pub fn call(&mut self, request: &str, body: &str) -> Answer {
        self.send(request, body);
        self.read()
    }
}

/// Runs a table: `METHOD target | body | status, then words that the body must contain`. `~` stands for a space in
/// those words, `=` before the words wants just that JSON. Each line is a connection of its own.
#[track_caller]
pub fn run(server: &Server, table: &str) {
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [request, body, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}")
        };
        let answer = server.call(&request.split_whitespace().collect::<Vec<_>>().join(" "), body);
        let (status, rest) = expected.split_once(' ').unwrap_or((expected, ""));
        assert_eq!(answer.status().to_string(), status, "{line}\n  {}", answer.text());
        check_shape(&answer, line);
        match rest.trim().strip_prefix('=') {
            Some(exact) => assert_eq!(answer.text(), exact.trim(), "{line}"),
            None => {
                for word in rest.split_whitespace().map(|word| word.replace('~', " ")) {
                    assert!(answer.text().contains(&word), "{line}\n  {word}: {}", answer.text());
                }
            }
        }
    }
}

/// Every answer of every contract is a JSON object; every error has a string at `error` and at `code`.
fn check_shape(answer: &Answer, line: &str) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{line}");
    let json = answer.json();
    assert!(json.is_object(), "{line}: {json}");
    if answer.status() >= 400 {
        assert!(json["error"].is_string() && json["code"].is_string(), "{line}: {json}");
    } else {
        assert!(json.get("error").is_none(), "{line}: {json}");
    }
}
