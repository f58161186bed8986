//! Tickets: the order in which claims came. They are far apart, so that a moved claim gets a ticket between two others,
//! and no other claim needs a new one.

use std::ops::Bound;

use super::State;
use crate::core::names::{ClaimId, Ticket};

/// The distance between consecutive tickets: enough for twenty moves to one place.
const GAP: u64 = 1 << 20;

impl State {
    pub(in crate::core) fn give_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += GAP;
        ticket
    }

    /// Gives a waiting claim a ticket just before (`earlier`) or just after that of another live claim. Granted claims
    /// count too, because they may wait again.
    pub(in crate::core) fn move_ticket(&mut self, id: &ClaimId, beside: Ticket, earlier: bool) {
        let before = || self.others(id, Bound::Unbounded, Bound::Excluded(beside)).next_back();
        let after = || self.others(id, Bound::Excluded(beside), Bound::Unbounded).next();
        let (low, high) = if earlier {
            (before().map(|(ticket, _)| ticket), Some(beside))
        } else {
            (Some(beside), after().map(|(ticket, _)| ticket))
        };
        let tickets = match (low, high) {
            (Some(_), None) | (None, None) => vec![(id.clone(), self.give_ticket())],
            (None, Some(high)) if high.0 > GAP => vec![(id.clone(), Ticket(high.0 - GAP))],
            (low, Some(high)) => self.tickets_between(id, low.map_or(0, |low| low.0), high),
        };
        self.set_tickets(&tickets);
    }

    /// The ticket in the middle. When there is none, the next claims move up, as many as necessary.
    fn tickets_between(&mut self, id: &ClaimId, low: u64, high: Ticket) -> Vec<(ClaimId, Ticket)> {
        let mut moving = 0;
        loop {
            let next = || self.others(id, Bound::Included(high), Bound::Unbounded);
            let step = next().nth(moving).map_or(GAP, |(end, _)| (end.0 - low) / (moving as u64 + 2));
            if step > 0 {
                let ids = std::iter::once(id).chain(next().take(moving).map(|(_, other)| other));
                let tickets = (1..).map(|n| Ticket(low + step * n));
                let moved: Vec<(ClaimId, Ticket)> = ids.cloned().zip(tickets).collect();
                let last = moved.last().map_or(0, |(_, ticket)| ticket.0);
                self.next_ticket = self.next_ticket.max(last + GAP);
                return moved;
            }
            moving = (2 * moving).max(1);
        }
    }

    /// Whether exactly the tickets of the live claims are listed.
    pub(in crate::core) fn lists_all_tickets(&self) -> bool {
        let known = |(ticket, id): (&Ticket, &ClaimId)| self.claim(id).is_some_and(|claim| claim.ticket == *ticket);
        self.tickets.len() == self.snapshot.claims.len() && self.tickets.iter().all(known)
    }

    /// Live claims except this one with tickets in this range, in ticket order.
    fn others<'s>(
        &'s self,
        id: &'s ClaimId,
        from: Bound<Ticket>,
        to: Bound<Ticket>,
    ) -> impl DoubleEndedIterator<Item = (Ticket, &'s ClaimId)> {
        self.tickets.range((from, to)).filter(move |(_, other)| *other != id).map(|(ticket, other)| (*ticket, other))
    }
}
