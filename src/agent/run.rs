//! The agent's loop: it waits for releases, acts on each, and deletes latches that are done. No failure ends it.
//!
//! The agent lists all latches once per interval. In between, a long poll wakes it for new releases, if the server
//! supports that.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::act::{Level, Outcome};
use super::backlog::{LONG_PAUSE, pause};
use super::plan::Gone;
use super::worker::{Agent, Worker, random, short};
use crate::client::CallError;
use crate::env::Signal;
use crate::wire::errors::exit;
use crate::wire::escape::escape;
use crate::wire::latch::{self, LatchView};
use crate::wire::text;

/// How long one long poll lasts: well below the idle timeout of proxies.
const LONG_POLL: Duration = Duration::from_secs(25);

enum End {
    Worked(u8),
    Again(Signal),
}

impl Agent {
    /// Works until a signal arrives, or for one pass, and returns the exit code. The first signal lets the agent finish
    /// its current latch; the second one ends it at once.
    #[must_use]
    pub fn run(self) -> u8 {
        let (send, events) = mpsc::channel();
        let (seen, again) = (AtomicBool::new(false), send.clone());
        self.signals.on_signal(move |signal| {
            if seen.swap(true, Ordering::SeqCst) {
                // A failed send means that the agent has already ended.
                let _ = again.send(End::Again(signal));
            }
        });
        std::thread::spawn(move || {
            // The panic hook has reported the panic. The process must not stay behind without this thread.
            let code = std::panic::catch_unwind(AssertUnwindSafe(|| Worker::new(self).serve()));
            let _ = send.send(End::Worked(code.unwrap_or(exit::FAILED)));
        });
        match events.recv() {
            Ok(End::Worked(code)) => code,
            Ok(End::Again(signal)) => signal.exit_code(),
            Err(_) => exit::FAILED,
        }
    }
}

impl Worker {
    fn now(&self) -> Duration {
        self.agent.clock.monotonic()
    }

    fn serve(mut self) -> u8 {
        while self.interruptible.check().is_ok() {
            if self.now() >= self.next_listing {
                self.list();
            }
            self.pass();
            if self.agent.settings.once {
                return self.exit;
            }
            self.wait();
        }
        tracing::info!(left = self.backlog.len(), "ended by a signal");
        exit::OK
    }

    // ---- Listing latches ----

    fn list(&mut self) {
        let client = self.agent.latches.clone();
        // A signal interrupts this at once. An abandoned listing does no harm.
        let Ok(listed) = self.interruptible.run(move || client.list_released(None)) else { return };
        let now = self.now();
        match listed {
            Ok(listing) => {
                self.listing_works();
                self.next_listing = now + self.agent.settings.interval;
                self.after = listing.revision;
                let mine = self.mine(listing.latches);
                self.backlog.replace(mine, now);
            }
            Err(error) => self.listing_failed(&error),
        }
    }

    fn listing_works(&mut self) {
        if std::mem::take(&mut self.listing_failures) > 0 {
            tracing::info!("the latch server answers again");
        }
    }

    fn listing_failed(&mut self, error: &CallError) {
        if self.listing_failures == 0 {
            let error = escape(&error.to_string());
            tracing::error!(error, "cannot list the released latches{}", self.and_then());
        }
        self.exit = error.exit();
        self.next_listing = self.now() + pause(self.listing_failures, self.agent.settings.interval, random());
        self.listing_failures = self.listing_failures.saturating_add(1);
    }

