//! A log in a schema of a PostgreSQL database. docs/cluster.md says what the database must promise.
//!
//! - [`address`]: `postgres://...` as people write it. `session`: one connection, with all that makes an answer of it
//!   certain. `tls`: rustls below it. `sql`: the tables and the statements. `change`: the statement of a write. `row`:
//!   what a row says.
//!
//! Each write is one statement outside a transaction block. So a server that is stopped holds no lock on the head (but see
//! [`PostgresLog::end_blockers`]), and each statement may go through another connection of a pooler such as pgbouncer.
//! Appends and beats are prepared under a random name, so no pooler can have another statement run in their place; where
//! the name is not known, nothing runs, and they are sent whole from then on.
//! Nothing is ever cancelled: a cancelled wait for a standby reports success. A connection that does not answer in time is
//! dropped instead, and the outcome is unknown.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::head::{Change, Head, Id, Place, Record, Reign, Seq, Write};
use super::{Cause, Log, Manifest, Room, Trouble, Written};
use address::Address;
use change::Statement;
use row::{Values as _, get, head, manifest, place, record};
use session::Session;
use sql::Statements;

pub mod address;
mod change;
mod row;
mod session;
mod sql;
mod tls;

/// How long a take-over may be blocked by another session before that session is ended.
const BLOCKED: Duration = Duration::from_secs(1);

/// A parameter with its type, so that a statement needs no preparation that would take a name or a second round trip.
type Param<'p> = (&'p (dyn ToSql + Sync), Type);

/// A log in PostgreSQL.
pub struct PostgresLog {
    address: Address,
    /// How long one call may take, with connecting.
    patience: Duration,
    statements: Statements,
    runtime: Runtime,
    session: Option<Session>,
    /// Whether statements are prepared: until one was not there any more, as happens behind a pooler.
    prepares: bool,
}

