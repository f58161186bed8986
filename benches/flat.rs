//! What one operation costs as the server's state grows: each row grows one thing, and prints the cost at each size and
//! how the cost grows.
//!
//! ```text
//! cargo bench --bench flat              # all rows
//! cargo bench --bench flat -- labels    # rows whose name contains "labels"
//! cargo bench --bench flat -- --count   # instructions instead of time, on an empty and on a full server; needs valgrind
//! ```
//!
//! A row calls the core itself, without a store. A cost is the processor's time in the fastest of several rounds of
//! repetitions, so that other load on the machine matters little. A *slope* is the exponent of the growth between the smallest and the largest
//! size: 0 is flat, 1 is linear, 2 is quadratic.

// Figures go to the terminal; a panic is a failed run.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use locker::core::claim::{Ask, Labels, Owner, Part, Priority, Scope, Terms, Want};
use locker::core::command::{AskClaim, By, Command, MoveTo, Reply, Wait};
use locker::core::names::{ClaimId, Digest, Label, LockName, ParkId, PoolName, Text};
use locker::core::pool::{Lock, Overtaking, Pick, Policy};
use locker::core::restart::restarted;
use locker::core::settings::Settings;
use locker::core::state::{EndedOutline, Loaded, State};
use locker::core::step::step;
use locker::core::time::{Deadline, EngineMs, Now, Span, WallMs};

/// The name of a row, its sizes, and how to measure at one size.
type Row = (&'static str, &'static [u32], fn(u32) -> Duration);

const ROWS: &[Row] = &[
    ("a claim and its release, beside other pools", &[0, 1_000, 10_000, 90_000], beside_pools),
    ("the periodic look at all queues, pools", &[1_000, 10_000, 90_000], reconcile),
    ("the longest step while the history of all pools gets too old", &[1_000, 10_000, 90_000], prune),
    ("a claim and its release, beside builds that hold and wait elsewhere", &[0, 100, 1_000], beside_entangled),
    ("labels: a claim and its release, free locks and as many waiters for another label", &[100, 1_000, 9_999], labels),
    ("labels: the same in another pool", &[100, 1_000, 9_999], labels_stranger),
    ("backfill: a claim and its release, waiters for all locks", &[100, 500, 1_000], backfill),
    ("backfill: the same, pick random", &[100, 500, 1_000], backfill_random),
    ("backfill: a start with one-lock pools", &[1_000, 4_000, 10_000], backfill_start),
    ("move to first, waiters", &[100, 1_000, 10_000], move_first),
    ("move to before the last, waiters", &[100, 1_000, 10_000], move_before),
    ("a waiter asks again, waiters before it", &[100, 1_000, 10_000], ask_again),
];

/// Other pools, waiters for one of them, and remembered ended claims: of no server, of servers in use, and of one that is
/// close to all limits.
const WORLDS: [(u32, u32, u32); 4] =
    [(0, 0, 0), (1_000, 100, 10_000), (10_000, 1_000, 100_000), (99_990, 10_000, 990_000)];
/// Cycles whose instructions are counted.
const COUNTED: u32 = 500;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().position(|arg| arg == "--cycles") {
        Some(at) => {
            let [world, cycles, elsewhere] = [1, 2, 3].map(|n| args[at + n].parse().unwrap());
            return counted(world, u32::try_from(cycles).unwrap(), elsewhere > 0);
        }
        None if args.iter().any(|arg| arg == "--count") => return count(),
        None => {}
    }
    let wanted: Vec<String> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    println!("| what | size: cost | slope |\n|---|---|---|");
    for (name, sizes, measure) in ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let costs: Vec<(u32, Duration)> = sizes.iter().map(|size| (*size, measure(*size))).collect();
        let shown: Vec<String> = costs.iter().map(|(size, cost)| format!("{size}: {cost:.1?}")).collect();
        println!("| {name} | {} | {:.2} |", shown.join(", "), slope(&costs));
    }
}

fn slope(costs: &[(u32, Duration)]) -> f64 {
    let (first, last) = (costs[0], costs[costs.len() - 1]);
    let growth = f64::from(last.0.max(1)) / f64::from(first.0.max(1));
    (last.1.as_secs_f64() / first.1.as_secs_f64()).ln() / growth.ln()
}

/// The processor's time that this thread has had.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// The time of one repetition, in the fastest of several rounds.
fn fastest(repetitions: u32, mut once: impl FnMut()) -> Duration {
    let round = |_| {
        let start = used();
        (0..repetitions).for_each(|_| once());
        used().saturating_sub(start) / repetitions
    };
    (0..5).map(round).min().unwrap()
}

