//! The state that the engine owns: the part that anybody may read ([`Snapshot`]), and the part that only steps need
//! ([`State`]).
//!
//! The code here keeps the indexes up to date and remembers what a batch has touched. It decides nothing.
//!
//! - `snapshot`: what anybody may read, and what a store gets.
//! - `claims`, `pools`, `latches`, `tokens`: adding, changing and removing them. `marks`: what is kept about marked holds.
//! - `history`: writing and listing entries; `retention`: which of them are pruned; `remembered`: ended claims and the answers of operations; `ended`: what is
//!   known at once of ended claims.
//! - `tickets`: the order in which claims came.
//! - `entangled`, `stuck`, `supersede_group`: indexes and findings that the rules need.

mod claims;
mod ended;
mod entangled;
mod history;
mod latches;
mod marks;
mod pools;
mod remembered;
mod retention;
mod snapshot;
mod stuck;
mod supersede_group;
mod tickets;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::core::claim::{BuildRef, Ended};
use crate::core::history::Change;
use crate::core::latch::LatchId;
use crate::core::limits;
use crate::core::names::{ChangeKey, ClaimId, LockName, OpId, ParkId, PoolName, Revision, Text, Ticket, TokenName};
use crate::core::origin::Origin;
use crate::core::pool::Pool;
use crate::core::settings::{Settings, planted};
use crate::core::time::{Deadline, EngineMs, Now};

pub(in crate::core) use ended::EndedIndex;
use ended::Place;
pub(super) use entangled::Entangled;
pub(super) use history::Entry;
use remembered::AtHand;
use retention::Histories;
pub use snapshot::{Changes, EndedOutline, Kept, Loaded, Meta, OpRecord, Snapshot};
pub use stuck::Stuck;
pub(super) use stuck::Watch;
pub(super) use supersede_group::SupersedeGroup;

/// An event that readers may be waiting for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// This parked request should try again.
    Park(ParkId),
    /// The history of this pool has grown.
    Pool(PoolName),
    /// This latch was released or deleted.
    Latch(LatchId),
    /// The marked holds of this build have ended because nobody could tell for too long whether it is over.
    Unanswered(BuildRef),
}

/// What a timer is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Claim(ClaimId),
    Drain(PoolName, LockName),
    Quarantine(PoolName, LockName),
    Op(OpId),
    Latch(LatchId),
    /// Nobody has heard for too long that this build, which has marked holds, is running.
    Unanswered(BuildRef),
    /// The next search for stuck claims.
    Stuck,
}

#[derive(Debug, Clone, Default)]
struct Dirty {
    meta: bool,
    pools: BTreeSet<PoolName>,
    locks: BTreeSet<(PoolName, LockName)>,
    claims: BTreeSet<ClaimId>,
    /// New or changed ended claims; `None` for those that are forgotten.
    ended: BTreeMap<ClaimId, Option<Arc<Ended>>>,
    /// Others that are forgotten at another time.
    forget: BTreeMap<ClaimId, Deadline>,
    ops: BTreeSet<OpId>,
    latches: BTreeSet<LatchId>,
    reruns: BTreeSet<Text>,
    tokens: BTreeSet<TokenName>,
    history: Vec<Arc<Change>>,
    pruned: Vec<ChangeKey>,
}

