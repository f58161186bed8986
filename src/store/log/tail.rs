//! Which records follow which: what a reader of a log has seen last. Values only.

use super::head::{Id, Record, Seq};

/// The last record that a reader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    pub seq: Seq,
    pub record: Id,
}

/// A record does not follow the last one that was seen: the log was set back to an older state, and has gone another way
/// since. Whatever was read must be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {} does not follow what was read before it: the log was set back to an older state", .at.0)]
pub struct SetBack {
    pub at: Seq,
}

impl Tail {
    /// Takes note of the next record.
    ///
    /// # Errors
    /// It does not follow; nothing was noted.
    pub fn follow(&mut self, record: &Record) -> Result<(), SetBack> {
        if record.seq != self.seq.next() || record.before != self.record {
            return Err(SetBack { at: record.seq });
        }
        *self = Self { seq: record.seq, record: record.id };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_one_before_it() {
        let record =
            |seq, id, before| Record { seq: Seq(seq), id: Id(id), before: Id(before), term: 1, bytes: Vec::new() };
        let mut tail = Tail::default();
        for (seq, id, before) in [(1, 11, 0), (2, 22, 11), (3, 33, 22)] {
            tail.follow(&record(seq, id, before)).unwrap();
        }
        for wrong in [record(5, 55, 33), record(3, 33, 22), record(4, 44, 34), record(4, 44, 0)] {
            assert_eq!(tail.follow(&wrong), Err(SetBack { at: wrong.seq }));
        }
        assert_eq!(tail, Tail { seq: Seq(3), record: Id(33) });
        tail.follow(&record(4, 44, 33)).unwrap();
    }
}
