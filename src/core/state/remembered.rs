//! What is remembered about ended claims and answered operations, and for how long.
//!
//! The store has what is remembered of ended claims. The state knows which there are, and has at hand what is remembered
//! of the newest. Before a step, the caller gets what the step needs of others from the store:
//! [`State::to_recall`], [`State::recall`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{EndedIndex, EndedOutline, OpRecord, State, Timer};
use crate::core::claim::{BuildRef, Ended};
use crate::core::command::Command;
use crate::core::limits;
use crate::core::names::{ClaimId, OpId};
#[cfg(test)]
use crate::core::time::Deadline;
use crate::core::time::{EngineMs, Now};

/// Ended claims that are at hand: those of this batch, and then as many as there is room for, roughly the newest.
#[derive(Debug, Clone, Default)]
pub(super) struct AtHand {
    newer: BTreeMap<ClaimId, Arc<Ended>>,
    older: BTreeMap<ClaimId, Arc<Ended>>,
}

impl AtHand {
    fn get(&self, id: &ClaimId) -> Option<&Arc<Ended>> {
        self.newer.get(id).or_else(|| self.older.get(id))
    }

    fn put(&mut self, ended: Arc<Ended>) {
        self.newer.insert(ended.id.clone(), ended);
    }

    fn remove(&mut self, id: &ClaimId) {
        self.newer.remove(id);
        self.older.remove(id);
    }

    /// Between two batches: drops the older ones when there are more of the newer ones than this. So those of the last
    /// batch, which may be committed now, stay at least until the end of the next one: no batch ends before the one
    /// before it is committed.
    pub fn make_room(&mut self, most: usize) {
        if self.newer.len() > most {
            self.older = std::mem::take(&mut self.newer);
        }
    }
}

impl State {
    /// The ended claims that this command is about and that are not at hand: the caller must read them from its store
    /// and give them to [`Self::recall`] before the step.
    #[must_use]
    pub fn to_recall(&self, command: &Command) -> Vec<ClaimId> {
        let is_missing = |id: &&ClaimId| self.ended.contains(id) && self.at_hand.get(id).is_none();
        command.claims().into_iter().flatten().filter(is_missing).cloned().collect()
    }

    /// Takes what the store remembers of an ended claim. When it is forgotten is known here: that may have changed since
    /// the last commit.
    pub fn recall(&mut self, ended: Ended) {
        if let Some(forget) = self.ended.forget(&ended.id)
            && self.at_hand.get(&ended.id).is_none()
        {
            self.at_hand.put(Arc::new(Ended { forget, ..ended }));
        }
    }

    /// What is remembered of an ended claim that the command is about.
    #[must_use]
    pub fn ended(&self, id: &ClaimId) -> Option<&Arc<Ended>> {
        self.at_hand.get(id)
    }

    /// Whether a claim of this id has ended and is remembered.
    pub(in crate::core) fn is_remembered(&self, id: &ClaimId) -> bool {
        self.ended.contains(id)
    }

    /// The number of ended claims that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.ended.len()
    }

    pub(in crate::core) fn remember_ended(&mut self, ended: Ended) {
        let ended = Arc::new(ended);
        self.ended.insert(&EndedOutline::from(&*ended), ended.forget.span > self.settings.memory);
        self.dirty.forget.remove(&ended.id);
        self.dirty.ended.insert(ended.id.clone(), Some(Arc::clone(&ended)));
        self.at_hand.put(ended);
        self.forget_too_many();
    }

    /// The index of ended claims, which a restart fills beside the state ([`State::set_ended`]).
    pub(in crate::core) fn begin_ended(&mut self) -> EndedIndex {
        std::mem::take(&mut self.ended)
    }

    /// Takes the index back. [`State::forget_too_many`] must follow.
    pub(in crate::core) fn set_ended(&mut self, ended: EndedIndex) {
        self.ended = ended;
    }

    pub(in crate::core) fn forget_too_many(&mut self) {
        while self.ended.len() > self.settings.ended_claims {
            let Some(first) = self.ended.first_to_go() else { break };
            self.forget_ended(&first);
        }
    }

    pub(in crate::core) fn forget_ended(&mut self, id: &ClaimId) {
        if self.ended.remove(id) {
            self.at_hand.remove(id);
            self.dirty.forget.remove(id);
            self.dirty.ended.insert(id.clone(), None);
        }
    }

    /// Forgets the ended claims whose time is over, at most a page of them.
    pub(in crate::core) fn forget_due(&mut self, now: Now) {
        for _ in 0..limits::PAGE {
            let Some(due) = self.ended.due(now.engine) else { break };
            self.forget_ended(&due);
        }
    }

    /// Shows the next few builds of ended claims that are not known to be over. Claims that have just ended are left
    /// out, because their builds most likely go on.
    pub(in crate::core) fn show_past_builds(&mut self, now: Now) {
        if self.next_past_builds > now.engine {
            return;
        }
        self.next_past_builds = now.engine.plus(self.settings.past_builds);
        let mut page: Vec<BuildRef> = Vec::new();
        let after = self.last_past_build.take();
        let until = now.engine.0.checked_sub(self.settings.past_builds.0).map(EngineMs);
        let builds = until.into_iter().flat_map(|until| self.ended.builds(after, until));
        let mut last = None;
        for (number, (place, build)) in builds.enumerate() {
            if page.len() >= limits::PAST_BUILDS || number >= limits::PAGE {
                // The next page goes on from here. After the last page it begins again.
                self.last_past_build = last;
                break;
            }
            last = Some(place);
            if !page.contains(&build) {
                page.push(build);
            }
        }
        self.snapshot.past_builds = page.into();
    }

    /// A build is over: its ended claims are now remembered only as long as all others.
    pub(in crate::core) fn shorten_memory_of(&mut self, build: &BuildRef, now: Now) {
        if self.snapshot.past_builds.contains(build) {
            let others = self.snapshot.past_builds.iter().filter(|past| *past != build);
            self.snapshot.past_builds = others.cloned().collect();
        }
        for (id, forget) in self.ended.shorten(build, self.settings.memory) {
            if forget.is_over(now) {
                self.forget_ended(&id);
                continue;
            }
            if let Some(ended) = self.at_hand.get(&id) {
                self.at_hand.put(Arc::new(Ended { forget, ..Ended::clone(ended) }));
            }
            match self.dirty.ended.get_mut(&id) {
                Some(Some(ended)) => *ended = Arc::new(Ended { forget, ..Ended::clone(ended) }),
                _ => drop(self.dirty.forget.insert(id, forget)),
            }
        }
    }

    /// Forgets the oldest operations when there are too many.
    pub(in crate::core) fn make_room_for_op(&mut self) {
        while self.ops.len() >= self.settings.ops {
            let Some((_, oldest)) = self.op_order.first().cloned() else { return };
            self.forget_op(&oldest);
        }
    }

    pub(in crate::core) fn remember_op(&mut self, record: OpRecord) {
        self.set_timer(record.forget, Timer::Op(record.op.clone()));
        self.op_order.insert((record.forget.at, record.op.clone()));
        self.dirty.ops.insert(record.op.clone());
        self.ops.insert(record.op.clone(), record);
    }

    pub(in crate::core) fn forget_op(&mut self, op: &OpId) {
        if let Some(old) = self.ops.remove(op) {
            self.unset_timer(old.forget.at, Timer::Op(op.clone()));
            self.op_order.remove(&(old.forget.at, op.clone()));
            self.dirty.ops.insert(op.clone());
        }
    }
}

