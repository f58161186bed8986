//! `add` and `add_claimed`: put a new lock into the pool, from the files `name` and `metadata`.
//!
//! A lock that comes claimed is its claim's from the first moment on: the server adds and claims in one step. It
//! needs no confirmation, because nobody else is kept waiting by it; a signal takes the lock out again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::persist::Persist;
use super::put::{Put, Stop, taken_back};
use super::{files, print};
use crate::client::acquire;
use crate::client::claim_id::{Place, claim_id};
use crate::core::names::LockName;
use crate::env::{Env, Signal, random_hex};
use crate::wire::api::{ClaimBody, FirstClaimBody, LockBody, RemoveBody};
use crate::wire::concourse::{AddClaimed, Answer, Metadata, api_duration};
use crate::wire::text::show_metadata;

/// Time for taking a lock out again whose version could not be printed.
const TAKE_BACK: Duration = Duration::from_millis(1_500);

/// The lock that a directory describes.
pub(super) struct NewLock {
    pub name: LockName,
    /// Name, metadata and labels as bytes: what tells two changes apart.
    pub what: Vec<Vec<u8>>,
    pub body: LockBody,
}

impl NewLock {
    pub(super) fn read(put: &Put<'_>, dir: &str, labels: BTreeMap<String, String>) -> Result<Self, String> {
        let input = files::input_dir(&put.dir, dir)?;
        let name = files::read_name(&input)?;
        let bytes = files::read_metadata(&input)?;
        let mut what = vec![name.as_str().as_bytes().to_vec(), bytes.clone()];
        what.extend(labels.iter().flat_map(|(name, value)| [name.clone().into_bytes(), value.clone().into_bytes()]));
        let (metadata, metadata_base64) = show_metadata(&bytes);
        let labels = (!labels.is_empty()).then_some(labels);
        let body = LockBody { metadata, metadata_base64, labels, ..LockBody::default() };
        Ok(Self { name, what, body })
    }

    /// Says who changes it, so that the same step run again changes nothing.
    pub(super) fn by(&mut self, put: &Put<'_>, verb: &str) {
        let fields: Vec<&[u8]> = std::iter::once(verb.as_bytes()).chain(self.what.iter().map(Vec::as_slice)).collect();
        self.body.by = Some(put.by_step(&fields));
    }
}

pub(super) fn add(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let mut lock = NewLock::read(put, dir, labels)?;
    lock.by(put, "add");
    put.announce(env, &format!("adding lock {:?} to", lock.name.as_str()));
    let (pool, name, body) = (put.pool().to_owned(), lock.name.as_str().to_owned(), lock.body);
    let done = Persist::of(put, env)?.call(put, move |client| client.put_lock(&pool, &name, &body))?;
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
    let mut lock = NewLock::read(put, dir, labels)?;
    lock.by(put, "add_claimed");
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
    let done = Persist::of(put, env)?.call(put, move |client| client.put_lock(&pool, &name, &body));
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

/// What takes a lock out again that came with our claim.
struct Taking<'t> {
    put: &'t Put<'t>,
    lock: &'t LockName,
    id: &'t str,
    run: &'t str,
}

impl Taking<'_> {
    /// Takes the lock out with its hold; where it is not there (yet), the claim is cancelled, so that a request that
    /// is still on its way finds it over.
    fn back(&self, signal: Option<Signal>) -> Stop {
        let Self { put, lock, id, run } = self;
        let body = RemoveBody { claim: Some((*id).to_owned()), by: Some(put.by()) };
        let (client, pool, name) = (put.client().clone(), put.pool().to_owned(), lock.as_str().to_owned());
        let removed = put.interruptible.start(move || client.delete_lock(&pool, &name, &body)).wait_for(TAKE_BACK / 2);
        let gone = match removed {
            Some(Ok(_)) => format!("lock {:?} is taken out again, nothing is held", lock.as_str()),
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
