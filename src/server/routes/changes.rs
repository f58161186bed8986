//! History: pages, long polls, single revisions, notes (`docs/design.md#history`).

use std::ops::{Bound, ControlFlow};

use imbl::OrdMap;

use super::super::http::Response;
use super::super::long_polls::Topic;
use super::super::views;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, json};
use crate::core::claim::BuildRef;
use crate::core::command::{Command, Refusal};
use crate::core::history::{Change, ChangeKind, Listed};
use crate::core::limits;
use crate::core::names::{ChangeKey, LockName, PoolName, Revision};
use crate::core::state::Snapshot;
use crate::core::time::Span;
use crate::store::Reader;
use crate::wire::api::{ChangeView, NoteBody, Page};
use crate::wire::errors::Code;
use crate::wire::parse;
use crate::wire::problems::Problems;

type Entries = OrdMap<ChangeKey, Listed>;

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

    fn wants(&self, key: ChangeKey, kind: ChangeKind) -> bool {
        !self.versions || kind.is_version() || self.given == Some(key.revision)
    }

    /// One page of these entries, the oldest first: their keys, and where the next page begins. The entries of one
    /// revision are never split, so a page may be longer than its limit. Only a bounded number of entries is examined,
    /// so a page may be shorter although more follow. Only `next` tells whether more follow.
    fn page(&self, entries: &Entries) -> (Vec<ChangeKey>, Option<String>) {
        let range = || entries.range((self.start, Bound::Unbounded));
        if self.newest {
            let newest = range().rev().find(|(key, listed)| self.wants(**key, listed.kind));
            return (newest.into_iter().map(|(key, _)| *key).collect(), None);
        }
        let mut page = Pager::default();
        for (key, listed) in range() {
            if page.add(self, *key, self.wants(*key, listed.kind).then_some(*key)).is_break() {
                break;
            }
        }
        (page.items, page.next)
    }

    /// The same of all entries in the store.
    fn page_of_all(&self, reader: &dyn Reader) -> anyhow::Result<Page<ChangeView>> {
        let mut page = Pager::default();
        reader.walk(self.start, self.newest, &mut |change| {
            let wanted = self.wants(change.key, change.kind).then(|| views::change(&change));
            match (self.newest, wanted) {
                (false, wanted) => page.add(self, change.key, wanted),
                (true, None) => ControlFlow::Continue(()),
                (true, Some(newest)) => {
                    page.items.push(newest);
                    ControlFlow::Break(())
                }
            }
        })?;
        Ok(Page { items: page.items, next: page.next })
    }
}

/// A page that is being filled.
struct Pager<T> {
    items: Vec<T>,
    looked_at: usize,
    last: Option<Revision>,
    next: Option<String>,
}

impl<T> Default for Pager<T> {
    fn default() -> Self {
        Self { items: Vec::new(), looked_at: 0, last: None, next: None }
    }
}

impl<T> Pager<T> {
    /// Takes the next entry of the history, with its item if it is wanted; breaks when the page is full.
    fn add(&mut self, wanted: &Wanted, key: ChangeKey, item: Option<T>) -> ControlFlow<()> {
        let is_full = self.items.len() >= wanted.limit || self.looked_at >= limits::SCAN;
        if self.last != Some(key.revision) && is_full {
            self.next = self.last.map(|revision| revision.to_string());
            return ControlFlow::Break(());
        }
        self.items.extend(item);
        self.looked_at += 1;
        self.last = Some(key.revision);
        ControlFlow::Continue(())
    }
}

/// Whether an entry is about a claim of this build. Once the claim is forgotten, only the entry itself can tell.
fn is_about(change: &Change, build: &BuildRef, snapshot: &Snapshot) -> bool {
    let Some(id) = &change.claim else { return false };
    match (snapshot.claims.get(id), snapshot.ended.get(id)) {
        (Some(claim), _) => claim.terms.owner.build().as_ref() == Some(build),
        (None, Some(ended)) => ended.build.as_ref() == Some(build),
        (None, None) => change.who.as_ref().and_then(|who| who.build()).as_ref() == Some(build),
    }
}

/// `GET /api/v1/pools/{pool}/changes`.
pub(super) async fn of_pool(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let wanted = Wanted::of(call, &mut problems);
    let build = super::claims::build(call, &mut problems);
    if wanted.newest && build.is_some() {
        problems.add("build", "cannot be combined with `newest`");
    }
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    let pool = problems.done(pool)?;
    page_or_park(routes, call, wait, Topic::Pool(pool.clone()), async {
        let page = routes.engine.snapshot().pool(&pool).map(|found| wanted.page(&found.changes));
        let (keys, next) = page.ok_or_else(|| Refusal::NoSuchPool { pool: pool.clone() })?;
        Ok(Page { items: entries(routes, keys, build.as_ref()).await?, next })
    })
    .await
}

/// `GET /api/v1/changes`: all pools, including removed ones.
pub(super) async fn of_all(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let wanted = Wanted::of(call, &mut problems);
    let wait = parse::wait("wait", call.query_text("wait"), &mut problems);
    problems.done(Some(()))?;
    page_or_park(routes, call, wait, Topic::Changes, async {
        routes.engine.read(move |reader| wanted.page_of_all(reader)).await.map_err(Failure::unreadable)
    })
    .await
}

/// The entries with these keys, as they are shown; with `build`, only those about its claims.
pub(super) async fn entries(
    routes: &Routes,
    keys: Vec<ChangeKey>,
    build: Option<&BuildRef>,
) -> Result<Vec<ChangeView>, Failure> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let read = routes.engine.read(move |reader| reader.entries(&keys)).await;
    let snapshot = routes.engine.snapshot();
    let is_wanted = |change: &&Change| build.is_none_or(|build| is_about(change, build, &snapshot));
    Ok(read.map_err(Failure::unreadable)?.iter().filter(is_wanted).map(views::change).collect())
}

/// Returns a page. With `wait`, the request is held until there is an entry.
async fn page_or_park(
    routes: &Routes,
    call: &Call<'_>,
    wait: Span,
    topic: Topic,
    page: impl Future<Output = Result<Page<ChangeView>, Failure>>,
) -> Result<Response, Failure> {
    let park = call.request.park;
    let may_park = wait > Span(0) && call.may_park();
    if may_park {
        // Register before reading, or a change in between is missed.
        routes.long_polls.watch(park, topic);
    }
    let page = page.await;
    let nothing_yet = page.as_ref().is_ok_and(|page| page.items.is_empty() && page.next.is_none());
    if !(may_park && nothing_yet) {
        routes.long_polls.unwatch(park);
    }
    Ok(Response { park: (may_park && nothing_yet).then_some(wait), ..json(&page?) })
}

/// `GET /api/v1/pools/{pool}/changes/{revision}`: the entries of one revision in this pool.
pub(super) async fn revision(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    let revision = call.path::<u64>("revision", &mut problems).map(Revision);
    let (pool, revision) = problems.done(pool.zip(revision))?;
    let range = ChangeKey { revision, seq: 0 }..=ChangeKey { revision, seq: u32::MAX };
    let snapshot = routes.engine.snapshot();
    let keys = snapshot.pool(&pool).map(|found| found.changes.range(range).map(|(key, _)| *key).collect());
    let keys: Vec<ChangeKey> = keys.ok_or_else(|| Refusal::NoSuchPool { pool: pool.clone() })?;
    let items = entries(routes, keys, None).await?;
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
