//! Which locks match a want, and which other claims want them.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::claim::{Claim, Labels, Presence, Terms, Want};
use super::command::Refusal;
use super::names::{LockName, PoolName, Text};
use super::pool::{Lock, Pick, Place, Pool, WhenEmpty};
use super::state::Snapshot;

/// Whether the pool has the locks for this want, held or not.
pub(super) fn check_want(pool: &Pool, want: &Want) -> Result<(), Refusal> {
    match want {
        Want::Named(names) => {
            let stays = |name: &LockName| pool.locks.get(name).is_some_and(|l| !l.leaving);
            match names.iter().find(|&name| !stays(name)) {
                Some(lock) => Err(Refusal::NoSuchLock { pool: pool.name.clone(), lock: lock.clone() }),
                None => Ok(()),
            }
        }
        Want::Any { count, labels } => {
            let has = candidates(pool, want).take(*count as usize).count();
            if has < *count as usize {
                let has = u32::try_from(has).unwrap_or(u32::MAX);
                return Err(Refusal::TooMany { pool: pool.name.clone(), asked: *count, has, labels: labels.clone() });
            }
            Ok(())
        }
    }
}

/// The same for a claim with these terms, which may also wait for locks that the pool does not have.
pub(super) fn check_part(pool: &Pool, want: &Want, terms: &Terms) -> Result<(), Refusal> {
    check_want(pool, want).or_else(|refusal| if may_wait_for_locks(pool, want, terms) { Ok(()) } else { Err(refusal) })
}

fn may_wait_for_locks(pool: &Pool, want: &Want, terms: &Terms) -> bool {
    let any_one = matches!(want, Want::Any { count: 1, labels } if labels.is_empty());
    match pool.policy.when_empty {
        Some(WhenEmpty::Wait) => true,
        Some(WhenEmpty::Fail) => false,
        None => terms.waits_if_empty && any_one,
    }
}

impl Snapshot {
    /// What the pools do not have of the locks that this claim wants, held or not. Such a claim waits until somebody
    /// adds them, and holds back nobody.
    #[must_use]
    pub fn lacks(&self, terms: &Terms) -> Option<Refusal> {
        self.lacking_in(terms).find_map(|(pool, want)| check_want(pool, want).err())
    }

    /// The wants of a claim that may wait for locks which do not exist. Most claims have none.
    fn lacking_in<'s>(&'s self, terms: &'s Terms) -> impl Iterator<Item = (&'s Pool, &'s Want)> {
        let parts = terms.ask.parts.iter().filter_map(|part| Some((self.pool(&part.pool)?, &part.want)));
        parts.filter(|(pool, want)| may_wait_for_locks(pool, want, terms))
    }
}

/// Locks of one pool for this want, by name; `None` when there are not enough now. Locks that the requestor already has
/// come first, then other locks of its key, then free locks in the order of the pool's policy.
pub(super) fn pick(
    snapshot: &Snapshot,
    pool: &Pool,
    want: &Want,
    sharer: Option<(&Text, &Text)>,
) -> Option<BTreeSet<LockName>> {
    match want {
        Want::Named(names) => {
            let admits = |name: &LockName| pool.locks.get(name).is_some_and(|l| l.admits(sharer));
            let is_free = |name: &&LockName| pool.locks.get(*name).is_some_and(|l| l.is_free());
            let fits = || pool.retiring.is_none() || names.iter().filter(is_free).count() <= pool.open();
            (names.iter().all(admits) && fits()).then(|| names.clone())
        }
        Want::Any { count, labels } => {
            if pool.open() + pool.shared.len() < *count as usize {
                return None;
            }
            let joinable: Vec<&Lock> = sharer.map(|(key, _)| pool.shared_with(key).collect()).unwrap_or_default();
            let is_own = |lock: &&&Lock| sharer.is_some_and(|sharer| lock.is_held_by(sharer));
            let own = joinable.iter().filter(is_own);
            let others = joinable.iter().filter(|lock| !is_own(lock));
            let shared = own.chain(others).copied();
            let fits = |lock: &&Lock| lock.matches(labels);
            let open = pool.open();
            let free = pool.free.iter().filter_map(|(_, name)| pool.locks.get(name)).map(AsRef::as_ref);
            let picked: BTreeSet<LockName> = match pool.policy.pick {
                Pick::LeastRecent => names(shared.filter(fits).chain(free.filter(fits).take(open)), *count),
                Pick::Name => {
                    let mut free: Vec<&Lock> = free.collect();
                    free.sort_by(|a, b| a.name.cmp(&b.name));
                    names(shared.filter(fits).chain(free.into_iter().filter(fits).take(open)), *count)
                }
                Pick::Random => {
                    let mut free: Vec<&Lock> = free.collect();
                    free.sort_by_cached_key(|lock| dice(snapshot, pool, &lock.name));
                    names(shared.filter(fits).chain(free.into_iter().filter(fits).take(open)), *count)
                }
            };
            (picked.len() == *count as usize).then_some(picked)
        }
    }
}

/// The names of the first `count` locks.
fn names<'p>(locks: impl Iterator<Item = &'p Lock>, count: u32) -> BTreeSet<LockName> {
    locks.take(count as usize).map(|lock| lock.name.clone()).collect()
}

