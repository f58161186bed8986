//! `add` and `add_claimed`: add a lock to the pool, from the files `name` and `metadata`, or move it from another pool.
//!
//! A lock from `add_claimed` belongs to its claim from the first moment: the server adds and claims it in one step. No
//! confirmation is needed, because nobody else could have received the lock. A signal removes the lock again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::input::{ClaimOrLock, Input};
use super::persist::Persist;
use super::print;
use super::put::{Put, Stop, taken_back};
use super::remove::present_holder;
use crate::client::acquire;
use crate::client::claim_id::{Place, claim_id};
use crate::client::{CallError, Client, who};
use crate::core::names::{LockName, PoolName};
use crate::env::{Env, Signal, random_hex};
use crate::wire::api::{ClaimBody, DoneView, FirstClaimBody, LockBody, MoveLockBody, RemoveBody};
use crate::wire::concourse::{AddClaimed, Answer, Metadata};
use crate::wire::errors::Code;
use crate::wire::text::{api_duration, show_metadata};

/// The time limit for removing a lock again if its version could not be printed.
const TAKE_BACK: Duration = Duration::from_millis(1_500);

/// The lock that a directory describes.
pub(super) struct NewLock {
    pub name: LockName,
    pub body: LockBody,
}

impl NewLock {
    /// Reads the lock from the directory that `param` names. Running the same step again changes nothing.
    pub(super) fn read(
        put: &Put<'_>,
        param: &'static str,
        dir: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let (name, bytes) = Input::open(&put.dir, param, dir)?.lock()?;
        // Everything that distinguishes two changes.
        let mut what = vec![name.as_str().as_bytes().to_vec(), bytes.clone()];
        what.extend(labels.iter().flat_map(|(name, value)| [name.clone().into_bytes(), value.clone().into_bytes()]));
        let (metadata, metadata_base64) = show_metadata(&bytes);
        let labels = (!labels.is_empty()).then_some(labels);
        let fields: Vec<&[u8]> = std::iter::once(param.as_bytes()).chain(what.iter().map(Vec::as_slice)).collect();
        let by = Some(put.by_step(&fields));
        Ok(Self { name, body: LockBody { metadata, metadata_base64, labels, by, ..LockBody::default() } })
    }
}

pub(super) fn add(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let lock = NewLock::read(put, "add", dir, labels)?;
    put.announce(env, &format!("adding lock {:?} to", lock.name.as_str()));
    let (pool, name, body) = (put.pool().to_owned(), lock.name.as_str().to_owned(), lock.body);
    let done = Persist::of(put, env)?.call(put, env, move |client| client.put_lock(&pool, &name, &body))?;
    tell_new_pool(put, &done, env);
    put.tell(env, format!("added {:?}", lock.name.as_str()));
    Ok(put.answer(done.revision, Some(lock.name.as_str()), Vec::new()))
}

/// `replace: true`: adds the lock, or replaces what an existing one carries. Fails if somebody holds that one.
pub(super) fn replace(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let lock = NewLock::read(put, "add", dir, labels)?;
    let name = lock.name.as_str().to_owned();
    put.announce(env, &format!("adding or replacing lock {name:?} of"));
    let (pool, to, body) = (put.pool().to_owned(), name.clone(), lock.body);
    let done = Persist::of(put, env)?.call(put, env, move |client| put_or_patch(client, &pool, &to, &body))?;
    let held = || {
        Stop::Failed(format!(
            "lock {name:?} of pool {:?} is held, and is not replaced: use update, which waits until it is free",
            put.pool()
        ))
    };
    let revision = match done {
        Placed::Added(done) => {
            tell_new_pool(put, &done, env);
            put.tell(env, format!("added {name:?}"));
            done.revision
        }
        Placed::Changed(done) => {
            put.tell(env, format!("replaced {name:?}"));
            done.revision
        }
        Placed::Held => return Err(held()),
    };
    Ok(put.answer(revision, Some(&name), Vec::new()))
}

/// Says that the lock has made its pool, which may be a mistyped name.
pub(super) fn tell_new_pool(put: &Put<'_>, done: &DoneView, env: &mut Env<'_>) {
    if let Some(made) = &done.made {
        put.tell(env, who::new_pool(made, "it was made for this lock"));
    }
}

/// `remove_from`: the lock moves here from another pool, in one step. Its hold ends as with `remove`.
pub(super) fn move_from(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    from: &PoolName,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let NewLock { name: lock, body } = NewLock::read(put, "add", dir, labels)?;
    put.announce(env, &format!("moving lock {:?} from pool {from:?} to", lock.as_str()));
    let mut persist = Persist::of(put, env)?;
    let claim = match Input::open(&put.dir, "add", dir)?.claim_or_lock()? {
        ClaimOrLock::Claim(id) => id,
        ClaimOrLock::Lock(_) | ClaimOrLock::Nothing => {
            present_holder(put, &mut persist, from.as_str(), lock.as_str(), env)?
        }
    };
    let LockBody { metadata, metadata_base64, labels, .. } = body;
    let content = metadata.as_deref().or(metadata_base64.as_deref()).unwrap_or_default().as_bytes();
    let by = put.by_step(&[b"move", from.as_str().as_bytes(), lock.as_str().as_bytes(), claim.as_bytes(), content]);
    let (to, by) = (put.pool().to_owned(), Some(by));
    let body = MoveLockBody { to, claim: Some(claim), metadata, metadata_base64, labels, by };
    let (pool, name) = (from.to_string(), lock.as_str().to_owned());
    let done = persist.call(put, env, move |client| client.move_lock(&pool, &name, &body))?;
    tell_new_pool(put, &done, env);
    put.tell(env, format!("moved {:?}; it is free here", lock.as_str()));
    Ok(put.answer(done.revision, Some(lock.as_str()), Vec::new()))
}

