//! Looks at the whole state while no client does anything: every claim is in a state that the record allows, and the locks
//! agree.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locker::wire::api::{ClaimState, ClaimView, Page, PoolView};

use super::api;
use super::arena::Arena;
use super::checker::{Rule, Violation};
use super::history::{Call, History, Op, Seen};
use crate::support::http::Answer;

/// How long claims may go on changing without a request.
const SETTLED: Duration = Duration::from_secs(10);

/// Asks for a path, and returns the answer of a server that serves.
pub type Get<'g> = &'g mut dyn FnMut(&str) -> Answer;

/// Whoever audits, and what was noted.
pub struct Auditor {
    arena: Arc<Arena>,
    /// All pools of the run.
    pools: Vec<String>,
    /// Ids that had ended at an earlier audit. They are not checked again.
    settled: HashSet<String>,
    pub odd: Vec<Violation>,
}

impl Auditor {
    pub fn new(arena: Arc<Arena>, pools: &[&str]) -> Self {
        let pools = pools.iter().map(|&pool| pool.to_owned()).collect();
        Self { arena, pools, settled: HashSet::new(), odd: Vec::new() }
    }

    /// While no client is admitted. `life` is that of the server.
    pub fn audit(&mut self, get: Get<'_>, life: usize) {
        let invoke = self.arena.now();
        let live = self.settled_claims(get);
        let mut looks: BTreeMap<String, Seen> = live.iter().map(|v| (v.id.clone(), api::of_view(v))).collect();
        for (id, ended) in self.known_ids() {
            if looks.contains_key(&id) || (ended && !self.settled.insert(id.clone())) {
                continue;
            }
            // A claim that ended by itself says how. Ends that were answered need no second look.
            let seen = if ended { Seen::NotLive } else { api::seen(&get(&format!("/api/v1/claims/{id}"))) };
            looks.insert(id, seen);
        }
        let done = Some(self.arena.now());
        for (id, seen) in looks {
            if !matches!(seen, Seen::NotLive) {
                self.settled.remove(&id);
            }
            let op = Op {
                client: usize::MAX,
                call: Call::Audit,
                id,
                run: None,
                given: None,
                invoke,
                done,
                server: life,
                seen,
            };
            self.arena.record(op);
        }
    }

    /// All ids of the record, and whether the newest look at each showed an end.
    fn known_ids(&self) -> BTreeMap<String, bool> {
        let log = self.arena.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = BTreeMap::new();
        for op in log.iter() {
            let ended = known.entry(op.id.clone()).or_insert(false);
            if op.seen.is_view() {
                *ended = matches!(op.seen, Seen::Ended { .. } | Seen::Absent | Seen::NotLive);
            } else if op.may_act() {
                *ended = false;
            }
        }
        known
    }

    /// The live claims, at a moment when the locks agree with them.
    fn settled_claims(&mut self, get: Get<'_>) -> Vec<ClaimView> {
        let patience = Instant::now() + SETTLED;
        loop {
            let before = live_claims(get);
            let locks = self.holders(get);
            let after = live_claims(get);
            // A lease counts down.
            let seen =
                |claims: &[ClaimView]| claims.iter().map(|v| (v.id.clone(), api::of_view(v))).collect::<Vec<_>>();
            if seen(&before) == seen(&after) {
                let given: BTreeSet<_> = after.iter().flat_map(given).collect();
                if given != locks {
                    let text = format!("the claims have {given:?}, the locks are given as {locks:?}");
                    self.odd.push(Violation { rule: Rule::Durable, text });
                }
                return after;
            }
            assert!(Instant::now() < patience, "claims change without a request: {before:?}, {after:?}");
        }
    }

    /// The claims that the locks name as their holders.
    fn holders(&self, get: Get<'_>) -> BTreeSet<Given> {
        let mut all = BTreeSet::new();
        for pool in &self.pools {
            let answer = get(&format!("/api/v1/pools/{pool}"));
            if answer.status == 404 {
                continue;
            }
            assert_eq!(answer.status, 200, "{:?}", answer.json());
            let view: PoolView = answer.parse();
            let holders = view.items.into_iter().flat_map(|lock| lock.holders);
            all.extend(holders.map(|h| (h.pool, h.lock, h.claim, h.fence)));
        }
        all
    }

    /// All clients have ended all their claims, so nothing may be left within `time`.
    pub fn everything_is_over(&mut self, get: Get<'_>, time: Duration) {
        let patience = Instant::now() + time;
        loop {
            let (claims, locks) = (live_claims(get), self.holders(get));
            if claims.is_empty() && locks.is_empty() {
                return;
            }
            if Instant::now() > patience {
                let text = format!("left over after everything was ended: {claims:?}, {locks:?}");
                self.odd.push(Violation { rule: Rule::Release, text });
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Saves the record of a run that broke a rule: one line for each operation, in the order in which they were sent.
pub fn write_down(proof: &str, seed: u64, history: &History) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{proof}-{seed}.txt"));
    let mut ops: Vec<&Op> = history.ops.iter().collect();
    ops.sort_by_key(|op| op.invoke);
    let head = format!("ready {:?}\ndeaths {:?}\n", history.ready, history.deaths);
    let text = ops.iter().fold(head, |text, op| text + &format!("{op:?}\n"));
    match std::fs::write(&path, text) {
        Ok(()) => eprintln!("the record of this run is in {}", path.display()),
        Err(error) => eprintln!("cannot write the record to {}: {error}", path.display()),
    }
}

/// The claims that have not ended.
pub fn live_claims(get: Get<'_>) -> Vec<ClaimView> {
    let mut claims = Vec::new();
    let mut after = String::new();
    loop {
        let answer = get(&format!("/api/v1/claims?limit=1000{after}"));
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        let page: Page<ClaimView> = answer.parse();
        claims.extend(page.items.into_iter().filter(|claim| claim.state != ClaimState::Ended));
        let Some(next) = page.next else { return claims };
        after = format!("&after={next}");
    }
}

type Given = (String, String, String, u64);

/// The locks that each claim says it has.
fn given(claim: &ClaimView) -> Vec<Given> {
    let fence = claim.fence.unwrap_or(0);
    claim.locks.iter().map(|l| (l.pool.clone(), l.lock.clone(), claim.id.clone(), fence)).collect()
}
