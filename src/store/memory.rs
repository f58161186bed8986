//! `memory:`: keeps everything until the process ends, as the same records that a file would contain. For tests and
//! demos.

use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layer::{Layer, View};
use super::reading::{Nothing, Reading};
use super::rows::{self, Batch, Rows};
use super::{Found, Reader, Store};
use crate::core::claim::Ended;
use crate::core::history::{Change, Outline};
use crate::core::names::{ChangeKey, ClaimId};
use crate::core::state::{Changes, EndedOutline, Loaded};

/// A store without a disk. Clones share their contents, so a test can give one to the next life of a server.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    id: String,
    kept: Arc<Mutex<Layer>>,
}

impl MemoryStore {
    /// An empty store with its own id.
    ///
    /// # Errors
    /// The operating system provides no random bytes.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { id: super::new_store_id()?, kept: Arc::new(Mutex::new(Layer::lowest())) })
    }

    /// A holder that panicked leaves a half-written batch, which its engine never answers.
    fn kept(&self) -> MutexGuard<'_, Layer> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything as of now. Whoever reads it keeps nobody waiting.
    fn reading(&self) -> Reading<Nothing, 1> {
        Reading { view: View([self.kept().clone()]), below: Nothing }
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        let mut rows = Rows::default();
        self.kept().load(&mut rows)?;
        rows.finish()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        for (id, row) in &self.kept().ended {
            if let Some(row) = row {
                each(row.columns(id).outline()?);
            }
        }
        Ok(())
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        for (&(revision, seq), json) in &self.kept().changes {
            if let Some(json) = json {
                each(rows::outline(revision, seq.into(), json)?);
            }
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.clone())
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let batch = Batch::of(changes)?;
        self.kept().put(batch);
        Ok(())
    }

    fn store_id(&self) -> &str {
        &self.id
    }
}

impl Reader for MemoryStore {
    fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        self.reading().entries(keys)
    }

    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        self.reading().ended_claims(ids)
    }

    fn find(&self, id: &ClaimId) -> anyhow::Result<Found> {
        self.reading().find(id)
    }

    fn walk_ended(
        &self,
        after: Option<&ClaimId>,
        each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.reading().walk_ended(after, each)
    }

    fn walk(
        &self,
        range: (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.reading().walk(range, newest_first, each)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::store::conformance::conformance(|| {
            let store = MemoryStore::new().unwrap();
            Box::new(move || Box::new(store.clone()))
        });
    }
}
