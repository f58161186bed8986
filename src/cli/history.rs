//! `locker history`: what happened, the newest first.

use std::fmt::Write as _;

use clap::Args;

use super::output::{CliError, print_json, say};
use super::table::{self, Cell, Look, Tone, cell, toned};
use crate::client::history::HistoryFilter;
use crate::client::{Client, when, who};
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::Env;
use crate::wire::api::{ChangeKind, ChangeView, locks_text};
use crate::wire::errors::exit;
use crate::wire::escape::escape;
use crate::wire::text;

/// Arguments of `history`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker history                                  the last entries of all pools
  locker history environments --since 24h         a day of one pool
  locker history --kind lost,broken --since 7d    what was lost or broken this week
  locker history --build 4711                     everything about the claims of a build
  locker history --who ada --limit 1000 --csv     for a spreadsheet")]
pub(super) struct HistoryArgs {
    /// Only this pool (default: all, including removed ones)
    pool: Option<PoolName>,
    /// Only entries about locks of this name
    #[arg(long, value_name = "NAME")]
    lock: Option<LockName>,
    /// Only entries about this claim
    #[arg(long, value_name = "ID")]
    claim: Option<ClaimId>,
    /// Only entries about claims of the build with this id, the number in its URL
    #[arg(long, value_name = "ID")]
    build: Option<String>,
    /// Only entries of somebody whose person, program, team/pipeline/job or proven identity contains this text
    #[arg(long, value_name = "TEXT")]
    who: Option<String>,
    /// Only entries of these kinds, such as lost,broken
    #[arg(long, value_name = "KINDS", value_parser = kinds)]
    kind: Option<String>,
    /// Only entries of this time or later: 2026-11-25T14:00:00Z, or a span before now such as 24h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only entries before this time, given in the same way
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Most entries to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = limit)]
    limit: usize,
    /// Print the server's own JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values, with a line of names, for spreadsheets and databases
    #[arg(long)]
    csv: bool,
}

/// Checks the words here, so that a wrong one is a wrong usage.
fn kinds(text: &str) -> Result<String, String> {
    ChangeKind::parse_list(text).map(|_| text.to_owned())
}

/// Most entries that one command shows: they are collected before they are printed.
const MOST: usize = 1_000_000;

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=MOST) => Ok(limit),
        _ => Err(format!("must be 1 to {MOST}")),
    }
}

pub(super) fn run(args: &HistoryArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let filter = HistoryFilter {
        pool: args.pool.as_ref().map(PoolName::as_str),
        lock: args.lock.as_ref().map(LockName::as_str),
        claim: args.claim.as_ref().map(ClaimId::as_str),
        build: args.build.as_deref(),
        who: args.who.as_deref(),
        kind: args.kind.as_deref(),
        since: args.since.as_deref(),
        until: args.until.as_deref(),
    };
    let (entries, more) = client.history(&filter, args.limit)?;
    if args.json {
        print_json(env, &entries)?;
    } else {
        let text = if args.csv { csv(&entries) } else { table_of(&entries, Look::of(env)) };
        env.stdout.write_all(text.as_bytes())?;
        env.stdout.flush()?;
    }
    if more {
        say(env, &format!("there are older entries: --limit shows more than {}", args.limit));
    }
    Ok(exit::OK)
}

/// The table of these entries.
fn table_of(entries: &[ChangeView], look: Look) -> String {
    if entries.is_empty() {
        return "no entries\n".to_owned();
    }
    let rows = entries.iter().map(|entry| row(entry, look)).collect();
    table::text(
        ["TIME", "WHAT", "LOCKS", "WHO", "PROVED", "WAITED", "HELD", "CLAIM", "REASON"],
        rows,
        &[2, 3, 4, 7, 8],
        look,
    )
}

/// The table of the entries about one claim, which is named elsewhere.
pub(super) fn of_one_claim(entries: &[ChangeView], look: Look) -> String {
    let rows = entries.iter().map(|entry| {
        let [time, what, locks, who, proved, waited, held, _, reason] = row(entry, look);
        [time, what, locks, who, proved, waited, held, reason]
    });
    let head = ["TIME", "WHAT", "LOCKS", "WHO", "PROVED", "WAITED", "HELD", "REASON"];
    table::text(head, rows.collect(), &[2, 3, 4, 7], look)
}

