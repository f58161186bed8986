//! Calls that are retried until they are answered: a call that ends a hold must not give up early.

use std::time::Duration;

use super::put::{Put, Stop};
use super::{ADVICE, progress};
use crate::client::acquire::env_duration;
use crate::client::backoff::Backoff;
use crate::client::interruptible::Running;
use crate::client::progress::Silence;
use crate::client::{CallError, Client};
use crate::env::{Env, Signal};

/// The time limit for a whole release. `LOCKER_RELEASE_LIMIT` shortens it.
const LIMIT: Duration = Duration::from_secs(60);
/// After a signal, how long to wait for the answer to the request in flight.
const AFTER_SIGNAL: Duration = Duration::from_millis(1_500);

/// Calls that are retried until they are answered, within one time limit for all of them.
///
/// A signal does not stop them, but leaves them only 1.5 s: a hold that is not released now stays.
pub(super) struct Persist {
    end: Duration,
    limit: Duration,
    backoff: Backoff,
    silence: Silence,
    signal: Option<Signal>,
}

impl Persist {
    /// The limit counts from the start of the put, so it includes finding the servers.
    pub(super) fn of(put: &Put<'_>, env: &Env<'_>) -> Result<Self, String> {
        Self::since(put.started, put, env)
    }

    /// The limit counts from now, for work after a wait.
    pub(super) fn from_now(put: &Put<'_>, env: &Env<'_>) -> Result<Self, String> {
        Self::since(put.clock.monotonic(), put, env)
    }

    fn since(start: Duration, put: &Put<'_>, env: &Env<'_>) -> Result<Self, String> {
        let limit = env_duration(env, "LOCKER_RELEASE_LIMIT", LIMIT)?;
        let backoff = Backoff::new(put.timing.retry_max);
        let silence = Silence::new(progress::pace(put.source.log_level, env)?);
        Ok(Self { end: start + limit, limit, backoff, silence, signal: None })
    }

    /// Makes the call, and retries after each temporary failure.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        put: &Put<'_>,
        env: &mut Env<'_>,
        work: impl Fn(&Client) -> Result<T, CallError> + Send + Clone + 'static,
    ) -> Result<T, Stop> {
        self.backoff.reset();
        let mut missing = "no answer".to_owned();
        loop {
            let (client, attempt) = (put.client().clone(), work.clone());
            let sent = put.clock.monotonic();
            let running = put.interruptible.start(move || attempt(&client));
            match self.wait(put, &running) {
                None => return Err(self.given_up(&missing)),
                Some(Err(CallError::NoAnswer(why))) => {
                    missing = why.to_string();
                    let now = put.clock.monotonic();
                    if let Some(line) = self.silence.line(&why, put.client().has_met(), sent, now) {
                        put.tell(env, line);
                    }
                    self.pause(put, why.retry_after);
                    if self.left(put).is_zero() {
                        return Err(self.given_up(&missing));
                    }
                }
                Some(answer) => {
                    self.silence.over();
                    return Ok(answer?);
                }
            }
        }
    }

    fn left(&self, put: &Put<'_>) -> Duration {
        self.end.saturating_sub(put.clock.monotonic())
    }

    /// The answer, if it arrives within the remaining time.
    fn wait<T>(&mut self, put: &Put<'_>, running: &Running<T>) -> Option<T> {
        if self.signal.is_none() {
            match running.wait_at_most(self.left(put)) {
                Ok(answer) => return answer,
                Err(signal) => self.hear(put, signal),
            }
        }
        running.wait_for(self.left(put))
    }

    fn hear(&mut self, put: &Put<'_>, signal: Signal) {
        self.signal = Some(signal);
        self.end = self.end.min(put.clock.monotonic() + AFTER_SIGNAL);
    }

    fn pause(&mut self, put: &Put<'_>, retry_after: Option<Duration>) {
        let pause = self.backoff.pause(retry_after).min(self.left(put));
        if self.signal.is_some() {
            std::thread::sleep(pause.min(AFTER_SIGNAL / 10));
        } else if let Err(signal) = put.interruptible.sleep(pause) {
            self.hear(put, signal);
        }
    }

    fn given_up(&self, missing: &str) -> Stop {
        if let Some(signal) = self.signal {
            return Stop::Signalled(signal, format!("the request was sent, and its outcome is unknown ({missing})"));
        }
        let limit = progress::span(self.limit);
        Stop::Failed(format!("{missing}; gave up after {limit}, and the outcome is unknown; {ADVICE}"))
    }
}
