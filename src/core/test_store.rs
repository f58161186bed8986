//! A store for tests: it collects batches exactly as the `Store` contract says, and returns what it kept.

use std::collections::BTreeMap;

use super::claim::{Claim, Ended, Phase, Presence};
use super::command::{Command, Refusal, Reply};
use super::history::{Change, Outline};
use super::latch::{Latch, LatchId};
use super::names::{ChangeKey, ClaimId, LockName, OpId, PoolName, Text, TokenName};
use super::pool::{Lock, Policy};
use super::state::{Changes, EndedOutline, Loaded, Meta, OpRecord, State};
use super::step::step;
use super::time::{Deadline, EngineMs, Now, Span};
use super::token::Token;

/// The sum of the batches so far.
#[derive(Debug, Clone, Default)]
pub(super) struct TestStore {
    meta: Option<Meta>,
    pools: BTreeMap<PoolName, Policy>,
    locks: BTreeMap<(PoolName, LockName), Lock>,
    claims: BTreeMap<ClaimId, Claim>,
    ended: BTreeMap<ClaimId, Ended>,
    ops: BTreeMap<OpId, OpRecord>,
    latches: BTreeMap<LatchId, Latch>,
    reruns: BTreeMap<Text, bool>,
    tokens: BTreeMap<TokenName, Token>,
    history: BTreeMap<ChangeKey, Change>,
}

impl TestStore {
    /// Keeps a batch. Order within a batch must not matter, so this uses the hardest one: it deletes pruned entries
    /// before it adds new ones.
    pub(super) fn commit(&mut self, changes: &Changes) {
        self.meta = changes.meta.or(self.meta);
        for key in &changes.pruned {
            self.history.remove(key);
        }
        self.history.extend(changes.history.iter().map(|change| (change.key, Change::clone(change))));
        keep(&mut self.reruns, changes.reruns.iter().map(|(url, on)| (url.clone(), on.then_some(true))));
        keep(&mut self.tokens, changes.tokens.iter().map(|(name, x)| (name.clone(), x.as_deref().cloned())));
        keep(&mut self.latches, changes.latches.iter().map(|(id, x)| (*id, x.as_deref().cloned())));
        keep(&mut self.ops, changes.ops.iter().cloned());
        keep(&mut self.ended, changes.ended.iter().map(|(id, x)| (id.clone(), x.as_deref().cloned())));
        for (id, forget) in &changes.forget {
            self.ended.entry(id.clone()).and_modify(|ended| ended.forget = *forget);
        }
        keep(&mut self.claims, changes.claims.iter().map(|(id, x)| (id.clone(), x.as_deref().map(stored_claim))));
        let locks = changes.locks.iter();
        keep(&mut self.locks, locks.map(|(p, l, x)| ((p.clone(), l.clone()), x.as_deref().map(stored_lock))));
        keep(&mut self.pools, changes.pools.iter().cloned());
    }

    /// What a server that starts now would load. Engine time continues from the stored one.
    pub(super) fn load(&self) -> Loaded {
        Loaded {
            meta: self.meta,
            pools: self.pools.clone().into_iter().collect(),
            locks: self.locks.iter().map(|((pool, _), lock)| (pool.clone(), lock.clone())).collect(),
            claims: self.claims.values().cloned().collect(),
            ops: self.ops.values().cloned().collect(),
            latches: self.latches.values().cloned().collect(),
            reruns: self.reruns.keys().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
        }
    }

    /// What a server that starts now would learn of ended claims.
    pub(super) fn ended(&self) -> impl Iterator<Item = EndedOutline> {
        self.ended.values().map(EndedOutline::from)
    }

    /// What is remembered of ended claims.
    pub(super) fn remembered(&self) -> &BTreeMap<ClaimId, Ended> {
        &self.ended
    }

    /// Executes one command, with what this store remembers.
    pub(super) fn step(&self, state: &mut State, command: Command, now: Now) -> Result<Reply, Refusal> {
        for id in state.to_recall(&command) {
            state.recall(self.ended[&id].clone());
        }
        step(state, command, now)
    }

    /// The whole history, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Change> {
        self.history.values()
    }

    /// The history that a server that starts now would read.
    pub(super) fn history(&self) -> impl Iterator<Item = Outline> {
        self.history.values().map(Change::outline)
    }

    /// The last stored engine time.
    pub(super) fn engine(&self) -> EngineMs {
        self.meta.map_or(EngineMs(0), |meta| meta.engine)
    }

    /// Whether the store has received everything about `state` that a restart must know.
    pub(super) fn check_has_all_of(&self, state: &State) -> Result<(), String> {
        let snapshot = &state.snapshot;
        let claims = self.claims.iter().map(|(id, c)| (id.clone(), comparable_claim(c))).collect();
        same("claims", &claims, snapshot.claims.iter().map(|(id, c)| (id.clone(), comparable_claim(c))))?;
        state.check_remembers(&self.ended)?;
        same("pools", &self.pools, snapshot.pools.iter().map(|(name, p)| (name.clone(), p.policy.clone())))?;
        let locks = snapshot.pools.iter().flat_map(|(p, pool)| pool.locks.values().map(move |l| (p.clone(), l)));
        let kept = self.locks.iter().map(|(name, l)| (name.clone(), comparable_lock(l))).collect();
        same("locks", &kept, locks.map(|(p, l)| ((p, l.name.clone()), comparable_lock(l))))?;
        same("ops", &self.ops, state.ops.iter().map(|(op, r)| (op.clone(), r.clone())))?;
        let latches = self.latches.iter().map(|(id, l)| (*id, comparable_latch(l))).collect();
        same("latches", &latches, snapshot.latches.iter().map(|(id, l)| (*id, comparable_latch(l))))?;
        same("tokens", &self.tokens, snapshot.tokens.values().map(|t| (t.name.clone(), Token::clone(t))))?;
        same("reruns", &self.reruns, snapshot.reruns.iter().map(|url| (url.clone(), true)))?;
        for (name, pool) in &snapshot.pools {
            let shown = self.history.values().filter(|change| pool.changes.contains_key(&change.key));
            let shown =
                shown.filter(|change| change.pools.contains(name)).map(|c| (c.key, c.outline().listed)).collect();
            same("history", &shown, pool.changes.iter().map(|(key, listed)| (*key, *listed)))?;
        }
        state.check_has_all_entries(self.history.keys())?;
        match self.meta {
            Some(meta) if meta.revision == snapshot.revision => Ok(()),
            meta => Err(format!("revision {:?} was not stored, but {meta:?}", snapshot.revision)),
        }
    }
}

