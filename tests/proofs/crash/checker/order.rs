//! First come, first served (I5).
//!
//! If A had an answer with its place in the queue before B asked, and both want a common lock, then B is not served
//! before A. Claims of an inattentive client are left out as A, because they may have lost their turn. Claims with a
//! key are left out as B, because a requestor that already holds always gets the lock.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Call, History, Nanos, Op, Seen, Want};
use super::{Grant, Rule, Violation};

/// One life of a claim in the queue.
#[derive(Debug, Clone, Copy)]
struct Stay<'h> {
    id: &'h str,
    wants: &'h [Want],
    /// Its place was known at this moment.
    placed: Nanos,
    /// It was still waiting at this moment.
    waiting: Nanos,
    /// Its first grant, or 0 if none was seen.
    fence: u64,
}

pub fn check(history: &History, claims: &BTreeMap<&str, Vec<&Op>>, grants: &[Grant<'_>]) -> Vec<Violation> {
    let mut first_fence: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    for grant in grants {
        let fence = first_fence.entry((grant.id, grant.life)).or_insert(grant.fence);
        *fence = (*fence).min(grant.fence);
    }
    let mut stays: Vec<Stay<'_>> = Vec::new();
    for (id, ops) in claims {
        let Some(asked) = history.asked.get(*id) else { continue };
        if is_attentive(history, ops) {
            stays.extend(stays_of(id, &asked.wants, ops, &first_fence));
        }
    }
    stays.sort_by_key(|stay| stay.placed);
    let mut served: Vec<(Nanos, &Grant<'_>, &[Want])> = Vec::new();
    for grant in grants {
        let Some(asked) = history.asked.get(grant.id).filter(|asked| asked.key.is_none()) else { continue };
        served.push((asked_not_before(&claims[grant.id], grant.life), grant, &asked.wants));
    }
    served.sort_by_key(|(low, ..)| *low);
    let mut found = Vec::new();
    let (mut queue, mut stays) = (Queue::default(), stays.into_iter().peekable());
    for (low, grant, wants) in served {
        while let Some(stay) = stays.next_if(|stay| stay.placed < low) {
            queue.add(stay);
        }
        if let Some(passed) = queue.passed_by(grant, wants) {
            let text = format!(
                "claim {} asked at {low} or later and was given fence {} by {}; claim {} had its place at {}, waited at \
                 {} and was given fence {} (0: none)",
                grant.id, grant.fence, grant.seen, passed.id, passed.placed, passed.waiting, passed.fence
            );
            found.push(Violation { rule: Rule::Order, text });
        }
    }
    found
}

/// Whether the client never neglected its claim for so long that it may have lost its turn.
fn is_attentive(history: &History, ops: &[&Op]) -> bool {
    if ops.iter().any(|op| op.call == Call::Neglect) {
        return false;
    }
    let mut calls = ops.iter().filter(|op| matches!(op.call, Call::Ask | Call::End));
    let Some(mut last) = calls.next().map(|op| history.over(op)) else { return true };
    for op in calls {
        // Downtime does not count: all waiting times start again with the server.
        let ready = history.ready.iter().copied().filter(|ready| *ready <= op.invoke).max().unwrap_or(0);
        if op.invoke.saturating_sub(last.max(ready)) > history.attention {
            return false;
        }
        last = last.max(history.over(op));
    }
    true
}

fn stays_of<'h>(
    id: &'h str,
    wants: &'h [Want],
    ops: &[&'h Op],
    first_fence: &BTreeMap<(&str, u32), u64>,
) -> Vec<Stay<'h>> {
    let lives: BTreeSet<u32> = ops.iter().filter_map(|op| op.seen.life()).collect();
    let stay = |life: u32| {
        let looks = || ops.iter().filter(move |op| op.seen == Seen::Waiting { life });
        Some(Stay {
            id,
            wants,
            placed: looks().filter_map(|op| op.done).min()?,
            waiting: looks().map(|op| op.invoke).max()?,
            fence: first_fence.get(&(id, life)).copied().unwrap_or(0),
        })
    };
    lives.into_iter().filter_map(stay).collect()
}

/// A moment before which this life of the claim had not begun.
fn asked_not_before(ops: &[&Op], life: u32) -> Nanos {
    let asked = ops.iter().filter(|op| op.call == Call::Ask).map(|op| op.invoke).min().unwrap_or(0);
    let earlier = ops.iter().filter(|op| op.seen.life().is_some_and(|l| l < life)).map(|op| op.invoke).max();
    earlier.unwrap_or(0).max(asked)
}

/// The relevant stays so far: for each candidate, the one that was served last and the one that waited longest.
#[derive(Default)]
struct Queue<'h> {
    /// All claims that want a lock of the pool.
    all: BTreeMap<&'h str, Latest<'h>>,
    /// Claims that take any lock of it.
    any: BTreeMap<&'h str, Latest<'h>>,
    named: BTreeMap<(&'h str, &'h str), Latest<'h>>,
}

#[derive(Default, Clone, Copy)]
struct Latest<'h> {
    served: Option<Stay<'h>>,
    waiting: Option<Stay<'h>>,
}

impl<'h> Latest<'h> {
    fn add(&mut self, stay: Stay<'h>) {
        if self.served.is_none_or(|s| stay.fence > s.fence) {
            self.served = Some(stay);
        }
        if self.waiting.is_none_or(|s| stay.waiting > s.waiting) {
            self.waiting = Some(stay);
        }
    }

    fn passed_by(&self, grant: &Grant<'_>) -> Option<Stay<'h>> {
        let served_later = self.served.filter(|stay| stay.fence > grant.fence);
        served_later.or(self.waiting.filter(|stay| stay.waiting > grant.seen))
    }
}

impl<'h> Queue<'h> {
    fn add(&mut self, stay: Stay<'h>) {
        for want in stay.wants {
            self.all.entry(want.pool()).or_default().add(stay);
            match want {
                Want::Any { pool, .. } => self.any.entry(pool).or_default().add(stay),
                Want::Named { pool, locks } => {
                    for lock in locks {
                        self.named.entry((pool, lock)).or_default().add(stay);
                    }
                }
            }
        }
    }

    fn passed_by(&self, grant: &Grant<'_>, wants: &[Want]) -> Option<Stay<'h>> {
        wants.iter().find_map(|want| match want {
            Want::Any { pool, .. } => self.all.get(&**pool).and_then(|l| l.passed_by(grant)),
            Want::Named { pool, locks } => {
                let any = self.any.get(&**pool).and_then(|l| l.passed_by(grant));
                any.or_else(|| locks.iter().find_map(|lock| self.named.get(&(&**pool, &**lock))?.passed_by(grant)))
            }
        })
    }
}
