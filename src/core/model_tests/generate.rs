//! Random operations that make sense in the state in which they happen.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

use super::latches::{Ending, Latch, LatchOp};
use super::reference::{Labels, Model, Op, Order, RANDOM, Request, Rules, Shape, To, Wait, Want, Which};

/// A run of the model: what was declared before it began, and its present state.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) model: Model,
    pub(super) setup: Vec<Op>,
    next_park: u64,
    mood: Mood,
}

/// The emphasis of a case, so that rules which rarely meet do meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Everything.
    Mixed,
    /// Keys and requestors around the same locks.
    Sharing,
    /// Builds that hold and wait in several pools.
    Builds,
    /// Builds that run again in place: they ask for the same and release it.
    Reruns,
    /// Locks and requests with labels.
    Labels,
    /// Claims that supersede each other.
    Newest,
}

pub(super) struct Rulebook;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// With `tight` limits, old operations are forgotten because there are too many.
fn rules(declared_only: bool, tight: bool) -> Rules {
    Rules {
        listen: 20 * SECOND,
        grace: 3 * SECOND,
        place: 10 * MINUTE,
        confirm: 45 * SECOND,
        withdrawals: 3,
        drain: 30 * SECOND,
        lease: 60 * SECOND,
        unanswered: 5 * MINUTE,
        memory: 20 * MINUTE,
        build_memory: 60 * MINUTE,
        latch_kept: 9 * MINUTE,
        ops: if tight { 1 } else { 100 },
        short: 10 * MINUTE,
        parks: 8,
        declared_only,
    }
}

impl ReferenceStateMachine for Rulebook {
    type State = Case;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Case> {
        let mood = prop_oneof![2 => Just(Mood::Mixed), 1 => Just(Mood::Sharing), 2 => Just(Mood::Builds), 2 => Just(Mood::Reruns),
            1 => Just(Mood::Labels), 1 => Just(Mood::Newest)];
        let rules = (prop::bool::weighted(0.1), prop::bool::weighted(0.3)).prop_map(|(only, tight)| rules(only, tight));
        let rare = (rules, order(), backfill(), any::<bool>(), when_empty());
        let declared = (2_u32..=4, 1_u32..=2, option::of(0_u32..4), any::<bool>(), rare);
        (mood, declared)
            .prop_map(|(mood, (p, q, max_queue, labelled, (mut rules, order, backfill, by_name, when_empty)))| {
                let (p, max_queue) = match mood {
                    Mood::Mixed => (p, max_queue),
                    Mood::Newest => (1, max_queue),
                    Mood::Labels => (p, None),
                    Mood::Sharing | Mood::Builds | Mood::Reruns => (p - 1, None),
                };
                rules.declared_only &= mood == Mood::Mixed;
                let pool = |pool: &str, n, max_queue| Op::SetPool {
                    pool: pool.into(),
                    capacity: Some(n),
                    drain: None,
                    max_hold: None,
                    max_queue,
                    order,
                    backfill,
                    by_name,
                    scope: None,
                    when_empty,
                    keep: by_name,
                };
                let of_p = max_queue.filter(|_| mood == Mood::Newest);
                let mut setup = vec![pool("p", p, of_p), pool("q", q, max_queue), pool(RANDOM, 2, None)];
                let add = |lock: &str, labels: &[(&str, &str)]| Op::Add {
                    pool: "p".into(),
                    lock: lock.into(),
                    labels: labelled_with(labels),
                    claim: None,
                };
                if labelled {
                    setup.push(add("big", &[("kind", "gpu")]));
                }
                if mood == Mood::Labels {
                    setup.extend([add("x", &[("zone", "a")]), add("xy", &[("kind", "gpu"), ("zone", "a")])]);
                }
                let mut model = Model::new(rules);
                setup.iter().for_each(|op| model.apply(op));
                Case { model, setup, next_park: 1, mood }
            })
            .boxed()
    }

