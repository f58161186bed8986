//! Finds stuck claims: keeps [`super::state::Snapshot::stuck`] up to date, and makes sure that their clients learn of
//! it.
//!
//! - `search`: finds them.
//! - `waits_for`: whether a claim waits for a build, so that no cycle is closed.

pub(super) mod search;
pub(super) mod waits_for;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::core::history::ChangeKind;
use crate::core::names::{ClaimId, Reason, Text};
use crate::core::state::Stuck;
use crate::core::state::{Entry, Notice, State, Timer};
use crate::core::time::Now;

/// Whether the claim's state (stuck, and how) differs from what its client was last told. If so, its request is
/// answered instead of parked. This happens once, because the answer updates what the client was told.
pub(super) fn is_news(state: &State, id: &ClaimId) -> bool {
    state.snapshot.stuck.get(id).map(|stuck| stuck.kind()) != state.watch.told.get(id).copied()
}

/// An answer about a waiting claim goes out, so its client now knows the state.
pub(super) fn told(state: &mut State, id: &ClaimId) {
    match state.snapshot.stuck.get(id).map(|stuck| stuck.kind()) {
        Some(kind) => state.watch.told.insert(id.clone(), kind),
        None => state.watch.told.remove(id),
    };
}

/// Searches for stuck claims if the result may have changed: at once, or a little later when the last search is recent.
/// Returns the claims whose state has changed, for [`report`]; `None` when there was no search.
pub(super) fn look(state: &mut State, now: Now) -> Option<Vec<ClaimId>> {
    if !state.watch.stale {
        return None;
    }
    let due = state.watch.last_look.map(|last| last.plus(state.settings.stuck_look));
    if let Some(due) = due.filter(|due| *due > now.engine) {
        state.timers.insert((due, Timer::Stuck));
        return None;
    }
    Some(look_now(state, now))
}

/// Tells the clients of these claims, and the history, what the last search has found.
pub(super) fn report(state: &mut State, changed: &[ClaimId], now: Now) {
    for id in changed {
        notify(state, id);
        record(state, id, now);
    }
}

/// Brings `Snapshot::stuck` up to date. Returns the claims whose state has changed.
pub(super) fn look_now(state: &mut State, now: Now) -> Vec<ClaimId> {
    state.watch.stale = false;
    if state.entangled.is_empty() && state.snapshot.stuck.is_empty() {
        return Vec::new();
    }
    state.watch.last_look = Some(now.engine);
    let found = search::stuck_claims(&state.snapshot, state.entangled.builds());
    let before = std::mem::take(&mut state.snapshot.stuck);
    let is_changed = |id: &&ClaimId| before.get(*id).map(|s| s.kind()) != found.get(*id).map(Stuck::kind);
    let ids: BTreeSet<&ClaimId> = before.keys().chain(found.keys()).collect();
    let changed = ids.into_iter().filter(is_changed).cloned().collect();
    state.snapshot.stuck = found.into_iter().map(|(id, stuck)| (id, Arc::new(stuck))).collect();
    changed
}

/// Records in the history that a claim got stuck.
fn record(state: &mut State, id: &ClaimId, now: Now) {
    let (Some(stuck), Some(claim)) = (state.snapshot.stuck.get(id).cloned(), state.claim(id).cloned()) else { return };
    let (kind, reason) = match &*stuck {
        Stuck::SelfWait { own } => {
            let claims: BTreeSet<&str> = own.iter().map(|(_, _, claim)| claim.as_str()).collect();
            let claims: Vec<&str> = claims.into_iter().collect();
            (ChangeKind::SelfWait, format!("its own build has what it needs: claim {}", claims.join(", ")))
        }
        Stuck::Deadlock { builds } => {
            let builds: Vec<&str> = builds.iter().filter_map(|o| o.build_id.as_ref()).map(Text::as_str).collect();
            (ChangeKind::Deadlock, format!("builds wait for each other: {}", builds.join(", ")))
        }
    };
    // A step of its own: it is not part of anybody's request.
    state.begin_step();
    let entry = Entry { reason: Reason::parse(&reason).ok(), ..Entry::about(&claim, kind, None) };
    state.record(entry, now);
}

/// Repairs lost notices: notifies the parked requests of all claims whose clients do not know the state (once more).
pub(super) fn notify_again(state: &mut State) {
    let known = state.snapshot.stuck.keys().chain(state.watch.told.keys());
    let ids: BTreeSet<ClaimId> = known.filter(|id| is_news(state, id)).cloned().collect();
    ids.iter().for_each(|id| notify(state, id));
}

fn notify(state: &mut State, id: &ClaimId) {
    let parks = state.claim(id).map(|claim| claim.parks.clone()).unwrap_or_default();
    parks.into_iter().for_each(|park| state.notify(Notice::Park(park)));
}
