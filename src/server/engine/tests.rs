//! What the engine does by itself.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, ThreadId};

use super::hooked::Hooked;
use super::stepper::Queued;
use super::*;
use crate::core::claim::Ended;
use crate::core::command::By;
use crate::core::history::{Change, Outline};
use crate::core::names::{ChangeKey, ClaimId, PoolName};
use crate::core::pool::Policy;
use crate::core::state::{Changes, EndedOutline, Loaded};
use crate::store::Found;
use crate::store::memory::MemoryStore;

#[derive(Default)]
pub(super) struct TestClock(AtomicU64);

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
    let mine: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let settings = Settings::default();
    let mut engine = Both::awake(store.clone(), settings, mine);
    let (pool, by) = (PoolName::parse("p").unwrap(), By::default());
    let lock = "1".parse().unwrap();
    let set = Command::SetPool { pool: pool.clone(), policy: Policy::default(), capacity: Some(1), by: by.clone() };
    let commands = [set, Command::Quarantine { pool, lock, span: quarantine, by }];
    engine.batch(commands.map(|command| (command, None, None)).into());
    let stored = |second| {
        clock.0.store(second, Ordering::Relaxed);
        engine.turn();
        store.clone().load().unwrap().meta.unwrap().engine.0 / 1_000
    };
    (1..=30).map(stored).collect()
}

/// A stepper and a committer, in turns on one thread.
struct Both(Arc<Inbox>, Committer);

impl Both {
    fn awake(store: impl Store + 'static, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let awake = awake(Box::new(store), settings, clock, Listeners::default(), |_, _| Ok(()));
        let (_, inbox, committer) = awake.unwrap();
        Self(inbox, committer)
    }

    fn batch(&mut self, commands: Vec<Queued>) {
        self.0.stepper().step_all(commands).unwrap();
        self.commit();
    }

    fn turn(&mut self) {
        self.0.stepper().turn(Vec::new()).unwrap();
        self.commit();
    }

    fn commit(&mut self) {
        self.1.commit_all().unwrap();
    }
}

/// A store that does not find what it should remember of ended claims.
struct Forgetful(MemoryStore);

struct ForgetfulReader;

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

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(ForgetfulReader)
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        self.0.commit(changes)
    }

    fn store_id(&self) -> &str {
        self.0.store_id()
    }
}

impl Reader for ForgetfulReader {
    fn entries(&self, _: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        unreachable!("nobody reads the history")
    }

    fn ended_claims(&self, _: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        Ok(Vec::new())
    }

    fn find(&self, _: &ClaimId) -> anyhow::Result<Found> {
        unreachable!("nobody looks")
    }

    fn walk_ended(&self, _: Option<&ClaimId>, _: &mut dyn FnMut(Ended) -> ControlFlow<()>) -> anyhow::Result<()> {
        unreachable!("nobody looks")
    }

    fn walk(
        &self,
        _: (Bound<ChangeKey>, Bound<ChangeKey>),
        _: bool,
        _: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        unreachable!("nobody reads the history")
    }
}

