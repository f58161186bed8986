//! `release` and `lock_op: unlock`: release locks. They take at most 60 s, so that an aborted build can end while the
//! server is down. A signal does not stop the request in flight, only the wait for its answer.

use super::input::{ClaimOrLock, Input};
use super::lost;
use super::persist::Persist;
use super::put::{Put, Stop};
use crate::client::calls::ClaimFilter;
use crate::client::claim_id::{Place, claim_id};
use crate::client::who;
use crate::env::Env;
use crate::wire::api::{
    ClaimBody, ClaimState, ClaimView, HolderView, NoteBody, Owner, PartBody, ReleaseBody, ReleaseView, Scope,
};
use crate::wire::concourse::{Answer, InputFile, LockChoice, Metadata, Release, SourceKind};
use crate::wire::errors::Code;

/// When a lock is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Once no step of the build that took it can run any more: at once, or on a Concourse that runs builds again, when
    /// the build is over.
    Safe,
    /// At once.
    Now,
}

impl When {
    pub(super) fn of(now: bool) -> Self {
        if now { Self::Now } else { Self::Safe }
    }
}

/// How claims are released in one step.
struct Ending {
    persist: Persist,
    when: When,
}

/// The version of a pool that has never had a change.
const NOTHING_EVER: u64 = 0;

pub(super) fn release(put: &Put<'_>, what: &Release, when: When, env: &mut Env<'_>) -> Result<Answer, Stop> {
    let mut ending = Ending { persist: Persist::of(put, env)?, when };
    match what {
        Release::Dir(dir) => {
            let input = Input::open(&put.dir, "release", dir)?;
            match input.claim_or_lock()? {
                ClaimOrLock::Claim(id) => release_claim(put, &mut ending, &id, &input, env),
                ClaimOrLock::Lock(lock) => release_lock(put, &mut ending, lock.as_str(), env),
                ClaimOrLock::Nothing => {
                    put.tell(env, format!("{dir:?} comes from a step that took no lock: nothing to release"));
                    note(put, &mut ending.persist, None, env)
                }
            }
        }
        Release::Lock(LockChoice::Named(lock)) => release_lock(put, &mut ending, lock.as_str(), env),
        Release::Lock(LockChoice::InFile(InputFile { dir, file })) => {
            let lock = Input::open(&put.dir, "release", dir)?.name_in(file)?;
            let lock = lock.ok_or_else(|| format!("release: the file {dir}/{file} is empty: it names no lock"))?;
            release_lock(put, &mut ending, lock.as_str(), env)
        }
        Release::Build { name } => release_build(put, &mut ending, name.as_deref(), env),
    }
}

fn first_line(put: &Put<'_>, what: &str, env: &mut Env<'_>) {
    put.announce(env, &format!("releasing {what} in"));
}

/// Releases the claim that our `in` wrote into the directory. Only that claim's own hold can end this way.
fn release_claim(
    put: &Put<'_>,
    ending: &mut Ending,
    id: &str,
    input: &Input,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    first_line(put, &format!("claim {id}"), env);
    let asked = id.to_owned();
    let claim = ending.persist.call(put, env, move |client| client.get_claim(&asked))?;
    if claim.state == ClaimState::Ended {
        let lock = input.lock_name().ok().map(|name| name.as_str().to_owned());
        return already_over(put, ending, &claim, lock.as_deref(), env);
    }
    let Some(part) = claim.asks.iter().find(|part| part.pool == put.pool()) else {
        let pools: Vec<String> = claim.asks.iter().map(|part| format!("{:?}", part.pool)).collect();
        return Err(Stop::Failed(format!(
            "claim {id} belongs to pool {}, not to pool {:?}: release it with a resource of its own pool",
            pools.join(", "),
            put.pool()
        )));
    };
    let lock = own_lock(put, &claim).or_else(|| part.lock.clone());
    let ended = end(put, ending, id, &claim.owner, env)?;
    tell_end(put, ending, &Was::of(&claim), &ended, env);
    version_of(put, ending, &ended, lock.as_deref(), env)
}

/// Releases one claim, whoever owns it. A claim that is already released is not an error.
fn end(put: &Put<'_>, ending: &mut Ending, id: &str, owner: &Owner, env: &mut Env<'_>) -> Result<ReleaseView, Stop> {
    let is_own = (&owner.cluster, &owner.build_id) == (&put.owner.cluster, &put.owner.build_id);
    let at_once = ending.when == When::Now && is_own;
    let (id, body) = (id.to_owned(), ReleaseBody { owner: put.owner.clone() });
    ending.persist.call(put, env, move |client| {
        // The claim of another build ends at once in any case, and the history says who did it.
        if at_once { client.end_claim(&id) } else { client.release_claim(&id, &body) }
    })
}

