//! One page of the history.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use imbl::OrdMap;

use super::filter::{EndedBuilds, Filter};
use super::{Range, first_of, first_since, last_of};
use crate::core::history::{Change, Listed};
use crate::core::names::{ChangeKey, PoolName, Revision};
use crate::core::state::Snapshot;
use crate::server::engine::Engine;
use crate::server::limits::ENTRIES_PER_READ;
use crate::server::pager::Pager;
use crate::server::views;
use crate::store::Reader;
use crate::wire::api::{ChangeView, Page};

/// The history of one pool, as a snapshot has it.
pub type Entries = OrdMap<ChangeKey, Listed>;

/// In which order a page lists entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// The entries that a request asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub filter: Filter,
    pub order: Order,
    /// Only entries after the ones of this revision, in this order.
    pub after: Option<Revision>,
    /// Only entries of this revision and later ones.
    pub from: Option<Revision>,
    /// Only the newest of them.
    pub newest: bool,
    pub limit: usize,
}

impl Wanted {
    /// The first entries after this revision.
    #[must_use]
    pub fn after(revision: Revision, limit: usize) -> Self {
        let (filter, order) = (Filter::default(), Order::OldestFirst);
        Self { filter, order, after: Some(revision), from: None, newest: false, limit }
    }

    /// The revision before which entries may be missing here, where entries up to `pruned` were pruned: for whoever goes on
    /// from a revision, and believes to see everything since then.
    #[must_use]
    pub fn lacks(&self, pruned: Revision) -> Option<u64> {
        let is_behind = match (self.order, self.after, self.from) {
            (Order::OldestFirst, Some(after), _) => after < pruned,
            (Order::OldestFirst, None, Some(from)) => from <= pruned,
            _ => false,
        };
        (is_behind && pruned > Revision(0) && !self.newest).then_some(pruned.0 + 1)
    }

    fn range(&self) -> Range {
        match (self.order, self.after, self.from) {
            (Order::OldestFirst, Some(after), _) => (Bound::Excluded(last_of(after)), Bound::Unbounded),
            (Order::OldestFirst, None, Some(from)) => (Bound::Included(first_of(from)), Bound::Unbounded),
            (Order::NewestFirst, Some(after), _) => (Bound::Unbounded, Bound::Excluded(first_of(after))),
            (_, None, _) => (Bound::Unbounded, Bound::Unbounded),
        }
    }

    /// The newest entries that the filter wants, the newest first: those before this revision.
    #[must_use]
    pub fn newest_first(filter: Filter, after: Option<Revision>, limit: usize) -> Self {
        Self { filter, order: Order::NewestFirst, after, from: None, newest: false, limit }
    }

