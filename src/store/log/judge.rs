//! What the outcome of a leader's write means. Values only.

use std::fmt;

use super::head::{Head, Place, Record};
use super::{Trouble, Written};

/// What a leader does after it has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable, and it still leads.
    Done,
    /// Nobody knows: the identical write must be repeated.
    Repeat,
    /// The head shows the record, so an earlier attempt has reached it. That it was read proves nothing, for the database
    /// may yet lose it: an acknowledged beat behind the record decides.
    Prove,
    Lost(Lost),
}

/// Why a server no longer leads. What it had in flight may have happened or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// Somebody else has taken over.
    Deposed { by: String, term: u64 },
    /// The log does not show what was acknowledged: the database was set back to an older state, or was written by hand.
    SetBack,
    /// No outcome was known for as long as others wait before they take over.
    Unknown(Trouble),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposed { by, term } => write!(f, "{by:?} has taken over (term {term})"),
            Self::SetBack => f.write_str(
                "the log does not show what was acknowledged: the database was set back to an older state (a standby \
                 without synchronous replication was promoted, or a backup was restored), or it was written by hand",
            ),
            Self::Unknown(trouble) => write!(f, "the outcome of a write stayed unknown: {trouble}"),
        }
    }
}

impl std::error::Error for Lost {}

/// Judges a write of the leader at `place`. `record` is what it appends there; a beat appends nothing.
#[must_use]
pub fn judge(place: Place, record: Option<&Record>, outcome: &Result<Written, Trouble>) -> Verdict {
    match outcome {
        Ok(Written::Done(_)) => Verdict::Done,
        Err(_) => Verdict::Repeat,
        Ok(Written::Refused(None)) => Verdict::Lost(Lost::SetBack),
        Ok(Written::Refused(Some(head))) => judge_head(place, record, head),
    }
}

fn judge_head(place: Place, record: Option<&Record>, head: &Head) -> Verdict {
    let shown = head.place();
    if shown.reign != place.reign {
        let by = head.leader.shown().to_owned();
        let newer = head.term > place.reign.term;
        return Verdict::Lost(if newer { Lost::Deposed { by, term: head.term } } else { Lost::SetBack });
    }
    if shown == place {
        // It was refused, and yet it fits: something else has changed between the comparison and the look.
        return Verdict::Repeat;
    }
    match record {
        Some(record) if shown == place.after(record) => Verdict::Prove,
        _ => Verdict::Lost(Lost::SetBack),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::super::head::{Id, Leader, Reign, Seq};
    use super::*;
    use crate::core::time::{EngineMs, Span};

    fn head(term: u64, run: u128, seq: u64, record: u128) -> Head {
        let leader = Leader { name: "x".to_owned(), run: Id(run) };
        Head { term, leader, seq: Seq(seq), record: Id(record), beat: 9, span: Span(1), engine: EngineMs(0) }
    }

    #[test]
    fn each_outcome_has_one_meaning() {
        let place = Place { reign: Reign { term: 5, run: Id(1) }, seq: Seq(3), record: Id(33) };
        let record = Record { seq: Seq(4), id: Id(44), before: Id(33), term: 5, bytes: Vec::new() };
        let deposed = || Verdict::Lost(Lost::Deposed { by: "x".to_owned(), term: 6 });
        let set_back = || Verdict::Lost(Lost::SetBack);
        let refused = |head| Ok(Written::Refused(Some(head)));
        let unknown = Trouble { cause: Cause::NoAnswer, text: String::new() };
        let cases = [
            ("acknowledged", Ok(Written::Done(place.after(&record))), Verdict::Done),
            ("no answer", Err(unknown), Verdict::Repeat),
            ("a look from before", refused(head(5, 1, 3, 33)), Verdict::Repeat),
            ("its own record", refused(head(5, 1, 4, 44)), Verdict::Prove),
            ("another leader", refused(head(6, 2, 3, 33)), deposed()),
            ("another leader with its record", refused(head(6, 2, 4, 44)), deposed()),
            ("another leader of the same term", refused(head(5, 2, 3, 33)), set_back()),
            ("an earlier term", refused(head(4, 1, 3, 33)), set_back()),
            ("an earlier record", refused(head(5, 1, 2, 22)), set_back()),
            ("another record", refused(head(5, 1, 4, 45)), set_back()),
            ("nothing", Ok(Written::Refused(None)), set_back()),
        ];
        for (name, outcome, verdict) in cases {
            assert_eq!(judge(place, Some(&record), &outcome), verdict, "{name}");
            // A beat has no record that the head could show.
            let of_beat = if verdict == Verdict::Prove { set_back() } else { verdict };
            assert_eq!(judge(place, None, &outcome), of_beat, "a beat: {name}");
        }
    }
}