    /// The end of a failure message: what happens next.
    fn and_then(&self) -> &'static str {
        if self.agent.settings.once { "; run it again" } else { "; it will be retried" }
    }

    /// The latches in the allowed namespaces.
    fn mine(&self, latches: Vec<LatchView>) -> Vec<LatchView> {
        let allowed = &self.agent.settings.namespaces;
        let is_mine = |latch: &LatchView| allowed.is_empty() || allowed.iter().any(|n| n.as_str() == latch.namespace);
        latches.into_iter().filter(is_mine).collect()
    }

    /// Waits until a latch is due, a latch is released, or a signal arrives.
    fn wait(&mut self) {
        let start = self.now();
        let due = self.backlog.next().map_or(self.next_listing, |due| due.min(self.next_listing));
        let span = due.saturating_sub(start).min(LONG_POLL);
        let Some(after) = self.after.filter(|_| self.listing_failures == 0) else {
            let _ = self.interruptible.sleep(span);
            return;
        };
        let client = self.agent.latches.clone();
        let Ok(listed) = self.interruptible.run(move || client.list_released(Some((after, span)))) else { return };
        let now = self.now();
        match listed {
            Ok(listing) => {
                self.after = listing.revision.or(self.after);
                let is_early = listing.latches.is_empty() && now.saturating_sub(start) < span / 2;
                let mine = self.mine(listing.latches);
                self.backlog.add(mine, now);
                if is_early {
                    // The server answered at once. Without a pause this would become a tight loop.
                    let _ = self.interruptible.sleep(span.min(pause(0, LONG_POLL, random())));
                }
            }
            Err(error) => self.listing_failed(&error),
        }
    }

    // ---- Acting on them ----

    fn pass(&mut self) {
        for id in self.backlog.due(self.now()) {
            if self.interruptible.check().is_err() || self.backlog.is_troubled(self.now()) {
                return;
            }
            let Some(view) = self.backlog.get(&id).map(|entry| entry.latch.clone()) else { continue };
            let outcome = match latch::read(&view) {
                Ok(latch) => self.work(latch),
                Err(why) => Outcome::Kept(Level::Warn, format!("the latch cannot be read: {why}"), LONG_PAUSE),
            };
            self.note(&view, outcome);
        }
    }

    fn note(&mut self, view: &LatchView, outcome: Outcome) {
        let (now, id) = (self.now(), &view.id);
        if !matches!(outcome, Outcome::Trouble(_)) {
            if self.backlog.answered() {
                tracing::info!("the cluster and the latch server answer again");
            }
            self.last_failure.clear();
        }
        match outcome {
            Outcome::Over => self.backlog.remove(id),
            Outcome::Kept(level, why, most) => {
                self.still_there(id);
                self.say(view, level, &why);
                self.backlog.later(id, most, now, random());
            }
            Outcome::Missing(gone) => self.missing(view, gone),
            Outcome::Trouble(why) => {
                self.exit = exit::UNAVAILABLE;
                self.backlog.later(id, LONG_PAUSE, now, random());
                self.backlog.trouble(now, random());
                if why != self.last_failure {
                    tracing::error!(error = escape(&why), "no usable answer{}", self.and_then());
                    self.last_failure = why;
                }
            }
        }
    }

    fn still_there(&mut self, id: &str) {
        if let Some(entry) = self.backlog.get_mut(id) {
            entry.missing_since = None;
        }
    }

    /// Logs a reason once.
    fn say(&mut self, view: &LatchView, level: Level, why: &str) {
        if level == Level::Warn {
            self.exit = exit::FAILED;
        }
        let Some(entry) = self.backlog.get_mut(&view.id).filter(|entry| entry.said != why) else { return };
        why.clone_into(&mut entry.said);
        let (latch, workflow, namespace) = shown(view);
        match level {
            Level::Info => tracing::info!(latch, workflow, namespace, reason = escape(why), "kept"),
            Level::Warn => tracing::warn!(latch, workflow, namespace, reason = escape(why), "kept"),
        }
    }

    /// Gives a missing workflow some time: it may be about to be created, or its namespace about to be restored.
    fn missing(&mut self, view: &LatchView, gone: Gone) {
        let now = self.now();
        let why = match gone {
            Gone::Missing => "there is no such workflow",
            Gone::OtherUid => "another workflow now has this name",
        };
        let away = if self.agent.settings.once {
            // A single pass has no other start time.
            let released = text::parse_time(&view.last_change).map_or(u64::MAX, |at| at.0);
            Duration::from_millis(self.agent.clock.wall_ms().saturating_sub(released))
        } else {
            let since = self.backlog.get_mut(&view.id).map(|entry| *entry.missing_since.get_or_insert(now));
            now.saturating_sub(since.unwrap_or(now))
        };
        let grace = self.agent.settings.gone_after;
        if away < grace {
            self.say(view, Level::Info, &format!("{why}; the latch will be given up after {grace:?}"));
            self.backlog.later(&view.id, self.agent.settings.interval.min(grace), now, random());
            return;
        }
        let (latch, workflow, namespace) = shown(view);
        tracing::error!(latch, workflow, namespace, reason = why, "orphaned: the latch is given up");
        match self.delete(view) {
            Outcome::Over => self.backlog.remove(&view.id),
            other => self.note(view, other),
        }
    }
}

/// A latch and its workflow, for a log line. The id is shortened, because the whole id grants the right to release.
fn shown(view: &LatchView) -> (&str, String, String) {
    (short(&view.id), escape(&view.workflow), escape(&view.namespace))
}
