//! Pools and locks as data. [`policy`] has the rules of a pool.

pub mod policy;

use std::collections::VecDeque;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};

pub use self::policy::{CutShort, Order, Overtaking, Pick, Place, Policy, PolicyChange, Rule, WhenEmpty};
use super::claim::{Claim, Labels, Want};
use super::history::{Listed, Outline};
use super::limits;
use super::names::{ChangeKey, ClaimId, Fence, LockName, PoolName, Reason, Revision, Text};
use super::time::{Deadline, Span, WallMs};

/// One claim that has a lock, with what decides which claims may join it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub claim: ClaimId,
    pub fence: Fence,
    /// Key and requestor; `None` means exclusive.
    pub sharer: Option<(Text, Text)>,
}

/// Somebody has taken the lock out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    pub since: WallMs,
    /// It ends by itself at this deadline.
    pub until: Option<Deadline>,
    pub by: Option<Text>,
    pub reason: Option<Reason>,
}

/// One thing in a pool that can be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub name: LockName,
    /// The bytes as given; holders see them as the file `metadata`.
    pub metadata: Arc<[u8]>,
    pub labels: Arc<Labels>,
    /// More than one only with an equal key.
    pub holders: Vec<Holder>,
    /// Out of use until this deadline, after its holder was lost.
    pub drain: Option<Deadline>,
    /// While it is out of service nobody gets it; its holder keeps it.
    pub quarantine: Option<Quarantine>,
    /// The lock leaves the pool when its holder has gone and its drain is over (the pool was made smaller).
    pub leaving: bool,
    /// Nobody has asked for this lock by its name: the pool got it because it had no other. It leaves as soon as the pool
    /// is given locks, and comes after none of them. At most one lock of a pool is implicit.
    pub implicit: bool,
    /// The newest history entry about this lock, which is never pruned. The lock with the oldest one is picked first.
    pub newest: Option<ChangeKey>,
}

impl Lock {
    /// A free lock.
    #[must_use]
    pub fn new(name: LockName, metadata: Arc<[u8]>, labels: Arc<Labels>) -> Self {
        Self {
            name,
            metadata,
            labels,
            holders: Vec::new(),
            drain: None,
            quarantine: None,
            leaving: false,
            implicit: false,
            newest: None,
        }
    }

    /// The lock of a pool that has been given none.
    #[must_use]
    pub fn implicit(name: LockName) -> Self {
        Self { implicit: true, ..Self::new(name, Arc::from([]), Arc::default()) }
    }

