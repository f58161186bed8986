//! The shared store: a log, and a head that is compared and set. It may have a standby, which follows it.

use super::Without;

/// Who claims.
pub type ClientId = usize;
pub type Fence = u8;
/// The random id of a record. 0 stands before the first one.
pub type RecordId = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    Grant(ClientId, Fence),
    Release(ClientId),
}

/// What one append adds to the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    pub id: RecordId,
    /// The predecessor's id.
    pub before: RecordId,
    /// The number of the batch. The servers do not see it; it tells whether a batch is in the log twice.
    pub batch: u8,
    pub changes: Vec<Change>,
}

/// What a log says about the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    pub holder: Option<(ClientId, Fence)>,
    /// The newest fence.
    pub fence: Fence,
}

impl Lock {
    pub fn of(log: &[Record]) -> Self {
        let mut lock = Self::default();
        log.iter().flat_map(|record| &record.changes).for_each(|change| lock.apply(*change));
        lock
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Grant(client, fence) => {
                self.holder = Some((client, fence));
                self.fence = self.fence.max(fence);
            }
            Change::Release(_) => self.holder = None,
        }
    }

    /// A bit for what is seen of the lock: who holds it with which fence, or nobody.
    pub fn bit(self) -> u16 {
        1 << self.holder.map_or(0, |(client, fence)| 2 * usize::from(fence) + client)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    pub term: u8,
    pub seq: u8,
    pub beat: u8,
    pub record: RecordId,
    /// In ticks of a server's own clock.
    pub span: u8,
}

/// A write, and what it compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Write {
    /// The head has the beat of the sender's choice afterwards.
    Append {
        at: Head,
        record: Record,
    },
    Beat {
        at: Head,
    },
    TakeOver {
        seen: Head,
    },
}

/// What is on one machine's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    pub head: Head,
    pub log: Vec<Record>,
    /// How many writes have taken effect, if that matters.
    pub version: u8,
}

impl Disk {
    /// Whether the write has taken effect.
    pub fn write(&mut self, write: &Write, without: Without) -> bool {
        let head = &mut self.head;
        let is_leader = |at: &Head, head: &Head| {
            (at.term == head.term || without == Without::Term)
                && at.seq == head.seq
                && (at.record == head.record || without == Without::Record)
        };
        match write {
            Write::Append { at, record } if is_leader(at, head) => {
                *head = Head { seq: head.seq + 1, beat: at.beat, record: record.id, ..*head };
                self.log.push(record.clone());
            }
            Write::Beat { at } if is_leader(at, head) && (head.beat < at.beat || without == Without::Rising) => {
                head.beat = at.beat;
            }
            Write::TakeOver { seen } => {
                let compared = if without == Without::Beat { Head { beat: head.beat, ..*seen } } else { *seen };
                if compared != *head {
                    return false;
                }
                *head = Head { term: head.term + 1, beat: head.beat + 1, ..*head };
            }
            _ => return false,
        }
        true
    }
}

/// A write on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sent {
    pub from: usize,
    /// The sender's number of it.
    pub number: u8,
    pub write: Write,
}

/// An answer on its way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Answer {
    pub to: usize,
    pub number: u8,
    /// If it took effect, the version that a standby must have. Else the head as it was.
    pub outcome: Result<u8, Head>,
}

/// What a second machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standby {
    None,
    /// A write is acknowledged when the standby has it, too. It can be read before that.
    Synchronous,
    /// A write is acknowledged at once: a standby that is promoted sets the log back.
    Asynchronous,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub disk: Disk,
    pub kind: Standby,
    pub standby: Disk,
    /// In no order. What stays here forever is lost.
    pub sent: Vec<Sent>,
    pub answers: Vec<Answer>,
}

impl Store {
    pub fn new(kind: Standby, span: u8) -> Self {
        let disk = Disk { head: Head { term: 1, seq: 0, beat: 0, record: 0, span }, log: Vec::new(), version: 0 };
        Self { standby: disk.clone(), disk, kind, sent: Vec::new(), answers: Vec::new() }
    }

    pub fn send(&mut self, from: usize, number: u8, write: Write) {
        self.sent.push(Sent { from, number, write });
        self.sent.sort();
    }

    /// A write arrives.
    pub fn deliver(&mut self, sent: &Sent, without: Without) {
        let took_effect = self.disk.write(&sent.write, without);
        self.disk.version += u8::from(took_effect && self.kind == Standby::Synchronous);
        let outcome = if took_effect { Ok(self.disk.version) } else { Err(self.disk.head) };
        self.answers.push(Answer { to: sent.from, number: sent.number, outcome });
        self.answers.sort();
        self.answers.dedup();
    }

    /// Forgets writes that nobody awaits and that can no longer take effect.
    pub fn tidy(&mut self, without: Without) {
        let head = self.disk.head;
        let is_over = |at: &Head| at.seq < head.seq || at.term < head.term && without != Without::Term;
        let (Standby::None, sent) = (self.kind, &mut self.sent) else { return };
        sent.retain(|sent| match &sent.write {
            Write::Append { at, .. } | Write::Beat { at } | Write::TakeOver { seen: at } => {
                sent.number != 0 || !is_over(at)
            }
        });
    }

    /// Whether the store gives this answer already.
    pub fn gives(&self, answer: &Answer) -> bool {
        self.kind != Standby::Synchronous || answer.outcome.is_err() || answer.outcome <= Ok(self.standby.version)
    }

    pub fn replicate(&mut self) {
        self.standby = self.disk.clone();
    }

    /// The machine is gone, and the standby takes its place. It has none of its own.
    pub fn promote(&mut self) {
        if self.kind == Standby::Synchronous {
            let version = self.standby.version;
            self.answers.retain(|answer| answer.outcome.is_err() || answer.outcome <= Ok(version));
        }
        self.disk = self.standby.clone();
        self.kind = Standby::None;
    }
}
