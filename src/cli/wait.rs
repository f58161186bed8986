//! `locker wait`: waits until a pool or a lock reaches a state, without taking anything.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::{CliError, say};
use super::values::{Limit, parse_duration};
use crate::client::acquire::{News, Timing};
use crate::client::backoff::Backoff;
use crate::client::interruptible::Interruptible;
use crate::client::progress::{Moment, Pace, Progress};
use crate::client::{CallError, Client, when, who};
use crate::core::names::{LockName, PoolName};
use crate::env::{Env, Signal};
use crate::wire::api::{ChangeKind, ChangeView, HolderView, LockState, LockView};
use crate::wire::errors::exit;

/// How often to look for what is not announced as a change: the end of a drain, and sometimes that of a quarantine.
const DRAIN_LOOK: Duration = Duration::from_secs(5);

/// How things are when nobody holds the locks.
const FREE: &str = "nothing is held";

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 if the state is reached (it may change again at once: to be sure of a lock, take it); 3 if the time is over; 4 if \
there is no such pool or lock; 6 if the time is over and the server did not answer.

Examples:
  locker wait staging --lock eu-1 --until free
  locker wait staging --until empty --timeout 1h && ./maintenance.sh")]
pub(super) struct WaitArgs {
    /// Pool to look at
    pool: PoolName,
    /// Look only at this lock
    #[arg(long, value_name = "NAME")]
    lock: Option<LockName>,
    /// State to wait for
    #[arg(long, value_name = "STATE")]
    until: Until,
    /// Wait at most this long (default: no limit)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// The states that one can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// The lock can be taken; without --lock: at least one lock can be taken
    Free,
    /// The lock is held, or was held since the wait began; without --lock: at least one lock
    Held,
    /// No lock can be taken
    Full,
    /// The lock is not held; without --lock: no lock is held, and nobody waits
    Empty,
}

/// The state of the pool at one moment.
struct Look {
    locks: Vec<LockView>,
    waiting: usize,
    /// What has happened since the previous look.
    news: Vec<ChangeView>,
}

impl Until {
    fn holds(self, look: &Look) -> bool {
        let free = |lock: &LockView| lock.state == LockState::Free && !lock.leaving;
        match self {
            Self::Free => look.locks.iter().any(free),
            Self::Full => !look.locks.iter().any(free),
            Self::Empty => look.waiting == 0 && look.locks.iter().all(|lock| lock.holders.is_empty()),
            Self::Held => {
                let ours = |change: &ChangeView| {
                    let of = |lock: &LockView| change.locks.iter().any(|l| l.pool == lock.pool && l.lock == lock.lock);
                    change.kind == ChangeKind::Claimed && look.locks.iter().any(of)
                };
                look.locks.iter().any(|lock| lock.state == LockState::Held) || look.news.iter().any(ours)
            }
        }
    }
}

/// Why the wait ends before the state is reached.
enum Stop {
    Signalled(Signal),
    TimeOver,
    Failed(CallError),
}

impl From<Signal> for Stop {
    fn from(signal: Signal) -> Self {
        Self::Signalled(signal)
    }
}

/// One wait.
struct Wait<'a> {
    args: &'a WaitArgs,
    client: &'a Client,
    interruptible: Interruptible,
    timing: Timing,
    start: Duration,
    backoff: Backoff,
    progress: Progress,
    /// Who held the locks at the last look.
    held: Vec<HolderView>,
    /// Why the last attempt failed, if it did.
    failing: Option<CallError>,
}

pub(super) fn run(args: &WaitArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let timing = Timing::of(env).map_err(CliError::usage)?;
    let (interruptible, start) = (Interruptible::new(&env.signals), env.clock.monotonic());
    let backoff = Backoff::new(timing.retry_max);
    let progress = Progress::new(Pace::of_terminal(env).map_err(CliError::usage)?);
    let (held, failing) = (Vec::new(), None);
    let mut wait = Wait { args, client, interruptible, timing, start, backoff, progress, held, failing };
    match wait.until_it_holds(env) {
        Ok(()) => Ok(exit::OK),
        Err(Stop::Signalled(signal)) => Ok(signal.exit_code()),
        Err(Stop::Failed(error)) => Err(error.into()),
        Err(Stop::TimeOver) => match wait.failing {
            Some(error) => Err(error.into()),
            None => {
                let after = args.timeout.map(|span| format!(" after {}", Limit { flag: "--timeout", span }));
                let (held, lines) = who::held(&wait.held, wait.held.len(), when::now(&*env.clock));
                lines.iter().for_each(|line| say(env, line));
                let held = held.unwrap_or_else(|| FREE.to_owned());
                let text = format!("gave up{}; {held}", after.unwrap_or_default());
                Err(CliError::Failed(exit::LOCKED, text))
            }
        },
    }
}

