//! A claim: what it asks for, its owner, and its life (docs/design.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::limits;
use super::names::{
    ChangeKey, ClaimId, Digest, Fence, InstanceVars, Label, LockName, ParkId, PoolName, Reason, Revision, Run, Text,
    Ticket,
};
use super::origin::{Identity, Origin};
use super::time::{Deadline, EngineMs, Span, WallMs};

/// The owner of a claim: a build, a person or a program. The client states it; it is not a credential.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// `ATC_EXTERNAL_URL`: which Concourse.
    pub cluster: Option<Text>,
    pub team: Option<Text>,
    pub pipeline: Option<Text>,
    pub instance_vars: Option<InstanceVars>,
    pub job: Option<Text>,
    /// `BUILD_ID`: the number of the build in its cluster.
    pub build_id: Option<Text>,
    /// `BUILD_NAME`: the number of the build in its job.
    pub build_name: Option<Text>,
    pub build_url: Option<Text>,
    pub person: Option<Text>,
    pub program: Option<Text>,
}

impl Owner {
    /// The build of this owner: always the pair of cluster and build id.
    #[must_use]
    pub fn build(&self) -> Option<BuildRef> {
        Some(BuildRef { cluster: self.cluster.clone()?, id: self.build_id.clone()? })
    }

    /// Whether it names a build by its place alone: cluster, team, pipeline, job and number, but no id.
    #[must_use]
    pub fn names_build(&self) -> bool {
        let place = [&self.cluster, &self.team, &self.pipeline, &self.job, &self.build_name];
        self.build_id.is_none() && place.iter().all(|part| part.is_some())
    }

    /// All that is said about the owner, as text.
    #[must_use]
    pub fn texts(&self) -> [Option<&str>; 10] {
        let Self { cluster, team, pipeline, instance_vars, job, build_id, build_name, build_url, person, program } =
            self;
        let vars = instance_vars.as_ref().map(InstanceVars::as_str);
        let [cluster, team, pipeline, job, build_id, build_name, build_url, person, program] =
            [cluster, team, pipeline, job, build_id, build_name, build_url, person, program]
                .map(|text| text.as_ref().map(Text::as_str));
        [cluster, team, pipeline, vars, job, build_id, build_name, build_url, person, program]
    }

    /// One name for the owner, for a line that has no room for more: the person, else the program.
    #[must_use]
    pub fn name(&self) -> Option<&Text> {
        self.person.as_ref().or(self.program.as_ref())
    }
}

/// A build: the pair (`ATC_EXTERNAL_URL`, `BUILD_ID`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildRef {
    pub cluster: Text,
    pub id: Text,
}

/// Labels of a lock, or those that a claim wants.
pub type Labels = BTreeMap<Label, Label>;

/// What a claim wants of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Want {
    /// Any `count` locks that carry all of `labels`.
    Any { count: u32, labels: Labels },
    /// Exactly these locks; never empty.
    Named(BTreeSet<LockName>),
}

/// What a claim wants of one pool, together with that pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub pool: PoolName,
    pub want: Want,
}

/// What ends a hold besides a release (docs/design.md#ends-of-a-hold). Each scope in this list has more ways to end
/// than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Scope {
    /// Claimed in one job, released in another.
    #[default]
    Flow,
    /// Taken by hand.
    Person,
    /// The hold belongs to its build and ends with it.
    Build,
    /// Taken by a program that renews it: the hold ends when no renewal arrives within its ttl.
    Lease,
}

/// *What* is asked for. Two requests with one id must agree in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// One part for each pool, each pool once, ordered by pool; never empty.
    pub parts: Vec<Part>,
    /// Claims with an equal key may hold the same lock together; without one a claim is exclusive.
    pub key: Option<Text>,
    /// Who shares the key. Defaults to the key itself.
    pub requestor: Option<Text>,
}

impl Ask {
    /// The sharing party of this claim, if it has a key.
    #[must_use]
    pub fn sharer(&self) -> Option<(&Text, &Text)> {
        let key = self.key.as_ref()?;
        Some((key, self.requestor.as_ref().unwrap_or(key)))
    }
}

/// In pools ordered by priority, a higher priority comes first: -1,000 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(i32);

