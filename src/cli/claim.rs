//! `locker claim`: takes locks by hand.

use std::time::Duration;

use clap::Args;

use super::claim_request::{Acquiring, RequestArgs};
use super::output::{CliError, print_json, print_line, say};
use super::values::{Limit, parse_duration};
use crate::client::Client;
use crate::client::acquire::Timing;
use crate::client::interruptible::Interruptible;
use crate::core::names::ClaimId;
use crate::env::{Env, random_hex};
use crate::wire::api::{ClaimBody, Scope};
use crate::wire::errors::exit;
use crate::wire::problems::unknown;
use crate::wire::text::api_duration;

/// Arguments of `claim`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker claim environments                        any free lock; waits for it
  locker claim environments --lock eu-1 --try      do not wait (exit 3)
  locker claim environments --count 2 --label region=eu --wait 10m --ttl 2h --reason 'load test'
  id=$(locker claim environments) && run-it; locker release \"$id\"")]
pub(super) struct ClaimArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Wait at most this long (default: no limit)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Do not wait: take the lock now or fail
    #[arg(long = "try", conflicts_with = "wait")]
    once: bool,
    /// Let the server end the wait after this time, even if this program is gone by then
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    give_up: Option<Duration>,
    /// What ends the hold, in addition to a release and --ttl: person (default), flow, build or lease
    #[arg(long, value_name = "SCOPE", value_parser = parse_scope)]
    scope: Option<Scope>,
    /// Let the server take the lock back after this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Id of the claim (default: random); the same id finds the same claim again
    #[arg(long, value_name = "ID")]
    id: Option<ClaimId>,
    /// Print the whole claim as JSON instead of its id
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ClaimArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let timing = Timing::of(env).map_err(CliError::usage)?;
    let interruptible = Interruptible::new(&env.signals);
    let id = args.id.as_ref().map_or_else(random_hex::<20>, |id| id.as_str().to_owned());
    let acquiring = Acquiring { client, interruptible: &interruptible, timing, id: &id, run: &random_hex::<16>() };
    let limit = args.wait.map(|span| Limit { flag: "--wait", span });
    let held = acquiring.hold(body(args, env), limit, env)?;
    for lock in &held.locks {
        say(env, &format!("holding {:?} of pool {:?}", lock.lock, lock.pool));
    }
    if args.json {
        print_json(env, &held)?;
    } else {
        print_line(env, &held.id)?;
    }
    Ok(exit::OK)
}

fn body(args: &ClaimArgs, env: &Env<'_>) -> ClaimBody {
    ClaimBody {
        queue: !args.once,
        give_up_after: args.give_up.map(api_duration),
        ttl: args.ttl.map(api_duration),
        ..args.request.body(args.scope.unwrap_or(Scope::Person), env)
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
