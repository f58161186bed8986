//! `locker pool apply`: makes pools as a file declares them. Running it again changes nothing.
//!
//! The file is YAML or JSON: `pools`, then for each pool its rules by the names that the API uses, and its `capacity`.
//! A pool in the file gets exactly these rules; a rule that is not there has its default.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value};

use super::output::{CliError, print_line, say};
use super::values::by;
use crate::client::Client;
use crate::core::names::PoolName;
use crate::env::Env;
use crate::wire::api::{LockView, Policy, PoolChangeBody, PoolSummary, RemoveBody};
use crate::wire::errors::{Code, exit};
use crate::wire::parse;
use crate::wire::problems::{Problems, unknown};
use crate::wire::text::counted;

/// Largest file, bytes: 100,000 pools with a few rules each.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The key of a pool that is no rule.
const CAPACITY: &str = "capacity";

/// Arguments of `pool apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is YAML or JSON. A pool in it gets exactly these rules; a rule that is not there has its default. Locks change
only with a capacity.

  pools:
    environments: {capacity: 3, max_hold: 4h}
    licences: {capacity: 5, order: priority, overtaking: 'backfill:5'}
    staging: {scope: build}

Examples:
  locker pool apply pools.yml --dry-run
  locker pool apply pools.yml --prune")]
pub(super) struct ApplyArgs {
    /// The file; - for stdin
    file: String,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Remove pools that the file does not name; those in use stay (exit code 5)
    #[arg(long)]
    prune: bool,
    /// The reason, shown in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// A pool as the file declares it.
#[derive(Debug)]
struct Declared {
    policy: Policy,
    capacity: Option<u32>,
}

/// What is to be done with one pool.
enum Step {
    Add(Declared),
    Change(Declared),
    Remove,
}

pub(super) fn run(args: &ApplyArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let text = read(&args.file, env)?;
    let declared = parse_file(&text).map_err(|problems| {
        problems.iter().for_each(|problem| say(env, problem));
        let count = counted(problems.len(), "problem");
        CliError::usage(format!("nothing was changed, because of {count} with {:?}", args.file))
    })?;
    let there = client.list_pools()?;
    let there: BTreeMap<&str, &PoolSummary> = there.iter().map(|pool| (pool.pool.as_str(), pool)).collect();
    let (mut steps, mut same) = (Vec::new(), 0);
    if args.prune {
        let surplus = there.keys().filter(|name| !declared.contains_key(**name));
        steps.extend(surplus.map(|name| ((*name).to_owned(), Vec::new(), Step::Remove)));
    }
    for (name, wanted) in declared {
        match there.get(name.as_str()) {
            None => steps.push((name, added(&wanted), Step::Add(wanted))),
            Some(pool) => {
                let diff = diff(&wanted, pool, client)?;
                if diff.is_empty() {
                    same += 1;
                } else {
                    steps.push((name, diff, Step::Change(wanted)));
                }
            }
        }
    }
    let (mut counts, mut left) = (BTreeMap::new(), 0);
    for (name, diff, step) in steps {
        let verb = match &step {
            Step::Add(_) => "added",
            Step::Change(_) => "changed",
            Step::Remove => "removed",
        };
        let in_use = if args.dry_run {
            in_use(&name, &step, client)?
        } else {
            carry_out(&name, step, client, env, args.reason.as_ref())?
        };
        match in_use {
            None => {
                *counts.entry(verb).or_insert(0_usize) += 1;
                print_line(env, &format!("pool {name:?}: {}{verb}", if args.dry_run { "would be " } else { "" }))?;
                for line in diff {
                    print_line(env, &format!("  {line}"))?;
                }
            }
            Some(why) => {
                left += 1;
                let verb = if args.dry_run { "would be left" } else { "left" };
                print_line(env, &format!("pool {name:?}: {verb} as it is: {why}"))?;
            }
        }
    }
    let mut summary = String::new();
    for verb in ["added", "changed", "removed"] {
        // Writing to a String cannot fail.
        let _ = write!(summary, "{} {verb}, ", counts.get(verb).unwrap_or(&0));
    }
    let left_words = if left > 0 { format!(", {left} left as they are") } else { String::new() };
    let note = if args.dry_run { " (nothing was changed)" } else { "" };
    print_line(env, &format!("{summary}{same} unchanged{left_words}{note}"))?;
    Ok(if left > 0 { exit::CONFLICT } else { exit::OK })
}

fn read(file: &str, env: &mut Env<'_>) -> Result<String, CliError> {
    let read = env.read_input(file, FILE_BYTES);
    let bytes = read.map_err(|error| CliError::usage(format!("cannot read {file:?}: {error}")))?;
    let bytes = bytes.ok_or_else(|| CliError::usage(format!("{file:?} is longer than {FILE_BYTES} bytes")))?;
    String::from_utf8(bytes).map_err(|_| CliError::usage(format!("{file:?} is not UTF-8")))
}

/// All pools that a file declares, or everything that is wrong with it.
fn parse_file(text: &str) -> Result<BTreeMap<String, Declared>, Vec<String>> {
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| vec![format!("it is neither YAML nor JSON: {error}")])?;
    let members = value.as_object().cloned().unwrap_or_default();
    let mut problems = Problems::default();
    for key in members.keys().filter(|key| *key != "pools") {
        problems.add("", unknown("key", key, &["pools"]));
    }
    let pools = match members.get("pools") {
        Some(Value::Object(pools)) => pools.clone(),
        _ => {
            problems.add("pools", "must be a mapping from names of pools to their rules");
            Map::new()
        }
    };
    let mut declared = BTreeMap::new();
    for (name, rules) in pools {
        let at = format!("pools.{name}");
        let _: Option<PoolName> = problems.parse(&at, &name);
        if let Some(pool) = declared_pool(&at, rules, &mut problems) {
            declared.insert(name, pool);
        }
    }
    problems.done(Some(declared)).map_err(Problems::into_list)
}