struct World {
    state: State,
    ms: u64,
    parks: u64,
}

impl World {
    fn new() -> Self {
        Self { state: restarted(Loaded::default(), [], [], Settings::default(), 1, Now::default()), ms: 0, parks: 0 }
    }

    fn now(&self) -> Now {
        Now { engine: EngineMs(self.ms), wall: WallMs(self.ms) }
    }

    fn does(&mut self, command: Command) -> Reply {
        let now = self.now();
        let reply = step(&mut self.state, command, now).unwrap();
        self.state.take_changes(now);
        self.state.take_notices();
        reply
    }

    fn pool(&mut self, name: &str, policy: Policy, capacity: u32) {
        let (pool, capacity) = (PoolName::parse(name).unwrap(), Some(capacity));
        self.does(Command::SetPool { pool, policy, capacity, by: By::default() });
    }

    fn note(&mut self, pool: &str) {
        self.does(Command::Note { pool: PoolName::parse(pool).unwrap(), lock: None, by: By::default() });
    }

    fn label(&mut self, pool: &str, lock: u32, label: &str) {
        let labels = Some(Arc::new(wanted(label)));
        let (pool, lock) = (PoolName::parse(pool).unwrap(), LockName::parse(&lock.to_string()).unwrap());
        self.does(Command::UpdateLock { pool, lock, metadata: None, labels, if_free: false, by: By::default() });
    }

    fn asks(&mut self, id: &str, pool: &str, want: Want, build: Option<u32>, parks: bool) -> Reply {
        self.parks += 1;
        let wait = if parks { Wait::Park(ParkId(self.parks)) } else { Wait::No };
        self.does(Command::Ask(Box::new(ask(id, pool, want, build, wait))))
    }

    fn ends(&mut self, id: &str) {
        self.does(Command::End { id: ClaimId::parse(id).unwrap(), run: None, by: None, reason: None });
    }

    /// The cost of one claim and its release, each with a fresh id.
    fn cycle(&mut self, pool: &str, want: &Want) -> Duration {
        let mut number = 0;
        fastest(20, || {
            number += 1;
            let id = format!("cycle-{number}");
            let reply = self.asks(&id, pool, want.clone(), None, false);
            assert!(matches!(&reply, Reply::Claim { claim, .. } if !claim.waits()), "{reply:?}");
            self.ends(&id);
        })
    }
}

fn ask(id: &str, pool: &str, want: Want, build: Option<u32>, wait: Wait) -> AskClaim {
    let text = |text: String| Text::parse(&text).unwrap();
    let owner = build.map_or(Owner::default(), |build| Owner {
        cluster: Some(text("https://ci".into())),
        build_id: Some(text(build.to_string())),
        ..Owner::default()
    });
    let terms = Terms {
        ask: Ask { parts: vec![Part { pool: PoolName::parse(pool).unwrap(), want }], key: None, requestor: None },
        digest: Digest([0; 32]),
        owner: Arc::new(owner),
        reason: None,
        confirm: false,
        ttl: None,
        priority: Priority::default(),
        supersede: None,
        waits_if_empty: false,
    };
    let id = ClaimId::parse(id).unwrap();
    AskClaim { id, terms, scope: Some(Scope::Flow), run: None, wait, queue: true, give_up_after: None }
}

fn wanted(label: &str) -> Labels {
    BTreeMap::from([(Label::parse("is").unwrap(), Label::parse(label).unwrap())])
}

fn any(count: u32) -> Want {
    Want::Any { count, labels: Labels::new() }
}

fn named(lock: &str) -> Want {
    Want::Named(BTreeSet::from([LockName::parse(lock).unwrap()]))
}

fn beside_pools(others: u32) -> Duration {
    let mut world = World::new();
    (0..others).for_each(|n| world.pool(&format!("other-{n}"), Policy::default(), 1));
    world.pool("p", Policy::default(), 1);
    world.cycle("p", &any(1))
}

fn reconcile(pools: u32) -> Duration {
    let mut world = World::new();
    (0..pools).for_each(|n| world.pool(&format!("p-{n}"), Policy::default(), 1));
    fastest(1, || {
        world.ms += 5_000;
        world.does(Command::Reconcile);
    })
}

