//! The server of the models: the real core with its own clock, and one pool `p` with one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use locker::core::claim::{Ended, Phase, Presence};
use locker::core::command::{AskClaim, Command, Refusal, Reply, Wait};
use locker::core::history::Outline;
use locker::core::names::{ChangeKey, ClaimId, Fence, ParkId, PoolName, Run, Ticket};
use locker::core::restart::restarted;
use locker::core::settings::Settings;
use locker::core::state::{EndedOutline, Loaded, Meta, Notice, State};
use locker::core::step::step;
use locker::core::time::{Deadline, EngineMs, Now, Span};
use locker::wire::parse;
use locker::wire::problems::Problems;
use serde_json::json;

/// A server without a network. Two are equal when everything is that the rules use: deadlines are relative to now, and
/// for tickets, fences and lives only the order matters.
#[derive(Clone, Debug)]
pub struct Server {
    state: State,
    now: Now,
    /// Parked requests that have a notice to run again.
    pub told: BTreeSet<ParkId>,
    /// The number of parked requests so far.
    parks: u64,
    /// The history, as a store would keep it.
    history: BTreeMap<ChangeKey, Outline>,
    /// The ended claims, as a store would keep them.
    ended: BTreeMap<ClaimId, Ended>,
}

/// The terms of a claim.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub confirm: bool,
    /// A lease of this many milliseconds. `None` is a hold that only a release ends.
    pub lease: Option<u64>,
}

pub fn claim(n: usize) -> ClaimId {
    ClaimId::parse(&format!("c{n}")).unwrap()
}

impl Server {
    pub fn new(settings: Settings) -> Self {
        let now = Now::default();
        let state = restarted(Loaded::default(), [], [], settings, 1, now);
        let mut server =
            Self { state, now, told: BTreeSet::new(), parks: 0, history: BTreeMap::new(), ended: BTreeMap::new() };
        server.settle();
        server
    }

    pub fn tick(&mut self, span: u64) {
        self.now.engine = self.now.engine.plus(Span(span));
        let _ = self.step(Command::Tick);
    }

    fn step(&mut self, command: Command) -> Result<Reply, Refusal> {
        for id in self.state.to_recall(&command) {
            self.state.recall(self.ended[&id].clone());
        }
        let reply = step(&mut self.state, command, self.now);
        self.settle();
        reply
    }

    fn settle(&mut self) {
        // Everything is committed at once. Other proofs cover what a crash loses.
        let changes = self.state.take_changes(self.now);
        self.history.extend(changes.history.iter().map(|change| (change.key, change.outline())));
        changes.pruned.iter().for_each(|key| drop(self.history.remove(key)));
        for (id, ended) in changes.ended {
            match ended {
                Some(ended) => drop(self.ended.insert(id, (*ended).clone())),
                None => drop(self.ended.remove(&id)),
            }
        }
        for (id, forget) in changes.forget {
            self.ended.entry(id).and_modify(|ended| ended.forget = forget);
        }
        let told = self.state.take_notices().into_iter();
        self.told.extend(told.filter_map(|n| if let Notice::Park(park) = n { Some(park) } else { None }));
    }

    pub fn ask(&mut self, n: usize, how: Asking, wait: Wait) -> Result<Reply, Refusal> {
        let mut body = json!({"pool": "p", "confirm": how.confirm, "run": "r"});
        if let Some(ttl) = how.lease {
            body["scope"] = json!("lease");
            body["ttl"] = json!(format!("{ttl}ms"));
        }
        let mut problems = Problems::default();
        let asked = parse::claim(claim(n), serde_json::from_value(body).unwrap(), &mut problems).unwrap();
        if let Wait::Over(park) = wait {
            self.told.remove(&park);
        }
        self.step(Command::Ask(Box::new(AskClaim { wait, ..asked.ask })))
    }

    pub fn confirm(&mut self, n: usize, fence: Fence) -> Result<Reply, Refusal> {
        self.step(Command::Confirm { id: claim(n), run: Some(run()), fence })
    }

    pub fn renew(&mut self, n: usize, fence: Fence) -> Result<Reply, Refusal> {
        self.step(Command::Renew { id: claim(n), run: Some(run()), fence: Some(fence) })
    }

    pub fn end(&mut self, n: usize) -> Result<Reply, Refusal> {
        self.step(Command::End { id: claim(n), run: Some(run()), by: None, reason: None })
    }

