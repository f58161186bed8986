//! The engine: the one thread that owns the state (`docs/design.md#the-engine`).
//!
//! It takes all queued commands, steps through each of them, commits *one* durable transaction for the batch, publishes
//! the snapshot, and then answers. Commands that arrive during a commit form the next batch (group commit).

pub mod figures;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use self::figures::EngineFigures;
use super::audit::Audit;
use super::blocking::{Blocking, Urgency};
use super::long_polls::{LongPolls, Topic};
use super::notices::Notices;
use super::notify::bell::Bell;
use crate::core::command::{Command, Refusal, Reply};
use crate::core::origin::Origin;
use crate::core::restart::{Restart, epoch_by_clock};
use crate::core::settings::{Settings, planted};
use crate::core::state::{Notice, Snapshot, State};
use crate::core::step::step_for;
use crate::core::time::{EngineMs, Now, Span, WallMs};
use crate::env::Clock;
use crate::server::limits::BATCH;
use crate::store::{READERS, Reader, Store};
use crate::wire::escape::escape;

/// How often the engine checks the queues again, in case a wake-up was lost.
const RECONCILE: Span = Span::secs(5);
/// How often engine time is stored while a long deadline exists (`docs/design.md#time`).
const STORE_TIME: Span = Span::secs(10);

/// Decides on the engine's own thread, against the state that the command meets, whether its client may do this. Notes
/// in the origin by which rule, and what the request may reach.
pub type Permit = Box<dyn FnOnce(&Command, &State, &mut Origin) -> Result<(), EngineError> + Send>;

/// What the engine informs of each batch.
#[derive(Clone, Default)]
pub struct Listeners {
    /// Parked requests.
    pub notices: Notices,
    pub long_polls: LongPolls,
    pub figures: EngineFigures,
    pub audit: Audit,
    pub notify: Bell,
}

/// Why there is no answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its client may not do this: for whom, and what it lacks.
    #[error("{0}")]
    Forbidden(String),
    /// The outcome is unknown: the command may or may not have been stored.
    #[error("the store has failed, the server is going down: ask again elsewhere or later")]
    StoreFailed {
        /// The chain of causes. For the log, not for clients.
        cause: Arc<str>,
    },
    /// Nothing has changed: what the store remembers of the claim cannot be read.
    #[error("the server cannot read this from its store: its log says why; try again")]
    Unreadable {
        /// The chain of causes. For the log, not for clients.
        cause: Arc<str>,
    },
}

type Answer = oneshot::Sender<Result<Reply, EngineError>>;

/// A command in its batch.
type Queued = (Command, Option<Box<Asker>>, Option<Answer>);

/// Where a command comes from, and what decides whether it may be carried out.
struct Asker {
    origin: Origin,
    permit: Option<Permit>,
}

enum Job {
    Do { command: Command, asker: Option<Box<Asker>>, answer: Option<Answer> },
    Stop,
}

/// A handle to the engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    jobs: mpsc::Sender<Job>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    clock: Arc<EngineClock>,
    store_id: Arc<str>,
    figures: EngineFigures,
    reader: Arc<dyn Reader>,
    /// So that reads occupy few threads.
    reads: Blocking,
}

impl Engine {
    /// Runs a command and returns its answer after the commit. Dropping the future does not cancel the command.
    ///
    /// # Errors
    /// The core refuses the command, or the store has failed.
    pub async fn call(&self, command: Command) -> Result<Reply, EngineError> {
        self.ask(command, None)?.await.unwrap_or_else(|_| Err(down()))
    }

    /// Like [`Self::call`], for a request of a client that may do this only if `permit` says so.
    ///
    /// # Errors
    /// The client may not do this, the core refuses the command, or the store has failed.
    pub async fn call_for(
        &self,
        command: Command,
        origin: Origin,
        permit: Option<Permit>,
    ) -> Result<Reply, EngineError> {
        self.ask(command, Some(Box::new(Asker { origin, permit })))?.await.unwrap_or_else(|_| Err(down()))
    }

