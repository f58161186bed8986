//! `verify`: asserts that the hold of a directory still lasts.
//!
//! Concourse caches gets: a later job may receive the directory of a hold that ended long ago, without a run of `in`
//! (`docs/concourse.md#what-a-put-does`). A put always runs, so it can tell.

use super::get::over;
use super::input::{ClaimOrLock, Input};
use super::persist::Persist;
use super::put::{Put, Stop};
use crate::client::who;
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::api::{ClaimState, LockView};
use crate::wire::concourse::{Answer, Metadata};

pub(super) fn verify(put: &Put<'_>, dir: &str, env: &mut Env<'_>) -> Result<Answer, Stop> {
    let input = Input::open(&put.dir, "verify", dir)?;
    let ClaimOrLock::Claim(id) = input.claim_or_lock()? else {
        let what = "has no file claim: only a directory from a get of a claimed lock can be verified";
        return Err(Stop::Failed(format!("verify: directory {dir:?} {what}")));
    };
    let Some(fence) = input.fence()? else {
        let what = "has no file fence, so it does not say which hold of its claim it stands for: get it again";
        return Err(Stop::Failed(format!("verify: directory {dir:?} {what}")));
    };
    put.announce(env, &format!("verifying claim {id} in"));
    let mut persist = Persist::of(put, env)?;
    let asked = id.clone();
    let claim = persist.call(put, env, move |client| client.get_claim(&asked))?;
    let is_that_hold = claim.state == ClaimState::Held && claim.fence == Some(fence);
    let own = claim.locks.iter().find(|lock| lock.pool == put.pool());
    if let (true, Some(lock), Some(revision)) = (is_that_hold, own, claim.revision) {
        put.tell(env, format!("{:?} is still held by claim {id}", lock.lock));
        let pair = |name, value: String| Metadata { name, value };
        let more = vec![pair("fence", claim.fence.unwrap_or_default().to_string()), pair("claim", id)];
        return Ok(put.answer(revision, Some(&lock.lock), more));
    }
    let now = match input.lock_name() {
        Ok(lock) => {
            let (pool, name) = (put.pool().to_owned(), lock.as_str().to_owned());
            match persist.call(put, env, move |client| client.get_lock(&pool, &name)) {
                Ok(view) => now(&view, put.now()),
                Err(stop @ Stop::Signalled(..)) => return Err(stop),
                // The hold is over, whoever has the lock now.
                Err(_) => String::new(),
            }
        }
        Err(_) => String::new(),
    };
    Err(Stop::Failed(format!("verify: the hold of claim {id} {}{now}", over(&claim, put.now()))))
}

/// Who holds the lock now.
fn now(lock: &LockView, when: WallMs) -> String {
    if lock.holders.is_empty() {
        return format!("; nobody holds {:?} now", lock.lock);
    }
    format!("; now held: {}", who::holders(&lock.holders, when))
}
