use std::path::Path;
use std::sync::atomic::AtomicU64;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::*;
use crate::core::state::Meta;
use crate::core::time::EngineMs;
use crate::store::conformance::{Contents, Place, conformance};
use crate::store::log::Log;
use crate::store::log::head::Id;
use crate::store::log::memory::MemoryLog;
use crate::store::samples;

/// A server that shares this log.
pub(super) fn membership(log: &MemoryLog, cache: &Path) -> Membership {
    let standing = Standing::default();
    standing.set_format(replica::newest());
    Membership {
        address: LogAddress::Memory(log.clone()),
        me: Leader { name: "a".to_owned(), run: Id::random().unwrap() },
        span: Span(60_000),
        cache: cache.to_owned(),
        seen: Arc::new(AtomicU64::new(0)),
        rules: BTreeMap::new(),
        standing: Arc::new(standing),
    }
}

/// Leads at once, because nobody does.
pub(super) fn lead(membership: Membership) -> SharedStore {
    match Follower::new(membership).unwrap().look().unwrap() {
        Look::Leads(store) => *store,
        other => panic!("{other:?}"),
    }
}

pub(super) fn newest(revision: u64) -> Changes {
    let meta = Meta { revision: Revision(revision), engine: EngineMs(7), ..some_meta() };
    Changes { meta: Some(meta), ..Changes::default() }
}

fn some_meta() -> Meta {
    Meta {
        revision: Revision::default(),
        next_ticket: crate::core::names::Ticket::FIRST,
        engine: EngineMs::default(),
        pruned: Revision::default(),
    }
}

/// A store that loads the counters as they were committed, though revisions and time go back in a random history.
struct AsCommitted(SharedStore);

impl Store for AsCommitted {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.0.replica.database()?.load()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.0.ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.0.history(each)
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        self.0.commit(changes)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }

    fn store_id(&self) -> &str {
        self.0.store_id()
    }
}

#[test]
fn it_is_a_store() {
    conformance(|| -> Place {
        let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
        Box::new(move || Box::new(AsCommitted(lead(membership(&log, cache.path())))))
    });
}

/// Commits of many kinds.
fn some_commits(store: &mut SharedStore, model: &mut Contents, runner: &mut TestRunner, number: usize) {
    for _ in 0..number {
        let changes = samples::changes().new_tree(runner).unwrap().current();
        store.commit(&changes).unwrap();
        model.apply(&changes);
    }
}

