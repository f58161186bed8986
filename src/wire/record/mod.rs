//! Stored records: the JSON that a store keeps. They are separate from the types of the core, so that a change of one
//! does not change the other by accident. Each record has conversions in both directions. The golden texts in the tests
//! define the format.
//!
//! The store keeps the key of a record (a name, an id, a revision) separately; the record does not repeat it. Records
//! refuse everything unexpected: an unknown field, an unknown word, an invalid name. A store that is misread could
//! grant a lock twice; a store that is refused is only an outage. So a change of the format is a new schema version
//! with a migration (docs/store.md), never a field that old releases skip.
//!
//! No record has the parked requests and the presence of a claim, or the holders and the newest entry of a lock. The
//! next start rebuilds them.
//!
//! This file has the parts that several kinds of records share. The kinds:
//!
//! - `claims`: live and ended claims.
//! - `pools`: pools and locks.
//! - `changes`: the history and the remembered operations.
//! - `latch`: latches. `tokens`: tokens.

mod changes;
mod claims;
mod latch;
mod pools;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use anyhow::Context;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::claim::{End, Labels, LockSet, Owner, Scope};
use crate::core::names::{InstanceVars, Label, LockName, PoolName, Text};
use crate::core::origin::{Identity, Origin};
use crate::core::time::{Deadline, EngineMs, Span};

pub use changes::{StoredChange, StoredKey, StoredKind, StoredOp, StoredOutline};
pub use claims::{NO_PRESENCE, StoredClaim, StoredEnded, StoredPart, StoredPhase, StoredWant};
pub use latch::{StoredLatch, StoredLatchRef};
pub use pools::{StoredBackfill, StoredLock, StoredOrder, StoredPick, StoredPolicy, StoredQuarantine};
pub use tokens::StoredToken;

/// Room for the usual record, bytes: no other is tried first.
const ENCODED: usize = 512;

/// The JSON text of a record, in one line.
///
/// # Errors
/// None is known. A record that cannot be written as JSON must stop the commit, not the process.
pub fn encode(record: &impl Serialize) -> anyhow::Result<String> {
    let mut json = Vec::with_capacity(ENCODED);
    serde_json::to_writer(&mut json, record).context("a record has no JSON")?;
    String::from_utf8(json).context("a record is not UTF-8")
}

/// Parses a record from its JSON text.
///
/// # Errors
/// Says what is wrong and where. Control characters of a damaged text are escaped.
pub fn decode<T: DeserializeOwned>(json: &str) -> anyhow::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        let shown: String = error.to_string().chars().flat_map(shown).collect();
        anyhow::anyhow!("bad record: {shown}")
    })
}

fn shown(c: char) -> impl Iterator<Item = char> {
    let escape = c.is_control().then(|| c.escape_default());
    let plain = escape.is_none().then_some(c);
    escape.into_iter().flatten().chain(plain)
}

/// A name or text of the core in a record: written unchanged, validated when it is read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed<T>(pub T);

impl<T: fmt::Display> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<T>(PhantomData<T>);
        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parse<T> {
            type Value = Parsed<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Parsed<T>, E> {
                text.parse().map(Parsed).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Parse(PhantomData))
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn parsed<T: Clone>(value: Option<&T>) -> Option<Parsed<T>> {
    value.cloned().map(Parsed)
}

fn all_parsed<T: Clone>(values: &[T]) -> Vec<Parsed<T>> {
    values.iter().cloned().map(Parsed).collect()
}

fn plain<T, C: FromIterator<T>>(values: impl IntoIterator<Item = Parsed<T>>) -> C {
    values.into_iter().map(|Parsed(value)| value).collect()
}

/// The stored words of an enum of the core, one for each variant. They define the format, so they are separate from
/// those of the API.
macro_rules! words {
    ($record:ident for $core:ident { $($variant:ident),+ $(,)? }) => {
        #[doc = concat!("The stored words of [`", stringify!($core), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $record { $($variant),+ }

        crate::wire::words::same_words!($record, $core { $($variant),+ });
    };
}

use words;

words!(StoredScope for Scope { Flow, Person, Build, Lease });
words!(StoredEnd for End {
    Released, Cancelled, GaveUp, ListenerLost, Unconfirmed, Superseded, Removed, Lost, LeaseLost, BuildOver, Undelivered,
    Broken,
});

/// How a claim ended, by its stored word.
///
/// # Errors
/// This release does not know the word.
pub fn end(word: &str) -> anyhow::Result<End> {
    let word: StrDeserializer<'_, serde::de::value::Error> = word.into_deserializer();
    Ok(StoredEnd::deserialize(word)?.into())
}

/// A deadline: the engine time of its end and the span it was made from, both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredDeadline {
    at: u64,
    span: u64,
}

