//! The commands that have come and are not yet stepped, and who steps them.
//!
//! A thread of the door steps what its own clients have asked, as soon as it has looked at what else they send: to wake
//! another thread for it costs more than most steps (docs/decisions/0046). The engine's own thread steps all the rest:
//! what other threads ask, what may take long, and what is due by time.
//!
//! Whoever steps has commands in its hands, and puts back what it could not step. So the engine's thread ends, after a stop
//! or a failure, only while it has the stepper itself: nothing is put back where nobody looks any more.

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::answers;
use super::open::{Open, refuse};
use super::stepper::{Queued, Stepper};
use super::{EngineError, PANICKED, down};
use crate::core::time::EngineMs;
use crate::server::limits::{BATCH, INBOX, INBOX_BYTES};

pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Told when the engine's thread is to look.
    called: Condvar,
    /// Whoever has it steps. It is locked before `waiting`, if both are.
    stepper: Mutex<Stepper>,
    open: Arc<Open>,
    /// How many commands wait, for the metrics.
    queued: Gauge,
}

struct Waiting {
    commands: Vec<Queued>,
    /// Of the bodies of their requests.
    bytes: usize,
    /// The engine's thread is to look.
    is_called: bool,
    /// When the engine's thread looks by itself.
    looks_at: EngineMs,
    phase: Phase,
}

enum Phase {
    Running,
    /// Nothing more is taken.
    Stopped,
    /// Whatever comes is refused, for this reason.
    Failed(Arc<str>),
}

/// What the engine's thread does after a look.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Look,
    /// Nothing is to be done for so long, unless it is called.
    Sleep(Duration),
    /// The engine was stopped, everything has been stepped, and nothing will come any more.
    End,
}

/// Lets others put something in. The engine stops when it is dropped.
pub(super) struct Slot(Arc<Inbox>);

impl Slot {
    pub fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    /// Puts a command in, and sees to it that somebody steps it. Does not wait for that.
    ///
    /// # Errors
    /// The engine was stopped.
    pub fn put(&self, command: Queued) -> Result<(), EngineError> {
        let inbox = &self.0;
        let mut waiting = inbox.waiting();
        match &waiting.phase {
            Phase::Running => {}
            Phase::Stopped => return Err(down()),
            Phase::Failed(cause) => {
                let (_, _, answer) = command;
                answer.into_iter().for_each(|answer| refuse(answer, cause));
                return Ok(());
            }
        }
        // While it is locked, or whoever takes the command could count it first.
        inbox.queued.inc();
        waiting.bytes += bytes(&command);
        waiting.commands.push(command);
        drop(waiting);
        if !answers::step_soon(inbox) {
            inbox.call();
        }
        Ok(())
    }

    /// Whether few enough commands wait for those of further requests to join them.
    pub fn has_room(&self) -> bool {
        let waiting = self.0.waiting();
        waiting.commands.len() < INBOX && waiting.bytes < INBOX_BYTES
    }

