//! What happens by itself at a deadline (docs/design.md#time). Never early.

use super::by_hand;
use super::claim::{Claim, End, Phase, Presence, Scope};
use super::claims;
use super::command::By;
use super::deadlock;
use super::history::ChangeKind;
use super::latches;
use super::limits;
use super::marks;
use super::names::{ClaimId, LockName, PoolName, Reason};
use super::pool::Lock;
use super::pools;
use super::state::{State, Timer};
use super::time::{Deadline, Now};

/// Does everything that is due at `now`, oldest first.
pub(super) fn expire(state: &mut State, now: Now) {
    state.forget_due(now);
    while let Some((at, timer)) = state.timers.first().cloned() {
        if at > now.engine {
            return;
        }
        state.unset_timer(at, timer.clone());
        match timer {
            Timer::Claim(id) => expire_claim(state, &id, now),
            Timer::Drain(pool, lock) => end_drain(state, &pool, &lock, now),
            Timer::Quarantine(pool, lock) => by_hand::end_quarantine(state, &pool, &lock, now),
            Timer::Op(op) => state.forget_op(&op),
            // The step ends with that search.
            Timer::Stuck => {}
            Timer::Latch(id) => latches::expire(state, id, now),
            Timer::Unanswered(build) => marks::give_up(state, build, now),
        }
    }
}

fn expire_claim(state: &mut State, id: &ClaimId, now: Now) {
    let Some(claim) = state.claim(id).cloned() else { return };
    state.begin_step();
    let how = match &claim.phase {
        Phase::Waiting { give_up: Some(give_up), .. } if give_up.is_over(now) => End::GaveUp,
        Phase::Waiting { presence: Presence::Away(_), .. } => End::ListenerLost,
        Phase::Waiting { .. } => {
            let away = Presence::Away(Deadline::after(now, state.settings.place));
            return claims::set_presence(state, &claim, away);
        }
        Phase::Granted { .. } => return claims::withdraw(state, &claim, now),
        Phase::Held { limit, .. } => return lose(state, &claim, *limit, now),
    };
    claims::finish(state, &claim, how, None, None, now);
}

/// Ends a hold whose time is over.
fn lose(state: &mut State, claim: &Claim, limit: Option<Deadline>, now: Now) {
    let (how, why) = match claim.scope {
        _ if limit.is_some_and(|limit| limit.is_over(now)) => (End::Lost, "the max_hold of its pool is over"),
        Scope::Lease => (End::LeaseLost, "it was not renewed within its ttl"),
        Scope::Flow | Scope::Person | Scope::Build => (End::Lost, "its ttl is over"),
    };
    claims::finish(state, claim, how, None, Reason::parse(why).ok(), now);
}

fn end_drain(state: &mut State, pool: &PoolName, lock: &LockName, now: Now) {
    let Some(old) = state.snapshot.lock(pool, lock).cloned() else { return };
    if old.drain.is_some_and(|d| d.is_over(now)) {
        let lock = Lock { drain: None, ..old };
        if lock.has_left() {
            state.begin_step();
            pools::record(state, ChangeKind::Removed, pool, std::slice::from_ref(&lock.name), &By::default(), now);
            state.remove_lock(pool, &lock.name, now);
        } else {
            state.put_lock(pool, lock);
        }
    }
}

/// Looks at some queues again, each call at the next ones, and repeats unclaimed notices, so that no lost wake-up stays
/// lost (I10).
pub(super) fn reconcile(state: &mut State, now: Now) {
    state.dispatch_next_queues();
    state.notify_stale_parks();
    deadlock::notify_again(state);
    state.prune(limits::PAGE, now);
    state.show_past_builds(now);
}
