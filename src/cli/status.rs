//! `locker status`: who holds what, and who waits.

use clap::{Args, ValueEnum};

use super::output::{CliError, print_json};
use super::pool_words::policy_words;
use super::table::{self, Look, Tone, cell, toned};
use super::watch;
use crate::client::{Client, when, who};
use crate::env::Env;
use crate::wire::api::{HolderView, LockState, LockView, PoolSummary, PoolView, QuarantineView, WaiterView};
use crate::wire::errors::Code;
use crate::wire::errors::exit;
use crate::wire::escape::escape;
use crate::wire::text::counted;

/// How many waiters the view of a pool shows unless all are asked for: one screen.
const WAITERS_SHOWN: usize = 20;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker status
  locker status --waiting --sort wait     pools with waiters, the longest wait first
  locker status environments
  locker status environments --waiting    the whole queue
  locker status environments --watch
  locker status environments --json")]
pub(super) struct StatusArgs {
    /// Show the locks and the queue of this pool
    pool: Option<String>,
    /// Only pools in which somebody waits; of a pool, only its whole queue
    #[arg(long)]
    waiting: bool,
    /// What comes first in the list: the name, the most waiters, the longest wait or hold, the fewest free locks
    #[arg(long, value_name = "BY", default_value = "name", conflicts_with = "pool")]
    sort: Sort,
    /// Print the server's own JSON
    #[arg(long)]
    json: bool,
    /// Go on watching, like `locker watch`
    #[arg(long, conflicts_with_all = ["json", "waiting", "sort"])]
    watch: bool,
}

/// The order of the list of pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Sort {
    #[default]
    Name,
    // The most waiters first.
    Waiting,
    // The longest first.
    Wait,
    Hold,
    // The fewest free locks first.
    Free,
}

/// Which part of a pool is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Only its queue, but all of it.
    pub queue: bool,
}

pub(super) fn run(args: &StatusArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let look = Look::of(env);
    if args.watch {
        return watch::run(&watch::WatchArgs::of(args.pool.as_deref())?, client, env);
    }
    match &args.pool {
        None => {
            let mut pools = client.list_pools()?;
            let all = pools.len();
            pools.retain(|pool| !args.waiting || pool.waiting > 0);
            sort(&mut pools, args.sort);
            match (args.json, pools.is_empty() && all > 0) {
                (true, _) => print_json(env, &pools)?,
                (false, true) => print_text(env, &format!("nobody waits in {}\n", counted(all, "pool")))?,
                (false, false) => print_text(env, &pools_text(&pools, look))?,
            }
        }
        Some(pool) => {
            let view = client.get_pool(pool)?;
            let shown = Shown { queue: args.waiting };
            if args.json { print_json(env, &view)? } else { print_text(env, &pool_text(&view, &shown, look))? }
        }
    }
    Ok(exit::OK)
}

/// Sorts pools that are in the order of their names.
fn sort(pools: &mut [PoolSummary], by: Sort) {
    // The oldest time comes first, and no time last.
    let first = |time: &Option<String>| (time.is_none(), time.clone());
    match by {
        Sort::Name => {}
        Sort::Waiting => pools.sort_by_key(|pool| std::cmp::Reverse(pool.waiting)),
        Sort::Wait => pools.sort_by_key(|pool| first(&pool.oldest_wait)),
        Sort::Hold => pools.sort_by_key(|pool| first(&pool.oldest_hold)),
        Sort::Free => pools.sort_by_key(|pool| pool.free),
    }
}

/// The table of pools; also what `pool list` shows.
pub(super) fn show_pools(env: &mut Env<'_>, pools: &[PoolSummary]) -> Result<(), CliError> {
    let look = Look::of(env);
    print_text(env, &pools_text(pools, look))
}

fn print_text(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    env.stdout.write_all(text.as_bytes())?;
    Ok(env.stdout.flush()?)
}

/// How long ago a time was, such as `32 min`; empty if there is none.
pub(super) fn long(time: Option<&str>, look: Look) -> String {
    time.and_then(|time| when::since(time, look.now)).map(when::span).unwrap_or_default()
}

/// The table of pools as text.
pub(super) fn pools_text(pools: &[PoolSummary], look: Look) -> String {
    if pools.is_empty() {
        return "no pools yet: the first claim creates one, or use `locker pool set NAME --capacity N`\n".to_owned();
    }
    let row = |pool: &PoolSummary| {
        let tone = if pool.free > 0 { Tone::Good } else { Tone::Busy };
        [
            cell(&pool.pool),
            cell(pool.locks.to_string()),
            toned(pool.free.to_string(), tone),
            cell(pool.waiting.to_string()),
            cell(long(pool.oldest_wait.as_deref(), look)),
            cell(long(pool.oldest_hold.as_deref(), look)),
            toned(notes(pool).join(", "), Tone::Bad),
            cell(policy_words(&pool.policy).unwrap_or_default()),
        ]
    };
    let head = ["POOL", "LOCKS", "FREE", "WAITING", "LONGEST WAIT", "LONGEST HOLD", "NOTE", "POLICY"];
    let mut text = table::text(head, pools.iter().map(row).collect(), &[0, 6, 7], look);
    if pools.len() > 1 {
        let sum = |count: fn(&PoolSummary) -> usize| pools.iter().map(count).sum::<usize>();
        let (locks, free, waiting) = (sum(|pool| pool.locks), sum(|pool| pool.free), sum(|pool| pool.waiting));
        text +=
            &format!("{}: {}, {free} free, {waiting} waiting\n", counted(pools.len(), "pool"), counted(locks, "lock"));
    }
    text
}

