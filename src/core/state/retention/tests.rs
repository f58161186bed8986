//! Retention against its rule, for random commands: who loses what, and that no more is kept than fits.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::core::command::{By, Command};
use crate::core::latch::{Ending, LatchId, NewLatch, Target};
use crate::core::names::{Reason, Revision};
use crate::core::pool::Policy;
use crate::core::restart::restarted;
use crate::core::settings::Settings;
use crate::core::state::Loaded;
use crate::core::step::step;
use crate::core::test_store::TestStore;
use crate::core::time::{EngineMs, Span};

fn pool() -> impl Strategy<Value = PoolName> {
    select(&["p", "q", "r"][..]).prop_map(|name| name.parse().unwrap())
}

fn lock() -> impl Strategy<Value = LockName> {
    select(&["1", "2", "3"][..]).prop_map(|name| name.parse().unwrap())
}

fn latch(n: u8) -> Command {
    let target =
        Target { workflow: "w".parse().unwrap(), namespace: "n".parse().unwrap(), workflow_uid: None, node: None };
    let id = LatchId::from_random([n; 16]);
    Command::CreateLatch(Box::new(NewLatch { id, target, ending: Ending::default() }))
}

fn command() -> impl Strategy<Value = Command> {
    let by = (0..60_usize).prop_map(|length| {
        let reason = (length > 0).then(|| Reason::parse(&"x".repeat(length)).unwrap());
        By { reason, ..By::default() }
    });
    let set = (pool(), 0..4_u32, by.clone()).prop_map(|(pool, capacity, by)| Command::SetPool {
        pool,
        policy: Policy::default(),
        capacity: Some(capacity),
        by,
    });
    let update = (pool(), lock(), by.clone()).prop_map(|(pool, lock, by)| Command::UpdateLock {
        pool,
        lock,
        metadata: Some(Arc::from([])),
        labels: None,
        if_free: false,
        by,
    });
    prop_oneof![
        6 => (pool(), by).prop_map(|(pool, by)| Command::Note { pool, lock: None, by }),
        4 => update,
        2 => set,
        1 => any::<u8>().prop_map(latch),
        1 => pool().prop_map(|pool| Command::RemovePool { pool, by: By::default() }),
        1 => Just(Command::Reconcile),
    ]
}

/// Every entry that may be pruned, with its pool (none for an entry of no pool).
fn prunable(state: &State) -> BTreeMap<(Option<PoolName>, ChangeKey), Listed> {
    let of_pool = |pool: &Arc<Pool>| {
        let keys = state.prunable(&pool.name).into_iter();
        keys.map(|key| ((Some(pool.name.clone()), key), pool.changes[&key])).collect::<Vec<_>>()
    };
    let loose = state.histories.loose.iter().map(|(key, listed)| ((None, *key), *listed));
    state.snapshot.pools.values().flat_map(of_pool).chain(loose).collect()
}

fn bytes<'l>(entries: impl Iterator<Item = &'l Listed>) -> u64 {
    entries.map(|listed| u64::from(listed.bytes)).sum()
}

/// No entry here is larger.
const MOST_BYTES: u64 = 260;

