//! The engine: what owns the state (`docs/design.md#the-engine`).
//!
//! - `inbox`: the commands that have come, and who steps them: the thread that has asked, or the engine's own.
//! - `stepper`: steps through them, one after the other. One thread at a time has it.
//! - `committer`: a thread that takes what has been stepped as *one* batch, makes it durable, publishes the snapshot, and
//!   then answers. What is stepped meanwhile is the next batch (group commit), so that neither the disk nor the core waits
//!   for the other (docs/decisions/0034).
//! - `open`: what has been stepped and not yet taken, which those two share.
//! - `answers`: where the threads of the door put what they ask, and are told.

pub mod answers;
mod committer;
pub mod figures;
#[cfg(test)]
pub(super) mod hooked;
mod inbox;
mod open;
#[cfg(test)]
mod simulation;
mod stepper;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use self::answers::Answer;
use self::committer::Committer;
use self::figures::EngineFigures;
use self::inbox::{Inbox, Slot};
use self::open::Open;
use self::stepper::Stepper;
use super::audit::Audit;
use super::blocking::{Blocking, Urgency};
use super::limits::STRANGERS_MS;
use super::long_polls::LongPolls;
use super::notices::Notices;
use super::notify::bell::Bell;
use crate::core::command::{Command, Refusal, Reply};
use crate::core::origin::Origin;
use crate::core::restart::{Restart, epoch_by_clock};
use crate::core::settings::Settings;
use crate::core::state::{Snapshot, State};
use crate::core::time::{EngineMs, Now, Span, WallMs};
use crate::env::Clock;
use crate::store::{READERS, Reader, Store};

/// Decides when the command is stepped, against the state that it meets, whether its client may do this. Notes
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
    /// Nothing was done: too many commands wait.
    #[error("too many requests wait for the store: nothing was done, ask again later")]
    Overloaded,
    /// Nothing has changed: what the store remembers of the claim cannot be read.
    #[error("the server cannot read this from its store: its log says why; try again")]
    Unreadable {
        /// The chain of causes. For the log, not for clients.
        cause: Arc<str>,
    },
}

/// Where a command comes from, and what decides whether it may be carried out.
struct Asker {
    origin: Origin,
    permit: Option<Permit>,
    /// The size of the body of its request.
    bytes: usize,
}

/// A handle to the engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inbox: Arc<Slot>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    clock: Arc<EngineClock>,
    store_id: Arc<str>,
    is_shared: bool,
    figures: EngineFigures,
    reader: Arc<dyn Reader>,
    /// So that reads occupy few threads.
    reads: Blocking,
}

impl Engine {
    /// Whether there is room for the commands of a new request, which changes something or only reads. Ask before the request
    /// has done anything: its commands are then taken, however many others wait, and so are those of the server itself.
    ///
    /// # Errors
    /// Too many commands wait.
    pub fn check_room(&self, reads: bool) -> Result<(), EngineError> {
        // Reads wait for nothing, unless the store is shared ([`Self::confirm`]).
        if (reads && !self.is_shared) || self.inbox.has_room() { Ok(()) } else { Err(EngineError::Overloaded) }
    }

    /// Runs a command and returns its answer after the commit. Dropping the future does not cancel the command.
    ///
    /// # Errors
    /// The core refuses the command, or the store has failed.
    pub async fn call(&self, command: Command) -> Result<Reply, EngineError> {
        self.ask(command, None)?.await.unwrap_or_else(|_| Err(down()))
    }

    /// Like [`Self::call`], for a request of a client, with a body of so many bytes, that may do this only if `permit` says
    /// so.
    ///
    /// # Errors
    /// The client may not do this, the core refuses the command, or the store has failed.
    pub async fn call_for(
        &self,
        command: Command,
        origin: Origin,
        permit: Option<Permit>,
        bytes: usize,
    ) -> Result<Reply, EngineError> {
        self.ask(command, Some(Box::new(Asker { origin, permit, bytes })))?.await.unwrap_or_else(|_| Err(down()))
    }

    /// Like [`Self::call`], for threads that may block. Panics inside an async task.
    ///
    /// # Errors
    /// The core refuses the command, or the store has failed.
    pub fn call_blocking(&self, command: Command) -> Result<Reply, EngineError> {
        self.ask(command, None)?.blocking_recv().unwrap_or_else(|_| Err(down()))
    }

