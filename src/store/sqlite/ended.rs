//! The table of ended claims. Its columns say what a start must know of each; everything else is in the record.

use std::ops::ControlFlow;

use rusqlite::{Connection, Row, Transaction, params};

use super::{each_row, text};
use crate::core::claim::Ended;
use crate::core::names::ClaimId;
use crate::core::state::EndedOutline;
use crate::store::rows::{Batch, EndedColumns};

/// Passes what a start needs of each ended claim to `take`. The record comes last in a row, so that it is not read.
pub(super) fn outlines(conn: &Connection, take: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
    each_row(conn, "ended", "SELECT id, how, forget, span, cluster, build FROM ended", |row| {
        take(columns(row)?.outline()?);
        Ok(())
    })
}

/// The columns of a row. They come first in each statement here.
fn columns<'r>(row: &'r Row<'_>) -> anyhow::Result<EndedColumns<'r>> {
    let build = match (row.get_ref(4)?.as_str_or_null()?, row.get_ref(5)?.as_str_or_null()?) {
        (Some(cluster), Some(id)) => Some((cluster, id)),
        _ => None,
    };
    Ok(EndedColumns { id: text(row, 0)?, how: text(row, 1)?, forget: row.get(2)?, span: row.get(3)?, build })
}

fn ended(row: &Row<'_>) -> anyhow::Result<Ended> {
    columns(row)?.ended(text(row, 6)?)
}

/// Passes each ended claim to `each`.
pub fn each(conn: &Connection, mut each: impl FnMut(Ended)) -> anyhow::Result<()> {
    each_row(conn, "ended", "SELECT id, how, forget, span, cluster, build, record FROM ended", |row| {
        each(ended(row)?);
        Ok(())
    })
}

/// The ended claims with these ids.
pub(super) fn find(conn: &Connection, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
    let sql = "SELECT id, how, forget, span, cluster, build, record FROM ended WHERE id = ?1";
    let mut find = conn.prepare_cached(sql)?;
    let mut found = Vec::new();
    for id in ids {
        let mut rows = find.query(params![id.as_str()])?;
        if let Some(row) = rows.next()? {
            found.push(ended(row)?);
        }
    }
    Ok(found)
}

/// Passes the ended claims after this id to `each`, in the order of their ids, until it breaks.
pub(super) fn walk(
    conn: &Connection,
    after: Option<&ClaimId>,
    each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let sql = "SELECT id, how, forget, span, cluster, build, record FROM ended WHERE id > ?1 ORDER BY id";
    let mut walk = conn.prepare_cached(sql)?;
    let mut rows = walk.query(params![after.map_or("", |id| id.as_str())])?;
    while let Some(row) = rows.next()? {
        if each(ended(row)?).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn write(tx: &Transaction<'_>, batch: &Batch<'_>) -> anyhow::Result<()> {
    if !batch.ended.is_empty() {
        let mut put = tx.prepare_cached(
            "INSERT INTO ended (id, how, forget, span, cluster, build, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                ON CONFLICT DO UPDATE SET how = excluded.how, forget = excluded.forget, span = excluded.span,
                cluster = excluded.cluster, build = excluded.build, record = excluded.record",
        )?;
        let mut delete = tx.prepare_cached("DELETE FROM ended WHERE id = ?1")?;
        for (id, row) in &batch.ended {
            match row {
                Some((EndedColumns { id, how, forget, span, build }, record)) => {
                    let (cluster, build) = build.unzip();
                    put.execute(params![id, how, forget, span, cluster, build, record])?
                }
                None => delete.execute(params![id])?,
            };
        }
    }
    if !batch.forget.is_empty() {
        let mut update = tx.prepare_cached("UPDATE ended SET forget = ?2, span = ?3 WHERE id = ?1")?;
        for (id, (forget, span)) in &batch.forget {
            update.execute(params![id, forget, span])?;
        }
    }
    Ok(())
}
