//! `check`: the versions of this pool (`docs/design.md#versions`).
//!
//! Without a version: the newest. With one: it and every later one, oldest first. With one that this pool does not
//! know: the newest. A pool without any change, or no pool at all: `[]`. It never looks at `BUILD_*`, because pipelines share
//! check containers.

use super::session::Opening;
use super::{Failure, interruptible, print, read_payload, told};
use crate::client::calls::Changes;
use crate::client::{CallError, Client};
use crate::env::Env;
use crate::wire::api::ChangeView;
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
    let version = request.version;
    let revisions = interruptible(env, move || {
        let session = opening.resolve()?;
        match list(&session.client, session.pool.as_str(), version.as_deref()) {
            Err(error) if error.code() == Some(Code::NoSuchPool) => Ok(Vec::new()),
            other => other.map_err(|error| told(&error)),
        }
    })?;
    let versions: Vec<Version> = revisions.iter().map(|r| Version { revision: r.to_string() }).collect();
    Ok(print(env, &versions)?)
}

/// Revisions, oldest first, each once.
fn list(client: &Client, pool: &str, version: Option<&str>) -> Result<Vec<u64>, CallError> {
    // Another type's version (a git commit, say) is unknown here.
    let Some(known) = version.and_then(|version| version.parse::<u64>().ok()) else {
        return newest(client, pool);
    };
    let changes = client.changes_from(pool, known)?;
    if changes.first().is_none_or(|first| first.revision != known) {
        return newest(client, pool);
    }
    Ok(revisions(&changes))
}

fn newest(client: &Client, pool: &str) -> Result<Vec<u64>, CallError> {
    let page = client.changes(pool, Changes::Newest)?;
    Ok(revisions(&page.items).last().copied().into_iter().collect())
}

fn revisions(changes: &[ChangeView]) -> Vec<u64> {
    let mut revisions: Vec<u64> = changes.iter().map(|change| change.revision).collect();
    revisions.dedup();
    revisions
}
