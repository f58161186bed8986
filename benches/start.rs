//! How long a server takes to start, and how much memory, with a store that is full of the past: `benches/start/fill.sql`
//! makes 1,000,000 ended claims and 1,000,000 history entries. Each round starts it, asks once, and ends it by SIGKILL.
//!
//! ```text
//! cargo bench --bench start
//! LOCKER_BIN=/usr/local/bin/locker cargo bench --bench start    # another binary
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

struct Server {
    child: Child,
    /// From the start of the process to its first answer.
    took: Duration,
}

impl Server {
    fn start(store: &Path) -> Self {
        let binary = std::env::var("LOCKER_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_locker").to_owned());
        let store = format!("sqlite:{}", store.display());
        let began = Instant::now();
        let mut child = Command::new(binary)
            .args(["server", "--listen", "127.0.0.1:0", "--store", &store])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.split(" listening on http://").nth(1).expect(&first).split(',').next().unwrap().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /api/v1/pools?limit=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let took = began.elapsed();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Self { child, took }
    }

    /// The memory of the process, MiB: now, and at most so far.
    fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
        };
        (value("VmRSS:"), value("VmHWM:"))
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("big.db");
    Server::start(&store).kill();
    let conn = rusqlite::Connection::open(&store).unwrap();
    conn.execute_batch(include_str!("start/fill.sql")).unwrap();
    drop(conn);
    println!("{} MiB on disk", fs::metadata(&store).unwrap().len() >> 20);
    for _ in 0..ROUNDS {
        let server = Server::start(&store);
        let (now, most) = server.memory();
        println!("first answer after {:.2?}; {now} MiB resident, {most} at most", server.took);
        server.kill();
    }
}
