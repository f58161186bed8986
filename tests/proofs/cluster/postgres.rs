//! A PostgreSQL with a synchronous standby, behind an address that moves with the primary. One server reaches it through
//! pgbouncer in transaction mode. Its disk is small, where this user may mount one.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::campaign::Storm;
use super::faults::Fault;
use super::history::Nanos;
use super::nodes::SERVERS;
use crate::support::database::{Database as _, Killed, Postgres, REPLICATED, free_address};
use crate::support::eventually;
use crate::support::wires::Wire;

/// How large the small disk is.
const DISK: &str = "1g";
const SETTINGS: [&str; 4] = [
    "max_wal_size=64MB",
    "idle_in_transaction_session_timeout=500ms",
    "wal_sender_timeout=3s",
    "wal_retrieve_retry_interval=100ms",
];

/// The primary and its standby.
struct Pair {
    primary: Postgres,
    standby: Option<Postgres>,
}

pub struct OnPostgres {
    pair: Mutex<Pair>,
    /// The address of whoever is the primary.
    service: Wire,
    pooler: Mutex<Option<Killed>>,
    pooled: SocketAddr,
    disk: Disk,
}

/// What may happen to it.
pub const FAULTS: &[Fault] = &[
    ("PostgreSQL: kill -9", |storm| on(storm, OnPostgres::crash)),
    ("PostgreSQL: restart", |storm| on(storm, OnPostgres::restart)),
    ("PostgreSQL: connections ended", |storm| {
        let since = storm.now();
        storm.postgres().end_connections();
        since
    }),
    ("PostgreSQL: failover to the standby", |storm| on(storm, OnPostgres::fail_over)),
    ("PostgreSQL: standby lost", |storm| {
        storm.postgres().lose_standby(storm, false);
        storm.now()
    }),
    ("PostgreSQL: waits for the standby cancelled", |storm| {
        storm.postgres().lose_standby(storm, true);
        storm.now()
    }),
    ("PostgreSQL: waits cancelled, then failover", |storm| {
        storm.postgres().lose_what_was_read(storm);
        storm.now()
    }),
    ("PostgreSQL: disk full", |storm| {
        let postgres = storm.postgres();
        postgres.disk.fill();
        storm.last();
        postgres.disk.empty();
        on(storm, OnPostgres::revive)
    }),
    ("PostgreSQL: a transaction idle on the head", |storm| on(storm, OnPostgres::idle_on_the_head)),
    ("pgbouncer: kill -9", |storm| {
        let since = storm.now();
        storm.postgres().pool_again();
        since
    }),
];

fn on(storm: &Storm<'_>, happen: impl FnOnce(&OnPostgres)) -> Nanos {
    happen(storm.postgres());
    storm.now()
}

impl OnPostgres {
    pub fn start() -> Self {
        let disk = Disk::mount();
        let primary = Postgres::start_in(&disk.path(), &SETTINGS, REPLICATED);
        let service = Wire::to(primary.address());
        let pair = Mutex::new(Pair { primary, standby: None });
        let postgres = Self { pair, service, pooler: Mutex::default(), pooled: free_address(), disk };
        Self::add_standby(&mut postgres.pair());
        postgres.pool_again();
        postgres
    }

