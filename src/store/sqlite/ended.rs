//! The table of ended claims. Its columns say what a start must know of each; everything else is in the record.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{each_row, text};
use crate::core::state::EndedOutline;
use crate::store::layer::{EndedRow, Layer};
use crate::store::reading::ReadEnded;
use crate::store::rows::EndedColumns;

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

const ROWS: &str = "SELECT id, how, forget, span, cluster, build, record FROM ended";

/// The row of this id.
pub(super) fn find(conn: &Connection, id: &str) -> anyhow::Result<Option<EndedRow>> {
    let mut find = conn.prepare_cached(&format!("{ROWS} WHERE id = ?1"))?;
    Ok(find.query_row(params![id], |row| Ok(stored(row)?.1)).optional()?)
}

/// Passes the rows after this id, in the order of their ids, to `read`.
pub(super) fn after(conn: &Connection, after: &str, read: &mut ReadEnded<'_>) -> anyhow::Result<()> {
    let mut walk = conn.prepare_cached(&format!("{ROWS} WHERE id > ?1 ORDER BY id"))?;
    let rows = walk.query_map(params![after], stored)?;
    // An error comes at once, as if it had the smallest id.
    read(&mut rows.map(|row| row.map_or_else(|error| (Arc::from(""), Err(error.into())), |(id, row)| (id, Ok(row)))))
}

/// A row as it is stored.
fn stored(row: &Row<'_>) -> rusqlite::Result<(Arc<str>, EndedRow)> {
    let cluster: Option<String> = row.get(4)?;
    let (how, forget, span, build) = (row.get(1)?, row.get(2)?, row.get(3)?, cluster.zip(row.get(5)?));
    Ok((row.get(0)?, EndedRow { how, forget, span, build, record: row.get(6)? }))
}

pub(super) fn write(tx: &Transaction<'_>, layer: &Layer) -> anyhow::Result<()> {
    if !layer.ended.is_empty() {
        let mut put = tx.prepare_cached(
            "INSERT INTO ended (id, how, forget, span, cluster, build, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                ON CONFLICT DO UPDATE SET how = excluded.how, forget = excluded.forget, span = excluded.span,
                cluster = excluded.cluster, build = excluded.build, record = excluded.record",
        )?;
        let mut delete = tx.prepare_cached("DELETE FROM ended WHERE id = ?1")?;
        for (id, row) in &layer.ended {
            match row.as_ref().map(|row| (row.columns(id), &row.record)) {
                Some((EndedColumns { id, how, forget, span, build }, record)) => {
                    let (cluster, build) = build.unzip();
                    put.execute(params![id, how, forget, span, cluster, build, record])?
                }
                None => delete.execute(params![id])?,
            };
        }
    }
    if !layer.forget.is_empty() {
        let mut update = tx.prepare_cached("UPDATE ended SET forget = ?2, span = ?3 WHERE id = ?1")?;
        for (id, (forget, span)) in &layer.forget {
            update.execute(params![id, forget, span])?;
        }
    }
    Ok(())
}
