//! The life of latches: made, released, deleted or forgotten.

use std::sync::Arc;

use crate::core::command::{Refusal, Reply, check_limit};
use crate::core::history::ChangeKind;
use crate::core::latch::{Binding, Ending, Latch, LatchId, NewLatch, Released, Target};
use crate::core::limits;
use crate::core::state::{Notice, State};
use crate::core::time::{Deadline, Now};

fn existing(state: &State, id: LatchId) -> Result<Arc<Latch>, Refusal> {
    state.snapshot.latches.get(&id).cloned().ok_or(Refusal::NoSuchLatch { id })
}

/// Makes a latch. A repeat of the same request, even after the release, returns the latch as it is.
pub(super) fn create(state: &mut State, new: NewLatch, now: Now) -> Result<Reply, Refusal> {
    if let Some(old) = state.snapshot.latches.get(&new.id) {
        let same_ending = old.released.is_some() || old.ending == new.ending;
        let Target { node, workflow_uid, .. } = old.target.clone();
        let bound = new.target.bound(&Binding { node, workflow_uid });
        let is_bound = old.released.is_some() && bound.as_ref() == Some(&old.target);
        let same = (old.target == new.target || is_bound) && same_ending;
        return if same { Ok(Reply::Latch(Arc::clone(old))) } else { Err(Refusal::LatchExists { id: new.id }) };
    }
    check_limit("latches", state.snapshot.latches.len(), limits::LATCHES)?;
    let latch = Latch::restored(new, now.wall, now.wall, None);
    state.record_latch(ChangeKind::LatchCreated, latch.reference(), None, now);
    state.put_latch(latch.clone());
    Ok(Reply::Latch(Arc::new(latch)))
}

/// Releases a latch. A repeat is harmless. A repeat with another ending is refused, because a client may have acted on
/// the first. A binding may come with the first release or later.
pub(super) fn release(
    state: &mut State,
    id: LatchId,
    ending: Option<Ending>,
    binding: &Binding,
    now: Now,
) -> Result<Reply, Refusal> {
    let old = existing(state, id)?;
    let target = old.target.bound(binding).ok_or(Refusal::LatchReleased { id })?;
    if old.released.is_some() {
        if ending.is_some_and(|ending| ending != old.ending) {
            return Err(Refusal::LatchReleased { id });
        }
        if target == old.target {
            return Ok(Reply::Latch(old));
        }
        // No client waits for this change, so the release keeps its revision.
        let latch = Latch { target, ..Latch::clone(&old) };
        state.put_latch(latch.clone());
        return Ok(Reply::Latch(Arc::new(latch)));
    }
    let ending = ending.unwrap_or_else(|| old.ending.clone());
    let reason = match &ending {
        Ending::Fail(message) => Some(message.clone()),
        Ending::Succeed(_) => None,
    };
    let key = state.record_latch(ChangeKind::LatchReleased, old.reference(), reason, now);
    let forget = Deadline::after(now, state.settings.latch_kept);
    // The wall clock may have been set back; a change is never shown before the creation.
    let last_change = now.wall.max(old.created);
    let released = Some(Released { revision: key.revision, forget });
    let latch = Latch { target, ending, last_change, released, ..Latch::clone(&old) };
    state.put_latch(latch.clone());
    state.notify(Notice::Latch(id));
    Ok(Reply::Latch(Arc::new(latch)))
}

/// Deletes a latch, released or not.
pub(super) fn delete(state: &mut State, id: LatchId, now: Now) -> Result<Reply, Refusal> {
    let old = existing(state, id)?;
    remove(state, &old, ChangeKind::LatchDeleted, now);
    Ok(Reply::Latch(old))
}

/// Forgets a released latch that nobody has deleted in time.
pub(super) fn expire(state: &mut State, id: LatchId, now: Now) {
    let Ok(old) = existing(state, id) else { return };
    if old.released.is_some_and(|r| r.forget.is_over(now)) {
        state.begin_step();
        remove(state, &old, ChangeKind::LatchExpired, now);
    }
}

fn remove(state: &mut State, latch: &Latch, kind: ChangeKind, now: Now) {
    state.record_latch(kind, latch.reference(), None, now);
    state.remove_latch(latch.id);
    state.notify(Notice::Latch(latch.id));
}

#[cfg(test)]
mod tests;