    fn transitions(case: &Case) -> BoxedStrategy<Op> {
        let live: Vec<String> = case.model.claims.iter().map(|claim| claim.id.clone()).collect();
        let parked = case.model.parked.clone();
        let mixed = case.mood == Mood::Mixed;
        let spans = match case.mood {
            Mood::Mixed => vec![1, 3, 10, 20, 45, 60, 600],
            Mood::Reruns => vec![1, 3, 45, 250],
            Mood::Sharing | Mood::Builds | Mood::Labels | Mood::Newest => vec![1, 3, 45],
        };
        let mut ops = vec![
            (if mixed { 10 } else { 20 }, asks(case)),
            (if mixed { 4 } else { 10 }, confirms(&live)),
            (5, ends(&live)),
            (if case.mood == Mood::Reruns { 12 } else { 2 }, releases(case, &live)),
            (if mixed { 4 } else { 1 }, holds(&live)),
            (if mixed { 4 } else { 2 }, by_hand(&live, case.mood != Mood::Newest)),
            (if mixed { 5 } else { 1 }, select(spans).prop_map(|n| Op::Pass(n * SECOND)).boxed()),
            (1, prop_oneof![2 => Just(Op::Restart), 1 => Just(Op::Reconcile)].boxed()),
        ];
        if mixed {
            let leap = select(vec![7, 50, 700, 4_000]).prop_map(|n| Op::Leap(n * SECOND));
            ops.extend([(2, declares()), (1, changes(case, &live)), (1, leap.boxed())]);
            ops.extend([(4, once(case, &live)), (5, latches()), (2, suspects())]);
        }
        if case.mood == Mood::Labels {
            ops.extend([(4, relabels()), (1, changes(case, &live))]);
        }
        if !parked.is_empty() {
            ops.push((3, select(parked.clone()).prop_map(|(park, _)| Op::Left(park)).boxed()));
            let over = |(park, request): (u64, Request)| Op::Ask(Request { wait: Wait::Over(park), ..request });
            ops.push((4, select(parked).prop_map(over).boxed()));
        }
        proptest::strategy::Union::new_weighted(ops).boxed()
    }

    fn apply(mut case: Case, op: &Op) -> Case {
        if let Op::Ask(Request { wait: Wait::Park(park), .. }) = op {
            case.next_park = case.next_park.max(park + 1);
        }
        case.model.apply(op);
        case
    }
}

fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(String::from)
}

const IDS: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn claim(live: &[String]) -> BoxedStrategy<String> {
    let any = text(&IDS[..7]);
    if live.is_empty() { any.boxed() } else { prop_oneof![3 => select(live.to_vec()), 1 => any].boxed() }
}

fn run() -> impl Strategy<Value = Option<String>> {
    option::weighted(0.5, text(&["r1", "r2", "r3"]))
}

fn asks(case: &Case) -> BoxedStrategy<Op> {
    let model = case.model.clone();
    let (park, mood) = (case.next_park, case.mood);
    let how =
        (prop::bool::weighted(0.7), prop::bool::weighted(0.1), prop::bool::weighted(0.5), prop::bool::weighted(0.9));
    let newest = option::weighted(0.9, text(&["s", "s", "t", "/s"]));
    let more = (prop::bool::weighted(0.3), newest, option::weighted(0.5, text(&["j", "k"])));
    let spans = (
        option::weighted(0.15, select(vec![10 * SECOND, 70 * SECOND, 11 * MINUTE])),
        option::weighted(0.2, select(vec![10 * SECOND, 5 * MINUTE, 11 * MINUTE])),
    );
    let ids = if mood == Mood::Mixed { select(&IDS[..7]) } else { select(IDS) };
    let priority = select(vec![0, 0, 0, 1, 2, -1]);
    (ids.prop_map(String::from), shape(mood), run(), how, spans, (priority, more))
        .prop_map(move |(claim, shape, run, (confirm, try_lock, parks, same), (give_up, ttl), (priority, more))| {
            let (if_empty, supersede, job) = more;
            let supersede = supersede.filter(|_| mood == Mood::Newest);
            // Outside the mixed mood, most requests park, and nothing ends by itself.
            let parks = parks || mood != Mood::Mixed;
            let (give_up, ttl) = if mood == Mood::Mixed { (give_up, ttl) } else { (None, None) };
            let run = run.filter(|_| mood == Mood::Mixed);
            let shape = model.asked(&claim).filter(|_| same).unwrap_or(shape);
            let wait = if parks { Wait::Park(park) } else { Wait::No };
            Op::Ask(Request {
                claim,
                shape,
                run,
                wait,
                priority,
                confirm,
                try_lock,
                give_up,
                ttl,
                if_empty,
                supersede,
                job,
            })
        })
        .boxed()
}