/// Each pool has two old entries, which all become too old at once: the longest look until nothing more goes.
fn prune(pools: u32) -> Duration {
    let mut world = World::new();
    (0..pools).for_each(|n| world.pool(&format!("p-{n}"), Policy::default(), 1));
    (0..pools).for_each(|n| world.note(&format!("p-{n}")));
    world.ms += Span::hours(24 * 365).0;
    let mut longest = Duration::ZERO;
    loop {
        let before = world.state.snapshot.history.entries;
        let start = used();
        world.does(Command::Reconcile);
        longest = longest.max(used().saturating_sub(start));
        world.ms += 5_000;
        if world.state.snapshot.history.entries == before {
            return longest;
        }
    }
}

fn beside_entangled(builds: u32) -> Duration {
    let mut world = World::new();
    world.pool("p", Policy::default(), 1);
    world.pool("gate", Policy::default(), 1);
    world.asks("holder", "gate", any(1), None, false);
    for n in 0..builds {
        world.pool(&format!("own-{n}"), Policy::default(), 1);
        world.asks(&format!("h-{n}"), &format!("own-{n}"), any(1), Some(n), false);
        world.asks(&format!("w-{n}"), "gate", any(1), Some(n), true);
    }
    world.cycle("p", &any(1))
}

/// The one lock with this label is taken, and every waiter wants that label. The others, as many, are free.
fn labelled(size: u32) -> World {
    let mut world = World::new();
    world.pool("p", Policy::default(), size + 1);
    world.pool("stranger", Policy::default(), 1);
    (1..=size).for_each(|n| world.label("p", n, "free"));
    world.label("p", size + 1, "taken");
    let taken = Want::Any { count: 1, labels: wanted("taken") };
    world.asks("holder", "p", taken.clone(), None, false);
    (0..size).for_each(|n| drop(world.asks(&format!("w-{n}"), "p", taken.clone(), None, true)));
    world
}

fn labels(size: u32) -> Duration {
    labelled(size).cycle("p", &Want::Any { count: 1, labels: wanted("free") })
}

fn labels_stranger(size: u32) -> Duration {
    labelled(size).cycle("stranger", &any(1))
}

fn backfilled(size: u32, pick: Pick) -> Duration {
    let mut world = World::new();
    world.pool("p", Policy { overtaking: Overtaking::Backfill(None), pick, ..Policy::default() }, size);
    world.asks("holder", "p", named("1"), None, false);
    (0..size / 2).for_each(|n| drop(world.asks(&format!("w-{n}"), "p", any(size), None, true)));
    world.cycle("p", &any(1))
}

fn backfill(size: u32) -> Duration {
    backfilled(size, Pick::LeastRecent)
}

fn backfill_random(size: u32) -> Duration {
    backfilled(size, Pick::Random)
}

fn backfill_start(pools: u32) -> Duration {
    let mut world = World::new();
    let policy = Policy { overtaking: Overtaking::Backfill(None), ..Policy::default() };
    (0..pools).for_each(|n| world.pool(&format!("p-{n}"), policy.clone(), 1));
    let pools: Vec<_> = world.state.snapshot.pools.values().collect();
    let loaded = Loaded {
        pools: pools.iter().map(|pool| (pool.name.clone(), pool.policy.clone())).collect(),
        locks: pools
            .iter()
            .flat_map(|pool| pool.locks.values().map(|lock| (pool.name.clone(), (**lock).clone())))
            .collect(),
        ..Loaded::default()
    };
    let start = used();
    let mut state = restarted(loaded, [], [], Settings::default(), 1, Now::default());
    step(&mut state, Command::Tick, Now::default()).unwrap();
    used().saturating_sub(start)
}

fn queue(waiters: u32) -> World {
    let mut world = World::new();
    world.pool("p", Policy::default(), 1);
    world.asks("holder", "p", any(1), None, false);
    (0..waiters).for_each(|n| drop(world.asks(&format!("w-{n}"), "p", any(1), None, true)));
    world
}

fn moved(world: &mut World, id: &str, to: MoveTo) {
    let id = ClaimId::parse(id).unwrap();
    world.does(Command::Move { id, to, by: By::default() });
}

/// Moves the last waiter to the front, again and again.
fn move_first(waiters: u32) -> Duration {
    let mut world = queue(waiters);
    let mut last = waiters;
    fastest(5, || {
        last -= 1;
        moved(&mut world, &format!("w-{last}"), MoveTo::First);
    })
}

/// Moves one waiter after another in front of the same waiter.
fn move_before(waiters: u32) -> Duration {
    let mut world = queue(waiters);
    let before = ClaimId::parse(&format!("w-{}", waiters - 1)).unwrap();
    let mut first = 0;
    fastest(5, || {
        moved(&mut world, &format!("w-{first}"), MoveTo::Before(before.clone()));
        first += 1;
    })
}