fn keep<K: Ord, V>(kept: &mut BTreeMap<K, V>, news: impl Iterator<Item = (K, Option<V>)>) {
    for (key, value) in news {
        match value {
            Some(value) => kept.insert(key, value),
            None => kept.remove(&key),
        };
    }
}

fn same<K, V>(what: &str, kept: &BTreeMap<K, V>, live: impl Iterator<Item = (K, V)>) -> Result<(), String>
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    let live: BTreeMap<K, V> = live.collect();
    let differs = |a: &BTreeMap<K, V>, b: &BTreeMap<K, V>| {
        a.iter().find(|(k, v)| b.get(k) != Some(v)).map(|(k, _)| format!("{k:?}"))
    };
    match differs(&live, kept).or_else(|| differs(kept, &live)) {
        None => Ok(()),
        Some(key) => Err(format!("{what}: the store and the state differ about {key}")),
    }
}

/// Presence and parks end with the server, so they are not stored.
fn stored_claim(claim: &Claim) -> Claim {
    let mut claim = claim.clone();
    claim.parks.clear();
    if let Phase::Waiting { presence, .. } = &mut claim.phase {
        *presence = Presence::Recent(Deadline { at: EngineMs(0), span: Span(0) });
    }
    claim
}

/// Short deadlines start again in each life of the server, so the store keeps only their span.
fn comparable(deadline: &mut Deadline) {
    if !deadline.is_long() {
        deadline.at = EngineMs(0);
    }
}

fn comparable_claim(claim: &Claim) -> Claim {
    let mut claim = stored_claim(claim);
    match &mut claim.phase {
        Phase::Waiting { give_up, .. } => give_up.iter_mut().for_each(comparable),
        Phase::Granted { confirm_by, give_up, .. } => {
            comparable(confirm_by);
            give_up.iter_mut().for_each(comparable);
        }
        Phase::Held { until, limit, .. } => until.iter_mut().chain(limit).for_each(comparable),
    }
    claim
}

fn comparable_lock(lock: &Lock) -> Lock {
    let mut lock = stored_lock(lock);
    lock.drain.iter_mut().for_each(comparable);
    lock.quarantine.iter_mut().flat_map(|q| &mut q.until).for_each(comparable);
    lock
}

fn comparable_latch(latch: &Latch) -> Latch {
    let mut latch = latch.clone();
    latch.released.iter_mut().for_each(|released| comparable(&mut released.forget));
    latch
}

/// Holders follow from the claims, and the newest entry from the history.
fn stored_lock(lock: &Lock) -> Lock {
    Lock { holders: Vec::new(), newest: None, ..lock.clone() }
}

/// The part of the state that must survive a restart, as text: holds with their fences, the order of the queues, ids.
pub(super) fn standing(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for pool in state.snapshot.pools.values() {
        for lock in pool.locks.values() {
            let holders: Vec<String> = lock.holders.iter().map(|h| format!("{}#{}", h.claim, h.fence)).collect();
            lines.push(format!(
                "{}/{} held by {holders:?} leaving {} implicit {} {:?}",
                pool.name, lock.name, lock.leaving, lock.implicit, lock.newest
            ));
        }
        let queue: Vec<&str> = pool.waiting.values().map(ClaimId::as_str).collect();
        lines.push(format!("{} queue {queue:?} history {:?}", pool.name, pool.changes.keys().collect::<Vec<_>>()));
        lines.push(format!("{} prunable {:?} free {:?}", pool.name, state.prunable(&pool.name), pool.free));
    }
    for claim in state.snapshot.claims.values() {
        let Claim { id, life, runs, withdrawals, scope, build_over, aliases, .. } = &**claim;
        let mark = if claim.is_marked() { format!(" marked, also {aliases:?}") } else { String::new() };
        lines.push(format!("{id} life {life} runs {runs:?} withdrawn {withdrawals} {scope:?} {build_over:?}{mark}"));
    }
    for (build, concern) in state.snapshot.builds_to_watch() {
        lines.push(format!("watch {build:?} {concern:?}"));
    }
    lines.extend(state.known_ended().into_iter().map(|known| format!("{known:?}")));
    lines
}
