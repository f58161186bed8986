//! How a pool serves its queue: the rules that its owners may set.

use std::collections::BTreeSet;

use super::super::claim::{Claim, Scope};
use super::super::names::Ticket;
use super::super::time::Span;

/// The order of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// First come, first served.
    #[default]
    Fifo,
    /// The highest priority first; among equals, first come, first served.
    Priority,
    /// Last come, first served.
    Lifo,
}

/// Whether a later claim may be served before an earlier one that waits and listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overtaking {
    /// No (but see `super::super::deadlock`).
    #[default]
    Strict,
    /// Yes, while the earlier one cannot be served; with a number, at most that many times past each claim.
    Backfill(Option<u32>),
}

/// Which of several free locks a claim gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pick {
    /// The one that was used least recently.
    #[default]
    LeastRecent,
    /// Any, at random.
    Random,
    /// The first by name.
    Name,
}

/// What becomes of claims for locks that the pool does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenEmpty {
    /// They wait until the locks are added.
    Wait,
    /// They are refused.
    Fail,
}

/// A place in the queue of a pool: smaller ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    rank: i32,
    ticket: Ticket,
}

impl Place {
    /// Before every claim.
    pub const FIRST: Self = Self { rank: i32::MIN, ticket: Ticket(0) };

    /// The first place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self { ticket: self.ticket.next(), ..self }
    }
}

impl Order {
    /// The place of a claim in queues of this order. It is the same in all its queues, so sets of locks cannot
    /// deadlock.
    #[must_use]
    pub fn place(self, claim: &Claim) -> Place {
        match self {
            Self::Fifo => Place { rank: 0, ticket: claim.ticket },
            Self::Priority => Place { rank: -claim.terms.priority.get(), ticket: claim.ticket },
            Self::Lifo => Place { rank: 0, ticket: Ticket(u64::MAX - claim.ticket.0) },
        }
    }

    /// The stable word for this order.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Priority => "priority",
            Self::Lifo => "lifo",
        }
    }
}

/// The rules by which a pool hands out its locks (docs/policies.md). `None` means the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The order in which claims are served.
    pub order: Order,
    pub overtaking: Overtaking,
    pub pick: Pick,
    /// How long a lock stays out of use after its holder was lost.
    pub drain: Option<Span>,
    /// The longest time that a claim may hold a lock.
    pub max_hold: Option<Span>,
    /// The most claims that may wait; at most [`WAITERS_PER_POOL`](super::super::limits::WAITERS_PER_POOL).
    pub max_queue: Option<u32>,
    /// The scope of claims that name none; defaults to `flow`. Never `lease`, because a client that does not ask for a
    /// lease does not renew.
    pub scope: Option<Scope>,
    /// `None` leaves it to the claim ([`Terms::waits_if_empty`](super::super::claim::Terms::waits_if_empty)).
    pub when_empty: Option<WhenEmpty>,
    pub cut_short: CutShort,
}

/// What becomes of a `flow` hold that no other build has fetched when its build is errored, aborted or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CutShort {
    /// It is lost.
    #[default]
    End,
    /// It stays, so that somebody can look at what it protects.
    Keep,
}

/// One rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    Order,
    Overtaking,
    Pick,
    Drain,
    MaxHold,
    MaxQueue,
    Scope,
    WhenEmpty,
    CutShort,
}

/// A change of a policy: these rules become those of `to`, and the others stay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyChange {
    pub rules: BTreeSet<Rule>,
    pub to: Policy,
}

impl Policy {
    /// This policy after a change.
    #[must_use]
    pub fn changed(&self, change: &PolicyChange) -> Self {
        let mut policy = self.clone();
        let PolicyChange { rules, to } = change;
        for rule in rules {
            match rule {
                Rule::Order => policy.order = to.order,
                Rule::Overtaking => policy.overtaking = to.overtaking,
                Rule::Pick => policy.pick = to.pick,
                Rule::Drain => policy.drain = to.drain,
                Rule::MaxHold => policy.max_hold = to.max_hold,
                Rule::MaxQueue => policy.max_queue = to.max_queue,
                Rule::Scope => policy.scope = to.scope,
                Rule::WhenEmpty => policy.when_empty = to.when_empty,
                Rule::CutShort => policy.cut_short = to.cut_short,
            }
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_claim_is_between_a_place_and_the_next() {
        for (rank, ticket) in [(0, 0), (0, 7), (-3, 1 << 40), (i32::MIN, 0)] {
            let place = Place { rank, ticket: Ticket(ticket) };
            assert_eq!(place.next(), Place { rank, ticket: Ticket(ticket + 1) });
        }
    }
}