/// The state of a server: it has one owner, and only steps change it.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub snapshot: Snapshot,
    pub settings: Settings,
    pub(super) ops: BTreeMap<OpId, OpRecord>,
    pub(super) timers: BTreeSet<(EngineMs, Timer)>,
    /// Deadlines of holds, waits and drains that continue over a restart.
    long: BTreeSet<(EngineMs, Timer)>,
    /// Parked requests and their claims; kept until the request is answered or its client disconnects.
    pub(super) parks: BTreeMap<ParkId, ClaimId>,
    /// Pools in which a lock may have become grantable.
    pub(super) to_dispatch: BTreeSet<PoolName>,
    /// Pools in which a claim waits.
    queued: BTreeSet<PoolName>,
    /// The last of these pools that the periodic look has visited.
    looked_at: Option<PoolName>,
    /// Live claims by ticket; each ticket belongs to one claim.
    tickets: BTreeMap<Ticket, ClaimId>,
    /// Pools in which a later claim may pass one that cannot be served.
    backfilling: BTreeSet<PoolName>,
    pub(super) entangled: Entangled,
    pub(super) watch: Watch,
    /// When the marked holds of each build end if nobody hears that the build is running. Not stored: it starts again
    /// in full with the server.
    unanswered: BTreeMap<BuildRef, EngineMs>,
    /// Live claims that supersede others, by the group in which they compete.
    pub(super) supersede_groups: BTreeMap<SupersedeGroup, BTreeSet<ClaimId>>,
    /// Whether, since the last dispatch, a claim may have begun to wait for another claim than before.
    edges_changed: bool,
    next_ticket: u64,
    /// The request that is being carried out, and the claim that it asks for or confirms.
    origin: Option<Arc<Origin>>,
    asking: Option<ClaimId>,
    /// The revision of the running step and its number of entries, once it has changed something.
    step: Option<(Revision, u32)>,
    /// All ended claims that are remembered. The builds are listed of those that are remembered longer because their
    /// build is not known to be over.
    ended: EndedIndex,
    /// What is remembered of some of them.
    at_hand: AtHand,
    /// When the next of these builds are shown.
    next_past_builds: EngineMs,
    /// The last one that was looked at.
    last_past_build: Option<Place>,
    /// Remembered operations, oldest first.
    op_order: BTreeSet<(EngineMs, OpId)>,
    histories: Histories,
    /// The `claimed` entries of live holds.
    claimed: BTreeSet<ChangeKey>,
    dirty: Dirty,
    notices: BTreeSet<Notice>,
}

impl State {
    /// An empty state.
    pub(super) fn new(settings: Settings) -> Self {
        let snapshot = Snapshot { seed: settings.seed, ..Snapshot::default() };
        Self { snapshot, ended: EndedIndex::new(settings.seed), settings, ..Self::default() }
    }

    /// The changes since the last call.
    pub fn take_changes(&mut self, now: Now) -> Changes {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.at_hand.make_room(self.settings.at_hand);
        if !dirty.pruned.is_empty() {
            // An entry that was added and pruned within the batch never reached the store.
            let pruned: BTreeSet<ChangeKey> = dirty.pruned.iter().copied().collect();
            dirty.history.retain(|change| !pruned.contains(&change.key));
        }
        let snapshot = &self.snapshot;
        let meta = dirty.meta || !dirty.claims.is_empty() || !dirty.history.is_empty() || !dirty.pruned.is_empty();
        Changes {
            meta: meta.then(|| self.meta(now)),
            pools: dirty.pools.into_iter().map(|p| (p.clone(), snapshot.pool(&p).map(|x| x.policy.clone()))).collect(),
            locks: dirty
                .locks
                .into_iter()
                .map(|(p, l)| {
                    let lock = snapshot.pool(&p).and_then(|x| x.locks.get(&l).cloned());
                    (p, l, lock)
                })
                .collect(),
            claims: dirty.claims.into_iter().map(|id| (id.clone(), snapshot.claims.get(&id).cloned())).collect(),
            ended: dirty.ended.into_iter().collect(),
            forget: dirty.forget.into_iter().collect(),
            ops: dirty.ops.into_iter().map(|op| (op.clone(), self.ops.get(&op).cloned())).collect(),
            latches: dirty.latches.into_iter().map(|id| (id, snapshot.latches.get(&id).cloned())).collect(),
            reruns: dirty.reruns.into_iter().map(|url| (url.clone(), snapshot.reruns.contains(&url))).collect(),
            tokens: dirty.tokens.into_iter().map(|name| (name.clone(), snapshot.token(&name).cloned())).collect(),
            history: dirty.history,
            pruned: dirty.pruned,
        }
    }

    /// The notices since the last call, each once.
    pub fn take_notices(&mut self) -> BTreeSet<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// When the next step is due without a call.
    #[must_use]
    pub fn next_timer(&self) -> Option<EngineMs> {
        self.timers.first().map(|(at, _)| *at).into_iter().chain(self.ended.next()).min()
    }

