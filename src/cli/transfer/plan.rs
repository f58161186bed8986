//! Compares what is wanted with what the server has, and makes the changes.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;

use super::super::output::{CliError, print_line};
use super::super::values::by;
use super::wanted::{Wanted, WantedHold, WantedLock, WantedPolicy, WantedPool};
use super::{Allowed, Named, Summary};
use crate::client::calls::Asked;
use crate::client::latches::LatchClient;
use crate::client::{CallError, Client};
use crate::core::names::{LockName, PoolName};
use crate::env::Env;
use crate::wire::api::{
    ClaimBody, ClaimState, DeliverBody, LockBody, LockRef, LockView, Owner, Policy, PoolBody, PoolChangeBody, PoolView,
    RemoveBody,
};
use crate::wire::errors::{Code, exit};
use crate::wire::escape::shell_word;
use crate::wire::latch::{LatchStatus, LatchView};
use crate::wire::text::{counted, show_metadata};

/// The most locks that a line about locks of the server names.
const OTHERS_NAMED: usize = 10;

/// One change.
enum Action<'w> {
    Pool(&'w PoolName, &'w WantedPool, &'w Policy),
    AddLock(&'w PoolName, &'w LockName, &'w WantedLock),
    ChangeLock(&'w PoolName, &'w LockName, &'w WantedLock),
    RemoveLock(&'w PoolName, String),
    Hold(&'w WantedHold),
    MakeLatch(&'w LatchView),
    ReleaseLatch(&'w LatchView),
}

/// All changes, and everything that differs but stays as it is.
#[derive(Default)]
pub(super) struct Plan<'w> {
    actions: Vec<Action<'w>>,
    /// Why each thing is left alone.
    left: Vec<String>,
    /// What only the server has.
    stay: Vec<String>,
    same: usize,
}

/// Finds what is missing or different. Changes nothing.
pub(super) fn of<'w>(
    wanted: &'w Wanted,
    allowed: &Allowed,
    client: &Client,
    latches: &LatchClient,
) -> Result<Plan<'w>, CliError> {
    let mut plan = Plan::default();
    for (name, pool) in &wanted.pools {
        plan.pool(name, pool, allowed, client)?;
    }
    for hold in &wanted.holds {
        plan.hold(hold, wanted, client)?;
    }
    if !wanted.latches.is_empty() {
        plan.latches(&wanted.latches, latches)?;
    }
    Ok(plan)
}

/// `None` if the server answers that there is no such thing.
fn found<T>(answer: Result<T, CallError>, missing: &[Code]) -> Result<Option<T>, CliError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code().is_some_and(|code| missing.contains(&code)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl<'w> Plan<'w> {
    fn pool(
        &mut self,
        name: &'w PoolName,
        wanted: &'w WantedPool,
        allowed: &Allowed,
        client: &Client,
    ) -> Result<(), CliError> {
        let overwrite = &allowed.overwrite;
        let there = found(client.get_pool(name.as_str()), &[Code::NoSuchPool])?;
        let named = Named { pool: name.clone(), lock: None };
        match (&there, &wanted.policy) {
            (None, WantedPolicy::Exactly(policy) | WantedPolicy::IfNew(policy)) => {
                self.actions.push(Action::Pool(name, wanted, policy));
            }
            (Some(pool), WantedPolicy::Exactly(policy)) if pool.summary.policy != *policy => {
                if overwrite.contains(&named) {
                    self.actions.push(Action::Pool(name, wanted, policy));
                } else {
                    let flag = shell_word(name.as_str());
                    self.left.push(format!("pool {name:?} has another policy (--overwrite {flag} replaces it)"));
                }
            }
            (Some(_), _) => self.same += 1,
        }
        if let Some(pool) = &there {
            self.others(name, pool, wanted, allowed.prune.contains(name));
        }
        let locks: BTreeMap<&str, &LockView> = there.as_ref().map(by_name).unwrap_or_default();
        for (lock, wanted) in &wanted.locks {
            let Some(view) = locks.get(lock.as_str()) else {
                self.actions.push(Action::AddLock(name, lock, wanted));
                continue;
            };
            let is_held = !view.holders.is_empty();
            if wanted.is_free == Some(true) && is_held {
                let command =
                    format!("locker release --pool {} --lock {}", shell_word(name.as_str()), shell_word(lock.as_str()));
                self.left.push(format!(
                    "lock {lock:?} of pool {name:?} is held on the server, but free here (if nobody uses it: {command})"
                ));
            }
            let Some(view) = found(client.get_lock(name.as_str(), lock.as_str()), &[Code::NoSuchLock])? else {
                self.actions.push(Action::AddLock(name, lock, wanted));
                continue;
            };
            let labels_differ = wanted.labels.as_ref().is_some_and(|labels| *labels != view.labels);
            if metadata_of(&view).as_deref() == Some(&wanted.metadata) && !labels_differ {
                self.same += 1;
            } else if overwrite.contains(&Named { lock: Some(lock.clone()), ..named.clone() }) {
                self.actions.push(Action::ChangeLock(name, lock, wanted));
            } else {
                let flag = shell_word(&format!("{name}/{lock}"));
                let what = format!("lock {lock:?} of pool {name:?} has other metadata or labels");
                self.left.push(format!("{what} (--overwrite {flag} replaces them)"));
            }
        }
        Ok(())
    }

    /// The locks that only the server has.
    fn others(&mut self, name: &'w PoolName, there: &PoolView, wanted: &WantedPool, prune: bool) {
        let is_wanted =
            |lock: &LockView| lock.lock.parse::<LockName>().is_ok_and(|name| wanted.locks.contains_key(&name));
        let others: Vec<&LockView> = there.items.iter().filter(|lock| !is_wanted(lock)).collect();
        if !prune && !others.is_empty() {
            let named: Vec<String> = others.iter().take(OTHERS_NAMED).map(|lock| format!("{:?}", lock.lock)).collect();
            let more = if others.len() > named.len() { ", ..." } else { "" };
            let stay = format!(
                "{} of pool {name:?}: {}{more} (--prune {} removes them)",
                counted(others.len(), "lock"),
                named.join(", "),
                shell_word(name.as_str())
            );
            self.stay.push(stay);
            return;
        }
        for lock in others {
            match lock.holders.first() {
                None => self.actions.push(Action::RemoveLock(name, lock.lock.clone())),
                Some(holder) => {
                    let (lock, claim) = (&lock.lock, &holder.claim);
                    self.left
                        .push(format!("lock {lock:?} of pool {name:?} is held by claim {claim}: release it first"));
                }
            }
        }
    }

    fn hold(&mut self, hold: &'w WantedHold, wanted: &Wanted, client: &Client) -> Result<(), CliError> {
        let id = &hold.id;
        let claim = found(client.get_claim(id.as_str()), &[Code::NoSuchClaim])?;
        match claim.map(|claim| (claim.state, claim.locks)) {
            Some((ClaimState::Held, locks)) if locks == hold.locks => self.same += 1,
            Some((ClaimState::Held | ClaimState::Granted | ClaimState::Waiting, _)) => {
                self.left.push(format!("claim {id} is for something else on the server"));
            }
            Some((ClaimState::Ended, _)) => {
                let locks = shown(&hold.locks);
                let again = "if somebody uses it, take it again: locker claim POOL --lock NAME";
                self.left.push(format!("the hold of {locks} by claim {id} has already ended on the server ({again})"));
            }
            None => {
                let rival = rival(hold, wanted, client)?;
                match rival {
                    Some(rival) => self.left.push(rival),
                    None => self.actions.push(Action::Hold(hold)),
                }
            }
        }
        Ok(())
    }

    fn latches(&mut self, wanted: &'w [LatchView], client: &LatchClient) -> Result<(), CliError> {
        let there = super::latches(client)?;
        let there: BTreeMap<&str, &LatchView> = there.iter().map(|latch| (latch.id.as_str(), latch)).collect();
        for latch in wanted {
            let released = latch.status == LatchStatus::Released;
            match there.get(latch.id.as_str()) {
                None => {
                    self.actions.push(Action::MakeLatch(latch));
                    self.actions.extend(released.then_some(Action::ReleaseLatch(latch)));
                }
                Some(other) if (&other.workflow, &other.namespace) != (&latch.workflow, &latch.namespace) => {
                    self.left.push(format!("latch {} belongs to another workflow on the server", latch.id));
                }
                Some(other) if released && other.status == LatchStatus::Locked => {
                    self.actions.push(Action::ReleaseLatch(latch));
                }
                Some(_) => self.same += 1,
            }
        }
        Ok(())
    }

    /// Makes the changes, or prints what would be done: a line for each change, then the summary.
    pub fn run(self, dry_run: bool, client: &Client, latches: &LatchClient, env: &mut Env<'_>) -> Result<u8, CliError> {
        for reason in &self.left {
            print_line(env, &format!("left alone: {reason}"))?;
        }
        for locks in &self.stay {
            print_line(env, &format!("only on the server: {locks}"))?;
        }
        let done = self.actions.len();
        for action in &self.actions {
            if dry_run {
                print_line(env, &format!("would {action}"))?;
            } else {
                action.run(client, latches, env)?;
                print_line(env, &format!("done: {action}"))?;
            }
        }
        Summary { done, same: self.same, left: self.left.len() }.tell(dry_run, env)
    }
}

/// The locks of a pool. The one that it has because it was given none does not count: the first lock that is added
/// replaces it.
fn by_name(pool: &PoolView) -> BTreeMap<&str, &LockView> {
    pool.items.iter().filter(|lock| !lock.implicit).map(|lock| (lock.lock.as_str(), lock)).collect()
}

/// The metadata of a lock that was fetched by itself; `None` if the server sends it in a form that this release does
/// not know.
pub(super) fn metadata_of(view: &LockView) -> Option<Vec<u8>> {
    match (&view.metadata, &view.metadata_base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(encoded)) => base64::engine::general_purpose::STANDARD.decode(encoded).ok(),
        (None, None) => None,
    }
}

pub(super) fn shown(locks: &[LockRef]) -> String {
    let locks: Vec<String> = locks.iter().map(|lock| format!("{}/{}", lock.pool, lock.lock)).collect();
    locks.join(", ")
}

/// Who else holds a lock that this new hold needs, in words.
fn rival(hold: &WantedHold, wanted: &Wanted, client: &Client) -> Result<Option<String>, CliError> {
    for lock in &hold.locks {
        let view = found(client.get_lock(&lock.pool, &lock.lock), &[Code::NoSuchPool, Code::NoSuchLock])?;
        let Some(view) = view else { continue };
        let shares = |key: &Option<String>| key.is_some() && *key == hold.body.key;
        let ours = |claim: &str| wanted.holds.iter().any(|other| other.id.as_str() == claim);
        let rival = view.holders.iter().find(|holder| !(shares(&holder.key) && ours(&holder.claim)));
        if let Some(rival) = rival {
            let why = format!(
                "lock {:?} of pool {:?} is held by claim {} on the server: release it first",
                lock.lock, lock.pool, rival.claim
            );
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// Whether the server can ask a Concourse about the build of this owner: it has an id, or a number in a job.
fn names_build(owner: &Owner) -> bool {
    owner.cluster.is_some() && (owner.build_id.is_some() || owner.build_name.is_some())
}

/// Makes the claim of a hold. A server that verifies builds refuses one whose build is over, or is one of a Concourse that
/// it does not know: then without the build.
fn claim(hold: &WantedHold, client: &Client) -> Result<Asked, CallError> {
    let asked = client.put_claim(hold.id.as_str(), &hold.body, Duration::ZERO);
    let code = asked.as_ref().err().and_then(CallError::code);
    if !matches!(code, Some(Code::BuildRefused | Code::UnknownConcourse)) {
        return asked;
    }
    let owner = Owner { cluster: None, build_id: None, ..hold.body.owner.clone() };
    client.put_claim(hold.id.as_str(), &ClaimBody { owner, ..(*hold.body).clone() }, Duration::ZERO)
}

impl Action<'_> {
    fn run(&self, client: &Client, latches: &LatchClient, env: &Env<'_>) -> Result<(), CliError> {
        let by = Some(by(env, Some(&"import".to_owned())));
        let content = |lock: &WantedLock| {
            let (metadata, metadata_base64) = show_metadata(&lock.metadata);
            let (labels, by) = (lock.labels.clone(), by.clone());
            LockBody { metadata, metadata_base64, labels, by, ..LockBody::default() }
        };
        match self {
            Self::Pool(pool, wanted, policy) if wanted.default_lock => {
                let policy = (*policy).clone();
                let body = PoolChangeBody { policy, reset: true, by, ..PoolChangeBody::default() };
                client.patch_pool(pool.as_str(), &body)?;
            }
            Self::Pool(pool, _, policy) => {
                let policy = (*policy).clone();
                client.put_pool(pool.as_str(), &PoolBody { policy, capacity: None, by })?;
            }
            Self::AddLock(pool, lock, wanted) => {
                client.put_lock(pool.as_str(), lock.as_str(), &content(wanted))?;
            }
            Self::ChangeLock(pool, lock, wanted) => {
                client.patch_lock(pool.as_str(), lock.as_str(), &content(wanted))?;
            }
            Self::RemoveLock(pool, lock) => {
                client.delete_lock(pool.as_str(), lock, &RemoveBody { claim: None, by })?;
            }
            Self::Hold(hold) => match claim(hold, client)? {
                Asked::Given(claim) => {
                    // Somebody may be using it: the end of its build is shown, and ends nothing.
                    if let Some(revision) = claim.revision.filter(|_| names_build(&hold.body.owner)) {
                        client.deliver(hold.id.as_str(), &DeliverBody { revision, build: None })?;
                    }
                }
                Asked::Waiting(_) => {
                    let text = format!("{}: somebody else took it in the meantime; run this again", shown(&hold.locks));
                    return Err(CliError::Failed(exit::LOCKED, text));
                }
            },
            Self::MakeLatch(latch) => drop(latches.create_as(latch)?),
            Self::ReleaseLatch(latch) => drop(latches.release_as(latch)?),
        }
        Ok(())
    }
}

impl std::fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pool(pool, ..) => write!(f, "declare pool {pool:?}"),
            Self::AddLock(pool, lock, _) => write!(f, "add lock {lock:?} to pool {pool:?}"),
            Self::ChangeLock(pool, lock, _) => write!(f, "overwrite lock {lock:?} of pool {pool:?}"),
            Self::RemoveLock(pool, lock) => write!(f, "remove lock {lock:?} of pool {pool:?}"),
            Self::Hold(hold) => write!(f, "claim {} as {}", shown(&hold.locks), hold.id),
            Self::MakeLatch(latch) => write!(f, "create latch {} for workflow {}", latch.id, latch.workflow),
            Self::ReleaseLatch(latch) => write!(f, "release latch {}", latch.id),
        }
    }
}