impl Wait<'_> {
    fn until_it_holds(&mut self, env: &mut Env<'_>) -> Result<(), Stop> {
        let pool = self.args.pool.as_str().to_owned();
        // This comes before the first look, so that no change after it is missed.
        let of = pool.clone();
        let mut seen = self.insist(move |client| client.newest_revision(&of), env)?;
        let mut news = Vec::new();
        loop {
            let look = self.look(std::mem::take(&mut news), env)?;
            if self.args.until.holds(&look) {
                return Ok(());
            }
            self.say(&look, env);
            let timed = |lock: &LockView| matches!(lock.state, LockState::Draining | LockState::Quarantined);
            let span = if look.locks.iter().any(timed) { self.timing.wait.min(DRAIN_LOOK) } else { self.timing.wait };
            let span = self.left(env)?.map_or(span, |left| left.min(span)).max(Duration::from_millis(1));
            let of = pool.clone();
            let page = self.insist(move |client| client.wait_for_change(&of, seen, span), env)?;
            seen = page.items.last().map_or(seen, |change| change.revision);
            news = page.items;
            self.left(env)?;
        }
    }

    fn look(&mut self, news: Vec<ChangeView>, env: &mut Env<'_>) -> Result<Look, Stop> {
        let (pool, lock) = (self.args.pool.as_str().to_owned(), self.args.lock.clone());
        let (locks, waiting) = self.insist(
            move |client| match &lock {
                Some(lock) => Ok((vec![client.get_lock(&pool, lock.as_str())?], 0)),
                None => client.get_pool(&pool).map(|view| (view.items, view.summary.waiting)),
            },
            env,
        )?;
        Ok(Look { locks, waiting, news })
    }

    /// Tells what it waits for, if that has changed.
    fn say(&mut self, look: &Look, env: &mut Env<'_>) {
        let holders: Vec<HolderView> = look.locks.iter().flat_map(|lock| lock.holders.clone()).collect();
        let waiting = (look.waiting > 0).then(|| format!("{} waiting", look.waiting));
        let lines = self.progress.watched(&holders, FREE, waiting.as_deref(), Moment::of(&*env.clock));
        lines.iter().for_each(|line| say(env, line));
        self.held = holders;
    }

    /// Makes a call, and retries after each temporary failure until the time is over.
    fn insist<T: Send + 'static>(
        &mut self,
        call: impl Fn(&Client) -> Result<T, CallError> + Clone + Send + 'static,
        env: &mut Env<'_>,
    ) -> Result<T, Stop> {
        loop {
            let (client, attempt, sent) = (self.client.clone(), call.clone(), env.clock.monotonic());
            match self.interruptible.run(move || attempt(&client))? {
                Ok(answer) => {
                    self.backoff.reset();
                    self.failing = None;
                    return Ok(answer);
                }
                Err(CallError::NoAnswer(why)) => {
                    let news = News::NoAnswer { why: &why, met: self.client.has_met(), has_place: false, sent };
                    let lines = self.progress.lines(&news, Moment::of(&*env.clock));
                    lines.iter().for_each(|line| say(env, line));
                    let pause = self.backoff.pause(why.retry_after);
                    self.failing = Some(CallError::NoAnswer(why));
                    let left = self.left(env)?;
                    self.interruptible.sleep(left.map_or(pause, |left| left.min(pause)))?;
                    self.left(env)?;
                }
                Err(error) => return Err(Stop::Failed(error)),
            }
        }
    }

    /// Time left of `--timeout`, if there is one.
    fn left(&self, env: &Env<'_>) -> Result<Option<Duration>, Stop> {
        let Some(timeout) = self.args.timeout else { return Ok(None) };
        let left = timeout.saturating_sub(env.clock.monotonic().saturating_sub(self.start));
        if left.is_zero() { Err(Stop::TimeOver) } else { Ok(Some(left)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str, state: LockState) -> LockView {
        let holder = serde_json::json!({"pool": "p", "lock": name, "claim": "c", "state": "held", "fence": 1});
        let holders = if matches!(state, LockState::Held | LockState::Granted) { vec![holder] } else { vec![] };
        let lock = serde_json::json!({"pool": "p", "lock": name, "state": state, "labels": {}, "holders": holders});
        serde_json::from_value(lock).unwrap()
    }

    fn claimed(name: &str) -> ChangeView {
        let locks = [serde_json::json!({"pool": "p", "lock": name})];
        let change = serde_json::json!({"revision": 1, "at": "", "kind": "claimed", "pools": ["p"], "locks": locks});
        serde_json::from_value(change).unwrap()
    }

    #[test]
    fn states() {
        use LockState::{Draining, Free, Granted, Held};
        // States of the locks, waiters: free, held, full, empty.
        let cases: &[(&[LockState], usize, [bool; 4])] = &[
            (&[Free], 0, [true, false, false, true]),
            (&[Free], 1, [true, false, false, false]),
            (&[Held], 0, [false, true, true, false]),
            (&[Granted], 0, [false, false, true, false]),
            (&[Draining], 0, [false, false, true, true]),
            (&[Free, Held], 0, [true, true, false, false]),
            (&[], 0, [false, false, true, true]),
        ];
        for (states, waiting, expected) in cases {
            let locks = states.iter().enumerate().map(|(n, state)| lock(&n.to_string(), *state)).collect();
            let look = Look { locks, waiting: *waiting, news: Vec::new() };
            let found = [Until::Free, Until::Held, Until::Full, Until::Empty].map(|until| until.holds(&look));
            assert_eq!(found, *expected, "{states:?}");
        }
        // A hold that came and went between two looks counts.
        let look = |name| Look { locks: vec![lock("0", Free)], waiting: 0, news: vec![claimed(name)] };
        assert!(Until::Held.holds(&look("0")) && !Until::Held.holds(&look("1")));
    }
}
