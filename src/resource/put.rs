//! What all kinds of put share: one run of `out`, and why it may end without a version.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::say;
use super::session::Session;
use crate::client::acquire::{Cancelled, Timing};
use crate::client::interruptible::Interruptible;
use crate::client::progress::Moment;
use crate::client::{CallError, Client, Refused, when};
use crate::core::time::WallMs;
use crate::env::{Clock, Env, Signal, hex, random_hex};
use crate::wire::api::{ByBody, LockRef, Owner};
use crate::wire::concourse::{Answer, LogLevel, Metadata, Source, Version};
use crate::wire::digest::Fields;

/// Why a put ends without a version. It no longer holds or waits for anything, unless the text says so.
pub(super) enum Stop {
    Signalled(Signal, String),
    /// The server refused the request.
    Refused(Box<Refused>),
    Failed(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refused) => Self::Refused(refused),
            error @ (CallError::NoAnswer(_) | CallError::Hopeless(_)) => Self::Failed(super::told(&error)),
        }
    }
}

/// Everything that all kinds of put share.
pub(super) struct Put<'p> {
    pub source: &'p Source,
    pub session: Session,
    pub interruptible: Interruptible,
    pub clock: Arc<dyn Clock>,
    /// When the put began, on that clock.
    pub started: Duration,
    pub timing: Timing,
    pub owner: Owner,
    pub hostname: String,
    pub dir: PathBuf,
    pub reason: Option<String>,
    /// Whether a release fails if this build has lost a hold.
    pub fails_on_lost: bool,
}

impl Put<'_> {
    pub(super) fn pool(&self) -> &str {
        self.session.pool.as_str()
    }

    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }

    /// The wall clock, for people.
    pub(super) fn now(&self) -> WallMs {
        when::now(&*self.clock)
    }

    /// The time, on both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment::of(&*self.clock)
    }

    /// One line about what the put requests, waits for or does.
    pub(super) fn tell(&self, env: &mut Env<'_>, text: impl AsRef<str>) {
        if self.source.log_level >= LogLevel::Info {
            say(env.stderr, text);
        }
    }

    /// The first line: our version, what the put does, the pool and the server.
    pub(super) fn announce(&self, env: &mut Env<'_>, what: &str) {
        let (version, server) = (env!("CARGO_PKG_VERSION"), self.client().server());
        self.tell(env, format!("locker {version}: {what} pool {:?} at {server}", self.pool()));
    }

    /// Who makes a change, with a fresh id that makes the call safe to retry.
    pub(super) fn by(&self) -> ByBody {
        ByBody { op: Some(random_hex::<16>()), owner: self.owner.clone(), reason: self.reason.clone() }
    }

    /// As [`Self::by`], but with the same id if the same container repeats the same change: Concourse may rerun a step
    /// whose answer it has lost. `what` is everything that the change covers.
    pub(super) fn by_step(&self, what: &[&[u8]]) -> ByBody {
        if self.owner.build_id.is_none() {
            return self.by();
        }
        let owner =
            [&self.owner.cluster, &self.owner.team, &self.owner.pipeline, &self.owner.job, &self.owner.build_id];
        let owner = owner.map(|field| field.as_deref().unwrap_or_default().as_bytes());
        let place = [self.hostname.as_bytes(), self.pool().as_bytes()];
        let mut fields = Fields::default();
        owner.iter().chain(&place).chain(what).for_each(|field| fields.text(field));
        let op = Some(hex(&fields.finish()[..16]));
        ByBody { op, owner: self.owner.clone(), reason: self.reason.clone() }
    }

    /// A version with the metadata that every put shows.
    pub(super) fn answer(&self, revision: u64, lock: Option<&str>, more: Vec<Metadata>) -> Answer {
        let mut metadata = Vec::new();
        metadata.extend(lock.map(|lock| Metadata { name: "lock_name", value: lock.to_owned() }));
        metadata.push(Metadata { name: "pool_name", value: self.pool().to_owned() });
        metadata.extend(more);
        Answer { version: Version { revision: revision.to_string() }, metadata }
    }
}

/// Every lock of a claim, for metadata: those of other pools with their pool. `None` if there is only one.
pub(super) fn all_locks(pool: &str, locks: &[LockRef]) -> Option<String> {
    let name =
        |lock: &LockRef| if lock.pool == pool { lock.lock.clone() } else { format!("{}/{}", lock.pool, lock.lock) };
    (locks.len() > 1).then(|| locks.iter().map(name).collect::<Vec<_>>().join(", "))
}

/// What happened to a claim that was to be cancelled, for the reader of the log.
pub(super) fn taken_back(cancelled: &Cancelled, id: &str) -> String {
    match cancelled {
        Cancelled::NotNeeded => "nothing is held".to_owned(),
        Cancelled::Done => "the claim was cancelled; nothing is held".to_owned(),
        Cancelled::Unknown(why) => {
            format!("claim {id} could not be cancelled ({why}); the server ends it by itself unless it is already held")
        }
    }
}
