//! The core, driven by the model's operations and viewed in the model's terms.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::latches::{self, LatchOp};
use super::reference::{self, Answer, Op, RANDOM, Request, Rules, Shape, Which, seen};
use crate::core::claim::{
    Ask, BuildEnd, BuildRef, Claim, Concern, Labels, Owner, Part, Phase, Presence, Priority, Scope, Terms, Want,
};
use crate::core::command::{AskClaim, By, Command, MoveTo, Refusal, Reply, Wait};
use crate::core::invariants;
use crate::core::latch::{Binding, Ending, Latch, NewLatch, Node, Outputs, Target};
use crate::core::names::{ClaimId, Digest, Fence, Label, LockName, ParkId, PoolName, Reason, Revision, Run, Text};
use crate::core::pool::{CutShort, Order, Overtaking, Pick, Policy, PolicyChange, Rule, WhenEmpty};
use crate::core::restart::restarted;
use crate::core::settings::{Plant, Settings};
use crate::core::state::Stuck;
use crate::core::state::{Loaded, Notice, State};
use crate::core::test_store::TestStore;
use crate::core::time::{Now, Span};

/// A server without a network: the core, a clock and a store.
pub(super) struct Core {
    state: State,
    store: TestStore,
    now: Now,
    /// All fences that each claim has had.
    fences: BTreeMap<ClaimId, Vec<Fence>>,
    newest_fence: Fence,
    told: BTreeSet<u64>,
}

impl Core {
    pub(super) fn new(rules: &Rules, plant: Plant) -> Self {
        let settings = Settings {
            listen: Span(rules.listen),
            grace: Span(rules.grace),
            place: Span(rules.place),
            confirm: Span(rules.confirm),
            withdrawals: u8::try_from(rules.withdrawals).unwrap(),
            memory: Span(rules.memory),
            build_memory: Span(rules.build_memory),
            drain: Span(rules.drain),
            lease: Span(rules.lease),
            unanswered: Span(rules.unanswered),
            latch_kept: Span(rules.latch_kept),
            ops: rules.ops,
            declared_only: rules.declared_only,
            // The model searches for stuck claims at every step.
            stuck_look: Span(0),
            // Small enough for pruning to take part.
            changes: 60,
            // Almost every ended claim that is asked about must be recalled.
            at_hand: 0,
            plant,
            ..Settings::default()
        };
        let now = Now::default();
        let state = restarted(Loaded::default(), [], [], settings, 1, now);
        let mut core = Self {
            state,
            store: TestStore::default(),
            now,
            fences: BTreeMap::new(),
            newest_fence: Fence(0),
            told: BTreeSet::new(),
        };
        core.settle();
        core
    }

    /// Executes one operation.
    pub(super) fn apply(&mut self, op: &Op) -> Answer {
        let deletes = matches!(op, Op::Latch(LatchOp::Delete(_)));
        let command = match op {
            Op::Pass(span) => return self.pass(*span),
            Op::Leap(span) => {
                self.now.engine = self.now.engine.plus(Span(*span));
                Command::Tick
            }
            Op::Restart => return self.restart(),
            op => self.command(op),
        };
        let result = self.store.step(&mut self.state, command, self.now);
        self.settle();
        match answer_of(result) {
            Answer::Latch(_) if deletes => Answer::Done,
            answer => answer,
        }
    }

    fn pass(&mut self, span: u64) -> Answer {
        let end = self.now.engine.plus(Span(span));
        while let Some(at) = self.state.next_timer().filter(|at| *at <= end) {
            self.now.engine = at.max(self.now.engine);
            let _ = self.store.step(&mut self.state, Command::Tick, self.now);
            self.settle();
        }
        self.now.engine = end;
        Answer::Nothing
    }

    fn restart(&mut self) -> Answer {
        self.state.touch_meta();
        self.settle();
        let settings = self.state.settings.clone();
        self.now.engine = self.store.engine();
        self.state = restarted(self.store.load(), self.store.ended(), self.store.history(), settings, 1, self.now);
        self.told.clear();
        let _ = self.store.step(&mut self.state, Command::Tick, self.now);
        self.settle();
        Answer::Nothing
    }

