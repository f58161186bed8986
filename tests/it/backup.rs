//! `locker backup`, `locker restore` and `locker store check` on the files of real servers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Done, Running, Server, SetsAtEnd, binary, clean, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

fn locker(args: &[&str]) -> Done {
    Running::start(clean(binary()).args(args), b"").finish()
}

fn name(file: &Path) -> &str {
    file.to_str().unwrap()
}

fn uri(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// Sends `PUT` for the claim `id` and its own pool. Returns its fence.
fn claim(server: &Server, id: &str) -> u64 {
    let (_, view) = server.api("PUT", &format!("/claims/{id}"), &json!({"pool": id}));
    view["fence"].as_u64().unwrap_or_else(|| panic!("{view}"))
}

fn state(server: &Server, id: &str) -> u16 {
    server.api("GET", &format!("/claims/{id}"), &Value::Null).0
}

/// A directory with a backup of a server that has granted a few locks, the largest fence, and the store of that server.
struct Left {
    dir: TempDir,
    fence: u64,
}

impl Left {
    fn new() -> Self {
        let mut server = Server::start_durable();
        let dir = tempfile::tempdir().unwrap();
        let left = Self { dir, fence: 0 };
        server.cli(&["pool", "set", "envs", "--capacity", "3"]).ok();
        let fence = ["a", "b"].map(|id| claim(&server, id))[1];
        locker(&["backup", "--store", server.store(), name(&left.backup())]).ok();
        server.kill();
        for suffix in ["", "-wal", "-shm", "-batches-a", "-batches-b"] {
            let from = format!("{}{suffix}", server.store().trim_start_matches("sqlite:"));
            if Path::new(&from).exists() {
                fs::copy(from, format!("{}{suffix}", left.store().display())).unwrap();
            }
        }
        Self { fence, ..left }
    }

    fn backup(&self) -> PathBuf {
        self.dir.path().join("backup.db")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("locker.db")
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn restore(&self, options: &[&str]) -> Done {
        let (backup, store) = (self.backup(), uri(&self.store()));
        locker(&[&["restore", name(&backup), "--store", &store], options].concat())
    }
}

#[test]
fn a_backup_under_load_is_one_moment_of_the_store_and_further_fences_are_larger() {
    let server = Server::start_durable();
    let dir = tempfile::tempdir().unwrap();
    // Every claim is kept, so a backup must have the first claims of each client, without a gap.
    let (stop, largest) = (AtomicBool::new(false), AtomicUsize::new(0));
    let counts: [AtomicUsize; 4] = Default::default();
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        for (who, count) in counts.iter().enumerate() {
            let (server, stop, largest) = (&server, &stop, &largest);
            scope.spawn(move || {
                for n in 0.. {
                    let fence = usize::try_from(claim(server, &format!("c{who}-{n}"))).unwrap();
                    largest.fetch_max(fence, Ordering::SeqCst);
                    count.store(n + 1, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
        }
        let _stopping = SetsAtEnd(&stop);
        for round in 0..4 {
            let before: Vec<usize> = counts.iter().map(|c| c.load(Ordering::SeqCst)).collect();
            let file = dir.path().join(format!("backup-{round}.db"));
            locker(&["backup", "--store", server.store(), name(&file)]).ok();
            locker(&["store", "check", "--store", server.store()]).ok();
            backups.push((file, before));
            // The next backup is later.
            eventually("more claims", || {
                counts.iter().zip(&backups[round].1).all(|(c, b)| c.load(Ordering::SeqCst) > *b).then_some(())
            });
        }
    });
    for (file, before) in &backups {
        assert!(!dir.path().join("backup-0.db-wal").exists(), "a backup is one file");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        locker(&["store", "check", "--store", &uri(file)]).ok();
        let store = file.with_extension("restored");
        locker(&["restore", name(file), "--store", &uri(&store)]).ok();
        let restored = Server::start_with(&uri(&store), &[], &[]);
        for (who, before) in before.iter().enumerate() {
            let known: Vec<bool> = (0..before + 100).map(|n| state(&restored, &format!("c{who}-{n}")) == 200).collect();
            let kept = known.iter().take_while(|known| **known).count();
            assert!(kept >= *before, "what was answered before the backup is in it");
            assert!(known[kept..].iter().all(|known| !known), "no gap");
        }
        let fence = usize::try_from(claim(&restored, "next")).unwrap();
        assert!(fence > largest.load(Ordering::SeqCst), "larger than fences granted after the backup, too");
    }
}

#[test]
fn a_restore_replaces_nothing_unasked() {
    let left = Left::new();
    let before = fs::read(left.store()).unwrap();
    left.restore(&[]).failed(5, "with --replace it is moved aside");
    assert_eq!(fs::read(left.store()).unwrap(), before);

    let done = left.restore(&["--replace"]).ok().said("is now").said("replaced-1");
    assert!(done.stdout.contains("2 claims"), "{done:?}");
    left.restore(&["--replace"]).ok().said("replaced-2");
    // The store that was moved aside is complete, including its log.
    for aside in ["locker.db.replaced-1", "locker.db.replaced-2"] {
        let file = left.dir.path().join(aside);
        let done = locker(&["store", "check", "--store", &uri(&file)]).ok();
        assert!(done.stdout.contains("2 claims"), "{done:?}");
    }
    let files = left.files();
    assert!(!files.iter().any(|file| file.starts_with("locker.db-")), "{files:?}");
    let server = Server::start_with(&uri(&left.store()), &[], &[]);
    assert_eq!((state(&server, "a"), state(&server, "b")), (200, 200));
    assert!(claim(&server, "c") > left.fence);
}

#[test]
fn fences_are_larger_than_all_known_ones() {
    let left = Left::new();
    // Fences from a server whose clock was far ahead.
    let far = left.fence + (1 << 40);
    left.restore(&["--replace", "--fence-above", &far.to_string()]).ok();
    let server = Server::start_with(&uri(&left.store()), &[], &[]);
    let larger = claim(&server, "c");
    assert!(larger > far);
    drop(server);
    // The replaced store knows that fence, too.
    left.restore(&["--replace"]).ok();
    let server = Server::start_with(&uri(&left.store()), &[], &[]);
    assert!(claim(&server, "d") > larger);
    drop(server);

    left.restore(&["--replace", "--fence-above", "9007199254740992"]).failed(2, "--fence-above");
    fs::write(left.store(), b"rubbish").unwrap();
    left.restore(&["--replace"]).ok().said("if the clock was ever set back, restore again with --fence-above");
}

#[test]
fn a_running_server_keeps_its_store() {
    let left = Left::new();
    let server = Server::start_with(&uri(&left.store()), &[], &[]);
    left.restore(&["--replace"]).failed(1, "another server (process ");
    assert_eq!(state(&server, "a"), 200);
}

#[test]
fn an_unsound_file_is_reported_and_not_used() {
    let left = Left::new();
    let (backup, store) = (left.backup(), left.store());
    let whole = fs::read(&backup).unwrap();
    let mut torn = whole.clone();
    torn[2 * 4096..3 * 4096].fill(0x55);
    let table: [(&[u8], &str); 5] = [
        (&torn, "the file is damaged"),
        (&whole[..whole.len() / 2], "malformed"),
        (b"", "it is empty"),
        (b"no database at all, but long enough to be taken for the head of one", "not a database"),
        (&[], "it is empty"),
    ];
    let before = fs::read(&store).unwrap();
    for (content, message) in table {
        fs::write(&backup, content).unwrap();
        left.restore(&["--replace"]).failed(1, message);
        locker(&["store", "check", "--store", &uri(&backup)]).failed(1, message);
        let file = left.dir.path().join("second.db");
        locker(&["backup", "--store", &uri(&backup), name(&file)]).failed(1, "");
        assert!(!file.exists(), "{message}");
        assert_eq!(fs::read(&store).unwrap(), before);
    }
    // The pages are sound, but a record is impossible.
    let table = [
        ("UPDATE claims SET record = '{}' WHERE id = 'a'", "table claims, key \"a\""),
        ("DELETE FROM locks WHERE pool = 'a'", "its records contradict each other"),
        ("UPDATE meta SET value = 5 WHERE key = 'revision'", "but the newest is 5"),
        ("UPDATE meta SET value = 'x' WHERE key = 'revision'", "revision"),
        ("DELETE FROM meta WHERE key = 'store_id'", "no store id"),
        ("PRAGMA user_version = 99", "newer release"),
        ("PRAGMA application_id = 7", "not a store of locker"),
    ];
    for (damage, message) in table {
        fs::write(&backup, &whole).unwrap();
        rusqlite::Connection::open(&backup).unwrap().execute_batch(damage).unwrap();
        left.restore(&["--replace"]).failed(1, message);
        locker(&["store", "check", "--store", &uri(&backup)]).failed(1, message);
        assert_eq!(fs::read(&store).unwrap(), before);
    }
    fs::remove_file(&backup).unwrap();
    left.restore(&["--replace"]).failed(1, "there is no file");
    locker(&["store", "check", "--store", &uri(&backup)]).failed(1, "there is no file");
    locker(&["store", "check", "--store", "memory:"]).failed(1, "only sqlite:FILE can be");
    locker(&["backup", "--store", &uri(&store), name(&store)]).failed(5, "a backup never replaces a file");
    let stray: Vec<String> = left.files().into_iter().filter(|file| file.starts_with(".tmp")).collect();
    assert!(stray.is_empty(), "{stray:?}");
}
