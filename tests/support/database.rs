//! Real databases on free ports of this machine: PostgreSQL and etcd, as Debian packages them. They can be killed, started
//! again, saved and set back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::wait::eventually;

/// Where Debian puts the programs of PostgreSQL, one directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Who may connect to a PostgreSQL that has standbys, or of which backups are made.
pub const REPLICATED: &str = "host all all 127.0.0.1/32 trust\nlocal replication all trust\n";
/// The system user and the superuser: PostgreSQL refuses to run as root.
const POSTGRES: &str = "postgres";

/// Ports that Linux gives to no connection, so that one of them stays free while its server is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).unwrap();
        let port = PORTS.start + u16::from_le_bytes(bytes) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// A process that is killed with its owner.
pub struct Killed(pub Child);

impl Killed {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A database of either kind.
pub trait Database: Send + Sync {
    fn address(&self) -> SocketAddr;

    /// Kills it and starts it again on the same files.
    fn crash(&self);

    /// Keeps a copy of its files, as of a moment at which it does not run.
    fn save(&self);

    /// Sets it back to that copy.
    fn set_back(&self);
}

/// The files, the process, and how it is started.
struct Machine {
    dir: TempDir,
    address: SocketAddr,
    process: Mutex<Option<Killed>>,
}

impl Machine {
    fn new(dir: TempDir) -> Self {
        Self { dir, address: free_address(), process: Mutex::default() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn saved(&self) -> PathBuf {
        self.dir.path().join("saved")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Starts it as often as needed: what an earlier process has left may be in the way for a moment.
    fn start(&self, command: impl Fn() -> Command, is_up: impl Fn() -> bool) {
        let mut process = self.process.lock().unwrap();
        *process = Some(Killed::start(&mut command(), &self.log()));
        eventually(&format!("a database that is up ({})", self.log().display()), || {
            let ended = process.as_mut().unwrap().0.try_wait().unwrap();
            if ended.is_some() {
                *process = Some(Killed::start(&mut command(), &self.log()));
            }
            is_up()
        });
    }

    fn kill(&self) {
        *self.process.lock().unwrap() = None;
    }

    fn has_ended(&self) -> bool {
        self.process.lock().unwrap().as_mut().is_none_or(|process| process.0.try_wait().unwrap().is_some())
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        if let Some(process) = self.process.lock().unwrap().as_ref() {
            // It may have ended already.
            let _ = nix::sys::signal::kill(process.pid(), signal);
        }
    }

    fn copy(from: &Path, to: &Path) {
        let _ = std::fs::remove_dir_all(to);
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }
}

/// One PostgreSQL.
pub struct Postgres {
    machine: Machine,
    settings: Vec<String>,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[], "host all all 127.0.0.1/32 trust\n")
    }

    /// With settings (`name=value`) and rules for who may connect over TCP.
    pub fn start_with(settings: &[&str], rules: &str) -> Self {
        Self::start_in(&std::env::temp_dir(), settings, rules)
    }

    /// The same, with its files somewhere in this directory.
    pub fn start_in(place: &Path, settings: &[&str], rules: &str) -> Self {
        let machine = Machine::new(tempfile::tempdir_in(place).unwrap());
        let postgres = Self { machine, settings: settings.iter().map(|setting| (*setting).to_owned()).collect() };
        let dir = postgres.machine.dir.path();
        give(dir);
        let mut init = program("initdb");
        init.args(["--username", POSTGRES, "--auth", "trust", "--no-sync", "--no-locale", "-E", "UTF8", "--pgdata"]);
        let made = init.arg(postgres.machine.data()).current_dir(dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = format!("local all all trust\n{rules}");
        std::fs::write(postgres.machine.data().join("pg_hba.conf"), rules).unwrap();
        postgres.run();
        postgres
    }

    fn run(&self) {
        let Machine { dir, address, .. } = &self.machine;
        let command = || {
            let mut serve = program("postgres");
            serve.current_dir(dir.path()).arg("-D").arg(self.machine.data()).args(["-p", &address.port().to_string()]);
            serve.arg("-k").arg(dir.path()).args(["-c", "listen_addresses=127.0.0.1"]);
            for setting in &self.settings {
                serve.args(["-c", setting]);
            }
            serve
        };
        self.machine.start(command, || self.try_sql("SELECT 1").is_ok());
    }

    /// A standby that streams from this one, with its files beside this one's.
    pub fn standby(&self) -> Self {
        let place = self.machine.dir.path().parent().unwrap();
        let machine = Machine::new(tempfile::tempdir_in(place).unwrap());
        give(machine.dir.path());
        let made = self.backup(&machine).arg("-R").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let standby = Self { machine, settings: self.settings.clone() };
        standby.run();
        standby
    }

    /// A copy of its files that takes minutes, and the directory that it goes to.
    pub fn slow_backup(&self) -> (Killed, TempDir) {
        let machine = Machine::new(tempfile::tempdir().unwrap());
        give(machine.dir.path());
        let log = machine.dir.path().join("backup.log");
        let copy = Killed::start(self.backup(&machine).arg("--max-rate=32k"), &log);
        (copy, machine.dir)
    }

    fn backup(&self, to: &Machine) -> Command {
        let mut copy = program("pg_basebackup");
        copy.current_dir(to.dir.path()).args(["-U", POSTGRES, "-X", "stream", "-c", "fast", "--no-sync"]);
        let port = self.machine.address.port().to_string();
        copy.arg("-h").arg(self.machine.dir.path()).args(["-p", &port, "-D"]).arg(to.data());
        copy
    }

    /// Whether a standby streams from it, soon.
    pub fn is_streamed(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        while Instant::now() < end {
            if self.try_sql(streams).is_ok_and(|n| n == "1") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn until_streamed(&self) {
        eventually("a standby that streams", || self.is_streamed());
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        // What it still replays may get in the way of a query.
        eventually("a primary", || {
            let _ = self.try_sql("SELECT pg_promote()");
            self.try_sql("SELECT NOT pg_is_in_recovery()").is_ok_and(|is_primary| is_primary == "t")
        });
    }

    /// Sets a setting for all, or resets it.
    pub fn set(&self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.sql(&format!("ALTER SYSTEM SET {name} = '{value}'")),
            None => self.sql(&format!("ALTER SYSTEM RESET {name}")),
        };
        self.sql("SELECT pg_reload_conf()");
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.machine.kill();
    }

    /// Stops it in order, without waiting for its clients.
    pub fn stop(&self) {
        self.machine.signal(nix::sys::signal::Signal::SIGINT);
        eventually("a database that has stopped", || self.machine.has_ended());
    }

    /// Starts it if it has ended, and waits until it answers.
    pub fn revive(&self) {
        eventually("a database that answers", || {
            if self.machine.has_ended() {
                self.run();
            }
            self.try_sql("SELECT 1").is_ok()
        });
    }

    /// A file that the server can read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.machine.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        give(&path);
        path
    }

    /// Runs SQL as the superuser, through the socket in its directory, and returns what it prints.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let done = self.psql().args(["-qAtc", sql]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// `psql` as the superuser.
    pub fn psql(&self) -> Command {
        let mut psql = Command::new(programs().join("psql"));
        psql.env_clear().args(["-X", "-v", "ON_ERROR_STOP=1", "-U", POSTGRES, "-d", POSTGRES, "-h"]);
        psql.arg(self.machine.dir.path()).args(["-p", &self.machine.address.port().to_string()]);
        psql
    }
}

impl Database for Postgres {
    fn address(&self) -> SocketAddr {
        self.machine.address
    }

    fn crash(&self) {
        self.machine.kill();
        self.run();
    }

    fn save(&self) {
        self.machine.kill();
        Machine::copy(&self.machine.data(), &self.machine.saved());
        self.run();
    }

    fn set_back(&self) {
        self.machine.kill();
        // Its last processes may still write for a moment; these files are not used again.
        let old = self.machine.dir.path().join("old");
        let _ = std::fs::remove_dir_all(&old);
        std::fs::rename(self.machine.data(), old).unwrap();
        Machine::copy(&self.machine.saved(), &self.machine.data());
        self.run();
    }
}

/// The directory of the newest version's programs.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let versions = std::fs::read_dir(VERSIONS).expect("PostgreSQL is needed here: apt-get install postgresql");
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        versions.filter_map(Result::ok).map(|entry| entry.path()).max_by_key(number).unwrap().join("bin")
    })
}

