//! Figures of a span of the history: how long claims waited and held, and how much of the time their locks were in use.
//!
//! Entries in, figures out: a [`Tally`] takes the entries of the span, the oldest first, then the holds that began
//! before it, and makes [`Figures`] of them. Whoever shows figures uses this one module.

use std::collections::{BTreeMap, HashMap};

use super::claim::{LockSet, Owner};
use super::history::{Change, ChangeKind};
use super::names::{ClaimId, LockName, PoolName, Text};
use super::time::{Span, WallMs};

/// How long something took, over all cases. All zero if there was no case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    pub count: usize,
    /// Half of the cases took no longer.
    pub p50: Span,
    /// 95 of 100 cases took no longer.
    pub p95: Span,
    pub longest: Span,
}

impl Spread {
    /// By nearest rank: each figure is one of the cases.
    fn of(mut cases: Vec<Span>) -> Self {
        cases.sort_unstable();
        let rank = |percent: usize| cases.get((cases.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let at = |percent| rank(percent).unwrap_or_default();
        Self { count: cases.len(), p50: at(50), p95: at(95), longest: at(100) }
    }
}

/// The figures of one pool or of one team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Group {
    /// The waits that ended with locks.
    pub waits: Spread,
    /// The holds that ended.
    pub holds: Spread,
    /// Claims that ended without locks.
    pub in_vain: usize,
    /// Holds that ended as lost.
    pub lost: usize,
    /// Holds that were ended by force.
    pub broken: usize,
    /// The time for which locks were held within the span, summed over the locks. Of a pool: a shared lock counts once.
    pub in_use: Span,
}

/// What is known about a span of the history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// The entries that they were made from.
    pub entries: usize,
    pub pools: BTreeMap<PoolName, Group>,
    /// By the team of the claim's owner; `None` for owners without one, such as people.
    pub teams: BTreeMap<Option<Text>, Group>,
    /// The entries of the longest waits, the longest first.
    pub longest_waits: Vec<Change>,
    /// The entries of the longest holds that ended, the longest first.
    pub longest_holds: Vec<Change>,
}

impl Figures {
    /// The part of the span for which a pool with so many locks was in use: 0 to 1.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn share(in_use: Span, locks: usize, of: Span) -> f64 {
        let most = of.0 as f64 * locks as f64;
        if most > 0.0 { (in_use.0 as f64 / most).min(1.0) } else { 0.0 }
    }
}

type Team = Option<Text>;

/// What is collected of one pool or team.
#[derive(Debug, Default)]
struct Cases {
    waits: Vec<Span>,
    holds: Vec<Span>,
    in_vain: usize,
    lost: usize,
    broken: usize,
    in_use: Span,
}

impl Cases {
    fn done(self) -> Group {
        let Self { waits, holds, in_vain, lost, broken, in_use } = self;
        Group { waits: Spread::of(waits), holds: Spread::of(holds), in_vain, lost, broken, in_use }
    }
}

/// The beginning and the end of a time, both within the span.
type Times = (u64, u64);

/// Collects the entries of a span.
#[derive(Debug)]
pub struct Tally {
    since: WallMs,
    until: WallMs,
    /// How many of the longest waits and holds are kept.
    top: usize,
    entries: usize,
    pools: BTreeMap<PoolName, Cases>,
    teams: BTreeMap<Team, Cases>,
    /// Claims that are known to wait, with their team.
    asked: HashMap<ClaimId, Team>,
    /// Claims that are known to hold: their locks, since when, and their team.
    open: HashMap<ClaimId, (LockSet, WallMs, Team)>,
    held: BTreeMap<(PoolName, LockName), Vec<Times>>,
    longest_waits: Vec<Change>,
    longest_holds: Vec<Change>,
}

impl Tally {
    /// For the span from `since` to `until`, with the `top` longest waits and holds.
    #[must_use]
    pub fn new(since: WallMs, until: WallMs, top: usize) -> Self {
        Self {
            since,
            until,
            top,
            entries: 0,
            pools: BTreeMap::new(),
            teams: BTreeMap::new(),
            asked: HashMap::new(),
            open: HashMap::new(),
            held: BTreeMap::new(),
            longest_waits: Vec::new(),
            longest_holds: Vec::new(),
        }
    }

    /// Adds a hold that goes on, if it began before the span: no entry of the span tells of it.
    pub fn still_held(&mut self, claim: &ClaimId, locks: &[(PoolName, LockName)], since: WallMs, owner: &Owner) {
        if since < self.since {
            self.open.insert(claim.clone(), (locks.to_vec(), since, owner.team.clone()));
        }
    }

