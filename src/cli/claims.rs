//! `locker claims`: lists claims, or tells all that is known about one. It takes nothing.

use clap::{Args, ValueEnum};

use super::history;
use super::output::{CliError, print_json, print_line, say};
use super::status::long;
use super::table::{self, Look, cell};
use crate::client::calls::ClaimFilter;
use crate::client::history::HistoryFilter;
use crate::client::{Client, when, who};
use crate::core::names::{ClaimId, PoolName};
use crate::env::Env;
use crate::wire::api::{ClaimState, ClaimView, LockRef, PartBody, QueueView};
use crate::wire::errors::{Code, exit};
use crate::wire::text::counted;

/// Arguments of `claims`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker claims                             all live claims, the longest first
  locker claims --pool environments --state held
  locker claims --build 4711
  locker claims --state ended --build 4711  those that have ended are remembered for a while
  locker claims 0f3a...                     all that is known about one, also how and by whom it ended")]
pub(super) struct ClaimsArgs {
    /// Show this claim; it is only looked at, never taken again
    #[arg(conflicts_with_all = ["pool", "build", "state"])]
    claim: Option<ClaimId>,
    /// Only claims for locks of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// Only claims of the build with this id, the number in its URL
    #[arg(long, value_name = "ID")]
    build: Option<String>,
    /// Only claims in this state
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Print the server's own JSON
    #[arg(long)]
    json: bool,
}

/// The states to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Waiting,
    Granted,
    Held,
    // Not listed otherwise.
    Ended,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Granted => "granted",
            Self::Held => "held",
            Self::Ended => "ended",
        }
    }
}

pub(super) fn run(args: &ClaimsArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    if let Some(id) = &args.claim {
        let claim = client.get_claim(id.as_str())?;
        if args.json {
            print_json(env, &claim)?;
        } else {
            let look = Look::of(env);
            for line in all_about(&claim, look) {
                print_line(env, &line)?;
            }
            print_history(&claim.id, client, look, env)?;
        }
        return Ok(exit::OK);
    }
    if args.pool.is_some() && args.state == Some(State::Ended) {
        return Err(CliError::usage(
            "--state ended cannot be combined with --pool: what has ended is remembered without it",
        ));
    }
    let pool = args.pool.as_ref().map(PoolName::as_str);
    let filter = ClaimFilter { pool, state: args.state.map(State::word), build: None };
    let mut claims = client.list_claims(&filter)?;
    let of_build = |claim: &ClaimView| args.build.is_none() || claim.owner.build_id == args.build;
    claims.retain(of_build);
    // RFC 3339 in UTC sorts like the times themselves.
    claims.sort_by_key(|claim| since(claim).map(str::to_owned));
    if args.json {
        print_json(env, &claims)?;
    } else {
        let text = table_of(&claims, Look::of(env));
        env.stdout.write_all(text.as_bytes())?;
        env.stdout.flush()?;
    }
    Ok(exit::OK)
}

/// Most entries of the history that are shown for one claim.
const ENTRIES: usize = 20;

/// What the history knows of a claim: what it held, and who ended it. An ended claim remembers no more than its end.
fn print_history(claim: &str, client: &Client, look: Look, env: &mut Env<'_>) -> Result<(), CliError> {
    let filter = HistoryFilter { claim: Some(claim), ..HistoryFilter::default() };
    let (entries, more) = match client.history(&filter, ENTRIES) {
        Ok(found) => found,
        Err(error) if error.code() == Some(Code::Forbidden) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if entries.is_empty() {
        return Ok(());
    }
    print_line(env, "")?;
    env.stdout.write_all(history::of_one_claim(&entries, look).as_bytes())?;
    env.stdout.flush()?;
    if more {
        say(env, &format!("there are older entries: locker history --claim {claim}"));
    }
    Ok(())
}

/// Since when the claim is in its state.
fn since(claim: &ClaimView) -> Option<&str> {
    let since = match claim.state {
        ClaimState::Waiting | ClaimState::Granted => &claim.asked_at,
        ClaimState::Held => &claim.held_since,
        ClaimState::Ended => &claim.ended_at,
    };
    since.as_deref()
}

fn state(claim: &ClaimView) -> &'static str {
    match claim.state {
        ClaimState::Waiting => "waiting",
        ClaimState::Granted => "granted",
        ClaimState::Held => "held",
        ClaimState::Ended => "ended",
    }
}

