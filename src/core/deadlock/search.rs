//! Which waiting claims are stuck.
//!
//! A build goes on when all its waiting claims have been served. So the search first marks every build that both holds
//! and waits as stuck. Then it takes the mark from each build whose claims could all be served by locks that no stuck
//! build has, until nothing changes. A build without a waiting claim, and an owner that is not a build, will give back
//! its locks some day. A waiter that does not listen does not count. Queue order plays no part: a claim is never held
//! back by claims that wait for its own build ([`super::waits_for`]).

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::core::candidates::candidates;
use crate::core::claim::{BuildRef, Claim, Owner, Part, Presence, Want};
use crate::core::limits;
use crate::core::names::{ClaimId, LockName, PoolName, Text};
use crate::core::pool::{Holder, Lock};
use crate::core::state::Snapshot;
use crate::core::state::Stuck;

/// All stuck claims, given the builds that both hold and wait. When the search exceeds its bound
/// ([`limits::STUCK_SEARCH`]), it reports no claim as stuck.
pub(in super::super) fn stuck_claims<'w>(
    snapshot: &'w Snapshot,
    builds: impl Iterator<Item = &'w BuildRef>,
) -> BTreeMap<ClaimId, Stuck> {
    let mut search = Search::new(snapshot, builds);
    search.run().unwrap_or_default()
}

/// What a claim wants of one pool, with everything that decides which locks could serve it. Equal wishes are examined
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Wish<'w> {
    pool: &'w PoolName,
    want: &'w Want,
    key: Option<&'w Text>,
}

impl Wish<'_> {
    /// How many locks it needs.
    fn count(&self) -> usize {
        match self.want {
            Want::Any { count, .. } => *count as usize,
            Want::Named(names) => names.len(),
        }
    }
}

/// A claim that waits and listens.
struct Waiter<'w> {
    claim: &'w Arc<Claim>,
    wishes: Vec<Wish<'w>>,
}

impl<'w> Waiter<'w> {
    fn new(claim: &'w Arc<Claim>) -> Self {
        let key = claim.terms.ask.key.as_ref();
        let wishes = claim.terms.ask.parts.iter().map(|Part { pool, want }| Wish { pool, want, key }).collect();
        Self { claim, wishes }
    }
}

/// A build that holds and waits.
struct Node<'w> {
    waiters: Vec<Waiter<'w>>,
    stuck: bool,
}

/// The search exceeded its bound.
struct TooMuch;

struct Search<'w> {
    snapshot: &'w Snapshot,
    nodes: Vec<Node<'w>>,
    numbers: HashMap<BuildRef, usize>,
    /// How many more locks the search may look at.
    budget: Cell<usize>,
}

/// Which nodes block each wish that cannot be served.
type InTheWay<'w> = HashMap<Wish<'w>, BTreeSet<usize>>;

impl<'w> Search<'w> {
    fn new(snapshot: &'w Snapshot, builds: impl Iterator<Item = &'w BuildRef>) -> Self {
        let budget = Cell::new(limits::STUCK_SEARCH);
        let mut search = Self { snapshot, nodes: Vec::new(), numbers: HashMap::new(), budget };
        for build in builds {
            let listens = |claim: &&Arc<Claim>| claim.presence().is_some_and(Presence::listens);
            let waiters: Vec<_> = snapshot.claims_of(build).filter(listens).map(Waiter::new).collect();
            if !waiters.is_empty() {
                search.numbers.insert(build.clone(), search.nodes.len());
                search.nodes.push(Node { waiters, stuck: true });
            }
        }
        search
    }

