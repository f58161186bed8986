//! Acquiring for locks as a person: what `claim` and `run` have in common.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::output::{CliError, say};
use super::values::{parse_label, person};
use crate::client::acquire::{Acquire, Cancelled, News, Stop, Stopped, Timing};
use crate::client::interruptible::Interruptible;
use crate::client::{CallError, Client, who};
use crate::core::names::{LockName, PoolName};
use crate::env::Env;
use crate::wire::api::{ClaimBody, ClaimView, Scope};
use crate::wire::errors::exit;

/// What is asked.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The pool to take locks of
    pool: PoolName,
    /// Take this lock; may be repeated: all of them or none
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
    /// In pools with order: priority, higher numbers come first (-1000 to 1000, default 0)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// End older waiting claims of this name: your own, or everybody's when NAME begins with /
    #[arg(long, value_name = "NAME")]
    supersede: Option<String>,
    /// The reason, shown to those who wait for the lock
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl RequestArgs {
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

/// A claim of this process, and how it is asked for.
pub(super) struct Acquiring<'a> {
    pub client: &'a Client,
    pub interruptible: &'a Interruptible,
    pub timing: Timing,
    pub id: &'a str,
    pub run: &'a str,
}

impl Acquiring<'_> {
    /// Asks until the claim holds its locks, for at most `timeout`, and says what there is to wait for when that has
    /// changed.
    ///
    /// # Errors
    /// Nothing is held: somebody else has it, the time is over, a signal came, or the server refuses.
    pub(super) fn hold(
        &self,
        body: ClaimBody,
        timeout: Option<Duration>,
        env: &mut Env<'_>,
    ) -> Result<ClaimView, CliError> {
        let acquire = Acquire {
            client: self.client,
            interruptible: self.interruptible,
            clock: Arc::clone(&env.clock),
            id: self.id,
            run: self.run,
            body,
            timing: self.timing,
            timeout,
            // A person has no build to wait for.
            self_wait: None,
        };
        let mut last = String::new();
        let held = acquire.run(&mut |news| {
            let line = line(news);
            if line != last {
                say(env, &line);
                last = line;
            }
        });
        held.map(|held| held.claim).map_err(|stopped| explain(env, self.id, stopped))
    }
}

/// What happens while it waits, in one line.
fn line(news: &News<'_>) -> String {
    match news {
        News::NoAnswer(why) => format!("{why}; asking again"),
        News::Waiting(view) => match view.claim.as_ref().and_then(|claim| claim.queue.as_ref()) {
            Some(queue) => format!("waiting: {}", who::queue(queue)),
            None => format!("waiting: {}", who::holders(&view.holders)),
        },
    }
}

/// Why nothing is held, and what became of the claim.
fn explain(env: &mut Env<'_>, id: &str, stopped: Stopped) -> CliError {
    if let Cancelled::Unknown(why) = &stopped.cancelled {
        say(env, &format!("claim {id} could not be taken back: {why}"));
    }
    match stopped.why {
        Stop::Signalled(signal) => {
            say(env, &format!("{} received: nothing is held", signal.name()));
            CliError::Signalled(signal)
        }
        Stop::TimeOver(_) => CliError::Failed(exit::LOCKED, "the time is over: nothing is held".to_owned()),
        Stop::Unanswered(why) => CallError::NoAnswer(why).into(),
        Stop::Locked(view) | Stop::SelfWait(view) => {
            CliError::Failed(exit::LOCKED, format!("not free; held: {}", who::holders(&view.holders)))
        }
        Stop::Refused(refused) => CallError::Refused(refused).into(),
    }
}