impl Priority {
    /// `None` when it is out of bounds ([`limits::PRIORITY`]).
    #[must_use]
    pub fn new(priority: i32) -> Option<Self> {
        (-limits::PRIORITY..=limits::PRIORITY).contains(&priority).then_some(Self(priority))
    }

    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

/// A request to take locks: everything in the first `PUT` that the claim still needs later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub ask: Ask,
    pub digest: Digest,
    pub owner: Arc<Owner>,
    pub reason: Option<Reason>,
    /// A grant must be confirmed before it is a hold.
    pub confirm: bool,
    /// A hold ends this long after it began or was last renewed. A live `lease` always has a ttl.
    pub ttl: Option<Span>,
    pub priority: Priority,
    /// The name whose older waiting claims this claim ends.
    pub supersede: Option<Text>,
    /// A claim for any one lock waits while the pool has no lock at all, unless the pool says otherwise.
    pub waits_if_empty: bool,
}

/// Locks that a claim has, in (pool, name) order.
pub type LockSet = Vec<(PoolName, LockName)>;

/// Whether a waiting claim's client would learn of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// One of its requests is parked.
    Parked,
    /// Its last `PUT` was answered, and the client is expected back before this deadline.
    Recent(Deadline),
    /// Its last parked request was cut off. It keeps its turn until this deadline, but is granted nothing unless it
    /// comes back: no client is there to receive the grant.
    Grace(Deadline),
    /// Later claims pass it. It loses its place at this deadline.
    Away(Deadline),
}

impl Presence {
    /// Whether the waiter listens. A listening waiter holds back later ones.
    #[must_use]
    pub fn listens(self) -> bool {
        !matches!(self, Self::Away(_))
    }

    /// Whether the claim may be granted a lock while none of its requests is being answered.
    #[must_use]
    pub fn hears(self) -> bool {
        matches!(self, Self::Parked | Self::Recent(_))
    }

    /// When this presence ends by itself.
    #[must_use]
    pub fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Parked => None,
            Self::Recent(d) | Self::Grace(d) | Self::Away(d) => Some(d),
        }
    }
}

/// Where a live claim is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Waiting {
        presence: Presence,
        /// The wait ends at this deadline, served or not.
        give_up: Option<Deadline>,
    },
    /// The client may not know of the grant yet. It is withdrawn unless confirmed in time.
    Granted {
        fence: Fence,
        locks: LockSet,
        confirm_by: Deadline,
        /// Bounds the wait that resumes after a withdrawal, not the grant.
        give_up: Option<Deadline>,
    },
    Held {
        fence: Fence,
        /// The `claimed` entry. Its revision is the version that the put reports.
        claimed: ChangeKey,
        locks: LockSet,
        since: WallMs,
        /// The hold is lost at this deadline, set by its ttl; renewals move it.
        until: Option<Deadline>,
        /// The hold is lost at this deadline, set by the `max_hold` of its pools when it began; nothing moves it.
        limit: Option<Deadline>,
        fetched: Fetched,
        /// A step of its build has released it, and the hold lasts until the build is over (`core::marks`).
        marked: bool,
    },
}

/// Which builds have fetched a hold with an `in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Fetched {
    #[default]
    Never,
    /// Only its own build: the get that follows each put.
    ByItsBuild,
    /// Another build, which may be using the locks now. The hold is *delivered*.
    ByAnother,
}

/// A live claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub id: ClaimId,
    /// Which life of the id this is, from 1.
    pub life: u32,
    pub terms: Terms,
    /// As requested, otherwise the default of its pools when this life began.
    pub scope: Scope,
    /// Its build is known to be over, and the claim outlives it. Nothing about the build needs watching any more.
    pub build_over: Option<BuildOver>,
    /// Runs in the order in which they first appeared; only the last one may act.
    pub runs: Vec<Run>,
    pub ticket: Ticket,
    /// When this life began.
    pub asked_at: WallMs,
    /// How many grants of this life were not confirmed in time.
    pub withdrawals: u8,
    /// How many times it was passed while it waited, in pools that count this ([`super::pool::Overtaking::Backfill`]).
    pub passed: u32,
    pub phase: Phase,
    /// Other ids under which its build has asked for the same and was answered with this marked hold.
    pub aliases: Vec<ClaimId>,
    /// The request that began this life.
    pub origin: Option<Arc<Origin>>,
    /// Parked requests of this claim, each once. Not stored: they end with the server.
    pub parks: Vec<ParkId>,
    /// The pools that it made, for the log of its client. Not stored.
    pub made: Box<[PoolName]>,
}

