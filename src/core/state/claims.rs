//! The live claims of a state, their timers and their places in the queues.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Entangled, State, SupersedeGroup, Timer};
use crate::core::claim::{Claim, Ended, Part, Phase, Presence};
use crate::core::names::{ClaimId, PoolName, Text, Ticket};
use crate::core::pool::{Overtaking, Pool};
use crate::core::time::Now;

impl State {
    pub(in crate::core) fn claim(&self, id: &ClaimId) -> Option<&Arc<Claim>> {
        self.snapshot.claims.get(id)
    }

    /// Adds a new claim.
    pub(in crate::core) fn insert_claim(&mut self, claim: Claim) {
        if let Some(build) = claim.terms.owner.build() {
            self.snapshot.builds.insert((build, claim.id.clone()));
        }
        if let Some(group) = SupersedeGroup::of(&claim) {
            self.supersede_groups.entry(group).or_default().insert(claim.id.clone());
        }
        self.forget_ended(&claim.id);
        self.index(&claim);
        if self.concerns_others(&claim) {
            self.change_edges();
        }
        self.dirty.claims.insert(claim.id.clone());
        self.snapshot.claims.insert(claim.id.clone(), Arc::new(claim));
    }

    /// Changes a live claim in a way that must survive a restart.
    pub(in crate::core) fn update_claim(&mut self, id: &ClaimId, change: impl FnOnce(&mut Claim)) {
        self.dirty.claims.insert(id.clone());
        self.update_presence(id, change);
    }

    /// Gives the owner of a live claim the id of its build, which had none so far.
    pub(in crate::core) fn set_build(&mut self, id: &ClaimId, build_id: Text) {
        self.update_claim(id, |claim| Arc::make_mut(&mut claim.terms.owner).build_id = Some(build_id));
        if let Some(build) = self.claim(id).and_then(|claim| claim.terms.owner.build()) {
            self.snapshot.builds.insert((build, id.clone()));
        }
        self.change_edges();
    }

    /// Changes a waiting claim in a way that may move it in the queue.
    pub(in crate::core) fn update_waiting(&mut self, id: &ClaimId, change: impl FnOnce(&mut Claim)) {
        self.dequeue(id);
        self.update_claim(id, change);
        self.change_edges();
    }

    /// Gives claims other tickets; none of them may belong to another live claim.
    pub(in crate::core) fn set_tickets(&mut self, tickets: &[(ClaimId, Ticket)]) {
        for (id, _) in tickets {
            self.dequeue(id);
        }
        for (id, ticket) in tickets {
            self.update_claim(id, |c| c.ticket = *ticket);
        }
        self.change_edges();
    }

    /// Takes a claim out of the queues; [`State::update_claim`] puts it back in its new place.
    fn dequeue(&mut self, id: &ClaimId) {
        let Some(claim) = self.claim(id).filter(|claim| claim.waits()).cloned() else { return };
        self.take_out_of_queues(&claim);
    }

    fn take_out_of_queues(&mut self, claim: &Claim) {
        for part in &claim.terms.ask.parts {
            let Some(pool) = self.pool_mut(&part.pool) else { continue };
            pool.dequeue(claim);
            if pool.waiting.is_empty() {
                self.queued.remove(&part.pool);
            }
        }
    }

    /// Whether this claim may affect who waits for whom: another claim waits in one of its pools, or its build has
    /// something.
    fn concerns_others(&self, claim: &Claim) -> bool {
        let others_wait = |part: &Part| {
            let pool = self.snapshot.pool(&part.pool);
            pool.is_some_and(|pool| pool.waiting.values().any(|id| *id != claim.id))
        };
        claim.terms.ask.parts.iter().any(others_wait)
            || claim.terms.owner.build().is_some_and(|build| self.entangled.has_something(&build))
    }

    /// Changes parks and presence of a live claim, which end with the server.
    pub(in crate::core) fn update_presence(&mut self, id: &ClaimId, change: impl FnOnce(&mut Claim)) {
        let Some(old) = self.snapshot.claims.get(id).cloned() else { return };
        let mut claim = Claim::clone(&old);
        change(&mut claim);
        self.unindex(&old);
        self.index(&claim);
        if stands_in_the_way(&old) != stands_in_the_way(&claim) && self.concerns_others(&claim) {
            self.change_edges();
        }
        self.snapshot.claims.insert(id.clone(), Arc::new(claim));
    }