fn one(pool: &str, want: Want) -> (String, Want) {
    (pool.to_owned(), want)
}

fn any_of(pool: &str, count: usize) -> (String, Want) {
    one(pool, Want::Any(count, Labels::new()))
}

fn labelled_with(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Labels of a lock, or those that a claim wants.
fn labels() -> impl Strategy<Value = Labels> {
    const LABELS: &[&[(&str, &str)]] = &[
        &[],
        &[("kind", "gpu")],
        &[("kind", "cpu")],
        &[("zone", "a")],
        &[("kind", "gpu"), ("zone", "a")],
        &[("kind", "gpu"), ("zone", "b")],
    ];
    select(LABELS).prop_map(labelled_with)
}

fn named(pool: &str, names: &[&str]) -> (String, Want) {
    one(pool, Want::Named(names.iter().map(|name| (*name).to_owned()).collect()))
}

fn shape(mood: Mood) -> BoxedStrategy<Shape> {
    let (keyed, built) = match mood {
        Mood::Mixed => (0.4, 0.6),
        Mood::Sharing => (0.9, 0.3),
        Mood::Builds => (0.1, 0.95),
        Mood::Reruns => (0.1, 0.95),
        Mood::Labels => (0.2, 0.3),
        Mood::Newest => (0.1, 0.7),
    };
    let parts = match mood {
        Mood::Mixed => mixed_parts(),
        Mood::Sharing => prop_oneof![
            6 => Just(vec![any_of("p", 1)]),
            2 => Just(vec![any_of("p", 2)]),
            1 => Just(vec![named("p", &["1"])]),
            2 => Just(vec![any_of("q", 1)]),
            1 => Just(vec![any_of("p", 1), any_of("q", 1)]),
        ]
        .boxed(),
        Mood::Reruns => prop_oneof![
            5 => Just(vec![any_of("p", 1)]),
            3 => Just(vec![any_of("q", 1)]),
            1 => Just(vec![any_of("p", 2)]),
            1 => Just(vec![any_of("p", 1), any_of("q", 1)]),
        ]
        .boxed(),
        Mood::Labels => prop_oneof![
            8 => (1_usize..=2, labels()).prop_map(|(count, labels)| vec![one("p", Want::Any(count, labels))]),
            1 => Just(vec![named("p", &["xy"])]),
            1 => labels().prop_map(|labels| vec![one("p", Want::Any(1, labels)), any_of("q", 1)]),
        ]
        .boxed(),
        Mood::Newest => prop_oneof![
            5 => Just(vec![any_of("p", 1)]),
            1 => Just(vec![any_of("q", 1)]),
            1 => Just(vec![any_of("p", 1), any_of("q", 1)]),
        ]
        .boxed(),
        Mood::Builds => {
            let pools = proptest::sample::subsequence(vec!["p", "q", "r", "t"], 1..=2);
            (pools, 1_usize..=2)
                .prop_map(|(pools, count)| {
                    let count_in = |pool| if pool == "p" { count } else { 1 };
                    pools.into_iter().map(|pool| any_of(pool, count_in(pool))).collect()
                })
                .boxed()
        }
    };
    let key = option::weighted(keyed, text(&["k", "k", "j"]));
    let who = option::weighted(0.8, text(&["x", "y", "k"]));
    let builds: &[&str] = if mood == Mood::Reruns { &["1", "2"] } else { &["1", "2", "3"] };
    let build = option::weighted(built, text(builds));
    let scopes: &[&str] = if mood == Mood::Mixed { &["flow", "build", "lease", "person"] } else { &["flow", "build"] };
    let scope = option::weighted(if mood == Mood::Reruns { 0.2 } else { 0.5 }, select(scopes));
    (parts, key, who, build, scope)
        .prop_map(|(parts, key, who, build, scope)| {
            let key = key.filter(|_| parts.iter().all(|(pool, _): &(String, Want)| pool != RANDOM));
            Shape { parts, who: who.filter(|_| key.is_some()), key, build, scope }
        })
        .boxed()
}

fn mixed_parts() -> BoxedStrategy<Vec<(String, Want)>> {
    prop_oneof![
        6 => Just(vec![any_of("p", 1)]),
        3 => Just(vec![any_of("p", 2)]),
        1 => Just(vec![any_of("p", 3)]),
        2 => Just(vec![named("p", &["1"])]),
        1 => Just(vec![named("p", &["1", "2"])]),
        3 => labels().prop_map(|labels| vec![one("p", Want::Any(1, labels))]),
        2 => (1_usize..=2).prop_map(|count| vec![any_of(RANDOM, count)]),
        1 => Just(vec![any_of("p", 1), any_of(RANDOM, 1)]),
        4 => Just(vec![any_of("q", 1)]),
        3 => Just(vec![any_of("p", 1), any_of("q", 1)]),
        1 => Just(vec![any_of("p", 2), named("q", &["1"])]),
        2 => Just(vec![any_of("r", 1)]),
        1 => Just(vec![named("r", &["r"])]),
        1 => Just(vec![any_of("q", 1), any_of("r", 1)]),
        1 => Just(vec![any_of("s", 2)]),
        1 => Just(vec![named("p", &["9"])]),
    ]
    .boxed()
}

fn confirms(live: &[String]) -> BoxedStrategy<Op> {
    let fence = prop_oneof![6 => Just(Which::Present), 1 => Just(Which::Former), 1 => Just(Which::Wrong)];
    (claim(live), run(), fence).prop_map(|(claim, run, fence)| Op::Confirm { claim, run, fence }).boxed()
}

fn ends(live: &[String]) -> BoxedStrategy<Op> {
    (claim(live), run()).prop_map(|(claim, run)| Op::End { claim, run }).boxed()
}

/// Releases by steps, mostly of the claim's own build, and news of builds.
fn releases(case: &Case, live: &[String]) -> BoxedStrategy<Op> {
    let model = case.model.clone();
    let release = (claim(live), text(&["1", "2"]), prop::bool::weighted(0.9), prop::bool::weighted(0.9));
    let release = release.prop_map(move |(claim, other, own, may_mark)| {
        let build = model.asked(&claim).and_then(|shape| shape.build).filter(|_| own).or(Some(other));
        Op::Release { claim, build, may_mark }
    });
    prop_oneof![
        8 => release,
        1 => text(&["1", "2"]).prop_map(Op::Alive),
        1 => over(&["1", "2"]),
    ]
    .boxed()
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![5 => Just(Order::Fifo), 2 => Just(Order::Priority), 1 => Just(Order::Lifo)]
}

/// Whether claims wait for locks that a pool does not have, where it says so.
fn when_empty() -> impl Strategy<Value = Option<bool>> {
    option::weighted(0.3, prop::bool::weighted(0.8))
}

fn backfill() -> impl Strategy<Value = Option<Option<u32>>> {
    option::weighted(0.3, option::weighted(0.6, 1_u32..3))
}

/// What people do by hand.
fn by_hand(live: &[String], moves: bool) -> BoxedStrategy<Op> {
    let to = prop_oneof![
        2 => Just(To::First),
        1 => Just(To::Last),
        3 => claim(live).prop_map(To::Before),
    ];
    let place = || (text(&["p", "p", "q"]), text(&["1", "2", "3"]));
    let span = option::of(select(vec![20 * SECOND, 12 * MINUTE]));
    let moved = (claim(live), to).prop_map(|(claim, to)| Op::Move { claim, to });
    let moved = if moves { moved.boxed() } else { claim(live).prop_map(Op::Cancel).boxed() };
    prop_oneof![
        3 => moved,
        2 => (claim(live), any::<bool>()).prop_map(|(claim, drain)| Op::Break { claim, drain }),
        1 => claim(live).prop_map(Op::Cancel),
        2 => (place(), span).prop_map(|((pool, lock), span)| Op::Quarantine { pool, lock, span }),
        2 => place().prop_map(|(pool, lock)| Op::Return { pool, lock }),
    ]
    .boxed()
}

/// What happens to holders: renewals, fetches, and the end of their builds.
fn holds(live: &[String]) -> BoxedStrategy<Op> {
    let fence = option::weighted(0.7, prop_oneof![6 => Just(Which::Present), 1 => Just(Which::Former)]);
    prop_oneof![
        4 => (claim(live), run(), fence).prop_map(|(claim, run, fence)| Op::Renew { claim, run, fence }),
        2 => (claim(live), prop::bool::weighted(0.8), option::weighted(0.8, any::<bool>()))
            .prop_map(|(claim, present, another)| Op::Deliver { claim, present, another }),
        2 => over(&["1", "2", "3"]),
    ]
    .boxed()
}

/// A build is over.
fn over(builds: &'static [&'static str]) -> impl Strategy<Value = Op> {
    (text(builds), select(&["aborted", "errored", "gone", "failed", "succeeded"][..]))
        .prop_map(|(build, how)| Op::Over { build, how })
}

