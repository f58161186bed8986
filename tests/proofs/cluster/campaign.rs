//! Fault after fault under load, and the judgement of what clients saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::arena::Arena;
use super::audit::{self, Auditor};
use super::bases::Base;
use super::checker::{Rule, Violation, check};
use super::etcd::OnEtcd;
use super::faults::{FAULTS, Fault};
use super::history::{Asked, Call, History, Nanos, Seen};
use super::lookouts::{self, Granted, Grants};
use super::nodes::{Cluster, SERVERS};
use super::postgres::OnPostgres;
use super::rng::Rng;
use super::workload::{self, Client};
use crate::support::PATIENCE;

/// Faults between two audits.
const AUDIT: usize = 12;
/// Faults that one set of servers goes through.
const ROUND: usize = 60;
/// More clients than locks, so that many wait.
const CLIENTS: usize = 9;
/// Builds that run steps at the same time.
const BUILDS: usize = 2;
/// A client that neglects its claim for longer may have lost its turn; the servers' own settings are twice that.
const ATTENTION: Duration = Duration::from_secs(120);
/// How long the servers wait for whoever does not listen or confirm: longer than any two faults.
const ALL_TIME: &str = "240s";
/// The shortest of the long pauses.
const SHORT: Duration = Duration::from_secs(1);
/// How much later than a failover grants may go on.
const LATE: Duration = Duration::from_secs(2);
/// A lookout that asked before a fault and is answered this long after it was answered by whoever led then.
const AFTER: Nanos = 300_000_000;

/// The settings of one run.
pub struct Campaign {
    pub seed: u64,
    pub faults: usize,
    pub failover: Duration,
    /// The longest time that a fault lasts.
    pub longest: Duration,
    /// Only faults whose name contains this.
    pub only: String,
    pub plant: Option<&'static str>,
}

/// What was seen of one kind of fault.
#[derive(Debug, Default, Clone, Copy)]
struct Pauses {
    count: usize,
    worst: Duration,
    sum: Duration,
    late: usize,
}

/// The result of one run.
#[derive(Default)]
pub struct Outcome {
    seed: u64,
    kinds: BTreeMap<&'static str, Pauses>,
    operations: usize,
    unknown: usize,
    grants: usize,
    handovers: usize,
    touched: usize,
    pub violations: Vec<Violation>,
}

impl Outcome {
    pub fn faults(&self) -> usize {
        self.kinds.values().map(|seen| seen.count).sum()
    }

    pub fn grants(&self) -> usize {
        self.grants
    }

    /// Adds another part of the same run.
    fn add(&mut self, other: Self) {
        for (kind, seen) in other.kinds {
            let all = self.kinds.entry(kind).or_default();
            all.count += seen.count;
            all.late += seen.late;
            all.sum += seen.sum;
            all.worst = all.worst.max(seen.worst);
        }
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.grants += other.grants;
        self.handovers += other.handovers;
        self.touched += other.touched;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:>6} {:>10} {:>10} {:>6}", "fault", "times", "mean pause", "worst", "late")?;
        for (kind, Pauses { count, worst, sum, late }) in &self.kinds {
            let mean = sum.as_secs_f64() / (*count).max(1) as f64;
            writeln!(f, "{kind:<44} {count:>6} {mean:>9.2}s {:>9.2}s {late:>6}", worst.as_secs_f64())?;
        }
        let worst = self.kinds.values().map(|seen| seen.worst).max().unwrap_or_default();
        write!(
            f,
            "{} faults, {} operations ({} of unknown outcome), {} grants ({} after waiting), {} messages and connections cut, \
             held or lost; worst pause without grants {:.2} s; {} violations, seed {}",
            self.faults(),
            self.operations,
            self.unknown,
            self.grants,
            self.handovers,
            self.touched,
            worst.as_secs_f64(),
            self.violations.len(),
            self.seed
        )?;
        self.violations.iter().take(10).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs a campaign to its end and judges it. Each part of it has servers and a log of its own.
pub fn run(campaign: &Campaign, base: &Base) -> Outcome {
    let mut all = Outcome { seed: campaign.seed, ..Outcome::default() };
    let mut rng = Rng::new(campaign.seed);
    while all.faults() < campaign.faults && all.violations.is_empty() {
        let round = ROUND.min(campaign.faults - all.faults());
        all.add(part(campaign, base, all.faults(), round, &mut rng));
        if campaign.faults > ROUND {
            println!("{all}\n");
        }
    }
    all
}

fn part(campaign: &Campaign, base: &Base, done: usize, faults: usize, rng: &mut Rng) -> Outcome {
    let failover = format!("{}ms", campaign.failover.as_millis());
    let flags = [
        "--failover",
        &failover,
        "--confirm",
        ALL_TIME,
        "--grace",
        ALL_TIME,
        "--listen-window",
        ALL_TIME,
        "--log-level",
        "warn",
    ];
    let cluster = Cluster::start(&base.place(done), &flags, campaign.plant);
    let arena = Arc::new(Arena::new(cluster.doors()));
    let pools: Vec<&str> = workload::ALL_POOLS.iter().chain(&lookouts::POOLS).copied().collect();
    let mut storm = Storm {
        auditor: Auditor::new(Arc::clone(&arena), &pools),
        granted: Grants::default(),
        arena,
        cluster,
        base,
        rng: rng.fork(),
        failover: campaign.failover,
        longest: campaign.longest,
        happen: faults_of(campaign, base),
        kinds: BTreeMap::new(),
        odd: Vec::new(),
    };
    storm.cluster.until_led();
    storm.arena.open();
    lookouts::declare(&storm.arena, workload::POOLS);
    let clients = storm.start_clients(rng);
    for number in 1..=faults {
        storm.strike();
        if number % AUDIT == 0 {
            storm.audit();
        }
        if !storm.odd.is_empty() {
            break;
        }
    }
    storm.end(campaign.seed, clients)
}

/// What may happen in this run.
fn faults_of(campaign: &Campaign, base: &Base) -> Vec<Fault> {
    let all = FAULTS.iter().chain(base.faults()).copied();
    let chosen: Vec<Fault> = all.filter(|(kind, _)| kind.contains(&campaign.only)).collect();
    assert!(!chosen.is_empty(), "no fault has {:?} in its name", campaign.only);
    chosen
}

type Working = JoinHandle<Vec<(String, Asked)>>;

/// The servers, the load, and what was noted.
pub struct Storm<'b> {
    pub cluster: Cluster,
    base: &'b Base,
    pub rng: Rng,
    arena: Arc<Arena>,
    granted: Grants,
    failover: Duration,
    longest: Duration,
    happen: Vec<Fault>,
    auditor: Auditor,
    kinds: BTreeMap<&'static str, Pauses>,
    odd: Vec<Violation>,
}