    pub fn left(&mut self, park: ParkId) {
        self.told.remove(&park);
        let _ = self.step(Command::Left { park });
    }

    /// Kills the server and starts it again from its store.
    pub fn restart(&mut self) {
        let snapshot = &self.state.snapshot;
        let claims = snapshot.claims.values().map(|claim| {
            let mut claim = (**claim).clone();
            claim.parks.clear();
            claim
        });
        let claims: Vec<_> = claims.collect();
        let next_ticket = Ticket(claims.iter().map(|claim| claim.ticket.0).max().unwrap_or(0) + 1);
        let locks = |pool: &locker::core::pool::Pool| {
            let name = pool.name.clone();
            pool.locks.values().map(move |lock| (name.clone(), (**lock).clone())).collect::<Vec<_>>()
        };
        let loaded = Loaded {
            meta: Some(Meta {
                revision: snapshot.revision,
                next_ticket,
                engine: self.now.engine,
                pruned: snapshot.history.pruned,
            }),
            pools: snapshot.pools.values().map(|pool| (pool.name.clone(), pool.policy.clone())).collect(),
            locks: snapshot.pools.values().flat_map(|pool| locks(pool)).collect(),
            claims,
            ..Loaded::default()
        };
        let ended = self.ended.values().map(EndedOutline::from);
        self.state = restarted(loaded, ended, self.history.values().cloned(), self.state.settings.clone(), 1, self.now);
        self.told.clear();
        self.settle();
        let _ = self.step(Command::Tick);
    }

    /// A number for a new parked request.
    pub fn fresh_park(&mut self) -> ParkId {
        self.parks += 1;
        ParkId(self.parks)
    }

    /// The claim that has the lock, granted or held.
    pub fn holder(&self) -> Option<ClaimId> {
        let pool = self.state.snapshot.pool(&PoolName::parse("p").unwrap())?;
        pool.locks.values().find_map(|lock| lock.holders.first()).map(|holder| holder.claim.clone())
    }

    /// The fence of a present grant or hold.
    pub fn fence(&self, n: usize) -> Option<Fence> {
        self.state.snapshot.claims.get(&claim(n))?.fence()
    }

    /// The fence of a present *hold*, as `verify` asks for it.
    pub fn held(&self, n: usize) -> Option<Fence> {
        match &self.state.snapshot.claims.get(&claim(n))?.phase {
            Phase::Held { fence, .. } => Some(*fence),
            _ => None,
        }
    }

    /// The time until something happens to a claim by itself.
    pub fn left_of(&self, n: usize) -> Option<u64> {
        let claim = self.state.snapshot.claims.get(&claim(n))?;
        claim.timer().map(|at| at.0.saturating_sub(self.now.engine.0))
    }

    fn hash_deadline(&self, deadline: Option<Deadline>, hasher: &mut impl Hasher) {
        deadline.map(|d| d.at.0.saturating_sub(self.now.engine.0)).hash(hasher);
    }
}

fn run() -> Run {
    Run::parse("r").unwrap()
}

impl Hash for Server {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let pool = self.state.snapshot.pool(&PoolName::parse("p").unwrap());
        if let Some(pool) = pool {
            pool.waiting.values().for_each(|id| id.hash(hasher));
            for lock in pool.locks.values() {
                lock.holders.iter().for_each(|holder| holder.claim.hash(hasher));
                self.hash_deadline(lock.drain, hasher);
            }
        }
        for claim in self.state.snapshot.claims.values() {
            (&claim.id, claim.withdrawals, claim.parks.len()).hash(hasher);
            claim.parks.iter().filter(|park| self.told.contains(park)).count().hash(hasher);
            match &claim.phase {
                Phase::Waiting { presence, .. } => {
                    let word = match presence {
                        Presence::Parked => 0u8,
                        Presence::Recent(_) => 1,
                        Presence::Grace(_) => 2,
                        Presence::Away(_) => 3,
                    };
                    (0u8, word).hash(hasher);
                    self.hash_deadline(presence.deadline(), hasher);
                }
                Phase::Granted { confirm_by, .. } => {
                    1u8.hash(hasher);
                    self.hash_deadline(Some(*confirm_by), hasher);
                }
                Phase::Held { .. } => {
                    2u8.hash(hasher);
                    claim.timer().map(|EngineMs(at)| at.saturating_sub(self.now.engine.0)).hash(hasher);
                }
            }
        }
        self.ended.values().for_each(|ended| (&ended.id, ended.how).hash(hasher));
    }
}