fn declares() -> BoxedStrategy<Op> {
    let pool = text(&["p", "p", "q", "r"]);
    let drain = option::weighted(0.3, select(vec![0, 10 * SECOND, 11 * MINUTE]));
    let max_hold = option::weighted(0.2, select(vec![50 * SECOND, 12 * MINUTE]));
    let scope = option::weighted(0.3, select(&["flow", "build", "person"][..]));
    let more = (
        option::weighted(0.2, 0_u32..4),
        order(),
        backfill(),
        prop::bool::weighted(0.2),
        (scope, when_empty(), any::<bool>()),
    );
    let new_drain = option::weighted(0.5, option::of(select(vec![0, 20 * SECOND])));
    let new_scope = option::weighted(0.5, option::of(select(&["flow", "build"][..])));
    let changed = (text(&["p", "q", "r", "r", "t"]), option::weighted(0.5, 0_u32..3), new_drain, new_scope);
    let changed = changed.prop_map(|(pool, capacity, drain, scope)| Op::ChangePool { pool, capacity, drain, scope });
    let set = (pool, option::weighted(0.8, 0_u32..5), drain, max_hold, more).prop_map(
        |(pool, capacity, drain, max_hold, (max_queue, order, backfill, by_name, (scope, when_empty, keep)))| {
            Op::SetPool {
                pool,
                capacity,
                drain,
                max_hold,
                max_queue,
                order,
                backfill,
                by_name,
                scope,
                when_empty,
                keep,
            }
        },
    );
    prop_oneof![2 => set, 1 => changed].boxed()
}

