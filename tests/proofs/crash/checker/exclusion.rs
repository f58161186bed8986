//! The token checker: mutual exclusion (I1) and fences (I2).
//!
//! A hold lasts at least from the first answer that showed its grant until the first request for its end. Two such
//! spans of one lock by different parties may not overlap, neither by the clock nor in the order of their fences.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{History, LockRef, Nanos, Seen};
use super::{Grant, Party, Rule, Violation};

/// I2: a fence names one grant. A grant that was made after another was known has a larger fence.
pub fn fences(grants: &[Grant<'_>], history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<u64, BTreeSet<(&str, u32, Vec<&LockRef>)>> = BTreeMap::new();
    for grant in grants {
        owners.entry(grant.fence).or_default().insert((grant.id, grant.life, grant.locks.iter().collect()));
    }
    for op in &history.ops {
        // The end of a claim shows its fence, but not its locks, so compare only with grants of other claims.
        let Seen::Ended { life, fence: Some(fence), .. } = &op.seen else { continue };
        let owners = owners.entry(*fence).or_default();
        if !owners.iter().any(|(id, l, _)| (*id, *l) == (op.id.as_str(), *life)) {
            owners.insert((&op.id, *life, Vec::new()));
        }
    }
    for (fence, owners) in owners.iter().filter(|(_, owners)| owners.len() > 1) {
        found.push(Violation {
            rule: Rule::Fences,
            text: format!("fence {fence} was given more than once: {owners:?}"),
        });
    }
    let mut by_seen: Vec<&Grant<'_>> = grants.iter().collect();
    by_seen.sort_by_key(|g| g.seen);
    let mut by_low: Vec<&Grant<'_>> = grants.iter().collect();
    by_low.sort_by_key(|g| g.low);
    let (mut known, mut largest) = (by_seen.into_iter().peekable(), None::<&Grant<'_>>);
    for later in by_low {
        while let Some(earlier) = known.next_if(|earlier| earlier.seen < later.low) {
            if largest.is_none_or(|l| earlier.fence > l.fence) {
                largest = Some(earlier);
            }
        }
        if let Some(earlier) = largest.filter(|earlier| earlier.fence >= later.fence) {
            let text = format!(
                "claim {} was granted fence {} at {} or later, though fence {} of claim {} was known at {}",
                later.id, later.fence, later.low, earlier.fence, earlier.id, earlier.seen
            );
            found.push(Violation { rule: Rule::Fences, text });
        }
    }
    found
}

/// I1 in the order of the fences: a grant with a larger fence was known before anybody asked for the end of a hold.
pub fn by_fence(grants: &[Grant<'_>]) -> Vec<Violation> {
    let mut sorted: Vec<&Grant<'_>> = grants.iter().collect();
    sorted.sort_by_key(|g| g.fence);
    sweep(&sorted, |later| later.seen < Nanos::MAX)
}

/// I1 by the clock alone: two holds at the same moment. It does not trust the fences.
pub fn by_time(grants: &[Grant<'_>]) -> Vec<Violation> {
    let mut sorted: Vec<&Grant<'_>> = grants.iter().filter(|g| g.held).collect();
    sorted.sort_by_key(|g| g.seen);
    sweep(&sorted, |later| later.end > later.seen)
}

/// For each grant in the given order, finds an earlier hold of the same lock by another party that still lasted when
/// this grant was seen.
fn sweep<'g>(sorted: &[&'g Grant<'g>], counts: impl Fn(&Grant<'_>) -> bool) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut longest: BTreeMap<&LockRef, Longest<'g>> = BTreeMap::new();
    for later in sorted {
        for lock in later.locks {
            let holds = longest.entry(lock).or_default();
            if let Some(earlier) = holds.of_others(later.party).filter(|e| e.end > later.seen && counts(later)) {
                let text = format!(
                    "lock {lock:?} was held by claim {} (fence {}) until {} or later, and given to claim {} (fence {}) \
                     by {}",
                    earlier.id, earlier.fence, earlier.end, later.id, later.fence, later.seen
                );
                found.push(Violation { rule: Rule::Exclusion, text });
            }
            if later.held && later.end > later.seen {
                holds.add(later);
            }
        }
    }
    found
}

/// The holds of two different parties that end last: enough to know the last end of all other parties.
#[derive(Default)]
struct Longest<'g> {
    first: Option<&'g Grant<'g>>,
    second: Option<&'g Grant<'g>>,
}

impl<'g> Longest<'g> {
    fn add(&mut self, grant: &'g Grant<'g>) {
        match self.first {
            None => self.first = Some(grant),
            Some(first) if first.party == grant.party => {
                if grant.end > first.end {
                    self.first = Some(grant);
                }
            }
            Some(first) if grant.end > first.end => {
                self.second = Some(first);
                self.first = Some(grant);
            }
            Some(_) => {
                if self.second.is_none_or(|second| grant.end > second.end) {
                    self.second = Some(grant);
                }
            }
        }
    }

    fn of_others(&self, party: Party<'_>) -> Option<&'g Grant<'g>> {
        self.first.filter(|f| f.party != party).or(self.second)
    }
}