/// The command changes nothing, and the server goes on: other claims do not suffer from one damaged record.
#[test]
fn a_command_about_a_claim_that_cannot_be_recalled_is_refused() {
    let store = Forgetful(MemoryStore::new().unwrap());
    let settings = Settings { at_hand: 0, ..Settings::default() };
    let clock = Arc::new(TestClock::default());
    let mut engine = Both::awake(store, settings, clock);
    let mut end = |id: &str| {
        let (answer, mut answered) = Answer::channel();
        let end = Command::End { id: ClaimId::parse(id).unwrap(), run: None, by: None, reason: None };
        engine.batch(vec![(end, None, Some(answer))]);
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

pub(super) type Answered = oneshot::Receiver<Result<Reply, EngineError>>;

/// An engine in the middle of a commit, and what it says of its end.
pub(super) struct Busy {
    engine: Engine,
    thread: JoinHandle<()>,
    begun: mpsc::Receiver<()>,
    end: mpsc::Sender<anyhow::Result<()>>,
    failed: mpsc::Receiver<String>,
}

/// Asks, and says on which thread the command is stepped.
pub(super) fn ask_with(
    engine: &Engine,
    command: Command,
    fate: impl FnOnce() + Send + 'static,
) -> (Answered, mpsc::Receiver<ThreadId>) {
    let (step, stepped) = mpsc::channel();
    let permit: Permit = Box::new(move |_, _, _| {
        // The test may not want to know.
        let _ = step.send(thread::current().id());
        fate();
        Ok(())
    });
    let asker = Asker { origin: Origin::default(), permit: Some(permit), bytes: 0 };
    (engine.ask(command, Some(Box::new(asker))).unwrap(), stepped)
}

impl Busy {
    fn start() -> Self {
        let ((begin, begun), (end, ended), (fail, failed)) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
        // Its commits say that they have begun, and end as the test says.
        let before_commit = move || {
            begin.send(())?;
            ended.recv()?
        };
        let store = Box::new(Hooked { kept: MemoryStore::new().unwrap(), before_commit });
        let clock = Arc::new(TestClock::default());
        let note = move |error: anyhow::Error| fail.send(format!("{error:#}")).unwrap();
        end.send(Ok(())).unwrap();
        let (engine, thread) =
            start(store, Settings::default(), clock, Notices::default(), LongPolls::default(), note).unwrap();
        begun.recv().unwrap();
        Self { engine, thread, begun, end, failed }
    }

    /// A command that changes something, and news of when it is stepped.
    fn ask(&self, pool: &str, fate: impl FnOnce() + Send + 'static) -> (Answered, mpsc::Receiver<ThreadId>) {
        let pool = PoolName::parse(pool).unwrap();
        let set = Command::SetPool { pool, policy: Policy::default(), capacity: Some(1), by: By::default() };
        ask_with(&self.engine, set, fate)
    }

    /// Two commands in one batch, whose commit has begun.
    fn ask_two(&self) -> [Answered; 2] {
        let (before, _) = self.ask("before", || {});
        self.begun.recv().unwrap();
        let two = ["a", "b"].map(|pool| {
            let (answer, stepped) = self.ask(pool, || {});
            stepped.recv().unwrap();
            answer
        });
        self.end.send(Ok(())).unwrap();
        assert!(before.blocking_recv().unwrap().is_ok());
        self.begun.recv().unwrap();
        two
    }

    fn shows(&self, pool: &str) -> bool {
        self.engine.snapshot().pool(&PoolName::parse(pool).unwrap()).is_some()
    }

    fn stop(self) -> Vec<String> {
        self.engine.stop();
        self.thread.join().unwrap();
        self.failed.try_iter().collect()
    }
}

/// Neither the disk nor the core waits for the other, and no answer is given before its own commit.
#[test]
fn what_comes_during_a_commit_is_stepped_and_not_answered() {
    let busy = Busy::start();
    let [mut a, mut b] = busy.ask_two();
    let (mut c, stepped) = busy.ask("c", || {});
    stepped.recv().unwrap();
    assert!([&mut a, &mut b, &mut c].map(|answer| answer.try_recv().is_err()).iter().all(|none| *none));
    assert_eq!(["a", "b", "c"].map(|pool| busy.shows(pool)), [false; 3]);
    busy.end.send(Ok(())).unwrap();
    busy.begun.recv().unwrap();
    assert!(a.blocking_recv().unwrap().is_ok() && b.blocking_recv().unwrap().is_ok());
    assert!(c.try_recv().is_err());
    assert_eq!(["a", "b", "c"].map(|pool| busy.shows(pool)), [true, true, false]);
    busy.end.send(Ok(())).unwrap();
    assert!(c.blocking_recv().unwrap().is_ok() && busy.shows("c"));
    assert_eq!(busy.stop(), [""; 0]);
}

#[test]
fn a_failed_commit_takes_back_what_was_stepped_after_it() {
    let busy = Busy::start();
    let [a, b] = busy.ask_two();
    let (c, stepped) = busy.ask("c", || {});
    stepped.recv().unwrap();
    busy.end.send(Err(anyhow::anyhow!("the disk is full"))).unwrap();
    let failed = Err(EngineError::StoreFailed { cause: Arc::from("the disk is full") });
    let (d, _) = busy.ask("d", || {});
    for answer in [a, b, c, d] {
        assert_eq!(answer.blocking_recv().unwrap(), failed);
    }
    assert!(busy.begun.try_recv().is_err(), "nothing more is committed");
    assert!(!busy.shows("a"));
    assert_eq!(busy.stop(), ["the disk is full"]);
}

#[test]
fn a_failed_commit_of_a_single_command_is_the_last_one() {
    let busy = Busy::start();
    let (a, _) = busy.ask("a", || {});
    busy.begun.recv().unwrap();
    let (b, _) = busy.ask("b", || {});
    busy.end.send(Err(anyhow::anyhow!("the disk is full"))).unwrap();
    for answer in [a, b] {
        assert!(matches!(answer.blocking_recv().unwrap(), Err(EngineError::StoreFailed { .. })));
    }
    assert_eq!(busy.stop(), ["the disk is full"]);
}

/// Also if the first thing that it hears after the failure is that it is to stop.
#[test]
fn an_engine_that_has_failed_can_be_stopped() {
    let busy = Busy::start();
    let [a, b] = busy.ask_two();
    busy.end.send(Err(anyhow::anyhow!("the disk is full"))).unwrap();
    assert!(a.blocking_recv().unwrap().is_err() && b.blocking_recv().unwrap().is_err());
    assert_eq!(busy.stop(), ["the disk is full"]);
}

#[test]
fn a_panic_while_it_steps_ends_the_engine() {
    let busy = Busy::start();
    let [a, b] = busy.ask_two();
    let (c, _) = busy.ask("c", || panic!("planted"));
    assert!(c.blocking_recv().is_err(), "its answer is lost with its step");
    busy.end.send(Ok(())).unwrap();
    assert!(a.blocking_recv().unwrap().is_ok() && b.blocking_recv().unwrap().is_ok(), "they were committed");
    let (d, _) = busy.ask("d", || {});
    assert!(matches!(d.blocking_recv().unwrap(), Err(EngineError::StoreFailed { .. })));
    let failed = busy.stop();
    assert!(failed.len() == 1 && failed[0].contains("panicked"), "{failed:?}");
}

/// Runs a task on this thread as the door does: what it asks is stepped here.
pub(super) fn on_a_desk<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    answers::Desk::set_up(&runtime);
    let outcome = runtime.block_on(task);
    answers::Desk::take_down();
    outcome
}

/// Asks as the door does, and waits until it was stepped or left to the engine.
pub(super) fn ask_on_a_desk(engine: &Engine, command: Command) -> (Answered, mpsc::Receiver<ThreadId>) {
    on_a_desk(async {
        let asked = ask_with(engine, command, || {});
        tokio::task::yield_now().await;
        asked
    })
}

fn engine_in_memory() -> (Engine, JoinHandle<()>) {
    let (store, clock) = (Box::new(MemoryStore::new().unwrap()), Arc::new(TestClock::default()));
    start(store, Settings::default(), clock, Notices::default(), LongPolls::default(), |_| {}).unwrap()
}

pub(super) fn set_pool(pool: &str) -> Command {
    let pool = PoolName::parse(pool).unwrap();
    Command::SetPool { pool, policy: Policy::default(), capacity: Some(1), by: By::default() }
}

#[test]
fn a_panic_on_a_thread_of_the_door_ends_the_engine_and_not_the_thread() {
    let busy = Busy::start();
    on_a_desk(async {
        let (answer, _) = ask_with(&busy.engine, Command::Tick, || panic!("planted"));
        assert!(answer.await.is_err(), "its answer is lost with its step");
        let (next, _) = ask_with(&busy.engine, Command::Tick, || {});
        assert!(matches!(next.await.unwrap(), Err(EngineError::StoreFailed { .. })));
    });
    let failed = busy.stop();
    assert!(failed.len() == 1 && failed[0].contains("panicked"), "{failed:?}");
}

/// The engine's thread sleeps until it knows of something to do. Its next look by itself is seconds away.
#[test]
fn nobody_is_left_to_the_next_look_of_the_engine() {
    let (engine, thread) = engine_in_memory();
    let rounds = 2_000;
    let ask = |n: u32| ask_with(&engine, if n.is_multiple_of(7) { set_pool("p") } else { Command::Tick }, || {}).0;
    let ask_all = || async {
        for n in 0..rounds {
            let answered = tokio::time::timeout(Duration::from_secs(3), ask(n)).await;
            assert!(answered.expect("somebody steps it").unwrap().is_ok());
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(ask_all())
            });
            scope.spawn(|| on_a_desk(ask_all()));
        }
    });
    engine.stop();
    thread.join().unwrap();
}