    /// Whether it has no holder and any claim may get it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.is_in_service()
    }

    /// Whether any claim may get it at all.
    fn is_in_service(&self) -> bool {
        self.drain.is_none() && self.quarantine.is_none() && !self.leaving
    }

    /// Whether it is leaving the pool, and nothing keeps it any longer.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.leaving && self.holders.is_empty() && self.drain.is_none()
    }

    /// Whether a claim with this sharing party could get it now, regardless of the queue.
    #[must_use]
    pub fn admits(&self, sharer: Option<(&Text, &Text)>) -> bool {
        if !self.is_in_service() {
            return false;
        }
        let same_key = |h: &Holder| matches!((&h.sharer, sharer), (Some((held, _)), Some((key, _))) if held == key);
        // All holders have the same key (I1), so the first one is enough.
        self.holders.first().is_none_or(same_key) && self.holders.len() < limits::HOLDERS_PER_LOCK
    }

    /// The key with which other claims may join its holders now.
    #[must_use]
    pub fn open_to(&self) -> Option<&Text> {
        if !self.is_in_service() || self.holders.len() >= limits::HOLDERS_PER_LOCK {
            return None;
        }
        let (key, _) = self.holders.first()?.sharer.as_ref()?;
        Some(key)
    }

    /// Whether this requestor, with this key, has it already.
    #[must_use]
    pub fn is_held_by(&self, sharer: (&Text, &Text)) -> bool {
        self.holders.iter().any(|h| matches!(&h.sharer, Some((key, who)) if (key, who) == sharer))
    }

    /// Whether it carries all of `wanted`.
    #[must_use]
    pub fn matches(&self, wanted: &Labels) -> bool {
        wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// A named set of locks, its queue and its history.
#[derive(Debug, Clone)]
pub struct Pool {
    pub name: PoolName,
    pub policy: Policy,
    pub locks: OrdMap<LockName, Arc<Lock>>,
    /// Waiting claims in queue order.
    pub waiting: OrdMap<Place, ClaimId>,
    /// The same places as a list, which makes it fast to count the places before one.
    places: Vector<Place>,
    /// Free locks, least recently used first.
    pub free: OrdSet<(Option<ChangeKey>, LockName)>,
    /// Waiting claims with a key, by that key.
    pub keyed: OrdMap<(Text, Place), ClaimId>,
    /// Waiting claims that want locks of other pools too.
    pub wide: OrdSet<ClaimId>,
    /// The labels that waiting claims want here, and how many claims want them.
    labelled: OrdMap<Labels, usize>,
    /// The implicit lock while it leaves. Until it has left, one free lock is given to nobody, so that the pool never
    /// gives out more locks than it was declared with.
    pub retiring: Option<LockName>,
    /// Locks that are held with a key, and that other claims with that key may join.
    pub shared: OrdSet<(Text, LockName)>,
    /// History of this pool, oldest first. The entries themselves are in the store.
    pub changes: OrdMap<ChangeKey, Listed>,
    /// The newest revision of which an entry was pruned here: earlier ones may be missing.
    pub pruned: Revision,
    /// How long the last few holds here lasted, oldest first.
    holds: Arc<VecDeque<Span>>,
}

impl Pool {
    /// A pool without locks.
    #[must_use]
    pub fn new(name: PoolName, policy: Policy) -> Self {
        Self {
            name,
            policy,
            locks: OrdMap::new(),
            waiting: OrdMap::new(),
            places: Vector::new(),
            free: OrdSet::new(),
            keyed: OrdMap::new(),
            wide: OrdSet::new(),
            labelled: OrdMap::new(),
            retiring: None,
            shared: OrdSet::new(),
            changes: OrdMap::new(),
            pruned: Revision::default(),
            holds: Arc::default(),
        }
    }

    /// How many of the free locks may be given now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.free.len().saturating_sub(usize::from(self.retiring.is_some()))
    }

    /// Whether any claim could get a lock now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.open() > 0 || !self.shared.is_empty()
    }

    /// Locks that a claim with this key may join now, by name.
    pub fn shared_with<'p>(&'p self, key: &Text) -> impl Iterator<Item = &'p Lock> + use<'p> {
        let of = key.clone();
        let from = (key.clone(), LockName::smallest());
        let names = self.shared.range(from..).take_while(move |(key, _)| *key == of);
        names.filter_map(|(_, name)| self.locks.get(name)).map(AsRef::as_ref)
    }

    /// Waiting claims with this key, in their order.
    pub fn waiting_with<'p>(&'p self, key: &Text) -> impl Iterator<Item = (Place, &'p ClaimId)> + use<'p> {
        let of = key.clone();
        let from = (key.clone(), Place::FIRST);
        self.keyed.range(from..).take_while(move |((key, _), _)| *key == of).map(|((_, place), id)| (*place, id))
    }

    /// The labels that the claim wants here; `None` if it names its locks, or takes any.
    #[must_use]
    pub fn labels_of<'c>(&self, claim: &'c Claim) -> Option<&'c Labels> {
        let part = claim.terms.ask.parts.iter().find(|part| part.pool == self.name)?;
        match &part.want {
            Want::Any { labels, .. } if !labels.is_empty() => Some(labels),
            Want::Any { .. } | Want::Named(_) => None,
        }
    }

    /// The labels that the waiting claims want, and how many claims want them, if each claim here wants some and few
    /// are different: then a question about the whole queue is answered without a walk.
    #[must_use]
    pub fn wanted_labels(&self) -> Option<&OrdMap<Labels, usize>> {
        let few = self.labelled.len() <= limits::COMPARED_LABELS;
        (few && self.labelled.values().sum::<usize>() == self.waiting.len()).then_some(&self.labelled)
    }

    /// The claim's place in this pool's queue, whether it waits already or not.
    #[must_use]
    pub fn place(&self, claim: &Claim) -> Place {
        self.policy.order.place(claim)
    }

    /// How many claims wait before this place.
    #[must_use]
    pub fn waiting_before(&self, place: Place) -> usize {
        self.places.binary_search(&place).unwrap_or_else(|at| at)
    }

    /// Puts a waiting claim into its place in the queue.
    pub fn enqueue(&mut self, claim: &Claim) {
        let place = self.place(claim);
        if self.waiting.insert(place, claim.id.clone()).is_none() {
            if let Err(at) = self.places.binary_search(&place) {
                self.places.insert(at, place);
            }
            if let Some(labels) = self.labels_of(claim) {
                *self.labelled.entry(labels.clone()).or_default() += 1;
            }
        }
        if let Some(key) = &claim.terms.ask.key {
            self.keyed.insert((key.clone(), place), claim.id.clone());
        }
        if claim.terms.ask.parts.len() > 1 {
            self.wide.insert(claim.id.clone());
        }
    }

    /// Takes a claim out of the queue.
    pub fn dequeue(&mut self, claim: &Claim) {
        let place = self.place(claim);
        if self.waiting.remove(&place).is_some() {
            if let Ok(at) = self.places.binary_search(&place) {
                self.places.remove(at);
            }
            if let Some(labels) = self.labels_of(claim) {
                let left = self.labelled.get(labels).map_or(0, |count| count.saturating_sub(1));
                match left {
                    0 => self.labelled.remove(labels),
                    left => self.labelled.insert(labels.clone(), left),
                };
            }
        }
        if let Some(key) = &claim.terms.ask.key {
            self.keyed.remove(&(key.clone(), place));
        }
        self.wide.remove(&claim.id);
    }

    /// Replaces the policy. `waiting` contains all claims that wait here; they keep their places or get those of the
    /// new order.
    pub fn set_policy<'c>(&mut self, policy: Policy, waiting: impl IntoIterator<Item = &'c Claim>) {
        self.policy = policy;
        self.waiting.clear();
        self.places.clear();
        self.keyed.clear();
        self.wide.clear();
        self.labelled.clear();
        waiting.into_iter().for_each(|claim| self.enqueue(claim));
    }

    /// How long the last [`limits::HOLDS`] holds here lasted, oldest first.
    pub fn holds(&self) -> impl Iterator<Item = Span> + '_ {
        self.holds.iter().copied()
    }

    /// Lists an entry, newer than all others, in the history.
    pub fn list(&mut self, entry: &Outline) {
        self.changes.insert(entry.key, entry.listed);
        // A hold that seems to have taken no time saw the wall clock set back.
        let Some(lasted) = entry.held.filter(|held| *held > Span(0)) else { return };
        let holds = Arc::make_mut(&mut self.holds);
        if holds.len() >= limits::HOLDS {
            holds.pop_front();
        }
        holds.push_back(lasted);
    }

    /// Adds or replaces a lock, and keeps the sets of free and shared locks up to date.
    pub fn put_lock(&mut self, lock: Lock) {
        if lock.implicit {
            self.retiring = lock.leaving.then(|| lock.name.clone());
        } else if self.retiring.as_ref() == Some(&lock.name) {
            self.retiring = None;
        }
        let before = self.locks.get(&lock.name).and_then(|old| Standing::of(old));
        self.stands(&lock.name, before, Standing::of(&lock));
        self.locks.insert(lock.name.clone(), Arc::new(lock));
    }

    /// Changes the holders of a lock.
    pub fn change_holders(&mut self, name: &LockName, change: impl FnOnce(&mut Vec<Holder>)) {
        self.change_lock(name, |lock| change(&mut lock.holders));
    }

    /// Makes an entry the newest about a lock. Returns the one before; `None` if there is no such lock.
    pub fn set_newest(&mut self, name: &LockName, newest: ChangeKey) -> Option<Option<ChangeKey>> {
        self.change_lock(name, |lock| lock.newest.replace(newest))
    }

    fn change_lock<T>(&mut self, name: &LockName, change: impl FnOnce(&mut Lock) -> T) -> Option<T> {
        let lock = Arc::make_mut(self.locks.get_mut(name)?);
        let before = Standing::of(lock);
        let changed = change(lock);
        let after = Standing::of(lock);
        self.stands(name, before, after);
        Some(changed)
    }

    /// Removes a lock.
    pub fn take_lock(&mut self, name: &LockName) -> Option<Arc<Lock>> {
        if self.retiring.as_ref() == Some(name) {
            self.retiring = None;
        }
        let lock = self.locks.remove(name)?;
        self.stands(name, Standing::of(&lock), None);
        Some(lock)
    }

    fn stands(&mut self, name: &LockName, before: Option<Standing>, after: Option<Standing>) {
        if before == after {
            return;
        }
        match before {
            Some(Standing::Free(newest)) => drop(self.free.remove(&(newest, name.clone()))),
            Some(Standing::Shared(key)) => drop(self.shared.remove(&(key, name.clone()))),
            None => {}
        }
        match after {
            Some(Standing::Free(newest)) => drop(self.free.insert((newest, name.clone()))),
            Some(Standing::Shared(key)) => drop(self.shared.insert((key, name.clone()))),
            None => {}
        }
    }
}

