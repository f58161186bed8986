//! Operations that have an id are done once: whoever repeats one gets the answer that he missed.

use super::command::{By, Refusal, Reply};
use super::state::{OpRecord, State};
use super::time::{Deadline, Now};

/// Makes a change unless the same operation has made it before, and remembers its answer under the operation's id.
///
/// # Errors
/// The refusal of the change, which is not remembered.
pub(super) fn once(
    state: &mut State,
    by: &By,
    now: Now,
    change: impl FnOnce(&mut State) -> Result<(), Refusal>,
) -> Result<Reply, Refusal> {
    if let Some(before) = by.op.as_ref().and_then(|op| state.ops.get(op)) {
        return Ok(Reply::Done { revision: before.revision });
    }
    change(state)?;
    let revision = state.snapshot.revision;
    if let Some(op) = &by.op {
        state.make_room_for_op();
        let forget = Deadline::after(now, state.settings.memory);
        state.remember_op(OpRecord { op: op.clone(), revision, forget });
    }
    Ok(Reply::Done { revision })
}