    fn settle(&mut self) {
        self.store.commit(&self.state.take_changes(self.now));
        let told = self.state.take_notices().into_iter();
        self.told.extend(told.filter_map(|notice| if let Notice::Park(park) = notice { Some(park.0) } else { None }));
    }

    /// Parked requests that have received a notice to try again in this life of the server.
    pub(super) fn told(&self) -> &BTreeSet<u64> {
        &self.told
    }

    /// The invariants, the store, and that each fence is larger than all earlier ones.
    pub(super) fn check(&mut self) -> Result<(), String> {
        invariants::check(&self.state)?;
        self.store.check_has_all_of(&self.state)?;
        let mut new: BTreeSet<Fence> = BTreeSet::new();
        for claim in self.state.snapshot.claims.values() {
            let Some(fence) = claim.fence() else { continue };
            let known = self.fences.entry(claim.id.clone()).or_default();
            if known.last() != Some(&fence) {
                known.push(fence);
                if fence <= self.newest_fence || !new.insert(fence) {
                    return Err(format!("I2: {} got fence {fence} after {}", claim.id, self.newest_fence));
                }
            }
        }
        self.newest_fence = new.last().copied().unwrap_or(self.newest_fence);
        Ok(())
    }

    fn fence(&self, id: &ClaimId, which: Which) -> Fence {
        let id = self.state.snapshot.aliases.get(id).unwrap_or(id);
        let known = self.fences.get(id).map(Vec::as_slice).unwrap_or_default();
        match (which, known) {
            (Which::Present, [.., last]) | (Which::Former, [.., last, _]) => *last,
            _ => Fence(1),
        }
    }

    /// News of builds, and what their steps tell.
    fn about_build(&self, op: &Op) -> Command {
        match op {
            Op::Deliver { claim, present, another } => {
                let id = claim_id(claim);
                let claim = self.state.snapshot.claim(&id);
                let revision = match claim.map(|claim| &claim.phase) {
                    Some(Phase::Held { claimed, .. }) if *present => claimed.revision,
                    _ => Revision(1),
                };
                let own = claim.and_then(|claim| claim.terms.owner.build());
                let build = another.map(|another| own.filter(|_| !another).unwrap_or_else(|| build_of("other")));
                Command::Delivered { id, revision, build }
            }
            Op::Over { build, how } => Command::BuildOver { build: build_of(build), how: build_end(how), at: None },
            Op::Release { claim, build, may_mark } => {
                let build = build.as_deref().map(build_of);
                Command::Release { id: claim_id(claim), build, by: None, may_mark: *may_mark }
            }
            Op::Alive(build) => Command::Alive { build: build_of(build) },
            Op::Suspect { build, why } => {
                Command::Suspect { build: build_of(build), why: why.then(|| Reason::parse("unreachable").unwrap()) }
            }
            other => unreachable!("{other:?} is not about builds"),
        }
    }

    fn command(&self, op: &Op) -> Command {
        match op {
            Op::Once { op, change } => self.command_by(change, By { op: Some(op.parse().unwrap()), ..By::default() }),
            Op::Latch(op) => latch_command(op),
            op => self.command_by(op, By::default()),
        }
    }

