//! Acquiring locks as a person: what `claim` and `run` have in common.

use std::sync::Arc;

use clap::Args;

use super::output::{CliError, say};
use super::values::{Limit, parse_label, person};
use crate::client::acquire::{Acquire, Cancelled, Stop, Stopped, Timing};
use crate::client::interruptible::Interruptible;
use crate::client::progress::{Moment, Pace, Progress};
use crate::client::{CallError, Client, when, who};
use crate::core::names::{LockName, PoolName};
use crate::env::Env;
use crate::wire::api::{ClaimBody, ClaimView, Scope};
use crate::wire::errors::exit;

/// What to acquire.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// Pool to take locks from
    pool: PoolName,
    /// Take this lock; may be repeated: takes all of them or none
    #[arg(long = "lock", value_name = "NAME")]
    locks: Vec<LockName>,
    /// Take N locks, any that are free
    #[arg(long, value_name = "N", conflicts_with = "locks", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Only locks with this label; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label, conflicts_with = "locks")]
    labels: Vec<(String, String)>,
    /// Share the lock with everybody who claims it with the same key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// In pools with --order priority, higher numbers are served first (-1000 to 1000, default 0)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// End older waiting claims with the same NAME: your own, or everybody's if NAME begins with /
    #[arg(long, value_name = "NAME")]
    supersede: Option<String>,
    /// The reason, shown to everybody who waits for the lock
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl RequestArgs {
    /// The pool to take locks from.
    pub(super) fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// The request of the person at the command line.
    pub(super) fn body(&self, scope: Scope, env: &Env<'_>) -> ClaimBody {
        let mut locks: Vec<String> = self.locks.iter().map(|lock| lock.as_str().to_owned()).collect();
        ClaimBody {
            lock: if locks.len() == 1 { locks.pop() } else { None },
            locks: (!locks.is_empty()).then_some(locks),
            count: self.count,
            labels: self.labels.iter().cloned().collect(),
            key: self.key.clone(),
            scope: Some(scope),
            priority: self.priority,
            supersede: self.supersede.clone(),
            owner: person(env),
            confirm: true,
            reason: self.reason.clone(),
            ..ClaimBody::of_pool(self.pool.as_str().to_owned())
        }
    }
}

/// How this process asks for its claim.
pub(super) struct Acquiring<'a> {
    pub client: &'a Client,
    pub interruptible: &'a Interruptible,
    pub timing: Timing,
    pub id: &'a str,
    pub run: &'a str,
}

impl Acquiring<'_> {
    /// Asks until the claim holds its locks, and tells what it waits for whenever that changes. `limit` is the flag
    /// that limits the wait, and its value.
    ///
    /// # Errors
    /// Nothing is held: somebody else holds the lock, the time is over, a signal arrived, or the server refused.
    pub(super) fn hold(&self, body: ClaimBody, limit: Option<Limit>, env: &mut Env<'_>) -> Result<ClaimView, CliError> {
        let acquire = Acquire {
            client: self.client,
            interruptible: self.interruptible,
            clock: Arc::clone(&env.clock),
            id: self.id,
            run: self.run,
            body,
            timing: self.timing,
            timeout: limit.map(|limit| limit.span),
            // A person has no build to wait for.
            self_wait: None,
        };
        let mut progress = Progress::new(Pace::of_terminal(env).map_err(CliError::usage)?);
        let held = acquire.run(&mut |news| {
            let lines = progress.lines(news, Moment::of(&*env.clock));
            lines.iter().for_each(|line| say(env, line));
        });
        let held = held.map(|held| held.claim).map_err(|stopped| explain(env, self.client, self.id, limit, stopped))?;
        who::new_pools(&held).iter().for_each(|line| say(env, line));
        Ok(held)
    }
}

/// Why nothing is held, and whether the claim was taken back.
fn explain(env: &mut Env<'_>, client: &Client, id: &str, limit: Option<Limit>, stopped: Stopped) -> CliError {
    // A grant of which nobody has heard is withdrawn.
    if let Cancelled::Unknown(why) = &stopped.cancelled
        && client.has_met()
    {
        say(env, &format!("claim {id} could not be taken back: {why}"));
    }
    match stopped.why {
        Stop::Signalled(signal) => {
            say(env, &format!("{} received: nothing is held", signal.name()));
            CliError::Signalled(signal)
        }
        Stop::TimeOver(_) => {
            let after = limit.map(|limit| format!(" after {limit}")).unwrap_or_default();
            CliError::Failed(exit::LOCKED, format!("gave up{after}; nothing is held"))
        }
        Stop::Unanswered(why) => CallError::NoAnswer(why).into(),
        Stop::Hopeless(why) => CallError::Hopeless(why).into(),
        Stop::Locked(view) | Stop::SelfWait(view) => {
            let (held, lines) = who::held(&view.holders, view.holder_count, when::now(&*env.clock));
            lines.iter().for_each(|line| say(env, line));
            let held = held.unwrap_or(view.error);
            CliError::Failed(exit::LOCKED, format!("not free; {held}"))
        }
        Stop::Refused(refused) => CallError::Refused(refused).into(),
    }
}
