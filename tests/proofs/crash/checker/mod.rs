//! The judge of a recorded run: which promises of the server does it break?
//!
//! | rule | promise | where |
//! |---|---|---|
//! | `Exclusion` (I1) | two claims never hold the same lock, unless they have the same key | [`exclusion`] |
//! | `Fences` (I2) | a fence belongs to one grant, and every later grant has a larger one, over restarts too | [`exclusion`] |
//! | `Durable` (I4) | after a crash, what was answered is there; what was not answered is there as a whole or not at all | [`claims`] |
//! | `Order` (I5) | of two waiters, the earlier one is served first | [`order`] |
//! | `Release` (I7) | a release may be repeated, and ends nothing but its own claim | [`claims`], [`exclusion`] |
//! | `Identity` (I8) | the same id gives the same grant and the same fence while the hold lives | [`claims`] |
//! | `Runs` | only calls of an earlier process are refused as such | [`claims`] |
//! | `Answers` | every request gets an answer that fits it | [`claims`] |
//!
//! All rules are sound under unknown outcomes: such an operation may or may not have happened, at any moment between
//! its sending and the death of its server. They are not complete: a race that no client saw is not judged. The cost is
//! O(n log n) in the number of operations, times the few dozen operations of one claim.

pub mod claims;
pub mod exclusion;
pub mod order;

use std::collections::BTreeMap;
use std::fmt;

use super::history::{Call, History, LockRef, Nanos, Op, Seen};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    Exclusion,
    Fences,
    Durable,
    Order,
    Release,
    Identity,
    Runs,
    Answers,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub rule: Rule,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// Judges a run.
pub fn check(history: &History) -> Vec<Violation> {
    let claims = history.by_claim();
    let grants = grants(history, &claims);
    let mut found = exclusion::fences(&grants, history);
    found.extend(exclusion::by_fence(&grants));
    found.extend(exclusion::by_time(&grants));
    found.extend(claims::check(history, &claims));
    found.extend(order::check(history, &claims, &grants));
    found
}

/// A grant that a client saw.
#[derive(Debug, Clone)]
pub struct Grant<'h> {
    pub id: &'h str,
    pub life: u32,
    pub fence: u64,
    pub locks: &'h [LockRef],
    /// Claims of the same party may share a lock. A claim without a key is a party of its own.
    pub party: Party<'h>,
    /// It was not granted before this moment.
    pub low: Nanos,
    /// A client knew of it at this moment.
    pub seen: Nanos,
    /// A client saw it as a hold, so it was not withdrawn before.
    pub held: bool,
    /// Nobody asked for its end before this moment.
    pub end: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party<'h> {
    Key(&'h str),
    Claim(&'h str),
}

/// All grants that were seen, one per (claim, life, fence).
fn grants<'h>(history: &'h History, claims: &BTreeMap<&'h str, Vec<&'h Op>>) -> Vec<Grant<'h>> {
    let mut all = Vec::new();
    for (id, ops) in claims {
        let mut of_claim: BTreeMap<(u32, u64), Grant<'h>> = BTreeMap::new();
        for op in ops {
            let (Some((life, fence, locks)), Some(done)) = (op.seen.grant(), op.done) else { continue };
            let key = history.asked.get(*id).and_then(|asked| asked.key.as_deref());
            let grant = of_claim.entry((life, fence)).or_insert_with(|| Grant {
                id,
                life,
                fence,
                locks,
                party: key.map_or(Party::Claim(id), Party::Key),
                low: not_before(ops, life, fence),
                seen: done,
                held: false,
                end: Nanos::MAX,
            });
            grant.seen = grant.seen.min(done);
            grant.held |= op.seen.is_held();
        }
        for grant in of_claim.values_mut() {
            let ends = ops.iter().filter(|op| may_end(op, grant.life) && history.over(op) > grant.low);
            grant.end = ends.map(|op| op.invoke).min().unwrap_or(Nanos::MAX);
        }
        all.extend(of_claim.into_values());
    }
    all
}

/// Whether this operation may have ended this life of its claim.
fn may_end(op: &Op, life: u32) -> bool {
    op.call == Call::End
        && match &op.seen {
            Seen::Nothing => true,
            Seen::Ended { life: ended, .. } => *ended >= life,
            _ => false,
        }
}

/// A moment before which the grant cannot have been made: after the first request, and after every look without this
/// grant that was over before a look with it began.
fn not_before(ops: &[&Op], life: u32, fence: u64) -> Nanos {
    let shows = |op: &&&Op| op.seen.grant().is_some_and(|(l, f, _)| (l, f) == (life, fence));
    let asked = ops.iter().filter(|op| op.call == Call::Ask).map(|op| op.invoke).min().unwrap_or(0);
    let Some(last_look) = ops.iter().filter(shows).map(|op| op.invoke).max() else { return asked };
    let without = ops.iter().filter(|op| op.done.is_some_and(|done| done <= last_look)).filter(|op| match &op.seen {
        Seen::Waiting { life: l } => *l <= life,
        Seen::Granted { life: l, .. } | Seen::Held { life: l, .. } | Seen::Ended { life: l, .. } => *l < life,
        Seen::Absent => true,
        Seen::Nothing | Seen::NotLive | Seen::Refused(_) => false,
    });
    without.map(|op| op.invoke).max().unwrap_or(0).max(asked)
}
