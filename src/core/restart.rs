//! From the contents of a store back to a running state (docs/design.md#time).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::{Claim, Phase, Presence};
use super::deadlock;
use super::history::Outline;
use super::names::{ClaimId, Revision, Ticket};
use super::pool::{Holder, Pool};
use super::settings::{Settings, planted};
use super::state::{EndedIndex, EndedOutline, Loaded, Meta, State};
use super::time::{Deadline, EngineMs, Now, Span, WallMs};

/// The clock is so far ahead that later fences would exceed the integers that every JSON reader keeps exact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system clock says that it is the year {}: from 2089 on, every fence would be too large for JSON. Set the clock, then \
     start again; nothing was written",
    1970 + .0.0 / 31_556_952_000
)]
pub struct ClockAhead(pub WallMs);

/// Minutes since 2026-01-01: the smallest epoch that the clock allows, so that after an old backup is restored or the
/// store is emptied, no fence is given twice (docs/design.md#revisions-fences-and-epochs).
///
/// # Errors
/// Revisions of that epoch would reach 2^53.
pub fn epoch_by_clock(wall: WallMs) -> Result<u64, ClockAhead> {
    const START_OF_2026_MS: u64 = 1_767_225_600_000;
    let epoch = wall.0.saturating_sub(START_OF_2026_MS) / 60_000;
    if epoch >= Revision::EPOCHS { Err(ClockAhead(wall)) } else { Ok(epoch) }
}

/// The state of a server that starts at `now` with the contents of its store. Holds, queue order and claim ids are the
/// same, and short deadlines start again in full. Revisions continue above every earlier one and above the clock's
/// epoch ([`epoch_by_clock`]). The caller must commit [`State::take_changes`] before it answers anything.
#[must_use]
pub fn restarted(
    loaded: Loaded,
    ended: impl IntoIterator<Item = EndedOutline>,
    history: impl IntoIterator<Item = Outline>,
    settings: Settings,
    epoch_by_clock: u64,
    now: Now,
) -> State {
    let mut restart = Restart::begin(loaded, settings, epoch_by_clock, now);
    ended.into_iter().for_each(|claim| restart.ended.take(&claim));
    history.into_iter().for_each(|entry| restart.history.take(&entry));
    restart.finish()
}

/// A restart whose ended claims and history come one by one, because they may be larger than everything else
/// ([`restarted`]). The two have nothing in common, so that two threads may take them.
#[derive(Debug)]
pub struct Restart {
    pub ended: TakesEnded,
    pub history: TakesHistory,
    now: Now,
}

/// Takes ended claims.
#[derive(Debug)]
pub struct TakesEnded {
    index: EndedIndex,
    /// For how long claims are remembered whose builds are over.
    usual: Span,
}

impl TakesEnded {
    /// Takes an ended claim, in any order.
    pub fn take(&mut self, claim: &EndedOutline) {
        self.index.insert(claim, claim.forget.span > self.usual);
    }
}

/// Takes the history.
#[derive(Debug)]
pub struct TakesHistory {
    state: State,
}

impl TakesHistory {
    /// Takes the next entry; the oldest comes first.
    pub fn take(&mut self, entry: &Outline) {
        self.state.list_stored(entry);
    }
}

impl Restart {
    /// Takes everything but the ended claims and the history.
    #[must_use]
    pub fn begin(loaded: Loaded, settings: Settings, epoch_by_clock: u64, now: Now) -> Self {
        let mut state = State::new(settings);
        let meta = loaded.meta.unwrap_or(Meta {
            revision: Revision::default(),
            next_ticket: Ticket::FIRST,
            engine: EngineMs::default(),
            pruned: Revision::default(),
        });
        let by_clock = Revision::start_of(epoch_by_clock);
        let revision = if planted!(state.settings, FenceInMemory) { by_clock } else { by_clock.max(meta.revision) };
        state.set_counters(revision, meta.next_ticket);
        state.snapshot.history.pruned = meta.pruned;
        for (name, policy) in loaded.pools {
            // In which pools entries were pruned is not stored.
            let mut pool = Pool::new(name, policy);
            pool.pruned = meta.pruned;
            state.put_pool(pool);
        }
        for (pool, mut lock) in loaded.locks {
            lock.drain = lock.drain.map(|d| d.restarted(now));
            if let Some(quarantine) = &mut lock.quarantine {
                quarantine.until = quarantine.until.map(|until| until.restarted(now));
            }
            // Holders follow from the claims, and the newest entry from the history.
            lock.holders.clear();
            lock.newest = None;
            state.put_lock(&pool, lock);
        }
        let mut claims = loaded.claims;
        // Holders of a shared lock are listed in the order of their grants.
        claims.sort_by_key(Claim::fence);
        for claim in claims {
            let claim = revived(claim, &state.settings, now);
            hand_back_locks(&mut state, &claim);
            state.insert_claim(claim);
        }
        let marked: BTreeSet<_> = state.snapshot.marked.iter().map(|(build, _)| build.clone()).collect();
        marked.iter().for_each(|build| state.expect_answer(build, now));
        for concourse in loaded.reruns {
            state.set_reruns(concourse, true);
        }
        for op in loaded.ops {
            state.remember_op(op);
        }
        for token in loaded.tokens {
            state.put_token(Arc::new(token));
        }
        for latch in loaded.latches {
            state.put_latch(latch.restarted(now));
        }
        let ended = TakesEnded { index: state.begin_ended(), usual: state.settings.memory };
        Self { ended, history: TakesHistory { state }, now }
    }