/// A program that is not run as root.
fn program(name: &str) -> Command {
    let path = programs().join(name);
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", POSTGRES, "--regid", POSTGRES, "--clear-groups", "--"]).arg(path);
    command
}

fn give(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").arg(format!("{POSTGRES}:")).arg(path).status().unwrap();
        assert!(given.success(), "{} cannot be given to {POSTGRES}", path.display());
    }
}

/// One member of an etcd, which may be its only one.
pub struct Etcd {
    machine: Machine,
    arguments: Vec<String>,
    /// Of its next start only.
    extra: Mutex<Vec<String>>,
    scheme: &'static str,
}

impl Etcd {
    /// An etcd of one member.
    pub fn start() -> Self {
        Self::start_with(&[], "http")
    }

    /// The same with more arguments; `scheme` is that of its clients.
    pub fn start_with(arguments: &[&str], scheme: &'static str) -> Self {
        let peers = format!("http://{}", free_address());
        let cluster = format!("default={peers}");
        let mut all = vec!["--name", "default", "--initial-cluster", &cluster, "--listen-peer-urls", &peers];
        all.extend(["--initial-advertise-peer-urls", &peers]);
        all.extend(arguments);
        let etcd = Self::member(&all, scheme);
        etcd.run(|| etcd.is_healthy());
        etcd
    }