    #[allow(clippy::too_many_lines, reason = "one short arm for each operation")]
    fn command_by(&self, op: &Op, by: By) -> Command {
        match op {
            Op::Ask(request) => Command::Ask(Box::new(ask_of(request))),
            Op::Confirm { claim, run, fence } => {
                let id = claim_id(claim);
                let fence = self.fence(&id, *fence);
                Command::Confirm { id, run: run.as_deref().map(run_of), fence }
            }
            Op::Renew { claim, run, fence } => {
                let id = claim_id(claim);
                let fence = fence.map(|fence| self.fence(&id, fence));
                Command::Renew { id, run: run.as_deref().map(run_of), fence }
            }
            Op::Deliver { .. } | Op::Over { .. } | Op::Release { .. } | Op::Alive(_) | Op::Suspect { .. } => {
                self.about_build(op)
            }
            Op::End { claim, run } => {
                Command::End { id: claim_id(claim), run: run.as_deref().map(run_of), by: None, reason: None }
            }
            Op::Break { claim, drain } => {
                let (by, reason) = (Arc::default(), Reason::parse("why").unwrap());
                Command::Break { id: claim_id(claim), drains: *drain, by, reason }
            }
            Op::Cancel(claim) => Command::Cancel { id: claim_id(claim), by: Arc::default(), reason: None },
            Op::Move { claim, to } => {
                let to = match to {
                    reference::To::First => MoveTo::First,
                    reference::To::Last => MoveTo::Last,
                    reference::To::Before(other) => MoveTo::Before(claim_id(other)),
                };
                Command::Move { id: claim_id(claim), to, by }
            }
            Op::Quarantine { pool, lock, span } => {
                Command::Quarantine { pool: pool_of(pool), lock: lock_of(lock), span: span.map(Span), by }
            }
            Op::Return { pool, lock } => Command::Return { pool: pool_of(pool), lock: lock_of(lock), by },
            Op::Left(park) => Command::Left { park: ParkId(*park) },
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
                let (drain, max_hold, scope) = (drain.map(Span), max_hold.map(Span), scope.map(scope_of));
                let order = match order {
                    reference::Order::Fifo => Order::Fifo,
                    reference::Order::Priority => Order::Priority,
                    reference::Order::Lifo => Order::Lifo,
                };
                let overtaking = backfill.map_or(Overtaking::Strict, Overtaking::Backfill);
                let when_empty = when_empty.map(|waits| if waits { WhenEmpty::Wait } else { WhenEmpty::Fail });
                let pick = match by_name {
                    _ if pool == RANDOM => Pick::Random,
                    true => Pick::Name,
                    false => Pick::LeastRecent,
                };
                let cut_short = if *keep { CutShort::Keep } else { CutShort::End };
                let max_queue = *max_queue;
                let policy =
                    Policy { order, overtaking, pick, drain, max_hold, max_queue, scope, when_empty, cut_short };
                Command::SetPool { pool: pool_of(pool), policy, capacity: *capacity, by }
            }
            Op::ChangePool { pool, capacity, drain, scope } => {
                Command::ChangePool { pool: pool_of(pool), change: change_of(*drain, *scope), capacity: *capacity, by }
            }
            Op::RemovePool(pool) => Command::RemovePool { pool: pool_of(pool), by },
            Op::Add { pool, lock, labels, claim } => Command::AddLock {
                pool: pool_of(pool),
                lock: lock_of(lock),
                metadata: Arc::from([]),
                labels: Arc::new(labels_of(labels)),
                claim: claim.as_ref().map(|request| Box::new(ask_of(request))),
                by,
            },
            Op::Update { pool, lock, labels } => Command::UpdateLock {
                pool: pool_of(pool),
                lock: lock_of(lock),
                metadata: None,
                labels: Some(Arc::new(labels_of(labels))),
                if_free: false,
                by,
            },
            Op::Remove { pool, lock, claim } => {
                let claim = claim.as_deref().map(claim_id);
                Command::RemoveLock { pool: pool_of(pool), lock: lock_of(lock), claim, by }
            }
            Op::MoveLock { pool, lock, to, claim } => Command::MoveLock {
                pool: pool_of(pool),
                lock: lock_of(lock),
                to: pool_of(to),
                claim: claim.as_deref().map(claim_id),
                metadata: None,
                labels: None,
                by,
            },
            Op::Reconcile => Command::Reconcile,
            Op::Pass(_) | Op::Leap(_) | Op::Restart | Op::Latch(_) | Op::Once { .. } => Command::Tick,
        }
    }

    /// The same lines as [`reference::Model::view`].
    pub(super) fn view(&self) -> Vec<String> {
        let snapshot = &self.state.snapshot;
        let why = |concern| if concern == Concern::Decides { "decides" } else { "shows" };
        let watched = snapshot.builds_to_watch().map(|(build, concern)| (build.id.as_str(), why(concern)));
        let mut lines = vec![format!("watched {:?}", watched.collect::<Vec<_>>())];
        for claim in snapshot.claims.values() {
            let phase = match &claim.phase {
                Phase::Waiting { presence, .. } => {
                    let presence = match presence {
                        Presence::Parked => {
                            format!("parked {:?}", claim.parks.iter().map(|p| p.0).collect::<Vec<_>>())
                        }
                        Presence::Recent(_) => "recent".into(),
                        Presence::Grace(_) => "grace".into(),
                        Presence::Away(_) => "away".into(),
                    };
                    let stuck = match snapshot.stuck.get(&claim.id).map(AsRef::as_ref) {
                        None => "",
                        Some(Stuck::SelfWait { .. }) => "self_wait",
                        Some(Stuck::Deadlock { .. }) => "deadlock",
                    };
                    format!("waiting {presence} {stuck}")
                }
                Phase::Granted { locks, .. } => format!("granted {:?}", texts(locks)),
                Phase::Held { locks, .. } => format!("held {:?}", texts(locks)),
            };
            let suspect = if snapshot.suspect(claim).is_some() { " suspect" } else { "" };
            let mark = if claim.is_marked() { format!(" marked, also {:?}", claim.aliases) } else { String::new() };
            lines.push(format!("claim {} life {} runs {:?} {phase}{mark}{suspect}", claim.id, claim.life, claim.runs));
        }
        for ended in self.store.remembered().values() {
            let how = ended.how.word();
            lines.push(format!("claim {} life {} runs {:?} ended {how}", ended.id, ended.life, ended.runs));
        }
        for pool in snapshot.pools.values() {
            let waiting: Vec<&ClaimId> = pool.waiting.values().collect();
            let free = pool.free.iter().map(|(_, lock)| seen(pool.name.as_str(), lock.as_str()).1);
            let free: Vec<String> = free.collect();
            lines.push(format!("pool {} queue {waiting:?} free {free:?}", pool.name));
            for lock in pool.locks.values() {
                let by: Vec<&ClaimId> = lock.holders.iter().map(|holder| &holder.claim).collect();
                let (drains, leaving) = (lock.drain.is_some(), lock.leaving);
                let out = if lock.quarantine.is_some() { " out" } else { "" };
                let out = if lock.implicit { format!("{out} implicit") } else { out.to_owned() };
                let ((pool, name), labels) = (seen(pool.name.as_str(), lock.name.as_str()), &lock.labels);
                lines.push(format!("lock {pool}/{name} {labels:?} by {by:?} draining {drains} leaving {leaving}{out}"));
            }
        }
        lines.extend(snapshot.latches.values().map(|latch| latch_line(latch)));
        lines.sort();
        lines
    }
}

