//! `in`: writes the files of one version (`docs/design.md#what-in-writes`).
//!
//! With a `pool` source, a version that claimed locks can be fetched only while its hold lasts. Every other version is
//! history and can always be fetched, so that the implicit get after a release or a removal succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::build;
use super::destination::Destination;
use super::lost;
use super::put::all_locks;
use super::session::Opening;
use super::tree::{Tree, metadata};
use super::{Failure, away, directory, interruptible, print, progress, read_payload, say};
use crate::client::acquire::{Timing, env_duration};
use crate::client::backoff::Backoff;
use crate::client::interruptible::Interruptible;
use crate::client::progress::{Pace, Silence};
use crate::client::{CallError, Client, NoAnswer, when};
use crate::core::names::{LockName, PoolName};
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::api::{
    BuildBody, ChangeKind, ChangeView, ClaimState, ClaimView, DeliverBody, HolderView, LockView, Owner,
};
use crate::wire::concourse::{Answer, InRequest, LogLevel, Metadata, SourceKind, Version};
use crate::wire::errors::Code;

/// How long to retry a server that does not answer. `LOCKER_GET_LIMIT` shortens it.
const LIMIT: Duration = Duration::from_secs(60);

/// `locker.json`: everything that is known about the version.
#[derive(Serialize)]
struct Everything<'a> {
    pool: &'a str,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<ChangeKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<&'a ClaimView>,
    locks: &'a [Fetched],
}

/// A lock of the version, as it is now.
#[derive(Serialize)]
struct Fetched {
    #[serde(flatten)]
    view: LockView,
    #[serde(skip)]
    pool: PoolName,
    #[serde(skip)]
    lock: LockName,
    #[serde(skip)]
    metadata: Vec<u8>,
}

/// The file `lock`: the present holder, in the form of locker's `GET /locks`.
#[derive(Serialize)]
struct Holders {
    key: String,
    locked_by: BTreeMap<String, usize>,
}

/// Runs `in`.
pub fn get(env: &mut Env<'_>) -> u8 {
    match run(env) {
        Ok(()) => 0,
        Err(failure) => failure.report(env),
    }
}

fn run(env: &mut Env<'_>) -> Result<(), Failure> {
    let dir = directory(env)?;
    let payload = read_payload(env)?;
    let request = InRequest::parse(&payload).map_err(|error| error.to_string())?;
    let revision: u64 = request.version.parse().map_err(|_| {
        format!("version {:?} was not made by this resource type: check the resource again", request.version)
    })?;
    let limit = env_duration(env, "LOCKER_GET_LIMIT", LIMIT)?;
    let retry_max = Timing::of(env)?.retry_max;
    let (opening, kind) = (Opening::of(&request.source, None, env)?, request.source.kind);
    let tree = request.params.tree && kind == SourceKind::Pool;
    let Owner { cluster, build_id, .. } = build::owner(env);
    let build = cluster.zip(build_id).map(|(cluster, build_id)| BuildBody { cluster, build_id });
    let session = interruptible(env, move || opening.resolve())?;
    let now = when::now(&*env.clock);
    let get = Get { client: session.client, pool: session.pool, kind, tree, build, now };
    let pace = progress::pace(request.source.log_level, env)?;
    let facts = get.persist(revision, &Patience { limit, retry_max, pace, level: request.source.log_level }, env)?;
    let mut files = Destination::open(dir)?;
    get.write(&mut files, revision, &facts)?;
    print(env, &get.answer(&request.version, &facts))?;
    files.done();
    if request.source.log_level >= LogLevel::Info {
        facts.tree.missing().into_iter().for_each(|text| say(env.stderr, text));
        say(env.stderr, get.last_line(revision, facts.change.as_ref(), &facts.locks));
    }
    Ok(())
}

#[derive(Clone)]
struct Get {
    client: Client,
    pool: PoolName,
    kind: SourceKind,
    /// Whether to write the files that pool-resource writes.
    tree: bool,
    /// The wall clock at the beginning.
    now: WallMs,
    /// The build of this get.
    build: Option<BuildBody>,
}

