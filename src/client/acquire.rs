//! Asks for locks until they are held, or gives up and leaves nothing behind (docs/design.md, "Waiting in out").
//!
//! ```text
//! PUT --423--> PUT wait=25s --423 parked--> again at once      --423 not parked, no answer--> back off, again
//!  |200 granted
//! POST confirm --409 (withdrawn in the meantime)--> PUT again
//!  |200
//! held
//! ```
//! The id and the run never change, so every message can be repeated.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, LONGEST};
use super::calls::Asked;
use super::http::{CallError, Client, NoAnswer, PATIENCE, Refused};
use super::interruptible::Interruptible;
use crate::env::{Clock, Env, Signal};
use crate::wire::api::{ClaimBody, ClaimState, ClaimView, ConfirmBody, WaitingView};
use crate::wire::errors::Code;
use crate::wire::text::{api_duration, parse_duration};

/// How long the server is asked to hold one request: below the idle timeout of common proxies.
const WAIT: Duration = Duration::from_secs(25);
/// A shorter wait would only keep the server busy.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The server never holds a request for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Without a pause, clients would overload a server that is already in trouble.
const SHORTEST_RETRY_MAX: Duration = Duration::from_millis(50);
/// If a request was parked but answered sooner than this, something is wrong: do not ask again at once.
const PARKED_AT_LEAST: Duration = Duration::from_millis(100);
/// How long a claim waits for its own build before it gives up.
const SELF_WAIT: Duration = Duration::from_secs(60);
/// How long a try-lock, or a wait whose time is over, still waits for an answer from the servers.
const TRY: Duration = Duration::from_secs(3);
/// How long taking a claim back may take after a signal: the process must end within 2 s.
const CANCEL_ON_SIGNAL: Duration = Duration::from_millis(1_500);
/// How long taking a claim back may take in all other cases.
const CANCEL: Duration = Duration::from_secs(5);

/// Durations that tests shorten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// `LOCKER_WAIT`: how long the server holds one request (25 s; at least 100 ms, at most 60 s).
    pub wait: Duration,
    /// `LOCKER_RETRY_MAX`: the longest pause between two attempts (10 s, which is also the maximum; at least 50 ms).
    pub retry_max: Duration,
}

impl Timing {
    /// The values from the environment, or the defaults.
    ///
    /// # Errors
    /// A variable is not a duration.
    pub fn of(env: &Env<'_>) -> Result<Self, String> {
        let wait = env_duration(env, "LOCKER_WAIT", WAIT)?.clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let retry_max = env_duration(env, "LOCKER_RETRY_MAX", LONGEST)?.clamp(SHORTEST_RETRY_MAX, LONGEST);
        Ok(Self { wait, retry_max })
    }
}

/// How long a step waits for its own build (docs/design.md, "Self-wait and deadlock"): `LOCKER_SELF_WAIT`, else 60 s.
///
/// # Errors
/// The variable is not a duration.
pub fn self_wait_limit(env: &Env<'_>) -> Result<Duration, String> {
    env_duration(env, "LOCKER_SELF_WAIT", SELF_WAIT)
}

/// The duration in a variable, or the default.
///
/// # Errors
/// The variable is not a duration.
pub fn env_duration(env: &Env<'_>, name: &str, default: Duration) -> Result<Duration, String> {
    env.var(name).map_or(Ok(default), |text| parse_duration(text).map_err(|why| format!("{name} {why}")))
}

/// A claim to acquire.
pub struct Acquire<'a> {
    pub client: &'a Client,
    pub interruptible: &'a Interruptible,
    pub clock: Arc<dyn Clock>,
    pub id: &'a str,
    pub run: &'a str,
    /// The request. `run`, `confirm` and `wait` are filled in here.
    pub body: ClaimBody,
    pub timing: Timing,
    /// The longest wait.
    pub timeout: Option<Duration>,
    /// The longest wait for a lock that this claim's own build holds.
    pub self_wait: Option<Duration>,
}

