//! The rules (docs/design.md) a second time, in the simplest way: lists, linear scans, and nothing stored that can be
//! derived. Written from the rules, it shares no code and no type with the product, so it can judge the core as well as
//! a server behind HTTP.
//!
//! [`Model::apply`] is the whole interface: an operation in, the expected answer out; [`Model::view`] is what every
//! reader must then see. Times are milliseconds. The model does not predict fences: a test that drives a system with it
//! checks that each new grant ([`Claim::grant`]) has a fence above all earlier ones.

// A rule can be off, on, or on with a number.
#![allow(clippy::option_option)]

use std::collections::{BTreeMap, BTreeSet};

use super::latches::{self, Latch, LatchOp};

/// The pool whose locks are picked at random. The model cannot know which ones, so nobody names them, nobody shares them,
/// and readers see them without their names.
pub(super) const RANDOM: &str = "z";

/// Labels of a lock, or those that a claim wants.
pub(super) type Labels = BTreeMap<String, String>;

/// A lock by pool and name, as readers see it.
pub(super) fn seen(pool: &str, lock: &str) -> (String, String) {
    (pool.to_owned(), if pool == RANDOM { "any" } else { lock }.to_owned())
}

/// The durations of the rules.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) listen: u64,
    pub(super) grace: u64,
    pub(super) place: u64,
    pub(super) confirm: u64,
    pub(super) withdrawals: u32,
    pub(super) drain: u64,
    pub(super) lease: u64,
    /// How long a marked hold lasts without news of its build.
    pub(super) unanswered: u64,
    pub(super) memory: u64,
    pub(super) build_memory: u64,
    /// How long a released latch is kept.
    pub(super) latch_kept: u64,
    /// Most operations that are remembered. (The limit of ended claims is left out: of those that ended in the same
    /// moment, any may be forgotten first.)
    pub(super) ops: usize,
    /// Deadlines up to this span start again in full with the server.
    pub(super) short: u64,
    /// Most parked requests of one claim.
    pub(super) parks: usize,
    pub(super) declared_only: bool,
}

/// What is wanted of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// This many locks that have all these labels.
    Any(usize, Labels),
    Named(Vec<String>),
}

/// *What* a request asks for, and for which build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// By pool, each pool once.
    pub(super) parts: Vec<(String, Want)>,
    pub(super) key: Option<String>,
    pub(super) who: Option<String>,
    pub(super) build: Option<String>,
    pub(super) scope: Option<&'static str>,
}

impl Shape {
    fn sharer(&self) -> Option<(&String, &String)> {
        self.key.as_ref().map(|key| (key, self.who.as_ref().unwrap_or(key)))
    }

    fn part(&self, pool: &str) -> Option<&Want> {
        self.parts.iter().find(|(name, _)| name == pool).map(|(_, want)| want)
    }
}

/// How a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Park(u64),
    Over(u64),
}

/// `PUT` of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) claim: String,
    pub(super) shape: Shape,
    pub(super) run: Option<String>,
    pub(super) wait: Wait,
    pub(super) priority: i32,
    pub(super) confirm: bool,
    pub(super) try_lock: bool,
    pub(super) give_up: Option<u64>,
    pub(super) ttl: Option<u64>,
    /// Wait for any one lock while the pool has none.
    pub(super) if_empty: bool,
    /// The name whose older waiting claims it ends, from its own job only unless the name begins with a slash.
    pub(super) supersede: Option<String>,
    pub(super) job: Option<String>,
}

/// Which fence a confirm names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Present,
    /// The fence of the previous grant.
    Former,
    Wrong,
}

/// The order of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Fifo,
    Priority,
    Lifo,
}

/// Where a waiter moves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    First,
    Last,
    Before(String),
}

/// Everything that can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Ask(Request),
    Confirm {
        claim: String,
        run: Option<String>,
        fence: Which,
    },
    Renew {
        claim: String,
        run: Option<String>,
        fence: Option<Which>,
    },
    Break {
        claim: String,
        drain: bool,
    },
    /// By somebody else, while the claim waits.
    Cancel(String),
    Move {
        claim: String,
        to: To,
    },
    Quarantine {
        pool: String,
        lock: String,
        span: Option<u64>,
    },
    Return {
        pool: String,
        lock: String,
    },
    /// An `in` has fetched the present hold, or another one.
    Deliver {
        claim: String,
        present: bool,
        /// Whether another build than the claim's own did, if it is known.
        another: Option<bool>,
    },
    Over {
        build: String,
        how: &'static str,
    },
    /// A step of a build releases it, where builds may run again or not.
    Release {
        claim: String,
        build: Option<String>,
        may_mark: bool,
    },
    /// A build is known to be running.
    Alive(String),
    /// The state of a build is unknown (`why`), or known again.
    Suspect {
        build: String,
        why: bool,
    },
    Latch(LatchOp),
    /// A change with the id of an operation.
    Once {
        op: String,
        change: Box<Op>,
    },
    End {
        claim: String,
        run: Option<String>,
    },
    Left(u64),
    SetPool {
        pool: String,
        capacity: Option<u32>,
        drain: Option<u64>,
        max_hold: Option<u64>,
        max_queue: Option<u32>,
        order: Order,
        /// Later claims may pass those that cannot be served; with a number, at most that many times past each.
        backfill: Option<Option<u32>>,
        /// Free locks are picked by name instead of least recently used first.
        by_name: bool,
        scope: Option<&'static str>,
        /// Whether claims wait for locks that the pool does not have, if it says so.
        when_empty: Option<bool>,
        /// Whether it keeps what a build leaves that was cut short.
        keep: bool,
    },
    /// Some rules change; a new pool has a lock even so.
    ChangePool {
        pool: String,
        capacity: Option<u32>,
        drain: Option<Option<u64>>,
        scope: Option<Option<&'static str>>,
    },
    RemovePool(String),
    Add {
        pool: String,
        lock: String,
        labels: Labels,
        /// This claim holds the new lock at once.
        claim: Option<Request>,
    },
    Update {
        pool: String,
        lock: String,
        labels: Labels,
    },
    Remove {
        pool: String,
        lock: String,
        claim: Option<String>,
    },
    MoveLock {
        pool: String,
        lock: String,
        to: String,
        claim: Option<String>,
    },
    Reconcile,
    /// Time passes, and everything happens when it is due.
    Pass(u64),
    /// Time passes without a step, and then everything that is due happens.
    Leap(u64),
    Restart,
}

