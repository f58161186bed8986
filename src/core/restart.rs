//! From what a store has kept back to a running state (docs/design.md#time).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::{Claim, Phase, Presence};
use super::deadlock;
use super::names::{ClaimId, Revision, Ticket};
use super::pool::{Holder, Pool};
use super::settings::{Settings, planted};
use super::state::{Loaded, Meta, State};
use super::time::{Deadline, EngineMs, Now};

/// The state of a server that starts at `now` on what its store has kept: same holds, same queue order, same claim ids;
/// short deadlines in full; a new epoch above every revision given. The first thing to do is to commit
/// [`State::take_changes`], before any answer.
#[must_use]
pub fn restarted(loaded: Loaded, settings: Settings, epoch_by_clock: u64, now: Now) -> State {
    let mut state = State::default();
    state.snapshot.seed = settings.seed;
    state.settings = settings;
    let meta = loaded.meta.unwrap_or(Meta {
        revision: Revision::default(),
        next_ticket: Ticket(1),
        engine: EngineMs::default(),
    });
    let epoch = epoch_by_clock.max(meta.revision.epoch() + 1);
    let epoch = if planted!(state.settings, FenceInMemory) { epoch_by_clock } else { epoch };
    let revision = Revision::start_of(epoch);
    state.set_counters(revision, meta.next_ticket);
    for (name, policy) in loaded.pools {
        state.put_pool(Pool::new(name, policy));
    }
    for (pool, mut lock) in loaded.locks {
        lock.drain = lock.drain.map(|d| d.restarted(now));
        if let Some(quarantine) = &mut lock.quarantine {
            quarantine.until = quarantine.until.map(|until| until.restarted(now));
        }
        // Holders follow from the claims, the newest entry from the history.
        lock.holders.clear();
        lock.newest = None;
        state.put_lock(&pool, lock);
    }
    let mut claims = loaded.claims;
    // Those who share a lock are listed in the order of their grants.
    claims.sort_by_key(Claim::fence);
    for claim in claims {
        let claim = revived(claim, &state.settings, now);
        hand_back_locks(&mut state, &claim);
        state.insert_claim(claim);
    }
    for ended in loaded.ended {
        state.remember_ended(ended);
    }
    for op in loaded.ops {
        state.remember_op(op);
    }
    for latch in loaded.latches {
        state.put_latch(latch.restarted(now));
    }
    let mut history = loaded.history;
    history.sort_by_key(|change| change.key);
    for change in history {
        state.add_change(&Arc::new(change));
    }
    // At the end: how much may stay depends on how much must.
    let pools: Vec<_> = state.snapshot.pools.keys().cloned().collect();
    pools.iter().for_each(|pool| state.prune(pool, now));
    forget_what_is_stored_already(&mut state, now);
    // Who is stuck was so before, and is in the history.
    deadlock::look_now(&mut state, now);
    state
}

/// A claim as the new life sees it: nobody is connected yet, and everybody who waits is listened for in full.
fn revived(mut claim: Claim, settings: &Settings, now: Now) -> Claim {
    claim.parks = BTreeSet::new();
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
        state.change_holders(pool, lock, |l| l.holders.push(holder));
    }
}

/// Rebuilding has marked everything as touched, but only the new counters (and what limits took away) are news.
fn forget_what_is_stored_already(state: &mut State, now: Now) {
    let changes = state.take_changes(now);
    state.keep_deletions(changes);
    state.touch_meta();
    state.take_notices();
    let pools: Vec<_> = state.snapshot.pools.keys().cloned().collect();
    state.to_dispatch.extend(pools);
}
