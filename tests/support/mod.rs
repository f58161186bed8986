//! The black-box harness: the real binary as server, as resource (through symlinks named as Concourse calls them) and
//! as command line. Nothing here sleeps as a synchronisation: conditions are polled against a deadline.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::format_collect,
    reason = "each test crate uses its own part of this, and tests fail by panicking"
)]

pub mod certs;
pub mod client;
pub mod concourse;
pub mod malformed;
pub mod proxy;
pub mod server;
pub mod terminal;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest time that any condition may take to come true; generous, because test machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The binary under test: the one that was built with the tests, or the one that `LOCKER_BINARY` names, which may be
/// another build (the image tests what it ships).
pub fn binary() -> &'static str {
    static BINARY: LazyLock<String> =
        LazyLock::new(|| std::env::var("LOCKER_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_locker").to_owned()));
    &BINARY
}

/// Polls until `probe` gives something.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process whose output is gathered while it runs.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Done {
    /// Exit code; 128 + the signal for one that a signal killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    pub fn start(command: &mut Command, stdin: &[u8]) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // A process that refuses early may not read its stdin.
        let _ = child.stdin.take().unwrap().write_all(stdin);
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
                    let mut text = to_err.lock().unwrap();
                    text.push_str(&line);
                    text.push('\n');
                }
            }),
        ];
        Self { child, stdout, stderr, readers }
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until stderr has a line with `text`.
    pub fn until_stderr(&self, text: &str) -> String {
        until(&format!("{text:?} on stderr"), || self.stderr().lines().find(|l| l.contains(text)).map(str::to_owned))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // It may have ended already.
        let _ = kill(Pid::from_raw(pid), signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn finish(mut self) -> Done {
        let status = until("the end of a process", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap();
        let stdout = String::from_utf8(std::mem::take(&mut *self.stdout.lock().unwrap())).unwrap();
        Done { code, stdout, stderr: self.stderr() }
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

    /// It failed with this code, printed nothing on stdout, and said `text`.
    pub fn failed(self, code: i32, text: &str) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:?}");
        assert!(self.stderr.contains(text), "{text:?} is not in {}", self.stderr);
        self
    }

    /// It ended with this code, and this is the last line that it printed.
    pub fn ended(self, code: i32, line: &str) -> Self {
        assert_eq!((self.code, self.stdout.lines().last().unwrap_or_default()), (code, line), "{self:?}");
        self
    }

    /// It printed this on stdout.
    pub fn printed(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not in {}", self.stdout);
        self
    }

    /// It said this.
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

/// A running server, killed when dropped.
pub struct Server {
    running: Option<Running>,
    pub url: String,
    store: String,
    options: Vec<String>,
    vars: Vec<(String, String)>,
    dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with("memory:", &[], &[])
    }

    /// On a store file of its own, so that it can be killed and started again.
    pub fn start_durable() -> Self {
        Self::start_with("sqlite", &[], &[])
    }

    pub fn start_with(store: &str, options: &[&str], vars: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = match store {
            "sqlite" => format!("sqlite:{}", dir.path().join("locker.db").display()),
            store => store.to_owned(),
        };
        let mut server = Self {
            running: None,
            url: "http://127.0.0.1:0".into(),
            store,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            vars: vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            dir,
        };
        server.again();
        server
    }

    /// Its store, as `--store` takes it.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Starts it (again), at the address that it had.
    pub fn again(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        let mut command = clean(binary());
        command.args(["server", "--listen", &address, "--store", &self.store, "--runtime-dir"]).arg(self.dir.path());
        command.args(&self.options).envs(self.vars.iter().map(|(n, v)| (n, v)));
        let running = Running::start(&mut command, b"");
        let line = running.until_stderr(" listening on ");
        let url = line.split(" listening on ").nth(1).unwrap().split(',').next().unwrap();
        url.clone_into(&mut self.url);
        self.running = Some(running);
    }

    /// Sends a signal to the running server.
    pub fn signal(&self, signal: Signal) {
        self.running.as_ref().unwrap().signal(signal);
    }

    /// Everything that it has written so far, since it was started (again).
    pub fn log(&self) -> String {
        self.running.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Waits until it has written a line with this text.
    pub fn until_log(&self, text: &str) -> String {
        self.running.as_ref().expect("it runs").until_stderr(text)
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }

    /// The command line against this server.
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

    /// One request to its own API, such as `/pools`.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask(method, &format!("/api/v1{path}"), body)
    }

    /// One request, with this JSON unless it is null: the status and the JSON of the answer.
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{target}", self.url));
        let sent = match body {
            Value::Null => agent.run(request.body(()).unwrap()),
            body => agent.run(request.header("content-type", "application/json").body(body.to_string()).unwrap()),
        };
        let mut answer = sent.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.body_mut().read_to_vec().unwrap()).unwrap())
    }

    /// `locker status POOL --json`.
    pub fn pool(&self, pool: &str) -> Value {
        self.cli(&["status", pool, "--json"]).ok().json()
    }

    /// Waits until so many wait in the pool.
    pub fn until_waiting(&self, pool: &str, count: u64) {
        until(&format!("{count} waiting"), || (self.pool(pool)["waiting"] == count).then_some(()));
    }
}

/// A command without the environment of the test.
pub fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    // Short pauses: what is tested is that there is another attempt, not how long people wait for it.
    command.env("LOCKER_RETRY_MAX", "100ms");
    command
}

/// A build in a Concourse, with the directories that its steps would see.
pub struct Build {
    id: String,
    url: String,
    pub dir: TempDir,
    pub source: Value,
    vars: Vec<(String, String)>,
}

