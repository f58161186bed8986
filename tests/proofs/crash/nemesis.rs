//! Kills and restarts a real server under load, audits its state after each restart, and passes the whole run to the
//! judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::arena::Arena;
use super::audit::{self, Auditor};
use super::checker::{Rule, Violation, check};
use super::history::{Asked, Call, History, Nanos, Seen};
use super::rng::Rng;
use super::workload::{ALL_POOLS, Client, POOLS};
use crate::support::{Server, Setup};

/// Operations between two kills, on average and at least: a quiet machine does 400.
const OPERATIONS: usize = 250;
/// How long a kill waits for them at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take to end the last claims.
const LEFT_OVER: Duration = Duration::from_secs(5);

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
    auditor: Auditor,
}

/// Runs a campaign to its end and judges it.
pub fn run(campaign: &Campaign) -> Outcome {
    let mut rng = Rng::new(campaign.seed);
    let arena = Arc::new(Arena::new());
    let mut nemesis = Nemesis {
        auditor: Auditor::new(Arc::clone(&arena), ALL_POOLS),
        arena,
        setup: campaign.setup.clone(),
        rng: rng.fork(),
        ready: Vec::new(),
        deaths: Vec::new(),
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
    let mut conn = server.connect();
    nemesis.auditor.everything_is_over(&mut |path| conn.get(path), LEFT_OVER);
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
        let mut conn = server.connect();
        self.auditor.audit(&mut |path| conn.get(path), self.ready.len());
        self.let_in(&server);
        server
    }

    fn outcome(self, campaign: &Campaign, asked: BTreeMap<String, Asked>) -> Outcome {
        let ops = std::mem::take(&mut *self.arena.log.lock().unwrap_or_else(PoisonError::into_inner));
        let attention = u64::try_from(campaign.attention.as_nanos()).unwrap_or(Nanos::MAX);
        let history = History { asked, ops, ready: self.ready, deaths: self.deaths, attention };
        let mut violations = check(&history);
        violations.extend(self.auditor.odd);
        let kills = self.arena.kills.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let broken = self.arena.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (server, at) in &broken {
            if kills.get(*server).is_none_or(|kill| at < kill) {
                let text = format!("life {server} of the server broke a connection at {at}, while it lived");
                violations.push(Violation { rule: Rule::Answers, text });
            }
        }
        if !violations.is_empty() {
            audit::write_down("crash", campaign.seed, &history);
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