fn place() -> impl Strategy<Value = (String, String)> {
    (text(&["p", "p", "q", "r"]), text(&["1", "2", "3", "big", "r"]))
}

fn changes(case: &Case, live: &[String]) -> BoxedStrategy<Op> {
    prop_oneof![
        3 => adds(case),
        3 => (place(), labels()).prop_map(|((pool, lock), labels)| Op::Update { pool, lock, labels }),
        3 => (place(), option::of(claim(live))).prop_map(|((pool, lock), claim)| Op::Remove { pool, lock, claim }),
        3 => (place(), text(&["p", "q", "r", "s"]), option::of(claim(live)))
            .prop_map(|((pool, lock), to, claim)| Op::MoveLock { pool, lock, to, claim }),
        1 => text(&["p", "q", "r"]).prop_map(Op::RemovePool),
    ]
    .boxed()
}

/// New locks, some of them with a holder.
fn adds(case: &Case) -> BoxedStrategy<Op> {
    let model = case.model.clone();
    let holder =
        (text(&IDS[..7]), run(), option::of(text(&["1", "2", "3"])), option::of(select(&["flow", "build"][..])));
    (place(), labels(), option::of((holder, option::weighted(0.3, Just(5 * MINUTE)))))
        .prop_map(move |((pool, lock), labels, claim)| {
            let claim = claim.map(|((claim, run, build, scope), ttl)| {
                let parts = vec![named(&pool, &[lock.as_str()])];
                let known = model.asked(&claim).filter(|shape| shape.parts == parts && shape.key.is_none());
                let shape = known.unwrap_or(Shape { parts, key: None, who: None, build, scope });
                let (wait, give_up, supersede, job) = (Wait::No, None, None, None);
                let (priority, confirm, try_lock, if_empty) = (0, false, false, false);
                Request { claim, shape, run, wait, priority, confirm, try_lock, give_up, ttl, if_empty, supersede, job }
            });
            Op::Add { pool, lock, labels, claim }
        })
        .boxed()
}

