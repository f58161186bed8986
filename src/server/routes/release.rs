//! Releases by steps of builds, which may have to keep the hold for a second run of the build (docs/decisions/0023).

use std::sync::Arc;

use super::super::http::Response;
use super::super::views;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::claim::{BuildRef, Claim, Owner};
use crate::core::command::{Command, Reply};
use crate::core::names::ClaimId;
use crate::wire::api::{ClaimView, ReleaseBody, ReleaseView};
use crate::wire::parse;

/// `POST /api/v1/claims/{id}/release`.
pub(super) async fn release(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let id = call.path::<ClaimId>("id", &mut problems);
    let body = call.body::<ReleaseBody>(&mut problems).unwrap_or_default();
    let owner = parse::owner("owner", &body.owner, &mut problems);
    let id = problems.done(id)?;
    let build = owner.build();
    let reruns = build.as_ref().is_some_and(|build| may_run_again(routes, build));
    let by = (owner != Owner::default()).then(|| Arc::new(owner));
    let command = Command::Release { id, build, by, may_mark: reruns };
    let (claim, revision) = match routes.call_engine(call, command).await? {
        Reply::Marked { claim, revision } => {
            routes.builds.wake();
            (routes.look(call, |viewer| viewer.claim(&claim, false)), Some(revision.0))
        }
        Reply::Ended { ended, again } => {
            let claim = ClaimView { again, ..views::ended(&ended) };
            (claim, ended.revision.map(|revision| revision.0))
        }
        other => return Err(Failure::unexpected(&other)),
    };
    Ok(json(&ReleaseView { claim, revision, reruns }))
}

/// Whether the Concourse of this build is watched and runs builds again in place.
fn may_run_again(routes: &Routes, build: &BuildRef) -> bool {
    routes.builds.runs_again(build, &routes.engine.snapshot())
}

/// Whether the build of a claim may run again while it has another claim for the same: without a name of its own, the
/// second run may then get the hold of the other one.
pub(super) fn is_alike(routes: &Routes, claim: &Claim) -> bool {
    let Some(build) = claim.terms.owner.build().filter(|build| may_run_again(routes, build)) else { return false };
    let snapshot = routes.engine.snapshot();
    snapshot.claims_of(&build).any(|other| other.id != claim.id && other.terms.digest == claim.terms.digest)
}
