//! Stores: where the truth survives the process (design section 9).

use crate::core::state::{Changes, Loaded};

/// What a store must do. One engine owns a store; nobody else calls it.
pub trait Store: Send {
    /// Everything kept, as of the last successful commit. Called once, before any commit.
    ///
    /// # Errors
    /// The store cannot be read, or was written by a newer release; nothing was changed.
    fn load(&mut self) -> anyhow::Result<Loaded>;

    /// Makes one batch durable, whole or not at all: when it returns `Ok`, the batch survives `SIGKILL` and power
    /// loss. Order within the batch does not matter, batches are in order.
    ///
    /// # Errors
    /// The outcome is then unknown: the caller must not answer anything of the batch and must not commit again.
    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()>;

    /// Made with the store, the same for all servers on it.
    fn store_id(&self) -> &str;
}