    /// Like [`Self::call`], for threads that may block. Panics inside an async task.
    ///
    /// # Errors
    /// The core refuses the command, or the store has failed.
    pub fn call_blocking(&self, command: Command) -> Result<Reply, EngineError> {
        self.ask(command, None)?.blocking_recv().unwrap_or_else(|_| Err(down()))
    }

    fn ask(
        &self,
        command: Command,
        asker: Option<Box<Asker>>,
    ) -> Result<oneshot::Receiver<Result<Reply, EngineError>>, EngineError> {
        let (answer, answered) = oneshot::channel();
        self.queue(Job::Do { command, asker, answer: Some(answer) })?;
        Ok(answered)
    }

    /// Queues a command whose answer is not needed. Never blocks.
    pub fn post(&self, command: Command) {
        // A closed queue means that the engine is down, so there is nothing left to change.
        let _ = self.queue(Job::Do { command, asker: None, answer: None });
    }

    fn queue(&self, job: Job) -> Result<(), EngineError> {
        self.figures.queued.inc();
        self.jobs.send(job).map_err(|_| down())
    }

    /// Stops the engine after it has run and answered everything that is already queued.
    pub fn stop(&self) {
        let _ = self.queue(Job::Stop);
    }

    /// The published snapshot. It is at least as new as every answer given so far.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Reads from the store, on a thread that may block. What it finds is at least as new as every answer given so far.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let reader = Arc::clone(&self.reader);
        self.reads.run(move || read(&*reader)).await.context("a read")?
    }

    /// Reads from the store, for threads of its own that may block.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader)
    }

    /// The time as the engine sees it. Use it only to show deadlines, which are in engine time, as times of day. No
    /// decision depends on it.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// What it has counted and measured since it started.
    #[must_use]
    pub fn figures(&self) -> &EngineFigures {
        &self.figures
    }

    /// The id of the store behind this engine.
    #[must_use]
    pub fn store_id(&self) -> &str {
        &self.store_id
    }
}

/// The engine has ended and can no longer give its own reason.
fn down() -> EngineError {
    EngineError::StoreFailed { cause: Arc::from("the engine has ended") }
}

/// Engine time: the time that earlier runs have stored, plus this process's monotonic clock.
struct EngineClock {
    clock: Arc<dyn Clock>,
    /// Engine time at the moment `since` was read.
    base: EngineMs,
    since: Duration,
}

