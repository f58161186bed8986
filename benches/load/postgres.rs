//! PostgreSQL: how it is started, and the little of its protocol that two prepared statements need. A client library
//! would bring some twenty crates into every build of the tests, for six kinds of messages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where Debian puts its programs, one directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The role and the database of a new cluster, and the system user of Debian's package.
const POSTGRES: &str = "postgres";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS locks (lock text PRIMARY KEY, holder text NOT NULL)";
const TAKE: &str = "INSERT INTO locks VALUES ($1, $2) ON CONFLICT DO NOTHING";
const GIVE: &str = "DELETE FROM locks WHERE lock = $1";

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

/// A connection with both statements prepared for one lock.
pub struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
    take: Vec<u8>,
    give: Vec<u8>,
}

impl Session {
    pub async fn open(address: SocketAddr, lock: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (take, give) = (execute("take", &[lock, "bench"]), execute("give", &[lock]));
        let mut session = Self { stream, buffer: Vec::with_capacity(1024), take, give };
        session.say(&start()).await?;
        session.say(&message(b'Q', &[&text(TABLE)])).await?;
        session.say(&[prepare("take", TAKE), prepare("give", GIVE), sync()].concat()).await?;
        Ok(session)
    }

    pub async fn take(&mut self) -> anyhow::Result<()> {
        let request = std::mem::take(&mut self.take);
        let done = self.say(&request).await?;
        self.take = request;
        ensure!(done == "INSERT 0 1", "postgres says {done:?} of a lock that is free");
        Ok(())
    }

    pub async fn give(&mut self) -> anyhow::Result<()> {
        let request = std::mem::take(&mut self.give);
        let done = self.say(&request).await?;
        self.give = request;
        ensure!(done == "DELETE 1", "postgres says {done:?} of a lock that is held");
        Ok(())
    }

    pub async fn others(&mut self, count: u32) -> anyhow::Result<()> {
        let insert = format!("INSERT INTO locks SELECT 'other-' || n, 'bench' FROM generate_series(1, {count}) n");
        let done = self.say(&message(b'Q', &[&text(&insert)])).await?;
        ensure!(done == format!("INSERT 0 {count}"), "postgres says {done:?} of {count} locks");
        Ok(())
    }

    /// Sends messages and brings what the last command has done, such as `INSERT 0 1`, once the server is ready again.
    async fn say(&mut self, messages: &[u8]) -> anyhow::Result<String> {
        self.stream.write_all(messages).await?;
        self.buffer.clear();
        let (mut done, mut at) = (String::new(), 0);
        loop {
            while let Some((kind, content)) = first(&self.buffer[at..]) {
                at += 5 + content.len();
                match kind {
                    b'Z' => return Ok(done),
                    b'C' => done = String::from_utf8_lossy(content).trim_end_matches('\0').to_owned(),
                    b'E' => bail!("postgres refuses: {}", String::from_utf8_lossy(content).replace('\0', " ")),
                    b'R' => ensure!(content == [0; 4], "postgres asks for a password"),
                    _ => {}
                }
            }
            let got = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(got > 0, "postgres has closed the connection");
        }
    }
}

/// Kind and content of the first message, if it is whole.
fn first(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?);
    Some((bytes[0], bytes.get(5..1 + usize::try_from(length).ok()?)?))
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
