//! `locker pool set|apply|list|remove`.

use clap::{Args, Subcommand};

use super::output::{CliError, print_json, print_line};
use super::pool_words::policy_words;
use super::values::{by, parse_duration};
use super::{pool_apply, status};
use crate::client::Client;
use crate::core::names::PoolName;
use crate::env::Env;
use crate::wire::api::{
    CutShort, LockView, Order, Pick, Policy, PoolChangeBody, PoolView, RemoveBody, Rule, Scope, WhenEmpty,
};
use crate::wire::errors::exit;
use crate::wire::problems::unknown;
use crate::wire::text::api_duration;

/// The word that sets a rule to its default.
const DEFAULT: &str = "default";

/// Arguments of `pool`.
#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    #[command(subcommand)]
    command: PoolCommand,
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    /// Declare a pool, or change the given rules of its policy; says what the pool has now
    #[command(
        after_help = "Rules that are not named stay. The word default as a value sets a rule to its default.\n\nExamples:\n  locker pool set environments --capacity 3\n  locker pool set licences --drain 2m --max-hold 4h\n  locker pool set licences --max-hold default"
    )]
    Set(SetArgs),
    /// Make pools as a file declares them
    Apply(pool_apply::ApplyArgs),
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
    /// Pool to declare or change
    pool: PoolName,
    /// Give the pool N locks, 1 to N; locks with other names stay
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,
    /// Who is served first: fifo (default), priority (then fifo) or lifo
    #[arg(long, value_name = "ORDER", value_parser = or_default(&ORDER))]
    order: Option<Choice<Order>>,
    /// Whether small claims may overtake claims that cannot be served yet: strict (default: they may not), backfill, or
    /// backfill:N (each claim may be overtaken at most N times)
    #[arg(long, value_name = "HOW", value_parser = parse_overtaking)]
    overtaking: Option<Choice<String>>,
    // Not a doc comment, where the underscore would need backticks.
    #[arg(
        long,
        value_name = "HOW",
        value_parser = or_default(&PICK),
        help = "Which free lock is given: least_recent (default), random or name"
    )]
    pick: Option<Choice<Pick>>,
    /// How long a lock stays out of use after its holder is lost
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    drain: Option<Choice<String>>,
    /// The longest hold; after this time the lock is taken back
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    max_hold: Option<Choice<String>>,
    /// Most claims that may wait at once
    #[arg(long, value_name = "N", value_parser = parse_number)]
    max_queue: Option<Choice<u32>>,
    /// What ends the hold of a claim without a scope of its own: flow (default), build or person
    #[arg(long, value_name = "SCOPE", value_parser = or_default(&SCOPE))]
    scope: Option<Choice<Scope>>,
    // Not a doc comment, where the underscore would need backticks.
    #[arg(
        long,
        value_name = "HOW",
        value_parser = or_default(&WHEN_EMPTY),
        help = "Claims for locks that the pool does not have: wait or fail (default: only an acquire by the resource waits, while the pool is empty)"
    )]
    when_empty: Option<Choice<WhenEmpty>>,
    /// A hold that no other build has fetched when its build is errored, aborted or gone: end (default) or keep
    #[arg(long, value_name = "HOW", value_parser = or_default(&CUT_SHORT))]
    cut_short: Option<Choice<CutShort>>,
    /// Set all rules that are not named to their defaults
    #[arg(long)]
    reset: bool,
    /// The reason, shown in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What a flag sets a rule to.
#[derive(Debug, Clone)]
enum Choice<T> {
    /// The word `default`.
    Default,
    Value(T),
}

/// The words of a rule.
type Words<T> = &'static [(&'static str, T)];

const ORDER: Words<Order> = &[("fifo", Order::Fifo), ("priority", Order::Priority), ("lifo", Order::Lifo)];
const PICK: Words<Pick> = &[("least_recent", Pick::LeastRecent), ("random", Pick::Random), ("name", Pick::Name)];
const SCOPE: Words<Scope> = &[("flow", Scope::Flow), ("build", Scope::Build), ("person", Scope::Person)];
const CUT_SHORT: Words<CutShort> = &[("end", CutShort::End), ("keep", CutShort::Keep)];
const WHEN_EMPTY: Words<WhenEmpty> = &[("wait", WhenEmpty::Wait), ("fail", WhenEmpty::Fail)];