impl std::fmt::Debug for PostgresLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresLog").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PostgresLog {
    /// Connects, and makes the tables if they are not there. `patience` is how long each call may take.
    ///
    /// # Errors
    /// The database cannot be reached, is not set up safely, or the schema belongs to another program or release.
    pub fn open(address: Address, patience: Duration) -> Result<Self, Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Trouble::new(Cause::Failed, format!("cannot start: {error}")))?;
        let statements = Statements::of(address.schema());
        let mut log = Self { address, patience, statements, runtime, session: None, prepares: true };
        log.prepare_schema()?;
        Ok(log)
    }

    fn prepare_schema(&mut self) -> Result<(), Trouble> {
        let look = self.statements.look.clone();
        let there = |log: &mut Self| {
            let rows = log.rows(&look, &[])?;
            rows.first().map_or(Ok(false), |row| get::<bool>(row, "there"))
        };
        if !there(self)? {
            let create = self.statements.create.clone();
            self.with_session(|runtime, session, patience| session.simple(runtime, &create, patience))?;
        }
        let format = self.statements.format.clone();
        let rows = self.rows(&format, &[])?;
        let found = rows.first().map(|row| get::<i32>(row, "version")).transpose()?;
        if found == Some(sql::VERSION) {
            return Ok(());
        }
        let schema = self.address.schema();
        Err(Trouble::new(
            Cause::Damaged,
            format!(
                "schema {schema:?} has a log of format {}, this release knows format {}: use the release that made it, or \
                 another schema",
                found.map_or_else(|| "?".to_owned(), |found| found.to_string()),
                sql::VERSION
            ),
        ))
    }

    /// Calls with a connection. After an error it is dropped: nobody knows what state it is in.
    fn with_session<T>(
        &mut self,
        call: impl FnOnce(&Runtime, &mut Session, Duration) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(&self.runtime, &self.address, self.patience)?,
        };
        let answer = call(&self.runtime, &mut session, self.patience)?;
        self.session = Some(session);
        Ok(answer)
    }

    fn rows(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Trouble> {
        self.with_session(|runtime, session, patience| session.rows(runtime, sql, params, patience))
    }

    /// Deletes some, and says whether there is more.
    fn is_more(&mut self, sql: &str, params: &[Param<'_>]) -> Result<bool, Trouble> {
        self.rows(sql, params)?.first().map_or(Ok(false), |row| get(row, "more"))
    }

    /// The place that an append or a beat has made.
    fn lead(&mut self, statement: &Statement<'_>) -> Result<Option<Place>, Trouble> {
        if self.prepares
            && let Some(literals) = statement.literals()
        {
            let rows = self.with_session(|runtime, session, patience| {
                session.prepared_rows(runtime, statement, &literals, patience)
            })?;
            if let Some(rows) = rows {
                return rows.first().map(place).transpose();
            }
            self.prepares = false;
        }
        self.rows(&statement.sql, &statement.params())?.first().map(place).transpose()
    }

    /// A take-over. Whoever blocks it for [`BLOCKED`] is ended: a session whose client was cut off between the parts of a
    /// message, or a transaction that somebody has left open on the head.
    fn rows_or_end_blockers(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Trouble> {
        let (address, end_blockers) = (self.address.clone(), self.statements.end_blockers.clone());
        self.with_session(|runtime, session, patience| {
            let unblock = async {
                tokio::time::sleep(BLOCKED).await;
                let mut other = Session::connect_now(&address, patience).await?;
                other.rows_now(&end_blockers, &[]).await.map(|rows| rows.len())
            };
            session.rows_beside(runtime, sql, params, unblock, patience)
        })
    }

    /// Ends every session that blocks another one on the head. True if there was one.
    ///
    /// # Errors
    /// The database gives no answer, or the user may not end that session.
    pub fn end_blockers(&mut self) -> Result<bool, Trouble> {
        let sql = self.statements.end_blockers.clone();
        Ok(!self.rows(&sql, &[])?.is_empty())
    }
}

impl Log for PostgresLog {
    fn head(&mut self) -> Result<Option<Head>, Trouble> {
        let sql = self.statements.head.clone();
        self.rows(&sql, &[])?.first().map(head).transpose()
    }

    fn write(&mut self, write: &Write<'_>) -> Result<Written, Trouble> {
        let statement = Statement::of(write, &self.statements.schema)?;
        let made = match &write.change {
            Change::TakeOver { .. } => {
                let rows = self.rows_or_end_blockers(&statement.sql, &statement.params())?;
                rows.first().map(place).transpose()?
            }
            Change::Append { .. } | Change::Beat { .. } => self.lead(&statement)?,
        };
        match made {
            Some(place) => Ok(Written::Done(place)),
            None => Ok(Written::Refused(self.head()?)),
        }
    }

    fn records(&mut self, from: Seq, most: usize) -> Result<Vec<Record>, Trouble> {
        let sql = self.statements.records.clone();
        let (from, most) = (int(from.0)?, int(most as u64)?);
        let rows = self.rows(&sql, &[(&from, Type::INT8), (&most, Type::INT8)])?;
        rows.iter().map(record).collect()
    }

    fn put_piece(&mut self, snapshot: Id, number: u32, bytes: &[u8]) -> Result<(), Trouble> {
        let sql = self.statements.put_piece.clone();
        let (snapshot, number) = (snapshot.to_string(), int(number.into())?);
        self.rows(&sql, &[(&snapshot, Type::TEXT), (&number, Type::INT8), (&bytes, Type::BYTEA)]).map(drop)
    }

    fn put_manifest(&mut self, manifest: &Manifest) -> Result<bool, Trouble> {
        let Manifest { snapshot, by, seq, record, pieces } = manifest;
        let sql = self.statements.put_manifest.clone();
        let (snapshot, run, record) = (snapshot.to_string(), by.run.to_string(), record.to_string());
        let (term, seq, pieces) = (int(by.term)?, int(seq.0)?, int((*pieces).into())?);
        let params: [Param<'_>; 6] = [
            (&term, Type::INT8),
            (&run, Type::TEXT),
            (&snapshot, Type::TEXT),
            (&seq, Type::INT8),
            (&record, Type::TEXT),
            (&pieces, Type::INT8),
        ];
        Ok(!self.rows(&sql, &params)?.is_empty())
    }

    fn manifest(&mut self) -> Result<Option<Manifest>, Trouble> {
        let sql = self.statements.manifest.clone();
        self.rows(&sql, &[])?.first().map(manifest).transpose()
    }

    fn piece(&mut self, snapshot: Id, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        let sql = self.statements.piece.clone();
        let (snapshot, number) = (snapshot.to_string(), int(number.into())?);
        let rows = self.rows(&sql, &[(&snapshot, Type::TEXT), (&number, Type::INT8)])?;
        rows.first().map(|row| get(row, "bytes")).transpose()
    }

    fn trim(&mut self, by: Reign) -> Result<(), Trouble> {
        let (term, run) = (int(by.term)?, by.run.to_string());
        let by: [Param<'_>; 2] = [(&term, Type::INT8), (&run, Type::TEXT)];
        let trim_records = self.statements.trim_records.clone();
        while self.is_more(&trim_records, &by)? {}
        // They are named, so a statement that comes late deletes nothing of a snapshot that has been begun since.
        let (old_snapshots, trim_pieces) = (self.statements.old_snapshots.clone(), self.statements.trim_pieces.clone());
        for row in self.rows(&old_snapshots, &[])? {
            let snapshot: &str = get(&row, "snapshot")?;
            let params = [&by[..], &[(&snapshot, Type::TEXT)]].concat();
            while self.is_more(&trim_pieces, &params)? {}
        }
        Ok(())
    }

    fn notes(&mut self, under: &str) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
        let sql = self.statements.notes.clone();
        let rows = self.rows(&sql, &[(&under, Type::TEXT)])?;
        rows.iter().map(|row| Ok((get(row, "name")?, get(row, "bytes")?))).collect()
    }

    fn put_note(&mut self, name: &str, bytes: &[u8], by: Option<Reign>) -> Result<bool, Trouble> {
        let note: [Param<'_>; 2] = [(&name, Type::TEXT), (&bytes, Type::BYTEA)];
        let rows = match by {
            None => self.rows(&self.statements.put_note.clone(), &note)?,
            Some(Reign { term, run }) => {
                let (term, run) = (int(term)?, run.to_string());
                let by: [Param<'_>; 2] = [(&term, Type::INT8), (&run, Type::TEXT)];
                self.rows(&self.statements.put_note_by.clone(), &[note, by].concat())?
            }
        };
        Ok(!rows.is_empty())
    }

    fn drop_note(&mut self, name: &str) -> Result<(), Trouble> {
        let sql = self.statements.drop_note.clone();
        self.rows(&sql, &[(&name, Type::TEXT)]).map(drop)
    }

    fn room(&mut self) -> Result<Room, Trouble> {
        let sql = self.statements.room.clone();
        let rows = self.rows(&sql, &[])?;
        let Some(row) = rows.first() else { return Ok(Room::default()) };
        let (size, async_standbys) = (row.number("size")?, row.number("async_standbys")?);
        Ok(Room { size, async_standbys, ..Room::default() })
    }
}

/// A number as the database has it.
fn int(number: u64) -> Result<i64, Trouble> {
    i64::try_from(number).map_err(|_| Trouble::new(Cause::Failed, format!("{number} is out of bounds")))
}
