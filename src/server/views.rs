//! Turns the published snapshot into the JSON views for people and programs. Nothing here decides anything.

use std::sync::Arc;

use super::auth::access::Caller;
use super::nearest;
use crate::core::claim::{BuildOver, Claim, Ended, Fetched, Owner, Part, Phase, Presence, Terms, Want};
use crate::core::command::Refusal;
use crate::core::history::Change;
use crate::core::limits;
use crate::core::names::{ClaimId, InstanceVars, LockName, PoolName, Text};
use crate::core::pool::{Holder, Lock, Pool, Quarantine};
use crate::core::state::Snapshot;
use crate::core::state::Stuck;
use crate::core::time::{Deadline, Now, Span, WallMs};
use crate::wire::api::{
    self, BuildEndedView, ChangeView, ClaimState, ClaimView, HolderView, LockRef, LockState, LockView, MadePoolView,
    PartBody, PoolSummary, QuarantineView, QueueView, SuspectView, WaiterView,
};
use crate::wire::errors::Code;
use crate::wire::parse::show_policy;
use crate::wire::text::{show_metadata, show_span, time};

/// Reads one snapshot.
pub struct Viewer<'w> {
    pub snapshot: &'w Snapshot,
    /// To show deadlines, which are in engine time, as times of day.
    pub now: Now,
    /// Who looks. What it may not look at is left out.
    pub caller: &'w Caller,
}