    /// Whether a deadline that continues over a restart is still to come, so that engine time must be stored from time
    /// to time.
    #[must_use]
    pub fn has_long_deadline(&self, now: Now) -> bool {
        self.long.last().is_some_and(|(at, _)| *at > now.engine)
    }

    /// Makes the next commit store the counters.
    pub fn touch_meta(&mut self) {
        self.dirty.meta = true;
    }

    /// Marks the deletions in `changes` as touched again, but not its puts.
    pub(super) fn keep_deletions(&mut self, changes: Changes) {
        self.dirty.pruned = changes.pruned;
        self.dirty.ended.extend(changes.ended.into_iter().filter(|(_, kept)| kept.is_none()));
        self.dirty.ops.extend(changes.ops.into_iter().filter(|(_, kept)| kept.is_none()).map(|(op, _)| op));
    }

    fn meta(&self, now: Now) -> Meta {
        let Snapshot { revision, history, .. } = &self.snapshot;
        let next_ticket = Ticket(self.next_ticket);
        Meta { revision: *revision, next_ticket, engine: now.engine, pruned: history.pruned }
    }

    pub(super) fn set_counters(&mut self, revision: Revision, next_ticket: Ticket) {
        self.snapshot.revision = revision;
        self.next_ticket = next_ticket.0;
        self.dirty.meta = true;
    }

    /// From here to [`Self::end_request`], changes are due to this request, which is about this claim.
    pub(super) fn begin_request(&mut self, origin: Option<Arc<Origin>>, asking: Option<ClaimId>) {
        (self.origin, self.asking) = (origin, asking);
    }

    /// What follows is not due to the request itself.
    pub(super) fn end_request(&mut self) {
        (self.origin, self.asking) = (None, None);
    }

    /// The request that is being carried out.
    pub(super) fn origin(&self) -> Option<Arc<Origin>> {
        self.origin.clone()
    }

    /// Begins a step: its first change opens a new revision.
    pub(super) fn begin_step(&mut self) {
        self.step = None;
    }

    /// The revision of the running step, opened by its first change.
    pub(super) fn step_revision(&mut self) -> Revision {
        match self.step {
            Some((revision, _)) => revision,
            None => {
                self.snapshot.revision = self.snapshot.revision.next();
                self.dirty.meta = true;
                self.step = Some((self.snapshot.revision, 0));
                self.snapshot.revision
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

    /// Makes the next pools due for dispatch in which a claim waits and a lock is free; all of them when they are few.
    pub(super) fn dispatch_next_queues(&mut self) {
        let after = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.queued.range((after.clone(), Bound::Unbounded));
        let from_the_start = self.queued.iter().take_while(|name| match &after {
            Bound::Excluded(after) => *name <= after,
            _ => false,
        });
        let next: Vec<&PoolName> = next.chain(from_the_start).take(limits::QUEUES_PER_LOOK).collect();
        self.looked_at = next.last().map(|name| (*name).clone());
        let open = next.into_iter().filter(|name| self.snapshot.pool(name).is_some_and(Pool::has_room));
        self.to_dispatch.extend(open.cloned());
    }

    /// Makes the pools due for dispatch in which the exception from strict order may have changed.
    pub(super) fn dispatch_entangled(&mut self) {
        if std::mem::take(&mut self.edges_changed) {
            self.to_dispatch.extend(self.entangled.pools().cloned());
        }
    }

    /// From now on, a claim may wait for another claim than before.
    fn change_edges(&mut self) {
        self.edges_changed = true;
        self.watch.stale = true;
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        if planted!(self.settings, LostNotice) && matches!(notice, Notice::Park(_)) {
            return;
        }
        self.notices.insert(notice);
    }

    /// Repairs lost wake-ups: notifies each parked request that its claim no longer lists (once more).
    pub(super) fn notify_stale_parks(&mut self) {
        let counts = |(park, id): &(&ParkId, &ClaimId)| self.claim(id).is_some_and(|c| c.parks.contains(park));
        let stale: Vec<ParkId> = self.parks.iter().filter(|park| !counts(park)).map(|(park, _)| *park).collect();
        self.notices.extend(stale.into_iter().map(Notice::Park));
    }
}
