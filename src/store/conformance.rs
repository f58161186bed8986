//! What every store must do, as tests that each store's module runs on itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::{Found, Store, samples};
use crate::core::claim::{Claim, Ended, Phase};
use crate::core::history::Change;
use crate::core::latch::{Latch, LatchId};
use crate::core::limits;
use crate::core::names::{ChangeKey, ClaimId, LockName, OpId, PoolName, Revision, Text, Ticket, TokenName};
use crate::core::pool::{Lock, Policy};
use crate::core::state::{Changes, EndedOutline, Loaded, Meta, OpRecord};
use crate::core::time::{Deadline, EngineMs, Span};
use crate::core::token::Token;
use crate::wire::record::NO_PRESENCE;

/// A place that outlives the stores in it: each call opens the store again, after the last one was dropped.
pub type Place = Box<dyn Fn() -> Box<dyn Store>>;

/// Runs the suite; `make` makes a new empty place.
pub fn conformance(make: impl Fn() -> Place) {
    begins_empty(&make());
    keeps_its_id(&make());
    overwrites_and_deletes(&make());
    keeps_bytes(&make());
    prunes(&make());
    finds_claims(&make());
    equals_its_model(make);
}

/// Everything that is kept, by key: the model, and the form in which loaded values are compared with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    meta: Option<Meta>,
    pools: BTreeMap<PoolName, Policy>,
    locks: BTreeMap<(PoolName, LockName), Lock>,
    claims: BTreeMap<ClaimId, Claim>,
    ended: BTreeMap<ClaimId, Ended>,
    ops: BTreeMap<OpId, OpRecord>,
    latches: BTreeMap<LatchId, Latch>,
    reruns: BTreeSet<Text>,
    tokens: BTreeMap<TokenName, Token>,
    history: BTreeMap<ChangeKey, Change>,
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Contents {
    /// The contents of `store`.
    pub fn of(store: &mut dyn Store) -> Self {
        let Loaded { meta, pools, locks, claims, ops, latches, reruns, tokens } = store.load().unwrap();
        let ended = ended_of(store);
        let mut history = Vec::new();
        let mut keep = |change| {
            history.push(change);
            ControlFlow::Continue(())
        };
        store.reader().walk((Bound::Unbounded, Bound::Unbounded), false, &mut keep).unwrap();
        let mut outlines = Vec::new();
        store.history(&mut |outline| outlines.push(outline)).unwrap();
        assert_eq!(outlines, history.iter().map(Change::outline).collect::<Vec<_>>());
        let rows = [pools.len(), locks.len(), claims.len(), ended.len(), ops.len(), latches.len(), history.len()];
        let contents = Self {
            meta,
            pools: pools.into_iter().collect(),
            locks: locks.into_iter().map(|(pool, lock)| ((pool, lock.name.clone()), lock)).collect(),
            claims: claims.into_iter().map(|claim| (claim.id.clone(), claim)).collect(),
            ended: ended.into_iter().map(|ended| (ended.id.clone(), ended)).collect(),
            ops: ops.into_iter().map(|op| (op.op.clone(), op)).collect(),
            latches: latches.into_iter().map(|latch| (latch.id, latch)).collect(),
            reruns: reruns.into_iter().collect(),
            tokens: tokens.into_iter().map(|token| (token.name.clone(), token)).collect(),
            history: history.into_iter().map(|change| (change.key, change)).collect(),
        };
        let Self { pools, locks, claims, ended, ops, latches, history, .. } = &contents;
        let distinct = [pools.len(), locks.len(), claims.len(), ended.len(), ops.len(), latches.len(), history.len()];
        assert_eq!(rows, distinct, "a key was loaded twice");
        contents
    }

    /// The ids of the ended claims.
    pub fn ended_ids(&self) -> impl Iterator<Item = &ClaimId> {
        self.ended.keys()
    }

    /// Applies `changes`, without what the next start makes anew.
    pub fn apply(&mut self, changes: &Changes) {
        let Changes { meta, pools, locks, claims, ended, forget, ops, latches, reruns, tokens, history, pruned } =
            changes.clone();
        self.meta = meta.or(self.meta);
        pools.into_iter().for_each(|(name, policy)| set(&mut self.pools, name, policy));
        for (pool, name, lock) in locks {
            let lock = lock.map(|lock| Lock { holders: Vec::new(), newest: None, ..(*lock).clone() });
            set(&mut self.locks, (pool, name), lock);
        }
        for (id, claim) in claims {
            let claim = claim.map(|claim| {
                let mut claim = (*claim).clone();
                claim.parks.clear();
                if let Phase::Waiting { presence, .. } = &mut claim.phase {
                    *presence = NO_PRESENCE;
                }
                claim
            });
            set(&mut self.claims, id, claim);
        }
        ended.into_iter().for_each(|(id, ended)| set(&mut self.ended, id, ended.map(|e| (*e).clone())));
        for (id, forget) in forget {
            self.ended.entry(id).and_modify(|ended| ended.forget = forget);
        }
        ops.into_iter().for_each(|(id, op)| set(&mut self.ops, id, op));
        latches.into_iter().for_each(|(id, latch)| set(&mut self.latches, id, latch.map(|l| (*l).clone())));
        tokens.into_iter().for_each(|(name, token)| set(&mut self.tokens, name, token.map(|t| (*t).clone())));
        for (url, on) in reruns {
            self.reruns.remove(&url);
            self.reruns.extend(on.then_some(url));
        }
        self.history.extend(history.into_iter().map(|change| (change.key, (*change).clone())));
        pruned.iter().for_each(|key| set(&mut self.history, *key, None));
    }
}