    /// Adds an entry. Entries come in their order, the oldest first.
    pub fn add(&mut self, change: &Change) {
        use ChangeKind::{Broken, Claimed, Ended, Lost, Released, Waiting};
        self.entries += 1;
        let Some(claim) = &change.claim else { return };
        let own_team = || change.who.as_ref().and_then(|who| who.team.clone());
        match change.kind {
            Waiting => drop(self.asked.insert(claim.clone(), own_team())),
            Claimed => {
                self.asked.remove(claim);
                let team = own_team();
                self.open.insert(claim.clone(), (change.locks.clone(), change.at, team.clone()));
                let Some(waited) = change.waited else { return };
                self.each_group(&change.pools, &team, |cases| cases.waits.push(waited));
                keep_longest(&mut self.longest_waits, change, self.top, |change| change.waited);
            }
            // Whoever cancels a claim need not belong to the team that asked.
            Ended => {
                let team = self.asked.remove(claim).unwrap_or_else(own_team);
                self.each_group(&change.pools, &team, |cases| cases.in_vain += 1);
            }
            Released | Lost | Broken => {
                let open = self.open.remove(claim);
                // Whoever breaks a hold need not belong to the team that had it. (A release is mostly its own.)
                let team = match &open {
                    Some((_, _, team)) => team.clone(),
                    None => own_team().filter(|_| change.kind != Broken),
                };
                let Some(held) = change.held else { return };
                self.each_group(&change.pools, &team, |cases| {
                    cases.holds.push(held);
                    cases.lost += usize::from(change.kind == Lost);
                    cases.broken += usize::from(change.kind == Broken);
                });
                let since = WallMs(change.at.0.saturating_sub(held.0));
                self.hold(&change.locks, since, change.at, &team);
                keep_longest(&mut self.longest_holds, change, self.top, |change| change.held);
            }
            _ => {}
        }
    }

    fn each_group(&mut self, pools: &[PoolName], team: &Team, mut note: impl FnMut(&mut Cases)) {
        for pool in pools {
            match self.pools.get_mut(pool) {
                Some(cases) => note(cases),
                None => note(self.pools.entry(pool.clone()).or_default()),
            }
        }
        match self.teams.get_mut(team) {
            Some(cases) => note(cases),
            None => note(self.teams.entry(team.clone()).or_default()),
        }
    }

    /// Notes for how long locks were held, as far as that was within the span.
    fn hold(&mut self, locks: &LockSet, since: WallMs, until: WallMs, team: &Team) {
        let (from, to) = (since.max(self.since).0, until.min(self.until).0);
        let Some(length) = to.checked_sub(from).filter(|length| *length > 0) else { return };
        for lock in locks {
            self.held.entry(lock.clone()).or_default().push((from, to));
            self.teams.entry(team.clone()).or_default().in_use.0 += length;
        }
    }

    /// The figures. Holds without an end lasted until the end of the span.
    #[must_use]
    pub fn done(mut self) -> Figures {
        for (_, (locks, since, team)) in std::mem::take(&mut self.open) {
            self.hold(&locks, since, self.until, &team);
        }
        for ((pool, _), times) in std::mem::take(&mut self.held) {
            self.pools.entry(pool).or_default().in_use.0 += covered(times);
        }
        Figures {
            entries: self.entries,
            pools: self.pools.into_iter().map(|(pool, cases)| (pool, cases.done())).collect(),
            teams: self.teams.into_iter().map(|(team, cases)| (team, cases.done())).collect(),
            longest_waits: self.longest_waits,
            longest_holds: self.longest_holds,
        }
    }
}

/// Puts an entry on the list of the longest, if it belongs there.
fn keep_longest(longest: &mut Vec<Change>, change: &Change, top: usize, took: impl Fn(&Change) -> Option<Span>) {
    let place = longest.partition_point(|other| took(other) >= took(change));
    if place < top {
        longest.insert(place, change.clone());
        longest.truncate(top);
    }
}

