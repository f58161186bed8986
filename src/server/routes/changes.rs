//! History: pages, long polls, single revisions, notes (`docs/design.md#history`).

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::super::http::Response;
use super::super::long_polls::Topic;
use super::super::views;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::command::{Command, Refusal};
use crate::core::history::Change;
use crate::core::limits;
use crate::core::names::{ChangeKey, LockName, PoolName, Revision};
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::wire::api::{ChangeView, NoteBody, Page};
use crate::wire::errors::Code;
use crate::wire::parse;
use crate::wire::problems::Problems;

type Entries = OrdMap<ChangeKey, Arc<Change>>;

/// The entries of a history that a request asks for.
struct Wanted {
    start: Bound<ChangeKey>,
    /// Always include the entries of this revision, whatever their kind.
    given: Option<Revision>,
    /// Only the entries that `check` lists.
    versions: bool,
    /// Only the newest of them.
    newest: bool,
    limit: usize,
}

impl Wanted {
    fn of(call: &Call, problems: &mut Problems) -> Self {
        let after = call.query::<u64>("after", problems).map(Revision);
        let from = call.query::<u64>("from", problems).map(Revision);
        if after.is_some() && from.is_some() {
            problems.add("from", "cannot be combined with `after`");
        }
        let first = |revision| ChangeKey { revision, seq: 0 };
        let last = |revision| ChangeKey { revision, seq: u32::MAX };
        let start = match (after, from) {
            (Some(after), _) => Bound::Excluded(last(after)),
            (None, Some(from)) => Bound::Included(first(from)),
            (None, None) => Bound::Unbounded,
        };
        let (versions, newest) = (call.flag("versions", problems), call.flag("newest", problems));
        Self { start, given: from, versions, newest, limit: call.limit(problems) }
    }

    fn wants(&self, change: &Change) -> bool {
        !self.versions || change.kind.is_version() || self.given == Some(change.key.revision)
    }

    /// One page, oldest entry first. The entries of one revision are never split, so a page may be longer than its
    /// limit. Only a bounded number of entries is read, so a page may be shorter although more follow. Only `next`
    /// tells whether more follow.
    fn page(&self, entries: &Entries) -> Page<ChangeView> {
        let range = || entries.range((self.start, Bound::Unbounded)).map(|(_, change)| change);
        if self.newest {
            let newest = range().rev().find(|change| self.wants(change));
            return Page { items: newest.map(|change| views::change(change)).into_iter().collect(), next: None };
        }
        let mut items = Vec::new();
        let mut last: Option<Revision> = None;
        for (looked_at, change) in range().enumerate() {
            let revision = change.key.revision;
            if last != Some(revision) && (items.len() >= self.limit || looked_at >= limits::SCAN) {
                return Page { items, next: last.map(|revision| revision.to_string()) };
            }
            items.extend(self.wants(change).then(|| views::change(change)));
            last = Some(revision);
        }
        Page { items, next: None }
    }
}

/// `GET /api/v1/pools/{pool}/changes`.
pub(super) fn of_pool(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let wanted = Wanted::of(call, &mut problems);
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    let pool = problems.done(pool)?;
    let page = |snapshot: &Snapshot| snapshot.pool(&pool).map(|found| wanted.page(&found.changes));
    let answer = page_or_park(routes, call, wait, Topic::Pool(pool.clone()), page);
    answer.ok_or_else(|| Refusal::NoSuchPool { pool }.into())
}

/// `GET /api/v1/changes`: all pools, including removed ones.
pub(super) fn of_all(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let wanted = Wanted::of(call, &mut problems);
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    problems.done(Some(()))?;
    let page = |snapshot: &Snapshot| Some(wanted.page(&snapshot.changes));
    page_or_park(routes, call, wait, Topic::Changes, page).ok_or_else(|| Failure::new(Code::Internal, "no history"))
}

/// Returns a page. With `wait`, the request is held until there is an entry.
fn page_or_park(
    routes: &Routes,
    call: &Call,
    wait: Span,
    topic: Topic,
    page: impl FnOnce(&Snapshot) -> Option<Page<ChangeView>>,
) -> Option<Response> {
    let park = call.request.park;
    let may_park = wait > Span(0) && call.may_park();
    if may_park {
        // Register before reading, or a change in between is missed.
        routes.long_polls.watch(park, topic);
    }
    let page = page(&routes.engine.snapshot());
    let nothing_yet = page.as_ref().is_some_and(|page| page.items.is_empty() && page.next.is_none());
    if !(may_park && nothing_yet) {
        routes.long_polls.unwatch(park);
    }
    Some(Response { park: (may_park && nothing_yet).then_some(wait), ..json(&page?) })
}

/// `GET /api/v1/pools/{pool}/changes/{revision}`: the entries of one revision in this pool.
pub(super) fn revision(routes: &Routes, call: &Call) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let revision = call.path::<u64>("revision", &mut problems).map(Revision);
    let (pool, revision) = problems.done(pool.zip(revision))?;
    let snapshot = routes.engine.snapshot();
    let Some(found) = snapshot.pool(&pool) else { return Err(Refusal::NoSuchPool { pool }.into()) };
    let range = ChangeKey { revision, seq: 0 }..=ChangeKey { revision, seq: u32::MAX };
    let items: Vec<_> = found.changes.range(range).map(|(_, change)| views::change(change)).collect();
    if items.is_empty() {
        let error =
            format!("pool {pool:?} has no revision {revision}: it never existed, or it was pruned from the history");
        return Err(Failure::new(Code::NoSuchRevision, error));
    }
    Ok(json(&Page { items, next: None }))
}

/// `POST /api/v1/pools/{pool}/changes`: writes an entry that changes nothing.
pub(super) fn note(call: &Call) -> Result<Command, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let body = call.body::<NoteBody>(&mut problems).unwrap_or_default();
    let lock = problems.parse_some::<LockName>("lock", body.lock.as_deref());
    let by = parse::by(body.by, &mut problems);
    let pool = problems.done(pool)?;
    Ok(Command::Note { pool, lock, by })
}