fn row(entry: &ChangeView, look: Look) -> [Cell; 9] {
    use ChangeKind::{Broken, Claimed, Deadlock, Lost, Quarantined, SelfWait};
    let tone = match entry.kind {
        Lost | Broken | Deadlock | SelfWait | Quarantined => Tone::Bad,
        Claimed => Tone::Busy,
        _ => Tone::Plain,
    };
    let what = match &entry.how {
        Some(how) if how != entry.kind.word() => format!("{} ({how})", entry.kind.word()),
        _ => entry.kind.word().to_owned(),
    };
    [
        cell(when::time(&entry.at, look.now)),
        toned(what, tone),
        cell(subject(entry)),
        cell(who::owner(&entry.owner, "")),
        cell(proved(entry)),
        cell(entry.waited.as_deref().unwrap_or_default()),
        cell(entry.held.as_deref().unwrap_or_default()),
        cell(entry.claim.as_deref().unwrap_or_default()),
        cell(entry.reason.as_deref().unwrap_or_default()),
    ]
}

/// Who proved to be behind an entry, from where, and which rule allowed it: `user:ci from 10.0.0.1 by line 7`.
fn proved(entry: &ChangeView) -> String {
    let parts = [("", &entry.proved), ("from ", &entry.address), ("by ", &entry.rule)];
    let parts = parts.into_iter().filter_map(|(word, part)| Some(format!("{word}{}", part.as_ref()?)));
    parts.collect::<Vec<_>>().join(" ")
}

/// What an entry is about: its locks, or else its pools, its latch or its token.
pub(super) fn subject(entry: &ChangeView) -> String {
    match (&entry.latch, &entry.token, entry.locks.is_empty()) {
        (Some(latch), ..) => format!("latch {}", latch.id),
        (None, Some(token), _) => format!("token {token}"),
        (None, None, true) => entry.pools.join(", "),
        (None, None, false) => locks_text(&entry.locks, ", "),
    }
}

const NAMES: &str = "time,revision,what,how,pools,locks,claim,team,pipeline,job,build_id,build_name,person,program,\
                     proved,rule,address,waited_seconds,held_seconds,reason";

/// The entries as comma-separated values (RFC 4180), one line each.
fn csv(entries: &[ChangeView]) -> String {
    let mut text = format!("{NAMES}\r\n");
    for entry in entries {
        let owner = &entry.owner;
        let seconds = |span: &Option<String>| span.as_ref().and_then(|span| text::span(span).ok());
        let seconds =
            |span: &Option<String>| seconds(span).map(|span| format!("{}.{:03}", span.0 / 1000, span.0 % 1000));
        let opt = |text: &Option<String>| text.clone().unwrap_or_default();
        let fields = [
            entry.at.clone(),
            entry.revision.to_string(),
            entry.kind.word().to_owned(),
            opt(&entry.how),
            entry.pools.join("; "),
            locks_text(&entry.locks, "; "),
            opt(&entry.claim),
            opt(&owner.team),
            opt(&owner.pipeline),
            opt(&owner.job),
            opt(&owner.build_id),
            opt(&owner.build_name),
            opt(&owner.person),
            opt(&owner.program),
            opt(&entry.proved),
            opt(&entry.rule),
            opt(&entry.address),
            seconds(&entry.waited).unwrap_or_default(),
            seconds(&entry.held).unwrap_or_default(),
            opt(&entry.reason),
        ];
        let line = fields.map(|field| csv_field(&field)).join(",");
        // Writing to a String cannot fail.
        let _ = write!(text, "{line}\r\n");
    }
    text
}

/// One field: escaped for terminals, quoted where needed, and never a formula of a spreadsheet.
fn csv_field(field: &str) -> String {
    let escaped = escape(field);
    let is_formula = escaped.trim_start().starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠']);
    let harmless = if is_formula { format!("'{escaped}") } else { escaped };
    if harmless.contains([',', '"', ';']) || harmless.trim() != harmless {
        format!("\"{}\"", harmless.replace('"', "\"\""))
    } else {
        harmless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_harmless() {
        for (field, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "two\\u{a}lines"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@sum(1,2)", "\"'@sum(1,2)\""),
            ("  =1", "'  =1"),
            ("\t=1", "\\u{9}=1"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            assert_eq!(csv_field(field), expected, "{field:?}");
        }
    }
}