/// Progress while the claim waits.
#[derive(Debug)]
pub enum News<'a> {
    Waiting(&'a WaitingView),
    NoAnswer {
        why: &'a NoAnswer,
        /// A server has answered before.
        met: bool,
        /// The claim has a place in the queue, as far as is known.
        has_place: bool,
        /// When the request was sent, on the monotonic clock.
        sent: Duration,
    },
}

/// The claim holds its locks, and the server knows that this client knows.
#[derive(Debug, Clone)]
pub struct Held {
    pub claim: ClaimView,
    pub waited: Duration,
}

/// Why nothing is held.
#[derive(Debug)]
pub enum Stop {
    Signalled(Signal),
    /// The time is over. Contains the last news about the wait, if any.
    TimeOver(Option<Box<WaitingView>>),
    /// The time is over, or this is a try-lock, and the last request got no answer.
    Unanswered(NoAnswer),
    /// No server can be reached in this way, and asking again will not help.
    Hopeless(NoAnswer),
    /// Try-lock: somebody else holds it.
    Locked(Box<WaitingView>),
    /// The claim has waited too long for a lock that its own build holds.
    SelfWait(Box<WaitingView>),
    Refused(Box<Refused>),
}

/// The result of taking a claim back.
#[derive(Debug)]
pub enum Cancelled {
    /// Nothing of ours was left to take back.
    NotNeeded,
    /// The claim is gone.
    Done,
    /// The server did not answer. It will end the claim when its deadlines pass.
    Unknown(NoAnswer),
}

/// The wait ended without the locks.
#[derive(Debug)]
pub struct Stopped {
    pub why: Stop,
    pub cancelled: Cancelled,
}

/// The state of one wait, from its first request on.
struct Wait {
    start: Duration,
    /// The last news about the place in the queue.
    last: Option<Box<WaitingView>>,
    /// Why the last request got no answer, if it got none.
    unanswered: Option<NoAnswer>,
    backoff: Backoff,
    /// Since when the server has reported that the claim waits for its own build.
    own_since: Option<Duration>,
}

impl Wait {
    /// No pause: the server held the request, or it was the first one.
    fn at_once(&mut self) -> Duration {
        self.backoff.reset();
        Duration::ZERO
    }
}

