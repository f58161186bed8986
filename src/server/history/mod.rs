//! Answers from the history: pages of entries, and figures over a span of it.
//!
//! - `filter`: which entries a question is about.
//! - `page`: one page of them, in either order.
//! - `figures`: waits, holds and use of a span, from `core::figures`.
//!
//! The entries are in the store (`docs/decisions/0021-the-store-remembers.md`). Each read takes a bounded number of
//! them and then lets others read, so that a question about a whole day delays nobody: neither the engine, which reads
//! nothing, nor other readers.

mod figures;
mod filter;
mod page;

pub use figures::{Counted, Named, Scope, count};
pub use filter::{Filter, OfBuild};
pub use page::{Entries, Order, Wanted};

use std::ops::{Bound, ControlFlow};

use crate::core::names::{ChangeKey, Revision};
use crate::core::time::WallMs;
use crate::store::Reader;

/// Where the entries of a question begin and end.
type Range = (Bound<ChangeKey>, Bound<ChangeKey>);

fn first_of(revision: Revision) -> ChangeKey {
    ChangeKey { revision, seq: 0 }
}

fn last_of(revision: Revision) -> ChangeKey {
    ChangeKey { revision, seq: u32::MAX }
}

/// The first revision in the store with an entry of this time or later; `newest` and one if there is none. Found by
/// halving, because entries are in the order of their times. Where the clock was set back, it is one of the places where
/// the times pass this one.
fn first_since(reader: &dyn Reader, since: WallMs, newest: Revision) -> anyhow::Result<Revision> {
    let (mut low, mut high) = (0, newest.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut found = None;
        reader.walk((Bound::Included(first_of(Revision(middle))), Bound::Unbounded), false, &mut |change| {
            found = Some((change.key.revision.0, change.at));
            ControlFlow::Break(())
        })?;
        match found {
            Some((revision, at)) if at < since => low = revision + 1,
            _ => high = middle,
        }
    }
    Ok(Revision(low))
}
