//! `check`: the versions of this pool (`docs/design.md#versions`).
//!
//! Without a version: the newest one. With a version: it and every later one, oldest first. With a version that this
//! pool does not know: the newest one. If the pool has no changes or does not exist: `[]`. `check` never looks at
//! `BUILD_*`, because pipelines share check containers.

use super::session::Opening;
use super::{Failure, interruptible, print, read_payload, told};
use crate::client::calls::Changes;
use crate::client::{CallError, Client};
use crate::env::Env;
use crate::wire::api::{ChangeKind, ChangeView};
use crate::wire::concourse::{CheckRequest, Version};
use crate::wire::errors::Code;

/// Runs `check`.
pub fn check(env: &mut Env<'_>) -> u8 {
    match run(env) {
        Ok(()) => 0,
        Err(failure) => failure.report(env),
    }
}

fn run(env: &mut Env<'_>) -> Result<(), Failure> {
    let payload = read_payload(env)?;
    let request = CheckRequest::parse(&payload).map_err(|error| error.to_string())?;
    let opening = Opening::of(&request.source, None, env)?;
    let (version, events) = (request.version, request.source.events);
    let revisions = interruptible(env, move || {
        let session = opening.resolve()?;
        match list(&session.client, session.pool.as_str(), version.as_deref(), events.as_deref()) {
            Err(error) if error.code() == Some(Code::NoSuchPool) => Ok(Vec::new()),
            other => other.map_err(|error| told(&error)),
        }
    })?;
    let versions: Vec<Version> = revisions.iter().map(|r| Version { revision: r.to_string() }).collect();
    Ok(print(env, &versions)?)
}

/// The revisions, oldest first and without duplicates. The given one is always listed, whatever its kind, so that
/// Concourse sees that it exists.
fn list(
    client: &Client,
    pool: &str,
    version: Option<&str>,
    events: Option<&[ChangeKind]>,
) -> Result<Vec<u64>, CallError> {
    let wants = |change: &ChangeView| events.is_none_or(|events| events.contains(&change.kind));
    // A version of another resource type (a Git commit, say) is unknown here.
    if let Some(known) = version.and_then(|version| version.parse::<u64>().ok()) {
        let changes = client.changes_from(pool, known)?;
        if changes.first().is_some_and(|first| first.revision == known) {
            return Ok(revisions(&changes, |change| change.revision == known || wants(change)));
        }
    }
    let newest = match events {
        None => client.changes(pool, Changes::Newest)?.items,
        Some(_) => client.all_changes(pool)?,
    };
    Ok(revisions(&newest, wants).last().copied().into_iter().collect())
}

fn revisions(changes: &[ChangeView], wants: impl Fn(&ChangeView) -> bool) -> Vec<u64> {
    let mut revisions: Vec<u64> = changes.iter().filter(|change| wants(change)).map(|change| change.revision).collect();
    revisions.dedup();
    revisions
}
