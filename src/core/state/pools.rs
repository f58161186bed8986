//! The pools and locks of a state.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{State, Timer};
use crate::core::claim::Claim;
use crate::core::names::{LockName, PoolName};
use crate::core::pool::{Holder, Lock, Overtaking, Policy, Pool, WhenEmpty};
use crate::core::time::{Deadline, Now};

impl State {
    /// The step is about these pools, so it will look at them often.
    pub(in crate::core) fn raise_pools<'p>(&mut self, pools: impl IntoIterator<Item = &'p PoolName>) {
        pools.into_iter().for_each(|pool| self.snapshot.pools.raise(pool));
    }

    pub(in crate::core) fn pool_mut(&mut self, name: &PoolName) -> Option<&mut Pool> {
        self.snapshot.pools.get_mut(name).map(Arc::make_mut)
    }

    pub(in crate::core) fn put_pool(&mut self, pool: Pool) {
        self.note_overtaking(&pool.name, pool.policy.overtaking);
        self.dirty.pools.insert(pool.name.clone());
        self.snapshot.pools.insert(pool.name.clone(), Arc::new(pool));
    }

    /// Replaces the policy of a pool, which may change the places of its waiters.
    pub(in crate::core) fn set_policy(&mut self, name: &PoolName, policy: Policy) {
        let waiting = self.snapshot.pool(name).map(|pool| pool.waiting.values()).into_iter().flatten();
        let waiting: Vec<Arc<Claim>> = waiting.filter_map(|id| self.claim(id)).cloned().collect();
        self.note_overtaking(name, policy.overtaking);
        let Some(pool) = self.pool_mut(name) else { return };
        pool.set_policy(policy, waiting.iter().map(AsRef::as_ref));
        self.dirty.pools.insert(name.clone());
        self.to_dispatch.insert(name.clone());
        self.change_edges_of(name);
    }

    /// Locks or rules of this pool have changed, so its waiters may wait for other claims than before.
    fn change_edges_of(&mut self, pool: &PoolName) {
        if self.queued.contains(pool) {
            self.change_edges();
        }
    }

    fn note_overtaking(&mut self, name: &PoolName, overtaking: Overtaking) {
        match overtaking {
            Overtaking::Strict => self.backfilling.remove(name),
            Overtaking::Backfill(_) => self.backfilling.insert(name.clone()),
        };
    }

    /// Locks of this pool were added or removed. Claims that wait for them and also for locks of another pool may now
    /// be passed there, or may no longer be passed.
    fn dispatch_tied(&mut self, pool: &PoolName) {
        let wide = self.snapshot.pool(pool).map(|pool| &pool.wide).filter(|_| !self.backfilling.is_empty());
        let wide = wide.into_iter().flatten().filter_map(|id| self.claim(id));
        let others = wide.flat_map(|claim| &claim.terms.ask.parts).map(|part| &part.pool);
        let tied: BTreeSet<&PoolName> =
            others.filter(|name| *name != pool && self.backfilling.contains(*name)).collect();
        let tied: Vec<PoolName> = tied.into_iter().cloned().collect();
        self.to_dispatch.extend(tied);
    }

    /// Locks of this pool were changed, added or removed. A claim that waits for what the pool no longer has does not
    /// hold back others any more, also not in its other pools.
    fn dispatch_lacking(&mut self, pool: &PoolName) {
        let Some(pool) = self.snapshot.pool(pool).filter(|pool| !pool.wide.is_empty()) else { return };
        let may_lack =
            |claim: &&Arc<Claim>| pool.policy.when_empty == Some(WhenEmpty::Wait) || claim.terms.waits_if_empty;
        let wide = pool.wide.iter().filter_map(|id| self.claim(id)).filter(may_lack);
        let pools: BTreeSet<PoolName> =
            wide.flat_map(|claim| &claim.terms.ask.parts).map(|part| part.pool.clone()).collect();
        self.to_dispatch.extend(pools);
    }

    pub(in crate::core) fn remove_pool(&mut self, name: &PoolName) {
        let Some(pool) = self.snapshot.pools.remove(name) else { return };
        self.backfilling.remove(name);
        self.forget_history(&pool);
        self.dirty.pools.insert(name.clone());
        for (lock, old) in &pool.locks {
            self.dirty.locks.insert((name.clone(), lock.clone()));
            timers_of(name, old).for_each(|(deadline, timer)| self.unset_timer(deadline.at, timer));
        }
    }

    /// Stores a lock, new or changed. The next dispatch finds the claims that can now be served or passed.
    pub(in crate::core) fn put_lock(&mut self, pool: &PoolName, lock: Lock) {
        self.dirty.locks.insert((pool.clone(), lock.name.clone()));
        self.to_dispatch.insert(pool.clone());
        self.unset_timers_of(pool, &lock.name);
        timers_of(pool, &lock).for_each(|(deadline, timer)| self.set_timer(deadline, timer));
        self.change_edges_of(pool);
        let newest = self.snapshot.lock(pool, &lock.name).and_then(|old| old.newest);
        self.histories.change_newest(pool, newest, lock.newest);
        if let Some(p) = self.pool_mut(pool) {
            p.put_lock(lock);
        }
        self.dispatch_tied(pool);
        self.dispatch_lacking(pool);
    }

    /// A deadline that counts no longer must not end a later one before its turn.
    fn unset_timers_of(&mut self, pool: &PoolName, lock: &LockName) {
        let Some(old) = self.snapshot.lock(pool, lock).cloned() else { return };
        timers_of(pool, &old).for_each(|(deadline, timer)| self.unset_timer(deadline.at, timer));
    }

    pub(in crate::core) fn remove_lock(&mut self, pool: &PoolName, lock: &LockName, now: Now) {
        self.dirty.locks.insert((pool.clone(), lock.clone()));
        // The removed lock may have been the only one that an earlier and a later waiter both wanted.
        self.to_dispatch.insert(pool.clone());
        self.change_edges_of(pool);
        self.unset_timers_of(pool, lock);
        let newest = self.pool_mut(pool).and_then(|p| p.take_lock(lock)).and_then(|l| l.newest);
        self.histories.change_newest(pool, newest, None);
        if let Some(key) = newest {
            self.prune_after(pool, key, now);
        }
        self.dispatch_tied(pool);
        self.dispatch_lacking(pool);
    }

    /// Changes who holds a lock. The store need not know this.
    pub(in crate::core) fn change_holders(
        &mut self,
        pool: &PoolName,
        lock: &LockName,
        change: impl FnOnce(&mut Vec<Holder>),
    ) {
        if let Some(p) = self.pool_mut(pool) {
            p.change_holders(lock, change);
        }
        self.dispatch_tied(pool);
    }
}

/// When something happens to this lock by itself, and what.
fn timers_of(pool: &PoolName, lock: &Lock) -> impl Iterator<Item = (Deadline, Timer)> {
    let quarantine = lock.quarantine.as_ref().and_then(|quarantine| quarantine.until);
    let drain = lock.drain.map(|at| (at, Timer::Drain(pool.clone(), lock.name.clone())));
    let quarantine = quarantine.map(|at| (at, Timer::Quarantine(pool.clone(), lock.name.clone())));
    drain.into_iter().chain(quarantine)
}
