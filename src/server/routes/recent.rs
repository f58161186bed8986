//! What was made a moment ago, for the next request for the same: however many ask, it is made once in a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// Values by what was asked for, and when they were made. Only one is made at a time.
///
/// All readers see the same. Where they do not, the key must say who may see what.
pub(super) struct Recent<K, V> {
    /// For how long a value is good enough.
    fresh: Duration,
    most: usize,
    made: Mutex<BTreeMap<K, (Instant, Arc<V>)>>,
}

impl<K: Ord, V> Recent<K, V> {
    /// Keeps at most this many values, each for so many milliseconds.
    pub fn new(fresh_ms: u64, most: usize) -> Self {
        Self { fresh: Duration::from_millis(fresh_ms), most, made: Mutex::default() }
    }

    /// The value of this key, made now unless it was made just before.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn get<E>(&self, key: K, make: impl Future<Output = Result<V, E>>) -> Result<Arc<V>, E> {
        let mut all = self.made.lock().await;
        all.retain(|_, (at, _)| at.elapsed() < self.fresh);
        if let Some((_, made)) = all.get(&key) {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(make.await?);
        if all.len() >= self.most {
            all.pop_first();
        }
        all.insert(key, (Instant::now(), Arc::clone(&made)));
        Ok(made)
    }
}
