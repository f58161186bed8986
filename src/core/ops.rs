//! An operation that has an id is done once: a repeat gets the answer of the first call.

use super::claim::{Labels, Want};
use super::command::{AskClaim, By, Command, MoveTo, Refusal, Reply};
use super::names::Asked;
use super::pool::{CutShort, Order, Overtaking, Pick, Policy, Rule, WhenEmpty};
use super::state::{OpRecord, State};
use super::time::{Deadline, Now};

/// Makes a change unless the same operation has made it already, and remembers its answer under the operation's id.
///
/// # Errors
/// The refusal of the change, which is not remembered; or the id belongs to another operation.
pub(super) fn once(
    state: &mut State,
    by: &By,
    asked: Asked,
    now: Now,
    change: impl FnOnce(&mut State) -> Result<(), Refusal>,
) -> Result<Reply, Refusal> {
    if let Some(before) = by.op.as_ref().and_then(|op| state.ops.get(op)) {
        // Older releases did not store what an operation asked for.
        return if before.asked.is_none_or(|before| before == asked) {
            Ok(Reply::Done { revision: before.revision })
        } else {
            Err(Refusal::DifferentOperation { op: before.op.clone() })
        };
    }
    change(state)?;
    let revision = state.snapshot.revision;
    if let Some(op) = &by.op {
        state.make_room_for_op();
        let forget = Deadline::after(now, state.settings.memory);
        state.remember_op(OpRecord { op: op.clone(), revision, asked: Some(asked), forget });
    }
    Ok(Reply::Done { revision })
}

/// What an operation asks for, regardless of who asks and why. It is stored, and later releases compare it: the fields
/// and their order never change, and new fields go at the end.
pub(super) fn asked(command: &Command) -> Asked {
    let mut fields = Fields::default();
    match command {
        Command::Move { id, to, by: _ } => {
            fields.texts(&["move", id.as_str()]);
            match to {
                MoveTo::First => fields.text("first"),
                MoveTo::Before(id) => fields.texts(&["before", id.as_str()]),
                MoveTo::Last => fields.text("last"),
            }
        }
        Command::Quarantine { pool, lock, span, by: _ } => {
            fields.texts(&["quarantine", pool.as_str(), lock.as_str()]);
            fields.optional(span.map(|span| span.0));
        }
        Command::Return { pool, lock, by: _ } => fields.texts(&["return", pool.as_str(), lock.as_str()]),
        Command::SetPool { pool, policy, capacity, by: _ } => {
            fields.texts(&["set pool", pool.as_str()]);
            fields.policy(policy);
            fields.optional(capacity.map(u64::from));
        }
        Command::ChangePool { pool, change, capacity, by: _ } => {
            fields.texts(&["change pool", pool.as_str()]);
            change.rules.iter().for_each(|rule| fields.text(rule_word(*rule)));
            fields.policy(&change.to);
            fields.optional(capacity.map(u64::from));
        }
        Command::RemovePool { pool, by: _ } => fields.texts(&["remove pool", pool.as_str()]),
        Command::AddLock { pool, lock, metadata, labels, claim, by: _ } => {
            fields.texts(&["add lock", pool.as_str(), lock.as_str()]);
            fields.bytes(metadata);
            fields.labels(labels);
            fields.claim(claim.as_deref());
        }
        Command::UpdateLock { pool, lock, metadata, labels, if_free, by: _ } => {
            fields.texts(&["update lock", pool.as_str(), lock.as_str()]);
            fields.number(metadata.is_some().into());
            metadata.iter().for_each(|metadata| fields.bytes(metadata));
            fields.number(labels.is_some().into());
            labels.iter().for_each(|labels| fields.labels(labels));
            fields.number((*if_free).into());
        }
        Command::RemoveLock { pool, lock, claim, by: _ } => {
            fields.texts(&["remove lock", pool.as_str(), lock.as_str()]);
            fields.texts(claim.as_ref().map(|id| id.as_str()).as_slice());
        }
        Command::MoveLock { pool, lock, to, claim, metadata, labels, by: _ } => {
            fields.texts(&["move lock", pool.as_str(), lock.as_str(), to.as_str()]);
            fields.number(claim.is_some().into());
            fields.texts(claim.as_ref().map(|id| id.as_str()).as_slice());
            fields.number(metadata.is_some().into());
            metadata.iter().for_each(|metadata| fields.bytes(metadata));
            fields.number(labels.is_some().into());
            labels.iter().for_each(|labels| fields.labels(labels));
        }
        Command::Note { pool, lock, by: _ } => {
            fields.texts(&["note", pool.as_str()]);
            fields.texts(lock.as_ref().map(|lock| lock.as_str()).as_slice());
        }
        Command::Ask(_)
        | Command::Confirm { .. }
        | Command::Renew { .. }
        | Command::Delivered { .. }
        | Command::BuildOver { .. }
        | Command::BuildFound { .. }
        | Command::Suspect { .. }
        | Command::Alive { .. }
        | Command::Reruns { .. }
        | Command::Release { .. }
        | Command::End { .. }
        | Command::Cancel { .. }
        | Command::Break { .. }
        | Command::Left { .. }
        | Command::CreateLatch(_)
        | Command::ReleaseLatch { .. }
        | Command::DeleteLatch { .. }
        | Command::CreateToken { .. }
        | Command::RevokeToken { .. }
        | Command::TokenUsed { .. }
        | Command::Tick
        | Command::Reconcile => {}
    }
    Asked(fields.0)
}

