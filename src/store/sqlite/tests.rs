use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Instant;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use super::*;
use crate::core::claim::{BuildRef, End, Ended, Fetched, Phase};
use crate::core::names::{ClaimId, Fence, LockName, PoolName, Revision};
use crate::core::pool::Lock;
use crate::core::time::{Deadline, EngineMs, Span, WallMs};
use crate::store::conformance::{Contents, conformance};
use crate::store::failstop::FailStop;
use crate::store::samples;
use crate::store::sidecar::sidecar;

/// How long a test waits for another thread.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test: rows reach the tables only when somebody waits for them.
const NEVER: Duration = Duration::from_secs(3600);
const IMPATIENT: Tuning =
    Tuning { busy_timeout: Duration::from_millis(50), checkpoint_pages: 16, journal_turn: 32 << 10, fold_after: NEVER };

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("locker.db")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open_with(&self.file(), IMPATIENT).unwrap()
    }

    fn refusal(&self) -> String {
        format!("{:#}", SqliteStore::open_with(&self.file(), IMPATIENT).unwrap_err())
    }

    /// A connection like that of a `sqlite3` shell.
    fn shell(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }

    /// A place with a store that has some of everything, and its contents.
    fn filled() -> (Self, Contents) {
        let place = Self::new();
        let mut model = Contents::default();
        let mut store = place.open();
        for changes in batches(12) {
            store.commit(&changes).unwrap();
            model.apply(&changes);
        }
        drop(store);
        (place, model)
    }
}

fn batches(n: usize) -> Vec<Changes> {
    let mut runner = TestRunner::deterministic();
    (0..n).map(|_| samples::changes().new_tree(&mut runner).unwrap().current()).collect()
}

/// A batch of about `kib` KiB, always with different bytes: SQLite does not write unchanged ones.
fn large(kib: usize) -> Changes {
    static FILL: AtomicU8 = AtomicU8::new(0);
    let fill = FILL.fetch_add(1, Ordering::Relaxed);
    let pool = PoolName::parse("p").unwrap();
    let lock =
        |n: usize| Lock::new(LockName::parse(&n.to_string()).unwrap(), vec![fill; 16 * 1024].into(), Arc::default());
    let locks = (0..kib.div_ceil(16)).map(lock).map(|l| (pool.clone(), l.name.clone(), Some(Arc::new(l)))).collect();
    Changes { locks, ..Changes::default() }
}

/// What is read comes from memory and from the tables, or from the tables alone.
#[test]
fn conforms() {
    for fold_after in [NEVER, Duration::ZERO] {
        conformance(|| {
            let (place, tuning) = (Place::new(), Tuning { fold_after, ..IMPATIENT });
            Box::new(move || Box::new(SqliteStore::open_with(&place.file(), tuning).unwrap()))
        });
    }
}

#[test]
fn one_server_at_a_time() {
    let place = Place::new();
    let first = place.open();
    let message = place.refusal();
    let pid = format!("process {}", std::process::id());
    assert!(message.contains("locker.db.lock") && message.contains(&pid), "{message}");
    let link = place.dir.path().join("other.db");
    std::os::unix::fs::symlink(place.file(), &link).unwrap();
    let by_link = format!("{:#}", SqliteStore::open(&link).unwrap_err());
    assert!(by_link.contains("locker.db.lock"), "a link leads to the same store: {by_link}");
    drop(first);
    place.open();
    SqliteStore::open(&link).unwrap();
}

#[test]
fn an_acknowledged_batch_survives_the_process() {
    let place = Place::new();
    let mut store = place.open();
    let mut model = Contents::default();
    for (n, changes) in batches(40).into_iter().enumerate() {
        store.commit(&changes).unwrap();
        model.apply(&changes);
        if n % 7 == 6 {
            store.database.pending.fold_all().unwrap();
        }
        // The files as SIGKILL would leave them now.
        let image = Place::new();
        for (from, to) in crate::store::files(&place.file()).into_iter().zip(crate::store::files(&image.file())) {
            fs::copy(from, to).unwrap();
        }
        assert_eq!(Contents::of(&mut image.open()), model, "after batch {n}");
    }
}

#[test]
fn an_empty_batch_touches_nothing() {
    let (place, _) = Place::filled();
    let mut store = place.open();
    store.commit(&large(1)).unwrap();
    let before = fs::read(sidecar(&place.file(), "-batches-a")).unwrap();
    store.commit(&Changes::default()).unwrap();
    assert_eq!(fs::read(sidecar(&place.file(), "-batches-a")).unwrap(), before);
}