/// What somebody should look at.
fn notes(pool: &PoolSummary) -> Vec<String> {
    let note = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let build_over = (pool.build_over > 0).then(|| format!("{} of ended builds", counted(pool.build_over, "hold")));
    [note(pool.suspect, "suspect"), note(pool.quarantined, "quarantined"), build_over].into_iter().flatten().collect()
}

/// Locks, holders and queue of a pool as text.
pub(super) fn pool_text(view: &PoolView, shown: &Shown, look: Look) -> String {
    let PoolSummary { pool, locks, free, waiting, policy, .. } = &view.summary;
    let mut words = vec![counted(*locks, "lock"), format!("{free} free"), format!("{waiting} waiting")];
    words.extend(notes(&view.summary));
    let mut text = format!("pool {}: {}\n", escape(&format!("{pool:?}")), words.join(", "));
    text.extend(policy_words(policy).map(|words| format!("policy: {}\n", escape(&words))));
    if !shown.queue {
        let rows = view.items.iter().flat_map(|lock| lock_rows(lock, look)).collect();
        if let Some(lock) = view.items.iter().find(|lock| lock.implicit && lock.leaving) {
            let lock = escape(&format!("{:?}", lock.lock));
            text += &format!("until lock {lock} has left, the pool gives out one lock less\n");
        }
        text += &table::text(["LOCK", "STATE", "HOLDER", "FOR", "CLAIM"], rows, &[0, 2], look);
    }
    if view.queue.is_empty() {
        return text;
    }
    let most = if shown.queue { usize::MAX } else { WAITERS_SHOWN };
    let rows = view.queue.iter().take(most).enumerate().map(|(place, waiter)| waiter_row(place, waiter, look));
    text.push('\n');
    text += &table::text(["PLACE", "WAITING", "FOR", "CLAIM", "NOTE"], rows.collect(), &[1], look);
    let more = waiting.saturating_sub(view.queue.len().min(most));
    if more > 0 {
        let advice = if shown.queue { "" } else { " (--waiting shows the whole queue)" };
        text += &format!("and {more} more{advice}\n");
    }
    text
}

fn waiter_row(place: usize, waiter: &WaiterView, look: Look) -> [table::Cell; 5] {
    let note = match waiter.stuck {
        Some(Code::SelfWait) => toned("waits for its own build", Tone::Bad),
        Some(_) => toned("deadlock: builds wait for each other", Tone::Bad),
        None if waiter.listening && waiter.lacks.is_some() => cell("waits for a lock to be added"),
        None if waiter.listening => cell(""),
        None => toned("away", Tone::Busy),
    };
    let owner = who::owner(&waiter.owner, "-");
    let waits = long(Some(&waiter.asked_at), look);
    [cell((place + 1).to_string()), cell(owner), cell(waits), cell(&waiter.claim), note]
}

/// Who took a lock out of service, until when and why.
fn out_of_service(quarantine: &QuarantineView, look: Look) -> String {
    let mut words = vec![format!("out of service by {}", quarantine.by.as_deref().unwrap_or("somebody"))];
    words.extend(quarantine.until.as_ref().map(|until| format!("until {}", when::time(until, look.now))));
    words.extend(quarantine.reason.as_ref().map(|reason| format!("because {reason:?}")));
    words.join(", ")
}

/// One row for each holder, or a single row if nobody holds the lock.
fn lock_rows(lock: &LockView, look: Look) -> Vec<[table::Cell; 5]> {
    let (word, tone) = match lock.state {
        LockState::Free => ("free", Tone::Good),
        LockState::Granted => ("granted", Tone::Busy),
        LockState::Held => ("held", Tone::Busy),
        LockState::Draining => ("draining", Tone::Busy),
        LockState::Quarantined => ("quarantined", Tone::Bad),
    };
    let mut word = word.to_owned();
    if lock.leaving {
        word.push_str(", leaving");
    }
    if lock.quarantine.is_some() && !lock.holders.is_empty() {
        word.push_str(", then quarantined");
    }
    if lock.holders.is_empty() {
        let why =
            lock.quarantine.as_ref().map_or_else(|| "-".to_owned(), |quarantine| out_of_service(quarantine, look));
        let since = long(lock.quarantine.as_ref().map(|quarantine| quarantine.since.as_str()), look);
        return vec![[cell(&lock.lock), toned(word, tone), cell(why), cell(since), cell("-")]];
    }
    let row = |holder: &HolderView| {
        let (word, tone) = match holder.suspect {
            Some(_) => (format!("{word}, suspect"), Tone::Bad),
            None => (word.clone(), tone),
        };
        let since = long(holder.since.as_deref(), look);
        [
            cell(&lock.lock),
            toned(word, tone),
            cell(holder_words(holder, look).join(", ")),
            cell(since),
            cell(&holder.claim),
        ]
    };
    lock.holders.iter().map(row).collect()
}

/// Who holds a lock, and what else there is to know. What matters most comes first, because the end may be cut.
fn holder_words(holder: &HolderView, look: Look) -> Vec<String> {
    let mut who = vec![who::owner(&holder.owner, "-")];
    who.extend(holder.build_ended.as_ref().map(|ended| who::build_ended(ended, look.now)));
    who.extend(holder.suspect.as_ref().map(|suspect| who::suspect(suspect, look.now)));
    who.extend(holder.key.as_ref().map(|key| format!("key {key:?}")));
    who.extend(holder.until.as_ref().map(|until| format!("until {}", when::time(until, look.now))));
    who.extend(holder.reason.as_ref().map(|reason| format!("because {reason:?}")));
    who
}
