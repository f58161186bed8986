//! What must be known at once of each ended claim, in about 100 bytes each: that there is one of this id, when it is
//! forgotten, and whose build it is if it is remembered longer for that. The store has everything else of it
//! (docs/decisions/0024).

mod short;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use hashbrown::HashTable;

use super::EndedOutline;
use crate::core::claim::BuildRef;
use crate::core::names::ClaimId;
use crate::core::time::{Deadline, EngineMs, Span};
use short::{Clusters, ShortBuild, ShortId};

/// No claim.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Slot {
    id: ShortId,
    /// When its memory began.
    since: EngineMs,
    /// The number of its order.
    order: u32,
    /// Its build, if it is remembered longer because nobody knows that the build is over.
    build: Option<ShortBuild>,
    /// Its neighbours in the list of the claims of that build.
    before: u32,
    after: u32,
}

/// Claims that are remembered equally long, and that are forgotten equally early when there are too many.
#[derive(Debug, Clone)]
struct Order {
    span: Span,
    released: bool,
    oldest_first: BTreeSet<Age>,
}

/// Since when a claim is remembered. Of those that ended in the same millisecond, the first by the beginning of its id is
/// the oldest, so that it is the same one after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    since: EngineMs,
    id_begins: u64,
    slot: u32,
}

/// A place in the listing of the builds of ended claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct Place {
    order: usize,
    age: Age,
}

/// The index of ended claims.
#[derive(Debug, Clone, Default)]
pub(in crate::core) struct EndedIndex {
    slots: Vec<Slot>,
    /// Numbers of slots without a claim.
    free: Vec<u32>,
    by_id: HashTable<u32>,
    /// The first claim of each build.
    by_build: HashTable<u32>,
    clusters: Clusters,
    orders: Vec<Order>,
    /// Clients choose ids, and must not be able to choose equal hashes.
    seed: u64,
}

impl EndedIndex {
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    fn hash(&self, value: &impl Hash) -> u64 {
        hash(self.seed, value)
    }