/// In which set of a pool a lock is.
#[derive(PartialEq, Eq)]
enum Standing {
    /// Its newest entry.
    Free(Option<ChangeKey>),
    /// The key with which claims may join its holders.
    Shared(Text),
}

impl Standing {
    fn of(lock: &Lock) -> Option<Self> {
        if lock.is_free() { Some(Self::Free(lock.newest)) } else { lock.open_to().cloned().map(Self::Shared) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::ChangeKind;

    #[test]
    fn a_full_lock_admits_no_claim() {
        let (key, who) = (Text::parse("k").unwrap(), Text::parse("w").unwrap());
        let holder = |n: usize| Holder {
            claim: ClaimId::parse(&n.to_string()).unwrap(),
            fence: Fence(n as u64),
            sharer: Some((key.clone(), who.clone())),
        };
        let lock = |holders: usize| Lock {
            holders: (0..holders).map(holder).collect(),
            ..Lock::new(LockName::parse("l").unwrap(), Arc::from([]), Arc::default())
        };
        let open = |holders| (lock(holders).admits(Some((&key, &who))), lock(holders).open_to().cloned());
        assert_eq!(open(limits::HOLDERS_PER_LOCK - 1), (true, Some(key.clone())));
        assert_eq!(open(limits::HOLDERS_PER_LOCK), (false, None));
    }
    fn key(revision: u64) -> ChangeKey {
        ChangeKey { revision: Revision(revision), seq: 0 }
    }

    fn pool() -> Pool {
        Pool::new(PoolName::parse("p").unwrap(), Policy::default())
    }

    fn lock(name: &str, newest: u64) -> Lock {
        let lock = Lock::new(LockName::parse(name).unwrap(), Arc::from([]), Arc::default());
        Lock { newest: Some(key(newest)), ..lock }
    }

    #[test]
    fn a_pool_remembers_how_long_the_last_holds_took() {
        let mut pool = pool();
        let listed = Listed { kind: ChangeKind::Released, at: WallMs(0), bytes: 1 };
        let mut list = |held: Option<u64>| {
            let key = key(pool.changes.len() as u64);
            pool.list(&Outline { key, listed, pools: Vec::new(), locks: Vec::new(), held: held.map(Span) });
            pool.holds().map(|span| span.0).collect::<Vec<_>>()
        };
        assert_eq!(list(None), [0; 0]);
        assert_eq!(list(Some(0)), [0; 0], "the clock was set back");
        assert_eq!(list(Some(5)), [5]);
        let most = limits::HOLDS as u64;
        let all = (6..5 + 2 * most).map(|held| list(Some(held))).last().unwrap();
        assert_eq!(all, (5 + most..5 + 2 * most).collect::<Vec<_>>());
    }

    #[test]
    fn a_pool_has_room_while_a_lock_can_be_given_or_joined() {
        let mut pool = pool();
        assert!(!pool.has_room());
        pool.put_lock(lock("a", 1));
        assert!(pool.has_room());
        let holder = |sharer| Holder { claim: ClaimId::parse("c").unwrap(), fence: Fence(1), sharer };
        pool.put_lock(Lock { holders: vec![holder(None)], ..lock("a", 1) });
        assert!(!pool.has_room());
        let sharer = Some((Text::parse("k").unwrap(), Text::parse("w").unwrap()));
        pool.put_lock(Lock { holders: vec![holder(sharer)], ..lock("a", 1) });
        assert!(pool.has_room());
        // The only free lock stays back for an implicit one that leaves.
        pool.put_lock(Lock { leaving: true, ..Lock::implicit(LockName::parse("p").unwrap()) });
        pool.put_lock(lock("a", 1));
        assert!(!pool.has_room());
    }
}
