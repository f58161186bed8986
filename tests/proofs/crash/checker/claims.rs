//! What each claim shows from look to look (I4, I7, I8), and which process may act for it (runs).
//!
//! Two looks at a claim, where one was over before the other began, must fit. Time and the operations in between, each
//! of which may have happened or not, must be able to lead from the first to the second.

use std::collections::BTreeMap;

use super::super::history::{Asked, Call, History, Nanos, Op, Seen};
use super::{Rule, Violation};

/// Codes that a valid request of the workload may get.
const EXPECTED: &[&str] = &["superseded_run", "not_granted", "wrong_fence", "too_many_runs"];

pub fn check(history: &History, claims: &BTreeMap<&str, Vec<&Op>>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (id, ops) in claims {
        let default = Asked::default();
        let asked = history.asked.get(*id).unwrap_or(&default);
        found.extend(ops.iter().filter_map(|op| fits(history, asked, ops, op)));
        found.extend(ops.iter().filter_map(|op| odd_answer(op)));
        found.extend(ops.iter().filter_map(|op| wrong_run(ops, op)));
    }
    found
}

/// The operations that may have happened between two looks.
#[derive(Debug, Clone, Copy, Default)]
struct Between {
    ask: bool,
    confirm: bool,
    end: bool,
}

impl Between {
    fn add(&mut self, call: Call) {
        match call {
            Call::Ask => self.ask = true,
            Call::Confirm => self.confirm = true,
            Call::End => self.end = true,
            Call::Look | Call::Audit | Call::Neglect => {}
        }
    }
}

/// Whether the result of `op` fits the newest look that was over before it.
fn fits(history: &History, asked: &Asked, ops: &[&Op], op: &Op) -> Option<Violation> {
    let done = op.done.filter(|_| op.seen.is_view())?;
    let before = |o: &&&Op| o.seen.is_view() && o.seen != Seen::NotLive && o.done.is_some_and(|d| d <= op.invoke);
    let last = ops.iter().filter(before).max_by_key(|o| o.invoke)?;
    let mut between = Between::default();
    between.add(op.call);
    for other in ops.iter().filter(|o| !std::ptr::eq(**o, *last) && !std::ptr::eq(**o, op)) {
        if other.may_act() && other.invoke < done && history.over(other) > last.invoke {
            between.add(other.call);
        }
    }
    if may_become(asked, &last.seen, between, &op.seen) {
        return None;
    }
    let rule = match (&last.seen, op.call) {
        (_, Call::Audit) => Rule::Durable,
        _ if history.deaths.iter().any(|death| (last.invoke..=op.invoke).contains(death)) => Rule::Durable,
        (Seen::Ended { .. }, _) | (_, Call::End) => Rule::Release,
        _ => Rule::Identity,
    };
    let text = format!(
        "claim {} was {:?} for client {} at {}; {:?} of client {} at {}..{done} saw {:?}, though between them there was \
         at most {between:?}",
        op.id, last.seen, last.client, last.invoke, op.call, op.client, op.invoke, op.seen
    );
    Some(Violation { rule, text })
}

/// Whether a claim in state `a` may be in state `b` later, after some of the operations in between.
fn may_become(asked: &Asked, a: &Seen, between: Between, b: &Seen) -> bool {
    if a == b {
        return true;
    }
    let (Some(life_a), Some(life_b)) = (a.life(), b.life()) else {
        return match (a, b) {
            // Known, then gone. Waiting and granted claims that end by themselves are remembered, and so not absent.
            (Seen::Ended { .. }, Seen::Absent | Seen::NotLive) | (Seen::Absent, Seen::NotLive) => true,
            (_, Seen::Absent | Seen::NotLive) => between.end,
            (Seen::Absent, Seen::Ended { .. }) => between.end || between.ask,
            _ => between.ask,
        };
    };
    if life_b > life_a {
        // The old life has ended, by request or by itself, and a request has begun the new one.
        let ended = between.end || matches!(a, Seen::Ended { .. } | Seen::Waiting { .. } | Seen::Granted { .. });
        return ended && between.ask;
    }
    if life_b < life_a {
        return false;
    }
    match (a, b) {
        (Seen::Ended { how: a, .. }, Seen::Ended { how: b, .. }) => a == b,
        (Seen::Ended { .. }, _) => false,
        (Seen::Held { .. }, Seen::Ended { .. }) => between.end,
        // A hold never goes back to waiting or granted, and never gets another fence.
        (Seen::Held { .. }, _) => false,
        (_, Seen::Ended { how, .. }) => between.end || ["unconfirmed", "gave_up", "listener_lost"].contains(&&**how),
        (Seen::Waiting { .. }, Seen::Held { .. }) if !asked.confirm => between.ask,
        (Seen::Waiting { .. } | Seen::Granted { .. }, Seen::Held { .. }) if !between.confirm => false,
        (Seen::Granted { fence, locks, .. }, Seen::Granted { fence: f, locks: l, .. })
        | (Seen::Granted { fence, locks, .. }, Seen::Held { fence: f, locks: l, .. }) => {
            f > fence || (f == fence && l == locks)
        }
        _ => true,
    }
}

/// Answers that the request cannot get.
fn odd_answer(op: &Op) -> Option<Violation> {
    let text = match &op.seen {
        Seen::Refused(code) if !EXPECTED.contains(&&**code) => format!("{op:?} was refused with {code}"),
        Seen::Held { fence, .. } if op.given.is_some_and(|given| given != *fence) => {
            format!("{op:?} confirmed a fence that is not the grant's")
        }
        _ => return None,
    };
    Some(Violation { rule: Rule::Answers, text })
}

/// Whether `op` was accepted although a newer process had acted, or refused as earlier although no other had.
fn wrong_run(ops: &[&Op], op: &Op) -> Option<Violation> {
    let run = op.run.as_ref()?;
    let done = op.done?;
    let others = || ops.iter().filter(|o| o.run.as_ref().is_some_and(|r| r != run));
    if op.seen == Seen::Refused("superseded_run".to_owned()) {
        let justified = others().any(|o| o.invoke < done);
        let text = || format!("{op:?} was refused as of an earlier run, though there was no other");
        return (!justified).then(|| Violation { rule: Rule::Runs, text: text() });
    }
    let refused = matches!(op.seen, Seen::Refused(_));
    let nothing_to_confirm = op.call == Call::Confirm && matches!(op.seen, Seen::Ended { .. } | Seen::Absent);
    if refused || nothing_to_confirm {
        return None;
    }
    let admitted = |o: &&&Op| {
        let let_in = matches!(o.seen, Seen::Waiting { .. } | Seen::Granted { .. } | Seen::Held { .. });
        let_in && matches!(o.call, Call::Ask | Call::Confirm)
    };
    let own_since = ops.iter().filter(|o| o.run.as_ref() == Some(run)).filter(admitted).filter_map(|o| o.done).min()?;
    let newer = others().filter(admitted).find(|newer| {
        let first = ops.iter().filter(|o| o.run == newer.run).map(|o| o.invoke).min().unwrap_or(Nanos::MAX);
        own_since <= first && newer.done.is_some_and(|done| done <= op.invoke)
    })?;
    let text = format!("{op:?} was let in, though {newer:?} of a newer run had been before");
    Some(Violation { rule: Rule::Runs, text })
}