    /// Waits until it is certain that a snapshot that was looked at before this call was, when it was looked at, at least as
    /// new as every answer that any server on the same store had given. With a store of its own, that is always so.
    ///
    /// # Errors
    /// The store has failed, or another server leads.
    pub async fn confirm(&self) -> Result<(), EngineError> {
        if self.is_shared { self.call(Command::Tick).await.map(drop) } else { Ok(()) }
    }

    /// The same for those who have proved nothing. All that come within [`STRANGERS_MS`] wait for its end and share a proof, so
    /// that they cannot keep the database busy.
    ///
    /// # Errors
    /// As for [`Self::confirm`], or too many commands wait.
    pub async fn confirm_for_strangers(&self) -> Result<(), EngineError> {
        if !self.is_shared {
            return Ok(());
        }
        self.check_room(true)?;
        let left = STRANGERS_MS - self.clock.now().engine.0 % STRANGERS_MS;
        tokio::time::sleep(Duration::from_millis(left)).await;
        self.confirm().await
    }

    fn ask(
        &self,
        command: Command,
        asker: Option<Box<Asker>>,
    ) -> Result<oneshot::Receiver<Result<Reply, EngineError>>, EngineError> {
        let (answer, answered) = Answer::channel();
        self.inbox.put((command, asker, Some(answer)))?;
        Ok(answered)
    }

    /// Queues a command whose answer is not needed. Never blocks.
    pub fn post(&self, command: Command) {
        // A closed queue means that the engine is down, so there is nothing left to change.
        let _ = self.inbox.put((command, None, None));
    }

    /// Stops the engine after it has run and answered everything that is already queued.
    pub fn stop(&self) {
        self.inbox.stop();
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

/// What a client is told for whom a server has only looked, and that then could not [`confirm`](Engine::confirm).
pub const NO_LONGER_LEADS: &str = "this server no longer leads: ask again";

/// Why an engine has ended whose thread has panicked.
const PANICKED: &str = "the engine has panicked: this is a bug in locker";

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

/// Loads the store and starts the threads. `failed` is called once, when a commit has failed or the engine has panicked.
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
) -> anyhow::Result<(Engine, JoinHandle<()>)> {
    let listeners = Listeners { notices, long_polls, ..Listeners::default() };
    start_with(store, settings, clock, listeners, |_, _| Ok(()), failed)
}

/// Like [`start`], but runs `prepare` before the first commit. Its changes are stored with that commit, all or none. The
/// thread that is returned ends when both have ended and the store is closed.
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
) -> anyhow::Result<(Engine, JoinHandle<()>)> {
    let (engine, inbox, committer) = awake(store, settings, clock, listeners, prepare)?;
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let committing = thread("commit").spawn(move || committer.work(failed))?;
    let stepping = thread("engine").spawn(move || {
        inbox.work();
        // It has told `failed` of its own panic.
        let _ = committing.join();
    })?;
    Ok((engine, stepping))
}

/// Loads the store. Nothing runs yet.
fn awake(
    mut store: Box<dyn Store>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    prepare: impl FnOnce(&mut State, Now) -> anyhow::Result<()>,
) -> anyhow::Result<(Engine, Arc<Inbox>, Committer)> {
    let loaded = store.load()?;
    let base = loaded.meta.map_or(EngineMs::default(), |meta| meta.engine);
    let clock = Arc::new(EngineClock { since: clock.monotonic(), clock, base });
    let now = clock.now();
    let mut restart = Restart::begin(loaded, settings, epoch_by_clock(now.wall)?, now);
    store.past(&mut |claim| restart.ended.take(&claim), &mut |entry| restart.history.take(&entry))?;
    let mut state = restart.finish();
    prepare(&mut state, now)?;
    store.commit(&state.take_changes(now))?;
    let snapshot = Arc::new(ArcSwap::from_pointee(state.snapshot.clone()));
    listeners.figures.pools.begin(&state.snapshot);
    let open = Arc::new(Open::new(state));
    let stepper = Stepper::new(Arc::clone(&open), store.own_reader(), Arc::clone(&clock));
    let inbox = Arc::new(Inbox::new(stepper, listeners.figures.queued.clone()));
    let engine = Engine {
        inbox: Arc::new(Slot::new(Arc::clone(&inbox))),
        snapshot: Arc::clone(&snapshot),
        clock: Arc::clone(&clock),
        store_id: Arc::from(store.store_id()),
        is_shared: store.is_shared(),
        figures: listeners.figures.clone(),
        reader: store.reader(),
        reads: Blocking::new(READERS, Urgency::Low),
    };
    Ok((engine, inbox, Committer::new(store, open, clock, snapshot, listeners)))
}
