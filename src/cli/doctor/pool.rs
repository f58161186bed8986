//! The current state of the pool, and a trial claim.

use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;

use super::report::Report;
use super::{Stop, Tools};
use crate::cli::values::person;
use crate::client::calls::{Asked, Changes};
use crate::client::http::PATIENCE;
use crate::client::{CallError, Client, when, who};
use crate::core::names::PoolName;
use crate::env::{Env, random_hex};
use crate::wire::api::{
    ClaimBody, ClaimState, ConfirmBody, HolderView, LockState, Owner, Policy, PoolSummary, PoolView, RemoveBody, Scope,
    WhenEmpty,
};
use crate::wire::errors::{Code, exit};
use crate::wire::escape::shell_word;
use crate::wire::text::counted;

/// How many holders, and how many waiters, are listed at most.
const LISTED: usize = 10;
/// A hold of this age gets a warning.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// If a trial claim could not be released, it ends by itself after this time.
const TRIAL_TTL: &str = "60s";

/// Reports policy, locks and queue, and what `check` would print.
pub(super) fn examine(
    client: &Client,
    pool: &PoolName,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<(), Stop> {
    let (asked, name) = (client.clone(), pool.as_str().to_owned());
    let (answer, _) = tools.time(move || asked.get_pool(&name))?;
    let view = match answer {
        Ok(view) => view,
        Err(error) if error.code() == Some(Code::NoSuchPool) => {
            let next = format!(
                "the first `acquire` creates it, with one lock, unless the server runs with --declared-only; \
                 create it yourself with: locker pool set {} --capacity N",
                shell_word(pool.as_str())
            );
            return report.warn(env, "pool", format!("{:?} does not exist", pool.as_str()), next);
        }
        Err(error) => return Err(refused(&error, report, env)?),
    };
    summary(&view, report, env)?;
    holders(&view, tools, report, env)?;
    for (place, waiter) in view.queue.iter().take(LISTED).enumerate() {
        let away = if waiter.listening { "" } else { ", away: skipped until it asks again" };
        let who = who::owner(&waiter.owner, &format!("claim {}", waiter.claim));
        report.ok(env, "queue", format!("{}. {who}, since {}{away}", place + 1, waiter.asked_at))?;
    }
    if view.queue.len() > LISTED {
        report.ok(env, "queue", format!("and {} more", view.queue.len() - LISTED))?;
    }
    check(client, pool, tools, report, env)
}

fn refused(error: &CallError, report: &mut Report, env: &mut Env<'_>) -> Result<Stop, Stop> {
    let next = "see the server's answer; its log may say more";
    report.fail(env, "pool", error.exit(), error.to_string(), next)
}

fn summary(view: &PoolView, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let PoolSummary { pool, locks, free, waiting, policy, .. } = &view.summary;
    let locks_text = counted(*locks, "lock");
    let text = format!("{pool:?}: {locks_text}, {free} free, {waiting} waiting; {}", policy_words(policy));
    if *locks == 0 {
        let until = match policy.when_empty {
            Some(WhenEmpty::Wait) => "claims wait until it has one",
            Some(WhenEmpty::Fail) => "claims fail until it has one",
            None => "an acquire of the resource waits until it has one, other claims fail",
        };
        let next = format!("{until}: locker lock add {} NAME", shell_word(pool));
        return report.warn(env, "pool", text, next);
    }
    report.ok(env, "pool", text)
}

/// Every setting that the server sent, including those that only a newer release knows.
fn policy_words(policy: &Policy) -> String {
    let words: Vec<String> = match serde_json::to_value(policy) {
        Ok(Value::Object(map)) => map.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect(),
        _ => Vec::new(),
    };
    if words.is_empty() { "default policy".to_owned() } else { format!("policy: {}", words.join(", ")) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn holders(view: &PoolView, tools: &Tools, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let draining = view.items.iter().filter(|lock| lock.state == LockState::Draining).count();
    if draining > 0 {
        report.ok(env, "lock", format!("{draining} out of use for a while, because the holder was lost"))?;
    }
    let holders: Vec<&HolderView> = view.items.iter().flat_map(|lock| &lock.holders).collect();
    for holder in holders.iter().take(LISTED) {
        let text = who::holder(holder, when::now(&*tools.clock));
        if is_old(holder, tools) {
            let next = format!("if its build is over for good: locker release {}", holder.claim);
            report.warn(env, "lock", format!("{text}, for more than a day"), next)?;
        } else {
            report.ok(env, "lock", text)?;
        }
    }
    if holders.len() > LISTED {
        report.ok(env, "lock", format!("and {} more holders", holders.len() - LISTED))?;
    }
    Ok(())
}

fn is_old(holder: &HolderView, tools: &Tools) -> bool {
    let since = holder.since.as_deref().and_then(|since| DateTime::parse_from_rfc3339(since).ok());
    let now = i64::try_from(tools.clock.wall_ms()).unwrap_or(0);
    let age = since.map_or(0, |since| now.saturating_sub(since.timestamp_millis()));
    u128::try_from(age).is_ok_and(|age| age > OLD.as_millis())
}

/// Reports what the resource's `check` would print at its first run.
fn check(client: &Client, pool: &PoolName, tools: &Tools, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let (asked, name) = (client.clone(), pool.as_str().to_owned());
    let (answer, _) = tools.time(move || asked.changes(&name, Changes::Newest))?;
    match answer {
        Ok(page) => match page.items.first() {
            Some(change) => {
                let kind = serde_json::to_value(change.kind).map(|kind| plain(&kind)).unwrap_or_default();
                report.ok(env, "check", format!("would print version {} ({kind} at {})", change.revision, change.at))
            }
            None => report.ok(env, "check", "would print []: nothing has happened in the pool yet"),
        },
        Err(error) => Err(refused(&error, report, env)?),
    }
}

/// Claims, confirms and releases one lock, as `put` steps would.
pub(super) fn try_one(
    client: &Client,
    pool: Option<&PoolName>,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<(), Stop> {
    // A name that nobody else uses, not even another doctor at the same time.
    let scratch = format!("locker-doctor-{}", random_hex::<4>());
    let name = pool.map_or(scratch.as_str(), PoolName::as_str).to_owned();
    let id = random_hex::<20>();
    let start = tools.clock.monotonic();
    // The steps are short, and leave nothing behind only if all are made. So signals do not interrupt them.
    let held = hold(client, &id, &name, person(env));
    let released = match &held {
        Ok(Tried::Held { .. } | Tried::Unconfirmed(_)) => client.delete_claim(&id, None, PATIENCE).map(drop),
        Ok(Tried::Busy(_)) => Ok(()),
        // It is unknown whether the claim was granted. Taking it back is harmless.
        Err(_) => client.delete_claim(&id, None, PATIENCE).map_or(Ok(()), |_| Ok(())),
    };
    if pool.is_none() {
        // The pool was only for this trial. If it was never created, this fails, which does not matter.
        let _ = client.delete_pool(&name, &RemoveBody::default());
    }
    let took = tools.clock.monotonic().saturating_sub(start).as_millis();
    match (held, released) {
        (Ok(Tried::Held { lock, fence }), Ok(())) => {
            let text = format!("lock {lock:?} of pool {name:?} claimed with fence {fence} and released in {took} ms");
            report.ok(env, "try", text)
        }
        (Ok(Tried::Busy(holders)), _) => {
            let next = "nothing was taken; try without a pool, or wait until a lock is free";
            let holders = who::holders(&holders, when::now(&*tools.clock));
            report.warn(env, "try", format!("no lock of pool {name:?} is free: {holders}"), next)
        }
        (Ok(Tried::Unconfirmed(error)) | Err(error), _) | (_, Err(error)) => {
            Err(try_failed(&error, &name, report, env)?)
        }
    }
}

fn try_failed(error: &CallError, pool: &str, report: &mut Report, env: &mut Env<'_>) -> Result<Stop, Stop> {
    let next = match error.code() {
        Some(Code::NoSuchPool) => "claims do not create pools on this server (--declared-only): use --try POOL",
        Some(Code::Forbidden) => "these credentials allow reading, but not claiming",
        _ => "see the server's answer; what was claimed ends by itself within 60 s",
    };
    let code = if error.exit() == exit::OK { exit::FAILED } else { error.exit() };
    report.fail(env, "try", code, format!("pool {pool:?}: {error}"), next)
}

/// The result of a trial claim.
enum Tried {
    Held { lock: String, fence: u64 },
    Busy(Vec<HolderView>),
    Unconfirmed(CallError),
}

fn hold(client: &Client, id: &str, pool: &str, owner: Owner) -> Result<Tried, CallError> {
    let run = random_hex::<16>();
    let claim = match client.put_claim(id, &body(pool, &run, owner), Duration::ZERO)? {
        Asked::Waiting(view) => return Ok(Tried::Busy(view.holders)),
        Asked::Given(claim) => claim,
    };
    let fence = claim.fence.unwrap_or_default();
    let lock = claim.locks.first().map(|lock| lock.lock.clone()).unwrap_or_default();
    if claim.state == ClaimState::Held {
        return Ok(Tried::Held { lock, fence });
    }
    match client.confirm(id, &ConfirmBody { run: Some(run), fence }) {
        Ok(_) => Ok(Tried::Held { lock, fence }),
        Err(error) => Ok(Tried::Unconfirmed(error)),
    }
}

fn body(pool: &str, run: &str, owner: Owner) -> ClaimBody {
    ClaimBody {
        pool: pool.to_owned(),
        lock: None,
        locks: None,
        count: None,
        labels: std::collections::BTreeMap::new(),
        also: Vec::new(),
        key: None,
        requestor: None,
        scope: Some(Scope::Person),
        owner,
        run: Some(run.to_owned()),
        confirm: true,
        wait: None,
        queue: false,
        give_up_after: None,
        ttl: Some(TRIAL_TTL.to_owned()),
        reason: Some("locker doctor --try".to_owned()),
        priority: None,
        supersede: None,
        wait_if_empty: false,
        expect_store: None,
    }
}
