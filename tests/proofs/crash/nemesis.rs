//! Kills and restarts a real server under load, audits its state after each restart, and passes the whole run to the
//! judge.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locker::wire::api::{ClaimState, ClaimView, Page, PoolView};
use serde_json::json;

use super::api;
use super::arena::Arena;
use super::checker::{Rule, Violation, check};
use super::history::{Asked, Call, History, Nanos, Op, Seen};
use super::rng::Rng;
use super::workload::{ALL_POOLS, Client, POOLS};
use crate::support::http::{Client as Conn, request};
use crate::support::{Server, Setup};

/// Operations between two kills, on average and at least: a quiet machine does 400.
const OPERATIONS: usize = 250;
/// How long a kill waits for them at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// The settings of one run.
pub struct Campaign {
    pub seed: u64,
    pub kills: usize,
    pub clients: usize,
    pub setup: Setup,
    /// A client that neglects its claim for longer may have lost its turn.
    pub attention: Duration,
}

/// The result of one run.
pub struct Outcome {
    pub seed: u64,
    pub operations: usize,
    pub unknown: usize,
    pub kills: usize,
    /// Kills that interrupted at least one request.
    pub effective: usize,
    pub grants: usize,
    pub handovers: usize,
    pub violations: Vec<Violation>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations ({} of unknown outcome), {} kills ({} hit requests in flight), {} grants ({} after waiting), {} \
             violations, seed {}",
            self.operations,
            self.unknown,
            self.kills,
            self.effective,
            self.grants,
            self.handovers,
            self.violations.len(),
            self.seed
        )?;
        self.violations.iter().take(10).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// The nemesis and what it has noted.
struct Nemesis {
    arena: Arc<Arena>,
    setup: Setup,
    rng: Rng,
    ready: Vec<Nanos>,
    deaths: Vec<Nanos>,
    /// Ids that had ended at an earlier audit. They are not checked again.
    settled: HashSet<String>,
    odd: Vec<Violation>,
}

/// Runs a campaign to its end and judges it.
pub fn run(campaign: &Campaign) -> Outcome {
    let mut rng = Rng::new(campaign.seed);
    let mut nemesis = Nemesis {
        arena: Arc::new(Arena::new()),
        setup: campaign.setup.clone(),
        rng: rng.fork(),
        ready: Vec::new(),
        deaths: Vec::new(),
        settled: HashSet::new(),
        odd: Vec::new(),
    };
    let mut server = Server::start_as(&nemesis.setup);
    declare_pools(&server);
    nemesis.let_in(&server);
    let clients: Vec<_> = (0..campaign.clients)
        .map(|index| {
            let client = Client::new(index, rng.fork(), Arc::clone(&nemesis.arena));
            thread::spawn(move || {
                let mut asked = Vec::new();
                client.work(&mut asked);
                asked
            })
        })
        .collect();
    for _ in 0..campaign.kills {
        server = nemesis.strike(server);
    }
    nemesis.arena.stop.store(true, Ordering::SeqCst);
    let asked: BTreeMap<String, Asked> =
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect();
    nemesis.everything_is_over(&server);
    nemesis.outcome(campaign, asked)
}

fn declare_pools(server: &Server) {
    let mut conn = server.connect();
    for (pool, capacity) in POOLS {
        let body = json!({ "capacity": capacity }).to_string();
        let answer = conn.call(&format!("PUT /api/v1/pools/{pool}"), &body);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
    }
}

impl Nemesis {
    fn let_in(&mut self, server: &Server) {
        self.ready.push(self.arena.now());
        self.arena.open(server.socket(), self.ready.len() - 1, server.pid());
    }