impl Viewer<'_> {
    /// When a deadline is expected, as far as is known now. It moves if the wall clock is set or while the server is
    /// down.
    fn moment(&self, deadline: Deadline) -> String {
        time(WallMs(self.now.wall.0.saturating_add(self.left(deadline).0)))
    }

    /// The time left until a deadline.
    fn left(&self, deadline: Deadline) -> Span {
        Span(deadline.at.0.saturating_sub(self.now.engine.0))
    }

    fn suspect(&self, claim: &Claim) -> Option<SuspectView> {
        let suspect = self.snapshot.suspect(claim)?;
        Some(SuspectView { since: time(suspect.since), why: suspect.why.to_string() })
    }

    fn build_ended(claim: &Claim) -> Option<BuildEndedView> {
        let Some(BuildOver::Ended { how, at }) = claim.build_over else { return None };
        Some(BuildEndedView { how: how.word().to_owned(), at: time(at) })
    }

    /// A live claim, as its own client sees it: with what may have been meant by the pools that it made.
    #[must_use]
    pub fn own_claim(&self, claim: &Claim, queue: bool) -> ClaimView {
        let mut view = self.claim(claim, queue);
        for (made, name) in view.made.iter_mut().zip(&claim.made) {
            made.nearest = nearest::pool(self.snapshot, name, self.caller);
        }
        view
    }

    /// A pool that is made now, and which one may have been meant.
    #[must_use]
    pub fn new_pool(&self, name: &PoolName) -> MadePoolView {
        MadePoolView { pool: name.to_string(), nearest: nearest::pool(self.snapshot, name, self.caller) }
    }

    /// The name or label that was probably meant by a request that was refused.
    #[must_use]
    pub fn meant(&self, refusal: &Refusal) -> Option<String> {
        nearest::meant(self.snapshot, refusal, self.caller)
    }

    fn seen_locks(&self, given: &[(PoolName, LockName)]) -> Vec<LockRef> {
        locks(given.iter().filter(|(pool, _)| self.caller.sees(pool)))
    }

    /// The builds that wait for each other, each for the next, as far as something of them may be seen.
    #[must_use]
    pub fn builds(&self, stuck: &Stuck) -> Vec<api::Owner> {
        let Stuck::Deadlock { builds } = stuck else { return Vec::new() };
        let is_seen = |build: &&Arc<Owner>| {
            let seen = |claim: &Arc<Claim>| self.caller.sees_claim(claim);
            !self.caller.is_limited() || build.build().is_some_and(|build| self.snapshot.claims_of(&build).any(seen))
        };
        builds.iter().filter(is_seen).map(|build| owner(build)).collect()
    }

    /// A live claim. `queue` adds its place in the queue, which costs a look at each earlier waiter.
    #[must_use]
    pub fn claim(&self, claim: &Claim, queue: bool) -> ClaimView {
        let ask = &claim.terms.ask;
        let (revision, held_since, fetched) = match &claim.phase {
            Phase::Held { claimed, since, fetched, .. } => (Some(claimed.revision.0), Some(time(*since)), *fetched),
            Phase::Waiting { .. } | Phase::Granted { .. } => (None, None, Fetched::Never),
        };
        let until = claim.held_until();
        ClaimView {
            id: claim.id.to_string(),
            state: state(claim),
            life: claim.life,
            asks: ask.parts.iter().filter(|part| self.caller.sees(&part.pool)).map(part).collect(),
            locks: self.seen_locks(claim.locks()),
            fence: claim.fence().map(|f| f.0),
            revision,
            key: text(ask.key.as_ref()),
            requestor: text(ask.sharer().map(|(_, requestor)| requestor)),
            scope: Some(claim.scope.into()),
            priority: Some(claim.terms.priority.get()).filter(|priority| *priority != 0),
            supersede: text(claim.terms.supersede.as_ref()),
            owner: owner(&claim.terms.owner),
            reason: claim.terms.reason.as_ref().map(ToString::to_string),
            asked_at: Some(time(claim.asked_at)),
            held_since,
            held_until: until.map(|until| self.moment(until)),
            held_for: until.map(|until| show_span(self.left(until))),
            ttl: claim.terms.ttl.map(show_span),
            fetched: fetched != Fetched::Never,
            delivered: fetched == Fetched::ByAnother,
            marked: claim.is_marked(),
            aliases: claim.aliases.iter().map(ToString::to_string).collect(),
            alike: false,
            again: false,
            own: Vec::new(),
            build_over: claim.build_over.is_some(),
            build_ended: Self::build_ended(claim),
            suspect: self.suspect(claim),
            how: None,
            by: None,
            ended_at: None,
            queue: (queue && claim.waits()).then(|| self.queue(claim)),
            made: claim
                .made
                .iter()
                .filter(|pool| self.caller.sees(pool))
                .map(|pool| MadePoolView { pool: pool.to_string(), nearest: None })
                .collect(),
        }
    }

    /// The place of a waiting claim in the queue of its first pool.
    fn queue(&self, claim: &Claim) -> QueueView {
        let first = claim.terms.ask.parts.first().and_then(|part| self.snapshot.pool(&part.pool));
        let position = first.map_or(0, |pool| pool.waiting_before(pool.place(claim))) + 1;
        let ahead = first.into_iter().flat_map(|pool| pool.waiting.range(..pool.place(claim)).rev());
        let ahead = ahead.filter_map(|(_, id)| self.snapshot.claims.get(id)).take(limits::AHEAD_SHOWN);
        QueueView {
            position,
            ahead: ahead.map(|c| self.waiter(c)).collect(),
            holders: self.rivals(&claim.terms.ask.parts),
            holder_count: self.rival_count(&claim.terms.ask.parts),
            listening: listens(claim),
            expected_wait: first.and_then(|pool| Some(show_span(expected_wait(pool, typical_hold(pool)?, position)))),
            stuck: self.stuck(claim),
            lacks: self.lacks_with_hint(&claim.terms),
        }
    }

    /// What the pools do not have, and what was probably meant instead.
    fn lacks_with_hint(&self, terms: &Terms) -> Option<String> {
        let lacks = self.lacks(terms)?;
        let meant = self.snapshot.lacks(terms).and_then(|refusal| self.meant(&refusal));
        Some(meant.map_or(lacks.clone(), |meant| format!("{lacks} (did you mean {meant:?}?)")))
    }

    /// What the pools do not have of what such a claim wants, and what it waits for.
    #[must_use]
    pub fn lacks(&self, terms: &Terms) -> Option<String> {
        self.lacking(terms).map(|(what, until)| format!("{what}, waiting for {until}"))
    }

    /// The same in two parts: `the pool is empty`, and `a lock to be added`.
    #[must_use]
    pub fn lacking(&self, terms: &Terms) -> Option<(String, &'static str)> {
        let name = |pool: &PoolName| match terms.ask.parts.as_slice() {
            [_] => "the pool".to_owned(),
            _ => format!("pool {pool:?}"),
        };
        let lacks = self.snapshot.lacks(terms)?;
        if pool_of(&lacks).is_none_or(|pool| !self.caller.sees(pool)) && self.caller.is_limited() {
            return Some(("a pool lacks what it asks for".to_owned(), "it to change"));
        }
        Some(match lacks {
            Refusal::NoSuchLock { pool, lock } => (format!("{} has no lock {lock:?}", name(&pool)), "it to be added"),
            Refusal::TooMany { pool, .. } if self.snapshot.pool(&pool).is_some_and(|pool| pool.locks.is_empty()) => {
                (format!("{} is empty", name(&pool)), "a lock to be added")
            }
            Refusal::TooMany { pool, asked, has, labels } => {
                let labels = if labels.is_empty() { "" } else { " with these labels" };
                (format!("{} has {has} of {asked} locks{labels}", name(&pool)), "more to be added")
            }
            other => (other.to_string(), "it to change"),
        })
    }

    /// The locks that the claim's own build holds, if the claim waits for them.
    #[must_use]
    pub fn own(&self, stuck: &Stuck) -> Vec<HolderView> {
        let Stuck::SelfWait { own } = stuck else { return Vec::new() };
        let holder = |(pool, lock, claim): &(PoolName, LockName, ClaimId)| {
            let pool = self.snapshot.pool(pool).filter(|pool| self.caller.sees(&pool.name))?;
            let lock = pool.locks.get(lock)?;
            self.holder(pool, lock, lock.holders.iter().find(|holder| holder.claim == *claim)?)
        };
        own.iter().filter_map(holder).collect()
    }

    /// What other claims of the same build hold in the pools of this claim. Only the first few.
    #[must_use]
    pub fn siblings(&self, claim: &Claim) -> Vec<HolderView> {
        let Some(build) = claim.terms.owner.build() else { return Vec::new() };
        let others = self.snapshot.claims_of(&build).filter(|other| other.id != claim.id);
        let here = others.flat_map(|other| other.locks().iter().map(move |lock| (other, lock)));
        let here = here.filter(|(_, (pool, _))| claim.pools().any(|own| own == pool) && self.caller.sees(pool));
        let holder = |(other, (pool, lock)): (&Arc<Claim>, &(PoolName, LockName))| {
            let pool = self.snapshot.pool(pool)?;
            let lock = pool.locks.get(lock)?;
            self.holder(pool, lock, lock.holders.iter().find(|holder| holder.claim == other.id)?)
        };
        here.filter_map(holder).take(limits::HOLDERS_SHOWN).collect()
    }

    /// The holders of the locks that could serve this claim. Only the first few.
    #[must_use]
    pub fn rivals(&self, parts: &[Part]) -> Vec<HolderView> {
        let of_part = |part: &Part| -> Vec<HolderView> {
            let pool = self.snapshot.pool(&part.pool).filter(|pool| self.caller.sees(&pool.name));
            let Some(pool) = pool else { return Vec::new() };
            let holders = |lock: &Arc<Lock>| self.holders(pool, lock);
            match &part.want {
                Want::Named(names) => {
                    let wanted = names.iter().filter_map(|name| pool.locks.get(name));
                    wanted.flat_map(holders).take(limits::HOLDERS_SHOWN).collect()
                }
                Want::Any { labels, .. } => {
                    let fitting = pool.locks.values().filter(|lock| lock.matches(labels));
                    fitting.flat_map(holders).take(limits::HOLDERS_SHOWN).collect()
                }
            }
        };
        parts.iter().flat_map(of_part).take(limits::HOLDERS_SHOWN).collect()
    }

    /// How many holders the locks have that could serve this claim.
    #[must_use]
    pub fn rival_count(&self, parts: &[Part]) -> usize {
        let of_part = |part: &Part| -> usize {
            let pool = self.snapshot.pool(&part.pool).filter(|pool| self.caller.sees(&pool.name));
            let Some(pool) = pool else { return 0 };
            match &part.want {
                Want::Named(names) => {
                    names.iter().filter_map(|name| pool.locks.get(name)).map(|lock| lock.holders.len()).sum()
                }
                Want::Any { labels, .. } => {
                    let fitting = pool.locks.values().filter(|lock| lock.matches(labels));
                    fitting.map(|lock| lock.holders.len()).sum()
                }
            }
        };
        parts.iter().map(of_part).sum()
    }

    /// All holders of a lock.
    fn holders(&self, pool: &Pool, lock: &Lock) -> Vec<HolderView> {
        lock.holders.iter().filter_map(|holder| self.holder(pool, lock, holder)).collect()
    }

    /// One holder of a lock. `None` never happens in a consistent snapshot.
    #[must_use]
    pub fn holder(&self, pool: &Pool, lock: &Lock, holder: &Holder) -> Option<HolderView> {
        let claim = self.snapshot.claims.get(&holder.claim)?;
        let (since, fetched) = match &claim.phase {
            Phase::Held { since, fetched, .. } => (Some(time(*since)), *fetched),
            Phase::Waiting { .. } | Phase::Granted { .. } => (None, Fetched::Never),
        };
        Some(HolderView {
            fetched: fetched != Fetched::Never,
            delivered: fetched == Fetched::ByAnother,
            marked: claim.is_marked(),
            pool: pool.name.to_string(),
            lock: lock.name.to_string(),
            claim: holder.claim.to_string(),
            state: state(claim),
            fence: holder.fence.0,
            owner: owner(&claim.terms.owner),
            key: text(holder.sharer.as_ref().map(|(key, _)| key)),
            requestor: text(holder.sharer.as_ref().map(|(_, requestor)| requestor)),
            since,
            until: claim.held_until().map(|until| self.moment(until)),
            scope: Some(claim.scope.into()),
            build_ended: Self::build_ended(claim),
            suspect: self.suspect(claim),
            reason: claim.terms.reason.as_ref().map(ToString::to_string),
        })
    }

    /// A lock, with its metadata if asked for.
    #[must_use]
    pub fn lock(&self, pool: &Pool, lock: &Lock, with_metadata: bool) -> LockView {
        let holders = self.holders(pool, lock);
        let state = match (holders.is_empty(), lock.drain) {
            (true, _) if lock.quarantine.is_some() => LockState::Quarantined,
            (true, None) => LockState::Free,
            (true, Some(_)) => LockState::Draining,
            (false, _) if holders.iter().any(|h| h.state == ClaimState::Held) => LockState::Held,
            (false, _) => LockState::Granted,
        };
        let (metadata, metadata_base64) = if with_metadata { show_metadata(&lock.metadata) } else { (None, None) };
        LockView {
            pool: pool.name.to_string(),
            lock: lock.name.to_string(),
            state,
            labels: lock.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            holders,
            leaving: lock.leaving,
            implicit: lock.implicit,
            quarantine: lock.quarantine.as_ref().map(|quarantine| self.quarantine(quarantine)),
            metadata,
            metadata_base64,
        }
    }

    fn quarantine(&self, quarantine: &Quarantine) -> QuarantineView {
        QuarantineView {
            since: time(quarantine.since),
            until: quarantine.until.map(|until| self.moment(until)),
            by: text(quarantine.by.as_ref()),
            reason: quarantine.reason.as_ref().map(ToString::to_string),
        }
    }

    /// The first waiters of a pool, in their order.
    #[must_use]
    pub fn waiters(&self, pool: &Pool) -> Vec<WaiterView> {
        let claims = pool.waiting.values().filter_map(|id| self.snapshot.claims.get(id));
        let hold = typical_hold(pool);
        let expected = |position| hold.map(|hold| show_span(expected_wait(pool, hold, position)));
        let shown = claims.take(limits::PAGE).zip(1..);
        shown.map(|(claim, n)| WaiterView { expected_wait: expected(n), ..self.waiter(claim) }).collect()
    }

    fn waiter(&self, claim: &Claim) -> WaiterView {
        WaiterView {
            claim: claim.id.to_string(),
            owner: owner(&claim.terms.owner),
            requestor: text(claim.terms.ask.sharer().map(|(_, requestor)| requestor)),
            asked_at: time(claim.asked_at),
            listening: listens(claim),
            stuck: self.stuck(claim),
            lacks: self.lacks(&claim.terms),
            expected_wait: None,
        }
    }

    fn stuck(&self, claim: &Claim) -> Option<Code> {
        self.snapshot.stuck.get(&claim.id).map(|stuck| stuck_code(stuck))
    }
}

