//! A real `locker server` on a store that outlives it, to be killed and started again.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program under test.
pub const LOCKER: &str = env!("CARGO_BIN_EXE_locker");
/// A start takes a fraction of this, also when it has a large store to load.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `sqlite:FILE` or `memory:`.
    pub store: String,
    /// Settings that tests shorten: flags and their values.
    pub flags: Vec<String>,
    /// The bug to plant, in a build with the `plant` feature.
    pub plant: Option<&'static str>,
}

impl Setup {
    pub fn sqlite(directory: &Path) -> Self {
        let file: PathBuf = directory.join("locker.db");
        Self { store: format!("sqlite:{}", file.display()), flags: Vec::new(), plant: None }
    }

    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub first_line: String,
}

impl Server {
    /// Starts a server on a port of its own choice, and returns when it listens.
    ///
    /// # Panics
    /// When it ends, or says nothing in time: what it said is in the message.
    pub fn start(setup: &Setup) -> Self {
        let mut child = Self::spawn(setup);
        let stderr = child.stderr.take().expect("stderr is piped");
        let (said, hear) = mpsc::channel();
        thread::spawn(move || relay(stderr, &said));
        let first_line = hear.recv_timeout(READY_WITHIN).unwrap_or_else(|_| "nothing".to_owned());
        let Some(address) = listening_on(&first_line) else {
            let _ = child.kill();
            let rest: Vec<String> = hear.iter().take(20).collect();
            panic!("the server does not listen, it says: {first_line} {rest:?}");
        };
        Self { child, address, first_line }
    }

    /// Starts the process without waiting for anything.
    pub fn spawn(setup: &Setup) -> Child {
        let mut command = Command::new(LOCKER);
        command.args(["server", "--listen", "127.0.0.1:0", "--no-auth", "--store", &setup.store]).args(&setup.flags);
        command.env_remove("LOCKER_PLANT").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(plant) = setup.plant {
            command.env("LOCKER_PLANT", plant);
        }
        command.spawn().expect("the program starts")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        // It may have been killed already.
        let _ = kill(self.pid(), Signal::SIGKILL);
        self.child.wait().expect("the process can be waited for");
    }

    /// Whether the process has ended.
    pub fn is_dead(&mut self) -> bool {
        self.child.try_wait().expect("the process can be waited for").is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what the server says; panics of its threads are shown, since they are bugs.
fn relay(stderr: impl Read, said: &mpsc::Sender<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains("panicked") {
            eprintln!("server: {line}");
        }
        // Nobody listens after the start.
        let _ = said.send(line);
    }
}

/// `locker VERSION listening on http://HOST:PORT, store URL, AUTH`
fn listening_on(line: &str) -> Option<SocketAddr> {
    let url = line.split_once("listening on http://")?.1;
    url.split([',', ' ']).next()?.parse().ok()
}