impl Claim {
    /// Its presence while it waits.
    #[must_use]
    pub fn presence(&self) -> Option<Presence> {
        match &self.phase {
            Phase::Waiting { presence, .. } => Some(*presence),
            Phase::Granted { .. } | Phase::Held { .. } => None,
        }
    }

    /// The locks that this claim has been given, confirmed or not.
    #[must_use]
    pub fn locks(&self) -> &[(PoolName, LockName)] {
        match &self.phase {
            Phase::Waiting { .. } => &[],
            Phase::Granted { locks, .. } | Phase::Held { locks, .. } => locks,
        }
    }

    /// Since when it holds its locks. `None` unless it does.
    #[must_use]
    pub fn held_since(&self) -> Option<WallMs> {
        match self.phase {
            Phase::Waiting { .. } | Phase::Granted { .. } => None,
            Phase::Held { since, .. } => Some(since),
        }
    }

    /// The fence of its grant, if it has one.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match &self.phase {
            Phase::Waiting { .. } => None,
            Phase::Granted { fence, .. } | Phase::Held { fence, .. } => Some(*fence),
        }
    }

    /// Whether the claim is waiting.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// Whether the hold lasts only until its build is over.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        matches!(self.phase, Phase::Held { marked: true, .. })
    }

    /// The times at which something happens to this claim by itself.
    pub fn deadlines(&self) -> impl Iterator<Item = Deadline> {
        let deadlines: [Option<Deadline>; 2] = match &self.phase {
            Phase::Waiting { presence, give_up } => [presence.deadline(), *give_up],
            Phase::Granted { confirm_by, .. } => [Some(*confirm_by), None],
            Phase::Held { until, limit, .. } => [*until, *limit],
        };
        deadlines.into_iter().flatten()
    }

    /// The next time at which something happens to this claim by itself.
    #[must_use]
    pub fn timer(&self) -> Option<EngineMs> {
        self.deadlines().map(|d| d.at).min()
    }

    /// When a hold ends by itself if it is not renewed: the nearer of its ttl and its pools' `max_hold`.
    #[must_use]
    pub fn held_until(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Held { until, limit, .. } => [*until, *limit].into_iter().flatten().min_by_key(|d| d.at),
            Phase::Waiting { .. } | Phase::Granted { .. } => None,
        }
    }

    /// What the state of its build means for this claim. `None` if it has no build, or if that build is over.
    #[must_use]
    pub fn concern(&self) -> Option<Concern> {
        let concern = match (&self.phase, self.scope) {
            (Phase::Waiting { .. } | Phase::Granted { .. }, _) | (Phase::Held { .. }, Scope::Build) => Concern::Decides,
            (Phase::Held { marked: true, .. }, _) => Concern::Decides,
            (Phase::Held { fetched: Fetched::ByAnother, .. }, Scope::Flow) => Concern::Shows,
            (Phase::Held { .. }, Scope::Flow) => Concern::Decides,
            (Phase::Held { .. }, Scope::Person | Scope::Lease) => return None,
        };
        (self.build_over.is_none() && self.terms.owner.build().is_some()).then_some(concern)
    }

    /// Whether the id of its build is still to be found out, so that the end of that build can be shown. Only a hold that
    /// outlives its build in any case is worth the question: a job that is made anew counts from 1 again, so a place may
    /// come to mean another build, and must never end a hold.
    #[must_use]
    pub fn seeks_build(&self) -> bool {
        let outlives = matches!(self.phase, Phase::Held { fetched: Fetched::ByAnother, marked: false, .. });
        outlives && self.scope == Scope::Flow && self.build_over.is_none() && self.terms.owner.names_build()
    }

    /// Who proved to be behind the request that began it.
    #[must_use]
    pub fn maker(&self) -> Option<&Identity> {
        self.origin.as_ref()?.proved.as_ref()
    }

    /// The pools that it asks for.
    pub fn pools(&self) -> impl Iterator<Item = &PoolName> {
        self.terms.ask.parts.iter().map(|part| &part.pool)
    }

    /// Whether `run` belongs to an earlier process than the one that acts now.
    #[must_use]
    pub fn is_earlier_run(&self, run: &Run) -> bool {
        is_earlier_run(&self.runs, run)
    }
}

