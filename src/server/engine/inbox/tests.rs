//! Who steps, and that nothing is left behind. The threads of the engine do not run: their part is done by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::super::committer::Committer;
use super::super::tests::{Answered, TestClock, ask_on_a_desk, ask_with, on_a_desk, set_pool};
use super::super::{Asker, Engine, EngineError, Listeners, awake};
use super::*;
use crate::core::command::Command;
use crate::core::names::ClaimId;
use crate::core::origin::Origin;
use crate::core::settings::Settings;
use crate::store::memory::MemoryStore;
use crate::wire::api::ClaimBody;
use crate::wire::parse;
use crate::wire::problems::Problems;

/// An engine whose threads do not run, after its first look.
fn by_hand() -> (Engine, Arc<Inbox>, Committer) {
    let (store, clock) = (Box::new(MemoryStore::new().unwrap()), Arc::new(TestClock::default()));
    let (engine, inbox, committer) =
        awake(store, Settings::default(), clock, Listeners::default(), |_, _| Ok(())).unwrap();
    assert_eq!(inbox.look(), Ok(Next::Look));
    assert!(matches!(inbox.look(), Ok(Next::Sleep(_))));
    (engine, inbox, committer)
}

fn ask(engine: &Engine, command: Command) -> Answered {
    ask_with(engine, command, || {}).0
}

/// A timer that a thread of the door sets ends in time.
#[test]
fn the_engine_is_called_when_something_is_due_before_it_looks() {
    let (engine, inbox, _) = by_hand();
    let body = ClaimBody { ttl: Some("1s".to_owned()), ..ClaimBody::of_pool("p".to_owned()) };
    let asked = parse::claim(ClaimId::parse("c").unwrap(), body, &mut Problems::default()).unwrap();
    for (command, is_called) in [(Command::Tick, false), (Command::Ask(Box::new(asked.ask)), true)] {
        let (_, stepped) = ask_on_a_desk(&engine, command);
        stepped.recv().unwrap();
        assert_eq!(inbox.waiting().is_called, is_called);
    }
}

#[test]
fn a_thread_of_the_door_steps_what_is_short_and_leaves_the_rest_in_order() {
    let (engine, inbox, committer) = by_hand();
    let committing = thread::spawn(move || committer.work(|error| panic!("{error:#}")));
    let (order, stepped) = mpsc::channel();
    let ask = |(number, command)| {
        let order = order.clone();
        ask_with(&engine, command, move || order.send((number, thread::current().id())).unwrap()).0
    };
    let stepping = on_a_desk(async {
        let mut asked = Vec::new();
        let short = vec![(0, Command::Tick), (1, Command::Tick)];
        for commands in [short, vec![(2, Command::Tick), (3, set_pool("p")), (4, Command::Tick)]] {
            asked.extend(commands.into_iter().map(ask));
            tokio::task::yield_now().await;
        }
        // Only now, or it could step what this thread is to step.
        let stepping = thread::spawn(move || inbox.work());
        for answered in asked {
            answered.await.unwrap().unwrap();
        }
        stepping
    });
    let here = thread::current().id();
    let places: Vec<_> = stepped.try_iter().map(|(number, place)| (number, place == here)).collect();
    assert_eq!(places, [(0, true), (1, true), (2, true), (3, false), (4, false)]);
    engine.stop();
    stepping.join().unwrap();
    committing.join().unwrap();
}

/// Lets two threads go on when whoever waits is told.
struct Meeting(Barrier);

impl Wake for Meeting {
    fn wake(self: Arc<Self>) {
        // The other thread has tried to step by the second time.
        self.0.wait();
        self.0.wait();
    }
}

/// A thread of the door comes while the engine fails.
#[test]
fn nothing_is_put_back_into_an_engine_that_has_failed() {
    let (engine, inbox, _) = by_hand();
    let mut told = ask(&engine, Command::Tick);
    assert!(!inbox.step());
    let waits = ask(&engine, set_pool("p"));
    let meeting = Arc::new(Meeting(Barrier::new(2)));
    let waker = Waker::from(Arc::clone(&meeting));
    let poll = std::pin::Pin::new(&mut told).poll(&mut Context::from_waker(&waker));
    assert!(matches!(poll, Poll::Pending));
    thread::scope(|scope| {
        scope.spawn(|| {
            meeting.0.wait();
            let in_hand = inbox.stepper.try_lock().ok().map(|stepper| (stepper, inbox.take()));
            meeting.0.wait();
            meeting.0.wait();
            in_hand.into_iter().for_each(|(stepper, commands)| inbox.put_back(stepper, commands));
        });
        inbox.fail(&"the disk is full".into());
        meeting.0.wait();
    });
    for mut answered in [told, waits] {
        assert!(matches!(answered.try_recv(), Ok(Err(EngineError::StoreFailed { .. }))));
    }
    assert_eq!(inbox.queued.get(), 0);
}