/// Reads one of these words, or `default`.
fn or_default<T: Copy + Send + Sync>(
    words: &'static Words<T>,
) -> impl Fn(&str) -> Result<Choice<T>, String> + Clone + Send + Sync + 'static {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        match found {
            Some((_, value)) => Ok(Choice::Value(*value)),
            None if text == DEFAULT => Ok(Choice::Default),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).chain([DEFAULT]).collect();
                Err(unknown("value", text, &known))
            }
        }
    }
}

fn parse_span(text: &str) -> Result<Choice<String>, String> {
    match text {
        DEFAULT => Ok(Choice::Default),
        text => parse_duration(text).map(|span| Choice::Value(api_duration(span))),
    }
}

fn parse_number(text: &str) -> Result<Choice<u32>, String> {
    match text {
        DEFAULT => Ok(Choice::Default),
        text => text.parse().map(Choice::Value).map_err(|_| "must be a number or default".to_owned()),
    }
}

/// The server checks the value.
#[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
fn parse_overtaking(text: &str) -> Result<Choice<String>, String> {
    Ok(if text == DEFAULT { Choice::Default } else { Choice::Value(text.to_owned()) })
}

pub(super) fn run(args: &PoolArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        PoolCommand::Set(args) => set(args, client, env)?,
        PoolCommand::Apply(args) => return pool_apply::run(args, client, env),
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

fn set(args: &SetArgs, client: &Client, env: &mut Env<'_>) -> Result<(), CliError> {
    let mut defaults = Vec::new();
    let policy = Policy {
        order: chosen(args.order.as_ref(), Rule::Order, &mut defaults),
        overtaking: chosen(args.overtaking.as_ref(), Rule::Overtaking, &mut defaults),
        pick: chosen(args.pick.as_ref(), Rule::Pick, &mut defaults),
        drain: chosen(args.drain.as_ref(), Rule::Drain, &mut defaults),
        max_hold: chosen(args.max_hold.as_ref(), Rule::MaxHold, &mut defaults),
        max_queue: chosen(args.max_queue.as_ref(), Rule::MaxQueue, &mut defaults),
        scope: chosen(args.scope.as_ref(), Rule::Scope, &mut defaults),
        when_empty: chosen(args.when_empty.as_ref(), Rule::WhenEmpty, &mut defaults),
        cut_short: chosen(args.cut_short.as_ref(), Rule::CutShort, &mut defaults),
    };
    let by = Some(by(env, args.reason.as_ref()));
    let body = PoolChangeBody { policy, defaults, reset: args.reset, capacity: args.capacity, by };
    client.patch_pool(args.pool.as_str(), &body)?;
    for line in now_has(&client.get_pool(args.pool.as_str())?) {
        print_line(env, &line)?;
    }
    Ok(())
}

/// The value of a flag. A flag that says `default` puts its rule on the list.
fn chosen<T: Clone>(choice: Option<&Choice<T>>, rule: Rule, defaults: &mut Vec<Rule>) -> Option<T> {
    match choice {
        None => None,
        Some(Choice::Value(value)) => Some(value.clone()),
        Some(Choice::Default) => {
            defaults.push(rule);
            None
        }
    }
}

/// How many names of locks a line lists at most.
const LOCKS_NAMED: usize = 10;

/// What a pool has now, in a few lines.
fn now_has(view: &PoolView) -> Vec<String> {
    let name = &view.summary.pool;
    let leaving = |lock: &&LockView| lock.leaving;
    let stay: Vec<&str> = view.items.iter().filter(|lock| !lock.leaving).map(|lock| lock.lock.as_str()).collect();
    let locks = match stay.len() {
        0 => "no locks (give it some with --capacity N or `locker lock add`)".to_owned(),
        1 => format!("1 lock: {}", stay[0]),
        n if n <= LOCKS_NAMED => format!("{n} locks: {}", stay.join(", ")),
        n => format!("{n} locks: {}, ... and {} more", stay[..LOCKS_NAMED].join(", "), n - LOCKS_NAMED),
    };
    let mut lines = vec![
        format!("pool {name:?} has {locks}"),
        format!("policy: {}", policy_words(&view.summary.policy).unwrap_or_else(|| "all defaults".to_owned())),
    ];
    for lock in view.items.iter().filter(leaving) {
        let less = if lock.implicit { "; until then the pool gives out one lock less" } else { "" };
        lines.push(format!("lock {:?} leaves the pool when its hold has ended{less}", lock.lock));
    }
    lines
}
