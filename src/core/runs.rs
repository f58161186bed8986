//! Which process acts for a claim (docs/design.md#runs).

use std::sync::Arc;

use super::claim::Claim;
use super::command::Refusal;
use super::limits;
use super::names::Run;
use super::settings::planted;
use super::state::State;

/// Refuses an earlier run, and a run beyond the limit.
pub(super) fn check(state: &State, claim: &Claim, run: Option<&Run>) -> Result<(), Refusal> {
    let Some(run) = run else { return Ok(()) };
    if claim.is_earlier_run(run) && !planted!(state.settings, EarlierRun) {
        return Err(Refusal::SupersededRun { id: claim.id.clone() });
    }
    if !claim.runs.contains(run) && claim.runs.len() >= limits::RUNS_PER_CLAIM {
        return Err(Refusal::TooManyRuns { id: claim.id.clone(), max: limits::RUNS_PER_CLAIM });
    }
    Ok(())
}

/// Remembers a new run of an accepted call, and the credential of the process that acts from now on.
pub(super) fn note(state: &mut State, claim: &Claim, run: Option<&Run>) {
    if let Some(run) = run.filter(|run| !claim.runs.contains(run)) {
        let credential = state.origin().and_then(|origin| origin.credential);
        state.update_claim(&claim.id, |c| {
            c.runs.push(run.clone());
            if let (Some(origin), Some(credential)) = (&mut c.origin, credential) {
                Arc::make_mut(origin).credential = Some(credential);
            }
        });
    }
}
