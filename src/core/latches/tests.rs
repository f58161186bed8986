use std::collections::BTreeMap;

use super::super::command::Command;
use super::super::latch::{Namespace, Node, Outputs, ParameterName, Target, WorkflowName};
use super::super::names::Reason;
use super::super::restart::restarted;
use super::super::settings::Settings;
use super::super::state::Loaded;
use super::super::step::step;
use super::super::test_store::TestStore;
use super::super::time::{EngineMs, Span, WallMs};
use super::*;

fn now(ms: u64) -> Now {
    Now { engine: EngineMs(ms), wall: WallMs(1_000_000 + ms) }
}

fn id(n: u8) -> LatchId {
    LatchId::from_random([n; 16])
}

fn outputs(value: &str) -> Ending {
    let values = BTreeMap::from([(ParameterName::parse("version").unwrap(), Arc::from(value))]);
    Ending::Succeed(Outputs::new(values).unwrap())
}

fn new(n: u8) -> NewLatch {
    let workflow = WorkflowName::parse("build-x7k").unwrap();
    let namespace = Namespace::parse("default").unwrap();
    let target = Target { workflow, namespace, workflow_uid: None, node: None };
    NewLatch { id: id(n), target, ending: outputs("preset") }
}

fn state() -> State {
    restarted(Loaded::default(), [], [], Settings::default(), 1, now(0))
}

fn latch(reply: Result<Reply, Refusal>) -> Latch {
    match reply {
        Ok(Reply::Latch(latch)) => Latch::clone(&latch),
        other => panic!("{other:?}"),
    }
}

fn create(state: &mut State, n: u8, at: u64) -> Latch {
    latch(step(state, Command::CreateLatch(Box::new(new(n))), now(at)))
}

fn release(state: &mut State, n: u8, ending: Option<Ending>, at: u64) -> Result<Reply, Refusal> {
    step(state, Command::ReleaseLatch { id: id(n), ending, binding: Box::default() }, now(at))
}

fn bind(state: &mut State, n: u8, node: Option<&str>, uid: Option<&str>) -> Result<Reply, Refusal> {
    let binding = Binding {
        node: node.map(|id| Node::Id(id.parse().unwrap())),
        workflow_uid: uid.map(|uid| uid.parse().unwrap()),
    };
    step(state, Command::ReleaseLatch { id: id(n), ending: None, binding: Box::new(binding) }, now(50))
}

fn kinds(state: &State) -> Vec<ChangeKind> {
    state.new_entries().iter().map(|change| change.kind).collect()
}

#[test]
fn a_life() {
    let mut state = state();
    let made = create(&mut state, 1, 5);
    assert_eq!((made.created, made.last_change, made.released()), (WallMs(1_000_005), WallMs(1_000_005), None));
    assert!(state.take_notices().is_empty());

    let released = latch(release(&mut state, 1, Some(outputs("1.2")), 9));
    assert_eq!(released.ending, outputs("1.2"));
    assert_eq!((released.created, released.last_change), (WallMs(1_000_005), WallMs(1_000_009)));
    assert_eq!(released.released().unwrap().revision, state.snapshot.revision);
    assert_eq!(state.take_notices().into_iter().collect::<Vec<_>>(), [Notice::Latch(id(1))]);

    let revision = state.snapshot.revision;
    for again in [None, Some(outputs("1.2"))] {
        assert_eq!(latch(release(&mut state, 1, again, 20)), released, "repeating is harmless");
    }
    let other = release(&mut state, 1, Some(outputs("1.3")), 20);
    assert_eq!(other, Err(Refusal::LatchReleased { id: id(1) }), "a client may have acted on the first ending");
    assert_eq!(create(&mut state, 1, 20), released, "creating again is harmless");
    assert_eq!(state.snapshot.revision, revision);

    assert_eq!(latch(step(&mut state, Command::DeleteLatch { id: id(1) }, now(30))), released);
    assert_eq!(state.take_notices().into_iter().collect::<Vec<_>>(), [Notice::Latch(id(1))]);
    let gone = Err(Refusal::NoSuchLatch { id: id(1) });
    assert_eq!(step(&mut state, Command::DeleteLatch { id: id(1) }, now(31)), gone);
    assert_eq!(release(&mut state, 1, None, 31), gone);
    assert_eq!(kinds(&state), [ChangeKind::LatchCreated, ChangeKind::LatchReleased, ChangeKind::LatchDeleted]);
    assert_eq!(state.next_timer(), None);
}

