//! One thread for each target that is being told something: it sends, and sends again, until the target has it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bell::Bell;
use super::conditions::{Step, Told};
use super::figures::Figures;
use super::limits;
use super::progress::{Known, News, Progress};
use super::receiver::{Failure, Parcel, Receiver};
use super::settings::Target;
use crate::core::time::WallMs;
use crate::env::Clock;
use crate::wire::notification::{Event, Notification};

/// What all senders share.
#[derive(Clone)]
pub struct Shared {
    pub progress: Arc<Mutex<Progress>>,
    pub figures: Figures,
    pub bell: Bell,
    pub vars: Arc<BTreeMap<String, String>>,
    pub clock: Arc<dyn Clock>,
}

/// What a target is told.
#[derive(Debug)]
pub enum Work {
    Steps(Vec<Step>),
    /// One check, which shows everything up to here.
    Check(WallMs, Told),
}

/// One piece of work for one target.
pub struct Job {
    pub target: Arc<Target>,
    pub work: Work,
    pub known: Known,
    pub generation: u64,
}

/// Does the work. The planner hears of its end, whatever happens.
pub fn run(shared: &Shared, job: Job) {
    let (name, generation) = (job.target.name.clone(), job.generation);
    let done = catch_unwind(AssertUnwindSafe(|| Sender { shared, job, failures: 0, told_why: None }.run()));
    if done.is_err() {
        tracing::error!(target = name, "a thread that notifies has panicked: this is a bug in locker; it begins again");
        // So that a bug that shows at once does not fill the log.
        shared.bell.rest(Duration::from_millis(limits::RETRY_MS.0), generation);
    }
    shared.bell.idle(name);
}

struct Sender<'s> {
    shared: &'s Shared,
    job: Job,
    failures: u32,
    /// The failure that was logged last.
    told_why: Option<String>,
}

impl Sender<'_> {
    fn run(mut self) {
        let began = Instant::now();
        let (mut at, mut refusals) = (0, 0);
        let mut receiver = None;
        loop {
            self.shared.figures.pending(&self.job.target.name, self.oldest(at));
            if self.oldest(at).is_none() || began.elapsed() > Duration::from_millis(limits::TOLD_WITHIN_MS) {
                // Whatever is left is looked at anew.
                return;
            }
            let (sent, count) = self.send(&mut receiver, at);
            match sent {
                Ok(()) => {
                    self.reached(at, count);
                    (at, refusals) = (at + count, 0);
                }
                Err(failure) => {
                    receiver = None;
                    self.shared.figures.failed(&self.job.target.name);
                    refusals += u32::from(failure.is_refusal);
                    self.log(&failure);
                    if failure.is_refusal && refusals >= limits::REFUSALS {
                        self.give_up(at, count);
                        (at, refusals) = (at + count, 0);
                    } else if self.shared.bell.rest(self.pause(&failure), self.job.generation) {
                        return;
                    }
                }
            }
        }
    }

    /// When the oldest thing happened that is still to be told.
    fn oldest(&self, at: usize) -> Option<WallMs> {
        match &self.job.work {
            Work::Steps(steps) => steps.get(at).map(|step| step.at),
            Work::Check(since, _) => (at == 0).then_some(*since),
        }
    }

    /// Sends what comes next. Also says how much that is.
    fn send(&self, receiver: &mut Option<Receiver>, at: usize) -> (Result<(), Failure>, usize) {
        let open = match receiver {
            Some(open) => open,
            None => match Receiver::open(&self.job.target, &self.shared.vars) {
                Ok(opened) => receiver.insert(opened),
                Err(why) => return (Err(why.into()), 1),
            },
        };
        let now = WallMs(self.shared.clock.wall_ms());
        match &self.job.work {
            Work::Check(..) => (open.send(Parcel::Check, now).map(drop), 1),
            Work::Steps(steps) => {
                let next = &steps[at..steps.len().min(at + open.at_once())];
                let notifications: Vec<&Notification> = next.iter().map(|step| &step.notification).collect();
                (open.send(Parcel::Notifications(&notifications), now).map(drop), next.len())
            }
        }
    }

    fn reached(&mut self, at: usize, count: usize) {
        let target = &self.job.target;
        self.shared.figures.sent(&target.name, count as u64);
        if self.told_why.take().is_some() {
            tracing::info!(target = target.name, place = target.place(), "the target has been told again");
        }
        self.failures = 0;
        self.advance(at, count);
    }

    fn give_up(&mut self, at: usize, count: usize) {
        self.shared.figures.left_out(&self.job.target.name, count as u64);
        if let Work::Steps(steps) = &self.job.work {
            let ids: Vec<&str> = steps[at..at + count].iter().map(|step| step.notification.id.as_str()).collect();
            let target = &self.job.target;
            tracing::warn!(target = target.name, ids = ids.join(", "), "the target refuses this, so it is left out");
        }
        self.advance(at, count);
    }

    /// Notes that the target has this, or never will.
    fn advance(&mut self, at: usize, count: usize) {
        let known = &mut self.job.known;
        match &self.job.work {
            Work::Check(_, told) => *known = Known { told: *told, ..Known::default() },
            Work::Steps(steps) => {
                for step in &steps[at..at + count] {
                    known.told = step.then;
                    if step.notification.event == Event::Missed {
                        (known.left_out, known.gone) = (0, false);
                    }
                }
            }
        }
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.set(&self.job.target.name, self.job.known, News::Sent);
        progress.save(Instant::now());
    }

    /// Logs each reason once, not each attempt.
    fn log(&mut self, failure: &Failure) {
        if self.told_why.as_ref() != Some(&failure.why) {
            let target = &self.job.target;
            tracing::warn!(
                target = target.name,
                place = target.place(),
                reason = failure.why,
                "the target cannot be told: it is tried again"
            );
            self.told_why = Some(failure.why.clone());
        }
    }

    fn pause(&mut self, failure: &Failure) -> Duration {
        let (first, longest) = limits::RETRY_MS;
        let pause = first.saturating_mul(1 << self.failures.min(20)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let asked = failure.retry_after.unwrap_or_default().min(Duration::from_millis(limits::RETRY_AFTER_MS));
        Duration::from_millis(pause).max(asked)
    }
}