fn declared_pool(at: &str, rules: Value, problems: &mut Problems) -> Option<Declared> {
    let mut rules = match rules {
        Value::Null => Map::new(),
        Value::Object(rules) => rules,
        _ => {
            problems.add(at, "must be a mapping of rules, such as {capacity: 3}");
            return None;
        }
    };
    let capacity = match rules.remove(CAPACITY) {
        None | Some(Value::Null) => None,
        Some(given) => {
            let number = given.as_u64().and_then(|number| u32::try_from(number).ok());
            if number.is_none() {
                problems.add(&format!("{at}.{CAPACITY}"), "must be a number");
            }
            number
        }
    };
    let known = known_rules();
    for rule in rules.keys().filter(|rule| !known.contains(rule)) {
        let known: Vec<&str> = known.iter().map(String::as_str).chain([CAPACITY]).collect();
        problems.add(at, unknown("rule", rule, &known));
    }
    rules.retain(|rule, value| known.contains(rule) && !value.is_null());
    let policy: Option<Policy> =
        serde_json::from_value(Value::Object(rules)).map_err(|error| problems.add(at, error)).ok();
    let policy = policy?;
    let mut wrong = Problems::default();
    // As the server shows it, so that the two can be compared.
    let policy = parse::show_policy(&parse::policy(&policy, &mut wrong));
    wrong.into_list().into_iter().for_each(|problem| problems.add(at, problem));
    Some(Declared { policy, capacity })
}

/// The names of all rules, as the API has them.
fn known_rules() -> Vec<String> {
    let words = crate::wire::api::Rule::ALL.iter().filter_map(|rule| serde_json::to_value(rule).ok());
    words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn added(wanted: &Declared) -> Vec<String> {
    let rules = wanted.policy.shown().into_iter().map(|(rule, value)| format!("+ {rule}: {value}"));
    rules.chain(wanted.capacity.map(|n| format!("+ {CAPACITY}: {n}"))).collect()
}

/// The lines that differ, those of the server with `-` and those of the file with `+`.
fn diff(wanted: &Declared, there: &PoolSummary, client: &Client) -> Result<Vec<String>, CliError> {
    let (new, old) = (wanted.policy.shown(), there.policy.shown());
    let mut lines = Vec::new();
    let names: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    for name in names.into_iter().filter(|name| new.get(*name) != old.get(*name)) {
        lines.extend(old.get(name).map(|value| format!("- {name}: {value}")));
        lines.extend(new.get(name).map(|value| format!("+ {name}: {value}")));
    }
    if let Some(capacity) = wanted.capacity {
        let locks = client.get_pool(&there.pool)?.items;
        if !has_capacity(&locks, capacity) {
            lines.push(format!("- {}", locks_in_words(&locks)));
            lines.push(format!("+ {CAPACITY}: {capacity}"));
        }
    }
    Ok(lines)
}

fn number(lock: &LockView) -> Option<u32> {
    lock.lock.parse::<u32>().ok().filter(|n| *n > 0 && n.to_string() == lock.lock)
}

/// Whether the pool has the locks `1` to N, and no other that a capacity would take away.
fn has_capacity(locks: &[LockView], capacity: u32) -> bool {
    let staying = || locks.iter().filter(|lock| !lock.leaving);
    let numbers: Vec<u32> = staying().filter_map(number).collect();
    numbers.len() == capacity as usize
        && numbers.iter().all(|number| *number <= capacity)
        && !staying().any(|lock| lock.implicit)
}

fn locks_in_words(locks: &[LockView]) -> String {
    let staying = || locks.iter().filter(|lock| !lock.leaving);
    let numbered = staying().filter(|lock| number(lock).is_some()).count();
    match staying().find(|lock| lock.implicit) {
        Some(lock) => format!("the lock {:?}, because the pool was given none", lock.lock),
        None => format!("{CAPACITY}: {numbered}"),
    }
}

/// Why the server would refuse to remove this pool now, if it would.
fn in_use(name: &str, step: &Step, client: &Client) -> Result<Option<String>, CliError> {
    let Step::Remove = step else { return Ok(None) };
    let pool = client.get_pool(name)?;
    let claims = pool.summary.waiting + pool.items.iter().map(|lock| lock.holders.len()).sum::<usize>();
    Ok((claims > 0).then(|| format!("it is in use by {}", counted(claims, "claim"))))
}

/// Why the server refuses it because the pool is in use, if it does.
fn carry_out(
    name: &str,
    step: Step,
    client: &Client,
    env: &Env<'_>,
    reason: Option<&String>,
) -> Result<Option<String>, CliError> {
    let by = Some(by(env, reason));
    let done = match step {
        Step::Add(Declared { policy, capacity }) | Step::Change(Declared { policy, capacity }) => {
            let body = PoolChangeBody { policy, defaults: Vec::new(), reset: true, capacity, by };
            client.patch_pool(name, &body).map(drop)
        }
        Step::Remove => client.delete_pool(name, &RemoveBody { claim: None, by }).map(drop),
    };
    match done {
        Err(error) if error.code() == Some(Code::PoolInUse) => Ok(Some(error.to_string())),
        done => Ok(done.map(|()| None)?),
    }
}
