//! The rules of the access file, and what they give to whom. Pure.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::rights::Right;
use crate::core::claim::{Claim, Ended};
use crate::core::history::Change;
use crate::core::latch::{LatchRef, Target};
use crate::core::names::{NameError, NamePattern, PoolName, TokenName};
use crate::core::origin::{self, Identity, Job, is_same_owner};
use crate::server::auth::idtoken::Proved;
use crate::wire::problems::{nearest, quoted};

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Everybody who can connect, with and without credentials.
    Anyone,
    /// Everybody who has proven an identity.
    Authenticated,
    User(String),
    /// A token that this server has made.
    Token(TokenName),
    Certificate(String),
    /// The builds of a team, of this issuer if it is named.
    Team {
        issuer: Option<String>,
        team: String,
    },
    /// The builds of a pipeline.
    Pipeline {
        issuer: Option<String>,
        team: String,
        pipeline: String,
    },
}

/// The beginnings of all subjects.
const SUBJECTS: [&str; 7] = ["anyone", "authenticated", "user", "token", "certificate", "team", "pipeline"];

impl Subject {
    /// Whether it is this client.
    #[must_use]
    pub fn is(&self, client: Option<&Identity>) -> bool {
        match (self, client) {
            (Self::Anyone, _) => true,
            (_, None) => false,
            (Self::Authenticated, Some(_)) => true,
            (Self::User(name), Some(Identity::User(user))) => name == user,
            (Self::Token(name), Some(Identity::Token(token))) => name.as_str() == token,
            (Self::Certificate(name), Some(Identity::Certificate(subject))) => name == subject,
            (Self::Team { issuer, team }, Some(Identity::Build(job))) => of_team(job, issuer.as_ref(), team),
            (Self::Pipeline { issuer, team, pipeline }, Some(Identity::Build(job))) => {
                of_team(job, issuer.as_ref(), team) && job.pipeline.as_ref() == Some(pipeline)
            }
            (
                Self::User(_) | Self::Token(_) | Self::Certificate(_) | Self::Team { .. } | Self::Pipeline { .. },
                Some(_),
            ) => false,
        }
    }

    /// The issuer that it names.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::Team { issuer, .. } | Self::Pipeline { issuer, .. } => issuer.as_deref(),
            _ => None,
        }
    }

    /// Whether only a build can be it.
    #[must_use]
    pub fn is_of_builds(&self) -> bool {
        matches!(self, Self::Team { .. } | Self::Pipeline { .. })
    }

    /// Somebody who is meant by it, for `locker access explain`. A build of a team without a pipeline is of none that a
    /// rule names.
    #[must_use]
    pub fn example(&self) -> Option<Identity> {
        let build = |issuer: &Option<String>, team: &String, pipeline: Option<&String>| {
            let issuer = issuer.clone().unwrap_or_default();
            Identity::Build(Box::new(Job { issuer, team: team.clone(), pipeline: pipeline.cloned(), job: None }))
        };
        match self {
            Self::Anyone => None,
            Self::Authenticated => Some(Identity::User(String::new())),
            Self::User(name) => Some(Identity::User(name.clone())),
            Self::Token(name) => Some(Identity::Token(name.to_string())),
            Self::Certificate(subject) => Some(Identity::Certificate(subject.clone())),
            Self::Team { issuer, team } => Some(build(issuer, team, None)),
            Self::Pipeline { issuer, team, pipeline } => Some(build(issuer, team, Some(pipeline))),
        }
    }
}

fn of_team(job: &Job, issuer: Option<&String>, team: &str) -> bool {
    issuer.is_none_or(|issuer| *issuer == job.issuer) && job.team == team
}

impl FromStr for Subject {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let parts = || name.unwrap_or_default().split('/').map(origin::decoded).collect::<Vec<_>>();
        let is_whole = name.is_some_and(|name| !name.is_empty() && name.split('/').all(|part| !part.is_empty()));
        match (kind, name) {
            ("anyone", None) => Ok(Self::Anyone),
            ("authenticated", None) => Ok(Self::Authenticated),
            ("user", Some(name)) if !name.is_empty() => Ok(Self::User(name.to_owned())),
            ("token", Some(name)) if !name.is_empty() => {
                name.parse().map(Self::Token).map_err(|error: NameError| error.to_string())
            }
            ("certificate", Some(subject)) if !subject.is_empty() => Ok(Self::Certificate(subject.to_owned())),
            ("team", Some(_)) if is_whole => match <[String; 2]>::try_from(parts()) {
                Ok([issuer, team]) => Ok(Self::Team { issuer: Some(issuer), team }),
                Err(parts) => match <[String; 1]>::try_from(parts) {
                    Ok([team]) => Ok(Self::Team { issuer: None, team }),
                    Err(_) => Err("must be team:NAME, or team:ISSUER/NAME".to_owned()),
                },
            },
            ("pipeline", Some(_)) if is_whole => match <[String; 3]>::try_from(parts()) {
                Ok([issuer, team, pipeline]) => Ok(Self::Pipeline { issuer: Some(issuer), team, pipeline }),
                Err(parts) => match <[String; 2]>::try_from(parts) {
                    Ok([team, pipeline]) => Ok(Self::Pipeline { issuer: None, team, pipeline }),
                    Err(_) => Err("must be pipeline:TEAM/NAME, or pipeline:ISSUER/TEAM/NAME".to_owned()),
                },
            },
            ("anyone" | "authenticated", Some(_)) => Err(format!("{kind} has no name behind it")),
            ("user" | "token" | "certificate" | "team" | "pipeline", _) => {
                Err(format!("must have a name, as in {kind}:NAME"))
            }
            _ => {
                let meant = nearest(kind, SUBJECTS).map(|word| format!(": did you mean {word}?")).unwrap_or_default();
                let all = "anyone, authenticated, user:NAME, token:NAME, certificate:SUBJECT, team:NAME or pipeline:TEAM/NAME";
                Err(format!("{} is not one of {all}{meant}", quoted(text)))
            }
        }
    }
}