/// The ended claims of `store`, which it gives in every way alike.
fn ended_of(store: &mut dyn Store) -> Vec<Ended> {
    let reader = store.reader();
    let mut ended = Vec::new();
    let mut keep = |claim| {
        ended.push(claim);
        ControlFlow::Continue(())
    };
    reader.walk_ended(None, &mut keep).unwrap();
    assert!(ended.is_sorted_by(|a, b| a.id < b.id));
    let mut outlines = Vec::new();
    store.ended(&mut |outline| outlines.push(outline)).unwrap();
    outlines.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(outlines, ended.iter().map(EndedOutline::from).collect::<Vec<_>>());
    let by_id = |mut found: Vec<Ended>| {
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    };
    let mut ids: Vec<ClaimId> = ended.iter().map(|ended| ended.id.clone()).collect();
    ids.push(ClaimId::parse("nobody").unwrap());
    assert_eq!(by_id(store.own_reader().ended_claims(&ids).unwrap()), ended);
    assert_eq!(by_id(reader.ended_claims(&ids).unwrap()), ended);
    for (n, claim) in ended.iter().enumerate().take(3) {
        let mut rest = Vec::new();
        let mut stop_at_two = |claim| {
            rest.push(claim);
            if rest.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.walk_ended(Some(&claim.id), &mut stop_at_two).unwrap();
        assert_eq!(rest, ended.iter().skip(n + 1).take(2).cloned().collect::<Vec<_>>());
    }
    ended
}

fn begins_empty(place: &Place) {
    assert_eq!(Contents::of(&mut *place()), Contents::default());
    let mut store = place();
    store.commit(&Changes::default()).unwrap();
    drop(store);
    assert_eq!(Contents::of(&mut *place()), Contents::default());
}

fn keeps_its_id(place: &Place) {
    let id = place().store_id().to_owned();
    assert_eq!(id.len(), 32);
    assert!(id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
    place().commit(&one_of_each(1)).unwrap();
    assert_eq!(place().store_id(), id);
}

/// The `n`-th random batch with at least one put of every kind.
fn one_of_each(n: u32) -> Changes {
    let mut runner = TestRunner::deterministic();
    let full = samples::changes().prop_filter("one of each", |c| {
        let puts = (c.pools.iter().any(|r| r.1.is_some()), c.locks.iter().any(|r| r.2.is_some()));
        let claims = (c.claims.iter().any(|r| r.1.is_some()), c.ended.iter().any(|r| r.1.is_some()));
        let others = (c.ops.iter().any(|r| r.1.is_some()), c.latches.iter().any(|r| r.1.is_some()));
        let reruns = c.reruns.iter().any(|(_, on)| *on);
        c.meta.is_some()
            && puts == (true, true)
            && claims == (true, true)
            && others == (true, true)
            && reruns
            && c.tokens.iter().any(|r| r.1.is_some())
            && !c.history.is_empty()
    });
    (0..n).map(|_| full.new_tree(&mut runner).unwrap().current()).last().unwrap()
}

fn overwrites_and_deletes(place: &Place) {
    let first = Changes { pruned: Vec::new(), ..one_of_each(1) };
    let mut model = Contents::default();
    let mut store = place();
    for changes in [&first, &one_of_each(2), &first] {
        store.commit(changes).unwrap();
        model.apply(changes);
    }
    drop(store);
    assert_eq!(Contents::of(&mut *place()), model);
    let all_gone = Changes {
        meta: None,
        pools: model.pools.keys().map(|k| (k.clone(), None)).collect(),
        locks: model.locks.keys().map(|(p, l)| (p.clone(), l.clone(), None)).collect(),
        claims: model.claims.keys().map(|k| (k.clone(), None)).collect(),
        ended: model.ended.keys().map(|k| (k.clone(), None)).collect(),
        forget: Vec::new(),
        ops: model.ops.keys().map(|k| (k.clone(), None)).collect(),
        latches: model.latches.keys().map(|k| (*k, None)).collect(),
        reruns: model.reruns.iter().map(|url| (url.clone(), false)).collect(),
        tokens: model.tokens.keys().map(|k| (k.clone(), None)).collect(),
        history: Vec::new(),
        pruned: model.history.keys().copied().collect(),
    };
    let mut store = place();
    store.commit(&all_gone).unwrap();
    // Deleting a missing row is allowed too.
    store.commit(&all_gone).unwrap();
    drop(store);
    assert_eq!(Contents::of(&mut *place()), Contents { meta: model.meta, ..Contents::default() });
}

/// Names are bytes, and metadata is any bytes up to the limit.
fn keeps_bytes(place: &Place) {
    let pool = PoolName::parse("👩‍👩‍👧‍👦 prod").unwrap();
    let every_byte: Vec<u8> = (0..=255).cycle().take(limits::METADATA_BYTES).collect();
    let names = ["🔒", "a", "A", "ä", "a\u{308}", " ", &"🔒".repeat(32)].map(|name| LockName::parse(name).unwrap());
    let locks = names.map(|name| Lock::new(name, every_byte.clone().into(), Arc::default()));
    let rows = locks.iter().map(|lock| (pool.clone(), lock.name.clone(), Some(Arc::new(lock.clone())))).collect();
    place().commit(&Changes { locks: rows, ..Changes::default() }).unwrap();
    let mut loaded = place().load().unwrap().locks;
    loaded.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    let mut expected = locks.map(|lock| (pool.clone(), lock)).to_vec();
    expected.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    assert_eq!(loaded, expected);
}

/// An entry that a batch both writes and prunes is deleted.
fn prunes(place: &Place) {
    let history = one_of_each(1).history;
    let pruned: Vec<ChangeKey> = history.iter().map(|change| change.key).collect();
    let meta = Some(Meta {
        revision: Revision(7),
        next_ticket: Ticket(u64::MAX),
        engine: EngineMs(u64::MAX),
        pruned: Revision(0),
    });
    place().commit(&Changes { meta, history, pruned, ..Changes::default() }).unwrap();
    assert_eq!(Contents::of(&mut *place()), Contents { meta, ..Contents::default() });
}

/// An id is live, has ended, or neither; and of an ended claim the time of forgetting may change alone.
fn finds_claims(place: &Place) {
    let id = |id: &str| ClaimId::parse(id).unwrap();
    let one = one_of_each(1);
    let claim = one.claims.iter().find_map(|(_, claim)| claim.clone()).unwrap();
    let ended = one.ended.iter().find_map(|(_, ended)| ended.clone()).unwrap();
    let claim = Claim { id: id("live"), ..(*claim).clone() };
    let ended = Ended { id: id("ended"), ..(*ended).clone() };
    let mut store = place();
    let changes = Changes {
        claims: vec![(id("live"), Some(Arc::new(claim)))],
        ended: vec![(id("ended"), Some(Arc::new(ended.clone())))],
        ..Changes::default()
    };
    store.commit(&changes).unwrap();
    let reader = store.reader();
    let found = ["live", "ended", "other"].map(|text| reader.find(&id(text)).unwrap());
    assert_eq!(found, [Found::Live, Found::Ended(Box::new(ended.clone())), Found::Nothing]);
    let forget = Deadline { at: EngineMs(17), span: Span(4) };
    let forget_others = vec![(id("ended"), forget), (id("other"), forget)];
    store.commit(&Changes { forget: forget_others, ..Changes::default() }).unwrap();
    assert_eq!(store.own_reader().ended_claims(&[id("ended"), id("other")]).unwrap(), [Ended { forget, ..ended }]);
}

#[derive(Debug, Clone)]
enum Op {
    Commit(Box<Changes>),
    Reopen,
}

/// For any batches and restarts, the store loads what the model has.
fn equals_its_model(make: impl Fn() -> Place) {
    let op = prop_oneof![4 => samples::changes().prop_map(|c| Op::Commit(Box::new(c))), 1 => Just(Op::Reopen)];
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let run = |ops: Vec<Op>| {
        let place = make();
        let mut store = place();
        let mut model = Contents::default();
        for op in ops {
            match op {
                Op::Commit(changes) => {
                    store.commit(&changes).unwrap();
                    model.apply(&changes);
                }
                Op::Reopen => {
                    drop(store);
                    store = place();
                    prop_assert_eq!(&Contents::of(&mut *store), &model);
                }
            }
        }
        drop(store);
        prop_assert_eq!(Contents::of(&mut *place()), model);
        Ok(())
    };
    runner.run(&vec(op, 1..12), run).unwrap();
}