fn answer_of(result: Result<Reply, Refusal>) -> Answer {
    match result {
        Ok(Reply::Claim { claim, parked }) => claim_answer(&claim, parked),
        Ok(Reply::Busy(_)) => Answer::Busy,
        Ok(Reply::Ended { ended, again }) => Answer::Ended { how: ended.how.word(), again },
        Ok(Reply::Marked { claim, .. }) => Answer::Marked(texts(claim.locks())),
        Ok(Reply::Done { .. }) => Answer::Done,
        Ok(Reply::Latch(latch)) => Answer::Latch(latch_line(&latch)),
        Ok(Reply::Nothing | Reply::Token(_)) => Answer::Nothing,
        Err(Refusal::Ended { ended }) => Answer::RefusedEnded(ended.how.word()),
        Err(refusal) => Answer::Refused(match refusal {
            Refusal::NoBuild { .. } => "unprocessable",
            Refusal::NoSuchPool { .. } | Refusal::MayNotMake { .. } => "no_such_pool",
            Refusal::NoSuchLock { .. } => "no_such_lock",
            Refusal::NoSuchClaim { .. } => "no_such_claim",
            Refusal::TooMany { .. } => "too_many",
            Refusal::DifferentRequest { .. } | Refusal::DifferentOperation { .. } => "different_request",
            Refusal::SupersededRun { .. } => "superseded_run",
            Refusal::NotWaiting { .. } => "not_waiting",
            Refusal::OrderOfOne { .. } => "mixed_orders",
            Refusal::NotGranted { .. } => "not_granted",
            Refusal::WrongFence { .. } => "wrong_fence",
            Refusal::LockExists { .. } => "lock_exists",
            Refusal::LockHeld { .. } => "lock_held",
            Refusal::NotHolder { .. } => "not_holder",
            Refusal::PoolInUse { .. } => "pool_in_use",
            Refusal::MixedOrders { .. } => "mixed_orders",
            Refusal::OrderInUse { .. } => "pool_in_use",
            Refusal::QueueFull { .. } => "queue_full",
            Refusal::NoSuchLatch { .. } => "no_such_latch",
            Refusal::LatchExists { .. } => "latch_exists",
            Refusal::LatchReleased { .. } => "latch_released",
            Refusal::TokenExists { .. } => "token_exists",
            Refusal::NoSuchToken { .. } => "no_such_token",
            Refusal::TooManyRuns { .. } | Refusal::Limit { .. } | Refusal::Ended { .. } => "limit",
        }),
    }
}

