//! `locker claim`: takes locks by hand.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{CliError, parse_duration, parse_label, person, print_json, print_line, say};
use crate::client::acquire::{Acquire, Cancelled, News, Stop, Stopped, Timing};
use crate::client::flight::Flights;
use crate::client::{CallError, Client, who};
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::{Env, random_hex};
use crate::wire::api::{ClaimBody, Scope};
use crate::wire::concourse::api_duration;
use crate::wire::errors::exit;
use crate::wire::problems::unknown;

/// What is asked, here and in `run`.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// The pool to take locks of
    pool: PoolName,
    /// Take this lock; several times for several, all or nothing
    #[arg(long = "lock", value_name = "NAME")]
    locks: Vec<LockName>,
    /// Take so many locks, whichever are free
    #[arg(long, value_name = "N", conflicts_with = "locks", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Only locks with this label; several times for several labels
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label, conflicts_with = "locks")]
    labels: Vec<(String, String)>,
    /// Share the lock with all who claim it with the same key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// In pools ordered by priority, higher ones come first (-1000 to 1000, default 0)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// End older waiting claims of this name; of your own ones, or of everybody when it begins with /
    #[arg(long, value_name = "NAME")]
    supersede: Option<String>,
    /// Why, for those who wait for it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `claim`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker claim environments                        any free lock; waits for it
  locker claim environments --lock eu-1 --try      now or never (exit 3)
  locker claim environments --count 2 --label region=eu --wait 10m --ttl 2h --reason 'load test'
  id=$(locker claim environments) && run-it; locker release \"$id\"")]
pub(super) struct ClaimArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Wait at most this long (default: as long as it takes)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Do not wait: now or never
    #[arg(long = "try", conflicts_with = "wait")]
    once: bool,
    /// Let the server end the wait after this, also when this program is gone
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    give_up: Option<Duration>,
    /// What ends the hold besides a release and --ttl: person (default), flow, build or lease
    #[arg(long, value_name = "SCOPE", value_parser = parse_scope)]
    scope: Option<Scope>,
    /// Let the server take the lock back after this
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Id of the claim (default: random); the same id again finds the same claim
    #[arg(long, value_name = "ID")]
    id: Option<ClaimId>,
    /// Print the whole claim as JSON instead of its id
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ClaimArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let timing = Timing::of(env).map_err(CliError::usage)?;
    let flights = Flights::new(&env.signals);
    let id = args.id.as_ref().map_or_else(random_hex::<20>, |id| id.as_str().to_owned());
    let run = random_hex::<16>();
    let acquire = Acquire {
        client,
        flights: &flights,
        clock: Arc::clone(&env.clock),
        id: &id,
        run: &run,
        body: body(args, env),
        timing,
        timeout: args.wait,
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
    let held = match held {
        Ok(held) => held,
        Err(stopped) => return explain(env, &id, stopped),
    };
    for lock in &held.claim.locks {
        say(env, &format!("holding {:?} of pool {:?}", lock.lock, lock.pool));
    }
    if args.json {
        print_json(env, &held.claim)?;
    } else {
        print_line(env, &held.claim.id)?;
    }
    Ok(exit::OK)
}

fn body(args: &ClaimArgs, env: &Env<'_>) -> ClaimBody {
    ClaimBody {
        queue: !args.once,
        give_up_after: args.give_up.map(api_duration),
        ttl: args.ttl.map(api_duration),
        ..args.ask.body(args.scope.unwrap_or(Scope::Person), env)
    }
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    match text {
        "person" => Ok(Scope::Person),
        "flow" => Ok(Scope::Flow),
        "build" => Ok(Scope::Build),
        "lease" => Ok(Scope::Lease),
        other => Err(unknown("scope", other, &["person", "flow", "build", "lease"])),
    }
}

impl AskArgs {
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

/// What happens while it waits, in one line.
pub(super) fn line(news: &News<'_>) -> String {
    match news {
        News::NoAnswer(why) => format!("{why}; asking again"),
        News::Waiting(view) => match view.claim.as_ref().and_then(|claim| claim.queue.as_ref()) {
            Some(queue) => format!("waiting: {}", who::queue(queue)),
            None => format!("waiting: {}", who::holders(&view.holders)),
        },
    }
}

/// Why nothing is held; after a signal the exit code says so alone.
pub(super) fn explain(env: &mut Env<'_>, id: &str, stopped: Stopped) -> Result<u8, CliError> {
    if let Cancelled::Unknown(why) = &stopped.cancelled {
        say(env, &format!("claim {id} could not be taken back: {why}"));
    }
    match stopped.why {
        Stop::Signalled(signal) => {
            say(env, &format!("{} received: nothing is held", signal.name()));
            Ok(signal.exit_code())
        }
        Stop::TimeOver(_) => Err(CliError::Failed(exit::LOCKED, "not served in time: nothing is held".to_owned())),
        Stop::Locked(view) | Stop::SelfWait(view) => {
            Err(CliError::Failed(exit::LOCKED, format!("not free; held: {}", who::holders(&view.holders))))
        }
        Stop::Refused(refused) => Err(CallError::Refused(refused).into()),
    }
}
