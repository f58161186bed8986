//! What is special about PostgreSQL: what it must promise, who blocks the head, and how it is reached.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use locker::core::time::EngineMs;
use locker::store::log::head::{Id, Seq, Write};
use locker::store::log::postgres::PostgresLog;
use locker::store::log::{Cause, Log, Manifest, Trouble, Written};

use super::contract::{SPAN, append, done, leader, record, take};
use crate::support::certs::Ca;
use crate::support::database::{Database as _, Killed, Postgres, REPLICATED, free_address};
use crate::support::eventually;

/// How long a call may take. A new database on a busy machine needs a while for its first ones.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(address: &str) -> Result<PostgresLog, Trouble> {
    PostgresLog::open(address.parse().unwrap(), PATIENCE)
}

fn url(postgres: &Postgres, schema: &str) -> String {
    format!("postgres://postgres@{}/postgres?sslmode=disable&schema={schema}", postgres.address())
}

/// A backup streams, too, but nobody makes a primary of it.
#[test]
fn only_a_standby_counts_as_one() {
    let postgres = Postgres::start_with(&[], REPLICATED);
    postgres.sql("CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE postgres TO plain");
    let opened = |user: &str| open(&url(&postgres, user).replace("postgres@", &format!("{user}@"))).unwrap();
    // Only one of them may see what a connection does.
    let mut logs = ["postgres", "plain"].map(opened);
    let mut standbys = || logs.each_mut().map(|log| log.room().unwrap().async_standbys);
    let count = |condition: &str| postgres.sql(&format!("SELECT count(*) FROM pg_stat_replication WHERE {condition}"));
    let (backup, _files) = postgres.slow_backup();
    eventually("a backup", || (count("state = 'backup'") == "1" && count("state = 'streaming'") == "1").then_some(()));
    let [seen, _] = standbys();
    assert_eq!(seen, 0);
    // It is two processes.
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    drop(backup);
    eventually("the end of the backup", || (count("true") == "0").then_some(()));
    let _standby = postgres.standby();
    postgres.until_streamed();
    assert_eq!(standbys(), [1, 1]);
}

/// Whichever host is named first, and whatever has become of it.
#[test]
fn the_primary_is_found_among_the_hosts() {
    let postgres = Postgres::start_with(&[], REPLICATED);
    let standby = postgres.standby();
    // It accepts connections and never answers, like a machine that stands still.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent, nobody) = (listener.local_addr().unwrap(), free_address());
    let open = |hosts: &[SocketAddr]| {
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let url = format!("postgres://postgres@{}/postgres?sslmode=disable&schema=h", hosts.join(","));
        PostgresLog::open(url.parse().unwrap(), Duration::from_secs(10))
    };
    let mut log = open(&[postgres.address(), standby.address()]).unwrap();
    for (before, run) in [standby.address(), nobody, silent].into_iter().zip(1..) {
        let mut log = open(&[before, postgres.address()]).unwrap_or_else(|trouble| panic!("after {before}: {trouble}"));
        take(&mut log, run);
    }
    let alone = open(&[standby.address()]).unwrap_err();
    assert_eq!((alone.cause, &*alone.text), (Cause::NotPrimary, "name the primary"));
    let none = open(&[standby.address(), nobody]).unwrap_err();
    assert!(none.cause == Cause::NotPrimary && none.text.contains("name the primary; 127.0.0.1 port"), "{none}");
    // What was open finds the new primary, also when the old one comes back as a standby.
    take(&mut log, 4);
    postgres.until_streamed();
    postgres.stop();
    standby.promote();
    eventually("the new primary", || log.head().is_ok());
    take(&mut log, 5);
}

#[test]
fn a_socket_of_this_machine_needs_no_tls() {
    let postgres = Postgres::start();
    let directory = postgres.file("empty", "").parent().unwrap().display().to_string();
    let address = format!("postgres://postgres@/postgres?host={directory}&port={}", postgres.address().port());
    take(&mut open(&address).unwrap(), 1);
}