/// What a waiting client costs each time it asks: its step, and finding its place.
fn ask_again(waiters: u32) -> Duration {
    let mut world = queue(waiters);
    let id = format!("w-{}", waiters - 1);
    fastest(20, || {
        world.ms += Span::secs(1).0 / 1_000;
        world.asks(&id, "p", any(1), None, true);
        let pool = world.state.snapshot.pool(&PoolName::parse("p").unwrap()).unwrap();
        let claim = &world.state.snapshot.claims[&ClaimId::parse(&id).unwrap()];
        assert_eq!(place(pool, claim), waiters as usize);
    })
}

fn place(pool: &locker::core::pool::Pool, claim: &locker::core::claim::Claim) -> usize {
    pool.waiting_before(pool.place(claim)) + 1
}

/// Counts the instructions of one cycle in each world: those of a process with some cycles less those of one with fewer.
/// Each cycle is in the same pool, or each in another one.
fn count() {
    println!(
        "| other pools, waiters there, ended claims | instructions of a claim and its release | times the first \
         | each in another pool |\n|---|---|---|---|"
    );
    let mut first = None;
    for (number, world) in WORLDS.iter().enumerate() {
        let counted = instructions(number, false);
        let times = counted as f64 / *first.get_or_insert(counted) as f64;
        let elsewhere = if world.0 == 0 { String::new() } else { instructions(number, true).to_string() };
        println!("| {world:?} | {counted} | {times:.2} | {elsewhere} |");
    }
}

fn instructions(world: usize, elsewhere: bool) -> u64 {
    let total = |cycles: u32| -> u64 {
        let program = std::env::current_exe().unwrap();
        let mut valgrind = Process::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
        let numbers = [world, cycles as usize, usize::from(elsewhere)].map(|number| number.to_string());
        let output = valgrind.arg("--cycles").args(numbers).output().expect("valgrind");
        let said = String::from_utf8(output.stderr).unwrap();
        let counted = said.lines().find_map(|line| line.split_once("Collected : ")).expect(&said).1;
        counted.trim().parse().unwrap()
    };
    (total(2 * COUNTED) - total(COUNTED)) / u64::from(COUNTED)
}

/// So many cycles in this world. Like the engine, each step takes the changes and publishes the snapshot.
fn counted(number: usize, cycles: u32, elsewhere: bool) {
    let mut world = filled(WORLDS[number]);
    world.pool("p", Policy::default(), 1);
    let pools = WORLDS[number].0;
    // Far from each other. The first one is not free.
    let pool = |n: u32| if elsewhere { format!("other-{}", 1 + n * 7919 % (pools - 1)) } else { "p".into() };
    go_round(&mut world, (0..cycles).map(pool).collect());
}

/// Of its own, so that `callgrind --toggle-collect='*go_round*'` can look at nothing else.
#[inline(never)]
fn go_round(world: &mut World, pools: Vec<String>) {
    for (number, pool) in pools.into_iter().enumerate() {
        let id = format!("cycle-{number:06}");
        world.asks(&id, &pool, any(1), None, false);
        let claimed = world.state.snapshot.clone();
        world.ends(&id);
        drop((claimed, world.state.snapshot.clone()));
    }
}

fn filled((pools, waiters, ended): (u32, u32, u32)) -> World {
    let pool = |n: u32| PoolName::parse(&format!("other-{n}")).unwrap();
    let lock = |name: &PoolName| Lock::new(name.own_lock(), Arc::from([]), Arc::default());
    let loaded = Loaded {
        pools: (0..pools).map(|n| (pool(n), Policy::default())).collect(),
        locks: (0..pools).map(|n| (pool(n), lock(&pool(n)))).collect(),
        ..Loaded::default()
    };
    let state = restarted(loaded, (0..ended).map(remembered), [], Settings::default(), 1, Now::default());
    let mut world = World { state, ..World::new() };
    if waiters > 0 {
        world.asks("holder", "other-0", any(1), None, false);
    }
    (0..waiters).for_each(|n| drop(world.asks(&format!("w-{n}"), "other-0", any(1), None, true)));
    world
}

fn remembered(n: u32) -> EndedOutline {
    EndedOutline {
        id: ClaimId::parse(&format!("ended-{n}")).unwrap(),
        released: true,
        forget: Deadline { at: EngineMs(u64::from(n) + 1_000_000), span: Span(1_000_000) },
        build: None,
    }
}