/// Everything that the server knows about a version.
struct Facts {
    change: Option<ChangeView>,
    /// The hold of a `claimed` version, if it still lasts.
    hold: Option<ClaimView>,
    locks: Vec<Fetched>,
    holders: Vec<HolderView>,
    tree: Tree,
}

/// How long to ask a server that does not answer, and how often to say so.
struct Patience {
    limit: Duration,
    retry_max: Duration,
    pace: Pace,
    level: LogLevel,
}

/// Why a version cannot be fetched.
enum Miss {
    /// No server answered. A retry may help.
    Away(NoAnswer),
    Final(String),
}

impl From<String> for Miss {
    fn from(text: String) -> Self {
        Self::Final(text)
    }
}

impl From<CallError> for Miss {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoAnswer(why) => Self::Away(why),
            CallError::Hopeless(why) => Self::Final(away(&why)),
            CallError::Refused(refused) => Self::Final(refused.to_string()),
        }
    }
}

impl Get {
    /// Retries for a while: a brief outage after a put must not fail a step that holds its lock.
    fn persist(&self, revision: u64, patience: &Patience, env: &mut Env<'_>) -> Result<Facts, Failure> {
        let (clock, interruptible) = (Arc::clone(&env.clock), Interruptible::new(&env.signals));
        let (start, mut backoff) = (clock.monotonic(), Backoff::new(patience.retry_max));
        let mut silence = Silence::new(patience.pace);
        loop {
            let (attempt, sent) = (self.clone(), clock.monotonic());
            match interruptible.run(move || attempt.facts(revision)).map_err(Failure::Signalled)? {
                Ok(facts) => return Ok(facts),
                Err(Miss::Final(text)) => return Err(text.into()),
                Err(Miss::Away(why)) => {
                    let (pause, now) = (backoff.pause(why.retry_after), clock.monotonic());
                    if now.saturating_sub(start) + pause >= patience.limit {
                        return Err(away(&why).into());
                    }
                    let line = silence.line(&why, self.client.has_met(), sent, now);
                    line.iter().filter(|_| patience.level >= LogLevel::Info).for_each(|line| say(env.stderr, line));
                    interruptible.sleep(pause).map_err(Failure::Signalled)?;
                }
            }
        }
    }

    fn facts(&self, revision: u64) -> Result<Facts, Miss> {
        let change = self.change(revision)?;
        let hold = self.hold(change.as_ref())?;
        let locks = self.locks(change.as_ref())?;
        let holders = self.holders(&locks)?;
        let tree = if self.tree { Tree::fetch(&self.client, &self.pool)? } else { Tree::None(None) };
        Ok(Facts { change, hold, locks, holders, tree })
    }

