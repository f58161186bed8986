//! When a server may take over. It watches the head; nobody's clock but its own counts, and only how far it has moved.

use std::time::Duration;

use super::head::{Head, Id, Leader, Place, Write};
use crate::core::time::Span;

/// A server that wants to lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: Leader,
    span: Span,
    /// The head as it was last seen, and when it was first seen like that.
    seen: Option<(Option<Head>, Duration)>,
}

/// What a candidate may do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chance {
    /// Somebody leads. Look again, and at the latest at that time.
    Wait { until: Duration },
    /// The head has stood still for its span: this write may take over.
    Free(Write<'static>),
    /// An earlier take-over, whose outcome was unknown, may have succeeded: the head shows it. That it was read proves
    /// nothing. If a beat at this place is acknowledged, the candidate leads.
    Mine(Place),
}

impl Candidate {
    /// `span` is how long the head must stand still before others may take over from this server.
    #[must_use]
    pub fn new(me: Leader, span: Span) -> Self {
        Self { me, span, seen: None }
    }

    /// Who it is.
    #[must_use]
    pub fn me(&self) -> &Leader {
        &self.me
    }

    /// The time within which others must see a sign of it once it leads.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// Takes note of a head. `now` is read from a monotonic clock *after* the answer has arrived, so that a leader that
    /// counts from before it sent its last write gives up earlier than anybody takes over.
    pub fn look(&mut self, head: Option<Head>, now: Duration) -> Chance {
        if let Some(mine) = head.as_ref().filter(|head| head.leader.run == self.me.run) {
            let place = mine.place();
            self.seen = Some((head, now));
            return Chance::Mine(place);
        }
        let since = match &self.seen {
            Some((seen, since)) if *seen == head => *since,
            _ => now,
        };
        // The head's own span: its leader counts on it. If nobody has ever led, nobody counts on anything.
        let span = head.as_ref().map_or(Duration::ZERO, |head| Duration::from_millis(head.span.0));
        let until = since.saturating_add(span);
        self.seen = Some((head.clone(), since));
        if now >= until {
            Chance::Free(Write::take_over(head, self.me.clone(), self.span))
        } else {
            Chance::Wait { until }
        }
    }

    /// Who leads, as far as it knows.
    #[must_use]
    pub fn leader(&self) -> Option<&Leader> {
        self.seen.as_ref().and_then(|(head, _)| Some(&head.as_ref()?.leader)).filter(|leader| leader.run != Id::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::Seq;
    use super::*;
    use crate::core::time::EngineMs;

    fn head(term: u64, beat: u64, span: u64) -> Head {
        let leader = Leader { name: "a".to_owned(), run: Id(1) };
        Head { term, leader, seq: Seq(3), record: Id(33), beat, span: Span(span), engine: EngineMs(7) }
    }

    fn candidate() -> Candidate {
        Candidate::new(Leader { name: "b".to_owned(), run: Id(2) }, Span(1_000))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_waits_until_the_whole_head_has_stood_still_for_the_span_of_the_head() {
        let mut candidate = candidate();
        let steps = [
            (head(5, 1, 5_000), 0, Some(5_000)),
            (head(5, 1, 5_000), 4_999, Some(5_000)),
            // One beat, and it begins again.
            (head(5, 2, 5_000), 5_000, Some(10_000)),
            (Head { engine: EngineMs(8), ..head(5, 2, 5_000) }, 9_999, Some(14_999)),
            (head(6, 2, 5_000), 14_999, Some(19_999)),
            (head(6, 2, 5_000), 19_999, None),
        ];
        for (head, now, until) in steps {
            let expected = until.map_or_else(
                || Chance::Free(Write::take_over(Some(head.clone()), candidate.me.clone(), Span(1_000))),
                |until| Chance::Wait { until: ms(until) },
            );
            assert_eq!(candidate.look(Some(head), ms(now)), expected, "at {now}");
        }
    }

    #[test]
    fn it_takes_an_empty_log_and_one_that_was_given_up_at_once() {
        for free in [None, Some(head(5, 9, 0))] {
            assert!(matches!(candidate().look(free, ms(0)), Chance::Free(_)));
        }
    }

    #[test]
    fn a_take_over_of_its_own_is_not_taken_for_granted() {
        let mut candidate = candidate();
        let mine = Head { leader: candidate.me.clone(), ..head(6, 2, 1_000) };
        assert_eq!(candidate.look(Some(mine.clone()), ms(0)), Chance::Mine(mine.place()));
    }
}
