//! The only entry point: a command changes the state and gets an answer.

use std::sync::Arc;

use super::command::{Command, Refusal, Reply};
use super::names::ClaimId;
use super::ops::{self, once};
use super::origin::Origin;
use super::pool::Lock;
use super::state::State;
use super::time::Now;
use super::{admission, builds, by_hand, claims, deadlock, latches, marks, pools, queue, timers, tokens};

/// Executes one command at `now`. Everything that is due happens first, so a deadline that has passed counts as over
/// even before a sweep. Changes and notices collect in the state; the caller must not answer before it has committed
/// the changes.
///
/// # Errors
/// A refusal. What was due has happened even so.
///
/// # Panics
/// The caller has not recalled an ended claim that the command is about ([`State::to_recall`]): without it, a claim that
/// has ended would begin again.
pub fn step(state: &mut State, command: Command, now: Now) -> Result<Reply, Refusal> {
    step_for(state, command, None, now)
}

/// The same for a request, which the history notes as the origin of what is due to it.
///
/// # Errors
/// As [`step`].
///
/// # Panics
/// As [`step`].
pub fn step_for(state: &mut State, command: Command, origin: Option<Arc<Origin>>, now: Now) -> Result<Reply, Refusal> {
    assert!(state.to_recall(&command).is_empty(), "an ended claim was not recalled");
    timers::expire(state, now);
    queue::dispatch(state, now);
    state.begin_step();
    // Only the answer to a waiting client's own `PUT` counts as told; answers to others do not.
    let asks = matches!(command, Command::Ask(_));
    state.begin_request(origin, asking(&command));
    let reply = carry_out(state, command, now);
    state.end_request();
    queue::dispatch(state, now);
    look_for_stuck(state, now);
    if asks
        && let Ok(Reply::Claim { claim, parked: false }) = &reply
        && state.claim(&claim.id).is_some_and(|claim| claim.waits())
    {
        deadlock::told(state, &claim.id);
    }
    check_in_tests(state);
    reply
}

/// The claim that a command asks for or confirms.
fn asking(command: &Command) -> Option<ClaimId> {
    match command {
        Command::Ask(ask) => Some(ask.id.clone()),
        Command::Confirm { id, .. } | Command::Renew { id, .. } => Some(id.clone()),
        _ => None,
    }
}

/// Searches for stuck claims. Marked holds that keep claims stuck are given back first.
fn look_for_stuck(state: &mut State, now: Now) {
    let Some(mut changed) = deadlock::look(state, now) else { return };
    while marks::untangle(state, now) {
        queue::dispatch(state, now);
        changed.extend(deadlock::look_now(state, now));
    }
    deadlock::report(state, &changed, now);
}

/// Debug builds check the whole of a small state after each step. Planted bugs are exempt: the test suites must find
/// them.
#[cfg(debug_assertions)]
fn check_in_tests(state: &State) {
    #[cfg(any(test, feature = "plant"))]
    if state.settings.plant != super::settings::Plant::None {
        return;
    }
    let checked = super::invariants::check_if_small(state);
    assert!(checked.is_ok(), "{checked:?}");
}

/// A released program checks only what a step touches.
#[cfg(not(debug_assertions))]
fn check_in_tests(_: &State) {}