    /// The change of that revision. If a revision has more than one entry, the last one tells the result of the step: a
    /// pool that a claim creates is `added`, then `claimed`.
    fn change(&self, revision: u64) -> Result<Option<ChangeView>, Miss> {
        let nothing_ever = revision == 0;
        match self.client.revision(self.pool.as_str(), revision) {
            Ok(entries) => {
                let told = |entry: &&ChangeView| is_told(entry.kind);
                Ok(entries.iter().rfind(told).or(entries.last()).cloned())
            }
            Err(error) if matches!(error.code(), Some(Code::NoSuchPool | Code::NoSuchRevision)) => {
                if self.kind == SourceKind::LockName || nothing_ever { Ok(None) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The hold of a `claimed` version, if it still lasts.
    fn hold(&self, change: Option<&ChangeView>) -> Result<Option<ClaimView>, Miss> {
        let Some(change) = change.filter(|change| change.kind == ChangeKind::Claimed) else { return Ok(None) };
        let Some(id) = &change.claim else { return Ok(None) };
        let why = match self.fetch(id, change.revision) {
            Ok(claim) if claim.state == ClaimState::Held && claim.revision == Some(change.revision) => {
                return Ok(Some(claim));
            }
            Ok(claim) => over(&claim, self.now),
            Err(CallError::Refused(refused)) => match &refused.claim {
                Some(claim) => over(claim, self.now),
                None => refused.to_string(),
            },
            Err(error @ (CallError::NoAnswer(_) | CallError::Hopeless(_))) => return Err(error.into()),
        };
        match self.kind {
            SourceKind::LockName => Ok(None),
            SourceKind::Pool => Err(Miss::Final(format!(
                "lock instance is no longer acquired: claim {id} of revision {} {why}",
                change.revision
            ))),
        }
    }

    /// Fetches the claim and tells the server which build has done so. An older server without that call just returns
    /// the claim.
    fn fetch(&self, id: &str, revision: u64) -> Result<ClaimView, CallError> {
        match self.client.deliver(id, &DeliverBody { revision, build: self.build.clone() }) {
            Err(error) if error.code() == Some(Code::NoSuchRoute) => self.client.get_claim(id),
            answer => answer,
        }
    }

    /// The locks of the version that still exist, in (pool, name) order, with those of this resource's pool first.
    fn locks(&self, change: Option<&ChangeView>) -> Result<Vec<Fetched>, Miss> {
        let mut refs = change.map(|change| change.locks.clone()).unwrap_or_default();
        refs.sort();
        refs.sort_by_key(|lock| lock.pool != self.pool.as_str());
        let mut locks = Vec::new();
        for found in refs {
            // Names from the server become paths, so they are validated again.
            let hostile = |error| format!("the server's answer is not valid: {error}");
            let pool = PoolName::parse(&found.pool).map_err(hostile)?;
            let lock = LockName::parse(&found.lock).map_err(hostile)?;
            let view = match self.client.get_lock(&found.pool, &found.lock) {
                Ok(view) => view,
                Err(error) if matches!(error.code(), Some(Code::NoSuchPool | Code::NoSuchLock)) => continue,
                Err(error) => return Err(error.into()),
            };
            let metadata = metadata(&view)?;
            locks.push(Fetched { view, pool, lock, metadata });
        }
        Ok(locks)
    }

    /// The present holders of the first lock of the version or, with `lock_name`, of any lock of the pool.
    fn holders(&self, locks: &[Fetched]) -> Result<Vec<HolderView>, Miss> {
        let own = locks.iter().find(|lock| lock.pool == self.pool);
        if let Some(lock) = own {
            return Ok(lock.view.holders.clone());
        }
        if self.kind == SourceKind::Pool {
            return Ok(Vec::new());
        }
        match self.client.get_pool(self.pool.as_str()) {
            Ok(pool) => Ok(pool.items.into_iter().flat_map(|lock| lock.holders).collect()),
            Err(error) if error.code() == Some(Code::NoSuchPool) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, files: &mut Destination, revision: u64, facts: &Facts) -> Result<(), String> {
        let Facts { change, hold, locks, holders, tree } = facts;
        let (change, hold) = (change.as_ref(), hold.as_ref());
        let everything = Everything {
            pool: self.pool.as_str(),
            revision,
            kind: change.map(|change| change.kind),
            at: change.map(|change| change.at.as_str()),
            claim: change.and_then(|change| change.claim.as_deref()),
            how: change.and_then(|change| change.how.as_deref()),
            reason: change.and_then(|change| change.reason.as_deref()),
            owner: change.map(|change| &change.owner),
            hold,
            locks,
        };
        let mut json = serde_json::to_vec_pretty(&everything).map_err(|error| error.to_string())?;
        json.push(b'\n');
        files.write("locker.json", &json)?;
        files.write("pool", format!("{}\n", self.pool).as_bytes())?;
        files.write("lock", &holder_json(holders)?)?;
        if let Some(hold) = hold {
            files.write("claim", format!("{}\n", hold.id).as_bytes())?;
            files.write("fence", format!("{}\n", hold.fence.unwrap_or(0)).as_bytes())?;
        }
        tree.write(&self.pool, files)?;
        for lock in locks {
            files.write_lock(&lock.pool, &lock.lock, &lock.metadata)?;
        }
        if let Some(first) = locks.iter().find(|lock| lock.pool == self.pool) {
            files.write("metadata", &first.metadata)?;
            files.write("name", format!("{}\n", first.lock).as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, version: &str, facts: &Facts) -> Answer {
        let Facts { change, hold, holders, .. } = facts;
        let pair = |name, value: String| Metadata { name, value };
        let own = change.as_ref().and_then(|change| change.locks.iter().find(|lock| lock.pool == self.pool.as_str()));
        let mut metadata = Vec::new();
        metadata.extend(own.map(|lock| pair("lock_name", lock.lock.clone())));
        metadata.push(pair("pool_name", self.pool.to_string()));
        let locks = change.as_ref().and_then(|change| all_locks(self.pool.as_str(), &change.locks));
        metadata.extend(locks.map(|locks| pair("locks", locks)));
        if self.kind == SourceKind::LockName {
            let is_held = holders.iter().any(|holder| holder.state == ClaimState::Held);
            metadata.push(pair("lock", self.pool.to_string()));
            metadata.push(pair("status", if is_held { "locked" } else { "unlocked" }.to_owned()));
        }
        metadata.extend(hold.as_ref().and_then(|hold| hold.fence).map(|fence| pair("fence", fence.to_string())));
        metadata.extend(hold.as_ref().map(|hold| pair("claim", hold.id.clone())));
        Answer { version: Version { revision: version.to_owned() }, metadata }
    }

    fn last_line(&self, revision: u64, change: Option<&ChangeView>, locks: &[Fetched]) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let names: Vec<String> = locks.iter().map(|lock| format!("{:?}", lock.lock)).collect();
        let names = if names.is_empty() { "no lock".to_owned() } else { names.join(", ") };
        let what = match change {
            Some(change) if change.kind == ChangeKind::Removed => {
                let gone: Vec<String> = change.locks.iter().map(|lock| format!("{:?}", lock.lock)).collect();
                format!("this version removed {}: there is nothing to fetch", gone.join(", "))
            }
            Some(change) => format!("{}: {names}", word(change.kind)),
            None => "the server no longer knows this version".to_owned(),
        };
        format!("locker {version}: pool {:?}, revision {revision}, {what}", self.pool)
    }
}

/// Whether an entry of this kind tells what a step did.
fn is_told(kind: ChangeKind) -> bool {
    use ChangeKind::{Added, Broken, Claimed, Lost, Noted, Quarantined, Released, Removed, Returned, Updated};
    matches!(kind, Claimed | Released | Lost | Broken | Added | Removed | Updated | Quarantined | Returned | Noted)
}

fn word(kind: ChangeKind) -> String {
    // The API's words are those that serde writes.
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// How and when a hold ended.
pub(super) fn over(claim: &ClaimView, now: WallMs) -> String {
    if claim.state != ClaimState::Ended {
        return "has ended; its claim id now belongs to a later claim".to_owned();
    }
    format!("has ended: {}", lost::how(claim, now))
}

/// The file `lock`. Empty if nobody holds the lock.
fn holder_json(holders: &[HolderView]) -> Result<Vec<u8>, String> {
    let held: Vec<&HolderView> = holders.iter().filter(|holder| holder.state == ClaimState::Held).collect();
    let Some(first) = held.first() else { return Ok(Vec::new()) };
    let key = first.key.clone().unwrap_or_else(|| first.claim.clone());
    let mut locked_by = BTreeMap::new();
    for holder in held {
        let who = holder.requestor.clone().or_else(|| holder.key.clone()).unwrap_or_else(|| holder.claim.clone());
        *locked_by.entry(who).or_insert(0) += 1;
    }
    serde_json::to_vec(&Holders { key, locked_by }).map_err(|error| error.to_string())
}
