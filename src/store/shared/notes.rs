//! What a leader keeps in the log beside the records, for the next one.

use std::fmt;

use anyhow::ensure;

use super::Membership;
use crate::store::log::Log;
use crate::store::log::head::Reign;

/// The notes of one leader, over a connection of their own.
pub struct Notes {
    pub(super) membership: Membership,
    pub(super) by: Reign,
    /// `None` after an error: the next call connects again.
    pub(super) log: Option<Box<dyn Log>>,
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").field("by", &self.by).finish_non_exhaustive()
    }
}

impl Notes {
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Log) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.membership.address.open(self.membership.patience())?,
        };
        let answer = call(&mut *log)?;
        self.log = Some(log);
        Ok(answer)
    }

    /// The note of this name, whoever has written it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(&mut self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.call(|log| Ok(log.notes(name)?.into_iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes)))
    }

    /// Writes the note.
    ///
    /// # Errors
    /// The log gives no answer, or this server no longer leads.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let by = self.by;
        self.call(|log| {
            ensure!(log.put_note(name, bytes, Some(by))?, "this server no longer leads");
            Ok(())
        })
    }
}
