//! `locker top` and `locker stats`: the longest waits and holds, and figures over a span.

use clap::Args;

use super::history::subject;
use super::output::{CliError, print_json, say};
use super::status::long;
use super::table::{self, Cell, Look, cell};
use crate::client::{Client, when, who};
use crate::core::names::PoolName;
use crate::env::Env;
use crate::wire::api::{ChangeView, ClaimView, GroupView, PartBody, StatsView, locks_text};
use crate::wire::errors::exit;

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker top                            all pools, now and in the last 24 hours
  locker top environments --since 7d    the longest waits of a week decide what to buy")]
pub(super) struct TopArgs {
    #[command(flatten)]
    span: SpanArgs,
    /// How many waits and holds to show
    #[arg(short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    n: u16,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker stats                          all pools, the last 24 hours
  locker stats environments --since 90d
  locker stats --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --json")]
pub(super) struct StatsArgs {
    #[command(flatten)]
    span: SpanArgs,
}

#[derive(Debug, Args)]
struct SpanArgs {
    /// Only this pool (default: all)
    pool: Option<PoolName>,
    /// Where the span begins: 2026-11-25T14:00:00Z, or a span before now such as 7d
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: String,
    /// Where the span ends, given in the same way (default: now)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print the server's own JSON
    #[arg(long)]
    json: bool,
}

impl SpanArgs {
    fn ask(&self, client: &Client, top: usize) -> Result<StatsView, CliError> {
        let span = (Some(self.since.as_str()), self.until.as_deref());
        Ok(client.stats(self.pool.as_ref().map(PoolName::as_str), span, top)?)
    }
}

pub(super) fn top(args: &TopArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let stats = args.span.ask(client, usize::from(args.n))?;
    if args.span.json {
        print_json(env, &stats)?;
    } else {
        let look = Look::of(env);
        let span = span_words(&stats, look);
        let text = [
            section("The longest waits now", &claims(&stats.waiting, look)),
            section("The longest holds now", &claims(&stats.held, look)),
            section(&format!("The longest waits {span}"), &entries(&stats.longest_waits, look, |entry| &entry.waited)),
            section(&format!("The longest holds {span}"), &entries(&stats.longest_holds, look, |entry| &entry.held)),
        ];
        print(env, &text.join("\n"))?;
    }
    say_if_cut(&stats, env);
    Ok(exit::OK)
}

pub(super) fn stats(args: &StatsArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let stats = args.span.ask(client, 0)?;
    if args.span.json {
        print_json(env, &stats)?;
    } else {
        let look = Look::of(env);
        let text = [
            section(&format!("Pools {}", span_words(&stats, look)), &pools(&stats, look)),
            section("Teams", &teams(&stats, look)),
        ];
        print(env, &text.join("\n"))?;
    }
    say_if_cut(&stats, env);
    for (left_out, shown, what) in
        [(stats.pools_left_out, stats.pools.len(), "pools"), (stats.teams_left_out, stats.teams.len(), "teams")]
    {
        if left_out > 0 {
            say(env, &format!("these are the {shown} {what} that were used most; {left_out} more are left out"));
        }
    }
    Ok(exit::OK)
}

fn print(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    env.stdout.write_all(text.as_bytes())?;
    Ok(env.stdout.flush()?)
}

/// That some entries of the span were left out.
fn say_if_cut(stats: &StatsView, env: &mut Env<'_>) {
    if !stats.complete {
        let (entries, until) = (stats.entries, &stats.until);
        say(env, &format!("the span has more than {entries} entries: only those before {until} were counted"));
    }
}

fn span_words(stats: &StatsView, look: Look) -> String {
    format!("from {} to {}", when::time(&stats.since, look.now), when::time(&stats.until, look.now))
}

fn section(title: &str, table: &str) -> String {
    let table = if table.is_empty() { "none\n" } else { table };
    format!("{}\n{table}", crate::wire::escape::escape(title))
}

/// The table of live claims, by how long they have been in their state.
fn claims(claims: &[ClaimView], look: Look) -> String {
    let row = |claim: &ClaimView| {
        let since = claim.held_since.as_ref().or(claim.asked_at.as_ref());
        let asks: Vec<&str> = claim.asks.iter().map(|part: &PartBody| part.pool.as_str()).collect();
        let what = if claim.locks.is_empty() { asks.join(", ") } else { locks_text(&claim.locks, ", ") };
        let (long, who) = (long(since.map(String::as_str), look), who::owner(&claim.owner, ""));
        [cell(long), cell(what), cell(who), cell(&claim.id), cell(claim.reason.as_deref().unwrap_or_default())]
    };
    table_of(["FOR", "LOCKS", "WHO", "CLAIM", "REASON"], claims.iter().map(row).collect(), look)
}

/// The table of entries, by how long what they end had lasted.
fn entries(entries: &[ChangeView], look: Look, lasted: impl Fn(&ChangeView) -> &Option<String>) -> String {
    let row = |entry: &ChangeView| {
        let (lasted, who) = (lasted(entry).as_deref().unwrap_or_default(), who::owner(&entry.owner, ""));
        let claim = entry.claim.as_deref().unwrap_or_default();
        [cell(lasted), cell(subject(entry)), cell(who), cell(claim), cell(when::time(&entry.at, look.now))]
    };
    table_of(["FOR", "LOCKS", "WHO", "CLAIM", "UNTIL"], entries.iter().map(row).collect(), look)
}

fn table_of(head: [&str; 5], rows: Vec<[Cell; 5]>, look: Look) -> String {
    if rows.is_empty() { String::new() } else { table::text(head, rows, &[1, 2, 3], look) }
}

/// The columns of a group: waits, then holds, then how claims ended.
fn figures(group: &GroupView) -> [String; 10] {
    let GroupView { waits, holds, in_vain, lost, broken, .. } = group;
    [
        waits.count.to_string(),
        waits.p50.clone(),
        waits.p95.clone(),
        waits.longest.clone(),
        holds.p50.clone(),
        holds.p95.clone(),
        holds.longest.clone(),
        some(*in_vain),
        some(*lost),
        some(*broken),
    ]
}

fn some(count: usize) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

const FIGURES: [&str; 10] =
    ["GRANTS", "WAIT P50", "P95", "LONGEST", "HOLD P50", "P95", "LONGEST", "IN VAIN", "LOST", "BROKEN"];

fn pools(stats: &StatsView, look: Look) -> String {
    if stats.pools.is_empty() {
        return String::new();
    }
    let row = |pool: &crate::wire::api::PoolStatsView| {
        let used = format!("{:.1} % of {}", pool.utilisation, pool.locks);
        row_of(&pool.pool, &used, figures(&pool.figures))
    };
    table::text(head("POOL", "IN USE"), stats.pools.iter().map(row).collect(), &[0], look)
}

fn teams(stats: &StatsView, look: Look) -> String {
    if stats.teams.is_empty() {
        return String::new();
    }
    let row = |team: &crate::wire::api::TeamStatsView| {
        row_of(team.team.as_deref().unwrap_or("(no team)"), &team.figures.in_use, figures(&team.figures))
    };
    table::text(head("TEAM", "HELD"), stats.teams.iter().map(row).collect(), &[0], look)
}

fn head(name: &'static str, used: &'static str) -> [&'static str; 12] {
    let mut all = [""; 12];
    (all[0], all[1]) = (name, used);
    all[2..].copy_from_slice(&FIGURES);
    all
}

fn row_of(name: &str, used: &str, figures: [String; 10]) -> [Cell; 12] {
    let mut cells = std::iter::once(name.to_owned()).chain([used.to_owned()]).chain(figures);
    std::array::from_fn(|_| cell(cells.next().unwrap_or_default()))
}
