//! What one `check` costs as Concourse runs it: a process that starts, asks once and ends. Prints the median wall time
//! and the largest resident set, next to those of `bash -c 'curl | jq'` doing the same. Run it with `cargo bench
//! --bench check`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints, and fails by panicking"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// Runs of each kind.
const RUNS: usize = 100;
const PIPELINE: &str = r#"curl -fsS "$URL/api/v1/pools/p/changes?versions=true&newest=true&limit=1" |
    jq -c '[.items[] | {ref: (.revision | tostring)}]'"#;

struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locker"));
    command.args(["server", "--store", "memory:", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let url = first.split(" listening on ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    std::thread::spawn(move || lines.for_each(drop));
    Server { child, url }
}

/// One command, its input, and what it printed.
fn run(kind: &str, dir: &Path, url: &str) -> String {
    let mut command = match kind {
        "locker" => Command::new(dir.join("check")),
        _ => Command::new("bash"),
    };
    if kind != "locker" {
        command.args(["-c", PIPELINE]);
    }
    let payload = format!(r#"{{"source":{{"locker_uri":"{url}","pool":"p"}}}}"#);
    let mut child = command.env("URL", url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The pipeline does not read its input.
    let _ = child.stdin.take().unwrap().write_all(payload.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{kind} failed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs in a separate process, because the system records only the largest memory of all children.
fn measure(kind: &str, dir: &Path, url: &str) {
    let mut spans: Vec<Duration> = Vec::with_capacity(RUNS);
    let mut printed = String::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        printed = run(kind, dir, url);
        spans.push(start.elapsed());
    }
    spans.sort_unstable();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    let (median, p95) = (spans[RUNS / 2], spans[RUNS * 95 / 100]);
    println!("{kind:<14} median {median:>9.2?}   95% {p95:>9.2?}   peak memory {peak:>6} KiB   {printed}");
}

fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, kind, dir, url] = args.as_slice()
        && flag == "--measure"
    {
        return measure(kind, Path::new(dir), url);
    }
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_locker"), dir.path().join("check")).unwrap();
    let added = Command::new(env!("CARGO_BIN_EXE_locker"))
        .args(["lock", "add", "p", "env"])
        .env("LOCKER_URI", &server.url)
        .stdout(Stdio::null())
        .status();
    assert!(added.unwrap().success());
    println!("check against {}, {RUNS} runs each, one after the other", server.url);
    for kind in ["locker", "bash curl jq"] {
        let missing: Vec<&str> = match kind {
            "locker" => Vec::new(),
            _ => ["bash", "curl", "jq"].into_iter().filter(|tool| !is_installed(tool)).collect(),
        };
        if !missing.is_empty() {
            println!("{kind:<14} left out: {} is not installed", missing.join(", "));
            continue;
        }
        let me = Command::new(&args[0]).args(["--measure", kind]).arg(dir.path()).arg(&server.url).status();
        assert!(me.unwrap().success(), "{kind}");
    }
}