/// A number that differs for each lock after each change, and that no outsider can predict: FNV-1a over the seed of
/// this life, the revision and the names, with the finish of `SplitMix64`.
fn dice(snapshot: &Snapshot, pool: &Pool, lock: &LockName) -> u64 {
    let numbers = [snapshot.seed, snapshot.revision.0].into_iter().flat_map(u64::to_le_bytes);
    let names = pool.name.as_str().bytes().chain([b'/']).chain(lock.as_str().bytes());
    let hash = numbers
        .chain(names)
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// What has been found out about the wants of one pool, so that equal wants are compared only once. It stays true as
/// long as no lock of the pool is added, removed or relabelled.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    known: HashMap<Labels, HashMap<Labels, bool>>,
    /// How many locks of a pool have these labels.
    labelled: HashMap<(PoolName, Labels), usize>,
}

impl Overlaps {
    /// Whether some lock of the pool has the labels of both.
    fn of_labels(&mut self, pool: &Pool, a: &Labels, b: &Labels) -> bool {
        if let Some(known) = self.known.get(a).and_then(|others| others.get(b)) {
            return *known;
        }
        let found = pool.locks.values().any(|lock| !lock.leaving && lock.matches(a) && lock.matches(b));
        self.known.entry(a.clone()).or_default().insert(b.clone(), found);
        found
    }

    /// Whether the claim waits for locks that its pools do not have.
    pub(super) fn lacks(&mut self, snapshot: &Snapshot, claim: &Claim) -> bool {
        snapshot.lacking_in(&claim.terms).any(|(pool, want)| !self.has_enough(pool, want))
    }

    fn has_enough(&mut self, pool: &Pool, want: &Want) -> bool {
        match want {
            Want::Any { count, labels } if !labels.is_empty() => {
                let place = (pool.name.clone(), labels.clone());
                let has = self.labelled.entry(place).or_insert_with(|| candidates(pool, want).count());
                *has >= *count as usize
            }
            _ => check_want(pool, want).is_ok(),
        }
    }

    /// Whether the labels that all others wait for in this pool say that none of them can be a rival of this claim.
    pub(super) fn shares_nothing(&mut self, pool: &Pool, want: &Want, claim: &Claim) -> bool {
        let Some(wanted) = pool.wanted_labels() else { return false };
        let queued = pool.waiting.contains_key(&pool.place(claim));
        let own = if queued { pool.labels_of(claim) } else { None };
        !wanted.iter().any(|(labels, count)| {
            let others = count - usize::from(own == Some(labels));
            others > 0 && self.overlap(pool, want, &Want::Any { count: 1, labels: labels.clone() })
        })
    }

    /// Whether some lock of the pool is a candidate of both.
    fn overlap(&mut self, pool: &Pool, a: &Want, b: &Want) -> bool {
        match (a, b) {
            (Want::Named(a), Want::Named(b)) => !a.is_disjoint(b),
            (Want::Named(_), any) => candidates(pool, a).any(|lock| is_candidate(any, lock)),
            (any, Want::Named(_)) => candidates(pool, b).any(|lock| is_candidate(any, lock)),
            // A want without labels shares candidates with every other want. A claim that waits for what the pool does
            // not have is no rival anyway.
            (Want::Any { labels: a, .. }, Want::Any { labels: b, .. }) => {
                a.is_empty() || b.is_empty() || self.of_labels(pool, a, b)
            }
        }
    }
}

/// Listening waiters at these places whose candidate locks in this pool overlap with those of `want`. A waiter for locks
/// that do not exist is nobody's rival.
pub(super) fn rivals<'w, 'a>(
    snapshot: &'w Snapshot,
    pool: &'w Pool,
    want: &'a Want,
    places: Range<Place>,
    overlaps: &'a mut Overlaps,
) -> impl Iterator<Item = &'w Arc<Claim>> + use<'w, 'a> {
    pool.waiting
        .range(places)
        .filter_map(|(_, id)| snapshot.claims.get(id))
        .filter(|rival| rival.presence().is_some_and(Presence::listens))
        .filter(move |rival| {
            let theirs = rival.terms.ask.parts.iter().find(|part| part.pool == pool.name);
            theirs.is_some_and(|theirs| overlaps.overlap(pool, want, &theirs.want)) && !overlaps.lacks(snapshot, rival)
        })
}

/// Whether this lock could ever serve this want in its pool.
fn is_candidate(want: &Want, lock: &Lock) -> bool {
    !lock.leaving
        && match want {
            Want::Named(names) => names.contains(&lock.name),
            Want::Any { labels, .. } => lock.matches(labels),
        }
}

/// The locks of one pool that could serve this want.
pub(super) fn candidates<'p>(pool: &'p Pool, want: &'p Want) -> impl Iterator<Item = &'p Lock> {
    let named: Option<&BTreeSet<LockName>> = match want {
        Want::Named(names) => Some(names),
        Want::Any { .. } => None,
    };
    let by_name = named.into_iter().flatten().filter_map(|n| pool.locks.get(n));
    let all = named.is_none().then(|| pool.locks.values()).into_iter().flatten();
    by_name.chain(all).map(AsRef::as_ref).filter(move |l| is_candidate(want, l))
}