/// One rule: these may do this with those pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name in the file, else its line, such as `line 12`.
    pub name: Arc<str>,
    pub to: Vec<Subject>,
    pub may: Vec<Right>,
    pub pools: Vec<NamePattern>,
}

impl Rule {
    fn gives(&self, right: Right) -> bool {
        self.may.iter().any(|given| given.includes(right))
    }

    fn gives_on(&self, right: Right, pool: &PoolName) -> bool {
        self.gives(right) && self.pools.iter().any(|pattern| pattern.matches(pool))
    }

    fn gives_everywhere(&self, right: Right) -> bool {
        let everywhere = || self.pools.iter().any(NamePattern::is_everything);
        (right == Right::Metrics && self.may.contains(&right)) || (self.gives(right) && everywhere())
    }
}

/// Who sends a request, and what it may do. The default may do everything, as on a server without an access file.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    identity: Option<Identity>,
    rights: Option<Rights>,
    /// What its id token proves, if that is good now.
    proved: Option<Arc<Proved>>,
}

/// The rules that count for somebody.
#[derive(Debug, Clone)]
struct Rights {
    rules: Vec<Arc<Rule>>,
    key: RightsKey,
}

/// What tells callers apart who may see different things: the number of the file that was read, and which of its rules
/// count. Nothing for those who may see everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RightsKey(Vec<usize>);

impl Caller {
    /// Somebody on a server without an access file.
    #[must_use]
    pub fn unlimited(identity: Option<Identity>) -> Self {
        Self { identity, rights: None, proved: None }
    }

    /// Somebody to whom these rules apply. `number` says which file they are of.
    #[must_use]
    pub fn by_rules(identity: Option<Identity>, rules: &[Arc<Rule>], number: usize) -> Self {
        let is_for = |rule: &Rule| rule.to.iter().any(|subject| subject.is(identity.as_ref()));
        let mut key = vec![number];
        let mut mine = Vec::new();
        for (n, rule) in rules.iter().enumerate().filter(|(_, rule)| is_for(rule)) {
            key.push(n);
            mine.push(Arc::clone(rule));
        }
        Self { identity, rights: Some(Rights { rules: mine, key: RightsKey(key) }), proved: None }
    }

    /// The same, with what its token proves.
    #[must_use]
    pub fn with_proof(self, proved: Option<Arc<Proved>>) -> Self {
        Self { proved, ..self }
    }