impl<'b> Storm<'b> {
    pub fn now(&self) -> Nanos {
        self.arena.now()
    }

    pub fn leader(&self) -> usize {
        self.cluster.until_led()
    }

    pub fn postgres(&self) -> &'b OnPostgres {
        let Base::Postgres(postgres) = self.base else { panic!("it is no PostgreSQL") };
        postgres
    }

    pub fn etcd(&self) -> &'b OnEtcd {
        let Base::Etcd(etcd) = self.base else { panic!("it is no etcd") };
        etcd
    }

    /// A server that does not lead.
    pub fn follower(&mut self) -> usize {
        let by = 1 + usize::try_from(self.rng.below(SERVERS as u64 - 1)).unwrap();
        (self.leader() + by) % SERVERS
    }

    /// The fault lasts: mostly about as long as a failover takes, sometimes far longer.
    pub fn last(&mut self) {
        thread::sleep(self.a_while());
    }

    pub fn a_while(&mut self) -> Duration {
        let failover = u64::try_from(self.failover.as_millis()).unwrap();
        let longest = u64::try_from(self.longest.as_millis()).unwrap();
        let time = match self.rng.below(100) {
            0..35 => self.rng.below(failover),
            35..97 => failover + self.rng.below(failover * 2),
            _ => self.rng.below(longest),
        };
        Duration::from_millis(time.min(longest))
    }

    /// How long servers are stopped: in the long form also for up to the longest time, and for exactly that.
    pub fn pause(&mut self) -> Duration {
        if self.longest <= self.failover * 3 {
            return self.a_while();
        }
        let pause = match self.rng.below(100) {
            0..10 => self.longest,
            10..25 => {
                let more = u64::try_from(self.longest.saturating_sub(SHORT).as_millis()).unwrap();
                SHORT + Duration::from_millis(self.rng.below(more))
            }
            _ => return self.a_while(),
        };
        println!("stopped for {:.1} s", pause.as_secs_f64());
        pause
    }

    /// It lasts for a moment.
    pub fn moment(&mut self) {
        thread::sleep(Duration::from_millis(10 + self.rng.below(300)));
    }

    fn start_clients(&self, rng: &mut Rng) -> Vec<Working> {
        let mut all: Vec<Working> = (0..CLIENTS)
            .map(|index| {
                let client = Client::new(index, rng.fork(), Arc::clone(&self.arena));
                thread::spawn(move || {
                    let mut asked = Vec::new();
                    client.work(&mut asked);
                    asked
                })
            })
            .collect();
        for (number, door) in self.cluster.doors().into_iter().enumerate() {
            let (arena, granted) = (Arc::clone(&self.arena), Arc::clone(&self.granted));
            all.push(thread::spawn(move || lookouts::probe(number, door, &arena, &granted)));
        }
        for number in 0..2 {
            let (arena, rng) = (Arc::clone(&self.arena), rng.fork());
            all.push(thread::spawn(move || lookouts::lease(number, rng, &arena)));
        }
        for number in 0..BUILDS {
            let (arena, doors) = (Arc::clone(&self.arena), self.cluster.doors());
            all.push(thread::spawn(move || lookouts::build(number, &doors, &arena)));
        }
        let arena = Arc::clone(&self.arena);
        all.push(thread::spawn(move || {
            lookouts::list(&arena);
            Vec::new()
        }));
        all
    }

    /// One fault, until grants go on.
    fn strike(&mut self) {
        let index = usize::try_from(self.rng.below(self.happen.len() as u64)).unwrap();
        let (kind, happen) = self.happen[index];
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let since = happen(self);
        self.cluster.heal();
        let Some(pause) = self.until_grant(since, false) else {
            let text = format!("after \"{kind}\" nothing was granted for {PATIENCE:?}");
            return self.odd.push(Violation { rule: Rule::Answers, text });
        };
        if pause > self.failover + LATE {
            println!("late: {:.2} s after \"{kind}\"", pause.as_secs_f64());
            for (number, node) in self.cluster.nodes.iter().enumerate() {
                let log = node.log();
                let lines: Vec<&str> = log.lines().collect();
                lines[lines.len().saturating_sub(12)..].iter().for_each(|line| println!("  server {number}: {line}"));
            }
        }
        let seen = self.kinds.entry(kind).or_default();
        seen.count += 1;
        seen.sum += pause;
        seen.worst = seen.worst.max(pause);
        seen.late += usize::from(pause > self.failover + LATE);
        // Sometimes the next fault comes before all is well.
        if self.rng.percent(60) && self.until_grant(self.now(), true).is_none() {
            let text = format!("after \"{kind}\" one of the servers granted nothing for {PATIENCE:?}");
            self.odd.push(Violation { rule: Rule::Answers, text });
        }
        self.moment();
    }

    /// Waits until something is granted after `since`, by one of the servers or by each; how long after.
    fn until_grant(&self, since: Nanos, by_each: bool) -> Option<Duration> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
            let after = |grant: &&Granted| grant.asked >= since || grant.answered >= since + AFTER;
            let by: BTreeSet<usize> = granted.iter().filter(after).map(|grant| grant.server).collect();
            if by.len() >= if by_each { SERVERS } else { 1 } {
                let first = granted.iter().filter(after).map(|grant| grant.answered).min().unwrap_or(since);
                return Some(Duration::from_nanos(first.saturating_sub(since)));
            }
            drop(granted);
            thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// While no client does anything.
    fn audit(&mut self) {
        self.arena.close();
        let doors = self.cluster.doors();
        self.auditor.audit(&mut |path| lookouts::get(&doors, path), 0);
        self.arena.open();
    }

    fn end(mut self, seed: u64, clients: Vec<Working>) -> Outcome {
        self.arena.stop.store(true, Ordering::SeqCst);
        let end = Instant::now() + PATIENCE * 2;
        while clients.iter().any(|client| !client.is_finished()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        if clients.iter().any(|client| !client.is_finished()) {
            let text = "clients could not end their claims though all servers were well".to_owned();
            self.odd.push(Violation { rule: Rule::Answers, text });
        }
        let ended = clients.into_iter().filter(JoinHandle::is_finished);
        let asked: BTreeMap<String, Asked> =
            ended.flat_map(|client| client.join().expect("a client does not panic")).collect();
        let doors = self.cluster.doors();
        if self.odd.is_empty() {
            // A request of a client that has started again since may arrive after the end that it asked for, and begin
            // another life of its claim. Without such a request, the judge objects.
            self.auditor.audit(&mut |path| lookouts::get(&doors, path), 0);
            let left = audit::live_claims(&mut |path| lookouts::get(&doors, path));
            lookouts::end_all(&self.arena, left.iter().map(|claim| &*claim.id));
            self.auditor.everything_is_over(&mut |path| lookouts::get(&doors, path), PATIENCE);
        }
        self.odd.extend(self.cluster.bugs().into_iter().map(|text| Violation { rule: Rule::Durable, text }));
        self.odd.append(&mut self.auditor.odd);
        self.outcome(seed, asked)
    }

    fn outcome(self, seed: u64, asked: BTreeMap<String, Asked>) -> Outcome {
        let ops = std::mem::take(&mut *self.arena.log.lock().unwrap_or_else(PoisonError::into_inner));
        let attention = u64::try_from(ATTENTION.as_nanos()).unwrap_or(Nanos::MAX);
        // Any request may arrive late, so none has a last moment.
        let history = History { asked, ops, ready: vec![0], deaths: Vec::new(), attention };
        let mut violations = check(&history);
        violations.extend(self.odd);
        if !violations.is_empty() {
            audit::write_down("cluster", seed, &history);
        }
        let ids = |shows: &dyn Fn(&Seen) -> bool| -> BTreeSet<&str> {
            history.ops.iter().filter(|op| shows(&op.seen)).map(|op| &*op.id).collect()
        };
        let waited = ids(&|seen| matches!(seen, Seen::Waiting { .. }));
        let served = ids(&|seen| seen.grant().is_some());
        Outcome {
            seed,
            kinds: self.kinds,
            operations: history.ops.iter().filter(|op| op.call != Call::Neglect).count(),
            unknown: history.ops.iter().filter(|op| op.done.is_none()).count(),
            grants: history.grants(),
            handovers: waited.intersection(&served).count(),
            touched: self.cluster.touched(),
            violations,
        }
    }
}