/// One database for everything that needs no settings of its own.
#[test]
fn a_postgres_that_may_lose_something_is_refused() {
    let postgres = Postgres::start();
    let cases = [
        ("synchronous_commit", "off", "synchronous_commit"),
        ("synchronous_commit", "local", "synchronous_commit"),
        ("statement_timeout", "5000", "statement_timeout"),
        ("default_transaction_isolation", "serializable", "isolation"),
    ];
    postgres.sql("CREATE ROLE app LOGIN SUPERUSER");
    let refused = url(&postgres, "refused").replace("postgres@", "app@");
    for (setting, value, named) in cases {
        postgres.sql(&format!("ALTER ROLE app SET {setting} = '{value}'"));
        let trouble = open(&refused).unwrap_err();
        assert!(trouble.cause == Cause::Unsafe && trouble.text.contains(named), "{setting}: {trouble}");
        // What it advises helps.
        let advice = trouble.text.find("ALTER ROLE").expect("advice");
        postgres.sql(&trouble.text[advice..]);
        open(&refused).unwrap();
    }
    postgres.sql("ALTER ROLE app SET default_transaction_read_only = on");
    assert_eq!(open(&refused).unwrap_err().cause, Cause::NotPrimary);
    let mut log = open(&url(&postgres, "refused")).unwrap();
    postgres.sql("UPDATE refused.format SET version = 2");
    let trouble = open(&url(&postgres, "refused")).unwrap_err();
    assert!(trouble.cause == Cause::Damaged && trouble.text.contains("format 2"), "{trouble}");
    // A handle that is open says what is wrong with what it reads.
    take(&mut log, 1);
    postgres.sql("UPDATE refused.head SET run = 'x'");
    assert_eq!(log.head().unwrap_err().cause, Cause::Damaged);
    // Many make the tables at once, and one log knows nothing of another.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| open(&url(&postgres, "many")).unwrap());
        }
    });
    take(&mut open(&url(&postgres, "many")).unwrap(), 1);
    assert_eq!(open(&url(&postgres, "another")).unwrap().head().unwrap(), None);
    // A user without rights on the database uses a schema that was made for it.
    postgres.sql("CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA many TO guest");
    postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA many TO guest");
    let guest = |schema| url(&postgres, schema).replace("postgres@", "guest@");
    let trouble = open(&guest("forbidden")).unwrap_err();
    assert_eq!(trouble.cause, Cause::Denied, "{trouble}");
    take(&mut open(&guest("many")).unwrap(), 2);
}

#[test]
fn a_warning_means_that_nobody_knows() {
    // No standby of this name ever comes, so every commit waits for it.
    let postgres = Postgres::start();
    let (mut log, mut other) = (open(&url(&postgres, "w")).unwrap(), open(&url(&postgres, "w")).unwrap());
    let at = take(&mut log, 1);
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    postgres.sql("SELECT pg_reload_conf()");
    eventually("commits that wait", || postgres.sql("SHOW synchronous_standby_names") == "nobody");
    let record = record(at, 11, b"one");
    let write = Write::append(at, &record, EngineMs(0));
    let outcome = std::thread::scope(|scope| {
        let writes = scope.spawn(|| log.write(&write));
        // A session that waits is cancelled, by an operator or by a limit of time.
        eventually("a wait for the standby", || {
            let sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            postgres.sql(sql) == "1"
        });
        writes.join().unwrap()
    });
    let trouble = outcome.unwrap_err();
    assert!(trouble.cause == Cause::Unsafe && trouble.text.contains("canceling wait"), "{trouble}");
    // It can be read, and proves nothing: only an acknowledged beat behind it does.
    let head = other.head().unwrap().unwrap();
    assert_eq!(head.place(), at.after(&record));
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names");
    postgres.sql("SELECT pg_reload_conf()");
    done(&mut other, &Write::beat(at.after(&record), SPAN, EngineMs(0)));
}