fn table_of(claims: &[ClaimView], look: Look) -> String {
    if claims.is_empty() {
        return "no claims\n".to_owned();
    }
    let row = |claim: &ClaimView| {
        let what = if claim.locks.is_empty() { wishes(&claim.asks) } else { locks(&claim.locks) };
        let state = match (&claim.how, &claim.suspect, &claim.build_ended) {
            (Some(how), ..) => format!("ended: {how}"),
            (None, Some(_), _) => format!("{}, suspect", state(claim)),
            (None, None, Some(_)) => format!("{}, build over", state(claim)),
            (None, None, None) => state(claim).to_owned(),
        };
        let owner = who::owner(&claim.owner, "-");
        [cell(state), cell(long(since(claim), look)), cell(what), cell(owner), cell(&claim.id)]
    };
    let mut text =
        table::text(["STATE", "FOR", "LOCKS", "OWNER", "CLAIM"], claims.iter().map(row).collect(), &[2, 3], look);
    text += &format!("{}\n", counted(claims.len(), "claim"));
    text
}

fn locks(locks: &[LockRef]) -> String {
    locks.iter().map(|lock| format!("{:?} of pool {:?}", lock.lock, lock.pool)).collect::<Vec<_>>().join(", ")
}

/// What the claim asks for.
fn wishes(asks: &[PartBody]) -> String {
    let one = |part: &PartBody| {
        let labels: Vec<String> = part.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(", ")) };
        let what = match (&part.lock, &part.locks, part.count) {
            (Some(lock), ..) => format!("{lock:?}"),
            (None, Some(locks), _) => format!("{locks:?}"),
            (None, None, Some(count)) if count > 1 => format!("{count} locks"),
            (None, None, _) => "a lock".to_owned(),
        };
        format!("{what} of pool {:?}{labels}", part.pool)
    };
    asks.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// All that is known about a claim, one fact a line.
fn all_about(claim: &ClaimView, look: Look) -> Vec<String> {
    let time = |text: &String| when::time(text, look.now);
    let head = match since(claim) {
        Some(at) if claim.state == ClaimState::Ended => {
            format!("claim {} has ended, at {}", claim.id, when::time(at, look.now))
        }
        Some(since) => format!("claim {} is {}, since {}", claim.id, state(claim), when::time(since, look.now)),
        None => format!("claim {} is {}", claim.id, state(claim)),
    };
    let mut lines = vec![head];
    lines.extend(claim.how.as_ref().map(|how| ending(claim, how)));
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.filter(|value| !value.is_empty()).map(|value| format!("  {name:<12}{value}")));
    };
    add("locks", Some(locks(&claim.locks)));
    add("asks for", Some(wishes(&claim.asks)));
    add("owner", Some(who::owner(&claim.owner, "")));
    add("reason", claim.reason.clone().filter(|_| claim.how.is_none()));
    add("asked", claim.asked_at.as_ref().map(time));
    add("fence", claim.fence.map(|fence| fence.to_string()));
    add("revision", claim.revision.map(|revision| revision.to_string()));
    add("scope", claim.scope.map(|scope| format!("{scope:?}").to_lowercase()));
    add("ttl", claim.ttl.clone());
    add("ends", claim.held_until.as_ref().map(time));
    add("key", claim.key.clone());
    add("requestor", claim.requestor.clone());
    add("priority", claim.priority.map(|priority| priority.to_string()));
    add("supersedes", claim.supersede.clone());
    add("life", (claim.life > 1).then(|| format!("{} (its id began again)", claim.life)));
    add("fetched", claim.delivered.then(|| "yes, by a get".to_owned()));
    add("build", claim.build_ended.as_ref().map(|ended| who::build_ended(ended, look.now)));
    add("suspect", claim.suspect.as_ref().map(|suspect| who::suspect(suspect, look.now)));
    if let Some(queue) = &claim.queue {
        lines.extend(queue_lines(queue, look));
    }
    lines
}

/// How a claim ended, by whom and why, with the word of the API where the text does not have it.
fn ending(claim: &ClaimView, how: &str) -> String {
    let text = who::how_it_ended(claim, how);
    let word = if text.contains(how) { String::new() } else { format!(" ({how})") };
    format!("  {:<12}{text}{word}", "ended")
}

fn queue_lines(queue: &QueueView, look: Look) -> Vec<String> {
    let mut lines = vec![format!("  {:<12}{} in the queue", "place", queue.position)];
    let holders = who::holders(&queue.holders, look.now);
    lines.extend((!holders.is_empty()).then(|| format!("  {:<12}{holders}", "held")));
    lines.extend(who::ahead(queue).map(|ahead| format!("  {ahead}")));
    if !queue.listening {
        lines.push(format!("  {:<12}its client has stopped asking, so it is passed over", "away"));
    }
    lines
}
