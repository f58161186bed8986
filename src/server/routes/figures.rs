//! The figures that the web page shows, kept for a while: counting a long span takes a second or so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::super::engine::Engine;
use super::super::history::{self, Counted, Scope};
use super::super::limits::{FIGURES_KEPT, FIGURES_MS};
use super::super::pages::Over;
use crate::core::time::WallMs;

/// Figures, and when they were counted.
pub(super) struct Kept {
    pub counted: Counted,
    pub at: WallMs,
    since: Instant,
}

/// The figures of each span and pattern. Only one is counted at a time, so that pages never keep more than one reader
/// of the store busy.
#[derive(Default)]
pub(super) struct KeptFigures(Mutex<BTreeMap<(Over, String), Arc<Kept>>>);

impl KeptFigures {
    /// The figures of a span, counted anew if they are old.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn get(&self, engine: &Engine, over: Over, named: &str, scope: &Scope) -> anyhow::Result<Arc<Kept>> {
        let mut all = self.0.lock().await;
        let fresh = Duration::from_millis(FIGURES_MS);
        all.retain(|_, kept| kept.since.elapsed() < fresh);
        let key = (over, named.to_owned());
        if let Some(kept) = all.get(&key) {
            return Ok(Arc::clone(kept));
        }
        let (at, since) = (engine.now().wall, Instant::now());
        let span = (WallMs(at.0.saturating_sub(over.span().0)), at);
        let counted = history::count(engine, scope, span, 0).await?;
        let kept = Arc::new(Kept { counted, at, since });
        if all.len() >= FIGURES_KEPT {
            all.pop_first();
        }
        all.insert(key, Arc::clone(&kept));
        Ok(kept)
    }
}