#[test]
fn whoever_blocks_the_head_is_ended() {
    let postgres = Postgres::start();
    let mut log = open(&url(&postgres, "b")).unwrap();
    let at = take(&mut log, 1);
    append(&mut log, at, 11, b"one");
    let seen = log.head().unwrap();
    // A transaction that is open, like that of a client that was cut off in the middle of its message.
    let mut blocks = postgres.psql();
    blocks.args(["-c", "BEGIN", "-c", "UPDATE b.head SET beat = 99", "-c", "SELECT pg_sleep(600)"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let blocks = Killed::start(&mut blocks, file.path());
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually("a transaction that holds the head", || postgres.sql(sleeping) == "1");
    let taken = done(&mut log, &Write::take_over(seen, leader(2), SPAN));
    assert_eq!(taken.term, 2);
    assert_eq!(postgres.sql(sleeping), "0");
    drop(blocks);
    // A connection that has ended is noticed at once, and the next call has a new one.
    postgres.crash();
    let trouble = log.head().unwrap_err();
    assert!(trouble.cause == Cause::NoAnswer && !trouble.text.contains("nothing for"), "{trouble}");
    assert_eq!(log.head().unwrap(), Some(taken));
}

#[test]
fn tls_passwords_and_client_certificates() {
    let (ca, other) = (Ca::new("one"), Ca::new("other"));
    let server = ca.issue(&["localhost", "127.0.0.1"], "server");
    let (mine, strange) = (ca.issue(&[], "ci"), other.issue(&[], "ci"));
    // Its files are named relative to its directory of data, and made below.
    let rules = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
    let files = [
        "ssl_cert_file=../server.pem",
        "ssl_key_file=../server.key",
        "ssl_ca_file=../ca.pem",
        "password_encryption=scram-sha-256",
    ];
    let postgres = Postgres::start_with(&files, rules);
    postgres.file("server.pem", &server.cert);
    postgres.file("server.key", &server.key);
    let file = |name: &str, text: &str| postgres.file(name, text).display().to_string();
    let (ca_file, other_file) = (file("ca.pem", &ca.pem()), file("other.pem", &other.pem()));
    let (cert, key) = (file("ci.pem", &mine.cert), file("ci.key", &mine.key));
    let (bad_cert, bad_key) = (file("bad.pem", &strange.cert), file("bad.key", &strange.key));
    let (right, wrong) = (file("right", "hunter2\n"), file("wrong", "hunter3\n"));
    postgres.sql("CREATE ROLE ci LOGIN PASSWORD 'hunter2'; GRANT CREATE ON DATABASE postgres TO ci");
    postgres.sql("ALTER SYSTEM SET ssl = on");
    postgres.crash();
    let base = format!("postgres://ci@localhost:{}/postgres?hostaddr=127.0.0.1", postgres.address().port());
    let whole = |ca: &str, cert: &str, key: &str, password: &str| {
        format!("{base}&sslrootcert={ca}&sslcert={cert}&sslkey={key}&password_file={password}")
    };
    take(&mut open(&whole(&ca_file, &cert, &key, &right)).unwrap(), 1);
    let cases = [
        (whole(&ca_file, &cert, &key, &wrong), Cause::Denied, "password authentication failed"),
        (whole(&other_file, &cert, &key, &right), Cause::NoAnswer, "certificate"),
        (whole(&ca_file, &bad_cert, &bad_key, &right), Cause::NoAnswer, ""),
        (whole(&ca_file, "/nowhere", &key, &right), Cause::Failed, "/nowhere"),
        (format!("{base}&sslmode=disable"), Cause::Denied, "no pg_hba.conf entry"),
    ];
    for (address, cause, text) in cases {
        let trouble = open(&address).unwrap_err();
        assert!(trouble.cause == cause && trouble.text.contains(text), "{address}: {trouble}");
        assert!(!trouble.text.contains("hunter"), "{trouble}");
    }
}

/// Nothing can be appended while one of its statements runs, so none does much.
#[test]
fn a_log_is_trimmed_in_parts() {
    let postgres = Postgres::start();
    let mut log = open(&url(&postgres, "t")).unwrap();
    let at = take(&mut log, 1);
    let at = append(&mut log, at, 11, b"one");
    postgres.sql(
        "INSERT INTO t.records SELECT n, n::text, '', 1, '' FROM generate_series(2, 2001) n;
        UPDATE t.head SET seq = 2001;
        INSERT INTO t.pieces SELECT lpad(s::text, 32, '0'), n, '' FROM generate_series(71, 73) s, generate_series(0, 99) n;
        CREATE TABLE t.deleted (relation text, number bigint);
        CREATE FUNCTION t.deletes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO t.deleted SELECT TG_TABLE_NAME, count(*) FROM gone;
            RETURN NULL;
        END $$;
        CREATE TRIGGER deletes AFTER DELETE ON t.records REFERENCING OLD TABLE AS gone EXECUTE FUNCTION t.deletes();
        CREATE TRIGGER deletes AFTER DELETE ON t.pieces REFERENCING OLD TABLE AS gone EXECUTE FUNCTION t.deletes()",
    );
    let snapshot = format!("{:032}", 72).parse().unwrap();
    let manifest = Manifest { snapshot, by: at.reign, seq: Seq(1999), record: at.record, pieces: 100 };
    assert!(log.put_manifest(&manifest).unwrap());
    log.trim(at.reign).unwrap();
    assert_eq!(postgres.sql("SELECT min(seq), count(*) FROM t.records"), "2000|2");
    assert_eq!(
        postgres.sql("SELECT DISTINCT snapshot, count(*) OVER () FROM t.pieces"),
        format!("{}|100", manifest.snapshot)
    );
    let deleted = "SELECT relation, sum(number), max(number) <= sum(number) / 3 FROM t.deleted GROUP BY 1 ORDER BY 1";
    assert_eq!(postgres.sql(deleted), "pieces|200|t\nrecords|1999|t");
}

/// A pgbouncer in transaction mode, which gives each statement any of its connections.
struct Pooler {
    address: SocketAddr,
    _process: Killed,
    _dir: tempfile::TempDir,
}

impl Pooler {
    /// With this many connections.
    fn start(postgres: &Postgres, connections: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, server) = (free_address(), postgres.address());
        let config = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\nserver_round_robin = 1\n\
             min_pool_size = {connections}\ndefault_pool_size = {connections}\n",
            server.port(),
            address.port()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            command.args(["--user", "postgres"]);
        }
        let process = Killed::start(command.arg(&config), &dir.path().join("log"));
        Self { address, _process: process, _dir: dir }
    }

    /// Two handles that reach a schema through it.
    fn two(&self, schema: &str) -> Vec<PostgresLog> {
        let through = format!("postgres://postgres@{}/postgres?sslmode=disable&schema={schema}", self.address);
        let mut logs = Vec::new();
        eventually("a pooler that is up", || open(&through).map(|log| logs.push(log)).is_ok());
        logs.push(open(&through).unwrap());
        logs
    }

    /// What somebody else does who shares its connections.
    fn stranger(&self, postgres: &Postgres, sql: &str) -> Vec<String> {
        let mut psql = postgres.psql();
        psql.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "-qAtc", sql]);
        let done = psql.output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The names of the statements that are prepared on a connection.
