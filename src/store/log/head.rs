//! The head of a log, and the writes that compare and change it. Values only.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::core::time::{EngineMs, Span};

/// A random number that nobody makes twice. Written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u128);

impl Id {
    /// The predecessor of the first record.
    pub const NONE: Self = Self(0);

    /// A new one.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Id {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Numbers the records from 1; 0 is the empty log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The time of one leader. Terms grow with each take-over, so they order the leaders. A database that was set back to an
/// older state may give a term twice; the random number tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reign {
    pub term: u64,
    pub run: Id,
}

/// A place in a log: who leads, and which record was the last. A leader knows its place, and it changes with each append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub reign: Reign,
    pub seq: Seq,
    /// The id of the record with that number, or [`Id::NONE`].
    pub record: Id,
}

impl Place {
    /// The place after this record.
    #[must_use]
    pub fn after(self, record: &Record) -> Self {
        Self { seq: record.seq, record: record.id, ..self }
    }
}

/// Who leads, or wants to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// For people, and for servers that want to reach it.
    pub name: String,
    /// Random, and new for each start.
    pub run: Id,
}

impl Leader {
    /// The part of its name that people know: its address, without the key behind it.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.name.split_once(' ').map_or(&self.name, |(address, _)| address)
    }
}

/// The one value that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub term: u64,
    pub leader: Leader,
    /// The last record.
    pub seq: Seq,
    /// Its id.
    pub record: Id,
    /// Raised by every write.
    pub beat: u64,
    /// Another server may take over when the whole head has stood still for this long. 0: at once.
    pub span: Span,
    /// The leader's engine time at its last write.
    pub engine: EngineMs,
}

impl Head {
    #[must_use]
    pub fn place(&self) -> Place {
        let reign = Reign { term: self.term, run: self.leader.run };
        Place { reign, seq: self.seq, record: self.record }
    }
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub seq: Seq,
    pub id: Id,
    /// The id of the record before it.
    pub before: Id,
    /// The term in which it was appended.
    pub term: u64,
    pub bytes: Vec<u8>,
}

/// What a write compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The head is at this place. Its beat, span and engine time do not matter.
    At(Place),
    /// The head is this one, in everything.
    Same(Option<Head>),
    /// The planted bug: an append that does not compare who leads.
    #[cfg(any(test, feature = "plant"))]
    SeqAlone(Seq),
    /// The planted bug: a take-over that compares the term alone.
    #[cfg(any(test, feature = "plant"))]
    TermAlone(u64),
}

/// What a write changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'r> {
    Append { record: &'r Record, engine: EngineMs },
    Beat { span: Span, engine: EngineMs },
    TakeOver { leader: Leader, span: Span },
}

/// A comparison with a change. Repeating the same write cannot do anything twice that matters: an append moves the place
/// that it expects, and so does a take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<'r> {
    pub expect: Expect,
    pub change: Change<'r>,
}

impl<'r> Write<'r> {
    /// The leader at this place appends the record that follows it.
    #[must_use]
    pub fn append(at: Place, record: &'r Record, engine: EngineMs) -> Self {
        Self { expect: Expect::At(at), change: Change::Append { record, engine } }
    }

    /// The leader at this place says that it lives. With a span of 0 it gives the head up.
    #[must_use]
    pub fn beat(at: Place, span: Span, engine: EngineMs) -> Self {
        Self { expect: Expect::At(at), change: Change::Beat { span, engine } }
    }

    /// Somebody who has watched this head takes over from it.
    #[must_use]
    pub fn take_over(seen: Option<Head>, leader: Leader, span: Span) -> Self {
        Self { expect: Expect::Same(seen), change: Change::TakeOver { leader, span } }
    }

    /// Whether the head is as expected.
    #[must_use]
    pub fn fits(&self, head: Option<&Head>) -> bool {
        match &self.expect {
            Expect::At(place) => head.is_some_and(|head| head.place() == *place),
            Expect::Same(seen) => head == seen.as_ref(),
            #[cfg(any(test, feature = "plant"))]
            Expect::SeqAlone(seq) => head.is_some_and(|head| head.seq == *seq),
            #[cfg(any(test, feature = "plant"))]
            Expect::TermAlone(term) => head.is_some_and(|head| head.term == *term),
        }
    }

    /// The head that the write makes of one that fits. `None` where only a leader may write, and nobody has ever led.
    #[must_use]
    pub fn made_of(&self, head: Option<&Head>) -> Option<Head> {
        let mut made = match (&self.change, head) {
            (Change::TakeOver { leader, .. }, None) => Head {
                term: 0,
                leader: leader.clone(),
                seq: Seq(0),
                record: Id::NONE,
                beat: 0,
                span: Span(0),
                engine: EngineMs(0),
            },
            (_, head) => head?.clone(),
        };
        made.beat = made.beat.saturating_add(1);
        match &self.change {
            Change::Append { record, engine } => {
                (made.seq, made.record, made.engine) = (record.seq, record.id, *engine);
            }
            Change::Beat { span, engine } => (made.span, made.engine) = (*span, *engine),
            Change::TakeOver { leader, span } => {
                made.term = made.term.saturating_add(1);
                (made.leader, made.span) = (leader.clone(), *span);
            }
        }
        Some(made)
    }
}
