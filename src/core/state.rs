//! The state that the engine owns: what everybody may read ([`World`]), and what only steps need ([`State`]).
//!
//! Everything in here keeps the indexes true and remembers what a batch has touched; nothing decides. `chronicle` is the
//! part about history, `memory` that about ended claims and operations.

mod chronicle;
mod memory;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::claim::{BuildRef, Claim, Ended, Phase, Presence};
use super::entangled::Entangled;
use super::history::{Change, ChangeKey};
use super::latch::{Latch, LatchId};
use super::names::{ClaimId, LockName, OpId, ParkId, PoolName, Revision, Ticket};
use super::pool::{Lock, Overtaking, Policy, Pool};
use super::settings::{Plant, Settings};
use super::stuck;
use super::supersede::Line;
use super::time::{Deadline, EngineMs, Now};

pub(super) use chronicle::Entry;
pub use world::{Changes, Loaded, Meta, OpRecord, World};

/// Something that readers may be waiting for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// This parked request should try again.
    Park(ParkId),
    /// The history of this pool has grown.
    Pool(PoolName),
    /// This latch was released or is gone.
    Latch(LatchId),
}

/// What a timer is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Claim(ClaimId),
    Drain(PoolName, LockName),
    Quarantine(PoolName, LockName),
    Ended(ClaimId),
    Op(OpId),
    Latch(LatchId),
    /// To look who is stuck.
    Stuck,
}

#[derive(Debug, Clone, Default)]
struct Dirty {
    meta: bool,
    pools: BTreeSet<PoolName>,
    locks: BTreeSet<(PoolName, LockName)>,
    claims: BTreeSet<ClaimId>,
    ended: BTreeSet<ClaimId>,
    ops: BTreeSet<OpId>,
    latches: BTreeSet<LatchId>,
    history: Vec<Arc<Change>>,
    pruned: Vec<ChangeKey>,
}

/// The state of a server: one owner, changed by steps only.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub world: World,
    pub settings: Settings,
    pub(super) ops: BTreeMap<OpId, OpRecord>,
    pub(super) timers: BTreeSet<(EngineMs, Timer)>,
    /// Those deadlines of holds, waits and drains that go on over a restart.
    long: BTreeSet<(EngineMs, Timer)>,
    /// Parked requests and the claims they ask for; kept until the request is answered or its client has gone.
    pub(super) parks: BTreeMap<ParkId, ClaimId>,
    /// Pools in which something may have become grantable.
    pub(super) to_dispatch: BTreeSet<PoolName>,
    /// Pools in which a claim that cannot be served may be passed.
    backfilling: BTreeSet<PoolName>,
    pub(super) entangled: Entangled,
    pub(super) watch: stuck::Watch,
    /// Live claims that named something to supersede.
    pub(super) lines: BTreeMap<Line, BTreeSet<ClaimId>>,
    /// Whether someone may wait for someone else than before, since the last dispatch.
    edges_changed: bool,
    next_ticket: u64,
    /// Revision and number of entries of the running step, once it has changed something.
    step: Option<(Revision, u32)>,
    /// Ended claims in the order in which they are forgotten when there are too many: released ones, then oldest.
    forgettable: BTreeSet<(bool, EngineMs, ClaimId)>,
    /// Ended claims by the build that was behind them.
    ended_builds: BTreeSet<(BuildRef, ClaimId)>,
    /// Remembered operations, oldest first.
    op_order: BTreeSet<(EngineMs, OpId)>,
    /// History entries of latches, oldest first; some may be gone already.
    latch_changes: VecDeque<ChangeKey>,
    dirty: Dirty,
    notices: BTreeSet<Notice>,
}

