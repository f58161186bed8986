//! From the core through a store to the next life: same holds, same queue order, same ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::Store;
use super::conformance::Place;
use crate::core::claim::{Ask, BuildRef, Claim, Labels, Owner, Part, Phase, Priority, Terms, Want};
use crate::core::command::{AskClaim, By, Command, Reply, Wait};
use crate::core::invariants;
use crate::core::names::{ChangeKey, ClaimId, Digest, Fence, LockName, OpId, ParkId, PoolName, Revision, Run};
use crate::core::pool::{Lock, Policy};
use crate::core::restart::Restart;
use crate::core::settings::Settings;
use crate::core::state::{Notice, State};
use crate::core::step::step;
use crate::core::time::{Deadline, EngineMs, Now, Span, WallMs};

/// What a person would compare before and after: the whole snapshot except who listens, and except deadlines that start
/// again.
#[derive(Debug, PartialEq)]
struct Seen {
    claims: BTreeMap<ClaimId, Claim>,
    pools: BTreeMap<PoolName, SeenPool>,
    ended: BTreeMap<ClaimId, (bool, Deadline, Option<BuildRef>)>,
}

#[derive(Debug, PartialEq)]
struct SeenPool {
    policy: Policy,
    locks: BTreeMap<LockName, Lock>,
    queue: Vec<ClaimId>,
    /// In the order in which they will be granted.
    free: Vec<LockName>,
    history: Vec<ChangeKey>,
    prunable: Vec<ChangeKey>,
}

fn without_deadlines(claim: &Claim) -> Claim {
    let mut claim = claim.clone();
    claim.parks.clear();
    claim.made = Box::default();
    match &mut claim.phase {
        Phase::Waiting { presence, give_up } => {
            *presence = crate::wire::record::NO_PRESENCE;
            *give_up = None;
        }
        Phase::Granted { confirm_by, give_up, .. } => {
            confirm_by.at = EngineMs(0);
            *give_up = None;
        }
        Phase::Held { until, .. } => *until = None,
    }
    claim
}

