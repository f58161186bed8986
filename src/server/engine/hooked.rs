//! A store for tests, which asks before each commit.

use std::sync::Arc;

use crate::core::history::Outline;
use crate::core::state::{Changes, EndedOutline, Loaded};
use crate::store::memory::MemoryStore;
use crate::store::{Reader, Store};

/// Commits what comes if `before_commit` succeeds. It may also wait.
pub struct Hooked<F> {
    pub kept: MemoryStore,
    pub before_commit: F,
}

impl<F: FnMut() -> anyhow::Result<()> + Send> Store for Hooked<F> {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.kept.load()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.kept.ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.kept.history(each)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.kept.reader()
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        (self.before_commit)()?;
        self.kept.commit(changes)
    }

    fn store_id(&self) -> &str {
        self.kept.store_id()
    }
}