/// What a claim was before its end, for people.
struct Was<'a> {
    names: String,
    owner: &'a Owner,
    held: bool,
}

impl<'a> Was<'a> {
    fn of(claim: &'a ClaimView) -> Self {
        Self { names: names(claim), owner: &claim.owner, held: claim.state == ClaimState::Held }
    }
}

/// Says what became of a claim: it is released, or it will be.
fn tell_end(put: &Put<'_>, ending: &Ending, was: &Was<'_>, ended: &ReleaseView, env: &mut Env<'_>) {
    let names = &was.names;
    if ended.claim.marked {
        put.tell(
            env,
            format!(
                "{names}: given back when this build is over, because its Concourse may run it again until then; to give \
                 it back at once, set now: true"
            ),
        );
        return;
    }
    put.tell(env, format!("released {names}"));
    if ended.reruns && ending.when == When::Safe && was.held {
        let why = if was.owner.build_id == put.owner.build_id {
            "another step of this build waits for it"
        } else {
            "another build took it"
        };
        put.tell(
            env,
            format!(
                "warning: this Concourse may run builds again, and this lock is given back at once because {why}: steps that \
                 run again work without it"
            ),
        );
    }
}

fn already_over(
    put: &Put<'_>,
    ending: &mut Ending,
    claim: &ClaimView,
    lock: Option<&str>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let how = lost::how(claim, put.now());
    // Sent once more, so that the server's own rule decides whether this is harmless.
    end(put, ending, &claim.id, &claim.owner, env).map_err(|stop| match stop {
        Stop::Refused(_) => Stop::Failed(format!("claim {} has already ended: {how}", claim.id)),
        other => other,
    })?;
    put.tell(env, format!("claim {} had already ended: {how}; nothing to do", claim.id));
    note(put, &mut ending.persist, lock, env)
}

/// The version of a step that ended a claim.
fn version_of(
    put: &Put<'_>,
    ending: &mut Ending,
    ended: &ReleaseView,
    lock: Option<&str>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    match ended.revision {
        Some(revision) => Ok(put.answer(revision, lock, released_metadata(put))),
        None => note(put, &mut ending.persist, lock, env),
    }
}

/// A version for a step that changed nothing.
pub(super) fn note(
    put: &Put<'_>,
    persist: &mut Persist,
    lock: Option<&str>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let pool = put.pool().to_owned();
    let body = NoteBody { lock: lock.map(str::to_owned), by: Some(put.by()) };
    let noted = persist.call(put, env, move |client| match client.note(&pool, &body) {
        // The pool does not exist, so it has never had a change.
        Err(error) if error.code() == Some(Code::NoSuchPool) => Ok(NOTHING_EVER),
        answer => answer.map(|done| done.revision),
    })?;
    Ok(put.answer(noted, lock, released_metadata(put)))
}

fn released_metadata(put: &Put<'_>) -> Vec<Metadata> {
    if put.source.kind == SourceKind::Pool {
        return Vec::new();
    }
    let pair = |name, value: &str| Metadata { name, value: value.to_owned() };
    vec![pair("lock", put.pool()), pair("status", "unlocked")]
}

/// Ends the hold on this lock, whoever the holder is. This is for people and pipelines that know only the lock.
fn release_lock(put: &Put<'_>, ending: &mut Ending, lock: &str, env: &mut Env<'_>) -> Result<Answer, Stop> {
    first_line(put, &format!("lock {lock:?}"), env);
    let (pool, name) = (put.pool().to_owned(), lock.to_owned());
    let view = ending.persist.call(put, env, move |client| client.get_lock(&pool, &name))?;
    let held: Vec<&HolderView> = view.holders.iter().filter(|h| h.state == ClaimState::Held).collect();
    match held.as_slice() {
        [] => Err(Stop::Failed(format!("lock {lock:?} of pool {:?} is not held: nothing to release", put.pool()))),
        [holder] => {
            let ended = end(put, ending, &holder.claim, &holder.owner, env)?;
            let names = format!("{lock:?}, held by {}", who::held_by(holder, put.now()));
            tell_end(put, ending, &Was { names, owner: &holder.owner, held: true }, &ended, env);
            version_of(put, ending, &ended, Some(lock), env)
        }
        several => Err(Stop::Failed(format!(
            "lock {lock:?} of pool {:?} has {} holders: release with the directory of one of them; held: {}",
            put.pool(),
            several.len(),
            who::holders(&view.holders, put.now())
        ))),
    }
}