/// The answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Waiting { parked: bool },
    Granted(Vec<(String, String)>),
    Held(Vec<(String, String)>),
    Busy,
    Marked(Vec<(String, String)>),
    Ended { how: &'static str, again: bool },
    Latch(String),
    Done,
    Nothing,
    Refused(&'static str),
    RefusedEnded(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    at: u64,
    span: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Recent(u64),
    Grace(u64),
    Away(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Waiting {
        parks: Vec<u64>,
        absent: Absent,
        give_up: Option<Deadline>,
    },
    Granted {
        confirm_by: Deadline,
        give_up: Option<Deadline>,
    },
    /// `marked`: its build has released it, and it lasts until the build is over.
    Held {
        until: Option<Deadline>,
        limit: Option<Deadline>,
        fetched: bool,
        delivered: bool,
        marked: bool,
    },
}

/// A live claim.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) id: String,
    /// The number of its last grant across all claims, 0 for none. A new number comes with a new, larger fence.
    pub(super) grant: u64,
    /// All its grants of this life.
    pub(super) grants: Vec<u64>,
    life: u32,
    shape: Shape,
    confirm: bool,
    if_empty: bool,
    ttl: Option<u64>,
    scope: &'static str,
    supersede: Option<String>,
    job: Option<String>,
    build_over: bool,
    runs: Vec<String>,
    ticket: u64,
    priority: i32,
    /// `self_wait`, `deadlock` or empty: its state, and what its client was last told.
    stuck: &'static str,
    told: &'static str,
    withdrawals: u32,
    passed: u32,
    locks: Vec<(String, String)>,
    /// Other ids that were answered with it.
    aliases: Vec<String>,
    phase: Phase,
}

impl Claim {
    fn is_marked(&self) -> bool {
        matches!(self.phase, Phase::Held { marked: true, .. })
    }

    /// Its locks, as readers see them.
    fn seen_locks(&self) -> Vec<(String, String)> {
        self.locks.iter().map(|(pool, lock)| seen(pool, lock)).collect()
    }

    fn listens(&self) -> bool {
        match &self.phase {
            Phase::Waiting { parks, absent, .. } => !parks.is_empty() || !matches!(absent, Absent::Away(_)),
            _ => false,
        }
    }

    fn hears(&self) -> bool {
        match &self.phase {
            Phase::Waiting { parks, absent, .. } => !parks.is_empty() || matches!(absent, Absent::Recent(_)),
            _ => false,
        }
    }

    fn waits(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    fn due(&self) -> Option<u64> {
        match &self.phase {
            Phase::Waiting { parks, absent: Absent::Recent(at) | Absent::Grace(at) | Absent::Away(at), give_up } => {
                let absent = parks.is_empty().then_some(*at);
                [absent, give_up.map(|d| d.at)].into_iter().flatten().min()
            }
            Phase::Granted { confirm_by, .. } => Some(confirm_by.at),
            Phase::Held { until, limit, .. } => [until, limit].into_iter().flatten().map(|d| d.at).min(),
        }
    }

    /// Whether the fate of its build matters for this claim, or is only shown.
    fn watches_its_build(&self) -> Option<&'static str> {
        let fetched = matches!(self.phase, Phase::Held { delivered: true, .. });
        let held = matches!(self.phase, Phase::Held { .. });
        let watches = match self.scope {
            _ if !held || self.is_marked() => "decides",
            "build" => "decides",
            "flow" if !fetched => "decides",
            "flow" => "shows",
            _ => return None,
        };
        (self.shape.build.is_some() && !self.build_over).then_some(watches)
    }
}

#[derive(Debug, Clone)]
struct Ended {
    id: String,
    life: u32,
    shape: Option<Shape>,
    runs: Vec<String>,
    how: &'static str,
    at: u64,
    forget: u64,
    had_locks: bool,
}

#[derive(Debug, Clone)]
struct Lock {
    name: String,
    labels: Labels,
    drain: Option<Deadline>,
    /// Out of service, until this time if there is one.
    out: Option<Option<u64>>,
    /// The length of that time.
    out_span: u64,
    leaving: bool,
    /// The pool got it because it had no other.
    implicit: bool,
    /// When something was last written about it, as a growing number.
    mention: u64,
}

#[derive(Debug, Clone)]
struct Pool {
    name: String,
    drain: Option<u64>,
    max_hold: Option<u64>,
    max_queue: Option<u32>,
    order: Order,
    backfill: Option<Option<u32>>,
    by_name: bool,
    scope: Option<&'static str>,
    when_empty: Option<bool>,
    keep: bool,
    locks: Vec<Lock>,
}

impl Lock {
    fn new(name: &str, labels: Labels, mention: u64) -> Self {
        Self {
            name: name.to_owned(),
            labels,
            drain: None,
            out: None,
            out_span: 0,
            leaving: false,
            implicit: false,
            mention,
        }
    }
}

impl Pool {
    fn new(name: &str) -> Self {
        let (drain, max_hold, max_queue, locks) = (None, None, None, Vec::new());
        Self {
            name: name.to_owned(),
            drain,
            max_hold,
            max_queue,
            order: Order::Fifo,
            backfill: None,
            by_name: false,
            scope: None,
            when_empty: None,
            keep: false,
            locks,
        }
    }
}

/// The state of the server, as the rules see it.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) rules: Rules,
    /// The answer to the last operation.
    pub(super) answer: Answer,
    pub(super) claims: Vec<Claim>,
    now: u64,
    ended: Vec<Ended>,
    pools: Vec<Pool>,
    /// Until when there must be news of each build with marked holds.
    news: Vec<(u64, String)>,
    /// Builds whose state is unknown.
    suspects: BTreeSet<String>,
    latches: Vec<Latch>,
    /// Operations that were done: until when they are remembered, their ids, and what they did.
    pub(super) ops: Vec<(u64, String, Op)>,
    /// Requests that are parked or must be answered, with what they asked for.
    pub(super) parked: Vec<(u64, Request)>,
    tickets: u64,
    grants: u64,
    mentions: u64,
}

type Result<T> = std::result::Result<T, Answer>;

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            answer: Answer::Nothing,
            claims: Vec::new(),
            now: 0,
            ended: Vec::new(),
            pools: Vec::new(),
            news: Vec::new(),
            suspects: BTreeSet::new(),
            latches: Vec::new(),
            ops: Vec::new(),
            parked: Vec::new(),
            tickets: 0,
            grants: 0,
            mentions: 0,
        }
    }

    /// Executes one operation; [`Model::answer`] is then the expected answer.
    pub(super) fn apply(&mut self, op: &Op) {
        self.expire();
        self.dispatch();
        let answer = self.carry_out(op);
        self.dispatch();
        self.answer = answer.unwrap_or_else(|refusal| refusal);
        self.untangle();
        if let (Op::Ask(request), Answer::Waiting { parked: false }) = (op, &self.answer)
            && let Some(at) = self.live(&request.claim)
            && self.claims[at].waits()
        {
            self.claims[at].told = self.claims[at].stuck;
        }
    }

    #[allow(clippy::too_many_lines, reason = "one short arm for each operation")]
    fn carry_out(&mut self, op: &Op) -> Result<Answer> {
        match op {
            Op::Ask(request) => self.ask(request),
            Op::Confirm { claim, run, fence } => self.confirm(claim, run.as_ref(), *fence),
            Op::Renew { claim, run, fence } => self.renew(claim, run.as_ref(), *fence),
            Op::Break { claim, drain } => self.break_claim(claim, *drain),
            Op::Cancel(claim) => self.cancel(claim),
            Op::Move { claim, to } => self.move_claim(claim, to),
            Op::Quarantine { pool, lock, span } => self.quarantine(pool, lock, *span),
            Op::Return { pool, lock } => self.put_back(pool, lock),
            Op::Deliver { claim, present, another } => self.deliver(claim, *present, *another),
            Op::Over { build, how } => {
                self.build_over(build, how);
                Ok(Answer::Nothing)
            }
            Op::Release { claim, build, may_mark } => self.release(claim, build.as_ref(), *may_mark),
            Op::Alive(build) => {
                if self.news.iter().any(|(_, of)| of == build) {
                    self.wait_for_news(build);
                }
                Ok(Answer::Nothing)
            }
            Op::Suspect { build, why } => {
                self.suspect(build, *why);
                Ok(Answer::Nothing)
            }
            Op::Latch(op) => {
                let forget = self.deadline(self.rules.latch_kept);
                latches::apply(&mut self.latches, op, forget)
            }
            Op::Once { op, change } => self.once(op, change),
            Op::End { claim, run } => self.end(claim, run.as_ref()),
            Op::Left(park) => {
                self.park_ends(*park);
                Ok(Answer::Nothing)
            }
            Op::SetPool {
                pool,
                capacity,
                drain,
                max_hold,
                max_queue,
                order,
                backfill,
                by_name,
                scope,
                when_empty,
                keep,
            } => {
                let policy = (*drain, *max_hold, *max_queue, *scope, *when_empty, *keep);
                self.set_pool(pool, *capacity, policy, (*order, *backfill, *by_name))
            }
            Op::ChangePool { pool, capacity, drain, scope } => self.change_pool(pool, *capacity, *drain, *scope),
            Op::RemovePool(pool) => self.remove_pool(pool),
            Op::Add { pool, lock, labels, claim } => self.add(pool, lock, labels, claim.as_ref()),
            Op::Update { pool, lock, labels } => self.update(pool, lock, labels),
            Op::Remove { pool, lock, claim } => self.remove(pool, lock, claim.as_ref()),
            Op::MoveLock { pool, lock, to, claim } => self.move_lock(pool, lock, to, claim.as_ref()),
            Op::Reconcile => Ok(Answer::Nothing),
            Op::Pass(span) => {
                self.pass(self.now + span);
                Ok(Answer::Nothing)
            }
            Op::Leap(span) => {
                self.now += span;
                self.expire();
                Ok(Answer::Nothing)
            }
            Op::Restart => {
                self.restart();
                Ok(Answer::Nothing)
            }
        }
    }

    /// Makes a change, unless this operation has made it already.
    fn once(&mut self, id: &str, change: &Op) -> Result<Answer> {
        if let Some((_, _, before)) = self.ops.iter().find(|(_, known, _)| known == id) {
            return if before == change { Ok(Answer::Done) } else { Err(Answer::Refused("different_request")) };
        }
        let answer = self.carry_out(change)?;
        self.ops.push((self.now + self.rules.memory, id.to_owned(), change.clone()));
        self.ops.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        if self.ops.len() > self.rules.ops {
            // The oldest one that was known before.
            let oldest = self.ops.iter().position(|(_, known, _)| known != id).unwrap_or_default();
            self.ops.remove(oldest);
        }
        Ok(answer)
    }

    // ---- requests

    fn ask(&mut self, request: &Request) -> Result<Answer> {
        if let Wait::Park(park) | Wait::Over(park) = request.wait {
            self.park_ends(park);
        }
        let id = &request.claim;
        if let Some(at) = self.live(id) {
            if self.claims[at].shape != request.shape {
                return Err(Answer::Refused("different_request"));
            }
            refuse_earlier(&self.claims[at].runs, request.run.as_ref())?;
            learn(&mut self.claims[at].runs, request.run.as_ref());
            return Ok(self.serve(at, request));
        }
        if let Some(at) = self.claims.iter().position(|claim| claim.aliases.contains(id)) {
            let same = self.claims[at].shape == request.shape;
            return if same { Ok(self.tell(at, false)) } else { Err(Answer::Refused("different_request")) };
        }
        let (life, mut runs) = self.next_life(request)?;
        if let Some(at) = self.lender(&request.shape) {
            self.ended.retain(|ended| ended.id != *id);
            self.claims[at].aliases.push(id.clone());
            return Ok(self.tell(at, false));
        }
        learn(&mut runs, request.run.as_ref());
        for (pool, want) in &request.shape.parts {
            self.may_ask(pool, want, request.if_empty)?;
        }
        let order = |pool: &String| self.pool(pool).map_or(Order::Fifo, |pool| pool.order);
        let orders: Vec<Order> = request.shape.parts.iter().map(|(pool, _)| order(pool)).collect();
        if orders.len() > 1 && orders.iter().any(|order| *order != orders[0] || *order == Order::Lifo) {
            return Err(Answer::Refused("mixed_orders"));
        }
        let scope = self.scope_of(&request.shape);
        if scope == "build" && request.shape.build.is_none() {
            return Err(Answer::Refused("unprocessable"));
        }
        let claim = self.new_claim(request, scope, life, runs);
        if self.claims.iter().any(|other| is_newer(other, &claim)) {
            self.ended.retain(|ended| ended.id != *id);
            self.claims.push(claim);
            self.finish(id, "superseded");
            return Err(Answer::RefusedEnded("superseded"));
        }
        let outdated = self.claims.iter().filter(|other| other.waits() && is_newer(&claim, other));
        let outdated: Vec<String> = outdated.map(|other| other.id.clone()).collect();
        if !self.would_be_served(&claim) {
            let own = self.claims.iter().filter(|c| c.is_marked() && c.shape.build == claim.shape.build);
            let own: BTreeSet<String> = own.filter(|c| self.blocks(c, &claim)).map(|c| c.id.clone()).collect();
            own.iter().for_each(|id| self.finish(id, "released"));
        }
        if !self.would_be_served(&claim) {
            if request.try_lock {
                return Ok(Answer::Busy);
            }
            self.room_to_wait(&request.shape, &outdated)?;
        }
        outdated.iter().for_each(|old| self.finish(old, "superseded"));
        for (pool, _) in &request.shape.parts {
            if self.pool(pool).is_none() {
                let mention = self.mention();
                let lock = Lock { implicit: true, ..Lock::new(pool, Labels::new(), mention) };
                self.pools.push(Pool { locks: vec![lock], ..Pool::new(pool) });
            }
        }
        self.ended.retain(|ended| ended.id != *id);
        self.claims.push(claim);
        Ok(self.serve(self.claims.len() - 1, request))
    }

    fn next_life(&self, request: &Request) -> Result<(u32, Vec<String>)> {
        let Some(ended) = self.ended.iter().find(|ended| ended.id == request.claim) else {
            return Ok((1, Vec::new()));
        };
        if ended.shape.as_ref().is_some_and(|shape| *shape != request.shape) {
            return Err(Answer::Refused("different_request"));
        }
        refuse_earlier(&ended.runs, request.run.as_ref())?;
        let fresh = request.run.as_ref().is_some_and(|run| !ended.runs.contains(run));
        let may = match ended.how {
            "listener_lost" => true,
            "unconfirmed" | "cancelled" | "gave_up" | "released" => fresh,
            _ => false,
        };
        if may { Ok((ended.life + 1, ended.runs.clone())) } else { Err(Answer::RefusedEnded(ended.how)) }
    }

    /// The requested scope, otherwise the scope of its pools that has the most ways to end.
    fn scope_of(&self, shape: &Shape) -> &'static str {
        let of_pools: Vec<&str> =
            shape.parts.iter().filter_map(|(pool, _)| self.pool(pool)).filter_map(|pool| pool.scope).collect();
        let default = ["build", "person"].into_iter().find(|scope| of_pools.contains(scope)).unwrap_or("flow");
        shape.scope.unwrap_or(default)
    }

    fn new_claim(&mut self, request: &Request, scope: &'static str, life: u32, runs: Vec<String>) -> Claim {
        self.tickets += 1;
        let give_up = request.give_up.map(|span| self.deadline(span));
        let absent = Absent::Recent(self.now + self.rules.listen);
        Claim {
            id: request.claim.clone(),
            grant: 0,
            grants: Vec::new(),
            life,
            shape: request.shape.clone(),
            confirm: request.confirm,
            if_empty: request.if_empty,
            ttl: request.ttl.or((scope == "lease").then_some(self.rules.lease)),
            scope,
            supersede: request.supersede.clone(),
            job: request.job.clone(),
            build_over: false,
            runs,
            ticket: self.tickets,
            priority: request.priority,
            stuck: "",
            told: "",
            withdrawals: 0,
            passed: 0,
            locks: Vec::new(),
            aliases: Vec::new(),
            phase: Phase::Waiting { parks: Vec::new(), absent, give_up },
        }
    }

    /// Refuses what the pool does not have, unless the claim may wait for it.
    fn may_ask(&self, pool: &str, want: &Want, if_empty: bool) -> Result<()> {
        let waits = match self.pool(pool).map(|pool| pool.when_empty) {
            None | Some(Some(false)) => false,
            Some(Some(true)) => true,
            Some(None) => if_empty && matches!(want, Want::Any(1, labels) if labels.is_empty()),
        };
        if waits { Ok(()) } else { self.can_ever(pool, want) }
    }

    /// Whether its pools have all that the claim wants, held or not.
    fn exists(&self, claim: &Claim) -> bool {
        claim.shape.parts.iter().all(|(pool, want)| self.can_ever(pool, want).is_ok())
    }

    /// Refuses what the pool does not have.
    fn can_ever(&self, pool: &str, want: &Want) -> Result<()> {
        let Some(known) = self.pool(pool) else {
            let makes_it = match want {
                Want::Any(count, labels) => *count == 1 && labels.is_empty(),
                Want::Named(names) => *names == [pool.to_owned()],
            };
            let ok = makes_it && !self.rules.declared_only;
            return if ok { Ok(()) } else { Err(Answer::Refused("no_such_pool")) };
        };
        let staying: Vec<&Lock> = known.locks.iter().filter(|lock| !lock.leaving).collect();
        match want {
            Want::Named(names) if names.iter().any(|name| !staying.iter().any(|lock| lock.name == *name)) => {
                Err(Answer::Refused("no_such_lock"))
            }
            Want::Any(count, labels) if staying.iter().filter(|lock| fits(lock, labels)).count() < *count => {
                Err(Answer::Refused("too_many"))
            }
            _ => Ok(()),
        }
    }

    fn would_be_served(&self, claim: &Claim) -> bool {
        let mut known = claim.clone();
        known.shape.parts.retain(|(pool, _)| self.pool(pool).is_some());
        self.can_take(&known).is_some()
    }

    /// Claims that this one supersedes make room for it.
    fn room_to_wait(&self, shape: &Shape, outdated: &[String]) -> Result<()> {
        for (name, _) in &shape.parts {
            let Some(max) = self.pool(name).and_then(|pool| pool.max_queue) else { continue };
            let waiting = self.claims.iter().filter(|claim| claim.waits() && claim.shape.part(name).is_some());
            let waiting = waiting.filter(|claim| !outdated.contains(&claim.id));
            if waiting.count() >= max as usize {
                return Err(Answer::Refused("queue_full"));
            }
        }
        Ok(())
    }

    fn serve(&mut self, at: usize, request: &Request) -> Answer {
        if self.claims[at].waits()
            && let Some(locks) = self.can_take(&self.claims[at])
        {
            self.grant(at, locks);
        }
        let recent = Absent::Recent(self.now + self.rules.listen);
        let mut parked_now = false;
        let knows = self.claims[at].told == self.claims[at].stuck;
        if let Phase::Waiting { parks, absent, .. } = &mut self.claims[at].phase {
            if let Wait::Park(park) = request.wait
                && parks.len() < self.rules.parks
                && knows
            {
                parks.push(park);
                parked_now = true;
            }
            *absent = recent;
        }
        if let Wait::Park(park) = request.wait
            && parked_now
        {
            self.parked.push((park, request.clone()));
        }
        self.tell(at, parked_now)
    }

    fn tell(&self, at: usize, parked: bool) -> Answer {
        let claim = &self.claims[at];
        match claim.phase {
            Phase::Waiting { .. } => Answer::Waiting { parked },
            Phase::Granted { .. } => Answer::Granted(claim.seen_locks()),
            Phase::Held { .. } => Answer::Held(claim.seen_locks()),
        }
    }

    fn park_ends(&mut self, park: u64) {
        self.parked.retain(|(open, _)| *open != park);
        let grace = Absent::Grace(self.now + self.rules.grace);
        for claim in &mut self.claims {
            if let Phase::Waiting { parks, absent, .. } = &mut claim.phase
                && parks.contains(&park)
            {
                parks.retain(|p| *p != park);
                if parks.is_empty() {
                    *absent = grace;
                }
            }
        }
    }

    // ---- turns

    /// The locks that the claim may take now, if it is its turn.
    fn can_take(&self, claim: &Claim) -> Option<Vec<(String, String)>> {
        let mut locks = Vec::new();
        for (pool, want) in &claim.shape.parts {
            locks.extend(self.choose(pool, want, &claim.shape)?.into_iter().map(|lock| (pool.clone(), lock)));
        }
        let own = claim.shape.sharer().is_some()
            && locks.iter().all(|(pool, lock)| {
                self.holders(pool, lock).iter().any(|holder| holder.shape.sharer() == claim.shape.sharer())
            });
        let held_back = || {
            let mut in_the_way = Vec::new();
            for (pool, want) in &claim.shape.parts {
                in_the_way
                    .extend(self.before_in(pool, want, claim).into_iter().filter(|c| !self.may_be_passed(pool, c)));
            }
            in_the_way.iter().any(|earlier| !self.waits_for(earlier, claim))
        };
        (own || !held_back()).then_some(locks)
    }

    /// Whether all locks that the claim needs are available, regardless of the queue.
    fn could_have(&self, claim: &Claim) -> bool {
        claim.shape.parts.iter().all(|(pool, want)| self.choose(pool, want, &claim.shape).is_some())
    }

    /// Whether later claims may be served before this one in this pool.
    fn may_be_passed(&self, pool: &str, claim: &Claim) -> bool {
        let backfill = self.pool(pool).and_then(|pool| pool.backfill);
        backfill.is_some_and(|most| most.is_none_or(|most| claim.passed < most) && !self.could_have(claim))
    }

    /// Enough locks of one pool, regardless of the queue: own ones, then those of the same key, then the least recently
    /// used.
    fn choose(&self, pool: &str, want: &Want, shape: &Shape) -> Option<Vec<String>> {
        let known = self.pool(pool)?;
        let open = |lock: &&Lock| self.admits(pool, lock, shape);
        let mut chosen: Vec<String> = match want {
            Want::Named(names) => {
                let open: Vec<_> = known.locks.iter().filter(open).map(|lock| lock.name.clone()).collect();
                names.iter().filter(|name| open.contains(name)).cloned().collect()
            }
            Want::Any(count, labels) => {
                let mut ranked: Vec<(u8, u64, &String)> = Vec::new();
                for lock in known.locks.iter().filter(open).filter(|lock| fits(lock, labels)) {
                    let holders = self.holders(pool, &lock.name);
                    let own = holders.iter().any(|holder| holder.shape.sharer() == shape.sharer());
                    ranked.push(match (holders.is_empty(), own) {
                        (true, _) => (2, if known.by_name { 0 } else { lock.mention }, &lock.name),
                        (false, true) => (0, 0, &lock.name),
                        (false, false) => (1, 0, &lock.name),
                    });
                }
                ranked.sort();
                ranked.into_iter().take(*count).map(|(_, _, name)| name.clone()).collect()
            }
        };
        chosen.sort();
        let needed = match want {
            Want::Any(count, _) => *count,
            Want::Named(names) => names.len(),
        };
        // While the implicit lock leaves, one of the free locks is nobody's.
        let is_free = |lock: &&Lock| {
            lock.drain.is_none() && lock.out.is_none() && !lock.leaving && self.holders(pool, &lock.name).is_empty()
        };
        let free: Vec<&String> = known.locks.iter().filter(is_free).map(|lock| &lock.name).collect();
        let taken = chosen.iter().filter(|name| free.contains(name)).count();
        let too_many = self.retiring(pool).is_some() && taken + 1 > free.len() && taken > 0;
        (chosen.len() == needed && !too_many).then_some(chosen)
    }

    /// The implicit lock of a pool, while it leaves.
    fn retiring(&self, pool: &str) -> Option<&Lock> {
        self.pool(pool)?.locks.iter().find(|lock| lock.implicit && lock.leaving)
    }

    fn admits(&self, pool: &str, lock: &Lock, shape: &Shape) -> bool {
        let same_key = |holder: &&Claim| shape.key.is_some() && holder.shape.key == shape.key;
        lock.drain.is_none()
            && lock.out.is_none()
            && !lock.leaving
            && self.holders(pool, &lock.name).iter().all(same_key)
    }

    fn holders(&self, pool: &str, lock: &str) -> Vec<&Claim> {
        let has = |claim: &&Claim| claim.locks.iter().any(|(p, l)| p == pool && l == lock);
        let mut holders: Vec<&Claim> = self.claims.iter().filter(has).collect();
        holders.sort_by_key(|claim| claim.grant);
        holders
    }

    /// Locks of the pool that could serve the want at all.
    fn candidates(&self, pool: &str, want: &Want) -> Vec<&Lock> {
        let could = |lock: &&Lock| match want {
            Want::Any(_, labels) => fits(lock, labels),
            Want::Named(names) => names.contains(&lock.name),
        };
        self.pool(pool).map(|p| p.locks.iter().filter(|lock| !lock.leaving).filter(could).collect()).unwrap_or_default()
    }

    /// Earlier waiters that listen and share a candidate with the claim.
    fn before(&self, claim: &Claim) -> Vec<&Claim> {
        let parts = claim.shape.parts.iter();
        parts.flat_map(|(pool, want)| self.before_in(pool, want, claim)).collect()
    }

    /// Those of them that wait in this pool.
    fn before_in(&self, pool: &str, want: &Want, claim: &Claim) -> Vec<&Claim> {
        let common = |earlier: &&Claim| {
            let Some(theirs) = earlier.shape.part(pool) else { return false };
            if self.place(pool, earlier) >= self.place(pool, claim) {
                return false;
            }
            let ours = self.candidates(pool, want);
            self.candidates(pool, theirs).iter().any(|lock| ours.iter().any(|our| our.name == lock.name))
        };
        self.claims.iter().filter(|other| other.listens() && self.exists(other)).filter(common).collect()
    }

    /// Smaller is earlier.
    fn place(&self, pool: &str, claim: &Claim) -> (i32, u64) {
        match self.pool(pool).map_or(Order::Fifo, |pool| pool.order) {
            Order::Fifo => (0, claim.ticket),
            Order::Priority => (-claim.priority, claim.ticket),
            Order::Lifo => (0, u64::MAX - claim.ticket),
        }
    }

    /// Whether `from` waits, directly or through others, for a lock that the build of `whom` has.
    fn waits_for(&self, from: &Claim, whom: &Claim) -> bool {
        let Some(build) = &whom.shape.build else { return false };
        let mut reached: Vec<&Claim> = vec![from];
        let mut next = 0;
        while let Some(claim) = reached.get(next).copied() {
            next += 1;
            // A claim of the build itself is not held back by claims that wait for the build.
            let own = claim.shape.build.as_ref() == Some(build);
            let mut ahead: Vec<&Claim> = if own { Vec::new() } else { self.before(claim) };
            for (pool, want) in &claim.shape.parts {
                if self.choose(pool, want, &claim.shape).is_some() {
                    continue;
                }
                for lock in self.candidates(pool, want).into_iter().chain(self.retiring(pool)) {
                    if self.admits(pool, lock, &claim.shape) {
                        continue;
                    }
                    for holder in self.holders(pool, &lock.name) {
                        if holder.shape.build.as_ref() == Some(build) {
                            return true;
                        }
                        let same =
                            |c: &&Claim| c.waits() && c.shape.build.is_some() && c.shape.build == holder.shape.build;
                        ahead.extend(self.claims.iter().filter(same));
                    }
                }
            }
            for claim in ahead {
                if !reached.iter().any(|known| known.id == claim.id) {
                    reached.push(claim);
                }
            }
        }
        false
    }

    /// Grants everything grantable to claims whose client would learn of it, the earliest first.
    fn dispatch(&mut self) {
        loop {
            let place = |claim: &Claim| self.place(&claim.shape.parts[0].0, claim);
            let mut places: Vec<_> = self.claims.iter().map(|claim| (place(claim), claim.clone())).collect();
            places.sort_by_key(|(place, _)| *place);
            self.claims = places.into_iter().map(|(_, claim)| claim).collect();
            let ready = |claim: &Claim| claim.hears() && claim.confirm;
            let mut next = self.claims.iter().enumerate().filter(|(_, claim)| ready(claim));
            let next = next.find_map(|(at, claim)| Some((at, self.can_take(claim)?)));
            let Some((at, locks)) = next else { return };
            self.grant(at, locks);
        }
    }

    fn grant(&mut self, at: usize, locks: Vec<(String, String)>) {
        let claim = self.claims[at].clone();
        let own = claim.shape.sharer().is_some()
            && locks.iter().all(|(pool, lock)| {
                self.holders(pool, lock).iter().any(|holder| holder.shape.sharer() == claim.shape.sharer())
            });
        let counts = |pool: &String| self.pool(pool).is_some_and(|pool| matches!(pool.backfill, Some(Some(_))));
        let parts = claim.shape.parts.iter().filter(|(pool, _)| !own && counts(pool));
        let passed: BTreeSet<String> =
            parts.flat_map(|(pool, want)| self.before_in(pool, want, &claim)).map(|c| c.id.clone()).collect();
        for waiter in self.claims.iter_mut().filter(|c| passed.contains(&c.id)) {
            waiter.passed += 1;
        }
        self.grants += 1;
        let confirm_by = self.deadline(self.rules.confirm);
        let hold = self.new_hold(at);
        self.mention_all(&locks);
        let claim = &mut self.claims[at];
        claim.grant = self.grants;
        claim.grants.push(self.grants);
        (claim.stuck, claim.told) = ("", "");
        claim.locks = locks;
        let give_up = if let Phase::Waiting { give_up, .. } = claim.phase { give_up } else { None };
        claim.phase = if claim.confirm { Phase::Granted { confirm_by, give_up } } else { hold };
    }

    fn new_hold(&self, at: usize) -> Phase {
        let claim = &self.claims[at];
        let pools = claim.shape.parts.iter().filter_map(|(pool, _)| self.pool(pool)?.max_hold);
        let limit = pools.min().map(|span| self.deadline(span));
        let until = claim.ttl.map(|span| self.deadline(span));
        Phase::Held { until, limit, fetched: false, delivered: false, marked: false }
    }

    /// Parked requests that must have received a notice to try again by now.
    pub(super) fn must_be_told(&self) -> Vec<u64> {
        let told = |(park, request): &&(u64, Request)| match self.live(&request.claim).map(|at| &self.claims[at]) {
            None => true,
            Some(claim) => match &claim.phase {
                Phase::Waiting { parks, .. } if parks.contains(park) => {
                    (!claim.confirm && self.can_take(claim).is_some()) || claim.told != claim.stuck
                }
                // Cut off by a restart, or granted and withdrawn since.
                Phase::Waiting { .. } => false,
                _ => true,
            },
        };
        self.parked.iter().filter(told).map(|(park, _)| *park).collect()
    }

    // ---- stuck claims

    /// Builds that hold and wait can go on when all that they wait for is, or will be, released by builds that are not
    /// stuck.
    fn look_who_is_stuck(&mut self) {
        let listening = |build: &String| -> Vec<&Claim> {
            self.claims.iter().filter(|c| c.listens() && c.shape.build.as_ref() == Some(build)).collect()
        };
        let has = |build: &String| self.claims.iter().any(|c| !c.waits() && c.shape.build.as_ref() == Some(build));
        let builds = self.claims.iter().filter(|claim| claim.listens()).filter_map(|claim| claim.shape.build.clone());
        let mut stuck: Vec<String> = builds.filter(|build| has(build)).collect();
        while let Some(free) = stuck
            .iter()
            .find(|build| listening(build).iter().all(|claim| self.missing(claim, &stuck).is_empty()))
            .cloned()
        {
            stuck.retain(|build| *build != free);
        }
        let kind = |claim: &Claim| {
            let Some(own) = claim.shape.build.clone().filter(|own| claim.listens() && stuck.contains(own)) else {
                return "";
            };
            if !self.missing(claim, std::slice::from_ref(&own)).is_empty() {
                return "self_wait";
            }
            let mut reached = self.missing(claim, &stuck);
            reached.retain(|build| *build != own);
            let mut next = 0;
            while let Some(build) = reached.get(next).cloned() {
                next += 1;
                for build in listening(&build).into_iter().flat_map(|claim| self.missing(claim, &stuck)) {
                    if build == own {
                        return "deadlock";
                    }
                    if !reached.contains(&build) {
                        reached.push(build);
                    }
                }
            }
            ""
        };
        let kinds: Vec<&'static str> = self.claims.iter().map(kind).collect();
        for (claim, kind) in self.claims.iter_mut().zip(kinds) {
            claim.stuck = kind;
        }
    }

    /// The builds among `builds` that keep the claim from what it wants, if all other locks together are not enough.
    fn missing(&self, claim: &Claim, builds: &[String]) -> Vec<String> {
        let mut missing = Vec::new();
        for (pool, want) in &claim.shape.parts {
            let keepers = |lock: &Lock| -> Vec<String> {
                let holders = self.holders(pool, &lock.name);
                let others = holders.iter().filter(|h| claim.shape.key.is_none() || h.shape.key != claim.shape.key);
                others.filter_map(|h| h.shape.build.clone()).filter(|build| builds.contains(build)).collect()
            };
            let locks = self.candidates(pool, want);
            let needed = match want {
                Want::Any(count, _) => *count,
                Want::Named(names) => names.len(),
            };
            // A claim waits for nobody's lock if there are not enough at all.
            if locks.len() >= needed && locks.iter().filter(|lock| keepers(lock).is_empty()).count() < needed {
                missing.extend(locks.iter().flat_map(|lock| keepers(lock)));
            }
        }
        missing
    }

    // ---- marked holds

    /// The marked hold of the same build for the same request that has answered the fewest ids.
    fn lender(&self, shape: &Shape) -> Option<usize> {
        shape.build.as_ref()?;
        let same = self.claims.iter().enumerate().filter(|(_, c)| c.is_marked() && c.shape == *shape);
        same.min_by_key(|(_, c)| (c.aliases.len(), c.id.clone())).map(|(at, _)| at)
    }

    /// Whether `holder` has a lock that could serve `claim` and does not admit it.
    fn blocks(&self, holder: &Claim, claim: &Claim) -> bool {
        claim.shape.parts.iter().any(|(pool, want)| {
            let closed = |lock: &&&Lock| !self.admits(pool, lock, &claim.shape);
            let candidates = self.candidates(pool, want);
            let mut closed = candidates.iter().filter(closed);
            closed.any(|lock| holder.locks.iter().any(|(p, l)| p == pool && *l == lock.name))
        })
    }

    fn release(&mut self, id: &str, build: Option<&String>, may_mark: bool) -> Result<Answer> {
        let id = &self.own_id(id);
        let own = |c: &Claim| build.is_some() && c.shape.build.as_ref() == build && !c.build_over;
        let held = |c: &Claim| matches!(c.phase, Phase::Held { .. });
        let Some(at) = self.live(id).filter(|at| may_mark && own(&self.claims[*at]) && held(&self.claims[*at])) else {
            return self.end(id, None);
        };
        let claim = self.claims[at].clone();
        let waiting: Vec<Claim> = self.claims.iter().filter(|c| c.waits() && own(c)).cloned().collect();
        if waiting.iter().any(|other| other.shape != claim.shape && self.blocks(&claim, other)) {
            return self.end(id, None);
        }
        if let Phase::Held { marked, .. } = &mut self.claims[at].phase {
            *marked = true;
        }
        self.wait_for_news(&build.cloned().unwrap_or_default());
        self.mention_all(&claim.locks);
        let mut same: Vec<String> = waiting.into_iter().filter(|c| c.shape == claim.shape).map(|c| c.id).collect();
        same.sort();
        for other in same {
            self.finish(&other, "cancelled");
            self.ended.retain(|ended| ended.id != other);
            let at = self.live(id).unwrap_or_default();
            self.claims[at].aliases.push(other);
        }
        Ok(Answer::Marked(claim.seen_locks()))
    }

    fn wait_for_news(&mut self, build: &str) {
        self.news.retain(|(_, of)| of != build);
        self.news.push((self.now + self.rules.unanswered, build.to_owned()));
    }

    /// Looks who is stuck, and gives back the marked holds that keep somebody stuck.
    fn untangle(&mut self) {
        loop {
            self.look_who_is_stuck();
            let stuck: Vec<&Claim> = self.claims.iter().filter(|c| !c.stuck.is_empty()).collect();
            let is_stuck = |c: &Claim| stuck.iter().any(|s| s.shape.build == c.shape.build);
            let keeps = |c: &&Claim| c.is_marked() && is_stuck(c) && stuck.iter().any(|s| self.blocks(c, s));
            let ids: BTreeSet<(Option<String>, String)> =
                self.claims.iter().filter(keeps).map(|c| (c.shape.build.clone(), c.id.clone())).collect();
            if ids.is_empty() {
                return;
            }
            ids.iter().for_each(|(_, id)| self.finish(id, "released"));
            self.dispatch();
        }
    }

    /// The id of the claim whose alias this is, otherwise the id itself.
    fn own_id(&self, id: &str) -> String {
        let claim = self.claims.iter().find(|claim| claim.aliases.iter().any(|alias| alias == id));
        claim.map_or_else(|| id.to_owned(), |claim| claim.id.clone())
    }

    // ---- confirming and ending

    fn confirm(&mut self, id: &str, run: Option<&String>, fence: Which) -> Result<Answer> {
        let own = self.own_id(id);
        let (run, id) = (run.filter(|_| own == id), own.as_str());
        let Some(at) = self.live(id) else {
            let Some(ended) = self.ended.iter().find(|ended| ended.id == id) else {
                return Err(Answer::Refused("no_such_claim"));
            };
            refuse_earlier(&ended.runs, run)?;
            return Err(Answer::RefusedEnded(ended.how));
        };
        refuse_earlier(&self.claims[at].runs, run)?;
        if self.claims[at].waits() {
            return Err(Answer::Refused("not_granted"));
        }
        if fence != Which::Present {
            return Err(Answer::Refused("wrong_fence"));
        }
        learn(&mut self.claims[at].runs, run);
        if matches!(self.claims[at].phase, Phase::Granted { .. }) {
            let locks = self.claims[at].locks.clone();
            self.mention_all(&locks);
            self.claims[at].phase = self.new_hold(at);
        }
        Ok(self.tell(at, false))
    }

    fn renew(&mut self, id: &str, run: Option<&String>, fence: Option<Which>) -> Result<Answer> {
        let own = self.own_id(id);
        let (run, id) = (run.filter(|_| own == id), own.as_str());
        self.confirm(id, run, fence.unwrap_or(Which::Present))?;
        let Some(at) = self.live(id) else { return Ok(Answer::Nothing) };
        let again = self.claims[at].ttl.map(|span| self.deadline(span));
        if let Phase::Held { until, .. } = &mut self.claims[at].phase {
            *until = again;
        }
        Ok(self.tell(at, false))
    }

    fn deliver(&mut self, id: &str, present: bool, another: Option<bool>) -> Result<Answer> {
        let own = self.own_id(id);
        let id = own.as_str();
        let Some(at) = self.live(id) else {
            let ended = self.ended.iter().find(|ended| ended.id == id);
            return Err(ended.map_or(Answer::Refused("no_such_claim"), |ended| Answer::RefusedEnded(ended.how)));
        };
        let is_own = another == Some(false) && self.claims[at].shape.build.is_some();
        if let Phase::Held { fetched, delivered, .. } = &mut self.claims[at].phase {
            *fetched |= present;
            *delivered |= present && !is_own;
        }
        Ok(self.tell(at, false))
    }

    fn break_claim(&mut self, id: &str, drain: bool) -> Result<Answer> {
        let own = self.own_id(id);
        let id = own.as_str();
        if let Some(ended) = self.ended.iter().find(|ended| ended.id == id) {
            let again = Answer::Ended { how: "broken", again: true };
            return if ended.how == "broken" { Ok(again) } else { Err(Answer::RefusedEnded(ended.how)) };
        }
        let at = self.live(id).ok_or(Answer::Refused("no_such_claim"))?;
        if self.claims[at].waits() {
            return Err(Answer::Refused("not_granted"));
        }
        let held = matches!(self.claims[at].phase, Phase::Held { .. });
        self.finish_as(id, "broken", held && drain);
        Ok(Answer::Ended { how: "broken", again: false })
    }

    fn cancel(&mut self, id: &str) -> Result<Answer> {
        let own = self.own_id(id);
        let id = own.as_str();
        match self.live(id) {
            Some(at) if !self.claims[at].waits() => Err(Answer::Refused("not_waiting")),
            _ => self.end(id, None),
        }
    }

    /// Takes the claim out of the order of all waiting and granted claims, and puts it back next to another one.
    fn move_claim(&mut self, id: &str, to: &To) -> Result<Answer> {
        let own = self.own_id(id);
        let id = own.as_str();
        self.waiting_claim(id)?;
        let claim = self.claims.iter().find(|c| c.id == id).cloned().ok_or(Answer::Refused("no_such_claim"))?;
        let pool = &claim.shape.parts[0].0;
        let meets = |other: &&Claim| {
            other.waits()
                && other.id != id
                && claim.shape.parts.iter().any(|(pool, _)| other.shape.part(pool).is_some())
        };
        let others = self.claims.iter().filter(meets);
        let beside = match to {
            To::First => others.min_by_key(|other| self.place(pool, other)).cloned(),
            To::Last => others.max_by_key(|other| self.place(pool, other)).cloned(),
            To::Before(other) if other == id => None,
            To::Before(other) => {
                self.waiting_claim(other)?;
                let found = self.claims.iter().filter(meets).find(|c| c.id == *other).cloned();
                Some(found.ok_or(Answer::Refused("not_waiting"))?)
            }
        };
        let Some(beside) = beside else { return Ok(Answer::Done) };
        let order = self.pool(pool).map_or(Order::Fifo, |pool| pool.order);
        let in_front = (*to == To::Last) == (order == Order::Lifo);
        let mut line: Vec<(u64, String)> = self
            .claims
            .iter()
            .filter(|c| !matches!(c.phase, Phase::Held { .. }))
            .map(|c| (c.ticket, c.id.clone()))
            .collect();
        line.sort();
        let tickets: Vec<u64> = line.iter().map(|(ticket, _)| *ticket).collect();
        let mut ids: Vec<String> = line.into_iter().map(|(_, id)| id).filter(|other| other != id).collect();
        let at = ids.iter().position(|other| *other == beside.id).unwrap_or(0);
        ids.insert(if in_front { at } else { at + 1 }, id.to_owned());
        for claim in &mut self.claims {
            if let Some(at) = ids.iter().position(|id| *id == claim.id) {
                claim.ticket = tickets[at];
            }
            if claim.id == id && order == Order::Priority {
                claim.priority = beside.priority;
            }
        }
        Ok(Answer::Done)
    }

    fn waiting_claim(&self, id: &str) -> Result<()> {
        match self.live(id) {
            Some(at) if self.claims[at].waits() => Ok(()),
            Some(_) => Err(Answer::Refused("not_waiting")),
            None => {
                let ended = self.ended.iter().find(|ended| ended.id == id);
                Err(ended.map_or(Answer::Refused("no_such_claim"), |ended| Answer::RefusedEnded(ended.how)))
            }
        }
    }

    fn quarantine(&mut self, pool: &str, lock: &str, span: Option<u64>) -> Result<Answer> {
        let (mention, now) = (self.mention(), self.now);
        let found = self.find_lock(pool, lock)?;
        found.mention = mention;
        (found.out, found.out_span) = (Some(span.map(|span| now + span)), span.unwrap_or(0));
        Ok(Answer::Done)
    }

    fn put_back(&mut self, pool: &str, lock: &str) -> Result<Answer> {
        let mention = self.mention();
        let found = self.find_lock(pool, lock)?;
        (found.mention, found.out) = (mention, None);
        Ok(Answer::Done)
    }

    fn suspect(&mut self, build: &String, why: bool) {
        if why && self.claims.iter().any(|claim| claim.shape.build.as_ref() == Some(build)) {
            self.suspects.insert(build.clone());
        } else {
            self.suspects.remove(build);
        }
    }

    fn build_over(&mut self, build: &String, how: &str) {
        self.suspects.remove(build);
        let of_build = self.claims.iter().filter(|claim| claim.shape.build.as_ref() == Some(build));
        let ids: BTreeSet<String> = of_build.map(|claim| claim.id.clone()).collect();
        for id in ids {
            let Some(at) = self.live(&id) else { continue };
            let claim = &mut self.claims[at];
            let was_over = std::mem::replace(&mut claim.build_over, true);
            let claim = &self.claims[at];
            let keeps = claim.locks.iter().any(|(pool, _)| self.pool(pool).is_some_and(|pool| pool.keep));
            let is_lost = |fetched: bool, delivered: bool| match how {
                "succeeded" => false,
                "failed" => !fetched && !delivered,
                _ => !delivered && !keeps,
            };
            match (&claim.phase, claim.scope) {
                _ if claim.is_marked() => self.finish(&id, "released"),
                (Phase::Waiting { .. } | Phase::Granted { .. }, _) | (_, "build") => self.finish(&id, "build_over"),
                (Phase::Held { fetched, delivered, .. }, "flow") if is_lost(*fetched, *delivered) && !was_over => {
                    self.finish(&id, "undelivered");
                }
                _ => {}
            }
        }
        let memory = self.rules.memory;
        for ended in &mut self.ended {
            if ended.shape.as_ref().is_some_and(|shape| shape.build.as_ref() == Some(build)) {
                ended.forget = ended.at + memory;
            }
        }
        let now = self.now;
        self.ended.retain(|ended| ended.forget > now);
    }

    fn end(&mut self, id: &str, run: Option<&String>) -> Result<Answer> {
        let own = &self.own_id(id);
        if let (Some(at), true) = (self.live(own), own != id && run.is_some()) {
            return Ok(self.tell(at, false));
        }
        let id = own.as_str();
        if let Some(at) = self.live(id) {
            refuse_earlier(&self.claims[at].runs, run)?;
            learn(&mut self.claims[at].runs, run);
            let held = matches!(self.claims[at].phase, Phase::Held { .. });
            let how = if held { "released" } else { "cancelled" };
            self.finish(id, how);
            return Ok(Answer::Ended { how, again: false });
        }
        let Some(ended) = self.ended.iter_mut().find(|ended| ended.id == id) else {
            let (id, runs, forget) = (id.to_owned(), run.cloned().into_iter().collect(), self.now + self.rules.memory);
            let (at, had_locks) = (self.now, false);
            self.remember(Ended { id, life: 0, shape: None, runs, how: "cancelled", at, forget, had_locks });
            return Err(Answer::Refused("no_such_claim"));
        };
        refuse_earlier(&ended.runs, run)?;
        learn(&mut ended.runs, run);
        match ended.how {
            "lost" | "lease_lost" | "undelivered" | "broken" | "removed" => Err(Answer::RefusedEnded(ended.how)),
            "build_over" if ended.had_locks => Err(Answer::RefusedEnded(ended.how)),
            how => Ok(Answer::Ended { how, again: true }),
        }
    }

    fn finish(&mut self, id: &str, how: &'static str) {
        let Some(at) = self.live(id) else { return };
        let held = matches!(self.claims[at].phase, Phase::Held { .. });
        let lost = ["lost", "lease_lost", "undelivered", "build_over"].contains(&how);
        self.finish_as(id, how, held && lost);
    }

    fn finish_as(&mut self, id: &str, how: &'static str, drains: bool) {
        let Some(at) = self.live(id) else { return };
        let claim = self.claims.remove(at);
        for (pool, lock) in &claim.locks {
            let span = self.pool(pool).and_then(|p| p.drain).unwrap_or(self.rules.drain);
            let drain = self.deadline(span);
            if let Some(lock) = self.lock_mut(pool, lock).filter(|_| drains && span > 0) {
                lock.drain = Some(drain);
            }
        }
        self.mention_all(&claim.locks);
        let goes_on = claim.shape.build.is_some() && !claim.build_over;
        let memory = if goes_on { self.rules.build_memory } else { self.rules.memory };
        let (at, forget, had_locks) = (self.now, self.now + memory, !claim.locks.is_empty());
        let (id, life, runs) = (claim.id, claim.life, claim.runs);
        for id in claim.aliases.iter().chain([&id]).cloned() {
            let (shape, runs) = (Some(claim.shape.clone()), runs.clone());
            self.remember(Ended { id, life, shape, runs, how, at, forget, had_locks });
        }
        let builds: Vec<&String> = self.claims.iter().filter_map(|claim| claim.shape.build.as_ref()).collect();
        self.suspects.retain(|build| builds.contains(&build));
        let marked =
            |build: &String| self.claims.iter().any(|c| c.is_marked() && c.shape.build.as_ref() == Some(build));
        let news: Vec<(u64, String)> = self.news.iter().filter(|(_, build)| marked(build)).cloned().collect();
        self.news = news;
        self.drop_left();
    }

    fn remember(&mut self, new: Ended) {
        self.ended.retain(|ended| ended.id != new.id);
        self.ended.push(new);
    }

    /// Removes locks that waited only for their holders to go and for their drains to end.
    fn drop_left(&mut self) {
        let held: Vec<(String, String)> = self.claims.iter().flat_map(|claim| claim.locks.clone()).collect();
        for pool in &mut self.pools {
            let name = pool.name.clone();
            let stays = |lock: &Lock| lock.drain.is_some() || held.contains(&(name.clone(), lock.name.clone()));
            pool.locks.retain(|lock| !lock.leaving || stays(lock));
        }
    }

    fn withdraw(&mut self, at: usize) {
        self.claims[at].withdrawals += 1;
        let id = self.claims[at].id.clone();
        if self.claims[at].withdrawals >= self.rules.withdrawals {
            return self.finish(&id, "unconfirmed");
        }
        let away = Absent::Away(self.now + self.rules.place);
        let locks = std::mem::take(&mut self.claims[at].locks);
        self.mention_all(&locks);
        if let Phase::Granted { give_up, .. } = self.claims[at].phase {
            self.claims[at].phase = Phase::Waiting { parks: Vec::new(), absent: away, give_up };
        }
        self.drop_left();
        let (shape, if_empty) = (self.claims[at].shape.clone(), self.claims[at].if_empty);
        if shape.parts.iter().any(|(pool, want)| self.may_ask(pool, want, if_empty).is_err()) {
            self.finish(&id, "removed");
        }
        if let Some(at) = self.live(&id)
            && self.claims.iter().any(|other| is_newer(other, &self.claims[at]))
        {
            // A newer claim came while this one was granted.
            self.finish(&id, "superseded");
        }
    }

    // ---- declaring

    fn set_pool(
        &mut self,
        name: &str,
        capacity: Option<u32>,
        policy: (Option<u64>, Option<u64>, Option<u32>, Option<&'static str>, Option<bool>, bool),
        (order, backfill, by_name): (Order, Option<Option<u32>>, bool),
    ) -> Result<Answer> {
        let tied = |claim: &Claim| {
            claim.shape.parts.len() > 1
                && claim.shape.part(name).is_some()
                && !matches!(claim.phase, Phase::Held { .. })
        };
        match self.pool(name) {
            None => self.pools.push(Pool::new(name)),
            Some(pool) if pool.order != order && self.claims.iter().any(tied) => {
                return Err(Answer::Refused("pool_in_use"));
            }
            Some(_) => {}
        }
        let held: Vec<(String, String)> = self.claims.iter().flat_map(|claim| claim.locks.clone()).collect();
        let mut mentions = self.mentions;
        let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) else { return Ok(Answer::Done) };
        (pool.drain, pool.max_hold, pool.max_queue, pool.scope, pool.when_empty, pool.keep) = policy;
        (pool.order, pool.backfill, pool.by_name) = (order, backfill, by_name);
        let Some(capacity) = capacity else {
            self.end_hopeless(name);
            return Ok(Answer::Done);
        };
        for number in 1..=capacity {
            match pool.locks.iter_mut().find(|lock| lock.name == number.to_string()) {
                Some(lock) => (lock.leaving, lock.implicit) = (false, false),
                None => {
                    mentions += 1;
                    pool.locks.push(Lock::new(&number.to_string(), Labels::new(), mentions));
                }
            }
        }
        for lock in &mut pool.locks {
            lock.leaving |= lock.implicit || lock.name.parse::<u32>().is_ok_and(|number| number > capacity);
        }
        let stays = |lock: &Lock| lock.drain.is_some() || held.contains(&(name.to_owned(), lock.name.clone()));
        pool.locks.retain(|lock| !lock.leaving || stays(lock));
        self.mentions = mentions;
        self.end_hopeless(name);
        Ok(Answer::Done)
    }

    fn change_pool(
        &mut self,
        name: &str,
        capacity: Option<u32>,
        drain: Option<Option<u64>>,
        scope: Option<Option<&'static str>>,
    ) -> Result<Answer> {
        let is_new = self.pool(name).is_none();
        let old = self.pool(name).cloned().unwrap_or_else(|| Pool::new(name));
        let (drain, scope) = (drain.unwrap_or(old.drain), scope.unwrap_or(old.scope));
        let policy = (drain, old.max_hold, old.max_queue, scope, old.when_empty, old.keep);
        let answer = self.set_pool(name, capacity, policy, (old.order, old.backfill, old.by_name))?;
        if is_new && capacity.is_none() {
            let mention = self.mention();
            if let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) {
                pool.locks.push(Lock { implicit: true, ..Lock::new(name, Labels::new(), mention) });
            }
        }
        Ok(answer)
    }

    fn end_hopeless(&mut self, pool: &str) {
        let hopeless = |claim: &&Claim| {
            let want = claim.shape.part(pool).filter(|_| claim.waits());
            want.is_some_and(|want| self.may_ask(pool, want, claim.if_empty).is_err())
        };
        let hopeless: Vec<String> = self.claims.iter().filter(hopeless).map(|claim| claim.id.clone()).collect();
        for id in hopeless {
            self.finish(&id, "removed");
        }
    }

    fn remove_pool(&mut self, name: &str) -> Result<Answer> {
        if self.pool(name).is_none() {
            return Err(Answer::Refused("no_such_pool"));
        }
        let uses = |claim: &Claim| {
            (claim.waits() && claim.shape.part(name).is_some()) || claim.locks.iter().any(|(pool, _)| pool == name)
        };
        if self.claims.iter().any(uses) {
            return Err(Answer::Refused("pool_in_use"));
        }
        self.pools.retain(|pool| pool.name != name);
        Ok(Answer::Done)
    }

    /// With a claim, the new lock has that holder at once.
    fn add(&mut self, name: &str, lock: &str, labels: &Labels, claim: Option<&Request>) -> Result<Answer> {
        if self.lock_mut(name, lock).is_some_and(|lock| !lock.implicit || claim.is_some()) {
            return Err(Answer::Refused("lock_exists"));
        }
        let claim = claim.map(|request| self.first_holder(request)).transpose()?;
        if self.pool(name).is_none() {
            self.pools.push(Pool::new(name));
        }
        let mention = self.mention();
        let new = Lock::new(lock, labels.clone(), mention);
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) {
            match pool.locks.iter_mut().find(|known| known.name == lock) {
                // Somebody asks for it by its name.
                Some(own) => {
                    (own.implicit, own.leaving, own.labels, own.mention) = (false, false, new.labels, mention);
                }
                None => {
                    pool.locks.iter_mut().for_each(|lock| lock.leaving |= lock.implicit);
                    pool.locks.push(new);
                }
            }
        }
        self.drop_left();
        if let Some(claim) = claim {
            self.ended.retain(|ended| ended.id != claim.id);
            self.claims.push(claim);
            self.grant(self.claims.len() - 1, vec![(name.to_owned(), lock.to_owned())]);
        }
        self.end_hopeless(name);
        Ok(Answer::Done)
    }

    fn first_holder(&mut self, request: &Request) -> Result<Claim> {
        let id = &request.claim;
        if self.live(id).is_some() || self.claims.iter().any(|claim| claim.aliases.contains(id)) {
            return Err(Answer::Refused("different_request"));
        }
        let (life, mut runs) = self.next_life(request)?;
        learn(&mut runs, request.run.as_ref());
        let scope = self.scope_of(&request.shape);
        if scope == "build" && request.shape.build.is_none() {
            return Err(Answer::Refused("unprocessable"));
        }
        Ok(self.new_claim(request, scope, life, runs))
    }

    fn find_lock(&mut self, name: &str, lock: &str) -> Result<&mut Lock> {
        if self.pool(name).is_none() {
            return Err(Answer::Refused("no_such_pool"));
        }
        self.lock_mut(name, lock).ok_or(Answer::Refused("no_such_lock"))
    }

    fn update(&mut self, name: &str, lock: &str, labels: &Labels) -> Result<Answer> {
        let mention = self.mention();
        let found = self.find_lock(name, lock)?;
        found.mention = mention;
        found.implicit &= found.leaving || found.labels == *labels;
        found.labels = labels.clone();
        self.end_hopeless(name);
        Ok(Answer::Done)
    }

    /// Removing and adding, or neither.
    fn move_lock(&mut self, name: &str, lock: &str, to: &str, claim: Option<&String>) -> Result<Answer> {
        let Lock { labels, drain, out, out_span, .. } = self.find_lock(name, lock)?.clone();
        let mut tried = self.clone();
        tried.remove(name, lock, claim)?;
        if to == name || self.pool(to).is_some_and(|pool| pool.locks.iter().any(|known| known.name == lock)) {
            return Err(Answer::Refused("lock_exists"));
        }
        *self = tried;
        self.add(to, lock, &labels, None)?;
        if let Some(moved) = self.lock_mut(to, lock) {
            (moved.drain, moved.out, moved.out_span) = (drain, out, out_span);
        }
        Ok(Answer::Done)
    }

    fn remove(&mut self, name: &str, lock: &str, claim: Option<&String>) -> Result<Answer> {
        self.find_lock(name, lock)?;
        let claim = claim.map(|id| self.own_id(id));
        let holders = self.holders(name, lock);
        if holders.iter().any(|holder| Some(&holder.id) != claim.as_ref()) {
            return Err(Answer::Refused("lock_held"));
        }
        if let Some(id) = claim.as_ref() {
            if !holders.iter().any(|holder| matches!(holder.phase, Phase::Held { .. })) {
                return Err(Answer::Refused("not_holder"));
            }
            self.finish(id, "released");
        }
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) {
            pool.locks.retain(|known| known.name != lock);
        }
        self.end_hopeless(name);
        Ok(Answer::Done)
    }

    // ---- time

    fn deadline(&self, span: u64) -> Deadline {
        Deadline { at: self.now + span, span }
    }

    fn pass(&mut self, end: u64) {
        while let Some(at) = self.next_due().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.expire();
            self.dispatch();
            self.untangle();
        }
        self.now = end;
    }

    fn next_due(&self) -> Option<u64> {
        let drains = self.pools.iter().flat_map(|pool| &pool.locks).filter_map(|lock| Some(lock.drain?.at));
        let claims = self.claims.iter().filter_map(Claim::due);
        let out = self.pools.iter().flat_map(|pool| &pool.locks).filter_map(|lock| lock.out.flatten());
        let news = self.news.iter().map(|(at, _)| *at);
        let latches = self.latches.iter().filter_map(|latch| Some(latch.forget?.at));
        drains
            .chain(out)
            .chain(claims)
            .chain(news)
            .chain(latches)
            .chain(self.ended.iter().map(|ended| ended.forget))
            .min()
    }

    /// Does everything that is due; of two claims, the one whose deadline came first, and of equal ones the smaller id.
    fn expire(&mut self) {
        let now = self.now;
        loop {
            let claim = self.claims.iter().filter_map(|c| Some((c.due()?, c.id.clone()))).min();
            let claim = claim.filter(|(at, _)| *at <= now);
            let lock = self.next_return().filter(|(at, ..)| *at <= now);
            let news = self.news.iter().min().filter(|(at, _)| *at <= now).cloned();
            let before = claim.iter().map(|(at, _)| *at).chain(lock.iter().map(|(at, ..)| *at)).min();
            if let Some((at, build)) = news
                && before.is_none_or(|before| at < before)
            {
                self.give_up_on(&build);
                continue;
            }
            match (claim, lock) {
                (Some((due, id)), lock) if lock.as_ref().is_none_or(|(at, ..)| due <= *at) => self.expire_claim(&id),
                (_, Some((_, pool, lock))) => {
                    let mention = self.mention();
                    if let Some(lock) = self.lock_mut(&pool, &lock) {
                        (lock.out, lock.mention) = (None, mention);
                    }
                }
                _ => break,
            }
        }
        for lock in self.pools.iter_mut().flat_map(|pool| &mut pool.locks) {
            lock.drain = lock.drain.filter(|drain| drain.at > now);
        }
        self.drop_left();
        self.ended.retain(|ended| ended.forget > now);
        self.ops.retain(|(forget, ..)| *forget > now);
        self.latches.retain(|latch| latch.forget.is_none_or(|forget| forget.at > now));
    }

    /// There was no news of the build for too long.
    fn give_up_on(&mut self, build: &String) {
        let marked = self.claims.iter().filter(|c| c.is_marked() && c.shape.build.as_ref() == Some(build));
        let ids: BTreeSet<String> = marked.map(|claim| claim.id.clone()).collect();
        ids.iter().for_each(|id| self.finish_as(id, "released", true));
    }

    /// The lock whose time out of service ends first.
    fn next_return(&self) -> Option<(u64, String, String)> {
        let locks = self.pools.iter().flat_map(|pool| pool.locks.iter().map(move |lock| (pool, lock)));
        locks.filter_map(|(pool, lock)| Some((lock.out??, pool.name.clone(), lock.name.clone()))).min()
    }

    fn expire_claim(&mut self, id: &str) {
        let Some(at) = self.live(id) else { return };
        let (now, place) = (self.now, self.rules.place);
        match &mut self.claims[at].phase {
            Phase::Waiting { give_up: Some(give_up), .. } if give_up.at <= now => self.finish(id, "gave_up"),
            Phase::Waiting { absent: Absent::Away(_), .. } => self.finish(id, "listener_lost"),
            Phase::Waiting { absent, .. } => *absent = Absent::Away(now + place),
            Phase::Granted { .. } => self.withdraw(at),
            Phase::Held { limit, .. } => {
                let over = limit.is_some_and(|limit| limit.at <= now);
                let leased = self.claims[at].scope == "lease" && !over;
                self.finish(id, if leased { "lease_lost" } else { "lost" });
            }
        }
    }

    fn restart(&mut self) {
        let (now, short) = (self.now, self.rules.short);
        let again = |deadline: &mut Deadline| {
            if deadline.span <= short {
                deadline.at = now + deadline.span;
            }
        };
        self.parked.clear();
        self.suspects.clear();
        self.latches.iter_mut().filter_map(|latch| latch.forget.as_mut()).for_each(again);
        for (at, _) in &mut self.news {
            *at = now + self.rules.unanswered;
        }
        for claim in &mut self.claims {
            claim.told = "";
            match &mut claim.phase {
                Phase::Waiting { parks, absent, give_up } => {
                    parks.clear();
                    *absent = Absent::Recent(now + self.rules.listen);
                    give_up.iter_mut().for_each(again);
                }
                Phase::Granted { confirm_by, give_up } => {
                    again(confirm_by);
                    give_up.iter_mut().for_each(again);
                }
                Phase::Held { until, limit, .. } => until.iter_mut().chain(limit).for_each(again),
            }
        }
        self.pools.iter_mut().flat_map(|pool| &mut pool.locks).filter_map(|lock| lock.drain.as_mut()).for_each(again);
        for lock in self.pools.iter_mut().flat_map(|pool| &mut pool.locks).filter(|lock| lock.out_span <= short) {
            lock.out = lock.out.map(|until| until.map(|_| now + lock.out_span));
        }
    }

    // ---- views

    fn live(&self, id: &str) -> Option<usize> {
        self.claims.iter().position(|claim| claim.id == id)
    }

    fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    fn lock_mut(&mut self, pool: &str, lock: &str) -> Option<&mut Lock> {
        let pool = self.pools.iter_mut().find(|p| p.name == pool)?;
        pool.locks.iter_mut().find(|l| l.name == lock)
    }

    fn mention(&mut self) -> u64 {
        self.mentions += 1;
        self.mentions
    }

    fn mention_all(&mut self, locks: &[(String, String)]) {
        let mention = self.mention();
        for (pool, lock) in locks {
            if let Some(lock) = self.lock_mut(pool, lock) {
                lock.mention = mention;
            }
        }
    }

    /// What this id asked for, if it is known, live or ended.
    pub(super) fn asked(&self, id: &str) -> Option<Shape> {
        let live = self.claims.iter().find(|claim| claim.id == self.own_id(id)).map(|claim| claim.shape.clone());
        live.or_else(|| self.ended.iter().find(|ended| ended.id == id)?.shape.clone())
    }

    /// What every reader must see: one fact per line, in a fixed order.
    pub(super) fn view(&self) -> Vec<String> {
        let watched = self.claims.iter().filter_map(|claim| Some((claim.shape.build.as_ref()?, claim)));
        let watched = watched.filter_map(|(build, claim)| Some((build, claim.watches_its_build()?)));
        // Of two reasons, the stronger one.
        let mut watched: BTreeSet<(&String, &str)> = watched.collect();
        let decided: Vec<&String> = watched.iter().filter(|(_, why)| *why == "decides").map(|(b, _)| *b).collect();
        watched.retain(|(build, why)| *why == "decides" || !decided.contains(build));
        let mut lines = vec![format!("watched {:?}", watched.into_iter().collect::<Vec<_>>())];
        for claim in &self.claims {
            let phase = match &claim.phase {
                Phase::Waiting { parks, absent, .. } => {
                    let presence = match absent {
                        _ if !parks.is_empty() => format!("parked {parks:?}"),
                        Absent::Recent(_) => "recent".into(),
                        Absent::Grace(_) => "grace".into(),
                        Absent::Away(_) => "away".into(),
                    };
                    format!("waiting {presence} {}", claim.stuck)
                }
                Phase::Granted { .. } => format!("granted {:?}", claim.seen_locks()),
                Phase::Held { .. } => format!("held {:?}", claim.seen_locks()),
            };
            let suspect = claim.shape.build.as_ref().is_some_and(|build| self.suspects.contains(build));
            let suspect = if suspect && !claim.build_over { " suspect" } else { "" };
            let mark = if claim.is_marked() { format!(" marked, also {:?}", claim.aliases) } else { String::new() };
            lines.push(format!("claim {} life {} runs {:?} {phase}{mark}{suspect}", claim.id, claim.life, claim.runs));
        }
        for ended in &self.ended {
            lines.push(format!("claim {} life {} runs {:?} ended {}", ended.id, ended.life, ended.runs, ended.how));
        }
        for pool in &self.pools {
            let mut waiting: Vec<&Claim> =
                self.claims.iter().filter(|c| c.waits() && c.shape.part(&pool.name).is_some()).collect();
            waiting.sort_by_key(|claim| self.place(&pool.name, claim));
            let waiting: Vec<&String> = waiting.iter().map(|claim| &claim.id).collect();
            let is_free = |l: &&Lock| {
                l.drain.is_none() && l.out.is_none() && !l.leaving && self.holders(&pool.name, &l.name).is_empty()
            };
            let mut free: Vec<(u64, &String)> =
                pool.locks.iter().filter(is_free).map(|lock| (lock.mention, &lock.name)).collect();
            free.sort();
            let free: Vec<String> = free.into_iter().map(|(_, name)| seen(&pool.name, name).1).collect();
            lines.push(format!("pool {} queue {waiting:?} free {free:?}", pool.name));
            for lock in &pool.locks {
                let by: Vec<&String> = self.holders(&pool.name, &lock.name).iter().map(|claim| &claim.id).collect();
                let (drains, leaving) = (lock.drain.is_some(), lock.leaving);
                let out = if lock.out.is_some() { " out" } else { "" };
                let out = if lock.implicit { format!("{out} implicit") } else { out.to_owned() };
                let ((pool, name), labels) = (seen(&pool.name, &lock.name), &lock.labels);
                lines.push(format!("lock {pool}/{name} {labels:?} by {by:?} draining {drains} leaving {leaving}{out}"));
            }
        }
        lines.extend(self.latches.iter().map(Latch::line));
        lines.sort();
        lines
    }
}

