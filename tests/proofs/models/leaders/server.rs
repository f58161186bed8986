//! A server: it follows, takes over, and leads.

use super::Without;
use super::store::{Answer, Change, ClientId, Disk, Fence, Head, Lock, Record, RecordId, Store, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    Claim(ClientId),
    Release(ClientId),
    /// Who holds the lock: a GET of a claim, or `verify`.
    Who,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiting {
    pub request: Request,
    /// The number of the first write that was sent after it had arrived.
    pub covered: Option<u8>,
    /// What has been true of the lock since it arrived ([`Lock::bit`]). The servers do not see it.
    pub truths: u16,
    /// The length of the log that had been acknowledged when it arrived. The servers do not see it either.
    pub before: usize,
}

/// A batch that the log may have or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    pub record: Record,
    /// The head has shown it, but no write has been acknowledged since.
    pub is_seen: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// For how long the head has looked the same.
    Follower {
        same: u8,
    },
    Candidate,
    Leader {
        pending: Option<Pending>,
        /// The time since the newest acknowledged write was sent.
        lease: u8,
    },
}

/// A write without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outstanding {
    pub number: u8,
    /// The time since it was sent.
    pub age: u8,
    /// The record that is in the log when this write has taken effect.
    pub record: RecordId,
}

/// An answer to a client: what it says of the lock, and what has been true meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub request: Request,
    pub lock: Lock,
    pub truths: u16,
    /// Whether it shows what had been acknowledged before.
    pub is_current: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub role: Role,
    /// The head as it was last seen. A leader's own writes that were acknowledged are in it.
    pub seen: Head,
    /// Its copy of the log.
    pub log: Vec<Record>,
    /// The newest fence that it has ever seen or given.
    pub newest: Fence,
    pub sent: u8,
    pub outstanding: Vec<Outstanding>,
    pub waiting: Vec<Waiting>,
}

impl Server {
    pub fn new(role: Role, seen: Head) -> Self {
        let (log, outstanding, waiting) = (Vec::new(), Vec::new(), Vec::new());
        Self { role, seen, log, newest: 0, sent: 0, outstanding, waiting }
    }

    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    pub fn has_lease(&self) -> bool {
        matches!(self.role, Role::Leader { lease, .. } if lease < self.seen.span)
    }

    pub fn tick(&mut self) {
        let span = self.seen.span;
        let older = |age: &mut u8| *age = (*age + 1).min(span);
        match &mut self.role {
            Role::Follower { same } => older(same),
            Role::Leader { lease, .. } => older(lease),
            Role::Candidate => {}
        }
        self.outstanding.iter_mut().for_each(|write| older(&mut write.age));
    }

    /// A request arrives. With the rule left out, a lease vouches for the answer.
    pub fn arrive(&mut self, request: Request, truths: u16, before: usize, without: Without) -> Vec<Told> {
        let vouched = without == Without::Beats && self.has_lease();
        self.waiting.push(Waiting { request, covered: vouched.then_some(0), truths, before });
        self.answer(0, without)
    }

    /// It looks at the head, and reads what is new in the log.
    pub fn look(&mut self, disk: &Disk, without: Without) {
        let length = self.log.len();
        let last = self.log.last().map_or(0, |record| record.id);
        let next = disk.log.get(length).map(|record| record.before);
        let fits = length <= disk.log.len() && next.unwrap_or(disk.head.record) == last;
        if fits || without == Without::Predecessor {
            self.log.extend(disk.log.iter().skip(length).cloned());
        } else {
            self.log.clone_from(&disk.log);
        }
        self.see_fences(&disk.log);
        self.seen = disk.head;
        self.role = Role::Follower { same: 0 };
    }

    /// It stops leading, or is killed and started again. Whoever waits hears that the outcome is unknown, or nothing.
    pub fn step_down(&mut self, disk: &Disk, without: Without) {
        self.outstanding.clear();
        self.waiting.clear();
        self.look(disk, without);
    }

