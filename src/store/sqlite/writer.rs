//! The one connection that writes: rows into their tables.

use anyhow::Context;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{columns, ended};
use crate::store::checkpoint::Checkpointer;
use crate::store::layer::Layer;
use crate::store::rows::Table;

/// Keys of the table `meta`: the life of the server that writes the journal, and the number of the last batch of the
/// journal that is in the tables.
pub(super) const LIFE: &str = "journal_life";
pub(super) const FOLDED: &str = "journal_folded";

/// Writes into the tables and copies SQLite's log.
#[derive(Debug)]
pub(super) struct Writer {
    // Dropped in this order: the thread ends, then the last connection closes, which finishes the log.
    pub checkpointer: Checkpointer,
    pub conn: Connection,
}

impl Writer {
    /// Writes a layer in one transaction, with the number of the last batch in it. When it returns `Ok`, both survive
    /// power loss.
    pub fn fold(&mut self, layer: &Layer, through: u64) -> anyhow::Result<()> {
        self.checkpointer.before_commit(&self.conn)?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        write(&tx, layer)?;
        put_meta(&tx, FOLDED, through)?;
        tx.commit()?;
        self.checkpointer.after_commit(&self.conn)
    }

    /// Gives the memory back that only makes folds faster.
    pub fn rest(&self) {
        // Without success the memory stays, and nothing else is wrong.
        let _ = self.conn.execute_batch("PRAGMA shrink_memory");
    }
}

/// The life of the server that wrote the journal, if there was one, and the last batch of it that is in the tables.
pub(super) fn journal_of(conn: &Connection) -> anyhow::Result<(Option<u64>, u64)> {
    let number = |key: &str| -> anyhow::Result<Option<u64>> {
        let found = conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0));
        let read = |value: String| value.parse().context("it is not a number");
        found.optional()?.map(read).transpose().with_context(|| format!("it is damaged: table meta, key {key:?}"))
    };
    Ok((number(LIFE)?, number(FOLDED)?.unwrap_or_default()))
}

/// Writes what a journal contained, and begins another one: its life, and the number after which it begins. `None`: the
/// file has no journal any more.
pub(in crate::store) fn begin_journal(
    conn: &mut Connection,
    layer: &Layer,
    journal: Option<(u64, u64)>,
) -> anyhow::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write(&tx, layer)?;
    match journal {
        Some((life, last)) => {
            put_meta(&tx, LIFE, life)?;
            put_meta(&tx, FOLDED, last)?;
        }
        None => drop(tx.execute("DELETE FROM meta WHERE key IN (?1, ?2)", [LIFE, FOLDED])?),
    }
    Ok(tx.commit()?)
}

fn put_meta(tx: &Transaction<'_>, key: &str, value: u64) -> anyhow::Result<()> {
    let mut put = tx.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
    put.execute(params![key, value.to_string()])?;
    Ok(())
}

fn write(tx: &Transaction<'_>, layer: &Layer) -> anyhow::Result<()> {
    layer.meta.iter().try_for_each(|(key, value)| put_meta(tx, key, *value))?;
    Table::ALL.into_iter().try_for_each(|table| write_records(tx, table, layer))?;
    ended::write(tx, layer)?;
    write_locks(tx, layer)?;
    write_history(tx, layer)
}

/// Writes the rows of a table of keys and records.
fn write_records(tx: &Transaction<'_>, table: Table, layer: &Layer) -> anyhow::Result<()> {
    let rows = layer.records(table);
    if rows.is_empty() {
        return Ok(());
    }
    let (name, key) = columns(table);
    let mut put = tx.prepare_cached(&format!(
        "INSERT INTO {name} ({key}, record) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET record = excluded.record"
    ))?;
    let mut delete = tx.prepare_cached(&format!("DELETE FROM {name} WHERE {key} = ?1"))?;
    for (key, json) in rows {
        match json {
            Some(json) => put.execute(params![key, json])?,
            None => delete.execute(params![key])?,
        };
    }
    Ok(())
}

fn write_locks(tx: &Transaction<'_>, layer: &Layer) -> anyhow::Result<()> {
    if layer.locks.is_empty() {
        return Ok(());
    }
    let mut put = tx.prepare_cached(
        "INSERT INTO locks (pool, name, metadata, record) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET metadata = excluded.metadata, record = excluded.record",
    )?;
    let mut delete = tx.prepare_cached("DELETE FROM locks WHERE pool = ?1 AND name = ?2")?;
    for ((pool, name), row) in &layer.locks {
        match row {
            Some(row) => put.execute(params![pool, name, row.0, row.1])?,
            None => delete.execute(params![pool, name])?,
        };
    }
    Ok(())
}

fn write_history(tx: &Transaction<'_>, layer: &Layer) -> anyhow::Result<()> {
    if layer.changes.is_empty() {
        return Ok(());
    }
    let mut put = tx.prepare_cached("INSERT OR REPLACE INTO changes (revision, seq, record) VALUES (?1, ?2, ?3)")?;
    let mut delete = tx.prepare_cached("DELETE FROM changes WHERE revision = ?1 AND seq = ?2")?;
    for ((revision, seq), json) in &layer.changes {
        match json {
            Some(json) => put.execute(params![revision, seq, json])?,
            None => delete.execute(params![revision, seq])?,
        };
    }
    Ok(())
}