#[test]
fn a_file_of_another_kind_is_refused_and_left_alone() {
    let garbage: fn(&Place) = |place| fs::write(place.file(), b"poem = 'not a database'\n".repeat(300)).unwrap();
    let other: fn(&Place) = |place| place.shell().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    let newer: fn(&Place) = |place| {
        drop(place.open());
        place.shell().pragma_update(None, "user_version", 9).unwrap();
    };
    let unversioned: fn(&Place) = |place| {
        drop(place.open());
        place.shell().pragma_update(None, "user_version", 0).unwrap();
    };
    let cases = [
        (garbage, "not a database"),
        (other, "not a store of locker"),
        (newer, "newer release of locker (schema 9, this one knows up to 8)"),
        (unversioned, "without a schema version"),
    ];
    for (make, expected) in cases {
        let place = Place::new();
        make(&place);
        fs::set_permissions(place.file(), Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(place.file()).unwrap();
        let message = place.refusal();
        assert!(message.contains(expected) && message.contains("locker.db"), "{message}");
        assert_eq!(fs::read(place.file()).unwrap(), before, "{expected}: the file was changed");
        assert_eq!(fs::metadata(place.file()).unwrap().permissions().mode() & 0o777, 0o644, "{expected}");
    }
}

/// The schema of version 1 and a row of each of its tables, as that version wrote them.
const VERSION_1: &str = r#"
    CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE pools (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE locks (
        pool TEXT NOT NULL, name TEXT NOT NULL, metadata BLOB NOT NULL, record TEXT NOT NULL, PRIMARY KEY (pool, name)
    ) STRICT;
    CREATE TABLE claims (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT;
    CREATE TABLE ended (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT;
    CREATE TABLE ops (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE changes (
        revision INTEGER NOT NULL, seq INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (revision, seq)
    ) STRICT;
    INSERT INTO meta VALUES ('store_id', '0123456789abcdef0123456789abcdef'), ('revision', '268435459'),
        ('next_ticket', '2'), ('engine', '5');
    INSERT INTO pools VALUES ('envs', '{"drain":0}');
    INSERT INTO locks VALUES ('envs', 'prod', x'00ff', '{"labels":{"zone":"eu"},"leaving":false}');
    INSERT INTO claims VALUES ('c:1', '{"life":1,"parts":[{"pool":"envs","want":{"named":["prod"]}}],"scope":"flow",'
        || '"digest":"0000000000000000000000000000000000000000000000000000000000000000","owner":{},"confirm":false,'
        || '"runs":[],"ticket":1,"asked_at":1,"withdrawals":0,"phase":{"held":{"fence":268435458,'
        || '"claimed":{"revision":268435458,"seq":0},"locks":[["envs","prod"]],"since":1}}}');
    INSERT INTO ended VALUES ('c:0', '{"life":1,"runs":[],"how":"cancelled","at":3,"forget":{"at":8,"span":7}}');
    INSERT INTO ops VALUES ('o1', '{"revision":6,"forget":{"at":2,"span":1}}');
    INSERT INTO changes VALUES
        (268435457, 0, '{"at":1,"kind":"added","pools":["envs"],"locks":[["envs","prod"]]}'),
        (268435458, 0, '{"at":1,"kind":"claimed","pools":["envs"],"locks":[["envs","prod"]],"claim":"c:1"}');
    PRAGMA application_id = 0x4C636B72;
    PRAGMA user_version = 1;
"#;

#[test]
fn a_file_of_version_1_is_migrated() {
    let place = Place::new();
    place.shell().execute_batch(VERSION_1).unwrap();
    let mut store = place.open();
    assert_eq!(store.store_id(), "0123456789abcdef0123456789abcdef");
    let loaded = store.load().unwrap();
    let mut ended = Vec::new();
    store.ended(&mut |claim| ended.push(claim)).unwrap();
    let rows = [loaded.pools.len(), loaded.locks.len(), loaded.claims.len(), ended.len(), loaded.ops.len()];
    let mut entries = 0;
    store.history(&mut |_| entries += 1).unwrap();
    assert_eq!((rows, entries, loaded.latches.len()), ([1; 5], 2, 0));
    let Phase::Held { fetched, .. } = &loaded.claims[0].phase else { panic!("it is not held as before") };
    assert_eq!(*fetched, Fetched::ByAnother, "it may be in use even after its build");
    let changes = batches(12).into_iter().find(|c| c.latches.iter().any(|(_, latch)| latch.is_some())).unwrap();
    store.commit(&Changes { latches: changes.latches, ..Changes::default() }).unwrap();
    drop(store);
    let mut store = place.open();
    assert!(!store.load().unwrap().latches.is_empty());
    let version: i64 =
        store.database.folded().unwrap().conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 8);
}

/// What a start must know of an ended claim moves from its record into columns.
#[test]
fn ended_claims_of_version_7_stay_as_they_were() {
    let place = Place::new();
    place.shell().execute_batch(VERSION_1).unwrap();
    let more = r#"INSERT INTO ended VALUES ('c:2', '{"life":2,"runs":["r"],"how":"released","by":"Ada","at":3,"revision":4,'
        || '"fence":5,"build":{"cluster":"https://ci","id":"7"},"forget":{"at":9,"span":6}}')"#;
    place.shell().execute_batch(more).unwrap();
    let store = place.open();
    let ids = ["c:0", "c:2"].map(|id| ClaimId::parse(id).unwrap());
    let build = BuildRef { cluster: "https://ci".parse().unwrap(), id: "7".parse().unwrap() };
    let deadline = |at, span| Deadline { at: EngineMs(at), span: Span(span) };
    let cancelled = Ended {
        id: ids[0].clone(),
        life: 1,
        digest: None,
        runs: Vec::new(),
        how: End::Cancelled,
        by: None,
        reason: None,
        at: WallMs(3),
        revision: None,
        fence: None,
        build: None,
        forget: deadline(8, 7),
        maker: None,
        credential: None,
        pools: Vec::new(),
    };
    let released = Ended {
        id: ids[1].clone(),
        life: 2,
        runs: vec!["r".parse().unwrap()],
        how: End::Released,
        by: Some("Ada".parse().unwrap()),
        revision: Some(Revision(4)),
        fence: Some(Fence(5)),
        build: Some(build),
        forget: deadline(9, 6),
        ..cancelled.clone()
    };
    assert_eq!(store.own_reader().ended_claims(&ids).unwrap(), [cancelled, released]);
}

/// A lock that its pool has because it was given no other is marked; nothing else looks like one.
#[test]
fn implicit_locks_of_version_7_are_found() {
    let place = Place::new();
    place.shell().execute_batch(VERSION_1).unwrap();
    let more = r#"
        INSERT INTO pools VALUES ('own', '{}'), ('two', '{}'), ('full', '{}'), ('labelled', '{}'), ('other', '{}');
        INSERT INTO locks VALUES ('own', 'own', x'', '{"labels":{},"leaving":false}'),
            ('two', 'two', x'', '{"labels":{},"leaving":false}'), ('two', '1', x'', '{"labels":{},"leaving":false}'),
            ('full', 'full', x'00', '{"labels":{},"leaving":false}'),
            ('labelled', 'labelled', x'', '{"labels":{"a":"b"},"leaving":false}'),
            ('other', '1', x'', '{"labels":{},"leaving":false}');
    "#;
    place.shell().execute_batch(more).unwrap();
    let loaded = place.open().load().unwrap();
    let implicit = loaded.locks.iter().filter(|(_, lock)| lock.implicit).map(|(pool, _)| pool.as_str());
    assert_eq!(implicit.collect::<Vec<_>>(), ["own"]);
}

#[test]
fn places_that_cannot_be_used_are_named() {
    let place = Place::new();
    let missing = place.dir.path().join("no/such/locker.db");
    let message = format!("{:#}", SqliteStore::open(&missing).unwrap_err());
    assert!(message.contains("no/such of the store does not exist: create it first"), "{message}");
    let message = format!("{:#}", SqliteStore::open(place.dir.path()).unwrap_err());
    assert!(message.contains("is a directory"), "{message}");
}

/// What a start reads.
fn read_all(store: &mut SqliteStore) -> anyhow::Result<()> {
    store.load()?;
    store.past(&mut |_| {}, &mut |_| {})
}

/// A start does not read the records of ended claims.
#[test]
fn a_damaged_record_of_an_ended_claim_is_named_when_it_is_read() {
    let (place, model) = Place::filled();
    assert_ne!(place.shell().execute("UPDATE ended SET record = '{}'", []).unwrap(), 0);
    let mut store = place.open();
    read_all(&mut store).unwrap();
    let id = model.ended_ids().next().unwrap();
    let message = format!("{:#}", store.own_reader().ended_claims(std::slice::from_ref(id)).unwrap_err());
    assert!(message.contains("table ended, key") && message.contains("missing field `life`"), "{message}");
    let message = format!("{:#}", store.reader().find(id).unwrap_err());
    assert!(message.contains("table ended, key"), "{message}");
}

#[test]
fn a_damaged_row_is_named() {
    let cases = [
        ("UPDATE meta SET value = 'x' WHERE key = 'revision'", "meta", "\"revision\": not a number"),
        ("DELETE FROM meta WHERE key = 'engine'", "meta", "not all"),
        ("INSERT INTO meta VALUES ('colour', '1')", "meta", "\"colour\": this release does not know this key"),
        ("UPDATE pools SET record = '{\"colour\":\"red\"}'", "pools", "unknown field `colour`"),
        ("UPDATE pools SET name = 'a/' WHERE name = (SELECT min(name) FROM pools)", "pools", "\"a/\": pool name"),
        ("UPDATE locks SET record = substr(record, 2)", "locks", "bad record"),
        ("UPDATE claims SET record = '[]'", "claims", "bad record"),
        ("UPDATE ended SET how = 'unheard'", "ended", "unknown variant `unheard`"),
        ("UPDATE ended SET forget = -1", "ended", "out of range"),
        ("UPDATE ended SET id = 'a/' WHERE id = (SELECT min(id) FROM ended)", "ended", "\"a/\": claim id"),
        ("UPDATE ops SET record = '{}'", "ops", "missing field `revision`"),
        (
            "UPDATE changes SET seq = -1 WHERE (revision, seq) = (SELECT min(revision), seq FROM changes)",
            "changes",
            "-1)",
        ),
        ("UPDATE changes SET record = record || 'x'", "changes", "trailing characters"),
    ];
    for (damage, table, expected) in cases {
        let (place, _) = Place::filled();
        assert_ne!(place.shell().execute(damage, []).unwrap(), 0, "{damage}");
        let mut store = place.open();
        let message = format!("{:#}", read_all(&mut store).expect_err(damage));
        assert!(message.contains(&format!("table {table}")) && message.contains(expected), "{damage}: {message}");
    }
}

#[test]
fn a_torn_file_is_refused() {
    let (place, model) = Place::filled();
    let whole = fs::read(place.file()).unwrap();
    for pages in 1..whole.len() / 4096 {
        fs::write(place.file(), &whole[..pages * 4096]).unwrap();
        let loaded = SqliteStore::open(&place.file()).and_then(|mut store| read_all(&mut store));
        assert!(loaded.is_err(), "{pages} pages of {}", whole.len() / 4096);
    }
    fs::write(place.file(), &whole).unwrap();
    assert_eq!(Contents::of(&mut place.open()), model);
}

#[test]
fn all_files_are_private() {
    let place = Place::new();
    let modes = || {
        let mode = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
        };
        let mut modes: Vec<_> = fs::read_dir(place.dir.path()).unwrap().map(mode).collect();
        modes.sort();
        modes
    };
    let files =
        ["locker.db", "locker.db-batches-a", "locker.db-batches-b", "locker.db-shm", "locker.db-wal", "locker.db.lock"];
    let private = files.map(|name| (name.to_owned(), 0o600)).to_vec();
    let mut store = place.open();
    store.commit(&large(1)).unwrap();
    assert_eq!(modes(), private);
    drop(store);
    // As after a copy that was restored by hand.
    fs::set_permissions(place.file(), Permissions::from_mode(0o644)).unwrap();
    let mut store = place.open();
    store.commit(&large(1)).unwrap();
    assert_eq!(modes(), private);
}

#[test]
fn a_failed_commit_is_the_last() {
    let (place, mut model) = Place::filled();
    let store = place.open();
    // As on a full disk: SQLite answers SQLITE_FULL.
    {
        let writer = store.database.folded().unwrap();
        let pages: i64 = writer.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = format!("PRAGMA max_page_count = {}", pages + 2);
        assert_eq!(writer.conn.query_row(&limit, [], |row| row.get::<_, i64>(0)).unwrap(), pages + 2);
    }
    let mut store = FailStop::new(store);
    // The journal still has room for the first ones.
    let message = loop {
        let changes = large(1024);
        match store.commit(&changes) {
            Ok(()) => model.apply(&changes),
            Err(error) => break format!("{error:#}"),
        }
    };
    assert!(message.contains("locker.db") && message.contains("full"), "{message}");
    for changes in batches(3) {
        let message = format!("{:#}", store.commit(&changes).unwrap_err());
        assert!(message.contains("shut when a commit failed"), "{message}");
    }
    drop(store);
    assert_eq!(
        Contents::of(&mut place.open()),
        model,
        "what was acknowledged, and nothing of the failed batch or after it"
    );
}

#[test]
fn a_failed_checkpoint_fails_the_next_commit() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&large(1)).unwrap();
    let mut writer = store.database.folded().unwrap();
    let read_only = Connection::open_with_flags(place.file(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    // A connection learns of the log with its first read.
    read_only.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
    writer.checkpointer = crate::store::checkpoint::Checkpointer::start(read_only, 16).unwrap();
    drop(writer);
    let deadline = Instant::now() + PATIENCE;
    let message = loop {
        assert!(Instant::now() < deadline, "no commit failed");
        if let Err(error) = store.commit(&large(64)) {
            break format!("{error:#}");
        }
        // What the checkpoint has to copy.
        let _ = store.database.pending.fold_all();
    };
    assert!(message.contains("an earlier checkpoint failed"), "{message}");
}

#[test]
fn the_log_stays_short_under_load() {
    let place = Place::new();
    let tuning = Tuning { checkpoint_pages: 256, ..IMPATIENT };
    let mut store = SqliteStore::open_with(&place.file(), tuning).unwrap();
    let log = || fs::metadata(sidecar(&place.file(), "-wal")).unwrap().len();
    let (deadline, mut restarts, mut length) = (Instant::now() + PATIENCE, 0, 0);
    // Without a pause between commits, the thread alone would never catch up.
    while restarts < 5 {
        assert!(Instant::now() < deadline, "the log restarted {restarts} times, {} bytes", log());
        store.commit(&large(32)).unwrap();
        let now = store.database.folded().unwrap().checkpointer.length();
        restarts += i32::from(now < length);
        length = now;
    }
}

/// So that commits wait for the tables only if the disk does not keep up.
#[test]
fn a_full_file_of_the_journal_comes_into_the_tables_at_once() {
    let place = Place::new();
    let mut store = place.open();
    // Each of the two files has room for one of these.
    (0..2).for_each(|_| store.commit(&large(32)).unwrap());
    let deadline = Instant::now() + PATIENCE;
    while store.database.pending.folded().unwrap() == 0 {
        assert!(Instant::now() < deadline, "nobody has written the first file into the tables");
        thread::yield_now();
    }
}

#[test]
fn a_reader_delays_nothing_but_the_end_of_the_log() {
    let place = Place::new();
    let mut store = place.open();
    store.commit(&large(32)).unwrap();
    store.database.pending.fold_all().unwrap();
    let shell = place.shell();
    shell.execute_batch("BEGIN").unwrap();
    let count = |shell: &Connection| shell.query_row("SELECT count(*) FROM locks", [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(count(&shell), 2);
    for _ in 0..40 {
        store.commit(&large(64)).unwrap();
    }
    assert_eq!(count(&shell), 2, "it still reads its own snapshot");
    // As after SIGKILL: the log is not empty, and a reader still uses it.
    drop(store);
    let message = place.refusal();
    assert!(message.contains("another process is reading it"), "{message}");
    drop(shell);
    assert_eq!(place.open().load().unwrap().locks.len(), 4);
}

/// A commit that was answered survives a power cut only if it was synced: `synchronous` is 2 for FULL.
#[test]
fn each_connection_that_writes_syncs_its_commits() {
    let place = Place::new();
    let store = place.open();
    let writer = store.database.folded().unwrap();
    let pragma = |name: &str| writer.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((pragma("synchronous"), pragma("wal_autocheckpoint")), (2, 0));
    let helper = connect(&store.database.path, Tuning::default().busy_timeout).unwrap();
    write_ahead(&helper, Syncs::Full).unwrap();
    assert_eq!(helper.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap(), 2);
}