    /// Numbers its writes from 1. `renumbered` tells the new number of each that has no answer yet.
    pub fn renumber(&mut self, mut renumbered: impl FnMut(u8, u8)) {
        let old: Vec<u8> = self.outstanding.iter().map(|write| write.number).collect();
        let new = |number| u8::try_from(old.iter().filter(|other| **other < number).count() + 1).unwrap();
        for write in &mut self.outstanding {
            renumbered(write.number, new(write.number));
            write.number = new(write.number);
        }
        self.sent = u8::try_from(old.len()).unwrap();
        for one in &mut self.waiting {
            // When all writes since it arrived have had an answer, the next one is the first.
            one.covered = one.covered.map(new).filter(|covered| *covered <= self.sent);
        }
    }

    pub fn take_over(&mut self, me: usize, store: &mut Store) {
        self.role = Role::Candidate;
        self.outstanding.clear();
        self.write(me, store, self.seen.record, Write::TakeOver { seen: self.seen });
    }

    fn write(&mut self, me: usize, store: &mut Store, record: RecordId, write: Write) {
        self.sent += 1;
        let number = self.sent;
        self.outstanding.push(Outstanding { number, age: 0, record });
        self.waiting.iter_mut().for_each(|waiting| waiting.covered = waiting.covered.or(Some(number)));
        store.send(me, number, write);
    }

    /// What the log needs for this request.
    fn change(
        &self,
        request: Request,
        lock: Lock,
        is_used: impl Fn(ClientId) -> bool,
        without: Without,
    ) -> Option<Change> {
        match request {
            // A claim's id is good for one grant.
            Request::Claim(n) if lock.holder.is_none() && !is_used(n) => {
                let newest = if without == Without::Newest { 0 } else { self.newest };
                Some(Change::Grant(n, lock.fence.max(newest) + 1))
            }
            Request::Release(n) if lock.holder.is_some_and(|(holder, _)| holder == n) => Some(Change::Release(n)),
            _ => None,
        }
    }

    fn is_used(&self, n: ClientId) -> bool {
        self.log
            .iter()
            .flat_map(|record| &record.changes)
            .any(|change| matches!(change, Change::Grant(m, _) if *m == n))
    }

    /// Whether its next batch has changes.
    pub fn changes(&self, without: Without) -> bool {
        !self.batch(without).is_empty()
    }

    fn batch(&self, without: Without) -> Vec<Change> {
        let mut lock = Lock::of(&self.log);
        let mut changes: Vec<Change> = Vec::new();
        for waiting in &self.waiting {
            let granted = |n| changes.iter().any(|change| matches!(change, Change::Grant(m, _) if *m == n));
            if let Some(change) = self.change(waiting.request, lock, |n| granted(n) || self.is_used(n), without) {
                lock.apply(change);
                changes.push(change);
            }
        }
        changes
    }

    /// The next write of a leader: a new batch, the same one again, or a beat. `fresh` makes ids of records.
    pub fn lead(&mut self, me: usize, store: &mut Store, mut fresh: impl FnMut() -> u8, without: Without) -> Vec<Told> {
        let Role::Leader { pending, lease } = self.role.clone() else { return Vec::new() };
        self.seen.beat += 1;
        let pending = match pending {
            Some(pending) => Some(self.again(pending, store, &mut fresh, without)),
            None => match self.batch(without) {
                changes if changes.is_empty() => None,
                changes => {
                    let id = fresh();
                    let record = Record { id, before: self.seen.record, batch: id, changes };
                    self.see_fences(std::slice::from_ref(&record));
                    Some(Pending { record, is_seen: false })
                }
            },
        };
        let at = self.seen;
        self.role = Role::Leader { pending: pending.clone(), lease };
        match pending {
            None => self.write(me, store, at.record, Write::Beat { at }),
            Some(Pending { record, is_seen: true }) => {
                let at = Head { seq: at.seq + 1, record: record.id, ..at };
                self.write(me, store, record.id, Write::Beat { at });
            }
            Some(Pending { record, is_seen: false }) => {
                self.write(me, store, record.id, Write::Append { at, record: record.clone() });
                if without == Without::Acknowledgement {
                    self.commit(record);
                    return self.answer(self.sent, without);
                }
            }
        }
        Vec::new()
    }