#[test]
fn a_follower_begins_with_the_snapshot() {
    let (mut log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
    let (mut runner, mut model) = (TestRunner::deterministic(), Contents::default());
    let membership_of_it = membership(&log, cache.path());
    let mut store = lead(membership_of_it.clone());
    for round in 0..3 {
        some_commits(&mut store, &mut model, &mut runner, 20);
        // So that the snapshot has all of it.
        drop(store.load().unwrap());
        let (_stop, stopped) = std::sync::mpsc::channel();
        let mut writer = snapshots::Writer::new(&membership_of_it, &store.reign, &store.replica, stopped);
        writer.go_on(&mut log).unwrap();
        assert!(log.manifest().unwrap().unwrap().pieces > 0, "round {round}");
        let last = log.head().unwrap().unwrap().seq;
        assert!(log.records(last, 1).unwrap().is_empty(), "the snapshot contains it");
        some_commits(&mut store, &mut model, &mut runner, 20);
    }
    let id = store.store_id().to_owned();
    drop(store);
    let next = lead(membership(&log, cache.path()));
    assert_eq!(next.store_id(), id);
    assert_eq!(Contents::of(&mut AsCommitted(next)), model);
}

#[test]
fn a_log_that_was_set_back_is_read_again_and_no_revision_is_given_twice() {
    let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
    let mut store = lead(membership(&log, cache.path()));
    store.commit(&newest(5)).unwrap();
    drop(store);
    let earlier = log.contents();
    let mut store = lead(membership(&log, cache.path()));
    store.commit(&newest(1_000_000)).unwrap();
    // Another server, which has seen it.
    let mut follower = Follower::new(membership(&log, cache.path())).unwrap();
    assert!(matches!(follower.look().unwrap(), Look::Follows { head: Some(_) }));
    log.set_back(earlier);
    assert!(format!("{:#}", store.commit(&newest(1_000_001)).unwrap_err()).contains("set back"));
    drop(store);
    let newest = |mut store: SharedStore| store.load().unwrap().meta.unwrap().revision;
    // Whoever takes over starts above what it has seen, or above what is there, and above what others may have seen.
    let Look::Leads(store) = follower.look().unwrap() else { panic!("the log was given up") };
    assert_eq!(newest(*store), Revision(1_000_000 + UNSEEN));
    assert_eq!(newest(lead(membership(&log, cache.path()))), Revision(5 + UNSEEN));
}

#[test]
fn a_log_that_was_emptied_is_left_alone_by_those_who_know_it() {
    let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
    let empty = log.contents();
    let known = membership(&log, cache.path());
    let mut store = lead(known.clone());
    store.commit(&newest(5)).unwrap();
    log.set_back(empty);
    store.commit(&newest(6)).unwrap_err();
    drop(store);
    let next = Membership { me: Leader { run: Id::random().unwrap(), ..known.me.clone() }, ..known };
    let error = Follower::new(next).unwrap().look().unwrap_err();
    assert!(format!("{error:#}").contains("Bring it back, or restart all servers"), "{error:#}");
    // A server that has just started has seen nothing.
    drop(lead(membership(&log, cache.path())));
}

#[test]
fn time_goes_on_from_the_last_sign_of_the_leader_before() {
    let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
    let mut store = lead(membership(&log, cache.path()));
    store.commit(&newest(1)).unwrap();
    let said = store.reign.engine();
    store.confirm().unwrap();
    drop(store);
    let loaded = lead(membership(&log, cache.path())).load().unwrap();
    assert!(loaded.meta.unwrap().engine >= said);
}

#[test]
fn copies_that_a_killed_server_has_left_are_removed() {
    let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
    let entries = || std::fs::read_dir(cache.path()).unwrap().count();
    let left = cache.path().join("locker-copy-left");
    std::fs::create_dir(&left).unwrap();
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&left).unwrap().set_modified(hour_ago).unwrap();
    let follower = Follower::new(membership(&log, cache.path())).unwrap();
    assert_eq!(entries(), 2, "its server is about to lock it, whatever the clocks say");
    std::fs::write(left.join("copy.db"), "x").unwrap();
    std::fs::write(left.join("copy.db.lock"), "1\n").unwrap();
    let other = Follower::new(membership(&log, cache.path())).unwrap();
    assert_eq!(entries(), 2, "those of servers that live stay");
    drop((follower, other));
    assert_eq!(entries(), 0);
}

#[test]
fn a_store_comes_out_of_a_log_and_into_one() {
    let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
    let (mut runner, mut model) = (TestRunner::deterministic(), Contents::default());
    let mut store = lead(membership(&log, cache.path()));
    some_commits(&mut store, &mut model, &mut runner, 20);
    let id = store.store_id().to_owned();
    let address = || LogAddress::Memory(log.clone());
    // A copy disturbs nobody; a move needs the log for itself.
    let (replica, file) = moving::copy_of(address(), cache.path()).unwrap();
    let in_use = format!("{:#}", moving::take(address(), cache.path()).map(drop).unwrap_err());
    assert!(in_use.contains("\"a\" uses it"), "{in_use}");
    store.confirm().unwrap();
    drop(store);
    drop(moving::take(address(), cache.path()).unwrap());
    let other = MemoryLog::default();
    let (file, _) = crate::store::copies::tables_copied(&file, cache.path()).unwrap();
    moving::put(&LogAddress::Memory(other.clone()), file.path()).unwrap();
    let full = format!("{:#}", moving::put(&LogAddress::Memory(other.clone()), file.path()).unwrap_err());
    assert!(full.contains("not empty"), "{full}");
    drop(replica);
    let moved = lead(membership(&other, cache.path()));
    assert_eq!(moved.store_id(), id);
    assert_eq!(Contents::of(&mut AsCommitted(moved)), model);
}

#[test]
fn a_server_that_has_no_store_to_lead_with_lets_others_lead() {
    let (mut log, gone, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut follower = Follower::new(membership(&log, gone.path())).unwrap();
    gone.close().unwrap();
    let Look::CannotLead(error) = follower.look().unwrap() else { panic!("there is no place for a copy") };
    assert!(format!("{error:#}").contains("name another with --cache"), "{error:#}");
    assert_eq!(log.head().unwrap().unwrap().span, Span(0), "given up");
    drop(lead(membership(&log, cache.path())));
}