    /// Stops the engine after everything has been stepped and answered that is there already.
    pub fn stop(&self) {
        let mut waiting = self.0.waiting();
        if matches!(waiting.phase, Phase::Running) {
            waiting.phase = Phase::Stopped;
        }
        drop(waiting);
        self.0.call();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inbox {
    pub fn new(stepper: Stepper, queued: Gauge) -> Self {
        let (open, looks_at) = (stepper.open(), stepper.due());
        let waiting = Waiting { commands: Vec::new(), bytes: 0, is_called: false, looks_at, phase: Phase::Running };
        Self { waiting: Mutex::new(waiting), called: Condvar::new(), stepper: Mutex::new(stepper), open, queued }
    }

    /// What steps, for those who step by hand.
    #[cfg(test)]
    pub fn stepper(&self) -> MutexGuard<'_, Stepper> {
        self.stepper.lock().unwrap()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the engine's thread.
    pub fn call(&self) {
        let is_new = !std::mem::replace(&mut self.waiting().is_called, true);
        if is_new {
            self.called.notify_one();
        }
    }

    /// Takes the next commands.
    fn take(&self) -> Vec<Queued> {
        let mut waiting = self.waiting();
        let most = waiting.commands.len().min(BATCH);
        let later = waiting.commands.split_off(most);
        let commands = std::mem::replace(&mut waiting.commands, later);
        waiting.bytes -= commands.iter().map(bytes).sum::<usize>();
        drop(waiting);
        self.queued.dec_by(count(&commands));
        commands
    }

    /// For a thread of the door: steps what waits, once. True if more has come meanwhile, which this thread is to step,
    /// too. Leaves it to another thread that is stepping, which looks again afterwards, and to the engine's thread what that
    /// is to do.
    pub fn step(&self) -> bool {
        if self.waiting().commands.is_empty() {
            return false;
        }
        let mut stepper = match self.stepper.try_lock() {
            Ok(stepper) => stepper,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => {
                self.call();
                return false;
            }
        };
        let commands = self.take();
        // A panic of a step must not end what else this thread does.
        let Ok(left) = catch_unwind(AssertUnwindSafe(|| stepper.step_at_once(commands))) else {
            self.open.fail(&PANICKED.into());
            self.call();
            return false;
        };
        let (is_done, due) = (left.is_empty(), stepper.due());
        let is_early = due < self.waiting().looks_at;
        self.put_back(stepper, left);
        if !is_done || is_early {
            self.call();
        }
        // Only now: whoever came before has left it to this thread.
        is_done && !self.waiting().commands.is_empty()
    }

    /// Puts back what was not stepped, in front of everything else, and lets others step.
    fn put_back(&self, stepper: MutexGuard<'_, Stepper>, left: Vec<Queued>) {
        if !left.is_empty() {
            self.queued.inc_by(count(&left));
            let mut waiting = self.waiting();
            waiting.bytes += left.iter().map(bytes).sum::<usize>();
            waiting.commands.splice(..0, left);
        }
        drop(stepper);
    }

    /// The work of the engine's thread, until the engine is stopped. After a failure, whatever comes is refused.
    pub fn work(&self) {
        // After a panic the state cannot be trusted, so a panic ends the server, as a failed commit does.
        let run = catch_unwind(AssertUnwindSafe(|| self.run()));
        match run.unwrap_or_else(|_| Err(PANICKED.into())) {
            Ok(()) => self.open.stop(),
            Err(cause) => self.fail(&cause),
        }
    }

    /// The engine has failed: refuses what waits, and whatever comes.
    fn fail(&self, cause: &Arc<str>) {
        // Nobody waits for anything else while it steps, so this is soon.
        let stepper = self.stepper.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.fail(cause);
        let mut waiting = self.waiting();
        waiting.phase = Phase::Failed(Arc::clone(cause));
        let commands = std::mem::take(&mut waiting.commands);
        drop((waiting, stepper));
        self.queued.dec_by(count(&commands));
        commands.into_iter().filter_map(|(_, _, answer)| answer).for_each(|answer| refuse(answer, cause));
    }

    /// # Errors
    /// The engine has failed: why.
    fn run(&self) -> Result<(), Arc<str>> {
        loop {
            match self.look()? {
                Next::Look => {}
                Next::Sleep(pause) => self.sleep(pause),
                Next::End => return Ok(()),
            }
        }
    }

    /// Steps what waits and what is due. Others step, too, until the next look: they call this thread if something is due
    /// before it looks by itself.
    ///
    /// # Errors
    /// The engine has failed: why.
    fn look(&self) -> Result<Next, Arc<str>> {
        let mut stepper = self.stepper.lock().map_err(|_| PANICKED)?;
        let commands = self.take();
        let pause = stepper.pause();
        if !commands.is_empty() || pause.is_zero() {
            return stepper.turn(commands).map(|()| Next::Look);
        }
        let mut waiting = self.waiting();
        if waiting.commands.is_empty() && matches!(waiting.phase, Phase::Stopped) {
            return Ok(Next::End);
        }
        waiting.looks_at = stepper.due();
        Ok(Next::Sleep(pause))
    }

    /// Sleeps for `pause`, or until this thread is called or there is something to step.
    fn sleep(&self, pause: Duration) {
        let mut waiting = self.waiting();
        // Whoever put something in while this thread stepped has left it to this thread.
        if waiting.commands.is_empty() {
            let is_quiet = |waiting: &mut Waiting| !waiting.is_called;
            let slept = self.called.wait_timeout_while(waiting, pause, is_quiet);
            (waiting, _) = slept.unwrap_or_else(PoisonError::into_inner);
        }
        waiting.is_called = false;
    }
}

/// The size of the body that a command comes from.
fn bytes((_, asker, _): &Queued) -> usize {
    asker.as_ref().map_or(0, |asker| asker.bytes)
}

fn count(commands: &[Queued]) -> i64 {
    i64::try_from(commands.len()).unwrap_or(i64::MAX)
}
