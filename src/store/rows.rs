//! Between values and stored rows, the same for all stores: [`Batch`] is a commit as rows, and [`Rows`] collects loaded
//! rows into values. The error for an unreadable row names its table and key.

use std::borrow::Cow;
use std::fmt::Debug;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::core::claim::{BuildRef, End, Ended};
use crate::core::history::{Change, Outline};
use crate::core::names::{ChangeKey, Revision, Ticket};
use crate::core::pool::Lock;
use crate::core::state::{Changes, EndedOutline, Loaded, Meta};
use crate::core::time::{Deadline, EngineMs, Span};
use crate::wire::record::{
    self, StoredChange, StoredClaim, StoredConcourse, StoredEnded, StoredLatch, StoredLock, StoredOp, StoredOutline,
    StoredPolicy, StoredToken,
};

/// A table whose rows consist of a key and a record. A journal has them by their place in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Table {
    Pools,
    Claims,
    Ops,
    Latches,
    Concourses,
    Tokens,
}

impl Table {
    pub(super) const ALL: [Self; 6] =
        [Self::Pools, Self::Claims, Self::Ops, Self::Latches, Self::Concourses, Self::Tokens];
}

/// The row of a lock without its key: metadata and record.
pub(super) type LockRow<'c> = (&'c [u8], String);

/// The row of an ended claim without its record. A start reads only these columns.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct EndedColumns<'r> {
    pub id: &'r str,
    pub how: &'r str,
    /// The engine time at which it is forgotten, milliseconds.
    pub forget: i64,
    /// For how long it is remembered in all, milliseconds.
    pub span: i64,
    /// The cluster and the id of its build.
    pub build: Option<(&'r str, &'r str)>,
}

impl<'r> EndedColumns<'r> {
    fn of(ended: &'r Ended) -> anyhow::Result<Self> {
        let (forget, span) = deadline(ended.forget)?;
        let build = ended.build.as_ref().map(|build| (build.cluster.as_str(), build.id.as_str()));
        Ok(Self { id: ended.id.as_str(), how: ended.how.word(), forget, span, build })
    }

    fn read(&self) -> anyhow::Result<(End, Option<BuildRef>, Deadline)> {
        let build = |(cluster, id): (&str, &str)| anyhow::Ok(BuildRef { cluster: cluster.parse()?, id: id.parse()? });
        let forget = Deadline { at: EngineMs(self.forget.try_into()?), span: Span(self.span.try_into()?) };
        Ok((record::end(self.how)?, self.build.map(build).transpose()?, forget))
    }

    /// What a start needs of it.
    pub fn outline(&self) -> anyhow::Result<EndedOutline> {
        let read = || {
            let (how, build, forget) = self.read()?;
            anyhow::Ok(EndedOutline { id: self.id.parse()?, released: how == End::Released, forget, build })
        };
        named("ended", &self.id, read())
    }

    /// The claim, with its record.
    pub fn ended(&self, json: &str) -> anyhow::Result<Ended> {
        let read = || {
            let (how, build, forget) = self.read()?;
            record::decode::<StoredEnded>(json)?.into_ended(self.id.parse()?, how, build, forget)
        };
        named("ended", &self.id, read())
    }
}

/// A deadline as two columns.
fn deadline(deadline: Deadline) -> anyhow::Result<(i64, i64)> {
    let read = || anyhow::Ok((deadline.at.0.try_into()?, deadline.span.0.try_into()?));
    read().context("a time is out of bounds")
}

