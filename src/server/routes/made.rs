//! Pages that were made a moment ago, for the next reader of the same page: however many follow a busy pool, its page is
//! made a few times a second.
//!
//! All readers see the same. Where they do not, this must know who may see what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::super::limits::{EVENTS_PACE_MS, PAGES_KEPT};
use super::super::pages::{Moment, Page};
use super::failure::Failure;

/// A page with its status.
type Made = (u16, Moment, Page);

/// Pages by their path, and when they were made. Only one is made at a time.
#[derive(Default)]
pub(super) struct MadePages(Mutex<BTreeMap<String, (Instant, Arc<Made>)>>);

impl MadePages {
    /// The page with this path, made now unless it was made just before.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn get(
        &self,
        path: &str,
        make: impl Future<Output = Result<Made, Failure>>,
    ) -> Result<Arc<Made>, Failure> {
        let mut all = self.0.lock().await;
        all.retain(|_, (at, _)| at.elapsed() < Duration::from_millis(EVENTS_PACE_MS));
        if let Some((_, made)) = all.get(path) {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(make.await?);
        if all.len() >= PAGES_KEPT {
            all.clear();
        }
        all.insert(path.to_owned(), (Instant::now(), Arc::clone(&made)));
        Ok(made)
    }
}