/// The median of the recent holds. `None` if there were too few to tell.
fn typical_hold(pool: &Pool) -> Option<Span> {
    let mut holds: Vec<Span> = pool.holds().collect();
    if holds.len() < limits::HOLDS_ENOUGH {
        return None;
    }
    holds.sort_unstable();
    Some(holds[holds.len() / 2])
}

/// How long a claim at this place may expect to wait: a typical hold for each turn before it, shared among the locks.
fn expected_wait(pool: &Pool, hold: Span, position: usize) -> Span {
    let turns = hold.0.saturating_mul(position as u64);
    let shared = turns.div_ceil(pool.locks.len().max(1) as u64);
    Span(shared.div_ceil(1_000) * 1_000)
}

/// The code for this kind of wait.
#[must_use]
pub fn stuck_code(stuck: &Stuck) -> Code {
    match stuck {
        Stuck::SelfWait { .. } => Code::SelfWait,
        Stuck::Deadlock { .. } => Code::Deadlock,
    }
}

/// The pool that a refusal of what pools lack is about.
fn pool_of(refusal: &Refusal) -> Option<&PoolName> {
    match refusal {
        Refusal::NoSuchPool { pool }
        | Refusal::MayNotMake { pool }
        | Refusal::NoSuchLock { pool, .. }
        | Refusal::TooMany { pool, .. } => Some(pool),
        _ => None,
    }
}