/// A thread of the door has a command in its hands when the engine is stopped, and must leave it to the engine's thread.
#[test]
fn a_stop_waits_for_what_is_put_back() {
    let (engine, inbox, mut committer) = by_hand();
    let mut answered = ask(&engine, set_pool("p"));
    let stepper = inbox.stepper();
    let commands = inbox.take();
    engine.stop();
    inbox.sleep(Duration::from_secs(3_600));
    inbox.put_back(stepper, commands);
    assert_eq!(inbox.look(), Ok(Next::Look));
    assert_eq!(inbox.look(), Ok(Next::End));
    assert!(engine.ask(Command::Tick, None).is_err());
    committer.commit_all().unwrap();
    assert!(matches!(answered.try_recv(), Ok(Ok(_))));
}

#[test]
fn there_is_room_until_too_many_commands_wait() {
    let (engine, inbox, mut committer) = by_hand();
    let mut asked: Vec<_> = (0..INBOX).map(|_| ask(&engine, set_pool("p"))).collect();
    assert!(matches!(engine.check_room(false), Err(EngineError::Overloaded)));
    assert!(engine.check_room(true).is_ok(), "reads do not wait");
    engine.post(Command::Tick);
    asked.push(ask(&engine, Command::Tick));
    assert_eq!(inbox.queued.get(), i64::try_from(INBOX + 2).unwrap(), "what comes all the same is taken");
    while inbox.look() == Ok(Next::Look) {
        committer.commit_all().unwrap();
    }
    assert!(engine.check_room(false).is_ok());
    assert!(asked.iter_mut().all(|answered| matches!(answered.try_recv(), Ok(Ok(_)))));
}

/// Also by what is put back.
#[test]
fn there_is_room_until_the_bodies_of_those_that_wait_are_too_large() {
    let (engine, inbox, mut committer) = by_hand();
    for _ in 0..2 {
        assert!(engine.check_room(false).is_ok());
        let asker = Asker { origin: Origin::default(), permit: None, bytes: INBOX_BYTES / 2 };
        let _answered = engine.ask(set_pool("p"), Some(Box::new(asker))).unwrap();
        assert!(!inbox.step(), "it is left to the engine's thread");
    }
    assert!(matches!(engine.check_room(false), Err(EngineError::Overloaded)));
    assert_eq!(inbox.look(), Ok(Next::Look));
    committer.commit_all().unwrap();
    assert!(engine.check_room(false).is_ok());
}

/// Asks for something that, when it is stepped, has another thread ask for more, so many times.
fn ask_in_turn(engine: &Engine, times: usize, stepped: &Arc<AtomicUsize>) -> Answered {
    let (again, stepped) = (engine.clone(), Arc::clone(stepped));
    let fate = move || {
        stepped.fetch_add(1, Ordering::SeqCst);
        if times > 1 {
            thread::spawn(move || drop(ask_in_turn(&again, times - 1, &stepped))).join().unwrap();
        }
    };
    ask_with(engine, Command::Tick, fate).0
}

/// However fast other threads ask, a thread of the door does what else it has to do, and comes back to them.
#[test]
fn a_thread_of_the_door_steps_once_at_a_time() {
    let (engine, ..) = by_hand();
    let stepped = Arc::new(AtomicUsize::new(0));
    on_a_desk(async {
        let _asked = ask_in_turn(&engine, 10, &stepped);
        for turn in 1..=100 {
            tokio::task::yield_now().await;
            assert!(stepped.load(Ordering::SeqCst) <= turn);
        }
    });
    assert_eq!(stepped.load(Ordering::SeqCst), 10);
}

/// The largest batch: what is stepped at one time joins one that is almost full.
#[test]
fn the_figures_have_a_bucket_for_the_largest_batch() {
    let (engine, inbox, mut committer) = by_hand();
    committer.commit_all().unwrap();
    for commands in [BATCH - 1, BATCH] {
        let _asked: Vec<_> = (0..commands).map(|_| ask(&engine, Command::Tick)).collect();
        assert!(!inbox.step());
    }
    committer.commit_all().unwrap();
    let (mut registry, mut scrape) = (Registry::default(), String::new());
    engine.figures().register(&mut registry);
    encode(&mut scrape, &registry).unwrap();
    let buckets: Vec<_> = scrape.lines().filter(|line| line.starts_with("engine_batch_commands_bucket")).collect();
    let [.., next, largest, all] = buckets.as_slice() else { panic!("{scrape}") };
    assert!(next.ends_with(" 1") && largest.ends_with(" 2") && all.ends_with(" 2"), "{buckets:?}");
}