/// Locks get and lose labels, come and go.
fn relabels() -> BoxedStrategy<Op> {
    let lock = || text(&["1", "2", "big", "x", "xy"]);
    prop_oneof![
        3 => (lock(), labels()).prop_map(|(lock, labels)| Op::Update { pool: "p".into(), lock, labels }),
        2 => (lock(), labels()).prop_map(|(lock, labels)| Op::Add { pool: "p".into(), lock, labels, claim: None }),
        3 => lock().prop_map(|lock| Op::Remove { pool: "p".into(), lock, claim: None }),
        3 => lock().prop_map(|lock| Op::Quarantine { pool: "p".into(), lock, span: None }),
        1 => lock().prop_map(|lock| Op::Return { pool: "p".into(), lock }),
    ]
    .boxed()
}

/// Changes with an id: new ones, those of before, and others with the id of one before.
fn once(case: &Case, live: &[String]) -> BoxedStrategy<Op> {
    let by_hand = by_hand(live, true).prop_filter("has no op", |op| !matches!(op, Op::Break { .. } | Op::Cancel(_)));
    let change = prop_oneof![2 => declares(), 2 => changes(case, live), 2 => by_hand];
    let new =
        (text(&["o1", "o2", "o3", "o4"]), change).prop_map(|(op, change)| Op::Once { op, change: Box::new(change) });
    let known: Vec<Op> = case
        .model
        .ops
        .iter()
        .map(|(_, op, change)| Op::Once { op: op.clone(), change: Box::new(change.clone()) })
        .collect();
    if known.is_empty() { new.boxed() } else { prop_oneof![1 => new, 1 => select(known)].boxed() }
}

fn latches() -> BoxedStrategy<Op> {
    let id = || text(&["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]);
    let ending = || {
        prop_oneof![
            2 => option::of(text(&["1", "2"])).prop_map(Ending::Succeed),
            1 => text(&["no"]).prop_map(Ending::Fail),
        ]
    };
    let bound = || (option::weighted(0.3, text(&["n1", "n2"])), option::weighted(0.3, text(&["u1", "u2"])));
    let create = (id(), text(&["w", "w", "v"]), bound(), ending()).prop_map(|(id, workflow, (node, uid), ending)| {
        LatchOp::Create(Latch { id, workflow, node, uid, ending, forget: None })
    });
    let release = (id(), option::weighted(0.8, ending()), bound())
        .prop_map(|(id, ending, (node, uid))| LatchOp::Release { id, ending, node, uid });
    prop_oneof![3 => create, 4 => release, 1 => id().prop_map(LatchOp::Delete)].prop_map(Op::Latch).boxed()
}

fn suspects() -> BoxedStrategy<Op> {
    (text(&["1", "2", "3"]), prop::bool::weighted(0.6)).prop_map(|(build, why)| Op::Suspect { build, why }).boxed()
}