impl Acquire<'_> {
    /// Asks until the claim is held. In every other case the claim is taken back, unless it is no longer ours.
    ///
    /// # Errors
    /// Why nothing is held, and whether the claim was taken back.
    pub fn run(mut self, tell: &mut dyn FnMut(&News<'_>)) -> Result<Held, Stopped> {
        self.body.run = Some(self.run.to_owned());
        self.body.confirm = true;
        self.ask(tell).map_err(|why| {
            let cancelled = if is_ours(&why) { self.take_back(&why) } else { Cancelled::NotNeeded };
            Stopped { why, cancelled }
        })
    }

    fn ask(&self, tell: &mut dyn FnMut(&News<'_>)) -> Result<Held, Stop> {
        let start = self.clock.monotonic();
        let backoff = Backoff::new(self.timing.retry_max);
        let mut wait = Wait { start, last: None, unanswered: None, backoff, own_since: None };
        // The first request does not wait, so that people see at once who is ahead of them.
        let mut span = Duration::ZERO;
        loop {
            let sent = self.clock.monotonic();
            let answer = self.put(span, start)?;
            wait.unanswered = None;
            let pause = match answer {
                Ok(Asked::Given(claim)) => match self.hold(*claim, &mut wait, tell)? {
                    Some(claim) => return Ok(Held { claim, waited: self.clock.monotonic().saturating_sub(start) }),
                    None => wait.backoff.pause(None),
                },
                Ok(Asked::Waiting(view)) if view.code == Code::Locked => return Err(Stop::Locked(view)),
                Ok(Asked::Waiting(view)) => {
                    tell(&News::Waiting(&view));
                    let took = self.clock.monotonic().saturating_sub(sent);
                    let was_held = view.parked && took >= PARKED_AT_LEAST.min(span);
                    self.check_own(&view, &mut wait)?;
                    wait.last = Some(view);
                    if span.is_zero() || was_held { wait.at_once() } else { wait.backoff.pause(None) }
                }
                Err(CallError::NoAnswer(no_answer)) => self.unanswered(no_answer, sent, &mut wait, true, tell)?,
                Err(CallError::Hopeless(no_answer)) => return Err(Stop::Hopeless(no_answer)),
                Err(CallError::Refused(refused)) => return Err(Stop::Refused(refused)),
            };
            self.pause(pause, &wait)?;
            let left = [self.remaining(start), self.own_left(&wait)];
            span = left.into_iter().flatten().fold(self.timing.wait, Duration::min);
        }
    }

    /// After a request without an answer, which was sent then: how long to pause before the next one. An error says
    /// that there is no next one, because this is a try-lock.
    fn unanswered(
        &self,
        why: NoAnswer,
        sent: Duration,
        wait: &mut Wait,
        queues: bool,
        tell: &mut dyn FnMut(&News<'_>),
    ) -> Result<Duration, Stop> {
        let has_place = queues && wait.last.is_some();
        tell(&News::NoAnswer { why: &why, met: self.client.has_met(), has_place, sent });
        if !self.body.queue && self.clock.monotonic().saturating_sub(wait.start) >= TRY {
            return Err(Stop::Unanswered(why));
        }
        let pause = wait.backoff.pause(why.retry_after);
        wait.unanswered = Some(why);
        Ok(pause)
    }

    /// Confirms a grant. `None`: the server has withdrawn it in the meantime; ask again.
    fn hold(
        &self,
        claim: ClaimView,
        wait: &mut Wait,
        tell: &mut dyn FnMut(&News<'_>),
    ) -> Result<Option<ClaimView>, Stop> {
        if claim.state == ClaimState::Held {
            return Ok(Some(claim));
        }
        let Some(fence) = claim.fence else { return Ok(None) };
        wait.backoff.reset();
        loop {
            let (client, id) = (self.client.clone(), self.id.to_owned());
            let body = ConfirmBody { run: Some(self.run.to_owned()), fence };
            let sent = self.clock.monotonic();
            match self.call(wait.start, move || client.confirm(&id, &body))? {
                Ok(claim) => return Ok(Some(claim)),
                Err(CallError::NoAnswer(no_answer)) => {
                    let pause = self.unanswered(no_answer, sent, wait, false, tell)?;
                    self.pause(pause, wait)?;
                }
                Err(CallError::Hopeless(no_answer)) => return Err(Stop::Hopeless(no_answer)),
                // The next PUT tells whether the claim still waits or has ended.
                Err(error) if matches!(error.code(), Some(Code::NotGranted | Code::WrongFence | Code::Ended)) => {
                    return Ok(None);
                }
                Err(CallError::Refused(refused)) => return Err(Stop::Refused(refused)),
            }
        }
    }

    /// Gives up when the claim has waited too long for its own build.
    fn check_own(&self, view: &WaitingView, wait: &mut Wait) -> Result<(), Stop> {
        if view.code != Code::SelfWait {
            wait.own_since = None;
            return Ok(());
        }
        wait.own_since.get_or_insert(self.clock.monotonic());
        match self.own_left(wait) {
            Some(left) if left.is_zero() => Err(Stop::SelfWait(Box::new(view.clone()))),
            _ => Ok(()),
        }
    }

    /// How much longer the claim may wait for its own build.
    fn own_left(&self, wait: &Wait) -> Option<Duration> {
        let spent = self.clock.monotonic().saturating_sub(wait.own_since?);
        self.self_wait.map(|limit| limit.saturating_sub(spent))
    }

    fn put(&self, wait: Duration, start: Duration) -> Result<Result<Asked, CallError>, Stop> {
        let (client, id) = (self.client.clone(), self.id.to_owned());
        let mut body = self.body.clone();
        body.wait = (!wait.is_zero()).then(|| api_duration(wait));
        self.call(start, move || client.put_claim(&id, &body, wait))
    }

    /// Makes a call, for as long as its answer matters. After that, whatever it did is taken back.
    fn call<T: Send + 'static>(
        &self,
        start: Duration,
        call: impl FnOnce() -> Result<T, CallError> + Send + 'static,
    ) -> Result<Result<T, CallError>, Stop> {
        let limit = if self.body.queue { self.remaining(start).map(|left| left + TRY) } else { Some(TRY) };
        let running = self.interruptible.start(call);
        let Some(limit) = limit else { return running.wait().map_err(Stop::Signalled) };
        let answer = running.wait_at_most(limit).map_err(Stop::Signalled)?;
        Ok(answer.unwrap_or_else(|| Err(CallError::NoAnswer(no_answer(self.client)))))
    }

    fn remaining(&self, start: Duration) -> Option<Duration> {
        let spent = self.clock.monotonic().saturating_sub(start);
        self.timeout.map(|timeout| timeout.saturating_sub(spent))
    }

    /// Sleeps, but not past the time limit. An error says that the limit is reached.
    fn pause(&self, span: Duration, wait: &Wait) -> Result<(), Stop> {
        let span = self.remaining(wait.start).map_or(span, |left| left.min(span));
        self.interruptible.sleep(span).map_err(Stop::Signalled)?;
        match self.remaining(wait.start) {
            Some(left) if left.is_zero() => Err(match &wait.unanswered {
                Some(no_answer) => Stop::Unanswered(no_answer.clone()),
                None => Stop::TimeOver(wait.last.clone()),
            }),
            _ => Ok(()),
        }
    }

    fn take_back(&self, why: &Stop) -> Cancelled {
        let limit = if matches!(why, Stop::Signalled(_) | Stop::Unanswered(_)) { CANCEL_ON_SIGNAL } else { CANCEL };
        cancel(self.client, self.interruptible, &*self.clock, self.id, Some(self.run), limit)
    }
}

/// Whether the claim is still this process's own, to be taken back.
fn is_ours(why: &Stop) -> bool {
    let Stop::Refused(refused) = why else { return !matches!(why, Stop::Locked(_) | Stop::Hopeless(_)) };
    !matches!(
        refused.code,
        Some(
            // Another process acts for the claim, or the id belongs to another claim.
            Code::SupersededRun | Code::DifferentRequest | Code::TooManyRuns
            // The claim has ended, or it never existed.
            | Code::Ended | Code::OtherStore | Code::BadRequest | Code::NoSuchPool | Code::NoSuchLock | Code::TooMany | Code::MixedOrders
            | Code::Unprocessable | Code::NoSuchRoute
        )
    )
}

/// Takes a claim back within `limit`. Signals do not interrupt it.
#[must_use]
pub fn cancel(
    client: &Client,
    interruptible: &Interruptible,
    clock: &dyn Clock,
    id: &str,
    run: Option<&str>,
    limit: Duration,
) -> Cancelled {
    let end = clock.monotonic() + limit;
    let mut missing = no_answer(client);
    loop {
        let left = end.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return Cancelled::Unknown(missing);
        }
        let (client, id, run) = (client.clone(), id.to_owned(), run.map(str::to_owned));
        let running = interruptible.start(move || client.delete_claim(&id, run.as_deref(), left.min(PATIENCE)));
        match running.wait_for(left) {
            Some(Ok(_)) => return Cancelled::Done,
            // The server does not know it, it has ended, or a newer process has it: in each case nothing of ours is
            // left.
            Some(Err(CallError::Refused(_) | CallError::Hopeless(_))) => return Cancelled::NotNeeded,
            Some(Err(CallError::NoAnswer(why))) => missing = why,
            None => return Cancelled::Unknown(missing),
        }
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
}

fn no_answer(client: &Client) -> NoAnswer {
    NoAnswer { server: client.server(), why: "time over".to_owned(), next: None, code: None, retry_after: None }
}