/// What became of a lock that was to be changed, or else added.
pub(super) enum Placed {
    Changed(DoneView),
    Added(DoneView),
    /// Nothing: somebody holds it.
    Held,
}

/// Changes the lock, or adds it.
pub(super) fn put_or_patch(client: &Client, pool: &str, lock: &str, body: &LockBody) -> Result<Placed, CallError> {
    let error = match client.patch_lock(pool, lock, &LockBody { if_free: true, ..body.clone() }) {
        Ok(done) => return Ok(Placed::Changed(done)),
        Err(error) => error,
    };
    match error.code() {
        Some(Code::LockHeld) => Ok(Placed::Held),
        // The operation was another request before: this step ran already, and added the lock.
        Some(Code::NoSuchLock | Code::NoSuchPool | Code::DifferentRequest) => {
            match client.put_lock(pool, lock, body) {
                // Someone else was faster: look again.
                Err(error) if error.code() == Some(Code::LockExists) => Ok(Placed::Held),
                other => other.map(Placed::Added),
            }
        }
        _ => Err(error),
    }
}

pub(super) fn add_claimed(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    claim: &AddClaimed,
    env: &mut Env<'_>,
) -> Result<(), Stop> {
    let mut lock = NewLock::read(put, "add_claimed", dir, labels)?;
    let asked = ClaimBody {
        lock: Some(lock.name.as_str().to_owned()),
        scope: claim.scope,
        ..ClaimBody::of_pool(put.pool().to_owned())
    };
    let place = claim.name.as_deref().map_or(Place::Host(&put.hostname), Place::Named);
    let (id, run) = (claim_id(&put.owner, place, &asked), random_hex::<16>());
    lock.body.claim = Some(FirstClaimBody {
        id: id.clone(),
        run: Some(run.clone()),
        scope: claim.scope,
        ttl: claim.ttl.map(api_duration),
    });
    put.announce(env, &format!("adding lock {:?}, claimed, to", lock.name.as_str()));
    let taking = Taking { put, lock: &lock.name, id: &id, run: &run };
    let (pool, name, body) = (put.pool().to_owned(), lock.name.as_str().to_owned(), lock.body.clone());
    let done = Persist::of(put, env)?.call(put, env, move |client| client.put_lock(&pool, &name, &body));
    let done = done.map_err(|stop| match stop {
        Stop::Signalled(signal, _) => taking.back(Some(signal)),
        other => other,
    })?;
    let pair = |name, value: String| Metadata { name, value };
    let more = vec![pair("fence", done.revision.to_string()), pair("claim", id.clone())];
    let answer = put.answer(done.revision, Some(lock.name.as_str()), more);
    put.interruptible.check().map_err(|signal| taking.back(Some(signal)))?;
    tell_new_pool(put, &done, env);
    put.tell(env, format!("added and holding {:?}, fence {}", lock.name.as_str(), done.revision));
    print(env, &answer).map_err(|_| taking.back(None))
}

/// Removes a lock that was added together with our claim.
struct Taking<'t> {
    put: &'t Put<'t>,
    lock: &'t LockName,
    id: &'t str,
    run: &'t str,
}

impl Taking<'_> {
    /// Removes the lock and its hold. If the lock does not exist (yet), cancels the claim instead, so that a request
    /// still on its way finds that the claim has ended.
    fn back(&self, signal: Option<Signal>) -> Stop {
        let Self { put, lock, id, run } = self;
        let body = RemoveBody { claim: Some((*id).to_owned()), by: Some(put.by()) };
        let (client, pool, name) = (put.client().clone(), put.pool().to_owned(), lock.as_str().to_owned());
        let removed = put.interruptible.start(move || client.delete_lock(&pool, &name, &body)).wait_for(TAKE_BACK / 2);
        let gone = match removed {
            Some(Ok(_)) => format!("lock {:?} was removed again; nothing is held", lock.as_str()),
            _ => {
                let limit = TAKE_BACK / 2;
                let cancelled = acquire::cancel(put.client(), &put.interruptible, &*put.clock, id, Some(run), limit);
                taken_back(&cancelled, id)
            }
        };
        match signal {
            Some(signal) => Stop::Signalled(signal, gone),
            None => Stop::Failed(format!("cannot write the version to stdout; {gone}")),
        }
    }
}