    /// What its id token proves, if that is good now.
    #[must_use]
    pub fn proved(&self) -> Option<&Proved> {
        self.proved.as_deref()
    }

    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether rights count at all.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rights.is_some()
    }

    /// Whether it may do anything.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.rights.as_ref().is_none_or(|rights| !rights.rules.is_empty())
    }

    #[must_use]
    pub fn key(&self) -> RightsKey {
        self.rights.as_ref().map(|rights| rights.key.clone()).unwrap_or_default()
    }

    /// Who it is, for people: `user:ada`, or `a client without credentials`.
    #[must_use]
    pub fn shown(&self) -> String {
        self.identity.as_ref().map_or_else(|| "a client without credentials".to_owned(), ToString::to_string)
    }

    /// The name of the rule that allows this. On a server without an access file, everything is allowed without one.
    ///
    /// # Errors
    /// No rule allows it. Says who lacks what.
    pub fn check(&self, right: Right, pool: &PoolName) -> Result<Option<Arc<str>>, String> {
        let Some(rights) = &self.rights else { return Ok(None) };
        match rights.rules.iter().find(|rule| rule.gives_on(right, pool)) {
            Some(rule) => Ok(Some(Arc::clone(&rule.name))),
            None => Err(self.lacks(right, &format!("pool {pool:?}"))),
        }
    }

    #[must_use]
    pub fn may(&self, right: Right, pool: &PoolName) -> bool {
        self.check(right, pool).is_ok()
    }

    /// The same for all pools, existing or not.
    ///
    /// # Errors
    /// No rule allows it. Says who lacks what.
    pub fn check_everywhere(&self, right: Right) -> Result<Option<Arc<str>>, String> {
        let Some(rights) = &self.rights else { return Ok(None) };
        match rights.rules.iter().find(|rule| rule.gives_everywhere(right)) {
            Some(rule) => Ok(Some(Arc::clone(&rule.name))),
            None if right == Right::Metrics => Err(self.lacks(right, "this server")),
            None => Err(self.lacks(right, "all pools")),
        }
    }

    #[must_use]
    pub fn may_everywhere(&self, right: Right) -> bool {
        self.check_everywhere(right).is_ok()
    }

    /// Whether it has the right on any pool, so that it is worth to look at the rest of its request.
    ///
    /// # Errors
    /// No rule gives it. Says who lacks what.
    pub fn check_anywhere(&self, right: Right) -> Result<(), String> {
        let given = |rights: &Rights| rights.rules.iter().any(|rule| rule.gives(right) && !rule.pools.is_empty());
        if self.rights.as_ref().is_none_or(given) { Ok(()) } else { Err(self.lacks(right, "any pool")) }
    }

    /// Why something is refused.
    fn lacks(&self, right: Right, what: &str) -> String {
        format!("{} does not have the right {right} on {what}: no rule of the access file gives it", self.shown())
    }

    #[must_use]
    pub fn sees(&self, pool: &PoolName) -> bool {
        self.may(Right::Look, pool)
    }

    /// Whether a claim is this caller's own.
    #[must_use]
    pub fn owns(&self, claim: &Claim) -> bool {
        self.is_same_as(claim.maker())
    }

    /// Whether that was this caller, or one that shares its claims.
    #[must_use]
    pub fn is_same_as(&self, maker: Option<&Identity>) -> bool {
        self.rights.is_none() || is_same_owner(self.identity.as_ref(), maker)
    }

    /// Whether it may know of a live claim.
    #[must_use]
    pub fn sees_claim(&self, claim: &Claim) -> bool {
        self.owns(claim) || claim.pools().any(|pool| self.sees(pool))
    }

    /// Whether it may know of an ended claim. Of one whose pools are not remembered, only who sees all pools may.
    #[must_use]
    pub fn sees_ended(&self, ended: &Ended) -> bool {
        let in_sight = || match ended.pools.as_slice() {
            [] => self.may_everywhere(Right::Look),
            pools => pools.iter().any(|pool| self.sees(pool)),
        };
        // An id that was cancelled before anybody used it says nothing, or it would tell ids of others from free ones.
        !self.is_limited() || (ended.digest.is_some() && (self.is_same_as(ended.maker.as_ref()) || in_sight()))
    }

    /// An entry of the history without the pools and locks that it may not know of. `None` if nothing is left.
    #[must_use]
    pub fn shown_change<'c>(&self, change: &'c Change) -> Option<Cow<'c, Change>> {
        if self.rights.is_none() {
            return Some(Cow::Borrowed(change));
        }
        if let Some(latch) = &change.latch {
            return self.sees_latch_ref(latch).then_some(Cow::Borrowed(change));
        }
        if change.token.is_some() {
            // Who may make and revoke tokens.
            return self.may_everywhere(Right::Admin).then_some(Cow::Borrowed(change));
        }
        let mut change = change.clone();
        change.pools.retain(|pool| self.sees(pool));
        change.locks.retain(|(pool, _)| self.sees(pool));
        (!change.pools.is_empty()).then_some(Cow::Owned(change))
    }

    #[must_use]
    pub fn sees_latch(&self, target: &Target) -> bool {
        self.check_latch(Right::Look, target).is_ok()
    }

    fn sees_latch_ref(&self, latch: &LatchRef) -> bool {
        self.rights.is_none()
            || latch_pool(latch.namespace.as_str(), latch.workflow.as_str()).is_some_and(|pool| self.sees(&pool))
    }

    /// The rule that allows this with a latch. For rights, a latch counts as the pool `latches/NAMESPACE/WORKFLOW`.
    ///
    /// # Errors
    /// No rule allows it. Says who lacks what.
    pub fn check_latch(&self, right: Right, target: &Target) -> Result<Option<Arc<str>>, String> {
        if self.rights.is_none() {
            return Ok(None);
        }
        match latch_pool(target.namespace.as_str(), target.workflow.as_str()) {
            Some(pool) => self.check(right, &pool),
            None => self.check_everywhere(right),
        }
    }
}

/// What a latch counts as. `None` if that is too long for the name of a pool, so that only who may do it everywhere may.
fn latch_pool(namespace: &str, workflow: &str) -> Option<PoolName> {
    PoolName::parse(&format!("latches/{namespace}/{workflow}")).ok()
}

/// The word of a rule for what belongs to the caller itself.
pub const OWN: &str = "own";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |text: &String| origin::encoded(text);
        let of =
            |issuer: &Option<String>| issuer.as_ref().map(|issuer| format!("{}/", part(issuer))).unwrap_or_default();
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Certificate(subject) => write!(f, "certificate:{subject}"),
            Self::Team { issuer, team } => write!(f, "team:{}{}", of(issuer), part(team)),
            Self::Pipeline { issuer, team, pipeline } => {
                write!(f, "pipeline:{}{}/{}", of(issuer), part(team), part(pipeline))
            }
        }
    }
}
