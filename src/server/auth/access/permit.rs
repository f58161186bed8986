//! Which command needs which right. The engine asks when it steps the command, against the state that the command meets,
//! so that nothing can change between the question and the deed.

use std::sync::Arc;

use super::rights::Right;
use super::rules::{Caller, OWN};
use crate::core::claim::{Claim, Ended, Owner};
use crate::core::command::{AskClaim, Command, MoveTo, Refusal};
use crate::core::latch::Latch;
use crate::core::names::{ClaimId, PoolName};
use crate::core::origin::{Identity, Origin};
use crate::core::state::State;
use crate::server::auth::idtoken::Proved;
use crate::server::engine::{EngineError, Permit};
use crate::wire::problems::quoted;

/// What decides about the commands of this caller. `None` if it may do everything.
#[must_use]
pub fn permit(caller: &Caller) -> Option<Permit> {
    if !caller.is_limited() {
        return None;
    }
    let caller = caller.clone();
    Some(Box::new(move |command, state, origin| decide(&caller, command, state, origin)))
}

/// Decides about one command.
///
/// # Errors
/// The caller may not do this, or may not even know of what it is about.
pub fn decide(caller: &Caller, command: &Command, state: &State, origin: &mut Origin) -> Result<(), EngineError> {
    let mut check = Check { caller, state, rule: None };
    if let Some(owner) = stated(command) {
        check.is_said_truly(owner, command)?;
    }
    check.command(command)?;
    origin.rule = check.rule;
    origin.is_confined = !caller.may_everywhere(Right::Break);
    Ok(())
}

/// A claim, as far as the state knows of one.
enum Found<'s> {
    Live(&'s Claim),
    Ended(&'s Ended),
    Unknown,
}

struct Check<'c> {
    caller: &'c Caller,
    state: &'c State,
    /// The last rule that allowed something.
    rule: Option<Arc<str>>,
}

impl<'c> Check<'c> {
    fn command(&mut self, command: &'c Command) -> Result<(), EngineError> {
        match command {
            Command::Ask(ask) => self.ask(ask),
            Command::Confirm { id, .. } | Command::Renew { id, .. } => self.own(id),
            Command::Delivered { id, .. } => self.look(id),
            Command::End { id, .. } | Command::Release { id, .. } | Command::Cancel { id, .. } => self.end(id),
            Command::Break { id, .. } => self.end(id),
            Command::Move { id, to, .. } => {
                if let MoveTo::Before(other) = to {
                    self.look(other)?;
                }
                self.look(id)?;
                let Found::Live(claim) = self.find(id) else { return Ok(()) };
                claim.pools().try_for_each(|pool| self.on(Right::Break, pool))
            }
            Command::SetPool { pool, .. } | Command::ChangePool { pool, .. } | Command::RemovePool { pool, .. } => {
                self.on(Right::Admin, pool)
            }
            Command::AddLock { pool, claim, .. } => {
                self.on(Right::Manage, pool)?;
                claim.as_ref().map_or(Ok(()), |ask| self.ask(ask))
            }
            Command::UpdateLock { pool, .. } | Command::Quarantine { pool, .. } | Command::Return { pool, .. } => {
                self.on(Right::Manage, pool)
            }
            Command::RemoveLock { pool, claim, .. } => {
                self.on(Right::Manage, pool)?;
                claim.as_ref().map_or(Ok(()), |id| self.end(id))
            }
            Command::MoveLock { pool, to, claim, .. } => {
                self.on(Right::Manage, pool)?;
                self.on(Right::Manage, to)?;
                claim.as_ref().map_or(Ok(()), |id| self.end(id))
            }
            Command::Note { pool, .. } => self.on(Right::Claim, pool),
            Command::CreateLatch(new) => self.by(self.caller.check_latch(Right::Claim, &new.target)),
            Command::ReleaseLatch { id, .. } | Command::DeleteLatch { id } => {
                let latch: Option<&Arc<Latch>> = self.state.snapshot.latches.get(id);
                let Some(latch) = latch.filter(|latch| self.caller.sees_latch(&latch.target)) else {
                    return Err(Refusal::NoSuchLatch { id: *id }.into());
                };
                self.by(self.caller.check_latch(Right::Claim, &latch.target))
            }
            Command::CreateToken { .. } | Command::RevokeToken { .. } => {
                self.by(self.caller.check_everywhere(Right::Admin))
            }
            // No client asks for these.
            Command::TokenUsed { .. }
            | Command::BuildOver { .. }
            | Command::BuildFound { .. }
            | Command::Suspect { .. }
            | Command::Alive { .. }
            | Command::Reruns { .. }
            | Command::Left { .. }
            | Command::Tick
            | Command::Reconcile => Err(EngineError::Forbidden("only the server itself may do this".to_owned())),
        }
    }

