//! Holds of this build that were broken or lost: a step that releases tells them, because the work before it may have run
//! without its locks.

use super::persist::Persist;
use super::put::{Put, Stop};
use super::say;
use crate::client::when;
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::api::{ChangeKind, ChangeView, ClaimView};
use crate::wire::concourse::{Answer, LogLevel};
use crate::wire::errors::Code;

/// Tells which holds of this build in the pool were broken or lost: who did it, when and why. With `on_lost: fail` such
/// a step fails, after it has released what is left.
pub(super) fn told(put: &Put<'_>, released: Result<Answer, Stop>, env: &mut Env<'_>) -> Result<Answer, Stop> {
    if matches!(released, Err(Stop::Signalled(..))) || !put.client().has_met() {
        return released;
    }
    let (Some(cluster), Some(build)) = (put.owner.cluster.clone(), put.owner.build_id.clone()) else { return released };
    let mut persist = Persist::of(put, env)?;
    let pool = put.pool().to_owned();
    let changes = persist.call(put, env, move |client| match client.changes_of_build(&pool, (&cluster, &build)) {
        // The pool does not exist, or the server is older than this question.
        Err(error) if matches!(error.code(), Some(Code::NoSuchPool | Code::BadRequest)) => Ok(Vec::new()),
        other => other,
    });
    // What was released is more important than what can be said about it.
    let Ok(changes) = changes else { return released };
    for change in changes.iter().filter(|change| is_by_hand(change)) {
        let by = change.owner.person.as_deref();
        let rest = ended(by, Some(&change.at), change.reason.as_deref(), put.now());
        put.tell(env, format!("the hold of this build on {} was released by hand{rest}", locks(change)));
    }
    let lost: Vec<ChangeView> = changes.into_iter().filter(|change| is_lost(change.kind)).collect();
    for change in &lost {
        let line = line(put, &mut persist, change, env);
        if put.source.log_level >= LogLevel::Warn {
            say(env.stderr, line);
        }
    }
    match (released, lost.len()) {
        (Ok(_), 1..) if put.fails_on_lost => Err(Stop::Failed(
            "on_lost: fail: this build lost a lock while it worked; what it still had was released".to_owned(),
        )),
        (released, _) => released,
    }
}

fn is_lost(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::Lost | ChangeKind::Broken)
}

/// Whether a person released it. That may also be a task of the build itself, so it fails nothing.
fn is_by_hand(change: &ChangeView) -> bool {
    change.kind == ChangeKind::Released && change.owner.person.is_some() && change.owner.build_id.is_none()
}

fn locks(change: &ChangeView) -> String {
    let locks: Vec<String> = change.locks.iter().map(|l| format!("{:?} of pool {:?}", l.lock, l.pool)).collect();
    locks.join(", ")
}

fn line(put: &Put<'_>, persist: &mut Persist, change: &ChangeView, env: &mut Env<'_>) -> String {
    let id = change.claim.clone().unwrap_or_default();
    // The claim knows who ended it, unless it has begun a new life or is forgotten.
    let claim = persist.call(put, env, move |client| client.get_claim(&id)).ok();
    let claim = claim.filter(|claim| claim.ended_at.as_deref() == Some(&change.at));
    let by = claim.as_ref().and_then(|claim| claim.by.clone());
    let what = if change.kind == ChangeKind::Broken { "was broken" } else { "was lost" };
    let how = change.how.as_deref().filter(|how| !matches!(*how, "broken" | "lost"));
    let how = how.map(|how| format!(" ({how})")).unwrap_or_default();
    let rest = ended(by.as_deref(), Some(&change.at), change.reason.as_deref(), put.now());
    format!("LOST: the hold of this build on {} {what}{how}{rest}: later work ran without it", locks(change))
}

/// By whom, when and why something ended.
fn ended(by: Option<&str>, at: Option<&str>, why: Option<&str>, now: WallMs) -> String {
    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
    let at = at.map(|at| format!(" at {}", when::time(at, now))).unwrap_or_default();
    let why = why.map(|why| format!(", because {why:?}")).unwrap_or_default();
    format!("{by}{at}{why}")
}

/// How, by whom, when and why an ended claim ended.
pub(super) fn how(claim: &ClaimView, now: WallMs) -> String {
    let how = claim.how.as_deref().unwrap_or("ended");
    let rest = ended(claim.by.as_deref(), claim.ended_at.as_deref(), claim.reason.as_deref(), now);
    format!("{how}{rest}")
}