/// What must be true of a step that turned `before` into what the state has now.
fn judge(state: &State, before: &BTreeMap<(Option<PoolName>, ChangeKey), Listed>, now: Now) {
    let Settings { history_age, history_bytes, changes, .. } = state.settings;
    let (after, kept) = (prunable(state), state.snapshot.history);
    let stay = (kept.entries - after.len(), kept.bytes - bytes(after.values()));
    assert!(after.len() <= changes - stay.0.min(changes / 2), "{} entries beside {stay:?}", after.len());
    let room = history_bytes - stay.1.min(history_bytes / 2);
    assert!(bytes(after.values()) <= room, "{} bytes beside {stay:?}", bytes(after.values()));
    let age = |listed: &Listed| now.wall.0 - listed.at.0;
    for (id @ (pool, key), gone) in before.iter().filter(|(id, _)| !after.contains_key(*id)) {
        let is_removed =
            pool.as_ref().is_some_and(|pool| state.snapshot.pool(pool).is_none_or(|p| p.changes.is_empty()));
        if is_removed || age(gone) > history_age.0 {
            continue;
        }
        // Only what was there before tells: an entry may begin to be prunable after an older one went.
        let others = || before.iter().filter(|(other, _)| after.contains_key(*other) && other.0 == *pool);
        for (other, stays) in others() {
            let counts =
                |listed: &Listed| if listed.kind.is_detail() { age(listed) * limits::DETAILS_AGE } else { age(listed) };
            let same = stays.kind.is_detail() == gone.kind.is_detail();
            assert!(!same || other.1 > *key, "{other:?} is older than {id:?}");
            assert!(counts(stays) <= counts(gone), "{stays:?} counts as older than {gone:?}");
        }
        let size_of = |wanted: &Option<PoolName>, of: &BTreeMap<(Option<PoolName>, ChangeKey), Listed>| {
            bytes(of.iter().filter(|((pool, _), _)| pool == wanted).map(|(_, listed)| listed))
        };
        // At its turn its history was the largest, so only what changed in this step can be between it and the others.
        let largest = after.keys().map(|(pool, _)| size_of(pool, &after)).max().unwrap_or_default();
        let grown = bytes(after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, listed)| listed));
        let lost = (state.dirty.pruned.len() as u64) * MOST_BYTES;
        assert!(size_of(pool, &after) + lost + grown >= largest, "{pool:?} loses entries, but is not the largest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_largest_history_loses_its_details_first(
        commands in vec((command(), select(&[0_u64, 7, 100, 3_000][..])), 1..80),
        history_bytes in 500..8_000_u64,
        changes in 4..40_usize,
    ) {
        let settings = Settings { history_bytes, changes, history_age: Span(9_000), ..Settings::default() };
        let mut now = Now { engine: EngineMs(0), wall: WallMs(1_000_000) };
        let mut state = restarted(Loaded::default(), [], [], settings.clone(), 1, now);
        let mut store = TestStore::default();
        store.commit(&state.take_changes(now));
        for (command, pause) in commands {
            now = Now { engine: now.engine.plus(Span(pause)), wall: WallMs(now.wall.0 + pause) };
            let before = prunable(&state);
            let _ = step(&mut state, command, now);
            judge(&state, &before, now);
            store.commit(&state.take_changes(now));
            store.check_has_all_of(&state).unwrap();
            let next = restarted(store.load(), store.ended(), store.history(), settings.clone(), 1, now);
            for (name, pool) in &state.snapshot.pools {
                let found = next.snapshot.pool(name).unwrap();
                // A start prunes what has become too old meanwhile.
                prop_assert!(found.changes.keys().all(|key| pool.changes.contains_key(key)), "{}", name);
                prop_assert!(found.pruned >= pool.pruned);
            }
        }
    }
}

/// Else it would be pruned while a lock still has it, or never.
#[test]
fn an_entry_is_the_newest_until_all_its_locks_have_newer_ones() {
    let key = |revision| ChangeKey { revision: Revision(revision), seq: 0 };
    let mut kept = OfPool::default();
    (0..3).for_each(|_| kept.change_newest(None, Some(key(1))));
    for newer in [2, 3] {
        kept.change_newest(Some(key(1)), Some(key(newer)));
        assert!(kept.is_newest(key(1)) && kept.is_newest(key(newer)));
    }
    kept.change_newest(Some(key(1)), None);
    assert!(!kept.is_newest(key(1)) && kept.is_newest(key(2)) && kept.is_newest(key(3)));
}

#[test]
fn the_oldest_entry_goes_first_whether_it_is_about_a_latch_or_a_pool() {
    let pool = || PoolName::parse("p").unwrap();
    let note = || Command::Note { pool: pool(), lock: None, by: By::default() };
    let set = Command::SetPool { pool: pool(), policy: Policy::default(), capacity: None, by: By::default() };
    let mut state = State { settings: Settings { history_age: Span(1), ..Settings::default() }, ..State::default() };
    let mut gone = Vec::new();
    for (n, command) in [set, latch(1), note(), note(), note(), Command::Reconcile].into_iter().enumerate() {
        let now = Now { engine: EngineMs(n as u64), wall: WallMs(n as u64) };
        step(&mut state, command, now).unwrap();
        gone.push(state.take_changes(now).pruned.into_iter().map(|key| key.revision.0).collect::<Vec<_>>());
    }
    assert_eq!(gone, [vec![], vec![], vec![1], vec![2], vec![3], vec![4]]);
}

/// The history of a removed pool goes page by page, whatever its length.
#[test]
fn a_long_history_goes_page_by_page() {
    let pool = || PoolName::parse("p").unwrap();
    let set = Command::SetPool { pool: pool(), policy: Policy::default(), capacity: None, by: By::default() };
    let mut state = State::default();
    step(&mut state, set, Now::default()).unwrap();
    for _ in 0..limits::PAGE * 2 {
        step(&mut state, Command::Note { pool: pool(), lock: None, by: By::default() }, Now::default()).unwrap();
    }
    state.take_changes(Now::default());
    let mut gone = |command| {
        step(&mut state, command, Now::default()).unwrap();
        state.take_changes(Now::default()).pruned.len()
    };
    assert!(gone(Command::RemovePool { pool: pool(), by: By::default() }) <= limits::PAGE);
    let rest: Vec<usize> = (0..4).map(|_| gone(Command::Reconcile)).collect();
    assert_eq!(rest.iter().sum::<usize>() + limits::PRUNED_PER_ENTRY, limits::PAGE * 2 + 1);
    assert!(rest.iter().all(|page| *page <= limits::PAGE), "{rest:?}");
    assert_eq!(state.snapshot.history.entries, 1, "its removal");
}
