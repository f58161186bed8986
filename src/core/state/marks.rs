//! What is kept about marked holds besides the claims themselves, and about installations that run builds again.

use super::{State, Timer};
use crate::core::claim::{BuildRef, Claim};
use crate::core::names::Text;
use crate::core::time::Now;

impl State {
    pub(super) fn list_mark(&mut self, claim: &Claim) {
        if let Some(build) = claim.terms.owner.build().filter(|_| claim.is_marked()) {
            self.snapshot.marked.insert((build, claim.id.clone()));
        }
        for alias in &claim.aliases {
            self.snapshot.aliases.insert(alias.clone(), claim.id.clone());
        }
    }

    pub(super) fn unlist_mark(&mut self, claim: &Claim) {
        if let Some(build) = claim.terms.owner.build().filter(|_| claim.is_marked()) {
            self.snapshot.marked.remove(&(build, claim.id.clone()));
        }
        for alias in &claim.aliases {
            self.snapshot.aliases.remove(alias);
        }
    }

    /// Begins to wait for news of a build that has marked holds, or begins again because there was news.
    pub(in crate::core) fn expect_answer(&mut self, build: &BuildRef, now: Now) {
        let at = now.engine.plus(self.settings.unanswered);
        if let Some(before) = self.unanswered.insert(build.clone(), at) {
            self.unset_timer(before, Timer::Unanswered(build.clone()));
        }
        self.timers.insert((at, Timer::Unanswered(build.clone())));
    }

    /// Stops to wait for news of a build without marked holds.
    pub(super) fn expect_no_answer(&mut self, build: &BuildRef) {
        if self.unanswered.contains_key(build)
            && self.snapshot.marked_of(build).next().is_none()
            && let Some(at) = self.unanswered.remove(build)
        {
            self.unset_timer(at, Timer::Unanswered(build.clone()));
        }
    }

    /// Whether the server waits for news of exactly the builds with marked holds.
    pub(in crate::core) fn expects_what_is_marked(&self) -> bool {
        let mut marked: Vec<&BuildRef> = self.snapshot.marked.iter().map(|(build, _)| build).collect();
        marked.dedup();
        let has_timer = |(build, at): (&BuildRef, _)| self.timers.contains(&(at, Timer::Unanswered(build.clone())));
        self.unanswered.keys().eq(marked) && self.unanswered.iter().all(|(build, at)| has_timer((build, *at)))
    }

    /// Remembers what an installation of Concourse says about itself.
    pub(in crate::core) fn set_reruns(&mut self, concourse: Text, on: bool) {
        let before = self.snapshot.reruns.contains(&concourse);
        if before == on {
            return;
        }
        if on {
            self.snapshot.reruns.insert(concourse.clone());
        } else {
            self.snapshot.reruns.remove(&concourse);
        }
        self.dirty.reruns.insert(concourse);
    }
}