fn texts(locks: &[(PoolName, LockName)]) -> Vec<(String, String)> {
    locks.iter().map(|(p, l)| seen(p.as_str(), l.as_str())).collect()
}

fn claim_answer(claim: &Claim, parked: bool) -> Answer {
    match &claim.phase {
        Phase::Waiting { .. } => Answer::Waiting { parked },
        Phase::Granted { locks, .. } => Answer::Granted(texts(locks)),
        Phase::Held { locks, .. } => Answer::Held(texts(locks)),
    }
}

fn ask_of(request: &Request) -> AskClaim {
    let Request { claim, shape, run, wait, priority, confirm, try_lock, give_up, ttl, if_empty, supersede, job } =
        request;
    let wait = match wait {
        reference::Wait::No => Wait::No,
        reference::Wait::Park(park) => Wait::Park(ParkId(*park)),
        reference::Wait::Over(park) => Wait::Over(ParkId(*park)),
    };
    AskClaim {
        id: claim_id(claim),
        terms: Terms {
            priority: Priority::new(*priority).unwrap(),
            waits_if_empty: *if_empty,
            supersede: supersede.as_deref().map(text_of),
            ..terms_of(shape, job.as_deref(), *confirm, *ttl)
        },
        scope: shape.scope.map(scope_of),
        run: run.as_deref().map(run_of),
        wait,
        queue: !try_lock,
        give_up_after: give_up.map(Span),
    }
}

fn terms_of(shape: &Shape, job: Option<&str>, confirm: bool, ttl: Option<u64>) -> Terms {
    let parts = shape.parts.iter().map(|(pool, want)| Part { pool: pool_of(pool), want: want_of(want) });
    let parts: Vec<Part> = parts.collect();
    let [key, requestor, build_id] = [&shape.key, &shape.who, &shape.build].map(|text| text.as_deref().map(text_of));
    let cluster = build_id.as_ref().map(|_| text_of("https://ci"));
    let mut hasher = DefaultHasher::new();
    format!("{shape:?}").hash(&mut hasher);
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    Terms {
        ask: Ask { parts, key, requestor },
        digest: Digest(digest),
        owner: Arc::new(Owner { cluster, build_id, job: job.map(text_of), ..Owner::default() }),
        reason: None,
        confirm,
        ttl: ttl.map(Span),
        priority: Priority::default(),
        supersede: None,
        waits_if_empty: false,
    }
}

/// These rules, if they are given.
#[allow(clippy::option_option)]
fn change_of(drain: Option<Option<u64>>, scope: Option<Option<&str>>) -> PolicyChange {
    let rules = [drain.map(|_| Rule::Drain), scope.map(|_| Rule::Scope)];
    let (drain, scope) = (drain.flatten().map(Span), scope.flatten().map(scope_of));
    let to = Policy { drain, scope, ..Policy::default() };
    PolicyChange { rules: rules.into_iter().flatten().collect(), to }
}

