//! The JSON of a whole state, which `export json` writes and `import json` reads.
//!
//! It contains pools with their policies, locks with metadata and labels, live holds, and latches. It does not contain
//! history, fences, waiting and granted claims, ended claims, or drains. Imported holds get new fences.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::output::{CliError, print_json, say};
use super::plan::{metadata_of, shown};
use super::wanted::{Wanted, WantedHold, WantedLock, WantedPolicy, WantedPool};
use crate::client::Client;
use crate::client::calls::ClaimFilter;
use crate::client::latches::LatchClient;
use crate::core::limits;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::core::time::{Span, WallMs};
use crate::env::{Env, read_file, whole};
use crate::wire::api::{ClaimBody, ClaimView, LockRef, Owner, PartBody, Policy, Scope};
use crate::wire::errors::exit;
use crate::wire::latch::LatchView;
use crate::wire::problems::{Problems, quoted};
use crate::wire::text::{self, parse_time, show_metadata, show_span};

/// The version that this release writes, and the newest version that it reads.
const VERSION: u32 = 1;
/// How many times an export is tried at most while the state changes during the export.
const ATTEMPTS: u32 = 5;
/// The largest document that is read, bytes: a full store without large metadata.
const EXPORT_BYTES: u64 = 512 * 1024 * 1024;