    /// Notes the rule that allows something.
    fn by(&mut self, checked: Result<Option<Arc<str>>, String>) -> Result<(), EngineError> {
        self.rule = checked.map_err(EngineError::Forbidden)?;
        Ok(())
    }

    fn on(&mut self, right: Right, pool: &PoolName) -> Result<(), EngineError> {
        self.by(self.caller.check(right, pool))
    }

    fn find(&self, id: &ClaimId) -> Found<'c> {
        match (self.state.snapshot.claim(id), self.state.ended(id)) {
            (Some(claim), _) => Found::Live(claim),
            (None, Some(ended)) => Found::Ended(ended),
            (None, None) => Found::Unknown,
        }
    }

    fn owns(&self, found: &Found<'_>) -> bool {
        match found {
            Found::Live(claim) => self.caller.owns(claim),
            Found::Ended(ended) => self.caller.is_same_as(ended.maker.as_ref()),
            Found::Unknown => false,
        }
    }

    /// A new claim, or the same again. An id that stands for a claim of somebody else is taken.
    fn ask(&mut self, ask: &AskClaim) -> Result<(), EngineError> {
        for part in &ask.terms.ask.parts {
            self.on(Right::Claim, &part.pool)?;
        }
        let found = self.find(&ask.id);
        // A token that has expired is good for the claim that it began, and begins nothing.
        if let (true, Found::Ended(ended)) = (self.is_past(), &found)
            && self.owns(&found)
        {
            return Err(Refusal::Ended { ended: Arc::new(Ended::clone(ended)) }.into());
        }
        let is_taken = match &found {
            Found::Unknown => false,
            // Somebody has cancelled an id that nobody had used. That must not keep its owner out.
            Found::Ended(ended) if ended.digest.is_none() => false,
            found => !self.owns(found),
        };
        if is_taken { Err(Refusal::DifferentRequest { id: ask.id.clone() }.into()) } else { Ok(()) }
    }

    /// The caller must be allowed to know of this claim. One that it may not know of is answered like one that does not
    /// exist.
    fn look(&mut self, id: &ClaimId) -> Result<(), EngineError> {
        let is_seen = match self.find(id) {
            Found::Live(claim) => self.caller.sees_claim(claim),
            Found::Ended(ended) => self.caller.sees_ended(ended),
            // The core says so, and may remember it.
            Found::Unknown => return Ok(()),
        };
        if is_seen { Ok(()) } else { Err(Refusal::NoSuchClaim { id: id.clone() }.into()) }
    }

    /// Only the owner of a claim may do this.
    fn own(&mut self, id: &ClaimId) -> Result<(), EngineError> {
        self.look(id)?;
        let found = self.find(id);
        if matches!(found, Found::Unknown) || self.owns(&found) {
            self.rule = Some(OWN.into());
            return Ok(());
        }
        let error = format!("claim {id:?} belongs to somebody else than {}", self.caller.shown());
        Err(EngineError::Forbidden(error))
    }

    /// Ends a claim: one's own, or that of others where the right `break` allows it.
    fn end(&mut self, id: &ClaimId) -> Result<(), EngineError> {
        self.look(id)?;
        let found = self.find(id);
        if matches!(found, Found::Unknown) || self.owns(&found) {
            self.rule = Some(OWN.into());
            return Ok(());
        }
        match found {
            Found::Live(claim) => claim.pools().try_for_each(|pool| self.on(Right::Break, pool)),
            Found::Ended(ended) if ended.pools.is_empty() => self.by(self.caller.check_everywhere(Right::Break)),
            Found::Ended(ended) => ended.pools.iter().try_for_each(|pool| self.on(Right::Break, pool)),
            Found::Unknown => Ok(()),
        }
        .map_err(|error| match error {
            EngineError::Forbidden(error) => {
                EngineError::Forbidden(format!("claim {id:?} is somebody else's: {error}"))
            }
            other => other,
        })
    }

    /// What a build says about itself must not contradict what it has proven.
    fn is_said_truly(&self, owner: &Owner, command: &Command) -> Result<(), EngineError> {
        if let Some(proved) = self.caller.proved() {
            return proved.contradicts(owner).map_or(Ok(()), |why| Err(EngineError::Forbidden(why)));
        }
        // By the token that its claim began with.
        let Some(Identity::Build(job)) = self.caller.identity() else { return Ok(()) };
        let (pipeline, of_job) = (job.pipeline.as_ref(), job.job.as_ref());
        for (what, said, proven) in [
            ("team", &owner.team, Some(&job.team)),
            ("pipeline", &owner.pipeline, pipeline),
            ("job", &owner.job, of_job),
        ] {
            if let (Some(said), Some(proven)) = (said, proven)
                && said.as_str() != proven
            {
                let (said, proven) = (quoted(said.as_str()), quoted(proven));
                let error = format!("the step says that it is of {what} {said}, but its token is of {what} {proven}");
                return Err(EngineError::Forbidden(error));
            }
        }
        self.is_said_as_before(owner, command)
    }

    /// The same by what the claim has said, which its token proved at that time.
    fn is_said_as_before(&self, owner: &Owner, command: &Command) -> Result<(), EngineError> {
        let Some(Found::Live(claim)) = subject(command).map(|id| self.find(id)) else { return Ok(()) };
        let before = &claim.terms.owner;
        let (cluster, vars) = (&owner.cluster, &owner.instance_vars);
        let what = if cluster.is_some() && *cluster != before.cluster {
            "another Concourse"
        } else if vars.is_some() && *vars != before.instance_vars {
            "other instance vars"
        } else {
            return Ok(());
        };
        let error = format!("the step says that it is of {what} than when it showed its token first");
        Err(EngineError::Forbidden(error))
    }

    /// Whether its token counts only for the claim that it began.
    fn is_past(&self) -> bool {
        matches!(self.caller.identity(), Some(Identity::Build(_))) && self.caller.proved().is_none()
    }
}

