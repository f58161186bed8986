//! From stored rows to values, the same for all stores. A row that cannot be read is named by table and key.

use std::fmt::Debug;

use anyhow::Context;

use crate::core::history::Change;
use crate::core::names::{ChangeKey, Revision, Ticket};
use crate::core::state::{Loaded, Meta};
use crate::core::time::EngineMs;
use crate::wire::record::{
    self, StoredChange, StoredClaim, StoredEnded, StoredLatch, StoredLock, StoredOp, StoredPolicy,
};

/// Collects rows, in any order, into what is loaded.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub loaded: Loaded,
    revision: Option<u64>,
    next_ticket: Option<u64>,
    engine: Option<u64>,
}

fn named<T>(table: &str, key: &impl Debug, read: anyhow::Result<T>) -> anyhow::Result<T> {
    read.with_context(|| format!("the store is damaged or was changed by hand: table {table}, key {key:?}"))
}

impl Rows {
    /// A row of the table `meta` but `store_id`.
    pub fn meta(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let counter = match key {
            "revision" => Ok(&mut self.revision),
            "next_ticket" => Ok(&mut self.next_ticket),
            "engine" => Ok(&mut self.engine),
            _ => Err(anyhow::anyhow!("this release knows no such key")),
        };
        let counter = named("meta", &key, counter)?;
        *counter = Some(named("meta", &key, value.parse().context("not a number"))?);
        Ok(())
    }

    pub fn pool(&mut self, name: &str, json: &str) -> anyhow::Result<()> {
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

    pub fn claim(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || record::decode::<StoredClaim>(json)?.into_claim(id.parse()?);
        self.loaded.claims.push(named("claims", &id, read())?);
        Ok(())
    }

    pub fn ended(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || record::decode::<StoredEnded>(json)?.into_ended(id.parse()?);
        self.loaded.ended.push(named("ended", &id, read())?);
        Ok(())
    }

    pub fn op(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || anyhow::Ok(record::decode::<StoredOp>(json)?.into_op(id.parse()?));
        self.loaded.ops.push(named("ops", &id, read())?);
        Ok(())
    }

    pub fn latch(&mut self, id: &str, json: &str) -> anyhow::Result<()> {
        let read = || record::decode::<StoredLatch>(json)?.into_latch(id.parse()?);
        self.loaded.latches.push(named("latches", &id, read())?);
        Ok(())
    }

    pub fn change(&mut self, revision: i64, seq: i64, json: &str) -> anyhow::Result<()> {
        let read = || -> anyhow::Result<Change> {
            let key = ChangeKey { revision: Revision(revision.try_into()?), seq: seq.try_into()? };
            record::decode::<StoredChange>(json)?.into_change(key)
        };
        self.loaded.history.push(named("changes", &(revision, seq), read())?);
        Ok(())
    }

    /// All that was collected.
    pub fn finish(mut self) -> anyhow::Result<Loaded> {
        self.loaded.meta = match (self.revision, self.next_ticket, self.engine) {
            (None, None, None) => None,
            (Some(revision), Some(next_ticket), Some(engine)) => {
                Some(Meta { revision: Revision(revision), next_ticket: Ticket(next_ticket), engine: EngineMs(engine) })
            }
            _ => {
                anyhow::bail!("the store is damaged: table meta has some of revision, next_ticket and engine, not all")
            }
        };
        Ok(self.loaded)
    }
}