fn state(claim: &Claim) -> ClaimState {
    match claim.phase {
        Phase::Waiting { .. } => ClaimState::Waiting,
        Phase::Granted { .. } => ClaimState::Granted,
        Phase::Held { .. } => ClaimState::Held,
    }
}

fn listens(claim: &Claim) -> bool {
    matches!(&claim.phase, Phase::Waiting { presence, .. } if Presence::listens(*presence))
}

/// What is remembered of a claim that has ended.
#[must_use]
pub fn ended(ended: &Ended) -> ClaimView {
    let build = ended.build.as_ref();
    ClaimView {
        id: ended.id.to_string(),
        state: ClaimState::Ended,
        life: ended.life,
        asks: Vec::new(),
        locks: Vec::new(),
        fence: ended.fence.map(|f| f.0),
        revision: ended.revision.map(|r| r.0),
        key: None,
        requestor: None,
        scope: None,
        priority: None,
        supersede: None,
        owner: api::Owner {
            cluster: text(build.map(|b| &b.cluster)),
            build_id: text(build.map(|b| &b.id)),
            ..api::Owner::default()
        },
        reason: ended.reason.as_ref().map(ToString::to_string),
        asked_at: None,
        held_since: None,
        held_until: None,
        held_for: None,
        ttl: None,
        fetched: false,
        delivered: false,
        marked: false,
        aliases: Vec::new(),
        alike: false,
        again: false,
        own: Vec::new(),
        build_over: false,
        build_ended: None,
        suspect: None,
        how: Some(ended.how.word().to_owned()),
        by: text(ended.by.as_ref()),
        ended_at: Some(time(ended.at)),
        queue: None,
        made: Vec::new(),
    }
}