impl State {
    /// The state of a server that starts at `now` on what its store has kept: same holds, same queue order, a new
    /// epoch. The first thing to do is to commit [`State::take_changes`], before any answer.
    #[must_use]
    pub fn restarted(loaded: Loaded, settings: Settings, epoch_by_clock: u64, now: Now) -> Self {
        super::restart::restarted(loaded, settings, epoch_by_clock, now)
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self, now: Now) -> Changes {
        let mut dirty = std::mem::take(&mut self.dirty);
        if !dirty.pruned.is_empty() {
            // An entry that came and went within the batch was never there.
            let pruned: BTreeSet<ChangeKey> = dirty.pruned.iter().copied().collect();
            dirty.history.retain(|change| !pruned.contains(&change.key));
        }
        let world = &self.world;
        let meta = dirty.meta || !dirty.claims.is_empty() || !dirty.history.is_empty();
        Changes {
            meta: meta.then(|| self.meta(now)),
            pools: dirty.pools.into_iter().map(|p| (p.clone(), world.pool(&p).map(|x| x.policy.clone()))).collect(),
            locks: dirty
                .locks
                .into_iter()
                .map(|(p, l)| {
                    let lock = world.pool(&p).and_then(|x| x.locks.get(&l).cloned());
                    (p, l, lock)
                })
                .collect(),
            claims: dirty.claims.into_iter().map(|id| (id.clone(), world.claims.get(&id).cloned())).collect(),
            ended: dirty.ended.into_iter().map(|id| (id.clone(), world.ended.get(&id).cloned())).collect(),
            ops: dirty.ops.into_iter().map(|op| (op.clone(), self.ops.get(&op).cloned())).collect(),
            latches: dirty.latches.into_iter().map(|id| (id, world.latches.get(&id).cloned())).collect(),
            history: dirty.history,
            pruned: dirty.pruned,
        }
    }

    /// Notices since the last call, each once.
    pub fn take_notices(&mut self) -> BTreeSet<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The next moment at which a step is due even if nobody calls.
    #[must_use]
    pub fn next_timer(&self) -> Option<EngineMs> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a deadline is to come that goes on over a restart, so that engine time must be stored now and then.
    #[must_use]
    pub fn has_long_deadline(&self, now: Now) -> bool {
        self.long.last().is_some_and(|(at, _)| *at > now.engine)
    }

    /// Asks for the counters to be stored with the next commit.
    pub fn touch_meta(&mut self) {
        self.dirty.meta = true;
    }

    /// Touches again what `changes` takes away, and nothing of what it puts.
    pub(super) fn keep_deletions(&mut self, changes: Changes) {
        self.dirty.pruned = changes.pruned;
        self.dirty.ended.extend(changes.ended.into_iter().filter(|(_, kept)| kept.is_none()).map(|(id, _)| id));
        self.dirty.ops.extend(changes.ops.into_iter().filter(|(_, kept)| kept.is_none()).map(|(op, _)| op));
    }

    fn meta(&self, now: Now) -> Meta {
        Meta { revision: self.world.revision, next_ticket: Ticket(self.next_ticket), engine: now.engine }
    }

    pub(super) fn set_counters(&mut self, revision: Revision, next_ticket: Ticket) {
        self.world.revision = revision;
        self.next_ticket = next_ticket.0;
        self.dirty.meta = true;
    }

    pub(super) fn give_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Begins a step: its first change will open a new revision.
    pub(super) fn begin_step(&mut self) {
        self.step = None;
    }

    /// The revision of the running step, opened when this is its first change.
    pub(super) fn step_revision(&mut self) -> Revision {
        match self.step {
            Some((revision, _)) => revision,
            None => {
                self.world.revision = self.world.revision.next();
                self.dirty.meta = true;
                self.step = Some((self.world.revision, 0));
                self.world.revision
            }
        }
    }

    fn set_timer(&mut self, deadline: Deadline, timer: Timer) {
        if deadline.is_long()
            && matches!(timer, Timer::Claim(_) | Timer::Drain(..) | Timer::Quarantine(..) | Timer::Latch(_))
        {
            self.long.insert((deadline.at, timer.clone()));
        }
        self.timers.insert((deadline.at, timer));
    }