const PREPARED: &str = "SELECT name FROM pg_prepared_statements WHERE name LIKE 'locker%' ORDER BY name";

#[test]
fn an_append_is_prepared_once() {
    let postgres = Postgres::start();
    let mut log = open(&url(&postgres, "p")).unwrap();
    let mut at = take(&mut log, 1);
    // Which statement a session ran last, and whether it was sent whole.
    let last = |like: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'locker' AND query LIKE";
        postgres.sql(&format!("{sql} '{like}'"))
    };
    let mut write = |at, id, bytes: &[u8]| {
        let record = record(at, id, bytes);
        assert!(matches!(log.write(&Write::append(at, &record, EngineMs(7))).unwrap(), Written::Done(_)));
        at.after(&record)
    };
    for id in 11..14 {
        at = write(at, id, b"\\x'\\0\xff");
        assert_eq!(last("EXECUTE locker\\_%"), "1");
    }
    at = write(at, 14, &super::noise(100_000));
    assert_eq!(last("WITH made AS%"), "1", "a long record is faster so");
    at = write(at, 15, b"short");
    assert_eq!(last("EXECUTE locker\\_%"), "1");
    let records = log.records(at.seq, 1).unwrap();
    assert_eq!(records.first().map(|record| &record.bytes[..]), Some(&b"short"[..]));
    // What a new connection does not know is prepared again.
    postgres.crash();
    log.head().unwrap_err();
    append(&mut log, at, 16, b"more");
}

