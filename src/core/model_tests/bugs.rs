//! Bugs for the system under test: it does what a program would do that does not know one of the rules. The comparison
//! with the model must find each of them.

use super::latches::LatchOp;
use super::reference::{Op, RANDOM, Request, Rules, Want};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// Only the first label of a request counts.
    SecondLabel,
    /// No claim supersedes another.
    Supersede,
    /// A random pick takes one lock too many.
    RandomPick,
    /// An operation is done again.
    Again,
    /// The claim that comes with a new lock is lost.
    FirstClaim,
    /// A build stays suspect although its state is known again.
    Suspect,
    /// A release of a latch does not set its ending.
    Ending,
    /// Nothing is forgotten because there is too much of it.
    Limits,
}

impl Bug {
    /// In the order of their declaration.
    pub(super) const ALL: [Self; 8] = [
        Self::SecondLabel,
        Self::Supersede,
        Self::RandomPick,
        Self::Again,
        Self::FirstClaim,
        Self::Suspect,
        Self::Ending,
        Self::Limits,
    ];

    pub(super) fn rules(self, rules: &Rules) -> Rules {
        match self {
            Self::Limits => Rules { ops: 1_000, ..rules.clone() },
            _ => rules.clone(),
        }
    }

    /// The operation as a system with this bug takes it.
    pub(super) fn op(self, op: &Op) -> Op {
        let mut op = op.clone();
        match (self, &mut op) {
            (Self::Again, Op::Once { change, .. }) => return (**change).clone(),
            (_, Op::Once { change, .. }) => **change = self.op(change),
            (_, Op::Ask(request)) => self.request(request),
            (Self::FirstClaim, Op::Add { claim, .. }) => *claim = None,
            (Self::Suspect, Op::Suspect { why, .. }) => *why = true,
            (Self::Ending, Op::Latch(LatchOp::Release { ending, .. })) => *ending = None,
            _ => {}
        }
        op
    }

    fn request(self, request: &mut Request) {
        if self == Self::Supersede {
            request.supersede = None;
        }
        for (pool, want) in &mut request.shape.parts {
            match want {
                Want::Any(_, labels) if self == Self::SecondLabel => {
                    *labels = labels.clone().into_iter().take(1).collect();
                }
                Want::Any(count, _) if self == Self::RandomPick && pool == RANDOM => *count += 1,
                _ => {}
            }
        }
    }
}
