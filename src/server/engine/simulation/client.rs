//! A client that behaves like `out`: it asks, confirms, holds and releases. It may be killed, paused, or restarted in
//! its container.

use std::sync::Arc;

use super::Ms;
use super::judge::Judge;
use super::network::{Acts, Dice, Event, Heard, Message};
use crate::core::claim::{Ask, Claim, End, Labels, Owner, Part, Phase, Priority, Scope, Terms, Want};
use crate::core::command::{AskClaim, Command, Refusal, Reply, Wait};
use crate::core::names::{ClaimId, Digest, Fence, PoolName, Run, Text};
use crate::core::time::Span;
use crate::server::engine::EngineError;

/// The longest time for which a client holds its locks, milliseconds.
pub(super) const LONGEST_HOLD: Ms = 5_000;
/// The same for a lease.
pub(super) const LONGEST_LEASE: Ms = 30_000;
/// How long a client waits for an answer that may be parked, and for any other answer.
const PATIENCE_PARKED: Ms = 35_000;
const PATIENCE: Ms = 5_000;

/// The ttl of a lease.
const TTL: Ms = 20_000;

/// What a client asks for: how many locks of which pools, a key, and whether it is a lease.
type Shape = (&'static [(&'static str, u32)], Option<&'static str>, bool);

const SHAPES: &[Shape] = &[
    (&[("solo", 1)], None, false),
    (&[("solo", 1)], None, true),
    (&[("pair", 1)], None, true),
    (&[("pair", 2)], None, false),
    (&[("pair", 1), ("solo", 1)], None, false),
    (&[("shared", 1)], Some("a"), false),
    (&[("shared", 1)], Some("b"), true),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Asking,
    Confirming { fence: Fence },
    Holding { fence: Fence, until: Ms },
    Releasing,
    Cancelling,
}

#[derive(Debug)]
pub(super) struct Client {
    pub number: usize,
    /// The process that is running. Each process has its own run.
    pub process: u32,
    /// The last call. The client accepts only the answer to this one.
    pub call: u64,
    open: bool,
    /// When the last call was sent. If that call renewed a lease, the lease counts from here.
    sent: Ms,
    renews: bool,
    claim: u64,
    shape: usize,
    stage: Stage,
    calm: bool,
    pub served_in_calm: u32,
}

impl Client {
    pub fn new(number: usize) -> Self {
        Self {
            number,
            process: 1,
            call: 0,
            open: false,
            sent: 0,
            renews: false,
            claim: 0,
            shape: 0,
            stage: Stage::Idle,
            calm: false,
            served_in_calm: 0,
        }
    }

    pub fn claim_id(&self) -> String {
        format!("c{}-{}", self.number, self.claim)
    }

    fn id(&self) -> ClaimId {
        ClaimId::parse(&self.claim_id()).unwrap()
    }

    fn run(&self) -> Option<Run> {
        Some(Run::parse(&format!("r{}-{}", self.number, self.process)).unwrap())
    }

