//! What is remembered about ended claims and answered operations, and for how long.

use std::ops::Bound;
use std::sync::Arc;

use super::{OpRecord, State, Timer};
use crate::core::claim::{BuildRef, End, Ended};
use crate::core::limits;
use crate::core::names::{ClaimId, OpId};
use crate::core::time::{Deadline, EngineMs, Now};

impl State {
    pub(in crate::core) fn remember_ended(&mut self, ended: Ended) {
        let id = ended.id.clone();
        self.forget_ended(&id);
        self.set_timer(ended.forget, Timer::Ended(id.clone()));
        self.forgettable.insert(forget_order(&ended));
        if let Some(build) = ended.build.as_ref().filter(|_| ended.forget.span > self.settings.memory) {
            self.ended_builds.insert((build.clone(), id.clone()));
        }
        self.dirty.ended.insert(id.clone());
        self.snapshot.ended.insert(id, Arc::new(ended));
        while self.snapshot.ended.len() > self.settings.ended_claims {
            let Some((_, _, oldest)) = self.forgettable.first().cloned() else { break };
            self.forget_ended(&oldest);
        }
    }

    pub(in crate::core) fn forget_ended(&mut self, id: &ClaimId) {
        if let Some(old) = self.snapshot.ended.remove(id) {
            self.unset_timer(old.forget.at, Timer::Ended(id.clone()));
            self.forgettable.remove(&forget_order(&old));
            if let Some(build) = &old.build {
                self.ended_builds.remove(&(build.clone(), id.clone()));
            }
            self.dirty.ended.insert(id.clone());
        }
    }

    /// Shows the next few builds of ended claims that are not known to be over. Claims that have just ended are left
    /// out, because their builds most likely go on.
    pub(in crate::core) fn show_past_builds(&mut self, now: Now) {
        if self.next_past_builds > now.engine {
            return;
        }
        self.next_past_builds = now.engine.plus(self.settings.past_builds);
        let recent = |ended: &Ended| ended_at(ended).plus(self.settings.past_builds) > now.engine;
        let after = self.last_past_build.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page: Vec<BuildRef> = Vec::new();
        for (number, (build, id)) in self.ended_builds.range((after, Bound::Unbounded)).enumerate() {
            if page.len() >= limits::PAST_BUILDS || number >= limits::PAGE {
                break;
            }
            self.last_past_build = Some((build.clone(), id.clone()));
            if page.last() != Some(build) && !self.snapshot.ended.get(id).is_none_or(|ended| recent(ended)) {
                page.push(build.clone());
            }
        }
        if page.len() < limits::PAST_BUILDS && self.last_past_build.as_ref() == self.ended_builds.last() {
            // These were the last ones: it begins again.
            self.last_past_build = None;
        }
        self.snapshot.past_builds = page.into();
    }

    /// A build is over: its ended claims are now remembered only as long as all others.
    pub(in crate::core) fn shorten_memory_of(&mut self, build: &BuildRef, now: Now) {
        if self.snapshot.past_builds.contains(build) {
            let others = self.snapshot.past_builds.iter().filter(|past| *past != build);
            self.snapshot.past_builds = others.cloned().collect();
        }
        let of_build = self.ended_builds.range((build.clone(), ClaimId::smallest())..);
        let of_build = of_build.take_while(|(of, _)| of == build).filter_map(|(_, id)| self.snapshot.ended.get(id));
        let memory = self.settings.memory;
        let longer: Vec<Ended> = of_build.filter(|e| e.forget.span > memory).map(|e| Ended::clone(e)).collect();
        for ended in longer {
            let forget = Deadline { at: ended_at(&ended).plus(memory), span: memory };
            if forget.is_over(now) {
                self.forget_ended(&ended.id);
            } else {
                self.remember_ended(Ended { forget, ..ended });
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

/// Released claims first, then by the time of their end, from which their memory counts.
fn forget_order(ended: &Ended) -> (bool, EngineMs, ClaimId) {
    (ended.how != End::Released, ended_at(ended), ended.id.clone())
}

/// When the memory of an ended claim began.
fn ended_at(ended: &Ended) -> EngineMs {
    EngineMs(ended.forget.at.0.saturating_sub(ended.forget.span.0))
}