/// How much time these times cover together, each moment counted once.
fn covered(mut times: Vec<Times>) -> u64 {
    times.sort_unstable();
    let (mut total, mut reached) = (0, 0);
    for (from, to) in times {
        let from = from.max(reached);
        total += to.saturating_sub(from);
        reached = reached.max(to);
    }
    total
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::names::{ChangeKey, Revision};

    /// `AT KIND CLAIM LOCK TEAM [waited|held SECONDS]`, with times in seconds; a team of `-` is none.
    fn entry(seq: u32, line: &str) -> Change {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().unwrap();
        let kind = match words[1] {
            "claimed" => ChangeKind::Claimed,
            "released" => ChangeKind::Released,
            "lost" => ChangeKind::Lost,
            "broken" => ChangeKind::Broken,
            "ended" => ChangeKind::Ended,
            "waiting" => ChangeKind::Waiting,
            other => panic!("{other}"),
        };
        let team = (words[4] != "-").then(|| words[4].parse().unwrap());
        let (pool, lock) = words[3].split_once('.').unwrap();
        let pool: PoolName = pool.parse().unwrap();
        let took = |name: &str| (words.get(5) == Some(&name)).then(|| Span::secs(number(words[6])));
        Change {
            key: ChangeKey { revision: Revision(1), seq },
            at: WallMs(number(words[0]) * 1000),
            kind,
            pools: vec![pool.clone()],
            locks: vec![(pool, lock.parse().unwrap())],
            claim: Some(words[2].parse().unwrap()),
            end: None,
            who: Some(Arc::new(Owner { team, ..Owner::default() })),
            origin: None,
            waited: took("waited"),
            held: took("held"),
            reason: None,
            latch: None,
            token: None,
        }
    }

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::new(WallMs(100_000), WallMs(200_000), 2);
        lines.iter().zip(0..).for_each(|(line, seq)| tally.add(&entry(seq, line)));
        tally
    }

    /// `waits/p50/p95/longest holds/p50/p95/longest vain lost broken in-use`, in seconds.
    fn shown(group: &Group) -> String {
        let spread = |s: &Spread| format!("{}/{}/{}/{}", s.count, s.p50.0 / 1000, s.p95.0 / 1000, s.longest.0 / 1000);
        let Group { waits, holds, in_vain, lost, broken, in_use } = group;
        format!("{} {} {in_vain} {lost} {broken} {}", spread(waits), spread(holds), in_use.0 / 1000)
    }

    #[test]
    fn figures_by_pool_and_by_team() {
        let mut tally = tally(&[
            "100 released z p.x red held 50", // Began before the span: no use of the lock within it.
            "110 claimed a p.x red waited 4",
            "120 claimed b p.y blue waited 8",
            "125 waiting w p.x blue",
            "130 ended w p.x -", // By somebody without a team: it was blue that waited in vain.
            "140 released a p.x red held 30",
            "150 broken b p.y - held 30", // By somebody without a team: the hold was blue's.
            "160 claimed c q.z - waited 0",
            "170 lost d p.x red held 100", // Began before the span, which counts from its start.
        ]);
        let (pool, lock): (PoolName, LockName) = ("q".parse().unwrap(), "old".parse().unwrap());
        tally.still_held(&"e".parse().unwrap(), &[(pool, lock)], WallMs(5_000), &Owner::default());
        let figures = tally.done();
        assert_eq!(figures.entries, 9);
        let pools: Vec<_> = figures.pools.iter().map(|(name, group)| format!("{name} {}", shown(group))).collect();
        // x was held from 110 to 140 and, by d, from 100 to 170: together 70 s; y for 30 s.
        assert_eq!(pools, ["p 2/4/8/8 4/30/100/100 1 1 1 100", "q 1/0/0/0 0/0/0/0 0 0 0 140"]);
        let team = |team: &Option<Text>| team.as_ref().map_or("-", Text::as_str).to_owned();
        let teams: Vec<_> =
            figures.teams.iter().map(|(name, group)| format!("{} {}", team(name), shown(group))).collect();
        assert_eq!(
            teams,
            ["- 1/0/0/0 0/0/0/0 0 0 0 140", "blue 1/8/8/8 1/30/30/30 1 0 1 30", "red 1/4/4/4 3/50/100/100 0 1 0 100",]
        );
        let claims = |list: &[Change]| -> Vec<String> {
            list.iter().map(|change| change.claim.as_ref().unwrap().to_string()).collect()
        };
        assert_eq!(claims(&figures.longest_waits), ["b", "a"]);
        assert_eq!(claims(&figures.longest_holds), ["d", "z"]);
    }

    #[test]
    fn ranks_are_the_nearest_ones() {
        let spread = |n: u64| Spread::of((1..=n).rev().map(Span).collect());
        let of = |count, p50, p95, longest| Spread { count, p50: Span(p50), p95: Span(p95), longest: Span(longest) };
        for (n, expected) in
            [(0, of(0, 0, 0, 0)), (1, of(1, 1, 1, 1)), (2, of(2, 1, 2, 2)), (100, of(100, 50, 95, 100))]
        {
            assert_eq!(spread(n), expected, "{n}");
        }
        let share = |in_use, locks| Figures::share(Span(in_use), locks, Span(100));
        assert_eq!((share(50, 1), share(50, 2), share(500, 1), share(5, 0)), (0.5, 0.25, 1.0, 0.0));
    }

    #[test]
    fn shared_locks_count_once() {
        assert_eq!(covered(vec![(5, 10), (0, 7), (20, 30), (22, 25)]), 20);
        assert_eq!(covered(Vec::new()), 0);
    }
}
