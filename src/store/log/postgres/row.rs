//! What a row says, whether its values came as they are or as text.

use tokio_postgres::types::FromSql;
use tokio_postgres::{Row, SimpleQueryRow};

use crate::core::time::{EngineMs, Span};
use crate::store::log::head::{Head, Id, Leader, Place, Record, Reign, Seq};
use crate::store::log::{Cause, Manifest, Trouble};

/// A row. A statement with parameters gives a [`Row`]; one that is executed by its name gives text.
pub(super) trait Values {
    fn number(&self, column: &str) -> Result<u64, Trouble>;
    fn text(&self, column: &str) -> Result<&str, Trouble>;
}

impl Values for Row {
    fn number(&self, column: &str) -> Result<u64, Trouble> {
        u64::try_from(get::<i64>(self, column)?).map_err(|_| damaged(&format!("column {column} is below 0")))
    }

    fn text(&self, column: &str) -> Result<&str, Trouble> {
        get(self, column)
    }
}

impl Values for SimpleQueryRow {
    fn number(&self, column: &str) -> Result<u64, Trouble> {
        self.text(column)?.parse().map_err(|error| damaged(&format!("column {column}: {error}")))
    }

    fn text(&self, column: &str) -> Result<&str, Trouble> {
        let text = self.try_get(column).map_err(|error| damaged(&format!("column {column}: {error}")))?;
        text.ok_or_else(|| damaged(&format!("column {column} is null")))
    }
}

fn damaged(what: &dyn std::fmt::Display) -> Trouble {
    Trouble::new(Cause::Damaged, what.to_string())
}

pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: &str) -> Result<T, Trouble> {
    row.try_get(column).map_err(|error| damaged(&format!("column {column}: {error}")))
}

fn id(row: &impl Values, column: &str) -> Result<Id, Trouble> {
    row.text(column)?.parse().map_err(|_| damaged(&format!("column {column} is not an id")))
}

pub(super) fn place(row: &impl Values) -> Result<Place, Trouble> {
    let reign = Reign { term: row.number("term")?, run: id(row, "run")? };
    Ok(Place { reign, seq: Seq(row.number("seq")?), record: id(row, "record")? })
}

pub(super) fn head(row: &Row) -> Result<Head, Trouble> {
    let leader = Leader { name: get(row, "name")?, run: id(row, "run")? };
    Ok(Head {
        term: row.number("term")?,
        leader,
        seq: Seq(row.number("seq")?),
        record: id(row, "record")?,
        beat: row.number("beat")?,
        span: Span(row.number("span")?),
        engine: EngineMs(row.number("engine")?),
    })
}

pub(super) fn record(row: &Row) -> Result<Record, Trouble> {
    Ok(Record {
        seq: Seq(row.number("seq")?),
        id: id(row, "id")?,
        before: id(row, "before")?,
        term: row.number("term")?,
        bytes: get(row, "bytes")?,
    })
}

pub(super) fn manifest(row: &Row) -> Result<Manifest, Trouble> {
    Ok(Manifest {
        snapshot: id(row, "snapshot")?,
        by: Reign { term: row.number("term")?, run: id(row, "run")? },
        seq: Seq(row.number("seq")?),
        record: id(row, "record")?,
        pieces: u32::try_from(row.number("pieces")?).map_err(|error| damaged(&error))?,
    })
}