    fn key(&self) -> Option<&'static str> {
        SHAPES[self.shape].1
    }

    fn is_lease(&self) -> bool {
        SHAPES[self.shape].2
    }

    /// Ends all faults. A client that was dead comes back.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.open = false;
    }

    /// Makes the client do nothing from now on.
    pub fn stop(&mut self) {
        self.process += 1;
        self.open = false;
    }

    /// The client continues on its own: a pause is over, or a new process begins.
    pub fn act(&mut self, process: u32, now: Ms, dice: &mut Dice, judge: &mut Judge) -> Acts {
        if process != self.process || self.open {
            return Acts::default();
        }
        judge.pass(now);
        if let Some(acts) = self.accident(now, dice) {
            return acts;
        }
        match self.stage {
            Stage::Idle => {
                self.claim += 1;
                let shape = dice.below(SHAPES.len() as u64);
                self.shape = usize::try_from(shape).unwrap();
                self.stage = Stage::Asking;
                self.ask(now)
            }
            Stage::Asking if !self.calm && dice.one_in(8) && !judge.believes(&self.claim_id()) => {
                self.stage = Stage::Cancelling;
                self.cancel(now)
            }
            Stage::Asking => self.ask(now),
            Stage::Confirming { fence } => self.confirm(fence, now),
            Stage::Holding { until, .. } if now < until && !self.is_lease() => self.at(until),
            Stage::Holding { until, fence } if now < until => self.renew(fence, now),
            Stage::Holding { .. } => {
                judge.give_up(&self.claim_id());
                self.stage = Stage::Releasing;
                self.release(now)
            }
            Stage::Releasing => self.release(now),
            Stage::Cancelling => self.cancel(now),
        }
    }

    /// During the storm: the client is killed and later restarted, or paused for a while.
    fn accident(&mut self, now: Ms, dice: &mut Dice) -> Option<Acts> {
        if self.calm {
            return None;
        }
        match dice.below(40) {
            0 => Some(self.begin_anew(now, dice)),
            1 => Some(self.at(now + dice.below(60_000))),
            _ => None,
        }
    }

    /// The process ends, and another one begins later.
    fn begin_anew(&mut self, now: Ms, dice: &mut Dice) -> Acts {
        self.process += 1;
        self.open = false;
        // A new process does not know what the previous one was about to do, but it repeats a release.
        self.stage = match self.stage {
            Stage::Idle | Stage::Releasing => self.stage,
            Stage::Cancelling if dice.one_in(2) => self.stage,
            _ => Stage::Asking,
        };
        self.at(now + dice.below(if self.calm { 1_000 } else { 60_000 }))
    }

    /// The client receives the outcome of a call.
    pub fn hear(&mut self, call: u64, heard: Heard, now: Ms, dice: &mut Dice, judge: &mut Judge) -> Acts {
        if call != self.call || !self.open {
            return Acts::default();
        }
        self.open = false;
        judge.pass(now);
        if let Some(acts) = self.accident(now, dice) {
            return acts;
        }
        let result = match heard {
            Heard::Nothing | Heard::Answer(Err(EngineError::StoreFailed { .. })) => {
                return self.at(now + 100 + dice.below(1_000));
            }
            Heard::Answer(result) => result,
        };
        if matches!(result, Err(EngineError::Refused(Refusal::SupersededRun { .. }))) {
            // The first message of an earlier process arrived after the messages of this one, so the server takes that
            // run for the newer one. This process ends, as `out` does, and the claim waits for the next process.
            return self.begin_anew(now, dice);
        }
        let believed = judge.believes(&self.claim_id());
        match (self.stage, result) {
            (Stage::Asking | Stage::Confirming { .. } | Stage::Holding { .. }, Ok(Reply::Claim { claim, .. })) => {
                self.learn(&claim, now, dice, judge)
            }
            (Stage::Asking | Stage::Holding { .. }, Err(EngineError::Refused(Refusal::Ended { ended }))) => {
                assert!(!believed, "I4: the acknowledged hold ended without a release: {ended:?}");
                self.stage = Stage::Idle;
                self.at(now + dice.below(1_000))
            }
            (Stage::Confirming { .. }, Err(EngineError::Refused(refusal))) => {
                let may =
                    matches!(refusal, Refusal::NotGranted { .. } | Refusal::WrongFence { .. } | Refusal::Ended { .. });
                assert!(may, "a confirm was refused: {refusal}");
                self.stage = Stage::Asking;
                self.at(now + 1)
            }
            (Stage::Releasing | Stage::Cancelling, Ok(Reply::Ended { .. })) => self.is_over(now, dice),
            (Stage::Cancelling, Err(EngineError::Refused(Refusal::NoSuchClaim { .. } | Refusal::Ended { .. }))) => {
                self.is_over(now, dice)
            }
            (Stage::Releasing, Err(EngineError::Refused(Refusal::Ended { ended }))) if self.is_lease() => {
                assert_eq!(ended.how, End::LeaseLost);
                self.is_over(now, dice)
            }
            (stage, result) => panic!("{} was {stage:?} and was answered {result:?}", self.claim_id()),
        }
    }

    fn learn(&mut self, claim: &Claim, now: Ms, dice: &mut Dice, judge: &mut Judge) -> Acts {
        let id = self.claim_id();
        match &claim.phase {
            Phase::Held { fence, locks, .. } => {
                let (fence, asks) = (*fence, self.is_lease() && !self.renews);
                let good_until = self.is_lease().then_some(self.sent + TTL);
                if !asks && good_until.is_none_or(|until| now < until) {
                    judge.believe(&id, self.key(), locks, fence.0, good_until);
                }
                if !matches!(self.stage, Stage::Holding { .. }) {
                    // The lease is held for longer than it lasts, so the client has to renew it.
                    let longest = if self.is_lease() { LONGEST_LEASE } else { LONGEST_HOLD };
                    self.stage = Stage::Holding { fence, until: now + dice.below(longest) };
                }
                if asks {
                    return self.renew(fence, now);
                }
                // Sometimes ask again: the answer must be the same.
                if dice.one_in(3) { self.ask(now) } else { self.at(now + dice.below(LONGEST_HOLD)) }
            }
            Phase::Granted { fence, .. } => {
                assert!(!judge.believes(&id), "I8: the hold of {id} went back to a grant");
                self.stage = Stage::Confirming { fence: *fence };
                self.confirm(*fence, now)
            }
            Phase::Waiting { .. } => {
                assert!(!judge.believes(&id), "I4: the hold of {id} was forgotten");
                self.stage = Stage::Asking;
                self.at(now + 1 + dice.below(1_000))
            }
        }
    }

    fn is_over(&mut self, now: Ms, dice: &mut Dice) -> Acts {
        if self.calm && self.stage == Stage::Releasing {
            self.served_in_calm += 1;
        }
        self.stage = Stage::Idle;
        self.at(now + dice.below(2_000))
    }

    fn at(&self, time: Ms) -> Acts {
        let act = Event::Act { client: self.number, process: self.process };
        Acts { send: None, later: Some((time, act)) }
    }

    fn send(&mut self, command: Command, patience: Ms, now: Ms) -> Acts {
        self.call += 1;
        self.sent = now;
        self.renews = matches!(command, Command::Renew { .. });
        self.open = true;
        let message = Message { client: self.number, call: self.call, command, is_copy: false };
        Acts { send: Some((message, patience)), later: None }
    }

    fn ask(&mut self, now: Ms) -> Acts {
        let (parts, key, lease) = SHAPES[self.shape];
        let text = |text: &str| Text::parse(text).unwrap();
        let part = |(pool, count): &(&str, u32)| Part {
            pool: PoolName::parse(pool).unwrap(),
            want: Want::Any { count: *count, labels: Labels::new() },
        };
        let ask = Ask {
            parts: parts.iter().map(part).collect(),
            key: key.map(text),
            requestor: key.map(|_| text(&format!("who-{}", self.number))),
        };
        let terms = Terms {
            ask,
            digest: Digest([u8::try_from(self.shape).unwrap(); 32]),
            owner: Arc::new(Owner::default()),
            reason: None,
            confirm: true,
            ttl: lease.then_some(Span(TTL)),
            priority: Priority::default(),
            supersede: None,
            waits_if_empty: false,
        };
        let scope = lease.then_some(Scope::Lease);
        let ask =
            AskClaim { id: self.id(), terms, scope, run: self.run(), wait: Wait::No, queue: true, give_up_after: None };
        self.send(Command::Ask(Box::new(ask)), PATIENCE_PARKED, now)
    }

    /// A lease is confirmed by renewing it. A repeated confirm would not count from the time at which it was sent.
    fn confirm(&mut self, fence: Fence, now: Ms) -> Acts {
        if self.is_lease() {
            return self.renew(fence, now);
        }
        let command = Command::Confirm { id: self.id(), run: self.run(), fence };
        self.send(command, PATIENCE, now)
    }

    fn renew(&mut self, fence: Fence, now: Ms) -> Acts {
        let command = Command::Renew { id: self.id(), run: self.run(), fence: Some(fence) };
        self.send(command, PATIENCE, now)
    }

    /// Releases like a lock directory does: without a run.
    fn release(&mut self, now: Ms) -> Acts {
        let command = Command::End { id: self.id(), run: None, by: None, reason: None };
        self.send(command, PATIENCE, now)
    }

    fn cancel(&mut self, now: Ms) -> Acts {
        let command = Command::End { id: self.id(), run: self.run(), by: None, reason: None };
        self.send(command, PATIENCE, now)
    }
}