#[test]
fn a_binding_is_set_once_and_wakes_nobody() {
    let mut state = state();
    create(&mut state, 1, 5);
    let released = latch(release(&mut state, 1, None, 7));
    state.take_notices();
    let bound = latch(bind(&mut state, 1, Some("w-1"), Some("u-1")));
    assert_eq!(bound.target.node, Some(Node::Id("w-1".parse().unwrap())));
    assert_eq!(bound.target.workflow_uid.as_ref().unwrap().as_str(), "u-1");
    assert_eq!((bound.released(), bound.last_change), (released.released(), released.last_change));
    assert!(state.take_notices().is_empty());
    for (node, uid) in [(None, None), (Some("w-1"), None), (None, Some("u-1")), (Some("w-1"), Some("u-1"))] {
        assert_eq!(latch(bind(&mut state, 1, node, uid)), bound, "a repeat is harmless");
    }
    for (node, uid) in [(Some("w-2"), None), (None, Some("u-2")), (Some("w-1"), Some("u-2"))] {
        assert_eq!(
            bind(&mut state, 1, node, uid),
            Err(Refusal::LatchReleased { id: id(1) }),
            "a client may have acted on it"
        );
    }
    assert_eq!(create(&mut state, 1, 60), bound, "its creator may repeat the first request");
}

#[test]
fn an_id_is_for_one_target() {
    let mut state = state();
    create(&mut state, 1, 0);
    let mut other = new(1);
    other.target.namespace = Namespace::parse("other").unwrap();
    let mut other_ending = new(1);
    other_ending.ending = Ending::default();
    for other in [other, other_ending] {
        let refused = step(&mut state, Command::CreateLatch(Box::new(other)), now(1));
        assert_eq!(refused, Err(Refusal::LatchExists { id: id(1) }));
    }
}

#[test]
fn a_release_without_an_ending_ends_as_the_creator_decided() {
    let mut state = state();
    create(&mut state, 1, 0);
    assert_eq!(latch(release(&mut state, 1, None, 1)).ending, outputs("preset"));
    create(&mut state, 2, 0);
    let fail = Ending::Fail(Reason::parse("tests failed").unwrap());
    assert_eq!(latch(release(&mut state, 2, Some(fail.clone()), 1)).ending, fail);
    let newest = state.new_entries().last().unwrap().clone();
    assert_eq!(newest.reason.as_ref().map(Reason::as_str), Some("tests failed"));
    assert_eq!(newest.latch.as_ref().map(|l| l.id), Some(id(2)));
}

#[test]
fn a_released_latch_is_forgotten_after_30_days_and_a_locked_latch_never() {
    let mut state = state();
    create(&mut state, 1, 0);
    create(&mut state, 2, 0);
    release(&mut state, 1, None, 1_000).unwrap();
    assert!(state.has_long_deadline(now(1_000)), "engine time is stored until then");
    let day = Span::hours(24).0;
    step(&mut state, Command::Tick, now(30 * day + 999)).unwrap();
    assert_eq!(state.snapshot.latches.len(), 2, "never early");
    step(&mut state, Command::Tick, now(30 * day + 1_000)).unwrap();
    assert_eq!(state.snapshot.latches.keys().collect::<Vec<_>>(), [&id(2)]);
    assert_eq!(kinds(&state).last(), Some(&ChangeKind::LatchExpired));
    step(&mut state, Command::Tick, now(3_000 * day)).unwrap();
    assert_eq!(state.snapshot.latches.len(), 1);
}

#[test]
fn a_restart_changes_nothing() {
    let mut state = state();
    let mut store = TestStore::default();
    create(&mut state, 1, 0);
    create(&mut state, 2, 0);
    create(&mut state, 3, 0);
    release(&mut state, 2, None, 7).unwrap();
    step(&mut state, Command::DeleteLatch { id: id(3) }, now(8)).unwrap();
    store.commit(&state.take_changes(now(9)));
    store.check_has_all_of(&state).unwrap();
    let mut next = restarted(store.load(), store.ended(), store.history(), Settings::default(), 1, now(50));
    assert_eq!(next.snapshot.latches, state.snapshot.latches);
    assert_eq!(next.snapshot.released_latches, state.snapshot.released_latches);
    assert_eq!(next.next_timer(), state.next_timer(), "the 30 days continue and do not start again");
    assert!(next.take_changes(now(50)).latches.is_empty(), "stored latches are not stored again");
    super::super::invariants::check(&next).unwrap();
}

#[test]
fn the_number_of_latches_is_limited() {
    let mut state = state();
    for n in 0..limits::LATCHES {
        let id = LatchId::from_random((n as u128).to_be_bytes());
        step(&mut state, Command::CreateLatch(Box::new(NewLatch { id, ..new(0) })), now(0)).unwrap();
    }
    let full = Err(Refusal::Limit { what: "latches", max: limits::LATCHES });
    assert_eq!(step(&mut state, Command::CreateLatch(Box::new(new(1))), now(0)), full);
    let first = *state.snapshot.latches.keys().next().unwrap();
    step(&mut state, Command::DeleteLatch { id: first }, now(0)).unwrap();
    create(&mut state, 1, 0);
}

#[test]
fn the_history_of_latches_is_bounded() {
    let mut state = state();
    for _ in 0..limits::LATCH_CHANGES / 2 + 5 {
        create(&mut state, 1, 0);
        step(&mut state, Command::DeleteLatch { id: id(1) }, now(0)).unwrap();
    }
    let changes = state.take_changes(now(0));
    assert_eq!((changes.history.len(), changes.pruned.len()), (limits::LATCH_CHANGES, 10));
}