    fn pair(&self) -> MutexGuard<'_, Pair> {
        self.pair.lock().unwrap()
    }

    /// Where this server finds it.
    pub fn address(&self, server: usize) -> SocketAddr {
        if server + 1 == SERVERS { self.pooled } else { self.service.address }
    }

    /// Makes a standby, and has all commits wait for it.
    fn add_standby(pair: &mut Pair) {
        // The one before must have ended before its files are given up.
        pair.standby = None;
        pair.standby = Some(pair.primary.standby());
        // No commit is acknowledged before.
        pair.primary.until_streamed();
        pair.primary.set("synchronous_standby_names", Some("*"));
    }

    fn crash(&self) {
        let pair = self.pair();
        pair.primary.crash();
        pair.primary.until_streamed();
    }

    fn restart(&self) {
        let pair = self.pair();
        pair.primary.stop();
        pair.primary.revive();
        pair.primary.until_streamed();
    }

    fn revive(&self) {
        let mut pair = self.pair();
        pair.primary.revive();
        if let Some(standby) = &pair.standby {
            standby.revive();
        }
        if !pair.primary.is_streamed() {
            pair.primary.set("synchronous_standby_names", None);
            Self::add_standby(&mut pair);
        }
    }

    fn end_connections(&self) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.pair().primary.sql(sql);
    }

    /// The primary dies, and the standby takes its place. Then it gets a standby of its own.
    fn fail_over(&self) {
        let mut pair = self.pair();
        pair.primary.until_streamed();
        pair.primary.kill();
        self.promote(&mut pair);
    }

    fn promote(&self, pair: &mut Pair) {
        let standby = pair.standby.take().expect("a standby");
        standby.promote();
        self.service.lead_to(standby.address());
        pair.primary = standby;
        Self::add_standby(pair);
    }

    /// No commit is acknowledged, or only with a warning.
    fn lose_standby(&self, storm: &mut Storm<'_>, cancel: bool) {
        let pair = self.pair();
        pair.standby.as_ref().expect("a standby").kill();
        let until = Instant::now() + storm.a_while();
        while Instant::now() < until {
            if cancel {
                Self::cancel_waits(&pair.primary);
            }
            thread::sleep(Duration::from_millis(20));
        }
        pair.standby.as_ref().expect("a standby").revive();
        pair.primary.until_streamed();
    }

    fn cancel_waits(primary: &Postgres) {
        primary.sql("SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    }

    /// Commits can be read that the standby never gets, and then it becomes the primary.
    fn lose_what_was_read(&self, storm: &mut Storm<'_>) {
        let mut pair = self.pair();
        pair.standby.as_ref().expect("a standby").kill();
        let until = Instant::now() + storm.a_while();
        while Instant::now() < until {
            Self::cancel_waits(&pair.primary);
            thread::sleep(Duration::from_millis(5));
        }
        pair.primary.kill();
        pair.standby.as_ref().expect("a standby").revive();
        self.promote(&mut pair);
    }

    /// A transaction changes the head, and does nothing more: the database ends it.
    fn idle_on_the_head(&self) {
        let pair = self.pair();
        let schemas = pair.primary.sql("SELECT max(schemaname) FROM pg_tables WHERE tablename = 'head'");
        let mut psql =
            pair.primary.psql().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = psql.stdin.take().unwrap();
        let sql = format!("BEGIN;\nUPDATE {schemas}.head SET beat = beat + 1000;\n");
        stdin.write_all(sql.as_bytes()).unwrap();
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        // It may be over before anybody looks.
        let end = Instant::now() + Duration::from_millis(400);
        while Instant::now() < end && pair.primary.sql(idle) == "0" {
            thread::sleep(Duration::from_millis(5));
        }
        eventually("the end of an idle transaction", || pair.primary.sql(idle) == "0");
        let _ = (psql.kill(), psql.wait());
    }

    /// Starts pgbouncer, again if it runs.
    fn pool_again(&self) {
        let mut pooler = self.pooler.lock().unwrap();
        *pooler = None;
        let config = self.disk.dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\nserver_round_robin = 1\n\
             min_pool_size = 3\nserver_login_retry = 0.2\n",
            self.service.address.port(),
            self.pooled.port()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if rustix::process::geteuid().is_root() {
            command.args(["--user", "postgres"]);
        }
        *pooler = Some(Killed::start(command.arg(&config), &self.disk.dir.path().join("pgbouncer.log")));
    }
}

/// A disk that can be full: one in memory, where this user may mount it, and otherwise a directory that never is.
struct Disk {
    dir: TempDir,
    is_mounted: bool,
}

impl Disk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let disk = dir.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK},mode=0777"), "tmpfs"]).arg(&disk);
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        Self { dir, is_mounted }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("disk")
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    fn fill(&self) {
        if !self.is_mounted {
            return;
        }
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let block = vec![0; 64 * 1024];
        while ballast.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            unmount(&self.path());
        }
    }
}

fn unmount(path: &Path) {
    // What runs there was killed, and may need a moment to end.
    let unmounted = Command::new("umount").arg("-l").arg(path).status();
    assert!(unmounted.is_ok_and(|status| status.success()), "{} is still mounted", path.display());
}