/// How a build ended, by its word.
pub(super) fn build_end(how: &str) -> BuildEnd {
    let all = [BuildEnd::Succeeded, BuildEnd::Failed, BuildEnd::Errored, BuildEnd::Aborted, BuildEnd::Gone];
    all.into_iter().find(|end| end.word() == how).unwrap()
}

fn scope_of(word: &str) -> Scope {
    match word {
        "build" => Scope::Build,
        "lease" => Scope::Lease,
        "person" => Scope::Person,
        _ => Scope::Flow,
    }
}

fn want_of(want: &reference::Want) -> Want {
    match want {
        reference::Want::Any(count, labels) => {
            Want::Any { count: u32::try_from(*count).unwrap(), labels: labels_of(labels) }
        }
        reference::Want::Named(names) => Want::Named(names.iter().map(|name| lock_of(name)).collect()),
    }
}

fn labels_of(labels: &reference::Labels) -> Labels {
    labels.iter().map(|(name, value)| (Label::parse(name).unwrap(), Label::parse(value).unwrap())).collect()
}

fn latch_command(op: &LatchOp) -> Command {
    let node = |node: &Option<String>| node.as_ref().map(|name| Node::Name(name.parse().unwrap()));
    let uid = |uid: &Option<String>| uid.as_ref().map(|uid| uid.parse().unwrap());
    match op {
        LatchOp::Create(latch) => Command::CreateLatch(Box::new(NewLatch {
            id: latch.id.parse().unwrap(),
            target: Target {
                workflow: latch.workflow.parse().unwrap(),
                namespace: "default".parse().unwrap(),
                workflow_uid: uid(&latch.uid),
                node: node(&latch.node),
            },
            ending: ending_of(&latch.ending),
        })),
        LatchOp::Release { id, ending, node: name, uid: of } => Command::ReleaseLatch {
            id: id.parse().unwrap(),
            ending: ending.as_ref().map(ending_of),
            binding: Box::new(Binding { node: node(name), workflow_uid: uid(of) }),
        },
        LatchOp::Delete(id) => Command::DeleteLatch { id: id.parse().unwrap() },
    }
}

fn ending_of(ending: &latches::Ending) -> Ending {
    match ending {
        latches::Ending::Succeed(output) => {
            let values = output.iter().map(|value| ("out".parse().unwrap(), Arc::from(value.as_str())));
            Ending::Succeed(Outputs::new(values.collect()).unwrap())
        }
        latches::Ending::Fail(why) => Ending::Fail(Reason::parse(why).unwrap()),
    }
}

/// The same line as [`latches::Latch::line`].
fn latch_line(latch: &Latch) -> String {
    let Target { workflow, node, workflow_uid: uid, .. } = &latch.target;
    let node = node.as_ref().map(|node| match node {
        Node::Name(name) => name,
        other => unreachable!("{other:?} is no name"),
    });
    let released = latch.released().is_some();
    let ending = match &latch.ending {
        Ending::Succeed(outputs) => latches::Ending::Succeed(outputs.iter().next().map(|(_, value)| value.to_string())),
        Ending::Fail(why) => latches::Ending::Fail(why.to_string()),
    };
    format!("latch {} of {workflow} node {node:?} uid {uid:?} released {released} {ending:?}", latch.id)
}

fn claim_id(text: &str) -> ClaimId {
    ClaimId::parse(text).unwrap()
}

fn run_of(text: &str) -> Run {
    Run::parse(text).unwrap()
}

fn pool_of(text: &str) -> PoolName {
    PoolName::parse(text).unwrap()
}

fn lock_of(text: &str) -> LockName {
    LockName::parse(text).unwrap()
}

fn build_of(id: &str) -> BuildRef {
    BuildRef { cluster: text_of("https://ci"), id: text_of(id) }
}

fn text_of(text: &str) -> Text {
    Text::parse(text).unwrap()
}
