//! Random values of everything that is stored, for the tests: few keys, so that they collide, and texts of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::core::claim::{
    Ask, BuildEnd, BuildOver, BuildRef, Claim, End, Ended, Fetched, Labels, LockSet, Owner, Part, Phase, Presence,
    Priority, Scope, Terms, Want,
};
use crate::core::history::{Change, ChangeKind};
use crate::core::latch::{Ending, Latch, LatchId, LatchRef, NewLatch, Node, NodeText, Outputs, Released, Target};
use crate::core::limits;
use crate::core::names::{
    Asked, ChangeKey, ClaimId, Digest, Fence, InstanceVars, Label, LockName, OpId, ParkId, PoolName, Reason, Revision,
    Run, Text, Ticket, TokenName,
};
use crate::core::origin::Identity;
use crate::core::pool::{CutShort, Holder, Lock, Order, Overtaking, Pick, Policy, Quarantine, WhenEmpty};
use crate::core::state::{Changes, Meta, OpRecord};
use crate::core::time::{Deadline, EngineMs, Span, WallMs};
use crate::core::token::Token;

/// Names that differ in ways that a careless store would ignore: case, spaces, Unicode forms, collation, affinity.
const NAMES: &[&str] =
    &["a", "A", " a", "a ", "ä", "a\u{308}", "🔒", "👩‍👩‍👧‍👦 prod", "1", "01", "1e0", "x'y\"z--", "%_", "NULL"];
const IDS: &[&str] = &["a", "A", "-", "0", "00", "c:1", "c:2", "c:3", "x.y_z-", "1e9"];
const TEXTS: &[&str] =
    &["main", "\0", "line\nbreak", "\u{1b}[31m", "\"quoted\\\"", "🚀", "{\"branch\":\"x\"}", "\u{2028}"];

fn name<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    from: &'static [&str],
) -> impl Strategy<Value = T> {
    select(from).prop_map(|text| text.parse().unwrap())
}

pub fn pool() -> impl Strategy<Value = PoolName> {
    name(NAMES)
}

pub fn lock_name() -> impl Strategy<Value = LockName> {
    name(NAMES)
}

pub fn claim_id() -> impl Strategy<Value = ClaimId> {
    name(IDS)
}

fn text() -> impl Strategy<Value = Text> {
    let long = "🔒".repeat(limits::OWNER_FIELD_BYTES / 4);
    prop_oneof![8 => name(TEXTS), 1 => Just(Text::parse(&long).unwrap())]
}

fn reason() -> impl Strategy<Value = Reason> {
    name(TEXTS)
}

fn labels() -> impl Strategy<Value = Arc<Labels>> {
    btree_map(name::<Label>(NAMES), name::<Label>(NAMES), 0..3).prop_map(Arc::new)
}

fn deadline() -> impl Strategy<Value = Deadline> {
    let any = (any::<u64>(), any::<u64>()).prop_map(|(at, span)| Deadline { at: EngineMs(at), span: Span(span) });
    prop_oneof![any, Just(Deadline { at: EngineMs(u64::MAX), span: Span(u64::MAX) })]
}

fn revision() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..6, Just((1 << 53) - 1)]
}

fn key() -> impl Strategy<Value = ChangeKey> {
    (revision(), prop_oneof![0_u32..3, Just(u32::MAX)])
        .prop_map(|(revision, seq)| ChangeKey { revision: Revision(revision), seq })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn owner() -> impl Strategy<Value = Owner> {
    let build = (of(text()), of(text()), of(text()), of(name::<InstanceVars>(TEXTS)), of(text()));
    let rest = (of(text()), of(text()), of(text()), of(text()), of(text()));
    (build, rest).prop_map(|((cluster, team, pipeline, instance_vars, job), rest)| {
        let (build_id, build_name, build_url, person, program) = rest;
        Owner { cluster, team, pipeline, instance_vars, job, build_id, build_name, build_url, person, program }
    })
}

fn want() -> impl Strategy<Value = Want> {
    let named = btree_set(lock_name(), 1..4).prop_map(Want::Named);
    prop_oneof![(any::<u32>(), labels()).prop_map(|(count, l)| Want::Any { count, labels: (*l).clone() }), named]
}

fn scope() -> impl Strategy<Value = Scope> {
    select(&[Scope::Flow, Scope::Person, Scope::Build, Scope::Lease][..])
}

fn build_over() -> impl Strategy<Value = BuildOver> {
    let ended = (select(&[BuildEnd::Succeeded, BuildEnd::Failed, BuildEnd::Gone][..]), any::<u64>());
    prop_oneof![Just(BuildOver::Unknown), ended.prop_map(|(how, at)| BuildOver::Ended { how, at: WallMs(at) })]
}

fn locks() -> impl Strategy<Value = LockSet> {
    btree_set((pool(), lock_name()), 0..4).prop_map(|locks| locks.into_iter().collect())
}

fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        Just(Presence::Parked),
        deadline().prop_map(Presence::Recent),
        deadline().prop_map(Presence::Grace),
        deadline().prop_map(Presence::Away),
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    let waiting = (presence(), of(deadline())).prop_map(|(presence, give_up)| Phase::Waiting { presence, give_up });
    let granted =
        (any::<u64>(), locks(), deadline(), of(deadline())).prop_map(|(fence, locks, confirm_by, give_up)| {
            Phase::Granted { fence: Fence(fence), locks, confirm_by, give_up }
        });
    let fetched = select(&[Fetched::Never, Fetched::ByItsBuild, Fetched::ByAnother][..]);
    let ends = (of(deadline()), of(deadline()), fetched, any::<bool>());
    let held = (any::<u64>(), key(), locks(), any::<u64>(), ends).prop_map(
        |(fence, claimed, locks, since, (until, limit, fetched, marked))| Phase::Held {
            fence: Fence(fence),
            claimed,
            locks,
            since: WallMs(since),
            until,
            limit,
            fetched,
            marked,
        },
    );
    // Boxed, like others below, because nested strategies would overflow the stack of a test.
    prop_oneof![waiting, granted, held].boxed()
}

