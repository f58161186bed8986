//! `locker status`: who holds what, and who waits.

use clap::Args;

use super::output::{CliError, is_coloured, print_json};
use super::pool_words::policy_words;
use super::table::{self, Tone, cell, toned};
use crate::client::{Client, when, who};
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::api::{HolderView, LockState, LockView, PoolSummary, PoolView, QuarantineView};
use crate::wire::errors::Code;
use crate::wire::errors::exit;
use crate::wire::escape::escape;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  locker status\n  locker status environments\n  locker status environments --json")]
pub(super) struct StatusArgs {
    /// Show the locks and the queue of this pool
    pool: Option<String>,
    /// Print the server's own JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.pool {
        None => {
            let pools = client.list_pools()?;
            if args.json { print_json(env, &pools)? } else { show_pools(env, &pools)? }
        }
        Some(pool) => {
            let view = client.get_pool(pool)?;
            if args.json { print_json(env, &view)? } else { show_pool(env, &view)? }
        }
    }
    Ok(exit::OK)
}

/// How tables are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub coloured: bool,
    /// For times that are shown as "so long ago".
    pub now: WallMs,
}

impl Look {
    /// For standard output.
    pub(super) fn of(env: &Env<'_>) -> Self {
        Self { coloured: is_coloured(env), now: when::now(&*env.clock) }
    }
}

/// The table of pools; also what `pool list` shows.
pub(super) fn show_pools(env: &mut Env<'_>, pools: &[PoolSummary]) -> Result<(), CliError> {
    print_text(env, &pools_text(pools, Look::of(env)))
}

fn show_pool(env: &mut Env<'_>, view: &PoolView) -> Result<(), CliError> {
    print_text(env, &pool_text(view, Look::of(env)))
}

fn print_text(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    env.stdout.write_all(text.as_bytes())?;
    Ok(env.stdout.flush()?)
}

/// The table of pools as text.
pub(super) fn pools_text(pools: &[PoolSummary], look: Look) -> String {
    if pools.is_empty() {
        return "no pools yet: the first claim creates one, or use `locker pool set NAME --capacity N`\n".to_owned();
    }
    let row = |pool: &PoolSummary| {
        let tone = if pool.free > 0 { Tone::Good } else { Tone::Busy };
        let free = toned(pool.free.to_string(), tone);
        let policy = policy_words(&pool.policy).unwrap_or_default();
        [cell(&pool.pool), cell(pool.locks.to_string()), free, cell(pool.waiting.to_string()), cell(policy)]
    };
    table::text(["POOL", "LOCKS", "FREE", "WAITING", "POLICY"], pools.iter().map(row).collect(), look.coloured)
}

/// Locks, holders and queue of a pool as text.
pub(super) fn pool_text(view: &PoolView, look: Look) -> String {
    let PoolSummary { pool, locks, free, waiting, .. } = &view.summary;
    let mut text = format!("pool {pool:?}: {locks} locks, {free} free, {waiting} waiting\n");
    text.extend(policy_words(&view.summary.policy).map(|words| format!("policy: {}\n", escape(&words))));
    let rows = view.items.iter().flat_map(|lock| lock_rows(lock, look.now)).collect();
    text += &table::text(["LOCK", "STATE", "HOLDER", "SINCE", "CLAIM"], rows, look.coloured);
    if view.queue.is_empty() {
        return text;
    }
    let rows = view.queue.iter().enumerate().map(|(place, waiter)| {
        let owner = who::owner(&waiter.owner, "-");
        let state = match waiter.stuck {
            Some(Code::SelfWait) => "waits for its own build",
            Some(_) => "deadlock: builds wait for each other",
            None if waiter.listening && waiter.lacks.is_some() => "waits for a lock to be added",
            None if waiter.listening => "",
            None => "away",
        };
        [cell((place + 1).to_string()), cell(owner), cell(&waiter.asked_at), cell(&waiter.claim), cell(state)]
    });
    text.push('\n');
    text + &table::text(["PLACE", "WAITING", "SINCE", "CLAIM", ""], rows.collect(), look.coloured)
}

/// Who took a lock out of service, until when and why.
fn out_of_service(quarantine: &QuarantineView) -> String {
    let mut words = vec![format!("out of service by {}", quarantine.by.as_deref().unwrap_or("somebody"))];
    words.extend(quarantine.until.as_ref().map(|until| format!("until {until}")));
    words.extend(quarantine.reason.as_ref().map(|reason| format!("because {reason:?}")));
    words.join(", ")
}

/// One row for each holder, or a single row if nobody holds the lock.
fn lock_rows(lock: &LockView, now: WallMs) -> Vec<[table::Cell; 5]> {
    let (word, tone) = match lock.state {
        LockState::Free => ("free", Tone::Good),
        LockState::Granted => ("granted", Tone::Busy),
        LockState::Held => ("held", Tone::Busy),
        LockState::Draining => ("draining", Tone::Busy),
        LockState::Quarantined => ("quarantined", Tone::Busy),
    };
    let mut word = word.to_owned();
    if lock.leaving {
        word.push_str(", leaving");
    }
    if lock.quarantine.is_some() && !lock.holders.is_empty() {
        word.push_str(", then quarantined");
    }
    if lock.holders.is_empty() {
        let why = lock.quarantine.as_ref().map_or_else(|| "-".to_owned(), out_of_service);
        let since = lock.quarantine.as_ref().map_or("-", |quarantine| &quarantine.since);
        return vec![[cell(&lock.lock), toned(word, tone), cell(why), cell(since), cell("-")]];
    }
    let row = |holder: &HolderView| {
        let mut who = vec![who::owner(&holder.owner, "-")];
        who.extend(holder.key.as_ref().map(|key| format!("key {key:?}")));
        who.extend(holder.build_ended.as_ref().map(|ended| who::build_ended(ended, now)));
        who.extend(holder.suspect.as_ref().map(|s| format!("not known to be alive since {} ({})", s.since, s.why)));
        who.extend(holder.until.as_ref().map(|until| format!("until {until}")));
        who.extend(holder.reason.as_ref().map(|reason| format!("because {reason:?}")));
        let since = holder.since.as_deref().unwrap_or("-");
        [cell(&lock.lock), toned(&word, tone), cell(who.join(", ")), cell(since), cell(&holder.claim)]
    };
    lock.holders.iter().map(row).collect()
}
