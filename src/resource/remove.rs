//! `remove`: removes a claimed lock from the pool. This ends its hold in the same step.

use super::input::{ClaimOrLock, Input};
use super::persist::Persist;
use super::put::{Put, Stop};
use crate::client::who;
use crate::env::Env;
use crate::wire::api::{ClaimState, HolderView, RemoveBody};
use crate::wire::concourse::Answer;

pub(super) fn remove(put: &Put<'_>, dir: &str, env: &mut Env<'_>) -> Result<Answer, Stop> {
    let input = Input::open(&put.dir, "remove", dir)?;
    let lock = input.lock_name()?;
    put.announce(env, &format!("removing lock {:?} from", lock.as_str()));
    let mut persist = Persist::of(put, env)?;
    let claim = match input.claim_or_lock()? {
        ClaimOrLock::Claim(id) => id,
        ClaimOrLock::Lock(_) | ClaimOrLock::Nothing => {
            present_holder(put, &mut persist, put.pool(), lock.as_str(), env)?
        }
    };
    let by = put.by_step(&[b"remove", lock.as_str().as_bytes(), claim.as_bytes()]);
    let body = RemoveBody { claim: Some(claim), by: Some(by) };
    let (pool, name) = (put.pool().to_owned(), lock.as_str().to_owned());
    let done = persist.call(put, env, move |client| client.delete_lock(&pool, &name, &body))?;
    put.tell(env, format!("removed {:?}", lock.as_str()));
    Ok(put.answer(done.revision, Some(lock.as_str()), Vec::new()))
}

/// The claim that holds the lock, if the directory names only the lock.
pub(super) fn present_holder(
    put: &Put<'_>,
    persist: &mut Persist,
    pool: &str,
    lock: &str,
    env: &mut Env<'_>,
) -> Result<String, Stop> {
    let (of, name) = (pool.to_owned(), lock.to_owned());
    let view = persist.call(put, env, move |client| client.get_lock(&of, &name))?;
    let held: Vec<&HolderView> = view.holders.iter().filter(|h| h.state == ClaimState::Held).collect();
    match held.as_slice() {
        [holder] => Ok(holder.claim.clone()),
        [] => Err(Stop::Failed(format!(
            "lock {lock:?} of pool {pool:?} is not claimed: claim it first, so that nobody else can use it"
        ))),
        _ => Err(Stop::Failed(format!(
            "lock {lock:?} of pool {pool:?} has several holders: remove it when only one is left; held: {}",
            who::holders(&view.holders, put.now())
        ))),
    }
}
