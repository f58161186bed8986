//! Fetches what `locker watch` shows, in its own thread: a look, then a long poll for the next change.

use std::time::Duration;

use crate::client::backoff::Backoff;
use crate::client::{CallError, Client};
use crate::wire::api::{ChangeView, PoolSummary, PoolView};

/// How long one request waits for a change. Events that are not announced as changes, such as the end of a drain or a
/// waiter that went away, show after this time.
const WAIT: Duration = Duration::from_secs(5);

/// What is new.
pub(super) enum News {
    /// The current state, and what has happened since the previous look.
    Now { seen: Seen, changes: Vec<ChangeView> },
    /// The server does not answer; the feed retries.
    Away(String),
    /// The server refuses, and will refuse again.
    Refused(CallError),
}

/// The state that was fetched.
pub(super) enum Seen {
    Pool(Box<PoolView>),
    Pools(Vec<PoolSummary>),
}

/// Calls `tell` with everything new, until `tell` returns false because nobody listens any more.
pub(super) fn start(
    client: Client,
    pool: Option<String>,
    retry_max: Duration,
    tell: impl Fn(News) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let mut feed = Feed { client, pool, seen: None };
    let mut backoff = Backoff::new(retry_max);
    std::thread::Builder::new().name("feed".into()).spawn(move || {
        loop {
            let goes_on = match feed.next() {
                Ok(news) => {
                    backoff.reset();
                    tell(news)
                }
                Err(CallError::NoAnswer(why)) => {
                    let goes_on = tell(News::Away(why.to_string()));
                    std::thread::sleep(backoff.pause(why.retry_after));
                    goes_on
                }
                Err(refused) => {
                    tell(News::Refused(refused));
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
    })?;
    Ok(())
}

struct Feed {
    client: Client,
    pool: Option<String>,
    /// Changes up to this revision have been delivered.
    seen: Option<u64>,
}

impl Feed {
    fn next(&mut self) -> Result<News, CallError> {
        let changes = match self.seen {
            None => Vec::new(),
            Some(seen) => match &self.pool {
                Some(pool) => self.client.wait_for_change(pool, seen, WAIT)?.items,
                None => self.client.wait_for_any_change(seen, WAIT)?.items,
            },
        };
        let newest = match (self.seen, &self.pool) {
            // This comes before the look, so that no change after it is missed.
            (None, Some(pool)) => self.client.newest_revision(pool)?,
            (None, None) => self.client.info()?.revision,
            (Some(seen), _) => changes.last().map_or(seen, |change| change.revision),
        };
        let seen = match &self.pool {
            Some(pool) => Seen::Pool(Box::new(self.client.get_pool(pool)?)),
            None => Seen::Pools(self.client.list_pools()?),
        };
        self.seen = Some(newest);
        Ok(News::Now { seen, changes })
    }
}