    /// An etcd of three members.
    pub fn start_three(arguments: &[&str]) -> Vec<Self> {
        let peers: Vec<String> = (0..3).map(|_| format!("http://{}", free_address())).collect();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(n, url)| format!("m{n}={url}")).collect();
        let cluster = cluster.join(",");
        let member = |(n, url): (usize, &String)| {
            let name = format!("m{n}");
            let mut all = vec!["--name", &name, "--initial-cluster", &cluster, "--listen-peer-urls", url];
            all.extend(["--initial-advertise-peer-urls", url]);
            all.extend(arguments);
            Self::member(&all, "http")
        };
        let members: Vec<Self> = peers.iter().enumerate().map(member).collect();
        members.iter().for_each(|member| member.run(|| true));
        eventually("three members", || members.iter().all(Self::is_healthy));
        members
    }

    fn member(arguments: &[&str], scheme: &'static str) -> Self {
        let machine = Machine::new(tempfile::tempdir().unwrap());
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        Self { machine, arguments, extra: Mutex::default(), scheme }
    }

    fn run(&self, is_up: impl Fn() -> bool) {
        let url = format!("{}://{}", self.scheme, self.machine.address);
        let command = || {
            let mut serve = Command::new("etcd");
            serve.env_clear().env("PATH", "/usr/bin:/bin").arg("--data-dir").arg(self.machine.data());
            serve.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]).args(&self.arguments);
            serve.args(&*self.extra.lock().unwrap());
            // Three members on a busy machine must not lose their leader for nothing.
            serve.args(["--heartbeat-interval", "200", "--election-timeout", "2000", "--log-level", "error"]);
            serve
        };
        self.machine.start(command, is_up);
    }

    pub fn is_healthy(&self) -> bool {
        if self.scheme == "https" {
            return TcpStream::connect(self.machine.address).is_ok();
        }
        let url = format!("http://{}/health", self.machine.address);
        ureq::get(&url)
            .config()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .call()
            .is_ok_and(|mut answer| answer.body_mut().read_to_string().is_ok_and(|text| text.contains(r#""true""#)))
    }

    /// Runs `etcdctl`, and returns what it prints.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        self.try_etcdctl(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    pub fn try_etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("ETCDCTL_API", "3");
        command.arg("--endpoints").arg(format!("{}://{}", self.scheme, self.machine.address)).args(arguments);
        let done = command.output().unwrap();
        if done.status.success() {
            return Ok(String::from_utf8(done.stdout).unwrap());
        }
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }

    pub fn kill(&self) {
        self.machine.kill();
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        self.machine.signal(signal);
    }

    /// Starts it again, if it was killed. `extra` arguments count until its next start.
    pub fn again(&self, extra: &[&str]) {
        *self.extra.lock().unwrap() = extra.iter().map(|text| (*text).to_owned()).collect();
        self.run(|| true);
    }

    /// Whether it answers, with a quorum, also while it is full.
    pub fn answers(&self) -> bool {
        let mut command = Command::new("etcdctl");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("ETCDCTL_API", "3").args([
            "--command-timeout=2s",
            "get",
            "x",
        ]);
        command.arg("--endpoints").arg(format!("{}://{}", self.scheme, self.machine.address));
        command.output().is_ok_and(|done| done.status.success())
    }

    /// Whether it is the members' leader.
    pub fn leads(&self) -> bool {
        let url = format!("http://{}/v3/maintenance/status", self.machine.address);
        let answer =
            ureq::post(&url).config().timeout_global(Some(std::time::Duration::from_secs(2))).build().send("{}");
        let Ok(text) = answer.and_then(|mut answer| answer.body_mut().read_to_string()) else { return false };
        let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
    }
}

impl Database for Etcd {
    fn address(&self) -> SocketAddr {
        self.machine.address
    }

    fn crash(&self) {
        self.machine.kill();
        self.run(|| self.is_healthy());
    }

    fn save(&self) {
        self.machine.kill();
        Machine::copy(&self.machine.data(), &self.machine.saved());
        self.run(|| self.is_healthy());
    }

    fn set_back(&self) {
        self.machine.kill();
        Machine::copy(&self.machine.saved(), &self.machine.data());
        self.run(|| self.is_healthy());
    }
}