    /// One page of a pool's history. The entries of one revision are never split, so a page may be longer than its
    /// limit. Only a bounded number of entries is examined, so a page may be shorter although more follow. Only `next`
    /// tells whether more follow.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn of_pool(
        &self,
        engine: &Engine,
        pool: &PoolName,
        entries: Entries,
    ) -> anyhow::Result<Page<ChangeView>> {
        if !self.filter.needs_entries() {
            let ((keys, next), caller) = (self.keys(&entries), self.filter.caller.clone());
            let items = engine.read(move |reader| {
                let found = reader.entries(&keys)?;
                let shown = found.iter().filter_map(|change| caller.shown_change(change));
                Ok(shown.map(|change| views::change(&change)).collect())
            });
            return Ok(Page { items: items.await?, next });
        }
        let (mut pager, mut range, snapshot) = (Pager::new(self.limit), self.range(), engine.snapshot());
        loop {
            let part: Vec<(ChangeKey, bool)> = in_order(&entries, range, self.order)
                .take(ENTRIES_PER_READ)
                .map(|(key, listed)| (*key, self.filter.lists(*key, *listed)))
                .collect();
            let Some((last, _)) = part.last().copied() else { return Ok(pager.done()) };
            let keys: Vec<ChangeKey> = part.iter().filter(|(_, listed)| *listed).map(|(key, _)| *key).collect();
            let (with_builds, caller) = (self.filter.build.is_some(), self.filter.caller.clone());
            let read = engine.read(move |reader| {
                let found = reader.entries(&keys)?;
                let found: Vec<_> =
                    found.iter().filter_map(|change| Some(caller.shown_change(change)?.into_owned())).collect();
                let ended = EndedBuilds::read(reader, found.iter().filter(|_| with_builds))?;
                Ok((found, ended))
            });
            let (found, ended) = read.await?;
            let mut found = found.iter().peekable();
            for (key, _) in part {
                let entry = found.next_if(|change| change.key == key);
                let entry = entry.filter(|change| self.filter.wants_in(pool, change, &snapshot, &ended));
                if pager.add(key.revision, || entry.map(views::change)).is_break() {
                    return Ok(pager.done());
                }
            }
            range = self.beyond(range, last);
        }
    }

    /// The same where the list of the pool itself tells which entries are wanted: their keys, and `next`.
    fn keys(&self, entries: &Entries) -> (Vec<ChangeKey>, Option<String>) {
        let lists = |(key, listed): &(&ChangeKey, &Listed)| self.filter.lists(**key, **listed);
        if self.newest {
            let newest = in_order(entries, self.range(), Order::NewestFirst).find(lists);
            return (newest.into_iter().map(|(key, _)| *key).collect(), None);
        }
        let mut pager = Pager::new(self.limit);
        for entry in in_order(entries, self.range(), self.order) {
            if pager.add(entry.0.revision, || lists(&entry).then_some(*entry.0)).is_break() {
                break;
            }
        }
        let Page { items, next } = pager.done();
        (items, next)
    }

    /// One page of all entries in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn of_all(self, engine: &Engine) -> anyhow::Result<Page<ChangeView>> {
        let snapshot = engine.snapshot();
        let wanted = Arc::new(self);
        let (start, newest) = (Arc::clone(&wanted), snapshot.revision);
        let mut range = engine.read(move |reader| start.within_times(reader, newest)).await?;
        let mut pager = Pager::new(wanted.limit);
        loop {
            let (wanted, snapshot) = (Arc::clone(&wanted), Arc::clone(&snapshot));
            let (filled, rest) = engine.read(move |reader| wanted.fill(reader, pager, range, &snapshot)).await?;
            let Some(rest) = rest else { return Ok(filled.done()) };
            (pager, range) = (filled, rest);
        }
    }

    /// The range without what lies before its first entry of the wanted times.
    fn within_times(&self, reader: &dyn Reader, newest: Revision) -> anyhow::Result<Range> {
        let (mut from, mut to) = self.range();
        match (self.order, self.filter.since, self.filter.until) {
            (Order::OldestFirst, Some(since), _) if self.after.is_none() && self.from.is_none() && !self.newest => {
                from = Bound::Included(first_of(first_since(reader, since, newest)?));
            }
            (Order::NewestFirst, _, Some(until)) if self.after.is_none() => {
                to = Bound::Excluded(first_of(first_since(reader, until, newest)?));
            }
            _ => {}
        }
        Ok((from, to))
    }

    /// Reads some entries of a range into a page. Returns what is left of the range, unless the page is done.
    fn fill(
        &self,
        reader: &dyn Reader,
        mut pager: Pager<Revision, ChangeView>,
        range: Range,
        snapshot: &Snapshot,
    ) -> anyhow::Result<(Pager<Revision, ChangeView>, Option<Range>)> {
        let (mut read, mut last, mut is_over) = (0, None, false);
        let newest_first = self.newest || self.order == Order::NewestFirst;
        let mut take = |change: &Change, ended: &EndedBuilds| {
            let key = change.key;
            let item = || {
                // What may not be seen is taken away first, so that no filter can find it.
                let shown = self.filter.caller.shown_change(change)?;
                self.filter.wants(&shown, snapshot, ended).then(|| views::change(&shown))
            };
            is_over = self.is_past(change)
                || if self.newest {
                    // The first that is wanted is the only one.
                    item().is_some_and(|item| pager.add(key.revision, || Some(item)).is_continue())
                } else {
                    pager.add(key.revision, item).is_break()
                };
            if is_over {
                return ControlFlow::Break(());
            }
            (read, last) = (read + 1, Some(key));
            if read < ENTRIES_PER_READ { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if self.filter.build.is_some() {
            // The builds of ended claims are looked up for all entries at once.
            let mut part = Vec::new();
            reader.walk(range, newest_first, &mut |change| {
                part.push(change);
                if part.len() < ENTRIES_PER_READ { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let ended = EndedBuilds::read(reader, part.iter())?;
            let _ = part.iter().try_for_each(|change| take(change, &ended));
        } else {
            let unknown = EndedBuilds::default();
            reader.walk(range, newest_first, &mut |change| take(&change, &unknown))?;
        }
        let rest = last.filter(|_| !is_over && read == ENTRIES_PER_READ).map(|last| self.beyond(range, last));
        Ok((pager, rest))
    }

    /// Whether this entry and all that follow it are outside the wanted times.
    fn is_past(&self, change: &Change) -> bool {
        match self.order {
            Order::OldestFirst => !self.newest && self.filter.until.is_some_and(|until| change.at >= until),
            Order::NewestFirst => self.filter.since.is_some_and(|since| change.at < since),
        }
    }

    /// What is left of a range behind this entry.
    fn beyond(&self, (from, to): Range, last: ChangeKey) -> Range {
        match self.order {
            Order::OldestFirst if !self.newest => (Bound::Excluded(last), to),
            _ => (from, Bound::Excluded(last)),
        }
    }
}

fn in_order(entries: &Entries, range: Range, order: Order) -> impl Iterator<Item = (&ChangeKey, &Listed)> {
    let (mut oldest, mut newest) = match order {
        Order::OldestFirst => (Some(entries.range(range)), None),
        Order::NewestFirst => (None, Some(entries.range(range).rev())),
    };
    std::iter::from_fn(move || match (&mut oldest, &mut newest) {
        (Some(oldest), _) => oldest.next(),
        (None, Some(newest)) => newest.next(),
        (None, None) => None,
    })
}