    pub(super) fn unset_timer(&mut self, at: EngineMs, timer: Timer) {
        let entry = (at, timer);
        self.timers.remove(&entry);
        self.long.remove(&entry);
    }

    /// Puts the pools on the list in which the exception from strictness may have changed.
    pub(super) fn dispatch_entangled(&mut self) {
        if std::mem::take(&mut self.edges_changed) {
            self.to_dispatch.extend(self.entangled.pools().cloned());
        }
    }

    /// Somebody may wait for somebody else from now on.
    fn change_edges(&mut self) {
        self.edges_changed = true;
        self.watch.stale = true;
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        if self.settings.plant == Plant::LostNotice && matches!(notice, Notice::Park(_)) {
            return;
        }
        self.notices.insert(notice);
    }

    /// Repairs lost wake-ups: tells each parked request that its claim no longer counts on (once more).
    pub(super) fn notify_stale_parks(&mut self) {
        let counts = |(park, id): &(&ParkId, &ClaimId)| self.claim(id).is_some_and(|c| c.parks.contains(park));
        let stale: Vec<ParkId> = self.parks.iter().filter(|park| !counts(park)).map(|(park, _)| *park).collect();
        self.notices.extend(stale.into_iter().map(Notice::Park));
    }
}

/// Pools and locks.
impl State {
    pub(super) fn pool_mut(&mut self, name: &PoolName) -> Option<&mut Pool> {
        self.world.pools.get_mut(name).map(Arc::make_mut)
    }

    pub(super) fn put_pool(&mut self, pool: Pool) {
        self.note_overtaking(&pool.name, pool.policy.overtaking);
        self.dirty.pools.insert(pool.name.clone());
        self.world.pools.insert(pool.name.clone(), Arc::new(pool));
    }

    /// Replaces the policy of a pool; its waiters may get other places.
    pub(super) fn set_policy(&mut self, name: &PoolName, policy: Policy) {
        let waiting = self.world.pool(name).map(|pool| pool.waiting.values()).into_iter().flatten();
        let waiting: Vec<Arc<Claim>> = waiting.filter_map(|id| self.claim(id)).cloned().collect();
        self.note_overtaking(name, policy.overtaking);
        let Some(pool) = self.pool_mut(name) else { return };
        pool.set_policy(policy, waiting.iter().map(AsRef::as_ref));
        self.dirty.pools.insert(name.clone());
        self.to_dispatch.insert(name.clone());
        self.change_edges();
    }

    fn note_overtaking(&mut self, name: &PoolName, overtaking: Overtaking) {
        match overtaking {
            Overtaking::Strict => self.backfilling.remove(name),
            Overtaking::Backfill(_) => self.backfilling.insert(name.clone()),
        };
    }

    /// Locks of this pool have come or gone. Who waits for them and for locks of another pool may be passed there from
    /// now on, or no longer.
    fn dispatch_tied(&mut self, pool: &PoolName) {
        let wants = |id: &ClaimId| self.claim(id).is_some_and(|c| c.terms.ask.parts.iter().any(|p| p.pool == *pool));
        let tied =
            |name: &&PoolName| *name != pool && self.world.pool(name).is_some_and(|other| other.wide.iter().any(wants));
        let tied: Vec<PoolName> = self.backfilling.iter().filter(tied).cloned().collect();
        self.to_dispatch.extend(tied);
    }

    pub(super) fn remove_pool(&mut self, name: &PoolName) {
        let Some(pool) = self.world.pools.remove(name) else { return };
        self.backfilling.remove(name);
        self.dirty.pools.insert(name.clone());
        for lock in pool.locks.keys() {
            self.dirty.locks.insert((name.clone(), lock.clone()));
        }
        for key in pool.changes.keys() {
            self.forget_change(*key);
        }
    }

