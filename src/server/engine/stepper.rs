//! What steps: it alone changes the state, command by command. One thread at a time has it ([`super::inbox`]).

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use super::answers::Answer;
use super::open::{Batch, Open, refuse};
use super::{Asker, EngineClock, EngineError};
use crate::core::command::{Command, Reply};
use crate::core::settings::planted;
use crate::core::state::State;
use crate::core::step::step_for;
use crate::core::time::{EngineMs, Span};
use crate::store::Reader;

/// How often the engine checks the queues again, in case a wake-up was lost.
const RECONCILE: Span = Span::secs(5);

/// A command that is to be stepped.
pub(super) type Queued = (Command, Option<Box<Asker>>, Option<Answer>);

pub(super) struct Stepper {
    open: Arc<Open>,
    /// For ended claims that are not at hand. Those that are not committed yet always are.
    reader: Arc<dyn Reader>,
    clock: Arc<EngineClock>,
    next_reconcile: EngineMs,
    next_timer: Option<EngineMs>,
}

impl Stepper {
    pub fn new(open: Arc<Open>, reader: Arc<dyn Reader>, clock: Arc<EngineClock>) -> Self {
        let now = clock.now().engine;
        Self { open, reader, clock, next_reconcile: now, next_timer: Some(now) }
    }

    /// What it shares with the committer.
    pub fn open(&self) -> Arc<Open> {
        Arc::clone(&self.open)
    }

    /// When the next turn is due even if no command arrives.
    pub fn due(&self) -> EngineMs {
        self.next_timer.map_or(self.next_reconcile, |timer| timer.min(self.next_reconcile))
    }

    /// For how long nothing is due.
    pub fn pause(&self) -> Duration {
        Duration::from_millis(self.due().0.saturating_sub(self.clock.now().engine.0))
    }

    /// One turn: the commands that have arrived, and the timers that are due.
    ///
    /// # Errors
    /// The engine has failed: why. Everybody has been answered.
    pub fn turn(&mut self, mut commands: Vec<Queued>) -> Result<(), Arc<str>> {
        let now = self.clock.now();
        if now.engine >= self.next_reconcile {
            commands.push((Command::Reconcile, None, None));
            self.next_reconcile = now.engine.plus(RECONCILE);
        } else if commands.is_empty() {
            commands.push((Command::Tick, None, None));
        }
        self.step_all(commands)
    }

    /// Steps through the commands. Their answers wait for the commit.
    ///
    /// # Errors
    /// The engine has failed: why. Everybody has been answered.
    pub fn step_all(&mut self, commands: Vec<Queued>) -> Result<(), Arc<str>> {
        let mut commands = Some(commands);
        let open = Arc::clone(&self.open);
        let added = open.add(|batch| {
            for (command, asker, answer) in commands.take().into_iter().flatten() {
                let recalled = self.recall(&mut batch.state, &command);
                let result = recalled.and_then(|()| self.step(&mut batch.state, command, asker));
                promise(batch, answer, result);
            }
            self.next_timer = batch.state.next_timer();
        });
        added.inspect_err(|cause| {
            let answers = commands.into_iter().flatten().filter_map(|(_, _, answer)| answer);
            answers.for_each(|answer| refuse(answer, cause));
        })
    }

    /// Steps commands until there is one that may take long, or no room. Returns the rest. Never waits.
    pub fn step_at_once(&mut self, commands: Vec<Queued>) -> Vec<Queued> {
        let open = Arc::clone(&self.open);
        let mut commands = commands.into_iter().peekable();
        let is_short = |state: &State, command: &Command| is_short(command) && state.to_recall(command).is_empty();
        open.try_add(|batch| {
            while let Some((command, asker, answer)) = commands.next_if(|(command, ..)| is_short(&batch.state, command))
            {
                let result = self.step(&mut batch.state, command, asker);
                promise(batch, answer, result);
            }
            self.next_timer = batch.state.next_timer();
        });
        commands.collect()
    }

    /// What a command needs of ended claims comes from the store.
    fn recall(&self, state: &mut State, command: &Command) -> Result<(), EngineError> {
        let ids = state.to_recall(command);
        if ids.is_empty() {
            return Ok(());
        }
        let recalled = self.reader.ended_claims(&ids).and_then(|ended| {
            ensure!(ended.len() == ids.len(), "the store has lost ended claims among {ids:?}");
            Ok(ended)
        });
        let recalled = recalled.map_err(|error| EngineError::Unreadable { cause: format!("{error:#}").into() })?;
        recalled.into_iter().for_each(|ended| state.recall(ended));
        Ok(())
    }

    /// Runs one command.
    fn step(&self, state: &mut State, command: Command, asker: Option<Box<Asker>>) -> Result<Reply, EngineError> {
        let origin = asker.map(|asker| {
            let Asker { mut origin, permit, bytes: _ } = *asker;
            permit.map_or(Ok(()), |permit| permit(&command, state, &mut origin))?;
            Ok::<_, EngineError>(Arc::new(origin))
        });
        Ok(step_for(state, command, origin.transpose()?, self.clock.now())?)
    }
}

/// Whether this is one of the usual commands of clients, which take microseconds.
fn is_short(command: &Command) -> bool {
    use Command::{Ask, Confirm, End, Left, Release, Renew, Tick};
    matches!(command, Ask(_) | Confirm { .. } | Renew { .. } | End { .. } | Release { .. } | Left { .. } | Tick)
}

/// The answer waits for the commit: a crash could lose an answer that was sent before.
fn promise(batch: &mut Batch, answer: Option<Answer>, result: Result<Reply, EngineError>) {
    batch.commands += 1;
    match answer {
        Some(answer) if planted!(batch.state.settings, AnswerBeforeCommit) => answer.send(result),
        Some(answer) => batch.answers.push((answer, result)),
        None => {}
    }
}