    fn run(&mut self) -> Result<BTreeMap<ClaimId, Stuck>, TooMuch> {
        self.set_free()?;
        let in_the_way = self.in_the_way()?;
        let mut found = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.stuck) {
            for waiter in &node.waiters {
                let stuck = match self.own(number, waiter)? {
                    Some(own) => Some(Stuck::SelfWait { own }),
                    None => self.cycle(number, waiter, &in_the_way)?.map(|builds| Stuck::Deadlock { builds }),
                };
                found.extend(stuck.map(|stuck| (waiter.claim.id.clone(), stuck)));
            }
        }
        Ok(found)
    }

    fn look_at(&self, count: usize) -> Result<(), TooMuch> {
        let left = self.budget.get().checked_sub(count).ok_or(TooMuch)?;
        self.budget.set(left);
        Ok(())
    }

    /// Takes the mark from all builds that can go on, until nothing changes.
    fn set_free(&mut self) -> Result<(), TooMuch> {
        let mut served: HashSet<Wish<'w>> = HashSet::new();
        loop {
            let mut short: HashSet<Wish<'w>> = HashSet::new();
            let mut freed = false;
            for number in 0..self.nodes.len() {
                let wishes = self.nodes[number].waiters.iter().flat_map(|waiter| waiter.wishes.iter().copied());
                let mut goes_on = self.nodes[number].stuck;
                for wish in wishes.filter(|_| goes_on) {
                    if served.contains(&wish) {
                        continue;
                    }
                    if !short.contains(&wish) && self.can_be_served(&wish)? {
                        served.insert(wish);
                    } else {
                        short.insert(wish);
                        goes_on = false;
                        break;
                    }
                }
                if goes_on {
                    self.nodes[number].stuck = false;
                    freed = true;
                }
            }
            if !freed {
                return Ok(());
            }
        }
    }

    /// Whether enough locks are not held by stuck builds.
    fn can_be_served(&self, wish: &Wish<'w>) -> Result<bool, TooMuch> {
        self.has_enough(wish, |lock| self.stuck_holders(wish, lock).next().is_none())
    }

    /// Whether enough locks are good, or the pool does not have that many: then the claim waits for somebody to add
    /// some, and no build is to blame.
    fn has_enough(&self, wish: &Wish<'w>, is_good: impl Fn(&'w Lock) -> bool) -> Result<bool, TooMuch> {
        let Some(pool) = self.snapshot.pool(wish.pool) else { return Ok(false) };
        let (mut missing, mut has) = (wish.count(), 0);
        for lock in candidates(pool, wish.want) {
            if missing == 0 {
                break;
            }
            self.look_at(1)?;
            has += 1;
            missing -= usize::from(is_good(lock));
        }
        Ok(missing == 0 || has < wish.count())
    }

    /// Stuck builds that keep this lock from the wish, with the hold of each.
    fn stuck_holders(&self, wish: &Wish<'w>, lock: &'w Lock) -> impl Iterator<Item = (usize, &'w Holder)> {
        // All holders have the same key, so the first one is enough.
        let key = lock.holders.first().and_then(|holder| holder.sharer.as_ref()).map(|(key, _)| key);
        let joins = key.is_some() && key == wish.key;
        lock.holders.iter().filter(move |_| !joins).filter_map(|holder| {
            let build = self.snapshot.claims.get(&holder.claim)?.terms.owner.build()?;
            let number = *self.numbers.get(&build)?;
            self.nodes[number].stuck.then_some((number, holder))
        })
    }

    /// The builds that block the wishes of stuck builds.
    fn in_the_way(&self) -> Result<InTheWay<'w>, TooMuch> {
        let mut all = HashMap::new();
        let waiters = self.nodes.iter().filter(|node| node.stuck).flat_map(|node| &node.waiters);
        for wish in waiters.flat_map(|waiter| &waiter.wishes) {
            if all.contains_key(wish) || self.can_be_served(wish)? {
                continue;
            }
            let mut numbers = BTreeSet::new();
            for lock in self.snapshot.pool(wish.pool).into_iter().flat_map(|pool| candidates(pool, wish.want)) {
                self.look_at(1)?;
                numbers.extend(self.stuck_holders(wish, lock).map(|(number, _)| number));
            }
            all.insert(*wish, numbers);
        }
        Ok(all)
    }

    /// The locks of the claim's own build that the first wish needs, if only this build could serve it.
    fn own(&self, number: usize, waiter: &Waiter<'w>) -> Result<Option<Vec<(PoolName, LockName, ClaimId)>>, TooMuch> {
        for wish in &waiter.wishes {
            let of_own = |lock: &'w Lock| self.stuck_holders(wish, lock).filter(move |(holder, _)| *holder == number);
            if self.has_enough(wish, |lock| of_own(lock).next().is_none())? {
                continue;
            }
            let locks = self.snapshot.pool(wish.pool).into_iter().flat_map(|pool| candidates(pool, wish.want));
            let own = locks.flat_map(|lock| of_own(lock).map(move |(_, holder)| (lock, holder)));
            let own = own.map(|(lock, holder)| (wish.pool.clone(), lock.name.clone(), holder.claim.clone()));
            return Ok(Some(own.take(limits::HOLDERS_SHOWN).collect()));
        }
        Ok(None)
    }

    /// The shortest path from the claim through builds that wait for each other, back to its own build.
    fn cycle(
        &self,
        number: usize,
        waiter: &Waiter<'w>,
        in_the_way: &InTheWay<'w>,
    ) -> Result<Option<Vec<Arc<Owner>>>, TooMuch> {
        let next_of = |waiter: &Waiter<'w>| -> Vec<usize> {
            waiter.wishes.iter().filter_map(|wish| in_the_way.get(wish)).flatten().copied().collect()
        };
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let mut todo: VecDeque<usize> = VecDeque::new();
        for first in next_of(waiter).into_iter().filter(|first| *first != number) {
            if came_from.insert(first, number).is_none() {
                todo.push_back(first);
            }
        }
        while let Some(at) = todo.pop_front() {
            for next in self.nodes[at].waiters.iter().flat_map(next_of) {
                self.look_at(1)?;
                if next == number {
                    return Ok(Some(self.path(waiter, at, &came_from)));
                }
                if let Entry::Vacant(unseen) = came_from.entry(next) {
                    unseen.insert(at);
                    todo.push_back(next);
                }
            }
        }
        Ok(None)
    }

    /// The builds from the claim's own to `last`, found by walking back from `last`.
    fn path(&self, waiter: &Waiter<'w>, last: usize, came_from: &HashMap<usize, usize>) -> Vec<Arc<Owner>> {
        let steps = std::iter::successors(Some(last), |at| came_from.get(at).copied());
        let steps = steps.take_while(|at| self.owner(*at).build() != waiter.claim.terms.owner.build());
        let mut builds: Vec<Arc<Owner>> = steps.map(|at| Arc::clone(self.owner(at))).collect();
        builds.push(Arc::clone(&waiter.claim.terms.owner));
        builds.reverse();
        builds.truncate(limits::BUILDS_SHOWN);
        builds
    }

    fn owner(&self, number: usize) -> &Arc<Owner> {
        &self.nodes[number].waiters[0].claim.terms.owner
    }
}