    /// Stores a lock, new or changed.
    pub(super) fn put_lock(&mut self, pool: &PoolName, lock: Lock) {
        self.dirty.locks.insert((pool.clone(), lock.name.clone()));
        if let Some(drain) = lock.drain {
            self.set_timer(drain, Timer::Drain(pool.clone(), lock.name.clone()));
        }
        if let Some(until) = lock.quarantine.as_ref().and_then(|q| q.until) {
            self.set_timer(until, Timer::Quarantine(pool.clone(), lock.name.clone()));
        }
        self.change_edges();
        if let Some(p) = self.pool_mut(pool) {
            p.put_lock(lock);
        }
        self.dispatch_tied(pool);
    }

    pub(super) fn remove_lock(&mut self, pool: &PoolName, lock: &LockName, now: Now) {
        self.dirty.locks.insert((pool.clone(), lock.clone()));
        self.change_edges();
        let newest = self.pool_mut(pool).and_then(|p| p.take_lock(lock)).and_then(|l| l.newest);
        if let Some(key) = newest {
            self.offer_to_prune(pool, key);
            self.prune(pool, now);
        }
        self.dispatch_tied(pool);
    }

    /// Changes a lock in a way that the store need not know (who holds it).
    pub(super) fn change_holders(&mut self, pool: &PoolName, lock: &LockName, change: impl FnOnce(&mut Lock)) {
        self.watch.stale = true;
        if let Some(p) = self.pool_mut(pool)
            && let Some(old) = p.locks.get(lock)
        {
            let mut lock = Lock::clone(old);
            change(&mut lock);
            p.put_lock(lock);
        }
        self.dispatch_tied(pool);
    }
}

/// Claims.
impl State {
    pub(super) fn claim(&self, id: &ClaimId) -> Option<&Arc<Claim>> {
        self.world.claims.get(id)
    }

    /// Puts a new claim in.
    pub(super) fn insert_claim(&mut self, claim: Claim) {
        if let Some(build) = claim.terms.owner.build() {
            self.world.builds.insert((build, claim.id.clone()));
        }
        if let Some(line) = Line::of(&claim) {
            self.lines.entry(line).or_default().insert(claim.id.clone());
        }
        self.forget_ended(&claim.id);
        self.index(&claim);
        self.change_edges();
        self.dirty.claims.insert(claim.id.clone());
        self.world.claims.insert(claim.id.clone(), Arc::new(claim));
    }

    /// Changes a live claim in a way that a restart must know.
    pub(super) fn update_claim(&mut self, id: &ClaimId, change: impl FnOnce(&mut Claim)) {
        self.dirty.claims.insert(id.clone());
        self.update_presence(id, change);
    }

    /// Changes a waiting claim in a way that may give it another place.
    pub(super) fn update_waiting(&mut self, id: &ClaimId, change: impl FnOnce(&mut Claim)) {
        self.dequeue(id);
        self.update_claim(id, change);
        self.change_edges();
    }

    /// Gives claims other tickets; none of these may be another live claim's.
    pub(super) fn set_tickets(&mut self, tickets: &[(ClaimId, Ticket)]) {
        for (id, _) in tickets {
            self.dequeue(id);
        }
        for (id, ticket) in tickets {
            self.update_claim(id, |c| c.ticket = *ticket);
        }
        self.change_edges();
    }

    /// Takes a claim out of the queues; [`State::update_claim`] puts it in again where it belongs then.
    fn dequeue(&mut self, id: &ClaimId) {
        let Some(claim) = self.claim(id).filter(|claim| claim.waits()).cloned() else { return };
        for part in &claim.terms.ask.parts {
            if let Some(pool) = self.pool_mut(&part.pool) {
                pool.dequeue(&claim);
            }
        }
    }

    /// Changes a live claim in a way that ends with the server: parks and presence.
    pub(super) fn update_presence(&mut self, id: &ClaimId, change: impl FnOnce(&mut Claim)) {
        let Some(old) = self.world.claims.get(id).cloned() else { return };
        let mut claim = Claim::clone(&old);
        change(&mut claim);
        self.unindex(&old);
        self.index(&claim);
        if stands_in_the_way(&old) != stands_in_the_way(&claim) {
            self.change_edges();
        }
        self.world.claims.insert(id.clone(), Arc::new(claim));
    }

