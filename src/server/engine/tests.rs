//! What the engine does by itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::core::claim::Ended;
use crate::core::command::By;
use crate::core::history::Outline;
use crate::core::names::{ClaimId, PoolName};
use crate::core::pool::Policy;
use crate::core::state::{Changes, EndedOutline, Loaded};
use crate::store::memory::MemoryStore;

#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        1_767_225_600_000
    }
}

/// The stored engine time in seconds, after each second of half a minute in which nobody asks for anything.
fn stored_times(quarantine: Option<Span>) -> Vec<u64> {
    let (store, clock) = (MemoryStore::new().unwrap(), Arc::new(TestClock::default()));
    let tables = Listeners::default();
    let mine: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let settings = Settings::default();
    let (_engine, mut thread) = awake(Box::new(store.clone()), settings, mine, tables, |_, _| Ok(())).unwrap();
    let (pool, by) = (PoolName::parse("p").unwrap(), By::default());
    let lock = "1".parse().unwrap();
    let set = Command::SetPool { pool: pool.clone(), policy: Policy::default(), capacity: Some(1), by: by.clone() };
    let commands = [set, Command::Quarantine { pool, lock, span: quarantine, by }];
    thread.batch(commands.map(|command| (command, None, None)).into()).unwrap();
    let stored = |second| {
        clock.0.store(second, Ordering::Relaxed);
        thread.turn(Vec::new()).unwrap();
        store.clone().load().unwrap().meta.unwrap().engine.0 / 1_000
    };
    (1..=30).map(stored).collect()
}

/// A store that does not find what it should remember of ended claims.
struct Forgetful(MemoryStore);

impl Store for Forgetful {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.0.load()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.0.ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.0.history(each)
    }

    fn recall(&mut self, _: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        Ok(Vec::new())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        self.0.commit(changes)
    }

    fn store_id(&self) -> &str {
        self.0.store_id()
    }
}

/// The command changes nothing, and the server goes on: other claims do not suffer from one damaged record.
#[test]
fn a_command_about_a_claim_that_cannot_be_recalled_is_refused() {
    let store = Forgetful(MemoryStore::new().unwrap());
    let tables = Listeners::default();
    let settings = Settings { at_hand: 0, ..Settings::default() };
    let clock = Arc::new(TestClock::default());
    let (_engine, mut thread) = awake(Box::new(store), settings, clock, tables, |_, _| Ok(())).unwrap();
    let mut end = |id: &str| {
        let (answer, mut answered) = oneshot::channel();
        let end = Command::End { id: ClaimId::parse(id).unwrap(), run: None, by: None, reason: None };
        thread.batch(vec![(end, None, Some(answer))]).unwrap();
        answered.try_recv().unwrap().unwrap_err()
    };
    assert!(matches!(end("a"), EngineError::Refused(Refusal::NoSuchClaim { .. })), "it is remembered as cancelled");
    end("b");
    end("c");
    let EngineError::Unreadable { cause } = end("a") else { panic!("the claim was not recalled") };
    assert!(cause.contains("\"a\""), "{cause}");
    assert!(matches!(end("d"), EngineError::Refused(Refusal::NoSuchClaim { .. })));
}

/// Without this, an hour would begin again with each crash (docs/design.md#time).
#[test]
fn engine_time_is_stored_every_ten_seconds_while_a_long_deadline_runs() {
    let expected: Vec<u64> = (1..=30).map(|second| second / 10 * 10).collect();
    assert_eq!(stored_times(Some(Span::hours(1))), expected);
}

#[test]
fn nothing_is_stored_while_nothing_needs_it() {
    assert_eq!(stored_times(None), [0; 30]);
}