    /// Removes an ended claim and remembers its end.
    pub(in crate::core) fn remove_claim(&mut self, id: &ClaimId, ended: Ended, now: Now) {
        let Some(claim) = self.snapshot.claims.remove(id) else { return };
        if self.concerns_others(&claim) {
            self.change_edges();
        }
        self.unindex(&claim);
        if let Some(group) = SupersedeGroup::of(&claim)
            && let Some(claims) = self.supersede_groups.get_mut(&group)
        {
            claims.remove(id);
            if claims.is_empty() {
                self.supersede_groups.remove(&group);
            }
        }
        self.dirty.claims.insert(id.clone());
        if let Some(build) = claim.terms.owner.build() {
            self.snapshot.builds.remove(&(build.clone(), id.clone()));
            if self.snapshot.claims_of(&build).next().is_none() {
                self.snapshot.suspects.remove(&build);
            }
            self.expect_no_answer(&build);
        }
        if let Phase::Held { claimed, .. } = &claim.phase {
            for part in &claim.terms.ask.parts {
                self.prune_after(&part.pool, *claimed, now);
            }
        }
        self.remember_ended(ended);
    }

    fn unindex(&mut self, claim: &Claim) {
        for deadline in claim.deadlines() {
            self.unset_timer(deadline.at, Timer::Claim(claim.id.clone()));
        }
        if let Some(build) = claim.terms.owner.build() {
            self.snapshot.watched.remove(&(build, claim.id.clone()));
        }
        self.snapshot.seeking.remove(&claim.id);
        self.unlist_mark(claim);
        self.entangled.remove(claim);
        if let Phase::Held { claimed, .. } = &claim.phase {
            self.claimed.remove(claimed);
        }
        // When several claims move up, another one may have got this ticket meanwhile.
        if self.tickets.get(&claim.ticket) == Some(&claim.id) {
            self.tickets.remove(&claim.ticket);
        }
    }

    /// Keeps the timers, builds and queue membership of a claim up to date.
    fn index(&mut self, claim: &Claim) {
        for deadline in claim.deadlines() {
            self.set_timer(deadline, Timer::Claim(claim.id.clone()));
        }
        if let Some((build, concern)) = claim.terms.owner.build().zip(claim.concern()) {
            self.snapshot.watched.insert((build, claim.id.clone()), concern);
        }
        if claim.seeks_build() {
            self.snapshot.seeking.insert(claim.id.clone());
        }
        self.list_mark(claim);
        self.entangled.add(claim);
        if let Phase::Held { claimed, .. } = &claim.phase {
            self.claimed.insert(*claimed);
        }
        self.tickets.insert(claim.ticket, claim.id.clone());
        if !claim.waits() {
            return;
        }
        for part in &claim.terms.ask.parts {
            if self.snapshot.pool(&part.pool).is_some_and(|pool| !pool.waiting.contains_key(&pool.place(claim)))
                && let Some(pool) = self.pool_mut(&part.pool)
            {
                pool.enqueue(claim);
                self.queued.insert(part.pool.clone());
            }
        }
    }

    /// Whether the indexes of pools and builds say the same as the claims and pools from which they were made.
    pub(in crate::core) fn check_indexes(&self) -> Result<(), String> {
        let mut entangled = Entangled::default();
        self.snapshot.claims.values().for_each(|claim| entangled.add(claim));
        if entangled != self.entangled {
            return Err(format!("entangled builds are {:?}, not {entangled:?}", self.entangled));
        }
        let pools = |is_one: fn(&Pool) -> bool| -> BTreeSet<PoolName> {
            self.snapshot.pools.values().filter(|pool| is_one(pool)).map(|pool| pool.name.clone()).collect()
        };
        let queued = pools(|pool| !pool.waiting.is_empty());
        if queued != self.queued {
            return Err(format!("claims wait in {queued:?}, but {:?} are listed", self.queued));
        }
        let backfilling = pools(|pool| pool.policy.overtaking != Overtaking::Strict);
        if backfilling != self.backfilling {
            return Err(format!("{backfilling:?} backfill, but {:?} are listed", self.backfilling));
        }
        Ok(())
    }

    /// Takes a claim out of its queues; called when a waiting claim stops waiting.
    pub(in crate::core) fn leave_queues(&mut self, claim: &Claim) {
        self.snapshot.stuck.remove(&claim.id);
        self.watch.forget(&claim.id);
        self.take_out_of_queues(claim);
        for part in &claim.terms.ask.parts {
            self.to_dispatch.insert(part.pool.clone());
        }
    }
}

/// What decides whether other claims may have to wait for this one: as an earlier waiter, and as a holder.
fn stands_in_the_way(claim: &Claim) -> (bool, bool) {
    let listens = matches!(claim.phase, Phase::Waiting { presence, .. } if Presence::listens(presence));
    (listens, claim.waits())
}
