//! A client as `out` is one: asks, confirms, holds, releases; is killed, paused, started again in its container.

use std::sync::Arc;

use super::Ms;
use super::judge::Judge;
use super::network::{Acts, Dice, Event, Heard, Message};
use crate::core::claim::{Ask, Claim, Labels, Owner, Part, Phase, Priority, Scope, Terms, Want};
use crate::core::names::{ClaimId, Digest, Fence, PoolName, Run, Text};
use crate::core::step::{AskClaim, Command, Refusal, Reply, Wait};
use crate::server::engine::EngineError;

/// Longest time that a client holds its locks.
pub(super) const LONGEST_HOLD: Ms = 5_000;
/// How long a client waits for an answer that may be parked, and for any other.
const PATIENCE_PARKED: Ms = 35_000;
const PATIENCE: Ms = 5_000;

/// What a client asks for: pools with how many of their locks, and a key.
type Shape = (&'static [(&'static str, u32)], Option<&'static str>);

const SHAPES: &[Shape] = &[
    (&[("solo", 1)], None),
    (&[("solo", 1)], None),
    (&[("pair", 1)], None),
    (&[("pair", 2)], None),
    (&[("pair", 1), ("solo", 1)], None),
    (&[("shared", 1)], Some("a")),
    (&[("shared", 1)], Some("b")),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Asking,
    Confirming { fence: Fence },
    Holding { until: Ms },
    Releasing,
    Cancelling,
}

#[derive(Debug)]
pub(super) struct Client {
    pub number: usize,
    /// Which process of it lives; each has a run of its own.
    pub process: u32,
    /// The last call; only its answer is listened to.
    pub call: u64,
    open: bool,
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