    /// A batch without an answer is sent again: the identical record, unless that rule is left out.
    fn again(&mut self, pending: Pending, store: &Store, fresh: impl FnOnce() -> u8, without: Without) -> Pending {
        let Pending { record, is_seen } = pending;
        let record = match without {
            _ if is_seen => record,
            Without::SameId if store.disk.head.term == self.seen.term => {
                self.seen = store.disk.head;
                self.log.clone_from(&store.disk.log);
                Record { id: fresh(), before: self.seen.record, ..record }
            }
            Without::SameContent => Record { changes: self.batch(without), ..record },
            _ => record,
        };
        Pending { record, is_seen }
    }

    fn see_fences(&mut self, log: &[Record]) {
        self.newest = self.newest.max(Lock::of(log).fence);
    }

    fn commit(&mut self, record: Record) {
        self.seen = Head { seq: self.seen.seq + 1, record: record.id, ..self.seen };
        self.log.push(record);
        if let Role::Leader { pending, .. } = &mut self.role {
            *pending = None;
        }
    }

    /// The store answers. Returns what the clients are told.
    pub fn hear(&mut self, answer: &Answer, disk: &Disk, without: Without) -> Vec<Told> {
        let Some(at) = self.outstanding.iter().position(|write| write.number == answer.number) else {
            return Vec::new();
        };
        let write = self.outstanding[at];
        match (&mut self.role, answer.outcome) {
            (Role::Candidate, Ok(_)) => {
                self.outstanding.clear();
                self.seen = Head { term: self.seen.term + 1, beat: self.seen.beat + 1, ..self.seen };
                self.role = Role::Leader { pending: None, lease: write.age };
            }
            (Role::Leader { pending, lease }, Ok(_)) => {
                let age = if without == Without::CountedFromSending { 0 } else { write.age };
                *lease = age.min(*lease);
                let committed = pending.clone().filter(|pending| pending.record.id == write.record);
                self.outstanding.drain(..=at);
                committed.into_iter().for_each(|pending| self.commit(pending.record));
                let number = if without == Without::OwnAnswer { self.sent } else { answer.number };
                return self.answer(number, without);
            }
            (Role::Leader { pending, .. }, Err(head)) => {
                self.outstanding.remove(at);
                let shows = |id| head.term == self.seen.term && head.record == id;
                match pending.clone() {
                    Some(unknown) if shows(unknown.record.id) => {
                        if without == Without::DecidingBeat {
                            self.commit(unknown.record);
                            return self.answer(answer.number, without);
                        }
                        *pending = Some(Pending { is_seen: true, ..unknown });
                    }
                    _ if shows(self.seen.record) => {}
                    Some(_) if without == Without::SameId && head.term == self.seen.term => {}
                    _ => self.step_down(disk, without),
                }
            }
            _ => self.step_down(disk, without),
        }
        Vec::new()
    }

    /// Answers what the acknowledged write of this number vouches for. What needs a change waits for its append.
    fn answer(&mut self, number: u8, without: Without) -> Vec<Told> {
        let lock = Lock::of(&self.log);
        let mut told = Vec::new();
        let waiting = std::mem::take(&mut self.waiting);
        for mut one in waiting {
            let is_covered = one.covered.is_some_and(|covered| covered <= number);
            if !is_covered && (without != Without::SentAfter || number == 0) {
                self.waiting.push(one);
            } else if self.change(one.request, lock, |n| self.is_used(n), without).is_some() {
                one.covered = None;
                self.waiting.push(one);
            } else {
                let is_current = one.before <= self.log.len();
                told.push(Told { request: one.request, lock, truths: one.truths, is_current });
            }
        }
        told
    }
}
