//! Figures over a span of the history.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::{Range, first_of, first_since};
use crate::core::claim::{Claim, Phase};
use crate::core::figures::{Figures, Tally};
use crate::core::names::{ChangeKey, NamePattern, PoolName};
use crate::core::state::Snapshot;
use crate::core::time::WallMs;
use crate::server::auth::access::Caller;
use crate::server::engine::Engine;
use crate::server::limits::{ENTRIES_COUNTED, ENTRIES_PER_READ};

/// Of which pools there are figures: those of the ones that were named which the caller may look at.
#[derive(Debug, Clone)]
pub struct Scope {
    pub of: Named,
    pub caller: Caller,
}

/// Which pools were named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Only this pool.
    Pool(PoolName),
    /// All pools with a name like this.
    Like(NamePattern),
    All,
}

impl Scope {
    /// Whether this pool belongs to it.
    #[must_use]
    pub fn has(&self, pool: &PoolName) -> bool {
        let is_named = match &self.of {
            Named::Pool(name) => name == pool,
            Named::Like(pattern) => pattern.matches(pool),
            Named::All => true,
        };
        is_named && self.caller.sees(pool)
    }
}

/// Figures, and the span that they are about.
#[derive(Debug)]
pub struct Counted {
    pub figures: Figures,
    pub since: WallMs,
    /// Earlier than asked for if there were too many entries ([`ENTRIES_COUNTED`]).
    pub until: WallMs,
    /// Whether all entries of the span that was asked for are in.
    pub complete: bool,
}

/// The figures of a span, with the `top` longest waits and holds. They begin with the oldest entry that is kept, if
/// that is later than `since`.
///
/// # Errors
/// The store cannot be read.
pub async fn count(
    engine: &Engine,
    scope: &Scope,
    (since, until): (WallMs, WallMs),
    top: usize,
) -> anyhow::Result<Counted> {
    let snapshot = engine.snapshot();
    let mut count = Count { tally: Tally::new(since, until, top), entries: 0, stopped: None };
    for claim in snapshot.claims.values() {
        still_held(&mut count.tally, claim, scope);
    }
    let count = match &scope.of {
        Named::Pool(pool) => of_pool(engine, &snapshot, pool, (since, until), count).await?,
        Named::Like(_) | Named::All => of_all(engine, &snapshot, scope, (since, until), count).await?,
    };
    let (until, complete) = (count.stopped.unwrap_or(until), count.stopped.is_none());
    Ok(Counted { figures: count.tally.done(), since, until, complete })
}

struct Count {
    tally: Tally,
    entries: usize,
    /// The time of the entry before which it stopped.
    stopped: Option<WallMs>,
}

fn still_held(tally: &mut Tally, claim: &Arc<Claim>, scope: &Scope) {
    if let Phase::Held { since, .. } = claim.phase {
        let locks: Vec<_> = claim.locks().iter().filter(|(pool, _)| scope.has(pool)).cloned().collect();
        tally.still_held(&claim.id, &locks, since, &claim.terms.owner);
    }
}

async fn of_pool(
    engine: &Engine,
    snapshot: &Snapshot,
    pool: &PoolName,
    (since, until): (WallMs, WallMs),
    mut count: Count,
) -> anyhow::Result<Count> {
    let Some(found) = snapshot.pool(pool) else { return Ok(count) };
    let within = found.changes.iter().filter(|(_, listed)| (since..=until).contains(&listed.at));
    let keys: Vec<(ChangeKey, WallMs)> = within.map(|(key, listed)| (*key, listed.at)).collect();
    count.stopped = keys.get(ENTRIES_COUNTED).map(|(_, at)| *at);
    for part in keys[..keys.len().min(ENTRIES_COUNTED)].chunks(ENTRIES_PER_READ) {
        let part: Vec<ChangeKey> = part.iter().map(|(key, _)| *key).collect();
        for mut change in engine.read(move |reader| reader.entries(&part)).await? {
            change.pools.retain(|name| name == pool);
            change.locks.retain(|(name, _)| name == pool);
            count.tally.add(&change);
        }
    }
    Ok(count)
}

async fn of_all(
    engine: &Engine,
    snapshot: &Snapshot,
    scope: &Scope,
    (since, until): (WallMs, WallMs),
    mut count: Count,
) -> anyhow::Result<Count> {
    let newest = snapshot.revision;
    let first = engine.read(move |reader| first_since(reader, since, newest)).await?;
    let mut rest: Option<Range> = Some((Bound::Included(first_of(first)), Bound::Unbounded));
    while let Some(range) = rest {
        let scope = scope.clone();
        let read = engine.read(move |reader| {
            let (mut read, mut last) = (0, None);
            let mut is_over = false;
            reader.walk(range, false, &mut |mut change| {
                is_over = change.at > until || count.entries >= ENTRIES_COUNTED;
                if is_over {
                    count.stopped = (change.at <= until).then_some(change.at);
                    return ControlFlow::Break(());
                }
                (read, last) = (read + 1, Some(change.key));
                count.entries += 1;
                if change.at >= since {
                    change.pools.retain(|pool| scope.has(pool));
                    change.locks.retain(|(pool, _)| scope.has(pool));
                    if !change.pools.is_empty() {
                        count.tally.add(&change);
                    }
                }
                if read < ENTRIES_PER_READ { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let more = last.filter(|_| !is_over && read == ENTRIES_PER_READ);
            Ok((count, more.map(|last| (Bound::Excluded(last), Bound::Unbounded))))
        });
        (count, rest) = read.await?;
    }
    Ok(count)
}