    /// Takes an ended claim out and remembers its end.
    pub(super) fn remove_claim(&mut self, id: &ClaimId, ended: Ended, now: Now) {
        let Some(claim) = self.world.claims.remove(id) else { return };
        self.unindex(&claim);
        self.watch.stale = true;
        if let Some(line) = Line::of(&claim)
            && let Some(claims) = self.lines.get_mut(&line)
        {
            claims.remove(id);
            if claims.is_empty() {
                self.lines.remove(&line);
            }
        }
        self.dirty.claims.insert(id.clone());
        if let Some(build) = claim.terms.owner.build() {
            self.world.builds.remove(&(build.clone(), id.clone()));
            if self.world.claims_of(&build).next().is_none() {
                self.world.suspects.remove(&build);
            }
        }
        if let Phase::Held { claimed, .. } = &claim.phase {
            for part in &claim.terms.ask.parts {
                self.offer_to_prune(&part.pool, *claimed);
                self.prune(&part.pool, now);
            }
        }
        self.remember_ended(ended);
    }

    fn unindex(&mut self, claim: &Claim) {
        for deadline in claim.deadlines() {
            self.unset_timer(deadline.at, Timer::Claim(claim.id.clone()));
        }
        if let Some(build) = claim.build_to_watch() {
            self.world.watched.remove(&(build, claim.id.clone()));
        }
        self.entangled.remove(claim);
    }

    /// Keeps timers, builds and queue membership of a claim true.
    fn index(&mut self, claim: &Claim) {
        for deadline in claim.deadlines() {
            self.set_timer(deadline, Timer::Claim(claim.id.clone()));
        }
        if let Some(build) = claim.build_to_watch() {
            self.world.watched.insert((build, claim.id.clone()));
        }
        self.entangled.add(claim);
        if !claim.waits() {
            return;
        }
        for part in &claim.terms.ask.parts {
            if self.world.pool(&part.pool).is_some_and(|pool| !pool.waiting.contains_key(&pool.place(claim)))
                && let Some(pool) = self.pool_mut(&part.pool)
            {
                pool.enqueue(claim);
            }
        }
    }

    /// Takes a claim out of its queues; call it when a waiting claim stops to wait.
    pub(super) fn leave_queues(&mut self, claim: &Claim) {
        self.world.stuck.remove(&claim.id);
        self.watch.forget(&claim.id);
        for part in &claim.terms.ask.parts {
            if let Some(pool) = self.pool_mut(&part.pool) {
                pool.dequeue(claim);
            }
            self.to_dispatch.insert(part.pool.clone());
        }
    }
}

/// Whether others may have to wait for this claim, and how: as a holder, as a waiter before them, or not at all.
fn stands_in_the_way(claim: &Claim) -> (bool, bool) {
    let listens = matches!(claim.phase, Phase::Waiting { presence, .. } if Presence::listens(presence));
    (listens, !claim.waits())
}

/// Latches.
impl State {
    /// Stores a latch, new or changed, and keeps its indexes true.
    pub(super) fn put_latch(&mut self, latch: Latch) {
        self.unindex_latch(latch.id);
        if let Some(released) = latch.released() {
            self.set_timer(released.forget, Timer::Latch(latch.id));
            self.world.released_latches.insert((released.revision, latch.id));
        }
        self.dirty.latches.insert(latch.id);
        self.world.latches.insert(latch.id, Arc::new(latch));
    }

    pub(super) fn remove_latch(&mut self, id: LatchId) {
        self.unindex_latch(id);
        self.dirty.latches.insert(id);
        self.world.latches.remove(&id);
    }

    fn unindex_latch(&mut self, id: LatchId) {
        let released = self.world.latches.get(&id).and_then(|latch| latch.released().copied());
        if let Some(released) = released {
            self.unset_timer(released.forget.at, Timer::Latch(id));
            self.world.released_latches.remove(&(released.revision, id));
        }
    }
}