impl EngineClock {
    fn now(&self) -> Now {
        let life = self.clock.monotonic().saturating_sub(self.since);
        let span = Span(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        Now { engine: self.base.plus(span), wall: WallMs(self.clock.wall_ms()) }
    }
}

/// Loads the store and starts the thread. `failed` is called once, when a commit has failed or the engine has panicked.
/// From then on the only answer is `store_failed`.
///
/// # Errors
/// The store cannot be loaded or written.
pub fn start(
    store: Box<dyn Store>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    notices: Notices,
    long_polls: LongPolls,
    failed: impl FnOnce(anyhow::Error) + Send + 'static,
) -> anyhow::Result<(Engine, std::thread::JoinHandle<()>)> {
    let listeners = Listeners { notices, long_polls, ..Listeners::default() };
    start_with(store, settings, clock, listeners, |_, _| Ok(()), failed)
}

/// Like [`start`], but runs `prepare` before the first commit. Its changes are stored with that commit, all or none.
///
/// # Errors
/// The store cannot be loaded or written, or `prepare` fails. In that case nothing has been stored.
pub fn start_with(
    store: Box<dyn Store>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    prepare: impl FnOnce(&mut State, Now) -> anyhow::Result<()>,
    failed: impl FnOnce(anyhow::Error) + Send + 'static,
) -> anyhow::Result<(Engine, std::thread::JoinHandle<()>)> {
    let (engine, mut thread) = awake(store, settings, clock, listeners, prepare)?;
    let handle = std::thread::Builder::new().name("engine".into()).spawn(move || {
        // After a panic the state cannot be trusted, so a panic ends the server, as a failed commit does.
        let run = catch_unwind(AssertUnwindSafe(|| thread.run()));
        if let Err(error) =
            run.unwrap_or_else(|_| Err(anyhow::anyhow!("the engine has panicked: this is a bug in locker")))
        {
            let cause = Arc::from(format!("{error:#}"));
            failed(error);
            thread.refuse_the_rest(&cause);
        }
    })?;
    Ok((engine, handle))
}

/// Loads the store. Nothing runs yet.
fn awake(
    mut store: Box<dyn Store>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    prepare: impl FnOnce(&mut State, Now) -> anyhow::Result<()>,
) -> anyhow::Result<(Engine, Thread)> {
    let loaded = store.load()?;
    let base = loaded.meta.map_or(EngineMs::default(), |meta| meta.engine);
    let clock = Arc::new(EngineClock { since: clock.monotonic(), clock, base });
    let now = clock.now();
    let mut restart = Restart::begin(loaded, settings, epoch_by_clock(now.wall)?, now);
    store.ended(&mut |ended| restart.ended(&ended))?;
    store.history(&mut |entry| restart.entry(&entry))?;
    let mut state = restart.finish();
    prepare(&mut state, now)?;
    store.commit(&state.take_changes(now))?;
    let snapshot = Arc::new(ArcSwap::from_pointee(state.snapshot.clone()));
    let Listeners { notices, long_polls, figures, audit, notify } = listeners;
    figures.pools.begin(&state.snapshot);
    let (jobs, queue) = mpsc::channel();
    let engine = Engine {
        jobs,
        snapshot: Arc::clone(&snapshot),
        clock: Arc::clone(&clock),
        store_id: Arc::from(store.store_id()),
        figures: figures.clone(),
        reader: store.reader(),
        reads: Blocking::new(READERS, Urgency::Low),
    };
    let (last_time_stored, next_reconcile) = (now.engine, now.engine);
    let thread = Thread {
        store,
        state,
        clock,
        queue,
        snapshot,
        notices,
        long_polls,
        figures,
        audit,
        notify,
        last_time_stored,
        next_reconcile,
    };
    Ok((engine, thread))
}

struct Thread {
    store: Box<dyn Store>,
    state: State,
    clock: Arc<EngineClock>,
    queue: mpsc::Receiver<Job>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    notices: Notices,
    long_polls: LongPolls,
    figures: EngineFigures,
    audit: Audit,
    notify: Bell,
    last_time_stored: EngineMs,
    next_reconcile: EngineMs,
}

impl Thread {
    /// Runs until the engine is stopped or a commit fails.
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let pause = Duration::from_millis(self.due().0.saturating_sub(self.clock.now().engine.0));
            let first = match self.queue.recv_timeout(pause) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let mut commands = Vec::new();
            let mut stop = false;
            for job in first.into_iter().chain(self.queue.try_iter()).take(BATCH) {
                self.figures.queued.dec();
                match job {
                    Job::Do { command, asker, answer } => commands.push((command, asker, answer)),
                    Job::Stop => stop = true,
                }
                if stop {
                    break;
                }
            }
            self.turn(commands)?;
            if stop {
                return Ok(());
            }
        }
    }

    /// When the next turn is due even if no command arrives.
    fn due(&self) -> EngineMs {
        self.state.next_timer().map_or(self.next_reconcile, |timer| timer.min(self.next_reconcile))
    }

    /// One turn: the commands that have arrived, and the timers that are due.
    fn turn(&mut self, mut commands: Vec<Queued>) -> anyhow::Result<()> {
        let now = self.clock.now();
        if now.engine >= self.next_reconcile {
            commands.push((Command::Reconcile, None, None));
            self.next_reconcile = now.engine.plus(RECONCILE);
        } else if commands.is_empty() {
            commands.push((Command::Tick, None, None));
        }
        self.batch(commands)
    }

    /// Steps, commits, publishes, answers, in this order: a crash could lose an answer that was sent before its commit.
    fn batch(&mut self, commands: Vec<Queued>) -> anyhow::Result<()> {
        let mut answers = Vec::with_capacity(commands.len());
        self.figures.commands.inc_by(commands.len() as u64);
        self.figures.batch.observe(commands.len() as f64);
        for (command, asker, answer) in commands {
            let result = self.step(command, asker);
            let Some(answer) = answer else { continue };
            if planted!(self.state.settings, AnswerBeforeCommit) {
                let _ = answer.send(result);
            } else {
                answers.push((answer, result));
            }
        }
        let now = self.clock.now();
        if now.engine >= self.last_time_stored.plus(STORE_TIME) && self.state.has_long_deadline(now) {
            self.state.touch_meta();
        }
        let changes = self.state.take_changes(now);
        if changes.meta.is_some() {
            self.last_time_stored = now.engine;
        }
        let began = Instant::now();
        if !changes.is_empty()
            && let Err(error) = self.store.commit(&changes)
        {
            let cause: Arc<str> = Arc::from(format!("{error:#}"));
            for (answer, _) in answers {
                let _ = answer.send(Err(EngineError::StoreFailed { cause: Arc::clone(&cause) }));
            }
            return Err(error);
        }
        let committed = (!changes.is_empty()).then(|| began.elapsed());
        self.snapshot.store(Arc::new(self.state.snapshot.clone()));
        for (answer, result) in answers {
            // The caller may have gone.
            let _ = answer.send(result);
        }
        self.tell();
        // Nobody waits for the figures and the log, so they come last.
        if let Some(took) = committed {
            self.figures.commit.observe(took.as_secs_f64());
            self.figures.pools.note(&changes);
            self.audit.note(&changes.history);
            if !changes.history.is_empty() {
                self.notify.changed();
            }
        }
        Ok(())
    }

    /// Runs one command. What it needs of ended claims comes from the store first.
    fn step(&mut self, command: Command, asker: Option<Box<Asker>>) -> Result<Reply, EngineError> {
        let ids = self.state.to_recall(&command);
        if !ids.is_empty() {
            let recalled = self.store.recall(&ids).and_then(|ended| {
                ensure!(ended.len() == ids.len(), "the store has lost ended claims among {ids:?}");
                Ok(ended)
            });
            let recalled = recalled.map_err(|error| EngineError::Unreadable { cause: format!("{error:#}").into() })?;
            recalled.into_iter().for_each(|ended| self.state.recall(ended));
        }
        let origin = asker.map(|asker| {
            let Asker { mut origin, permit } = *asker;
            permit.map_or(Ok(()), |permit| permit(&command, &self.state, &mut origin))?;
            Ok::<_, EngineError>(Arc::new(origin))
        });
        Ok(step_for(&mut self.state, command, origin.transpose()?, self.clock.now())?)
    }

    /// Wakes the parked requests that the batch was of interest to.
    fn tell(&mut self) {
        let mut has_news = false;
        for notice in self.state.take_notices() {
            if !matches!(notice, Notice::Park(_)) {
                has_news = true;
            }
            match notice {
                Notice::Park(park) => self.notices.notify(park),
                Notice::Pool(pool) => {
                    self.long_polls.notify(&Topic::Pool(pool), &self.notices);
                    self.long_polls.notify(&Topic::Changes, &self.notices);
                }
                Notice::Unanswered(build) => tracing::warn!(
                    cluster = escape(build.cluster.as_str()),
                    build = escape(build.id.as_str()),
                    "it could not be found out whether this build is over: the locks that its steps had released are given \
                     back, after their drain"
                ),
                Notice::Latch(id) => {
                    self.long_polls.notify(&Topic::Latch(id), &self.notices);
                    self.long_polls.notify(&Topic::Latches, &self.notices);
                    self.long_polls.notify(&Topic::Changes, &self.notices);
                }
            }
        }
        if has_news {
            self.long_polls.events().changed();
        }
    }

    /// After a failed commit: answers every further command that its outcome is unknown.
    fn refuse_the_rest(&mut self, cause: &Arc<str>) {
        while let Ok(job) = self.queue.recv() {
            match job {
                Job::Do { answer: Some(answer), .. } => {
                    let _ = answer.send(Err(EngineError::StoreFailed { cause: Arc::clone(cause) }));
                }
                Job::Do { answer: None, .. } => {}
                Job::Stop => return,
            }
        }
    }
}
