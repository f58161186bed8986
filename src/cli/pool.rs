//! `locker pool set|list|remove`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::output::{CliError, print_json, print_line};
use super::status;
use super::values::{by, parse_duration};
use crate::client::Client;
use crate::core::names::PoolName;
use crate::env::Env;
use crate::wire::api::{Order, Pick, Policy, PoolBody, RemoveBody, Scope, WhenEmpty};
use crate::wire::errors::exit;
use crate::wire::problems::unknown;
use crate::wire::text::api_duration;

/// Arguments of `pool`.
#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    #[command(subcommand)]
    command: PoolCommand,
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    /// Declare a pool, or replace its policy
    #[command(
        after_help = "Examples:\n  locker pool set environments --capacity 3\n  locker pool set licences --drain 2m --max-hold 4h"
    )]
    Set(SetArgs),
    /// List all pools
    List {
        /// Print the server's own JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a pool that nobody holds or waits for
    Remove {
        /// Pool to remove
        pool: PoolName,
        /// The reason, shown in the history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Pool to declare
    pool: PoolName,
    /// Give the pool the locks 1 to N
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,
    /// Who is served first: fifo (default), priority (then fifo) or lifo
    #[arg(long, value_name = "ORDER", value_parser = parse_order)]
    order: Option<Order>,
    /// Whether small claims may overtake claims that cannot be served yet: strict (default: they may not), backfill, or
    /// backfill:N (each claim may be overtaken at most N times)
    #[arg(long, value_name = "HOW")]
    overtaking: Option<String>,
    // Not a doc comment, where the underscore would need backticks.
    #[arg(
        long,
        value_name = "HOW",
        value_parser = parse_pick,
        help = "Which free lock is given: least_recent (default), random or name"
    )]
    pick: Option<Pick>,
    /// How long a lock stays out of use after its holder is lost
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    drain: Option<Duration>,
    /// The longest hold; after this time the lock is taken back
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_hold: Option<Duration>,
    /// Most claims that may wait at once
    #[arg(long, value_name = "N")]
    max_queue: Option<u32>,
    /// What ends the hold of a claim without a scope of its own: flow (default), build or person
    #[arg(long, value_name = "SCOPE", value_parser = parse_scope)]
    scope: Option<Scope>,
    // Not a doc comment, where the underscore would need backticks.
    #[arg(
        long,
        value_name = "HOW",
        value_parser = parse_when_empty,
        help = "Claims for locks that the pool does not have: wait or fail (default: only an acquire by the resource waits, while the pool is empty)"
    )]
    when_empty: Option<WhenEmpty>,
    /// The reason, shown in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &PoolArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        PoolCommand::Set(args) => set(args, client, env)?,
        PoolCommand::List { json } => {
            let pools = client.list_pools()?;
            if *json { print_json(env, &pools)? } else { status::show_pools(env, &pools)? }
        }
        PoolCommand::Remove { pool, reason } => {
            let body = RemoveBody { claim: None, by: Some(by(env, reason.as_ref())) };
            client.delete_pool(pool.as_str(), &body)?;
            print_line(env, &format!("removed pool {pool:?}"))?;
        }
    }
    Ok(exit::OK)
}

fn parse_order(text: &str) -> Result<Order, String> {
    match text {
        "fifo" => Ok(Order::Fifo),
        "priority" => Ok(Order::Priority),
        "lifo" => Ok(Order::Lifo),
        other => Err(unknown("order", other, &["fifo", "priority", "lifo"])),
    }
}

fn parse_pick(text: &str) -> Result<Pick, String> {
    match text {
        "least_recent" => Ok(Pick::LeastRecent),
        "random" => Ok(Pick::Random),
        "name" => Ok(Pick::Name),
        other => Err(unknown("pick", other, &["least_recent", "random", "name"])),
    }
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    match text {
        "flow" => Ok(Scope::Flow),
        "build" => Ok(Scope::Build),
        "person" => Ok(Scope::Person),
        other => Err(unknown("scope", other, &["flow", "build", "person"])),
    }
}

fn parse_when_empty(text: &str) -> Result<WhenEmpty, String> {
    match text {
        "wait" => Ok(WhenEmpty::Wait),
        "fail" => Ok(WhenEmpty::Fail),
        other => Err(unknown("value", other, &["wait", "fail"])),
    }
}

fn set(args: &SetArgs, client: &Client, env: &mut Env<'_>) -> Result<(), CliError> {
    let policy = Policy {
        order: args.order,
        overtaking: args.overtaking.clone(),
        pick: args.pick,
        drain: args.drain.map(api_duration),
        max_hold: args.max_hold.map(api_duration),
        max_queue: args.max_queue,
        scope: args.scope,
        when_empty: args.when_empty,
    };
    let body = PoolBody { policy, capacity: args.capacity, by: Some(by(env, args.reason.as_ref())) };
    client.put_pool(args.pool.as_str(), &body)?;
    print_line(env, &format!("pool {:?} is set", args.pool))
}