    /// The state, once all ended claims and the whole history have been taken.
    #[must_use]
    pub fn finish(self) -> State {
        let Self { ended, history: TakesHistory { mut state }, now } = self;
        state.set_ended(ended.index);
        state.forget_too_many();
        state.end_of_history(now);
        forget_what_is_stored_already(&mut state, now);
        // Claims that are stuck now were stuck before, and the history says so already.
        deadlock::look_now(&mut state, now);
        // But waiters that listen again may be stuck because of a marked hold, which the next step gives back.
        state.watch.stale |= !state.snapshot.marked.is_empty();
        state
    }
}

/// A claim as the new life sees it: no client is connected yet, and every waiter counts as listening again in full.
fn revived(mut claim: Claim, settings: &Settings, now: Now) -> Claim {
    claim.parks = Vec::new();
    let restart = |deadline: &mut Option<Deadline>| *deadline = deadline.map(|d| d.restarted(now));
    match &mut claim.phase {
        Phase::Waiting { presence, give_up } => {
            *presence = Presence::Recent(Deadline::after(now, settings.listen));
            restart(give_up);
        }
        Phase::Granted { confirm_by, give_up, .. } => {
            *confirm_by = confirm_by.restarted(now);
            restart(give_up);
        }
        Phase::Held { until, limit, .. } => {
            restart(until);
            restart(limit);
        }
    }
    claim
}

fn hand_back_locks(state: &mut State, claim: &Claim) {
    let Some(fence) = claim.fence() else { return };
    let sharer = claim.terms.ask.sharer().map(|(key, who)| (key.clone(), who.clone()));
    for (pool, lock) in claim.locks() {
        let holder = Holder { claim: ClaimId::clone(&claim.id), fence, sharer: sharer.clone() };
        state.change_holders(pool, lock, |holders| holders.push(holder));
    }
}

/// Rebuilding has marked everything as touched, but only the new counters (and what the limits removed) need storing.
fn forget_what_is_stored_already(state: &mut State, now: Now) {
    let changes = state.take_changes(now);
    state.keep_deletions(changes);
    state.touch_meta();
    state.take_notices();
    let pools: Vec<_> = state.snapshot.pools.keys().cloned().collect();
    state.to_dispatch.extend(pools);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::{By, Command};
    use crate::core::names::PoolName;
    use crate::core::pool::Policy;
    use crate::core::step::step;
    use crate::core::test_store::TestStore;

    const MINUTE_OF_2026: u64 = 1_767_225_600_000 + 60_000;

    #[test]
    fn a_start_does_not_use_up_an_epoch() {
        let start = |revision| {
            let meta = Some(Meta { revision, next_ticket: Ticket::FIRST, engine: EngineMs(0), pruned: Revision(0) });
            let loaded = Loaded { meta, ..Loaded::default() };
            restarted(loaded, [], [], Settings::default(), 5, Now::default()).snapshot.revision
        };
        let stored = Revision(Revision::start_of(5).0 + 17);
        assert_eq!(start(stored), stored);
        assert_eq!(start(Revision::start_of(9)), Revision::start_of(9));
        assert_eq!(start(Revision::start_of(4)), Revision::start_of(5));
    }

    #[test]
    fn a_start_prunes_what_its_settings_no_longer_keep() {
        let pool = || PoolName::parse("p").unwrap();
        let mut state = restarted(Loaded::default(), [], [], Settings::default(), 1, Now::default());
        let note = || Command::Note { pool: pool(), lock: None, by: By::default() };
        let set = Command::SetPool { pool: pool(), policy: Policy::default(), capacity: Some(1), by: By::default() };
        for command in std::iter::once(set).chain((0..9).map(|_| note())) {
            step(&mut state, command, Now::default()).unwrap();
        }
        let mut store = TestStore::default();
        store.commit(&state.take_changes(Now::default()));
        assert_eq!(store.history().count(), 11);
        let settings = Settings { changes: 4, ..Settings::default() };
        let mut next = restarted(store.load(), store.ended(), store.history(), settings, 1, Now::default());
        assert_eq!(next.snapshot.pool(&pool()).unwrap().changes.len(), 4);
        store.commit(&next.take_changes(Now::default()));
        assert_eq!(store.history().count(), 4, "the store forgets them too");
        store.check_has_all_of(&next).unwrap();
    }

    #[test]
    fn a_clock_that_is_too_far_ahead_is_refused() {
        assert_eq!(epoch_by_clock(WallMs(0)), Ok(0));
        assert_eq!(epoch_by_clock(WallMs(MINUTE_OF_2026)), Ok(1));
        let last = 1_767_225_600_000 + (Revision::EPOCHS - 1) * 60_000;
        assert_eq!(epoch_by_clock(WallMs(last)), Ok(Revision::EPOCHS - 1));
        assert!(Revision::start_of(Revision::EPOCHS).0 == 1 << 53);
        for wall in [last + 60_000, 4_294_967_296_000, u64::MAX] {
            let refused = epoch_by_clock(WallMs(wall)).unwrap_err().to_string();
            assert!(refused.starts_with("the system clock says that it is the year "), "{refused}");
        }
        let refused = epoch_by_clock(WallMs(4_294_967_296_000)).unwrap_err().to_string();
        assert!(refused.contains("the year 2106"), "{refused}");
    }
}
