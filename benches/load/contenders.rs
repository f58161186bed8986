//! Who runs cycles, on the same machine in the same run: Locker on each of its stores, and Redis, etcd and PostgreSQL,
//! where they are installed (`apt-get install redis-server etcd-server postgresql`). Each but Locker in memory has a write
//! on disk before it answers. The peers keep no queue and no history.

use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::support::{Server, Setup, eventually};
use super::{cpu_time, postgres};

/// Bytes of a log that are read at once.
const LOG: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    Memory,
    /// One server on a shared store of its own: a [`Contender::Etcd`] or a [`Contender::Postgres`] below it.
    Etcd,
    Postgres,
}

impl Store {
    pub fn setup(self, directory: &Path) -> Setup {
        match self {
            Self::Sqlite => Setup::sqlite(directory),
            Self::Memory => Setup::memory(),
            Self::Etcd | Self::Postgres => unreachable!("what is below is started first"),
        }
    }

    /// What is below it, if that is a contender.
    pub fn below(self) -> Option<Contender> {
        match self {
            Self::Sqlite | Self::Memory => None,
            Self::Etcd => Some(Contender::Etcd),
            Self::Postgres => Some(Contender::Postgres),
        }
    }

    fn setup_above(self, below: SocketAddr, directory: &Path) -> Setup {
        let store = match self {
            Self::Etcd => format!("etcd:{below}?tls=off"),
            _ => format!("postgres://postgres@{below}/postgres?sslmode=disable"),
        };
        Setup { store, ..Setup::memory() }.flag("--cache", &directory.display().to_string())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "locker on SQLite",
            Self::Memory => "locker in memory",
            Self::Etcd => "locker on etcd",
            Self::Postgres => "locker on PostgreSQL",
        }
    }
}

impl FromStr for Store {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            "memory" => Ok(Self::Memory),
            "etcd" => Ok(Self::Etcd),
            "postgres" => Ok(Self::Postgres),
            _ => anyhow::bail!(
                "LOCKER_BENCH_STORES: {name:?} is not a store: there are sqlite, memory, etcd and postgres"
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Locker(Store),
    Redis,
    Etcd,
    Postgres,
}

impl Contender {
    pub const PEERS: [Self; 3] = [Self::Redis, Self::Etcd, Self::Postgres];

    pub fn name(self) -> &'static str {
        match self {
            Self::Locker(store) => store.name(),
            Self::Redis => "redis, appendfsync always",
            Self::Etcd => "etcd, one node, JSON gateway",
            Self::Postgres => "postgres, synchronous_commit on",
        }
    }

    pub fn cycle(self) -> &'static str {
        match self {
            Self::Locker(_) => "claim + release",
            Self::Redis => "SET NX PX + DEL",
            Self::Etcd => "put if absent + delete",
            Self::Postgres => "INSERT ON CONFLICT + DELETE",
        }
    }

    /// Starts it on an empty store; `None` if it is not installed. It may not serve yet.
    pub fn start(self) -> anyhow::Result<Option<Running>> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let address = free_address()?;
        let below = match self {
            Self::Locker(store) => match store.below().map(Self::start).transpose()? {
                Some(None) => return Ok(None),
                below => below.flatten(),
            },
            _ => None,
        };
        let command = match (self, &below) {
            (Self::Locker(store), Some(below)) => {
                let setup = store.setup_above(below.address, directory.path());
                Some(setup.flag("--listen", &address.to_string()).command())
            }
            _ => self.command(address, directory.path())?,
        };
        let Some(mut command) = command else { return Ok(None) };
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
            Ok(mut child) => {
                // Locker writes four lines for each cycle, and somebody reads them, as everywhere.
                let log = BufReader::with_capacity(LOG, child.stderr.take().expect("it is piped"));
                std::thread::spawn(move || std::io::copy(&mut { log }, &mut std::io::sink()));
                let mut followers = Vec::new();
                if let (Self::Locker(store), Some(below)) = (self, &below) {
                    eventually("it leads", || ureq::get(&format!("http://{address}/readyz")).call().is_ok());
                    let setup = store.setup_above(below.address, directory.path());
                    followers = (0..followers_asked_for()?).map(|_| Server::start_as(&setup)).collect();
                }
                let below = below.map(Box::new);
                Ok(Some(Running { address, contender: self, child, followers, below, _directory: directory }))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn command(self, address: SocketAddr, directory: &Path) -> anyhow::Result<Option<Command>> {
        Ok(match self {
            Self::Locker(store) => Some(store.setup(directory).flag("--listen", &address.to_string()).command()),
            Self::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1"]);
                command.arg("--port").arg(address.port().to_string()).arg("--dir").arg(directory);
                Some(command)
            }
            Self::Etcd => {
                let mut command = Command::new("etcd");
                let (clients, peers) = (format!("http://{address}"), format!("http://{}", free_address()?));
                command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
                command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
                command.args(["--initial-cluster", &format!("default={peers}"), "--data-dir"]).arg(directory);
                Some(command)
            }
            Self::Postgres => postgres::command(address, directory)?,
        })
    }
}

/// How many servers are to follow each one on a shared store.
fn followers_asked_for() -> anyhow::Result<usize> {
    std::env::var("LOCKER_BENCH_FOLLOWERS").ok().map_or(Ok(0), |text| Ok(text.parse()?))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A contender that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    contender: Contender,
    child: Child,
    /// Servers that follow this one.
    followers: Vec<Server>,
    below: Option<Box<Running>>,
    _directory: TempDir,
}

impl Running {
    /// User and system time of its process; `None` if it has many.
    pub fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        let is_one = self.contender != Contender::Postgres;
        is_one.then(|| cpu_time(self.child.id())).transpose()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.followers.clear();
        // Not SIGKILL: processes of PostgreSQL would outlive their parent. It may have ended already.
        let _ = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGINT));
        let _ = self.child.wait();
        drop(self.below.take());
    }
}