/// Whether `run` appeared before the last of `runs`.
#[must_use]
pub fn is_earlier_run(runs: &[Run], run: &Run) -> bool {
    runs.split_last().is_some_and(|(_, earlier)| earlier.contains(run))
}

/// How a claim ended. Each word is stable; clients may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Released by its own client.
    Released,
    /// Ended by its own client while waiting or granted.
    Cancelled,
    /// The wait exceeded `give_up_after`.
    GaveUp,
    /// Its client did not come back while its place was kept.
    ListenerLost,
    /// Too many grants were not confirmed in time.
    Unconfirmed,
    /// A newer claim of the same name replaced it.
    Superseded,
    /// A lock that it asked for was taken out of the pool.
    Removed,
    /// The hold exceeded its ttl, or the `max_hold` of its pool.
    Lost,
    /// The lease was not renewed in time.
    LeaseLost,
    /// Its build is over.
    BuildOver,
    /// Somebody else ended it by force.
    Broken,
    /// Its build was cut short before any `in` had fetched the hold, so no later step could know of it.
    Undelivered,
}

impl End {
    /// The stable word for how a claim ended.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::GaveUp => "gave_up",
            Self::ListenerLost => "listener_lost",
            Self::Unconfirmed => "unconfirmed",
            Self::Superseded => "superseded",
            Self::Removed => "removed",
            Self::Lost => "lost",
            Self::LeaseLost => "lease_lost",
            Self::BuildOver => "build_over",
            Self::Undelivered => "undelivered",
            Self::Broken => "broken",
        }
    }

    /// Whether a hold that ends this way is lost: its holder may not know yet, so its locks drain.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Lost | Self::LeaseLost | Self::BuildOver | Self::Undelivered)
    }
}

/// How a build ended. When a build succeeded or failed, all its steps have finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuildEnd {
    Succeeded,
    Failed,
    Errored,
    Aborted,
    /// Its Concourse no longer knows the build.
    Gone,
}

impl BuildEnd {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Aborted => "aborted",
            Self::Gone => "gone",
        }
    }
}

/// What the state of a build means for one of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concern {
    /// It is only shown: the claim outlives the build. So it is with a `flow` hold that another build has fetched.
    Shows,
    /// It may end the claim: one that waits or is granted, a hold of scope `build`, and a `flow` hold that no
    /// other build has fetched yet.
    Decides,
}

/// What is known of a build that is over, for a claim that outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildOver {
    Ended {
        how: BuildEnd,
        /// As its Concourse says it; otherwise when the server learned of it.
        at: WallMs,
    },
    /// An earlier release did not store how and when.
    Unknown,
}

/// The state of a build is unknown at present. Its holds stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    pub since: WallMs,
    /// The newest reason.
    pub why: Reason,
}

/// What is remembered of a claim that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub id: ClaimId,
    pub life: u32,
    /// Missing for an id that was cancelled before its first `PUT`.
    pub digest: Option<Digest>,
    pub runs: Vec<Run>,
    pub how: End,
    /// Who ended it, if it was not its own client.
    pub by: Option<Text>,
    /// Why, if a person or a rule ended it.
    pub reason: Option<Reason>,
    pub at: WallMs,
    /// The revision of its end, which is the version that a release prints. Missing when the end left no trace in a
    /// pool.
    pub revision: Option<Revision>,
    /// The last fence it had.
    pub fence: Option<Fence>,
    pub build: Option<BuildRef>,
    /// When it is forgotten.
    pub forget: Deadline,
    /// Who proved to be behind its first request.
    pub maker: Option<Identity>,
    /// The hash of the token that its last process began with.
    pub credential: Option<Digest>,
    /// The pools that it asked for.
    pub pools: Vec<PoolName>,
}

impl Ended {
    /// Whether the client gave up the locks knowingly, or never had any: a late release of such a claim is harmless.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        match self.how {
            End::Released | End::Cancelled | End::GaveUp | End::ListenerLost | End::Unconfirmed | End::Superseded => {
                true
            }
            End::BuildOver => self.fence.is_none(),
            End::Lost | End::LeaseLost | End::Undelivered | End::Removed | End::Broken => false,
        }
    }
}