/// One commit as rows; `None` deletes. Rows may be written in any order, except that `pruned` comes after `changes`.
///
/// It is also what a journal contains, member by member: another member needs another format there
/// ([`super::journal`]).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Batch<'c> {
    /// Counters by their key in the table `meta`.
    #[serde(borrow)]
    pub meta: Vec<(&'c str, u64)>,
    /// Rows of one key and one record, table by table.
    pub records: Vec<(Table, Cow<'c, str>, Option<String>)>,
    /// Ended claims by id, with their records.
    pub ended: Vec<(&'c str, Option<(EndedColumns<'c>, String)>)>,
    /// When other ended claims are forgotten: `forget` and `span` by id.
    pub forget: Vec<(&'c str, (i64, i64))>,
    /// Locks by pool and name.
    pub locks: Vec<(&'c str, &'c str, Option<LockRow<'c>>)>,
    /// New entries of the history.
    pub changes: Vec<(Place, String)>,
    /// Entries to delete.
    pub pruned: Vec<Place>,
}

impl<'c> Batch<'c> {
    /// # Errors
    /// A value has no record, or a revision is out of bounds. Then nothing may be written.
    pub fn of(changes: &'c Changes) -> anyhow::Result<Self> {
        let mut batch = Self::default();
        if let Some(Meta { revision, next_ticket, engine, pruned }) = changes.meta {
            let counters = [("revision", revision.0), ("next_ticket", next_ticket.0), ("engine", engine.0)];
            batch.meta = counters.into_iter().chain([("pruned", pruned.0)]).collect();
        }
        for (name, policy) in &changes.pools {
            let json = policy.as_ref().map(|policy| record::encode(&StoredPolicy::from(policy)));
            batch.put(Table::Pools, name.as_str().into(), json)?;
        }
        for (pool, name, lock) in &changes.locks {
            let row = |lock: &'c Lock| anyhow::Ok((&*lock.metadata, record::encode(&StoredLock::from(lock))?));
            batch.locks.push((pool.as_str(), name.as_str(), lock.as_deref().map(row).transpose()?));
        }
        for (id, claim) in &changes.claims {
            let json = claim.as_deref().map(|claim| record::encode(&StoredClaim::from(claim)));
            batch.put(Table::Claims, id.as_str().into(), json)?;
        }
        for (id, ended) in &changes.ended {
            let row = |ended| anyhow::Ok((EndedColumns::of(ended)?, record::encode(&StoredEnded::from(ended))?));
            batch.ended.push((id.as_str(), ended.as_deref().map(row).transpose()?));
        }
        for (id, forget) in &changes.forget {
            batch.forget.push((id.as_str(), deadline(*forget)?));
        }
        for (id, op) in &changes.ops {
            let json = op.as_ref().map(|op| record::encode(&StoredOp::from(op)));
            batch.put(Table::Ops, id.as_str().into(), json)?;
        }
        for (id, latch) in &changes.latches {
            let json = latch.as_deref().map(|latch| record::encode(&StoredLatch::from(latch)));
            batch.put(Table::Latches, id.to_string().into(), json)?;
        }
        for (url, reruns) in &changes.reruns {
            let json = reruns.then(|| record::encode(&StoredConcourse { reruns: true }));
            batch.put(Table::Concourses, url.as_str().into(), json)?;
        }
        for (name, token) in &changes.tokens {
            let json = token.as_deref().map(|token| record::encode(&StoredToken::from(token)));
            batch.put(Table::Tokens, name.as_str().into(), json)?;
        }
        for change in &changes.history {
            batch.changes.push((place(change.key)?, record::encode(&StoredChange::from(&**change))?));
        }
        batch.pruned = changes.pruned.iter().map(|key| place(*key)).collect::<anyhow::Result<_>>()?;
        Ok(batch)
    }

    fn put(&mut self, table: Table, key: Cow<'c, str>, json: Option<anyhow::Result<String>>) -> anyhow::Result<()> {
        self.records.push((table, key, json.transpose()?));
        Ok(())
    }
}

/// An entry of the history.
pub(super) fn change(revision: i64, seq: i64, json: &str) -> anyhow::Result<Change> {
    let read = || record::decode::<StoredChange>(json)?.into_change(key_of(revision, seq)?);
    named("changes", &(revision, seq), read())
}

/// What a start needs of an entry of the history.
pub(super) fn outline(revision: i64, seq: i64, json: &str) -> anyhow::Result<Outline> {
    let read = || Ok(record::decode::<StoredOutline>(json)?.into_outline(key_of(revision, seq)?, json.len()));
    named("changes", &(revision, seq), read())
}

fn key_of(revision: i64, seq: i64) -> anyhow::Result<ChangeKey> {
    Ok(ChangeKey { revision: Revision(revision.try_into()?), seq: seq.try_into()? })
}

/// The key of a history entry in its table: revision and number.
pub(super) type Place = (i64, u32);

/// The key of a history entry in its table.
pub(super) fn place(key: ChangeKey) -> anyhow::Result<Place> {
    Ok((key.revision.0.try_into().context("a revision is out of bounds")?, key.seq))
}

/// Collects rows, in any order, into what a store loads.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub loaded: Loaded,
    revision: Option<u64>,
    next_ticket: Option<u64>,
    engine: Option<u64>,
    /// Missing where nothing was pruned yet.
    pruned: Option<u64>,
}

fn named<T>(table: &str, key: &impl Debug, read: anyhow::Result<T>) -> anyhow::Result<T> {
    read.with_context(|| format!("the store is damaged or was changed by hand: table {table}, key {key:?}"))
}

impl Rows {
    /// A row of the table `meta` other than `store_id`.
    pub fn meta(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let counter = match key {
            "revision" => Ok(&mut self.revision),
            "next_ticket" => Ok(&mut self.next_ticket),
            "engine" => Ok(&mut self.engine),
            "pruned" => Ok(&mut self.pruned),
            _ => Err(anyhow::anyhow!("this release does not know this key")),
        };
        let counter = named("meta", &key, counter)?;
        *counter = Some(named("meta", &key, value.parse().context("not a number"))?);
        Ok(())
    }

    /// A row of a table of keys and records.
    pub fn record(&mut self, table: Table, key: &str, json: &str) -> anyhow::Result<()> {
        match table {
            Table::Pools => self.pool(key, json),
            Table::Claims => self.claim(key, json),
            Table::Ops => self.op(key, json),
            Table::Latches => self.latch(key, json),
            Table::Concourses => self.concourse(key, json),
            Table::Tokens => self.token(key, json),
        }
    }

    fn pool(&mut self, name: &str, json: &str) -> anyhow::Result<()> {
        let read = || anyhow::Ok((name.parse()?, record::decode::<StoredPolicy>(json)?.into()));
        self.loaded.pools.push(named("pools", &name, read())?);
        Ok(())
    }

    pub fn lock(&mut self, pool: &str, name: &str, metadata: &[u8], json: &str) -> anyhow::Result<()> {
        let read = || {
            let lock = record::decode::<StoredLock>(json)?.into_lock(name.parse()?, metadata);
            anyhow::Ok((pool.parse()?, lock))
        };
        self.loaded.locks.push(named("locks", &(pool, name), read())?);
        Ok(())
    }

    fn claim(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || record::decode::<StoredClaim>(json)?.into_claim(id.parse()?);
        self.loaded.claims.push(named("claims", &id, read())?);
        Ok(())
    }

    fn op(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || anyhow::Ok(record::decode::<StoredOp>(json)?.into_op(id.parse()?));
        self.loaded.ops.push(named("ops", &id, read())?);
        Ok(())
    }

    fn latch(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || record::decode::<StoredLatch>(json)?.into_latch(id.parse()?);
        self.loaded.latches.push(named("latches", &id, read())?);
        Ok(())
    }

    fn concourse(&mut self, url: &str, json: &str) -> anyhow::Result<()> {
        let read = || anyhow::Ok((url.parse()?, record::decode::<StoredConcourse>(json)?));
        let (url, stored) = named("concourses", &url, read())?;
        self.loaded.reruns.extend(stored.reruns.then_some(url));
        Ok(())
    }

    fn token(&mut self, name: &str, json: &str) -> anyhow::Result<()> {
        let read = || record::decode::<StoredToken>(json)?.into_token(name.parse()?);
        self.loaded.tokens.push(named("tokens", &name, read())?);
        Ok(())
    }

    /// Everything that was collected.
    pub fn finish(mut self) -> anyhow::Result<Loaded> {
        self.loaded.meta = match (self.revision, self.next_ticket, self.engine) {
            (None, None, None) => None,
            (Some(revision), Some(next_ticket), Some(engine)) => {
                let pruned = Revision(self.pruned.unwrap_or_default());
                let (revision, next_ticket) = (Revision(revision), Ticket(next_ticket));
                Some(Meta { revision, next_ticket, engine: EngineMs(engine), pruned })
            }
            _ => {
                anyhow::bail!("the store is damaged: table meta has some of revision, next_ticket and engine, not all")
            }
        };
        Ok(self.loaded)
    }
}
