//! PostgreSQL: how it is started, and the little of its protocol that two prepared statements need. A client library
//! would bring some twenty crates into every build of the tests, for six kinds of messages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;

use super::taker::{Expected, Step};

/// Where Debian puts its programs, one directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The role and the database of a new cluster, and the system user of Debian's package.
const POSTGRES: &str = "postgres";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS locks (lock text PRIMARY KEY, holder text NOT NULL)";
const TAKE: &str = "INSERT INTO locks VALUES ($1, $2) ON CONFLICT DO NOTHING";
const GIVE: &str = "DELETE FROM locks WHERE lock = $1";

/// An error shows in the answers that follow.
const ANYTHING: Expected = Expected { begins: b"", has: b"" };

/// Makes a cluster in this directory and brings the command that serves it, if it is installed. It refuses to run as root.
pub fn command(address: SocketAddr, directory: &Path) -> anyhow::Result<Option<Command>> {
    let Some(programs) = programs() else { return Ok(None) };
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        let owned = Command::new("chown").arg(POSTGRES).arg(directory).status()?;
        ensure!(owned.success(), "{} cannot be given to {POSTGRES}", directory.display());
    }
    let program = |name: &str| {
        let path = programs.join(name);
        if !is_root {
            return Command::new(path);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", POSTGRES, "--regid", POSTGRES, "--clear-groups", "--"]).arg(path);
        command
    };
    let data = directory.join("data");
    let mut init = program("initdb");
    init.args(["--username", POSTGRES, "--auth", "trust", "--no-sync", "--no-locale", "--pgdata"]).arg(&data);
    let made = init.current_dir(directory).stdin(Stdio::null()).output()?;
    ensure!(made.status.success(), "initdb has failed: {}", String::from_utf8_lossy(&made.stderr));
    let mut serve = program("postgres");
    serve.current_dir(directory).arg("-D").arg(data).args(["-p", &address.port().to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
        "fsync=on",
        "synchronous_commit=on",
    ] {
        serve.args(["-c", setting]);
    }
    Ok(Some(serve))
}

/// The programs of the newest version, if the server is among them.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.max_by_key(number)?;
    Some(newest.join("bin")).filter(|programs| programs.join("postgres").exists())
}

/// What a connection says first, until both statements are prepared.
pub fn greetings() -> [Step; 3] {
    let prepared = [prepare("take", TAKE), prepare("give", GIVE), sync()].concat();
    [start(), message(b'Q', &[&text(TABLE)]), prepared].map(|greeting| Step::new(greeting, ANYTHING))
}

/// Takes a lock, gives it back.
pub fn steps(lock: &str) -> [Step; 2] {
    let says = |has| Expected { begins: b"", has };
    [
        Step::new(execute("take", &[lock, "bench"]), says(b"INSERT 0 1\0")),
        Step::new(execute("give", &[lock]), says(b"DELETE 1\0")),
    ]
}

pub fn others(count: u32) -> Vec<Step> {
    let insert = format!("INSERT INTO locks SELECT 'other-' || n, 'bench' FROM generate_series(1, {count}) n");
    vec![Step::new(message(b'Q', &[&text(&insert)]), ANYTHING)]
}

/// Whether these messages end with the one that says that the server is ready again.
pub fn is_ready(mut bytes: &[u8]) -> bool {
    let mut last = 0;
    while let Some(length) = bytes.get(1..5).and_then(|length| length.first_chunk()) {
        let Some(rest) = bytes.get(1 + u32::from_be_bytes(*length) as usize..) else { return false };
        (last, bytes) = (bytes[0], rest);
    }
    last == b'Z' && bytes.is_empty()
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[kind], &number(4 + content.len())[..], &content].concat()
}

/// The one message without a kind: version 3.0 of the protocol, and who asks for which database.
fn start() -> Vec<u8> {
    let settings = ["user", POSTGRES, "database", POSTGRES].map(text).concat();
    [&number(4 + 4 + settings.len() + 1)[..], &[0, 3, 0, 0], &settings, b"\0"].concat()
}

fn prepare(name: &str, statement: &str) -> Vec<u8> {
    // Its parameters have the types that the server infers.
    message(b'P', &[&text(name), &text(statement), &[0, 0]])
}

/// Runs a prepared statement: bind, execute, sync. Values and results are text.
fn execute(name: &str, values: &[&str]) -> Vec<u8> {
    let count = u8::try_from(values.len()).expect("a few values");
    let values: Vec<u8> =
        values.iter().flat_map(|value| [&number(value.len())[..], value.as_bytes()].concat()).collect();
    let bind = message(b'B', &[b"\0", &text(name), &[0, 0, 0, count], &values, &[0, 0]]);
    [bind, message(b'E', &[b"\0", &number(0)]), sync()].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn number(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("a short message").to_be_bytes()
}