fn text(text: Option<&Text>) -> Option<String> {
    text.map(ToString::to_string)
}

/// Who is behind a claim.
#[must_use]
pub fn owner(owner: &Owner) -> api::Owner {
    api::Owner {
        cluster: text(owner.cluster.as_ref()),
        team: text(owner.team.as_ref()),
        pipeline: text(owner.pipeline.as_ref()),
        instance_vars: owner.instance_vars.as_ref().map(InstanceVars::to_string),
        job: text(owner.job.as_ref()),
        build_id: text(owner.build_id.as_ref()),
        build_name: text(owner.build_name.as_ref()),
        build_url: text(owner.build_url.as_ref()),
        person: text(owner.person.as_ref()),
        program: text(owner.program.as_ref()),
    }
}

fn part(part: &Part) -> PartBody {
    let pool = part.pool.to_string();
    match &part.want {
        Want::Any { count, labels } => {
            let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            PartBody { pool, count: Some(*count), labels, ..PartBody::default() }
        }
        Want::Named(names) => {
            let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
            match names.len() {
                1 => PartBody { pool, lock: names.pop(), ..PartBody::default() },
                _ => PartBody { pool, locks: Some(names), ..PartBody::default() },
            }
        }
    }
}

pub(super) fn locks<'l>(locks: impl IntoIterator<Item = &'l (PoolName, LockName)>) -> Vec<LockRef> {
    locks.into_iter().map(|(pool, lock)| LockRef { pool: pool.to_string(), lock: lock.to_string() }).collect()
}

