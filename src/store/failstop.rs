//! Fail-stop (invariant I15): the outcome of a failed commit is unknown, and a sync that failed once may falsely
//! succeed when it is repeated. So nothing is written after the first failure.

use std::sync::Arc;

use anyhow::anyhow;

use super::{Reader, Store};
use crate::core::history::Outline;
use crate::core::state::{Changes, EndedOutline, Loaded};

/// A store that fails for good after its first failed commit.
#[derive(Debug)]
pub struct FailStop<S> {
    store: S,
    /// Why it was shut.
    failure: Option<String>,
}

impl<S: Store> FailStop<S> {
    /// Wraps `store`.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, failure: None }
    }

    fn check(&self) -> anyhow::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(first) => Err(anyhow!("the store was shut when a commit failed ({first}): start the server again")),
        }
    }
}

impl<S: Store> Store for FailStop<S> {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.check()?;
        self.store.load()
    }

    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.check()?;
        self.store.ended(each)
    }

    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.check()?;
        self.store.history(each)
    }

    fn past(
        &mut self,
        ended: &mut (dyn FnMut(EndedOutline) + Send),
        entry: &mut (dyn FnMut(Outline) + Send),
    ) -> anyhow::Result<()> {
        self.check()?;
        self.store.past(ended, entry)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.store.reader()
    }

    fn own_reader(&self) -> Arc<dyn Reader> {
        self.store.own_reader()
    }

    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        self.check()?;
        self.store.commit(changes).inspect_err(|error| self.failure = Some(format!("{error:#}")))
    }

    fn confirm(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.store.confirm().inspect_err(|error| self.failure = Some(format!("{error:#}")))
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn store_id(&self) -> &str {
        self.store.store_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails the commits that the list marks.
    struct Faulty {
        fails: Vec<bool>,
        commits: usize,
    }

    impl Store for Faulty {
        fn load(&mut self) -> anyhow::Result<Loaded> {
            Ok(Loaded::default())
        }

        fn ended(&mut self, _: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
            Ok(())
        }

        fn history(&mut self, _: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
            Ok(())
        }

        fn reader(&self) -> Arc<dyn Reader> {
            unreachable!("nobody reads")
        }

        fn commit(&mut self, _: &Changes) -> anyhow::Result<()> {
            self.commits += 1;
            if self.fails[self.commits - 1] { Err(anyhow!("disk full")) } else { Ok(()) }
        }

        fn store_id(&self) -> &'static str {
            "faulty"
        }
    }

    #[test]
    fn the_first_failure_is_the_last_write() {
        let mut store = FailStop::new(Faulty { fails: vec![false, true, false], commits: 0 });
        let changes = Changes::default();
        store.commit(&changes).unwrap();
        assert_eq!(store.commit(&changes).unwrap_err().to_string(), "disk full");
        for _ in 0..3 {
            let later = store.commit(&changes).unwrap_err().to_string();
            assert!(later.contains("shut when a commit failed (disk full)"), "{later}");
        }
        assert!(store.load().is_err());
        assert_eq!(store.store.commits, 2, "nothing reaches the store after the failure");
    }
}