#[cfg(test)]
impl State {
    /// What the index says about each ended claim.
    pub(crate) fn known_ended(&self) -> BTreeMap<ClaimId, (bool, Deadline, Option<BuildRef>)> {
        self.ended.known()
    }

    /// Whether exactly these ended claims are remembered, and those at hand are as the store has them.
    pub(in crate::core) fn check_remembers(&self, kept: &BTreeMap<ClaimId, Ended>) -> Result<(), String> {
        let expected = kept.values().map(|ended| {
            let EndedOutline { id, released, forget, build } = ended.into();
            (id, (released, forget, build.filter(|_| forget.span > self.settings.memory)))
        });
        let expected: BTreeMap<_, _> = expected.collect();
        let known = self.known_ended();
        if known != expected {
            return Err(format!("ended claims: the index has {known:?}, and the store {expected:?}"));
        }
        let differs = kept.values().find(|kept| self.at_hand.get(&kept.id).is_some_and(|ended| **ended != **kept));
        differs.map_or(Ok(()), |kept| Err(format!("ended: the store and what is at hand differ about {}", kept.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::claim::End;
    use crate::core::settings::Settings;
    use crate::core::time::{Span, WallMs};

    fn id(n: usize) -> ClaimId {
        ClaimId::parse(&format!("c-{n}")).unwrap()
    }

    fn ended(n: usize, build: Option<BuildRef>, memory: Span) -> Ended {
        Ended {
            id: id(n),
            life: 1,
            digest: None,
            runs: Vec::new(),
            how: End::Released,
            by: None,
            reason: None,
            at: WallMs(0),
            revision: None,
            fence: None,
            build,
            forget: Deadline::after(Now::default(), memory),
            maker: None,
            credential: None,
            pools: Vec::new(),
        }
    }

    fn is_at_hand(state: &State, n: usize) -> bool {
        let end = Command::End { id: id(n), run: None, by: None, reason: None };
        state.to_recall(&end).is_empty()
    }

    #[test]
    fn what_ended_in_the_last_two_batches_is_at_hand_and_little_else() {
        let settings = Settings { at_hand: 2, ..Settings::default() };
        let mut state = State::new(settings.clone());
        for n in 0..50 {
            state.remember_ended(ended(n, None, settings.memory));
            state.take_changes(Now::default());
            let at_hand: Vec<usize> = (0..=n).filter(|n| is_at_hand(&state, *n)).collect();
            let newest: Vec<usize> = (n.saturating_sub(1)..=n).collect();
            assert!(at_hand.ends_with(&newest) && at_hand.len() <= 6, "{at_hand:?}");
        }
    }

    #[test]
    fn a_recalled_claim_is_forgotten_when_the_index_says() {
        let settings = Settings { at_hand: 0, ..Settings::default() };
        let mut state = State::new(settings.clone());
        let build = BuildRef { cluster: "https://ci".parse().unwrap(), id: "7".parse().unwrap() };
        let stored = ended(1, Some(build.clone()), settings.build_memory);
        state.remember_ended(stored.clone());
        state.take_changes(Now::default());
        state.remember_ended(ended(2, None, settings.memory));
        state.take_changes(Now::default());
        assert!(!is_at_hand(&state, 1));
        state.shorten_memory_of(&build, Now::default());
        state.recall(stored);
        assert_eq!(state.ended(&id(1)).unwrap().forget, Deadline::after(Now::default(), settings.memory));
    }
}