fn terms() -> impl Strategy<Value = Terms> {
    let parts = btree_map(pool(), want(), 1..4)
        .prop_map(|parts| parts.into_iter().map(|(pool, want)| Part { pool, want }).collect());
    let ask = (parts, of(text()), of(text())).prop_map(|(parts, key, requestor)| Ask { parts, key, requestor });
    let place = ((-1_000..1_000).prop_map(|n| Priority::new(n).unwrap()), of(text()), any::<bool>());
    let ask = ask.boxed();
    (ask, digest(), owner(), of(reason()), any::<bool>(), of(any::<u64>()), place).prop_map(
        |(ask, digest, owner, reason, confirm, ttl, (priority, supersede, waits_if_empty))| Terms {
            ask,
            digest,
            owner: Arc::new(owner),
            reason,
            confirm,
            ttl: ttl.map(Span),
            priority,
            supersede,
            waits_if_empty,
        },
    )
}

pub fn claim(id: ClaimId) -> impl Strategy<Value = Claim> {
    let runs = vec(name::<Run>(IDS), 0..3);
    let parks = vec(any::<u64>().prop_map(ParkId), 0..2);
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u8>(), any::<u32>());
    let scope = (scope(), of(build_over()), vec(claim_id(), 0..2));
    (terms().boxed(), scope, runs, parks, numbers, phase()).prop_map(
        move |(terms, scope, runs, parks, numbers, phase)| {
            let (scope, build_over, aliases) = scope;
            let (life, ticket, asked_at, withdrawals, passed) = numbers;
            let (ticket, asked_at) = (Ticket(ticket), WallMs(asked_at));
            Claim {
                id: id.clone(),
                life,
                terms,
                scope,
                build_over,
                runs,
                ticket,
                asked_at,
                withdrawals,
                passed,
                phase,
                aliases,
                origin: None,
                parks,
                made: Box::default(),
            }
        },
    )
}

const ENDS: &[End] = &[
    End::Released,
    End::Cancelled,
    End::GaveUp,
    End::ListenerLost,
    End::Unconfirmed,
    End::Superseded,
    End::Removed,
    End::Lost,
    End::LeaseLost,
    End::BuildOver,
    End::Undelivered,
    End::Broken,
];

/// A deadline of an ended claim, which has columns of its own: below 2^63, for the next 292 million years.
fn memory() -> impl Strategy<Value = Deadline> {
    let most = u64::MAX >> 1;
    let any = (0..=most, 0..=most).prop_map(|(at, span)| Deadline { at: EngineMs(at), span: Span(span) });
    prop_oneof![any, Just(Deadline { at: EngineMs(most), span: Span(most) })]
}

