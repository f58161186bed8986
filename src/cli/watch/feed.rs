//! What `locker watch` shows, asked for in a thread of its own: a look, then a long poll for the next change.

use std::time::Duration;

use crate::client::backoff::Backoff;
use crate::client::{CallError, Client};
use crate::wire::api::{ChangeView, PoolSummary, PoolView};

/// How long one request waits for a change: what is no change, such as the end of a drain or a waiter that went away,
/// shows after it.
const WAIT: Duration = Duration::from_secs(5);

/// What is new.
pub(super) enum News {
    /// How it is now, and what has happened since the look before.
    Now { seen: Seen, changes: Vec<ChangeView> },
    /// The server does not answer; it is asked again.
    Away(String),
    /// The server says no, and will again.
    Refused(CallError),
}

/// What is looked at.
pub(super) enum Seen {
    Pool(Box<PoolView>),
    Pools(Vec<PoolSummary>),
}

/// Tells `tell` what is new until that says that nobody listens any more.
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
    /// Changes up to this revision have been told.
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
            // Before the look, so that nothing that happens after it is missed.
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
