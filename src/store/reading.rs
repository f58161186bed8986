//! Reading rows: from the layers, and from the tables below them.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::Found;
use super::layer::{EndedRow, Places, View};
use super::rows::{self, Place, Table};
use crate::core::claim::Ended;
use crate::core::history::Change;
use crate::core::names::{ChangeKey, ClaimId};

/// The tables below some layers. What they show must be at least as new as the layers: whoever reads takes the layers
/// first.
pub(super) trait Below {
    fn change(&self, place: Place) -> anyhow::Result<Option<String>>;

    fn ended(&self, id: &str) -> anyhow::Result<Option<EndedRow>>;

    fn has_claim(&self, id: &str) -> anyhow::Result<bool>;

    /// Passes entries of the history in order to `read`.
    fn changes(&self, range: Places, newest_first: bool, read: &mut ReadChanges<'_>) -> anyhow::Result<()>;

    /// Passes ended claims after this id, in the order of their ids, to `read`.
    fn all_ended(&self, after: &str, read: &mut ReadEnded<'_>) -> anyhow::Result<()>;
}

pub(super) type ReadChanges<'r> =
    dyn FnMut(&mut dyn Iterator<Item = (Place, anyhow::Result<String>)>) -> anyhow::Result<()> + 'r;
pub(super) type ReadEnded<'r> =
    dyn FnMut(&mut dyn Iterator<Item = (Arc<str>, anyhow::Result<EndedRow>)>) -> anyhow::Result<()> + 'r;

/// No tables.
pub(super) struct Nothing;

impl Below for Nothing {
    fn change(&self, _: Place) -> anyhow::Result<Option<String>> {
        Ok(None)
    }

    fn ended(&self, _: &str) -> anyhow::Result<Option<EndedRow>> {
        Ok(None)
    }

    fn has_claim(&self, _: &str) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn changes(&self, _: Places, _: bool, read: &mut ReadChanges<'_>) -> anyhow::Result<()> {
        read(&mut std::iter::empty())
    }

    fn all_ended(&self, _: &str, read: &mut ReadEnded<'_>) -> anyhow::Result<()> {
        read(&mut std::iter::empty())
    }
}

/// Layers and what is below them, for one read. The functions do what those of [`super::Reader`] do.
pub(super) struct Reading<B, const N: usize> {
    pub view: View<N>,
    pub below: B,
}

impl<B: Below, const N: usize> Reading<B, N> {
    pub fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let place @ (revision, seq) = rows::place(*key)?;
            if let Some(json) = self.view.change(place, || self.below.change(place))? {
                found.push(rows::change(revision, seq.into(), &json)?);
            }
        }
        Ok(found)
    }

    pub fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        let mut found = Vec::new();
        for id in ids {
            if let Some(row) = self.view.ended(id.as_str(), || self.below.ended(id.as_str()))? {
                found.push(row.columns(id.as_str()).ended(&row.record)?);
            }
        }
        Ok(found)
    }

    pub fn find(&self, id: &ClaimId) -> anyhow::Result<Found> {
        if let Some(ended) = self.ended_claims(std::slice::from_ref(id))?.pop() {
            return Ok(Found::Ended(Box::new(ended)));
        }
        let live = match self.view.has_record(Table::Claims, id.as_str()) {
            Some(live) => live,
            None => self.below.has_claim(id.as_str())?,
        };
        Ok(if live { Found::Live } else { Found::Nothing })
    }

    pub fn walk_ended(
        &self,
        after: Option<&ClaimId>,
        each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let after = after.map_or("", ClaimId::as_str);
        self.below.all_ended(after, &mut |below| {
            for (id, row) in self.view.all_ended(after, below) {
                let row = row?;
                if each(row.columns(&id).ended(&row.record)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    pub fn walk(
        &self,
        (from, to): (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let range = (place(from)?, place(to)?);
        self.below.changes(range, newest_first, &mut |below| {
            for ((revision, seq), json) in self.view.changes(range, newest_first, below) {
                if each(rows::change(revision, seq.into(), &json?)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn place(bound: Bound<ChangeKey>) -> anyhow::Result<Bound<Place>> {
    Ok(match bound {
        Bound::Included(key) => Bound::Included(rows::place(key)?),
        Bound::Excluded(key) => Bound::Excluded(rows::place(key)?),
        Bound::Unbounded => Bound::Unbounded,
    })
}