impl From<Deadline> for StoredDeadline {
    fn from(deadline: Deadline) -> Self {
        Self { at: deadline.at.0, span: deadline.span.0 }
    }
}

impl From<StoredDeadline> for Deadline {
    fn from(stored: StoredDeadline) -> Self {
        Self { at: EngineMs(stored.at), span: Span(stored.span) }
    }
}

/// Who made a claim or a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOwner {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_vars: Option<Parsed<InstanceVars>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_name: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_url: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<Parsed<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<Parsed<Text>>,
}

impl From<&Owner> for StoredOwner {
    fn from(owner: &Owner) -> Self {
        let Owner { cluster, team, pipeline, instance_vars, job, build_id, build_name, build_url, person, program } =
            owner;
        Self {
            cluster: parsed(cluster.as_ref()),
            team: parsed(team.as_ref()),
            pipeline: parsed(pipeline.as_ref()),
            instance_vars: parsed(instance_vars.as_ref()),
            job: parsed(job.as_ref()),
            build_id: parsed(build_id.as_ref()),
            build_name: parsed(build_name.as_ref()),
            build_url: parsed(build_url.as_ref()),
            person: parsed(person.as_ref()),
            program: parsed(program.as_ref()),
        }
    }
}

impl From<StoredOwner> for Owner {
    fn from(stored: StoredOwner) -> Self {
        Self {
            cluster: stored.cluster.map(|p| p.0),
            team: stored.team.map(|p| p.0),
            pipeline: stored.pipeline.map(|p| p.0),
            instance_vars: stored.instance_vars.map(|p| p.0),
            job: stored.job.map(|p| p.0),
            build_id: stored.build_id.map(|p| p.0),
            build_name: stored.build_name.map(|p| p.0),
            build_url: stored.build_url.map(|p| p.0),
            person: stored.person.map(|p| p.0),
            program: stored.program.map(|p| p.0),
        }
    }
}

/// Where a request came from. Its id is not stored, and its credential only with the claim that it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOrigin {
    /// `user:NAME`, `certificate:SUBJECT`, `build:ISSUER/TEAM/PIPELINE/JOB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proved: Option<Parsed<Identity>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The rule of the access file that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// It has no right over the claims of others.
    #[serde(default, skip_serializing_if = "is_false")]
    confined: bool,
}

impl From<&Origin> for StoredOrigin {
    fn from(origin: &Origin) -> Self {
        let Origin { proved, address, request: _, rule, is_confined, credential: _ } = origin;
        let rule = rule.as_deref().map(str::to_owned);
        Self { proved: parsed(proved.as_ref()), address: address.clone(), rule, confined: *is_confined }
    }
}

impl From<StoredOrigin> for Origin {
    fn from(stored: StoredOrigin) -> Self {
        let rule = stored.rule.map(Into::into);
        let proved = stored.proved.map(|p| p.0);
        Self { proved, address: stored.address, rule, is_confined: stored.confined, ..Self::default() }
    }
}

type StoredLabels = BTreeMap<Parsed<Label>, Parsed<Label>>;

fn stored_labels(labels: &Labels) -> StoredLabels {
    labels.iter().map(|(name, value)| (Parsed(name.clone()), Parsed(value.clone()))).collect()
}

fn labels(stored: StoredLabels) -> Labels {
    stored.into_iter().map(|(name, value)| (name.0, value.0)).collect()
}

/// What an installation of Concourse has said about itself. Its URL is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredConcourse {
    /// It runs builds again in place.
    pub reruns: bool,
}

/// Locks as pairs of pool and name.
type StoredLocks = Vec<(Parsed<PoolName>, Parsed<LockName>)>;

fn stored_locks(locks: &[(PoolName, LockName)]) -> StoredLocks {
    locks.iter().map(|(pool, lock)| (Parsed(pool.clone()), Parsed(lock.clone()))).collect()
}

fn locks(stored: StoredLocks) -> LockSet {
    stored.into_iter().map(|(pool, lock)| (pool.0, lock.0)).collect()
}

#[cfg(test)]
mod tests;