/// Whether the lock has all these labels.
fn fits(lock: &Lock, labels: &Labels) -> bool {
    labels.iter().all(|(name, value)| lock.labels.get(name) == Some(value))
}

/// Whether `a` is a newer claim of the same name: from a later build of the same Concourse, otherwise one that came
/// later.
fn is_newer(a: &Claim, b: &Claim) -> bool {
    let within_job = |name: &String| !name.starts_with('/');
    let origin = |claim: &Claim| (claim.shape.build.is_some(), claim.job.clone());
    let rivals = a.id != b.id && a.supersede.is_some() && a.supersede == b.supersede;
    if !rivals || (a.supersede.as_ref().is_some_and(within_job) && origin(a) != origin(b)) {
        return false;
    }
    match (&a.shape.build, &b.shape.build) {
        (Some(a), Some(b)) => a > b,
        _ => a.ticket > b.ticket,
    }
}

/// Only the last run to appear may act.
fn refuse_earlier(runs: &[String], run: Option<&String>) -> Result<()> {
    match run {
        Some(run) if runs.contains(run) && runs.last() != Some(run) => Err(Answer::Refused("superseded_run")),
        _ => Ok(()),
    }
}

fn learn(runs: &mut Vec<String>, run: Option<&String>) {
    if let Some(run) = run.filter(|run| !runs.contains(run)) {
        runs.push(run.clone());
    }
}