impl Viewer<'_> {
    /// A pool in a list. Looks at each of its locks and waiters.
    #[must_use]
    pub fn pool(&self, pool: &Pool) -> PoolSummary {
        let mut summary = counts(pool);
        summary.quarantined = pool.locks.values().filter(|lock| lock.quarantine.is_some()).count();
        for claim in self.snapshot.holding(pool) {
            summary.suspect += usize::from(self.snapshot.suspect(claim).is_some());
            summary.build_over += usize::from(claim.build_over.is_some());
        }
        summary.oldest_wait = self.snapshot.oldest_wait(pool).map(time);
        summary.oldest_hold = self.snapshot.oldest_hold(pool).map(time);
        summary
    }
}

/// The part of it that needs no look at the locks.
fn counts(pool: &Pool) -> PoolSummary {
    PoolSummary {
        pool: pool.name.to_string(),
        locks: pool.locks.len(),
        free: pool.open(),
        waiting: pool.waiting.len(),
        oldest_wait: None,
        oldest_hold: None,
        suspect: 0,
        build_over: 0,
        quarantined: 0,
        policy: show_policy(&pool.policy),
    }
}

/// How long something lasted: in whole seconds, unless that was short.
#[must_use]
pub fn lasted(span: Span) -> String {
    let whole = Span::secs(span.0 / 1000);
    show_span(if span < Span::secs(10) { span } else { whole })
}

/// One entry of the history.
#[must_use]
pub fn change(change: &Change) -> ChangeView {
    ChangeView {
        revision: change.key.revision.0,
        at: time(change.at),
        kind: change.kind.into(),
        pools: change.pools.iter().map(ToString::to_string).collect(),
        locks: locks(&change.locks),
        claim: change.claim.as_ref().map(ToString::to_string),
        how: change.end.map(|end| end.word().to_owned()),
        owner: change.who.as_deref().map(owner).unwrap_or_default(),
        proved: change.origin.as_ref().and_then(|origin| origin.proved.as_ref()).map(ToString::to_string),
        address: change.origin.as_ref().and_then(|origin| origin.address.clone()),
        rule: change.origin.as_ref().and_then(|origin| origin.rule.as_deref()).map(str::to_owned),
        waited: change.waited.map(lasted),
        held: change.held.map(lasted),
        reason: change.reason.as_ref().map(ToString::to_string),
        latch: change.latch.as_ref().map(|latch| api::LatchRef {
            id: latch.id.to_string(),
            workflow: latch.workflow.to_string(),
            namespace: latch.namespace.to_string(),
        }),
        token: change.token.as_ref().map(ToString::to_string),
    }
}
