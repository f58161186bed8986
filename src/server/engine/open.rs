//! What has been stepped and is not yet committed. The stepper adds to it, the committer takes it as one batch.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::EngineError;
use super::answers::Answer;
use crate::core::command::Reply;
use crate::core::state::State;
use crate::server::limits::BATCH;

/// What the two threads share.
pub(super) struct Open {
    batch: Mutex<Batch>,
    /// Told when there is something to commit, or nothing will come any more.
    filled: Condvar,
    /// Told when the committer has taken a batch, or has failed.
    taken: Condvar,
}

/// The state after all steps, and what nobody has committed yet.
pub(super) struct Batch {
    pub state: State,
    pub answers: Vec<(Answer, Result<Reply, EngineError>)>,
    /// How many commands have been stepped.
    pub commands: usize,
    /// The committer's thread has nothing to do.
    is_awaited: bool,
    /// The stepper waits for room. To tell one who does not wait costs a system call, too.
    is_full: bool,
    phase: Phase,
}

enum Phase {
    Running,
    /// The last commands have been stepped.
    Stopped,
    /// A commit has failed, or a thread has panicked: nothing is committed any more.
    Failed(Arc<str>),
}

impl Batch {
    /// Answers everybody who waits that the outcome is unknown.
    fn refuse(&mut self, cause: &Arc<str>) {
        for (answer, _) in self.answers.drain(..) {
            refuse(answer, cause);
        }
    }
}

/// Answers that the outcome is unknown.
pub(super) fn refuse(answer: Answer, cause: &Arc<str>) {
    answer.send(Err(EngineError::StoreFailed { cause: Arc::clone(cause) }));
}

impl Open {
    pub fn new(state: State) -> Self {
        let batch =
            Batch { state, answers: Vec::new(), commands: 0, is_awaited: false, is_full: false, phase: Phase::Running };
        Self { batch: Mutex::new(batch), filled: Condvar::new(), taken: Condvar::new() }
    }

    /// A look at it, whatever has happened.
    fn look(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the stepper: lets `step` add to the batch, once there is room. A batch that the committer's thread waits for
    /// goes first, so that a stepper with much to do does not keep the disk idle.
    ///
    /// # Errors
    /// The engine has failed: why.
    pub fn add<T>(&self, step: impl FnOnce(&mut Batch) -> T) -> Result<T, Arc<str>> {
        let mut batch = self.look();
        loop {
            if let Phase::Failed(cause) = &batch.phase {
                return Err(Arc::clone(cause));
            }
            if batch.commands == 0 || !(batch.is_awaited || batch.commands >= BATCH) {
                break;
            }
            batch.is_full = true;
            batch = self.taken.wait(batch).unwrap_or_else(PoisonError::into_inner);
        }
        batch.is_full = false;
        Ok(self.add_to(batch, step))
    }

    /// Like [`Self::add`], for a stepper that cannot wait: `None` if there is no room now, or the engine has failed. It adds
    /// once and then does something else, so it may also add to a batch that the committer's thread waits for.
    pub fn try_add<T>(&self, step: impl FnOnce(&mut Batch) -> T) -> Option<T> {
        let batch = self.look();
        let has_room = batch.commands < BATCH && !matches!(batch.phase, Phase::Failed(_));
        has_room.then(|| self.add_to(batch, step))
    }

    fn add_to<T>(&self, mut batch: MutexGuard<'_, Batch>, step: impl FnOnce(&mut Batch) -> T) -> T {
        let added = step(&mut batch);
        let is_awaited = batch.commands > 0 && batch.is_awaited;
        // Before the committer's thread is woken, which needs it at once.
        drop(batch);
        if is_awaited {
            self.filled.notify_one();
        }
        added
    }

    /// For the committer's thread: waits for something to commit. False when everything is committed and nothing will
    /// come any more.
    ///
    /// # Errors
    /// The engine has failed: why.
    pub fn wait(&self) -> Result<bool, Arc<str>> {
        let mut batch = self.look();
        loop {
            match &batch.phase {
                Phase::Failed(cause) => return Err(Arc::clone(cause)),
                _ if batch.commands > 0 => break,
                Phase::Stopped => return Ok(false),
                Phase::Running => {}
            }
            batch.is_awaited = true;
            batch = self.filled.wait(batch).unwrap_or_else(PoisonError::into_inner);
        }
        batch.is_awaited = false;
        Ok(true)
    }

    /// Lets `take` take what there is to commit; `None` if there is nothing, or if nothing may be committed any more.
    pub fn take<T>(&self, take: impl FnOnce(&mut Batch) -> T) -> Option<T> {
        // A step that has panicked leaves a state that cannot be trusted.
        let mut batch = self.batch.lock().ok()?;
        if batch.commands == 0 || matches!(batch.phase, Phase::Failed(_)) {
            return None;
        }
        let taken = take(&mut batch);
        batch.commands = 0;
        let is_full = batch.is_full;
        drop(batch);
        if is_full {
            self.taken.notify_one();
        }
        Some(taken)
    }

    /// Nothing will be added any more.
    pub fn stop(&self) {
        let mut batch = self.look();
        if matches!(batch.phase, Phase::Running) {
            batch.phase = Phase::Stopped;
        }
        self.filled.notify_one();
    }

    /// Nothing is committed any more: everybody who waits is told, and so is everybody who comes.
    pub fn fail(&self, cause: &Arc<str>) {
        let mut batch = self.look();
        batch.refuse(cause);
        if !matches!(batch.phase, Phase::Failed(_)) {
            batch.phase = Phase::Failed(Arc::clone(cause));
        }
        self.filled.notify_one();
        self.taken.notify_one();
    }

    /// The state after all steps, for those who check it.
    #[cfg(test)]
    pub fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.look().state)
    }
}