    /// No faults from here on; whoever was dead comes back.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.open = false;
    }

    /// It goes on by itself: a pause is over, or a new process begins.
    pub fn act(&mut self, process: u32, now: Ms, dice: &mut Dice, judge: &mut Judge) -> Acts {
        if process != self.process || self.open {
            return Acts::default();
        }
        if let Some(acts) = self.accident(now, dice) {
            return acts;
        }
        match self.stage {
            Stage::Idle => {
                self.claim += 1;
                let shape = dice.below(SHAPES.len() as u64);
                self.shape = usize::try_from(shape).unwrap();
                self.stage = Stage::Asking;
                self.ask()
            }
            Stage::Asking if !self.calm && dice.one_in(8) && !judge.believes(&self.claim_id()) => {
                self.stage = Stage::Cancelling;
                self.cancel()
            }
            Stage::Asking => self.ask(),
            Stage::Confirming { fence } => self.confirm(fence),
            Stage::Holding { until } if now < until => self.at(until),
            Stage::Holding { .. } => {
                judge.give_up(&self.claim_id());
                self.stage = Stage::Releasing;
                self.release()
            }
            Stage::Releasing => self.release(),
            Stage::Cancelling => self.cancel(),
        }
    }

    /// In a storm: it is killed and later started again, or stopped for a while.
    fn accident(&mut self, now: Ms, dice: &mut Dice) -> Option<Acts> {
        if self.calm {
            return None;
        }
        match dice.below(40) {
            0 => {
                self.process += 1;
                self.open = false;
                // A new process knows nothing of what the last one was about to do, but a release is asked for again.
                self.stage = match self.stage {
                    Stage::Idle | Stage::Releasing => self.stage,
                    Stage::Cancelling if dice.one_in(2) => self.stage,
                    _ => Stage::Asking,
                };
                Some(self.at(now + dice.below(60_000)))
            }
            1 => Some(self.at(now + dice.below(60_000))),
            _ => None,
        }
    }

    /// It hears what came of a call.
    pub fn hear(&mut self, call: u64, heard: Heard, now: Ms, dice: &mut Dice, judge: &mut Judge) -> Acts {
        if call != self.call || !self.open {
            return Acts::default();
        }
        self.open = false;
        if let Some(acts) = self.accident(now, dice) {
            return acts;
        }
        let Heard::Answer(result) = heard else { return self.at(now + 100 + dice.below(1_000)) };
        if matches!(result, Err(EngineError::Refused(Refusal::SupersededRun { .. }))) {
            panic!("runs: the newest process of client {} was called an earlier one", self.number);
        }
        let believed = judge.believes(&self.claim_id());
        match (self.stage, result) {
            (Stage::Asking | Stage::Confirming { .. } | Stage::Holding { .. }, Ok(Reply::Claim { claim, .. })) => {
                self.learn(&claim, now, dice, judge)
            }
            (Stage::Asking, Err(EngineError::Refused(Refusal::Ended { ended }))) => {
                assert!(!believed, "I4: the acknowledged hold has ended by itself: {ended:?}");
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
            (stage, result) => panic!("{} was {stage:?} and was answered {result:?}", self.claim_id()),
        }
    }

    fn learn(&mut self, claim: &Claim, now: Ms, dice: &mut Dice, judge: &mut Judge) -> Acts {
        let id = self.claim_id();
        match &claim.phase {
            Phase::Held { fence, locks, .. } => {
                judge.believe(&id, self.key(), locks, fence.0);
                if !matches!(self.stage, Stage::Holding { .. }) {
                    self.stage = Stage::Holding { until: now + dice.below(LONGEST_HOLD) };
                }
                // A look whether it is still told the same.
                if dice.one_in(3) { self.ask() } else { self.later_than(now, dice) }
            }
            Phase::Granted { fence, .. } => {
                assert!(!judge.believes(&id), "I8: the hold of {id} has become a mere grant");
                self.stage = Stage::Confirming { fence: *fence };
                self.confirm(*fence)
            }
            Phase::Waiting { .. } => {
                assert!(!judge.believes(&id), "I4: the hold of {id} has been forgotten");
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

    fn later_than(&self, now: Ms, dice: &mut Dice) -> Acts {
        self.at(now + dice.below(LONGEST_HOLD))
    }

    fn send(&mut self, command: Command, patience: Ms) -> Acts {
        self.call += 1;
        self.open = true;
        let message = Message { client: self.number, call: self.call, command, is_copy: false };
        Acts { send: Some((message, patience)), later: None }
    }

    fn ask(&mut self) -> Acts {
        let (parts, key) = SHAPES[self.shape];
        let text = |text: &str| Text::parse(text).unwrap();
        let part = |(pool, count): &(&str, u32)| Part {
            pool: PoolName::parse(pool).unwrap(),
            want: Want::Any { count: *count, labels: Labels::new() },
        };
        let ask = Ask {
            parts: parts.iter().map(part).collect(),
            key: key.map(text),
            requestor: key.map(|_| text(&format!("who-{}", self.number))),
            scope: Scope::Flow,
        };
        let terms = Terms {
            ask,
            digest: Digest([u8::try_from(self.shape).unwrap(); 32]),
            owner: Arc::new(Owner::default()),
            reason: None,
            confirm: true,
            ttl: None,
            priority: Priority::default(),
            supersede: None,
        };
        let ask = AskClaim { id: self.id(), terms, run: self.run(), wait: Wait::No, queue: true, give_up_after: None };
        self.send(Command::Ask(Box::new(ask)), PATIENCE_PARKED)
    }

    fn confirm(&mut self, fence: Fence) -> Acts {
        let command = Command::Confirm { id: self.id(), run: self.run(), fence };
        self.send(command, PATIENCE)
    }

    /// As a release of a lock directory: without a run.
    fn release(&mut self) -> Acts {
        let command = Command::End { id: self.id(), run: None, by: None, reason: None };
        self.send(command, PATIENCE)
    }

    fn cancel(&mut self) -> Acts {
        let command = Command::End { id: self.id(), run: self.run(), by: None, reason: None };
        self.send(command, PATIENCE)
    }
}