/// Fills in what a new claim does not say about itself. Whether what it says is true is decided later.
pub fn complete(proved: &Proved, command: &mut Command) {
    let ask = match command {
        Command::Ask(ask) => ask,
        Command::AddLock { claim: Some(ask), .. } => ask,
        _ => return,
    };
    if proved.contradicts(&ask.terms.owner).is_none() {
        proved.complete(Arc::make_mut(&mut ask.terms.owner));
    }
}

/// The claim that a command with an owner is about.
fn subject(command: &Command) -> Option<&ClaimId> {
    match command {
        Command::Ask(ask) => Some(&ask.id),
        Command::End { id, .. } | Command::Cancel { id, .. } | Command::Break { id, .. } | Command::Move { id, .. } => {
            Some(id)
        }
        _ => None,
    }
}

/// Who a command says is behind it.
fn stated(command: &Command) -> Option<&Owner> {
    match command {
        Command::Ask(ask) => Some(&ask.terms.owner),
        Command::AddLock { claim: Some(ask), .. } => Some(&ask.terms.owner),
        Command::End { by, .. } | Command::Release { by, .. } => by.as_deref(),
        Command::Cancel { by, .. } | Command::Break { by, .. } => Some(by),
        Command::Move { by, .. }
        | Command::SetPool { by, .. }
        | Command::ChangePool { by, .. }
        | Command::RemovePool { by, .. }
        | Command::AddLock { by, .. }
        | Command::UpdateLock { by, .. }
        | Command::RemoveLock { by, .. }
        | Command::MoveLock { by, .. }
        | Command::Quarantine { by, .. }
        | Command::Return { by, .. }
        | Command::Note { by, .. } => Some(&by.owner),
        _ => None,
    }
}
