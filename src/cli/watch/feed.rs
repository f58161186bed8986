//! Fetches what `locker watch` shows, in its own thread: it follows the events of the server, and looks at each of them.
//! A server that has no events is asked for changes again and again.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::client::backoff::Backoff;
use crate::client::events::Part;
use crate::client::{CallError, Client};
use crate::wire::api::{ChangeView, PoolSummary, PoolView};
use crate::wire::errors::Code;

/// How long to wait for something new before looking again. What is not announced as a change, such as the end of a
/// drain or a waiter that went away, shows after this time.
const WAIT: Duration = Duration::from_secs(5);
/// How long one answer with events lasts. A connection that nobody answers any more is left then.
const STREAM: Duration = Duration::from_secs(60);
/// Without a sign of life for this long the connection is taken for dead. The server gives one every 15 s.
const SILENCE: Duration = Duration::from_secs(25);

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
    let mut feed = Feed { client, pool, seen: None, source: Source::Unknown };
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
    source: Source,
}

/// Where changes come from.
enum Source {
    /// Nothing was asked yet, or the last answer has ended.
    Unknown,
    /// Events, and when the last part of them came.
    Events(Receiver<Result<Part, CallError>>, Instant),
    /// The server has no events.
    Polls,
}

impl Feed {
    fn next(&mut self) -> Result<News, CallError> {
        let (changes, newest) = self.changes()?;
        let seen = match &self.pool {
            Some(pool) => Seen::Pool(Box::new(self.client.get_pool(pool)?)),
            None => Seen::Pools(self.client.list_pools()?),
        };
        self.seen = Some(newest);
        Ok(News::Now { seen, changes })
    }

    /// What has happened, and up to which revision, once there is something or it is time to look again.
    fn changes(&mut self) -> Result<(Vec<ChangeView>, u64), CallError> {
        if matches!(self.source, Source::Unknown) {
            self.source = self.open()?;
        }
        let (events, heard) = match &mut self.source {
            Source::Events(events, heard) => (events, heard),
            Source::Polls | Source::Unknown => return self.poll(),
        };
        match (events.recv_timeout(WAIT), self.seen) {
            (Ok(Ok(Part { changes, revision })), _) => {
                *heard = Instant::now();
                Ok((changes, revision))
            }
            (Ok(Err(problem)), _) => {
                self.source = Source::Unknown;
                Err(problem)
            }
            (Err(RecvTimeoutError::Timeout), Some(seen)) if heard.elapsed() < SILENCE => Ok((Vec::new(), seen)),
            (Err(RecvTimeoutError::Disconnected), Some(seen)) => {
                self.source = Source::Unknown;
                Ok((Vec::new(), seen))
            }
            // Events do not come through, perhaps because of a proxy.
            (Err(_), _) => {
                self.source = Source::Polls;
                self.poll()
            }
        }
    }

    /// Follows the events after what was seen, in a thread of its own, because the next one may take its time.
    fn open(&self) -> Result<Source, CallError> {
        let mut events = match self.client.events(self.pool.as_deref(), self.seen, STREAM) {
            Ok(events) => events,
            Err(refused) if refused.code() == Some(Code::NoSuchRoute) => return Ok(Source::Polls),
            // The server has too many followers, but answers: `limit`.
            Err(refused) if refused.code() == Some(Code::Limit) => return Ok(Source::Polls),
            Err(problem) => return Err(problem),
        };
        let (tell, parts) = mpsc::channel();
        // Without a thread it can still ask again and again.
        let started = std::thread::Builder::new().name("events".into()).spawn(move || {
            while let Some(part) = events.next_part().transpose() {
                let is_last = part.is_err();
                if tell.send(part).is_err() || is_last {
                    break;
                }
            }
        });
        Ok(started.map_or(Source::Polls, |_| Source::Events(parts, Instant::now())))
    }

    fn poll(&self) -> Result<(Vec<ChangeView>, u64), CallError> {
        let changes = match (self.seen, &self.pool) {
            // This comes before the look, so that no change after it is missed.
            (None, Some(pool)) => return Ok((Vec::new(), self.client.newest_revision(pool)?)),
            (None, None) => return Ok((Vec::new(), self.client.info()?.revision)),
            (Some(seen), Some(pool)) => self.client.wait_for_change(pool, seen, WAIT)?.items,
            (Some(seen), None) => self.client.wait_for_any_change(seen, WAIT)?.items,
        };
        let newest = changes.last().map(|change| change.revision).or(self.seen).unwrap_or_default();
        Ok((changes, newest))
    }
}
