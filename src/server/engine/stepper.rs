//! The thread that steps: it alone changes the state, command by command.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;

use super::answers::Answer;
use super::committer::Committer;
use super::figures::EngineFigures;
use super::open::{Batch, Open, refuse};
use super::{Asker, EngineClock, EngineError, Job, PANICKED};
use crate::core::command::{Command, Reply};
use crate::core::settings::planted;
use crate::core::state::State;
use crate::core::step::step_for;
use crate::core::time::{EngineMs, Span};
use crate::server::limits::BATCH;
use crate::store::Reader;

/// How often the engine checks the queues again, in case a wake-up was lost.
const RECONCILE: Span = Span::secs(5);

/// A command that is to be stepped.
pub(super) type Queued = (Command, Option<Box<Asker>>, Option<Answer>);

pub(super) struct Stepper {
    queue: Receiver<Job>,
    open: Arc<Open>,
    /// For ended claims that are not at hand. Those that are not committed yet always are.
    reader: Arc<dyn Reader>,
    clock: Arc<EngineClock>,
    figures: EngineFigures,
    next_reconcile: EngineMs,
    next_timer: Option<EngineMs>,
    /// Nothing more is to be taken from the queue.
    is_stopped: bool,
}

impl Stepper {
    pub fn new(
        queue: Receiver<Job>,
        open: Arc<Open>,
        reader: Arc<dyn Reader>,
        clock: Arc<EngineClock>,
        figures: EngineFigures,
    ) -> Self {
        let now = clock.now().engine;
        Self { queue, open, reader, clock, figures, next_reconcile: now, next_timer: Some(now), is_stopped: false }
    }

    /// What it shares with the committer.
    pub fn open(&self) -> Arc<Open> {
        Arc::clone(&self.open)
    }

    /// Runs until the engine is stopped. After a failure it answers that the outcome is unknown.
    pub fn work(mut self, committer: Arc<Mutex<Committer>>) {
        // After a panic the state cannot be trusted, so a panic ends the server, as a failed commit does.
        let run = catch_unwind(AssertUnwindSafe(|| self.run(&committer)));
        // The store is closed by whoever is the last to have it.
        drop(committer);
        let Err(cause) = run.unwrap_or_else(|_| Err(PANICKED.into())) else { return self.open.stop() };
        self.open.fail(&cause);
        while !self.is_stopped {
            match self.queue.recv() {
                Ok(Job::Do { answer, .. }) => answer.into_iter().for_each(|answer| refuse(answer, &cause)),
                Ok(Job::Stop) | Err(_) => self.is_stopped = true,
            }
        }
    }

    /// Runs until the engine is stopped.
    ///
    /// # Errors
    /// The engine has failed: why.
    fn run(&mut self, committer: &Mutex<Committer>) -> Result<(), Arc<str>> {
        loop {
            let pause = Duration::from_millis(self.due().0.saturating_sub(self.clock.now().engine.0));
            let first = match self.queue.recv_timeout(pause) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let mut commands = Vec::new();
            for job in first.into_iter().chain(self.queue.try_iter()).take(BATCH) {
                self.figures.queued.dec();
                match job {
                    Job::Do { command, asker, answer } => commands.push((command, asker, answer)),
                    Job::Stop => {
                        self.is_stopped = true;
                        break;
                    }
                }
            }
            let is_alone = commands.len() < 2;
            self.turn(commands, !is_alone)?;
            if is_alone {
                // Unless a commit is going on, after which its thread looks for more.
                if let Ok(mut committer) = committer.try_lock() {
                    committer.commit_all()?;
                }
            }
            if self.is_stopped {
                return Ok(());
            }
        }
    }

    /// When the next turn is due even if no command arrives.
    pub fn due(&self) -> EngineMs {
        self.next_timer.map_or(self.next_reconcile, |timer| timer.min(self.next_reconcile))
    }

    /// One turn: the commands that have arrived, and the timers that are due. Wakes the committer's thread if it is to
    /// `announce` them.
    ///
    /// # Errors
    /// The engine has failed: why. Everybody has been answered.
    pub fn turn(&mut self, mut commands: Vec<Queued>, announce: bool) -> Result<(), Arc<str>> {
        let now = self.clock.now();
        if now.engine >= self.next_reconcile {
            commands.push((Command::Reconcile, None, None));
            self.next_reconcile = now.engine.plus(RECONCILE);
        } else if commands.is_empty() {
            commands.push((Command::Tick, None, None));
        }
        self.step_all(commands, announce)
    }

    /// Steps through the commands. Their answers wait for the commit.
    ///
    /// # Errors
    /// The engine has failed: why. Everybody has been answered.
    pub fn step_all(&mut self, commands: Vec<Queued>, announce: bool) -> Result<(), Arc<str>> {
        let mut commands = Some(commands);
        let open = Arc::clone(&self.open);
        let added = open.add(announce, |batch| {
            for (command, asker, answer) in commands.take().into_iter().flatten() {
                batch.commands += 1;
                let result = self.step(&mut batch.state, command, asker);
                if let Some(answer) = answer {
                    promise(batch, answer, result);
                }
            }
            self.next_timer = batch.state.next_timer();
        });
        added.inspect_err(|cause| {
            let answers = commands.into_iter().flatten().filter_map(|(_, _, answer)| answer);
            answers.for_each(|answer| refuse(answer, cause));
        })
    }

    /// Runs one command. What it needs of ended claims comes from the store first.
    fn step(&self, state: &mut State, command: Command, asker: Option<Box<Asker>>) -> Result<Reply, EngineError> {
        let ids = state.to_recall(&command);
        if !ids.is_empty() {
            let recalled = self.reader.ended_claims(&ids).and_then(|ended| {
                ensure!(ended.len() == ids.len(), "the store has lost ended claims among {ids:?}");
                Ok(ended)
            });
            let recalled = recalled.map_err(|error| EngineError::Unreadable { cause: format!("{error:#}").into() })?;
            recalled.into_iter().for_each(|ended| state.recall(ended));
        }
        let origin = asker.map(|asker| {
            let Asker { mut origin, permit } = *asker;
            permit.map_or(Ok(()), |permit| permit(&command, state, &mut origin))?;
            Ok::<_, EngineError>(Arc::new(origin))
        });
        Ok(step_for(state, command, origin.transpose()?, self.clock.now())?)
    }
}

/// The answer waits for the commit: a crash could lose an answer that was sent before.
fn promise(batch: &mut Batch, answer: Answer, result: Result<Reply, EngineError>) {
    if planted!(batch.state.settings, AnswerBeforeCommit) {
        answer.send(result);
    } else {
        batch.answers.push((answer, result));
    }
}