/// With history, unless a pool was removed. When a pool of the same name is made again, the next life also shows in it
/// the entries that the old pool shared with pools that still exist.
fn seen(state: &State, with_history: bool) -> Seen {
    let snapshot = &state.snapshot;
    let pools = snapshot.pools.iter().map(|(name, pool)| {
        let locks = pool.locks.iter().map(|(name, lock)| {
            let mut lock = Lock::clone(lock);
            lock.holders.sort_by_key(|holder| holder.fence);
            lock.drain = lock.drain.map(|drain| Deadline { at: EngineMs(0), ..drain });
            (name.clone(), lock)
        });
        let pool = SeenPool {
            policy: pool.policy.clone(),
            locks: locks.collect(),
            queue: pool.waiting.values().cloned().collect(),
            free: pool.free.iter().map(|(_, name)| name.clone()).collect(),
            history: pool.changes.keys().filter(|_| with_history).copied().collect(),
            prunable: if with_history { state.prunable(name) } else { Vec::new() },
        };
        (name.clone(), pool)
    });
    Seen {
        claims: snapshot.claims.iter().map(|(id, claim)| (id.clone(), without_deadlines(claim))).collect(),
        pools: pools.collect(),
        ended: state.known_ended(),
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// A command, after this many milliseconds.
    Step(Command, u64),
    /// The batch ends here.
    Commit,
    Restart,
}

const POOLS: &[&str] = &["p", "🔒"];
const LOCKS: &[&str] = &["p", "🔒", "1", "2"];
const IDS: &[&str] = &["a", "b", "c", "d", "e"];
const OPS: &[&str] = &["o1", "o2"];

fn pool() -> impl Strategy<Value = PoolName> {
    select(POOLS).prop_map(|name| PoolName::parse(name).unwrap())
}

fn lock() -> impl Strategy<Value = LockName> {
    select(LOCKS).prop_map(|name| LockName::parse(name).unwrap())
}

fn by() -> impl Strategy<Value = By> {
    proptest::option::weighted(0.2, select(OPS))
        .prop_map(|op| By { op: op.map(|op| OpId::parse(op).unwrap()), ..By::default() })
}

/// One request per id, so that repeats really are repeats; some share a key, some span both pools.
fn terms(id: &str, confirm: bool) -> Terms {
    let n = id.as_bytes()[0];
    let pools = if id == "e" { POOLS } else { &POOLS[usize::from(n) % 2..][..1] };
    let part = |pool: &&str| Part {
        pool: PoolName::parse(pool).unwrap(),
        want: Want::Any { count: 1, labels: Labels::new() },
    };
    let key = matches!(id, "a" | "c").then(|| "k".parse().unwrap());
    let requestor = key.as_ref().map(|_| id.parse().unwrap());
    let ask = Ask { parts: pools.iter().map(part).collect(), key, requestor };
    let owner = Owner {
        cluster: Some("ci".parse().unwrap()),
        build_id: n.is_multiple_of(2).then(|| "7".parse().unwrap()),
        ..Owner::default()
    };
    Terms {
        ask,
        digest: Digest([n; 32]),
        owner: Arc::new(owner),
        reason: None,
        confirm,
        ttl: Some(Span::secs(50)),
        priority: Priority::default(),
        supersede: None,
        waits_if_empty: false,
    }
}

fn ask() -> impl Strategy<Value = Command> {
    let wait = prop_oneof![Just(Wait::No), any::<u64>().prop_map(|n| Wait::Park(ParkId(n)))];
    (select(IDS), 0_u8..3, any::<bool>(), wait).prop_map(|(id, run, confirm, wait)| {
        let terms = terms(id, confirm);
        let run = (run > 0).then(|| Run::parse(&run.to_string()).unwrap());
        let id = ClaimId::parse(id).unwrap();
        Command::Ask(Box::new(AskClaim {
            id,
            terms,
            scope: None,
            run,
            wait,
            queue: true,
            give_up_after: Some(Span::mins(20)),
        }))
    })
}

fn command() -> impl Strategy<Value = Command> {
    let id = || select(IDS).prop_map(|id| ClaimId::parse(id).unwrap());
    let set_pool = (pool(), proptest::option::of(0_u32..3), by()).prop_map(|(pool, capacity, by)| {
        let policy = Policy { max_queue: capacity.map(|n| n + 5), ..Policy::default() };
        Command::SetPool { pool, policy, capacity, by }
    });
    let add = (pool(), lock(), vec(any::<u8>(), 0..4), by()).prop_map(|(pool, lock, metadata, by)| Command::AddLock {
        pool,
        lock,
        metadata: metadata.into(),
        labels: Arc::default(),
        claim: None,
        by,
    });
    let remove =
        (pool(), lock(), by()).prop_map(|(pool, lock, by)| Command::RemoveLock { pool, lock, claim: None, by });
    prop_oneof![
        8 => ask(),
        4 => id().prop_map(|id| Command::End { id, run: None, by: None, reason: None }),
        2 => set_pool,
        2 => add,
        1 => remove,
        1 => (pool(), by()).prop_map(|(pool, by)| Command::RemovePool { pool, by }),
        1 => (pool(), by()).prop_map(|(pool, by)| Command::Note { pool, lock: None, by }),
        1 => Just(Command::Reconcile),
        1 => Just(Command::Tick),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let gap = prop_oneof![4 => 0_u64..50, 1 => Just(4_000), 1 => Just(46_000), 1 => Just(601_000)];
    prop_oneof![
        10 => (command(), gap).prop_map(|(command, gap)| Op::Step(command, gap)),
        3 => Just(Op::Commit),
        1 => Just(Op::Restart),
    ]
}

struct Life {
    store: Box<dyn Store>,
    state: State,
    now: Now,
    /// The clock does not advance between lives, so only the stored epoch keeps fences apart.
    epoch: u64,
    pools_removed: usize,
    parked: BTreeMap<ParkId, AskClaim>,
}

impl Life {
    fn begin(place: &Place, changes: usize, now: Now) -> Self {
        let mut store = place();
        let settings = Settings { changes, at_hand: 0, ..Settings::default() };
        let mut restart = Restart::begin(store.load().unwrap(), settings, 7, now);
        store.past(&mut |claim| restart.ended.take(&claim), &mut |entry| restart.history.take(&entry)).unwrap();
        let state = restart.finish();
        let mut life = Self { store, state, now, epoch: 7, pools_removed: 0, parked: BTreeMap::new() };
        life.commit();
        life
    }

    fn commit(&mut self) {
        let changes = self.state.take_changes(self.now);
        self.store.commit(&changes).unwrap();
    }

    /// Runs a command, then does what the door and the clients do: a client that gets a notice asks again, and every
    /// other grant is confirmed right away.
    fn step(&mut self, command: Command, gap: u64) {
        self.now = Now { engine: self.now.engine.plus(Span(gap)), wall: WallMs(self.now.wall.0 + gap) };
        for command in [Command::Tick, command] {
            self.step_now(command);
        }
    }

    fn step_now(&mut self, command: Command) {
        let mut commands = vec![command];
        while let Some(command) = commands.pop() {
            let removes = matches!(command, Command::RemovePool { .. });
            if let Command::Ask(ask) = &command
                && let Wait::Park(park) = ask.wait
            {
                self.parked.insert(park, AskClaim { wait: Wait::Over(park), ..(**ask).clone() });
            }
            let ids = self.state.to_recall(&command);
            let recalled = self.store.own_reader().ended_claims(&ids).unwrap();
            assert_eq!(recalled.len(), ids.len());
            recalled.into_iter().for_each(|ended| self.state.recall(ended));
            let reply = step(&mut self.state, command, self.now);
            self.pools_removed += usize::from(removes && reply.is_ok());
            if let Ok(Reply::Claim { claim, .. }) = reply
                && let Phase::Granted { fence: Fence(fence), .. } = claim.phase
                && fence % 2 == 0
            {
                let run = claim.runs.last().cloned();
                commands.push(Command::Confirm { id: claim.id.clone(), run, fence: Fence(fence) });
            }
            for notice in self.state.take_notices() {
                let Notice::Park(park) = notice else { continue };
                commands.extend(self.parked.remove(&park).map(|ask| Command::Ask(Box::new(ask))));
            }
        }
    }
}

/// For any commands, batches and restarts, the next life sees what the last one had committed.
pub fn the_next_life_sees_the_same(make: impl Fn() -> Place, cases: u32) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let run = |(short, ops): (bool, Vec<Op>)| {
        let place = make();
        // Pruning is tested without claims over two pools: each pool prunes its own list of the entries that they
        // share, and the next life shows such an entry in both again.
        let changes = if short { 12 } else { Settings::default().changes };
        let spans = |command: &Command| matches!(command, Command::Ask(ask) if ask.terms.ask.parts.len() > 1);
        let mut life = Life::begin(&place, changes, Now { engine: EngineMs(5), wall: WallMs(1_767_225_600_000) });
        for op in ops.into_iter().chain([Op::Restart]) {
            match op {
                Op::Step(command, _) if short && spans(&command) => {}
                Op::Step(command, gap) => life.step(command, gap),
                Op::Commit => life.commit(),
                Op::Restart => {
                    life.commit();
                    let (before, last) = (seen(&life.state, true), life.state.snapshot.revision);
                    let Life { store, now, pools_removed, .. } = life;
                    drop(store);
                    life = Life { pools_removed, ..Life::begin(&place, changes, now) };
                    prop_assert_eq!(invariants::check(&life.state), Ok(()));
                    prop_assert_eq!(seen(&life.state, true), before);
                    let revision = life.state.snapshot.revision;
                    prop_assert!(revision >= last.max(Revision::start_of(life.epoch)));
                }
            }
        }
        Ok(())
    };
    runner.run(&(any::<bool>(), vec(op(), 1..60)), run).unwrap();
}

#[test]
fn in_memory() {
    let make = || -> Place {
        let store = super::memory::MemoryStore::new().unwrap();
        Box::new(move || Box::new(store.clone()))
    };
    the_next_life_sees_the_same(make, 300);
}

#[test]
fn in_a_file() {
    let make = || -> Place {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || Box::new(super::sqlite::SqliteStore::open(&dir.path().join("locker.db")).unwrap()))
    };
    the_next_life_sees_the_same(make, 12);
}