    fn slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize]
    }

    fn age(&self, number: u32) -> Age {
        let Slot { since, id, .. } = self.slot(number);
        Age { since: *since, id_begins: id.beginning(), slot: number }
    }

    fn find(&self, id: &ShortId) -> Option<u32> {
        self.find_hashed(self.hash(id), id)
    }

    fn find_hashed(&self, hashed: u64, id: &ShortId) -> Option<u32> {
        self.by_id.find(hashed, |number| self.slot(*number).id == *id).copied()
    }

    pub fn contains(&self, id: &ClaimId) -> bool {
        self.find(&ShortId::of(id)).is_some()
    }

    /// When the claim is forgotten, if there is one.
    pub fn forget(&self, id: &ClaimId) -> Option<Deadline> {
        self.find(&ShortId::of(id)).map(|number| self.deadline(number))
    }

    fn deadline(&self, number: u32) -> Deadline {
        let Slot { since, order, .. } = *self.slot(number);
        let span = self.orders[order as usize].span;
        Deadline { at: since.plus(span), span }
    }

    /// Adds a claim; what was known of the id is forgotten. Its build is listed only with `listed`.
    pub fn insert(&mut self, claim: &EndedOutline, listed: bool) {
        let id = ShortId::of(&claim.id);
        let hashed = self.hash(&id);
        if let Some(known) = self.find_hashed(hashed, &id) {
            self.take_out(known);
        }
        let since = claim.since();
        let build = claim.build.as_ref().filter(|_| listed).map(|build| self.clusters.take(build));
        let order = self.order(claim.forget.span, claim.released);
        let slot = Slot { id, since, order, build, before: NONE, after: NONE };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 claims fit into memory")
            }
        };
        let (slots, seed) = (&self.slots, self.seed);
        self.by_id.insert_unique(hashed, number, |number| hash(seed, &slots[*number as usize].id));
        let age = self.age(number);
        self.orders[order as usize].oldest_first.insert(age);
        self.link(number);
    }

    /// Returns whether there was one.
    pub fn remove(&mut self, id: &ClaimId) -> bool {
        self.find(&ShortId::of(id)).is_some_and(|number| {
            self.take_out(number);
            true
        })
    }

    fn take_out(&mut self, number: u32) {
        self.unlink(number);
        let (slot, age) = (self.slot(number), self.age(number));
        let (hashed, order) = (self.hash(&slot.id), slot.order);
        if let Ok(entry) = self.by_id.find_entry(hashed, |other| *other == number) {
            entry.remove();
        }
        self.orders[order as usize].oldest_first.remove(&age);
        self.slots[number as usize].id = ShortId::Other(Box::default());
        self.free.push(number);
    }

    /// The number of this order.
    fn order(&mut self, span: Span, released: bool) -> u32 {
        let known = self.orders.iter().position(|order| order.span == span && order.released == released);
        let number = known.unwrap_or_else(|| {
            self.orders.push(Order { span, released, oldest_first: BTreeSet::new() });
            self.orders.len() - 1
        });
        u32::try_from(number).expect("fewer orders than claims")
    }

    /// Makes a claim the first one of its build.
    fn link(&mut self, number: u32) {
        let Some(build) = self.slot(number).build.clone() else { return };
        let hashed = self.hash(&build);
        let (slots, seed) = (&mut self.slots, self.seed);
        match self.by_build.find_mut(hashed, |first| slots[*first as usize].build.as_ref() == Some(&build)) {
            Some(first) => {
                slots[number as usize].after = *first;
                slots[*first as usize].before = number;
                *first = number;
            }
            None => {
                self.by_build.insert_unique(hashed, number, |first| hash_of_build(seed, &slots[*first as usize]));
            }
        }
    }

    /// Takes a claim out of the list of its build.
    fn unlink(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        let Some(build) = slot.build.take() else { return };
        let (before, after) = (std::mem::replace(&mut slot.before, NONE), std::mem::replace(&mut slot.after, NONE));
        if after != NONE {
            self.slots[after as usize].before = before;
        }
        if before != NONE {
            self.slots[before as usize].after = after;
        } else if let Ok(mut entry) = self.by_build.find_entry(hash(self.seed, &build), |first| *first == number) {
            if after == NONE {
                entry.remove();
            } else {
                *entry.get_mut() = after;
            }
        }
    }

    /// From now on, the claims of this build are remembered only for this long from their end. Returns what has changed.
    pub fn shorten(&mut self, build: &BuildRef, span: Span) -> Vec<(ClaimId, Deadline)> {
        let build = self.clusters.find(build);
        let first = self.by_build.find(self.hash(&build), |first| self.slot(*first).build.as_ref() == Some(&build));
        let mut next = first.copied().unwrap_or(NONE);
        let mut changed = Vec::new();
        while next != NONE {
            let number = next;
            next = self.slot(number).after;
            self.unlink(number);
            let (age, order) = (self.age(number), self.slot(number).order);
            let released = self.orders[order as usize].released;
            self.orders[order as usize].oldest_first.remove(&age);
            let order = self.order(span, released);
            self.orders[order as usize].oldest_first.insert(age);
            self.slots[number as usize].order = order;
            changed.push((self.slot(number).id.id(), self.deadline(number)));
        }
        changed
    }

    /// When the next claim is forgotten.
    pub fn next(&self) -> Option<EngineMs> {
        self.first_of_each().map(|(order, age)| age.since.plus(order.span)).min()
    }

    /// The claim that is forgotten next, if it is time.
    pub fn due(&self, now: EngineMs) -> Option<ClaimId> {
        let due = self.first_of_each().filter(|(order, age)| age.since.plus(order.span) <= now);
        due.min_by_key(|(order, age)| age.since.plus(order.span)).map(|(_, age)| self.slot(age.slot).id.id())
    }

    /// The claim that goes first when there are too many: a released one, and of those the oldest.
    pub fn first_to_go(&self) -> Option<ClaimId> {
        let first = self.first_of_each().min_by_key(|(order, age)| (!order.released, *age));
        first.map(|(_, age)| self.slot(age.slot).id.id())
    }

    fn first_of_each(&self) -> impl Iterator<Item = (&Order, Age)> {
        self.orders.iter().filter_map(|order| Some((order, *order.oldest_first.first()?)))
    }

    /// The listed builds of claims that ended up to `until`, with their places, after this place. A build comes once for
    /// each of its claims.
    pub fn builds(&self, after: Option<Place>, until: EngineMs) -> impl Iterator<Item = (Place, BuildRef)> {
        let skipped = after.map_or(0, |place| place.order);
        self.orders.iter().enumerate().skip(skipped).flat_map(move |(number, order)| {
            let from = match after {
                Some(place) if place.order == number => Bound::Excluded(place.age),
                _ => Bound::Unbounded,
            };
            let ended = order.oldest_first.range((from, Bound::Unbounded)).take_while(move |age| age.since <= until);
            ended.filter_map(move |age| {
                let build = self.clusters.build(self.slot(age.slot).build.as_ref()?)?;
                Some((Place { order: number, age: *age }, build))
            })
        })
    }
}

fn hash(seed: u64, value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, value).hash(&mut hasher);
    hasher.finish()
}

fn hash_of_build(seed: u64, slot: &Slot) -> u64 {
    slot.build.as_ref().map_or(0, |build| hash(seed, build))
}

#[cfg(test)]
impl EndedIndex {
    /// What it knows of each claim: its id, whether it was released, when it is forgotten, and its build if it is listed.
    pub fn known(&self) -> std::collections::BTreeMap<ClaimId, (bool, Deadline, Option<BuildRef>)> {
        let numbers = self.by_id.iter().copied();
        let known = numbers.map(|number| {
            let slot = self.slot(number);
            let build = slot.build.as_ref().and_then(|build| self.clusters.build(build));
            (slot.id.id(), (self.orders[slot.order as usize].released, self.deadline(number), build))
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests;