/// Executes the command itself.
fn carry_out(state: &mut State, command: Command, now: Now) -> Result<Reply, Refusal> {
    let asked = ops::asked(&command);
    match marks::under_its_own_id(state, command) {
        Command::Ask(ask) => admission::ask(state, *ask, now),
        Command::Confirm { id, run, fence } => claims::confirm(state, &id, run.as_ref(), fence, now),
        Command::Renew { id, run, fence } => claims::renew(state, &id, run.as_ref(), fence, now),
        Command::Delivered { id, revision, build } => claims::deliver(state, &id, revision, build.as_ref()),
        Command::BuildOver { build, how, at } => {
            builds::over(state, &build, how, at, now);
            Ok(Reply::Nothing)
        }
        Command::BuildFound { id, build_id } => {
            builds::found(state, &id, build_id);
            Ok(Reply::Nothing)
        }
        Command::Suspect { build, why } => {
            builds::suspect(state, build, why, now);
            Ok(Reply::Nothing)
        }
        Command::End { id, run: Some(_), .. } if state.snapshot.aliases.contains_key(&id) => marks::keep(state, &id),
        Command::End { id, run, by, reason } => {
            let id = state.snapshot.aliases.get(&id).cloned().unwrap_or(id);
            claims::end(state, &id, run, by, reason, now)
        }
        Command::Release { id, build, by, may_mark } => marks::release(state, &id, build.as_ref(), by, may_mark, now),
        Command::Alive { build } => {
            marks::alive(state, &build, now);
            Ok(Reply::Nothing)
        }
        Command::Reruns { concourse, on } => {
            state.set_reruns(concourse, on);
            Ok(Reply::Nothing)
        }
        Command::Cancel { id, by, reason } => by_hand::cancel(state, &id, by, reason, now),
        Command::Break { id, drains, by, reason } => by_hand::break_claim(state, &id, drains, by, reason, now),
        Command::Move { id, to, by } => {
            once(state, &by, asked, now, |state| by_hand::move_claim(state, &id, &to, &by, now))
        }
        Command::Quarantine { pool, lock, span, by } => {
            once(state, &by, asked, now, |state| by_hand::quarantine(state, &pool, &lock, span, &by, now))
        }
        Command::Return { pool, lock, by } => {
            once(state, &by, asked, now, |state| by_hand::put_back(state, &pool, &lock, &by, now))
        }
        Command::Left { park } => {
            claims::left(state, park, now);
            Ok(Reply::Nothing)
        }
        Command::SetPool { pool, policy, capacity, by } => {
            once(state, &by, asked, now, |state| pools::set_pool(state, &pool, policy, capacity, &by, now))
        }
        Command::ChangePool { pool, change, capacity, by } => {
            once(state, &by, asked, now, |state| pools::change_pool(state, &pool, &change, capacity, &by, now))
        }
        Command::RemovePool { pool, by } => {
            once(state, &by, asked, now, |state| pools::remove_pool(state, &pool, &by, now))
        }
        Command::AddLock { pool, lock, metadata, labels, claim, by } => {
            let lock = Lock::new(lock, metadata, labels);
            once(state, &by, asked, now, |state| pools::add_lock(state, &pool, lock, claim.as_deref(), &by, now))
        }
        Command::UpdateLock { pool, lock, metadata, labels, if_free, by } => {
            let changes = pools::LockChanges { metadata, labels, if_free };
            once(state, &by, asked, now, |state| pools::update_lock(state, &pool, &lock, changes, &by, now))
        }
        Command::RemoveLock { pool, lock, claim, by } => {
            once(state, &by, asked, now, |state| pools::remove_lock(state, &pool, &lock, claim.as_ref(), &by, now))
        }
        Command::MoveLock { pool, lock, to, claim, metadata, labels, by } => {
            let changes = pools::LockChanges { metadata, labels, if_free: false };
            let claim = claim.as_ref();
            once(state, &by, asked, now, |state| pools::move_lock(state, (&pool, &lock), &to, claim, changes, &by, now))
        }
        Command::Note { pool, lock, by } => {
            once(state, &by, asked, now, |state| pools::note(state, &pool, lock, &by, now))
        }
        Command::CreateLatch(new) => latches::create(state, *new, now),
        Command::ReleaseLatch { id, ending, binding } => latches::release(state, id, ending, &binding, now),
        Command::DeleteLatch { id } => latches::delete(state, id, now),
        Command::CreateToken { name, hash, expires } => tokens::create(state, name, hash, expires, now),
        Command::RevokeToken { name } => tokens::revoke(state, name, now),
        Command::TokenUsed { hash } => Ok(tokens::used(state, hash, now)),
        Command::Tick => Ok(Reply::Nothing),
        Command::Reconcile => {
            timers::reconcile(state, now);
            Ok(Reply::Nothing)
        }
    }
}
