//! What a start reads of the past: the outlines of ended claims and of the history.

use std::path::Path;
use std::thread;

use anyhow::anyhow;
use rusqlite::{Connection, OpenFlags};

use super::{each_change, ended};
use crate::core::history::Outline;
use crate::core::state::EndedOutline;
use crate::store::rows;

/// Reads both tables at once, each on a thread of its own that also passes on what it reads: a start with a long past is
/// work for two cores.
pub(super) fn both(
    conn: &mut Connection,
    path: &Path,
    each_ended: &mut (dyn FnMut(EndedOutline) + Send),
    each_entry: &mut (dyn FnMut(Outline) + Send),
) -> anyhow::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let other = Connection::open_with_flags(path, flags)?;
    thread::scope(|scope| {
        let reading = scope.spawn(move || ended::outlines(&other, each_ended));
        let read = history(conn, each_entry);
        read.and(reading.join().unwrap_or_else(|_| Err(anyhow!("the read has panicked: this is a bug in locker"))))
    })
}

/// Passes the outline of each entry of the history to `take`, oldest first.
pub(super) fn history(conn: &Connection, take: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
    each_change(conn, |revision, seq, json| {
        take(rows::outline(revision, seq, json)?);
        Ok(())
    })
}