fn rule_word(rule: Rule) -> &'static str {
    match rule {
        Rule::Order => "order",
        Rule::Overtaking => "overtaking",
        Rule::Pick => "pick",
        Rule::Drain => "drain",
        Rule::MaxHold => "max_hold",
        Rule::MaxQueue => "max_queue",
        Rule::Scope => "scope",
        Rule::WhenEmpty => "when_empty",
        Rule::CutShort => "cut_short",
    }
}

/// FNV-1a over fields, each preceded by its length: enough to distinguish honest requests.
struct Fields(u64);

impl Default for Fields {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fields {
    fn number(&mut self, number: u64) {
        for byte in number.to_be_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    fn optional(&mut self, number: Option<u64>) {
        self.number(number.is_some().into());
        number.into_iter().for_each(|number| self.number(number));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.text(text));
    }

    fn labels(&mut self, labels: &Labels) {
        self.number(labels.len() as u64);
        labels.iter().for_each(|(name, value)| self.texts(&[name.as_str(), value.as_str()]));
    }

    fn policy(&mut self, policy: &Policy) {
        let Policy { order, overtaking, pick, drain, max_hold, max_queue, scope, when_empty, cut_short } = policy;
        self.number(match order {
            Order::Fifo => 0,
            Order::Priority => 1,
            Order::Lifo => 2,
        });
        match overtaking {
            Overtaking::Strict => self.number(0),
            Overtaking::Backfill(most) => {
                self.number(1);
                self.optional(most.map(u64::from));
            }
        }
        self.number(match pick {
            Pick::LeastRecent => 0,
            Pick::Random => 1,
            Pick::Name => 2,
        });
        self.optional(drain.map(|span| span.0));
        self.optional(max_hold.map(|span| span.0));
        self.optional(max_queue.map(u64::from));
        self.optional(scope.map(|scope| scope as u64));
        // Policies without it have the same number as before there was any.
        if let Some(when_empty) = when_empty {
            self.number(match when_empty {
                WhenEmpty::Wait => 1,
                WhenEmpty::Fail => 2,
            });
        }
        if *cut_short == CutShort::Keep {
            self.text("keep");
        }
    }

    fn claim(&mut self, claim: Option<&AskClaim>) {
        let Some(AskClaim { id, terms, .. }) = claim else { return };
        self.text(id.as_str());
        self.bytes(&terms.digest.0);
        for part in &terms.ask.parts {
            self.text(part.pool.as_str());
            if let Want::Named(names) = &part.want {
                names.iter().for_each(|name| self.text(name.as_str()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::core::command::By;
    use crate::core::names::{LockName, PoolName};
    use crate::core::pool::PolicyChange;

    fn pool(name: &str) -> PoolName {
        PoolName::parse(name).unwrap()
    }

    #[test]
    fn different_operations_have_different_numbers() {
        let note = |n: u32| Command::Note { pool: pool(&format!("pool-{n}")), lock: None, by: By::default() };
        let add = |n: u32| {
            let labels = [("size".parse().unwrap(), n.to_string().parse().unwrap())].into();
            let lock = LockName::parse("l").unwrap();
            let (metadata, claim) = (std::sync::Arc::from([]), None);
            let labels = std::sync::Arc::new(labels);
            Command::AddLock { pool: pool("p"), lock, metadata, labels, claim, by: By::default() }
        };
        let rules = [
            Rule::Order,
            Rule::Overtaking,
            Rule::Pick,
            Rule::Drain,
            Rule::MaxHold,
            Rule::MaxQueue,
            Rule::Scope,
            Rule::WhenEmpty,
            Rule::CutShort,
        ];
        // Each sets one rule back to its default, so only the name of the rule tells them apart.
        let change = |rule: Rule| {
            let change = PolicyChange { rules: [rule].into(), to: Policy::default() };
            Command::ChangePool { pool: pool("p"), change, capacity: None, by: By::default() }
        };
        let commands = (0..2_000).map(note).chain((0..2_000).map(add)).chain(rules.map(change));
        let numbers: HashSet<u64> = commands.map(|command| asked(&command).0).collect();
        assert_eq!(numbers.len(), 4_000 + rules.len());
    }
}