    /// Kills the server at a random moment, or right after a client got a positive answer. Then starts it again and
    /// audits it.
    fn strike(&mut self, mut server: Server) -> Server {
        thread::sleep(Duration::from_millis(20 + self.rng.below(900)));
        // On a busy machine the clients get less done in that time. They catch up before the next kill.
        let patience = Instant::now() + PATIENCE;
        while self.arena.recorded() < OPERATIONS * self.deaths.len() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
        }
        if self.rng.percent(60) {
            self.arena.arm();
            let patience = Instant::now() + Duration::from_millis(500);
            while server.is_running() && Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
            }
            if self.arena.disarm() {
                self.arena.kill();
            }
        } else {
            self.arena.kill();
        }
        server.kill();
        self.deaths.push(self.arena.now());
        self.arena.close();
        if self.rng.percent(20) {
            // Kill it once more, during its start.
            let starting = self.setup.launch();
            thread::sleep(Duration::from_millis(self.rng.below(60)));
            drop(starting);
        }
        let server = Server::start_as(&self.setup);
        self.audit(&server);
        self.let_in(&server);
        server
    }

    /// Before any client is admitted: every claim is in a state that the record allows, and the locks agree.
    fn audit(&mut self, server: &Server) {
        let invoke = self.arena.now();
        let life = self.ready.len();
        let mut conn = server.connect();
        let live = self.settled_claims(&mut conn);
        let mut looks: BTreeMap<String, Seen> = live.iter().map(|v| (v.id.clone(), api::of_view(v))).collect();
        for (id, ended) in self.known_ids() {
            if looks.contains_key(&id) || (ended && !self.settled.insert(id.clone())) {
                continue;
            }
            // A claim that ended by itself says how. Ends that were answered need no second look.
            let seen = if ended {
                Seen::NotLive
            } else {
                let answer = conn.get(&format!("/api/v1/claims/{id}"));
                api::seen(&answer)
            };
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
    fn settled_claims(&mut self, conn: &mut Conn) -> Vec<ClaimView> {
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let before = live_claims(conn);
            let locks = holders(conn);
            let after = live_claims(conn);
            if before == after {
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

    /// All clients have ended all their claims, so nothing may be left.
    fn everything_is_over(&mut self, server: &Server) {
        let mut conn = server.connect();
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let (claims, locks) = (live_claims(&mut conn), holders(&mut conn));
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

    fn outcome(self, campaign: &Campaign, asked: BTreeMap<String, Asked>) -> Outcome {
        let ops = std::mem::take(&mut *self.arena.log.lock().unwrap_or_else(PoisonError::into_inner));
        let attention = u64::try_from(campaign.attention.as_nanos()).unwrap_or(Nanos::MAX);
        let history = History { asked, ops, ready: self.ready, deaths: self.deaths, attention };
        let mut violations = check(&history);
        violations.extend(self.odd);
        let kills = self.arena.kills.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let broken = self.arena.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (server, at) in &broken {
            if kills.get(*server).is_none_or(|kill| at < kill) {
                let text = format!("life {server} of the server broke a connection at {at}, while it lived");
                violations.push(Violation { rule: Rule::Answers, text });
            }
        }
        if !violations.is_empty() {
            write_down(campaign.seed, &history);
        }
        let hit: BTreeSet<usize> = broken.iter().map(|(server, _)| *server).collect();
        let waited: BTreeSet<&str> =
            history.ops.iter().filter(|op| matches!(op.seen, Seen::Waiting { .. })).map(|op| &*op.id).collect();
        let served: BTreeSet<&str> =
            history.ops.iter().filter(|op| op.seen.grant().is_some()).map(|op| &*op.id).collect();
        Outcome {
            seed: campaign.seed,
            operations: history.ops.iter().filter(|op| op.call != Call::Neglect).count(),
            unknown: history.ops.iter().filter(|op| op.done.is_none()).count(),
            kills: campaign.kills,
            effective: hit.len(),
            grants: history.grants(),
            handovers: waited.intersection(&served).count(),
            violations,
        }
    }
}

/// Saves the record of a run that broke a rule: one line for each operation, in the order in which they were sent.
fn write_down(seed: u64, history: &History) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{seed}.txt"));
    let mut ops: Vec<&Op> = history.ops.iter().collect();
    ops.sort_by_key(|op| op.invoke);
    let head = format!("ready {:?}\ndeaths {:?}\n", history.ready, history.deaths);
    let text = ops.iter().fold(head, |text, op| text + &format!("{op:?}\n"));
    match std::fs::write(&path, text) {
        Ok(()) => eprintln!("the record of this run is in {}", path.display()),
        Err(error) => eprintln!("cannot write the record to {}: {error}", path.display()),
    }
}

fn live_claims(conn: &mut Conn) -> Vec<ClaimView> {
    let mut claims = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/v1/claims?limit=1000{after}");
        conn.send(request("GET", &path, "", ""));
        let answer = conn.receive().expect("an answer");
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

/// The claims that the locks name as their holders.
fn holders(conn: &mut Conn) -> BTreeSet<Given> {
    let mut all = BTreeSet::new();
    for pool in ALL_POOLS {
        let answer = conn.get(&format!("/api/v1/pools/{pool}"));
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