impl Build {
    /// Build `id` of job `deploy`, with a resource of this pool.
    pub fn new(server: &Server, id: u32, pool: &str) -> Self {
        Self::with_source(server, id, &json!({"pool": pool}))
    }

    /// Build `id`, with this source beside `locker_uri`.
    pub fn with_source(server: &Server, id: u32, source: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["check", "in", "out"] {
            std::os::unix::fs::symlink(binary(), dir.path().join(name)).unwrap();
        }
        std::fs::create_dir(dir.path().join("put")).unwrap();
        let mut source = source.clone();
        source["locker_uri"] = json!(server.url);
        Self { id: id.to_string(), url: server.url.clone(), dir, source, vars: Vec::new() }
    }

    /// Another variable for all its steps.
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, name: &str) -> Command {
        let mut command = clean(self.dir.path().join(name));
        command.envs([
            ("ATC_EXTERNAL_URL", "https://ci.example.com"),
            ("BUILD_ID", &self.id),
            ("BUILD_NAME", &self.id),
            ("BUILD_TEAM_NAME", "main"),
            ("BUILD_PIPELINE_NAME", "app"),
            ("BUILD_JOB_NAME", "deploy"),
        ]);
        command.envs(self.vars.iter().map(|(n, v)| (n, v)));
        command
    }

    /// The same build with its resource behind another address of the server.
    pub fn at(mut self, url: &str) -> Self {
        self.source["locker_uri"] = json!(url);
        self
    }

    /// Starts `out` with these params.
    pub fn put(&self, params: &Value) -> Running {
        let payload = json!({"source": self.source, "params": params}).to_string();
        Running::start(self.command("out").arg(self.dir.path().join("put")), payload.as_bytes())
    }

    /// Runs `out` with these params to its end.
    pub fn out(&self, params: &Value) -> Done {
        self.put(params).finish()
    }

    /// Runs `out` with its stdout going there; it must fail. What it said.
    pub fn out_into(&self, params: &Value, stdout: Stdio) -> String {
        let payload = json!({"source": self.source, "params": params}).to_string();
        let mut command = self.command("out");
        command.arg(self.dir.path().join("put")).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(payload.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        String::from_utf8(done.stderr).unwrap()
    }

    /// Runs `in` for this version into `put/NAME`, as the get of a put step called NAME does.
    pub fn get(&self, version: &str, name: &str) -> Done {
        let dir = self.input(name);
        let payload = json!({"source": self.source, "version": {"ref": version}}).to_string();
        self.raw("in", Some(&dir), payload.as_bytes())
    }

    /// Runs one of the programs with this on stdin.
    pub fn raw(&self, name: &str, dir: Option<&Path>, stdin: &[u8]) -> Done {
        self.start(name, dir, stdin).finish()
    }

    /// Starts one of the programs with this on stdin.
    pub fn start(&self, name: &str, dir: Option<&Path>, stdin: &[u8]) -> Running {
        Running::start(self.command(name).args(dir), stdin)
    }

    /// Runs `check`; the revisions that it lists.
    pub fn check(&self, version: Option<&str>) -> Vec<String> {
        let mut payload = json!({"source": self.source});
        if let Some(version) = version {
            payload["version"] = json!({"ref": version});
        }
        let done = self.raw("check", None, payload.to_string().as_bytes()).ok();
        let json = done.json();
        json.as_array().unwrap().iter().map(|v| v["ref"].as_str().unwrap().to_owned()).collect()
    }

    /// A directory among the inputs of its puts.
    pub fn input(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("put").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A directory among the inputs of its puts with these files.
    pub fn input_with(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.input(name);
        for (file, content) in files {
            std::fs::write(dir.join(file), content).unwrap();
        }
        dir
    }

    /// The address of the server that its source names.
    pub fn server(&self) -> &str {
        &self.url
    }
}

/// Runs `out` of build 1 in this process, in a container of this name: exit code, stdout, stderr.
pub fn out_in(host: &str, server: &Server, params: &Value) -> (u8, String, String) {
    let payload = json!({"source": {"locker_uri": server.url, "pool": "p"}, "params": params}).to_string();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let vars = [
        ("ATC_EXTERNAL_URL", "https://ci"),
        ("BUILD_ID", "1"),
        ("LOCKER_RETRY_MAX", "100ms"),
        ("LOCKER_SELF_WAIT", "1s"),
    ];
    let mut env = locker::env::Env {
        args: vec!["/opt/resource/out".into(), "/tmp".into()],
        vars: vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        stdin: &mut payload.as_bytes(),
        stdout: &mut stdout,
        stderr: &mut stderr,
        is_terminal: false,
        hostname: host.to_owned(),
        clock: std::sync::Arc::new(locker::env::SystemClock::default()),
        signals: locker::env::Signals::default(),
    };
    let code = locker::run(&mut env);
    (code, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Something that answers every request with the same words, and remembers the requests.
pub struct Impostor {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Impostor {
    pub fn says(status: &'static str, body: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&requests);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let Ok(Some(request)) = proxy::read_message(&mut stream) else { continue };
                heard.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // Whoever asked may have gone.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        Self { url, requests }
    }

    /// All requests so far, as they came.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The text of a file.
pub fn file(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files below a directory with their content, links and directories marked.
pub fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(base: &Path, dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_symlink() {
                found.push((format!("{name}@"), Vec::new()));
            } else if kind.is_dir() {
                walk(base, &path, found);
            } else {
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}
