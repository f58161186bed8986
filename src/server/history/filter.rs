//! Which entries of the history a question is about.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::claim::{BuildRef, Owner};
use crate::core::history::{Change, ChangeKind, Listed};
use crate::core::names::{ChangeKey, ClaimId, LockName, NamePattern, PoolName, Revision, Text};
use crate::core::state::Snapshot;
use crate::core::time::WallMs;
use crate::server::auth::access::Caller;
use crate::store::Reader;

/// A build that entries are about: of this Concourse, or of any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfBuild {
    pub cluster: Option<Text>,
    pub id: Text,
}

impl OfBuild {
    fn is(&self, build: Option<&BuildRef>) -> bool {
        let same = |build: &BuildRef| self.cluster.as_ref().is_none_or(|cluster| *cluster == build.cluster);
        build.is_some_and(|build| build.id == self.id && same(build))
    }
}

/// The builds of ended claims, of those that a read has come upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedBuilds(BTreeMap<ClaimId, Option<BuildRef>>);

impl EndedBuilds {
    /// Of the claims that these entries are about.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read<'c>(reader: &dyn Reader, entries: impl Iterator<Item = &'c Change>) -> anyhow::Result<Self> {
        let claims: BTreeSet<&ClaimId> = entries.filter_map(|change| change.claim.as_ref()).collect();
        let claims: Vec<ClaimId> = claims.into_iter().cloned().collect();
        let ended = reader.ended_claims(&claims)?;
        Ok(Self(ended.into_iter().map(|ended| (ended.id, ended.build)).collect()))
    }
}

/// Which entries are wanted. The default wants all of them.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only entries of a pool with a name like this.
    pub pools: Option<NamePattern>,
    /// Only entries about a lock of this name.
    pub lock: Option<LockName>,
    pub claim: Option<ClaimId>,
    /// Only entries about claims of this build.
    pub build: Option<OfBuild>,
    /// Only entries of somebody whose person, program, team/pipeline/job or proven identity contains this text, in lower
    /// case.
    pub who: Option<String>,
    /// Only these kinds; all if there is none.
    pub kinds: Vec<ChangeKind>,
    /// Only entries of this time or later.
    pub since: Option<WallMs>,
    /// Only entries before this time.
    pub until: Option<WallMs>,
    /// Only the entries that `check` lists.
    pub versions: bool,
    /// The entries of this revision are versions, whatever their kind.
    pub given: Option<Revision>,
    /// Who asks: entries are shown as far as it may look at their pools.
    pub caller: Caller,
}

impl Filter {
    /// Whether an entry may be wanted, as far as its pool knows it.
    #[must_use]
    pub fn lists(&self, key: ChangeKey, listed: Listed) -> bool {
        let Listed { kind, at, .. } = listed;
        (!self.versions || kind.is_version() || self.given == Some(key.revision))
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }

    /// Whether only the whole entry tells if it is wanted.
    #[must_use]
    pub fn needs_entries(&self) -> bool {
        let Self { pools, lock, claim, build, who, .. } = self;
        pools.is_some() || lock.is_some() || claim.is_some() || build.is_some() || who.is_some()
    }

    /// Whether this entry is wanted.
    #[must_use]
    pub fn wants(&self, change: &Change, snapshot: &Snapshot, ended: &EndedBuilds) -> bool {
        self.lists(change.key, change.listed())
            && self.pools.as_ref().is_none_or(|like| change.pools.iter().any(|pool| like.matches(pool)))
            && self.lock.as_ref().is_none_or(|lock| change.locks.iter().any(|(_, of)| of == lock))
            && self.claim.as_ref().is_none_or(|claim| change.claim.as_ref() == Some(claim))
            && self.build.as_ref().is_none_or(|build| is_about(change, build, snapshot, ended))
            && self.who.as_ref().is_none_or(|who| is_by(change, who))
    }

    /// The same filter for the entries of one pool, which are read from that pool's own list.
    #[must_use]
    pub fn wants_in(&self, pool: &PoolName, change: &Change, snapshot: &Snapshot, ended: &EndedBuilds) -> bool {
        let of_pool = |lock: &LockName| change.locks.iter().any(|(at, of)| at == pool && of == lock);
        self.lock.as_ref().is_none_or(of_pool) && self.wants(change, snapshot, ended)
    }
}

/// Whether an entry is about a claim of this build. Once the claim is forgotten, only the entry itself can tell.
fn is_about(change: &Change, build: &OfBuild, snapshot: &Snapshot, ended: &EndedBuilds) -> bool {
    let Some(id) = &change.claim else { return false };
    match (snapshot.claims.get(id), ended.0.get(id)) {
        (Some(claim), _) => build.is(claim.terms.owner.build().as_ref()),
        (None, Some(ended)) => build.is(ended.as_ref()),
        (None, None) => build.is(change.who.as_ref().and_then(|who| who.build()).as_ref()),
    }
}

/// Whether an entry is by somebody whose names or proven identity contain a text, which is in lower case.
fn is_by(change: &Change, text: &str) -> bool {
    let proved = change.origin.as_ref().and_then(|origin| origin.proved.as_ref());
    change.who.as_ref().is_some_and(|owner| is_called(owner, text))
        || proved.is_some_and(|identity| identity.to_string().to_lowercase().contains(text))
}

/// Whether somebody's names contain a text, which is in lower case.
fn is_called(owner: &Owner, text: &str) -> bool {
    let path = [&owner.team, &owner.pipeline, &owner.job].map(|part| part.as_ref().map_or("", Text::as_str));
    let names = [&owner.person, &owner.program].map(|name| name.as_ref().map_or("", Text::as_str));
    names.into_iter().chain([path.join("/").as_str()]).any(|name| name.to_lowercase().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_found_by_any_of_their_names() {
        let text = |text: &str| Some(text.parse().unwrap());
        let build = Owner { team: text("Pay"), pipeline: text("db"), job: text("migrate"), ..Owner::default() };
        let person = Owner { person: text("Ada@laptop"), program: text("script"), ..Owner::default() };
        for (owner, who, expected) in [
            (&build, "pay", true),
            (&build, "pay/db", true),
            (&build, "db/migrate", true),
            (&build, "ada", false),
            (&person, "ada", true),
            (&person, "scr", true),
            (&person, "db", false),
        ] {
            assert_eq!(is_called(owner, who), expected, "{who}");
        }
    }
}
