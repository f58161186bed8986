//! `add` and `add_claimed`: add a lock to the pool, from the files `name` and `metadata`.
//!
//! A lock from `add_claimed` belongs to its claim from the first moment: the server adds and claims it in one step. No
//! confirmation is needed, because nobody else could have received the lock. A signal removes the lock again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::input::Input;
use super::persist::Persist;
use super::print;
use super::put::{Put, Stop, taken_back};
use crate::client::acquire;
use crate::client::claim_id::{Place, claim_id};
use crate::core::names::LockName;
use crate::env::{Env, Signal, random_hex};
use crate::wire::api::{ClaimBody, FirstClaimBody, LockBody, RemoveBody};
use crate::wire::concourse::{AddClaimed, Answer, Metadata};
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
    put.tell(env, format!("added {:?}", lock.name.as_str()));
    Ok(put.answer(done.revision, Some(lock.name.as_str()), Vec::new()))
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