/// Where several share one connection, each finds its own statements or none.
#[test]
fn nobody_runs_the_statement_of_another() {
    let postgres = Postgres::start();
    let pooler = Pooler::start(&postgres, 1);
    let mut logs = pooler.two("p");
    let mut at = take(&mut logs[0], 1);
    let mut writes = 0;
    let mut write_in_turn = |logs: &mut [PostgresLog]| {
        for log in logs {
            at = append(log, at, 11 + writes, b"batch");
            done(log, &Write::beat(at, SPAN, EngineMs(0)));
            writes += 1;
        }
    };
    write_in_turn(&mut logs);
    let names = pooler.stranger(&postgres, PREPARED);
    assert_eq!(names.len(), 4, "an append and a beat of both: {names:?}");
    let is_random = |name: &String| {
        name.strip_prefix("locker_").is_some_and(|id| id.len() == 32 && id.parse::<Id>().is_ok_and(|id| id.0 > 1 << 64))
    };
    assert!(names.iter().all(is_random), "{names:?}");
    // A stranger forgets them all, and has own ones that write, under the names that programs give.
    postgres.sql("CREATE TABLE strange (n int)");
    pooler.stranger(&postgres, "DEALLOCATE ALL");
    for name in (0..20).map(|n| format!("s{n}")).chain(["locker".to_owned(), "locker_".to_owned()]) {
        pooler.stranger(&postgres, &format!("PREPARE {name} AS INSERT INTO strange VALUES (1)"));
    }
    for _ in 0..3 {
        write_in_turn(&mut logs);
    }
    let mut direct = open(&url(&postgres, "p")).unwrap();
    assert_eq!(direct.records(Seq(0), 99).unwrap().len(), 8);
    assert_eq!(postgres.sql("SELECT count(*) FROM strange"), "0");
    assert_eq!(pooler.stranger(&postgres, PREPARED), ["locker", "locker_"], "they are sent whole from then on");
}

#[test]
fn a_pooler_may_stand_in_between() {
    let postgres = Postgres::start();
    let pooler = Pooler::start(&postgres, 3);
    let mut logs = pooler.two("p");
    let mut at = take(&mut logs[0], 1);
    for n in 0..20 {
        // Both handles write in turn, each through any connection.
        let log = &mut logs[n % 2];
        at = append(log, at, 11 + n as u128, b"batch");
        done(log, &Write::beat(at, SPAN, EngineMs(0)));
    }
    let mut direct = open(&url(&postgres, "p")).unwrap();
    assert_eq!(direct.records(at.seq, 1).unwrap().len(), 1);
    assert_eq!(direct.records(Seq(0), 99).unwrap().len(), 20);
    assert!(matches!(direct.write(&Write::beat(at, SPAN, EngineMs(0))).unwrap(), Written::Done(_)));
}

#[test]
fn a_database_that_is_not_there_is_no_answer() {
    let began = std::time::Instant::now();
    let nobody = format!("postgres://postgres@{}/postgres?sslmode=disable", free_address());
    let trouble = open(&nobody).unwrap_err();
    assert_eq!(trouble.cause, Cause::NoAnswer, "{trouble}");
    // A listener that says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("postgres://postgres@{}/postgres?sslmode=disable", listener.local_addr().unwrap());
    let outcome = PostgresLog::open(silent.parse().unwrap(), Duration::from_millis(300)).map(drop);
    assert_eq!(outcome.unwrap_err().cause, Cause::NoAnswer);
    assert!(began.elapsed() < crate::support::PATIENCE);
}