/// The state of a server. Unknown members are refused, so that a file from a newer release is not half understood.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// The version of this format.
    locker_export: u32,
    /// Which store it comes from. For people.
    store_id: String,
    exported_at: String,
    revision: u64,
    pools: Vec<PoolEntry>,
    holds: Vec<HoldEntry>,
    latches: Vec<LatchView>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolEntry {
    pool: String,
    policy: Policy,
    /// The pool has one lock, named like it, because it was given none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    default_lock: bool,
    locks: Vec<LockEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockEntry {
    lock: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldEntry {
    claim: String,
    locks: Vec<LockRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requestor: Option<String>,
    scope: Scope,
    owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// For people. The import starts a new hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_since: Option<String>,
    /// When the hold ends by itself. An import after that moment leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_until: Option<String>,
}

/// Writes the state of a server to stdout, and the summary to stderr.
pub(super) fn write(dry_run: bool, client: &Client, latches: &LatchClient, env: &mut Env<'_>) -> Result<u8, CliError> {
    let mut attempt = 0;
    let document = loop {
        attempt += 1;
        let document = collect(client, latches)?;
        if client.info()?.revision == document.revision {
            break document;
        }
        if attempt == ATTEMPTS {
            say(env, "the state changed while it was read: the latest changes may be missing");
            break document;
        }
    };
    if !dry_run {
        print_json(env, &document)?;
    }
    let (pools, holds, latches) = (document.pools.len(), document.holds.len(), document.latches.len());
    let locks: usize = document.pools.iter().map(|pool| pool.locks.len()).sum();
    let verb = if dry_run { "to be written" } else { "written" };
    let latches = format!("{latches} {}", if latches == 1 { "latch" } else { "latches" });
    let (pools, locks, holds) =
        (text::counted(pools, "pool"), text::counted(locks, "lock"), text::counted(holds, "hold"));
    say(env, &format!("{pools}, {locks}, {holds}, {latches} {verb}"));
    Ok(exit::OK)
}

fn collect(client: &Client, latches: &LatchClient) -> Result<Document, CliError> {
    let info = client.info()?;
    let mut pools = Vec::new();
    for summary in client.list_pools()? {
        let mut locks = Vec::new();
        let items = client.get_pool(&summary.pool)?.items;
        let default_lock = items.iter().any(|lock| lock.implicit && !lock.leaving);
        for lock in items.into_iter().filter(|lock| !lock.implicit || lock.leaving) {
            let view = client.get_lock(&summary.pool, &lock.lock)?;
            let (metadata, metadata_base64) = show_metadata(&metadata_of(&view).unwrap_or_default());
            locks.push(LockEntry { lock: view.lock, metadata, metadata_base64, labels: view.labels });
        }
        pools.push(PoolEntry { pool: summary.pool, policy: summary.policy, default_lock, locks });
    }
    let held = ClaimFilter { state: Some("held"), ..ClaimFilter::default() };
    let holds = client.list_claims(&held)?.into_iter().map(hold_entry).collect();
    Ok(Document {
        locker_export: VERSION,
        store_id: info.store_id,
        exported_at: info.time,
        revision: info.revision,
        pools,
        holds,
        latches: super::latches(latches)?,
    })
}

fn hold_entry(claim: ClaimView) -> HoldEntry {
    HoldEntry {
        claim: claim.id,
        locks: claim.locks,
        // The requestor defaults to the key, so leaving it out here makes the same request.
        requestor: claim.requestor.filter(|_| claim.key.is_some()),
        key: claim.key,
        scope: claim.scope.unwrap_or(Scope::Flow),
        owner: claim.owner,
        reason: claim.reason,
        held_since: claim.held_since,
        held_until: claim.held_until,
    }
}

/// Reads a state. Problems that prevent the import are returned as sentences.
pub(super) fn read(file: &Path, env: &mut Env<'_>) -> Result<(Wanted, Vec<String>), CliError> {
    let read = if file == Path::new("-") { env.read_input("-", EXPORT_BYTES) } else { read_file(file, EXPORT_BYTES) };
    let name = file.display();
    let text = whole(read, EXPORT_BYTES)
        .map_err(|error| CliError::Failed(exit::FAILED, format!("cannot read {name}: {error}")))?;
    let version: Result<Version, _> = serde_json::from_slice(&text);
    if let Ok(Version { locker_export }) = version
        && locker_export != VERSION
    {
        let error = format!(
            "{name} has version {locker_export}, but this release reads {VERSION}: import it with the release that wrote it"
        );
        return Err(CliError::usage(error));
    }
    let document: Document = serde_json::from_slice(&text)
        .map_err(|error| CliError::usage(format!("{name} was not written by `locker export json`: {error}")))?;
    let mut problems = Problems::default();
    let wanted = wanted(document, WallMs(env.clock.wall_ms()), &mut problems, env);
    Ok((wanted, problems.into_list()))
}

/// Just enough of the format to recognise a newer version.
#[derive(Deserialize)]
struct Version {
    locker_export: u32,
}

fn wanted(document: Document, now: WallMs, problems: &mut Problems, env: &mut Env<'_>) -> Wanted {
    let mut wanted = Wanted { latches: document.latches, ..Wanted::default() };
    for (n, entry) in document.pools.into_iter().enumerate() {
        let at = format!("pools[{n}]");
        let Some(name) = problems.parse::<PoolName>(&at, &entry.pool) else { continue };
        let (policy, default_lock) = (WantedPolicy::Exactly(entry.policy), entry.default_lock);
        let mut pool = WantedPool { policy, default_lock, locks: BTreeMap::new() };
        for (n, lock) in entry.locks.into_iter().enumerate() {
            let at = format!("{at}.locks[{n}]");
            let name = problems.parse::<LockName>(&at, &lock.lock);
            let metadata = text::metadata(lock.metadata, lock.metadata_base64, problems).unwrap_or_default();
            let lock = WantedLock { metadata: metadata.to_vec(), labels: Some(lock.labels), is_free: None };
            let Some(name) = name else { continue };
            if pool.locks.insert(name.clone(), lock).is_some() {
                problems.add(&at, format!("lock {name:?} occurs twice"));
            }
        }
        if wanted.pools.insert(name.clone(), pool).is_some() {
            problems.add(&at, format!("pool {name:?} occurs twice"));
        }
    }
    for (n, entry) in document.holds.into_iter().enumerate() {
        let at = format!("holds[{n}]");
        let held_until = entry.held_until.as_deref().map(parse_time);
        let left = match held_until {
            None => None,
            Some(Ok(until)) if until <= now => {
                say(env, &format!("left out: the hold of {} has ended", shown(&entry.locks)));
                continue;
            }
            Some(Ok(until)) => Some(Span((until.0 - now.0).clamp(limits::TTL_MIN_MS, limits::TTL_MAX_MS))),
            Some(Err(error)) => {
                problems.add(&at, error);
                continue;
            }
        };
        wanted.holds.extend(hold(&at, entry, left, problems));
    }
    wanted
}

/// The claim asks for exactly the locks that it held. Its original request could give it other ones.
fn hold(at: &str, entry: HoldEntry, ttl: Option<Span>, problems: &mut Problems) -> Option<WantedHold> {
    let id = problems.parse::<ClaimId>(&format!("{at}.claim"), &entry.claim);
    let mut by_pool: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for lock in &entry.locks {
        by_pool.entry(lock.pool.clone()).or_default().push(lock.lock.clone());
    }
    let mut parts = by_pool.into_iter().map(|(pool, mut locks)| {
        let lock = if locks.len() == 1 { locks.pop() } else { None };
        PartBody { pool, lock, locks: (!locks.is_empty()).then_some(locks), ..PartBody::default() }
    });
    let Some(first) = parts.next() else {
        problems.add(at, format!("claim {} holds nothing", quoted(&entry.claim)));
        return None;
    };
    let body = ClaimBody {
        pool: first.pool,
        lock: first.lock,
        locks: first.locks,
        count: None,
        labels: BTreeMap::new(),
        also: parts.collect(),
        key: entry.key,
        requestor: entry.requestor,
        scope: Some(entry.scope),
        priority: None,
        supersede: None,
        wait_if_empty: false,
        owner: entry.owner,
        run: None,
        confirm: false,
        wait: None,
        queue: false,
        give_up_after: None,
        ttl: ttl.map(show_span),
        reason: entry.reason,
        expect_store: None,
    };
    let mut locks = entry.locks;
    locks.sort();
    Some(WantedHold { id: id?, locks, body: Box::new(body) })
}