/// Ends all claims of this build in the pool, or only the claim that it made `as` that name.
fn release_build(put: &Put<'_>, ending: &mut Ending, name: Option<&str>, env: &mut Env<'_>) -> Result<Answer, Stop> {
    let (Some(cluster), Some(build)) = (put.owner.cluster.clone(), put.owner.build_id.clone()) else {
        return Err(Stop::Failed(
            "release: build works only in a build: ATC_EXTERNAL_URL and BUILD_ID are not set".into(),
        ));
    };
    let what = name.map_or_else(|| format!("everything of build {build}"), |name| format!("{name:?} of build {build}"));
    first_line(put, &what, env);
    let pool = put.pool().to_owned();
    let claims = ending.persist.call(put, env, move |client| {
        client.list_claims(&ClaimFilter { pool: Some(&pool), state: None, build: Some((&cluster, &build)) })
    })?;
    let wanted = claims.iter().filter(|claim| name.is_none_or(|name| is_named(claim, name)));
    let mut last = None;
    for claim in wanted {
        match end(put, ending, &claim.id, &claim.owner, env) {
            Ok(ended) => {
                tell_end(put, ending, &Was::of(claim), &ended, env);
                last = ended.revision.map(|revision| (revision, own_lock(put, claim))).or(last);
            }
            Err(Stop::Refused(why)) => put.tell(env, format!("claim {}: {why}", claim.id)),
            Err(other) => return Err(other),
        }
    }
    if let Some((revision, lock)) = last {
        return Ok(put.answer(revision, lock.as_deref(), released_metadata(put)));
    }
    put.tell(env, "this build holds nothing here and waits for nothing: nothing to do");
    note(put, &mut ending.persist, None, env)
}

/// Whether a claim of this build was made `as` that name. The id of the claim tells.
fn is_named(claim: &ClaimView, name: &str) -> bool {
    let Some((first, also)) = claim.asks.split_first() else { return false };
    let PartBody { pool, lock, locks, count, labels } = first.clone();
    let body = |scope: Option<Scope>| ClaimBody {
        lock: lock.clone(),
        locks: locks.clone(),
        count,
        labels: labels.clone(),
        also: also.to_vec(),
        key: claim.key.clone(),
        requestor: claim.requestor.clone(),
        scope,
        ..ClaimBody::of_pool(pool.clone())
    };
    // The server fills in a missing scope, so the id may have been made with or without it.
    // Another id of the same request may have been answered with this claim.
    let is_its = |id: String| id == claim.id || claim.aliases.contains(&id);
    [None, claim.scope].into_iter().any(|scope| is_its(claim_id(&claim.owner, Place::Named(name), &body(scope))))
}

/// `lock_op: unlock`: ends every hold of this requestor with this key.
pub(super) fn unlock(
    put: &Put<'_>,
    (key, requestor): (&str, &str),
    when: When,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let mut ending = Ending { persist: Persist::of(put, env)?, when };
    let pool = put.pool().to_owned();
    put.announce(env, &format!("unlocking for {requestor:?} with key {key:?} in"));
    let held = ending.persist.call(put, env, move |client| {
        client.list_claims(&ClaimFilter { pool: Some(&pool), state: Some("held"), build: None })
    })?;
    let ours = |claim: &&ClaimView| {
        claim.key.as_deref() == Some(key) && claim.requestor.as_deref().unwrap_or(key) == requestor
    };
    let mut last = None;
    for claim in held.iter().filter(ours) {
        let ended = end(put, &mut ending, &claim.id, &claim.owner, env)?;
        if ended.reruns {
            tell_end(put, &ending, &Was::of(claim), &ended, env);
        }
        last = ended.revision.map(|revision| (revision, ended.claim.marked)).or(last);
    }
    if let Some((revision, marked)) = last {
        if !marked {
            put.tell(env, format!("unlocked {:?}", put.pool()));
        }
        return Ok(put.answer(revision, None, released_metadata(put)));
    }
    if let Some(other) = held.iter().find(|claim| claim.key.as_deref() != Some(key)) {
        let who = who::owner(&other.owner, &format!("claim {}", other.id));
        let theirs = other.key.as_ref().map(|key| format!(" with key {key:?}")).unwrap_or_default();
        return Err(Stop::Failed(format!("{:?} is locked by {who}{theirs}, not with key {key:?}", put.pool())));
    }
    put.tell(env, format!("{requestor:?} holds nothing of {:?}: nothing to do", put.pool()));
    note(put, &mut ending.persist, None, env)
}

fn own_lock(put: &Put<'_>, claim: &ClaimView) -> Option<String> {
    claim.locks.iter().find(|lock| lock.pool == put.pool()).map(|lock| lock.lock.clone())
}

fn names(claim: &ClaimView) -> String {
    if claim.locks.is_empty() {
        return format!("claim {}, which was waiting", claim.id);
    }
    let names: Vec<String> = claim.locks.iter().map(|l| format!("{:?} of pool {:?}", l.lock, l.pool)).collect();
    names.join(", ")
}
