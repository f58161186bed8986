//! What commits: what it has made durable is published, and then answered.
//!
//! It has a thread of its own, so that the next batch can be stepped meanwhile.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use arc_swap::ArcSwap;

use super::answers::{Answer, send_all};
use super::open::{Batch, Open, refuse};
use super::{EngineClock, EngineError, Listeners, PANICKED};
use crate::core::command::Reply;
use crate::core::state::{Changes, Notice, Snapshot};
use crate::core::time::{EngineMs, Span};
use crate::server::long_polls::Topic;
use crate::store::Store;
use crate::wire::escape::escape;

/// How often engine time is stored while a long deadline exists (`docs/design.md#time`).
const STORE_TIME: Span = Span::secs(10);

pub(super) struct Committer {
    store: Box<dyn Store>,
    open: Arc<Open>,
    clock: Arc<EngineClock>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    listeners: Listeners,
    last_time_stored: EngineMs,
}

/// A batch that has been taken: what one commit makes durable, and what is done then.
pub(super) struct Taken {
    changes: Changes,
    snapshot: Snapshot,
    answers: Vec<(Answer, Result<Reply, EngineError>)>,
    notices: BTreeSet<Notice>,
}

impl Committer {
    pub fn new(
        store: Box<dyn Store>,
        open: Arc<Open>,
        clock: Arc<EngineClock>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        listeners: Listeners,
    ) -> Self {
        let last_time_stored = clock.now().engine;
        Self { store, open, clock, snapshot, listeners, last_time_stored }
    }

    /// Commits whatever is stepped, until nothing will come any more. Calls `failed` if a commit has failed or a step has
    /// panicked.
    pub fn work(mut self, failed: impl FnOnce(anyhow::Error)) {
        let open = Arc::clone(&self.open);
        let run = catch_unwind(AssertUnwindSafe(|| {
            while open.wait()? {
                // After a panic the engine has failed, and there is nothing to take.
                self.commit_all()?;
            }
            Ok(())
        }));
        if let Err(cause) = run.unwrap_or_else(|_| Err(PANICKED.into())) {
            open.fail(&cause);
            failed(anyhow!("{cause}"));
        }
    }

    /// Commits what has been stepped, if there is something.
    ///
    /// # Errors
    /// The commit has failed: why. Everybody has been told.
    pub fn commit_all(&mut self) -> Result<(), Arc<str>> {
        self.take().map_or(Ok(()), |taken| self.commit(taken))
    }

    /// Takes what has been stepped, if there is something.
    pub fn take(&mut self) -> Option<Taken> {
        let Self { open, clock, last_time_stored, listeners, .. } = self;
        open.take(|Batch { state, answers, commands, .. }| {
            listeners.figures.commands.inc_by(*commands as u64);
            listeners.figures.batch.observe(*commands as f64);
            let now = clock.now();
            if now.engine >= last_time_stored.plus(STORE_TIME) && state.has_long_deadline(now) {
                state.touch_meta();
            }
            let changes = state.take_changes(now);
            if changes.meta.is_some() {
                *last_time_stored = now.engine;
            }
            Taken {
                changes,
                snapshot: state.snapshot.clone(),
                answers: std::mem::take(answers),
                notices: state.take_notices(),
            }
        })
    }

    /// Commits, publishes, answers, in this order: a crash could lose an answer that was sent before its commit.
    ///
    /// # Errors
    /// The commit has failed: why. Everybody who waits for it has been told, and so is everybody who waits for what was
    /// stepped after it, because it rests on it.
    pub fn commit(&mut self, taken: Taken) -> Result<(), Arc<str>> {
        let Taken { changes, snapshot, answers, notices } = taken;
        let began = Instant::now();
        let done = match (changes.is_empty(), answers.is_empty()) {
            (false, _) => self.store.commit(&changes),
            // They rest on what was committed before.
            (true, false) => self.store.confirm(),
            (true, true) => Ok(()),
        };
        if let Err(error) = done {
            let cause: Arc<str> = Arc::from(format!("{error:#}"));
            answers.into_iter().for_each(|(answer, _)| refuse(answer, &cause));
            self.open.fail(&cause);
            return Err(cause);
        }
        let took = began.elapsed();
        self.snapshot.store(Arc::new(snapshot));
        send_all(answers);
        self.tell(notices);
        // Nobody waits for the figures and the log, so they come last.
        if !changes.is_empty() {
            let Listeners { figures, audit, notify, .. } = &self.listeners;
            figures.commit.observe(took.as_secs_f64());
            figures.pools.note(&changes);
            audit.note(&changes.history);
            if !changes.history.is_empty() {
                notify.changed();
            }
        }
        Ok(())
    }

    /// Wakes the parked requests that the batch was of interest to.
    fn tell(&self, news: BTreeSet<Notice>) {
        let Listeners { notices, long_polls, .. } = &self.listeners;
        let mut has_news = false;
        for notice in news {
            if !matches!(notice, Notice::Park(_)) {
                has_news = true;
            }
            match notice {
                Notice::Park(park) => notices.notify(park),
                Notice::Pool(pool) => {
                    long_polls.notify(&Topic::Pool(pool), notices);
                    long_polls.notify(&Topic::Changes, notices);
                }
                Notice::Unanswered(build) => tracing::warn!(
                    cluster = escape(build.cluster.as_str()),
                    build = escape(build.id.as_str()),
                    "it could not be found out whether this build is over: the locks that its steps had released are given \
                     back, after their drain"
                ),
                Notice::Latch(id) => {
                    long_polls.notify(&Topic::Latch(id), notices);
                    long_polls.notify(&Topic::Latches, notices);
                    long_polls.notify(&Topic::Changes, notices);
                }
            }
        }
        if has_news {
            long_polls.events().changed();
        }
    }
}