pub fn ended(id: ClaimId) -> impl Strategy<Value = Ended> {
    let who = (of(digest()), vec(name::<Run>(IDS), 0..3), select(ENDS), (of(text()), of(reason())));
    let numbers = (any::<u32>(), any::<u64>(), of(any::<u64>()), of(any::<u64>()));
    let build = of((text(), text()).prop_map(|(cluster, id)| BuildRef { cluster, id }));
    (who, numbers, build, memory()).prop_map(move |((digest, runs, how, (by, reason)), numbers, build, forget)| {
        let (life, at, revision, fence) = numbers;
        let (revision, fence) = (revision.map(Revision), fence.map(Fence));
        let (id, at) = (id.clone(), WallMs(at));
        let (maker, credential, pools) = (None, None, Vec::new());
        Ended { id, life, digest, runs, how, by, reason, at, revision, fence, build, forget, maker, credential, pools }
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let order = select(&[Order::Fifo, Order::Priority, Order::Lifo][..]);
    let overtaking = prop_oneof![Just(Overtaking::Strict), of(any::<u32>()).prop_map(Overtaking::Backfill)];
    let pick = select(&[Pick::LeastRecent, Pick::Random, Pick::Name][..]);
    let order = (order, overtaking, pick);
    let scope = of(select(&[Scope::Flow, Scope::Person, Scope::Build][..]));
    let when_empty = of(select(&[WhenEmpty::Wait, WhenEmpty::Fail][..]));
    let cut_short = select(&[CutShort::End, CutShort::Keep][..]);
    (order, of(any::<u64>()), of(any::<u64>()), of(any::<u32>()), scope, (when_empty, cut_short)).prop_map(
        |((order, overtaking, pick), drain, max_hold, max_queue, scope, (when_empty, cut_short))| Policy {
            order,
            overtaking,
            pick,
            drain: drain.map(Span),
            max_hold: max_hold.map(Span),
            max_queue,
            scope,
            when_empty,
            cut_short,
        },
    )
}

pub fn lock(name: LockName) -> impl Strategy<Value = Lock> {
    let metadata = prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => Just(vec![0xFF; limits::METADATA_BYTES])];
    let holders = vec((claim_id(), any::<u64>()), 0..2);
    let quarantine = (any::<u64>(), of(deadline()), of(text()), of(reason()));
    let quarantine =
        of(quarantine.prop_map(|(since, until, by, reason)| Quarantine { since: WallMs(since), until, by, reason }));
    let flags = (any::<bool>(), any::<bool>());
    (metadata, labels(), holders, of(deadline()), quarantine, flags, of(key())).prop_map(
        move |(metadata, labels, holders, drain, quarantine, (leaving, implicit), newest)| Lock {
            name: name.clone(),
            metadata: metadata.into(),
            labels,
            holders: holders
                .into_iter()
                .map(|(claim, fence)| Holder { claim, fence: Fence(fence), sharer: None })
                .collect(),
            drain,
            quarantine,
            leaving,
            implicit,
            newest,
        },
    )
}

const KINDS: &[ChangeKind] = &[
    ChangeKind::Waiting,
    ChangeKind::SelfWait,
    ChangeKind::Deadlock,
    ChangeKind::Granted,
    ChangeKind::Claimed,
    ChangeKind::Withdrawn,
    ChangeKind::Released,
    ChangeKind::Lost,
    ChangeKind::Broken,
    ChangeKind::Ended,
    ChangeKind::Added,
    ChangeKind::Removed,
    ChangeKind::Updated,
    ChangeKind::PoolSet,
    ChangeKind::PoolRemoved,
    ChangeKind::Noted,
    ChangeKind::Moved,
    ChangeKind::Quarantined,
    ChangeKind::Returned,
    ChangeKind::LatchReleased,
];

const WORKFLOWS: &[&str] = &["w", "0", "a.b-c.d", "1e9"];
const PARAMETERS: &[&str] = &["a", "A", "lock-id", "0_"];

pub fn latch_id() -> impl Strategy<Value = LatchId> {
    (0_u8..4).prop_map(|n| LatchId::from_random([n; 16]))
}

fn target() -> impl Strategy<Value = Target> {
    let node_text = || name::<NodeText>(&["w[0].approve(0:x)", "🔒", " a "]);
    let parameter = (name(PARAMETERS), node_text()).prop_map(|(name, value)| Node::Parameter { name, value });
    let node = prop_oneof![node_text().prop_map(Node::Id), node_text().prop_map(Node::Name), parameter];
    (name(WORKFLOWS), name(&["default", "0"]), of(name(&["A-1"])), of(node))
        .prop_map(|(workflow, namespace, workflow_uid, node)| Target { workflow, namespace, workflow_uid, node })
}

fn ending() -> impl Strategy<Value = Ending> {
    let outputs = btree_map(name(PARAMETERS), select(TEXTS).prop_map(Arc::from), 0..3);
    prop_oneof![outputs.prop_map(|o| Ending::Succeed(Outputs::new(o).unwrap())), reason().prop_map(Ending::Fail)]
}

pub fn latch(id: LatchId) -> impl Strategy<Value = Latch> {
    let released = (any::<u64>(), deadline()).prop_map(|(r, forget)| Released { revision: Revision(r), forget });
    (target(), ending(), any::<u64>(), any::<u64>(), of(released)).prop_map(
        move |(target, ending, created, last_change, released)| {
            Latch::restored(NewLatch { id, target, ending }, WallMs(created), WallMs(last_change), released)
        },
    )
}

fn token(name: TokenName) -> impl Strategy<Value = Token> {
    let by = of(select(&["user:ada", "token:x", "build:ci/a/p"][..]));
    let by = by.prop_map(|by| by.map(|by| by.parse::<Identity>().unwrap()));
    (any::<[u8; 32]>(), any::<u64>(), by, of(any::<u64>()), of(any::<u64>())).prop_map(
        move |(hash, created, by, expires, used)| Token {
            name: name.clone(),
            hash: Digest(hash),
            created: WallMs(created),
            by,
            expires: expires.map(WallMs),
            used: used.map(WallMs),
        },
    )
}

fn change(key: ChangeKey) -> impl Strategy<Value = Change> {
    let latch = (latch_id(), name(WORKFLOWS), name(&["default", "0"]))
        .prop_map(|(id, workflow, namespace)| (Vec::new(), Some(LatchRef { id, workflow, namespace }), None));
    let token = name(IDS).prop_map(|name| (Vec::new(), None, Some(name)));
    let about = prop_oneof![4 => vec(pool(), 1..3).prop_map(|pools| (pools, None, None)), 1 => latch, 1 => token];
    let what = (any::<u64>(), select(KINDS), about, locks());
    let spans = (of(any::<u64>().prop_map(Span)), of(any::<u64>().prop_map(Span)));
    let who = (of(claim_id()), of(select(ENDS)), of(owner()), of(reason()), spans);
    (what, who).prop_map(
        move |((at, kind, (pools, latch, token), locks), (claim, end, who, reason, (waited, held)))| Change {
            key,
            at: WallMs(at),
            kind,
            pools,
            locks,
            claim,
            end,
            who: who.map(Arc::new),
            origin: None,
            waited,
            held,
            reason,
            latch,
            token,
        },
    )
}

/// Keys with a new value, or with `None`.
fn puts<K, V, S>(keys: impl Strategy<Value = K>, value: fn(K) -> S) -> impl Strategy<Value = BTreeMap<K, Option<V>>>
where
    K: Ord + Clone + std::fmt::Debug,
    V: std::fmt::Debug,
    S: Strategy<Value = V>,
{
    let row = keys.prop_flat_map(move |key| (Just(key.clone()), of(value(key))));
    vec(row, 0..4).prop_map(|rows| rows.into_iter().collect())
}

/// A batch, as the contract of [`super::Store::commit`] allows it.
pub fn changes() -> impl Strategy<Value = Changes> {
    let meta = of((revision(), any::<u64>(), any::<u64>()).prop_map(|(revision, ticket, engine)| Meta {
        revision: Revision(revision),
        next_ticket: Ticket(ticket),
        engine: EngineMs(engine),
        pruned: Revision(revision / 2),
    }));
    let op = |op: OpId| {
        (revision(), of(any::<u64>()), deadline()).prop_map(move |(revision, asked, forget)| OpRecord {
            op: op.clone(),
            revision: Revision(revision),
            asked: asked.map(Asked),
            forget,
        })
    };
    let history = btree_map(key(), key(), 0..4).prop_flat_map(|keys| keys.into_keys().map(change).collect::<Vec<_>>());
    let forget = btree_map(claim_id(), memory(), 0..3);
    let pruned = btree_set(key(), 0..4).prop_map(|keys: BTreeSet<_>| keys.into_iter().collect());
    let locks = puts((pool(), lock_name()), |(_, name)| lock(name));
    let rows = (
        puts(pool(), |_| policy()).boxed(),
        locks.boxed(),
        puts(claim_id(), claim).boxed(),
        puts(claim_id(), ended).boxed(),
        puts(name::<OpId>(IDS), op),
        puts(latch_id(), latch),
    );
    let reruns = vec((text(), any::<bool>()), 0..3).prop_map(|rows| rows.into_iter().collect::<BTreeMap<_, _>>());
    let meta = (meta, reruns, forget, puts(name::<TokenName>(IDS), token));
    (meta, rows, history, pruned).prop_map(
        |((meta, reruns, mut forget, tokens), (pools, locks, claims, ended, ops, latches), history, pruned)| {
            forget.retain(|id, _| !ended.contains_key(id));
            Changes {
                meta,
                pools: pools.into_iter().collect(),
                locks: locks.into_iter().map(|((pool, name), lock)| (pool, name, lock.map(Arc::new))).collect(),
                claims: claims.into_iter().map(|(id, claim)| (id, claim.map(Arc::new))).collect(),
                ended: ended.into_iter().map(|(id, ended)| (id, ended.map(Arc::new))).collect(),
                forget: forget.into_iter().collect(),
                ops: ops.into_iter().collect(),
                latches: latches.into_iter().map(|(id, latch)| (id, latch.map(Arc::new))).collect(),
                reruns: reruns.into_iter().collect(),
                tokens: tokens.into_iter().map(|(name, token)| (name, token.map(Arc::new))).collect(),
                history: history.into_iter().map(Arc::new).collect(),
                pruned,
            }
        },
    )
}
