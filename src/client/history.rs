//! Questions about the history.

use super::calls::{get, pool_path};
use super::http::{CallError, Client, query};
use crate::wire::api::{ChangeView, Page, StatsView};

/// Which entries of the history are asked for. Texts are as the server takes them.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter<'a> {
    /// Only this pool.
    pub pool: Option<&'a str>,
    pub lock: Option<&'a str>,
    pub claim: Option<&'a str>,
    /// `BUILD_ID`.
    pub build: Option<&'a str>,
    pub who: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub since: Option<&'a str>,
    pub until: Option<&'a str>,
}

/// Most entries that one request asks for.
const PAGE: usize = 1_000;

impl Client {
    /// The newest entries that match, the newest first: at most `limit`. Also whether there may be more.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn history(&self, filter: &HistoryFilter<'_>, limit: usize) -> Result<(Vec<ChangeView>, bool), CallError> {
        let HistoryFilter { pool, lock, claim, build, who, kind, since, until } = *filter;
        let base = match pool {
            Some(pool) => format!("{}/changes", pool_path(pool)),
            None => "/api/v1/changes".to_owned(),
        };
        let mut found: Vec<ChangeView> = Vec::new();
        let mut after: Option<u64> = None;
        // A span is counted from now, so the times would move from page to page. Nobody minds some milliseconds.
        loop {
            let asked = (limit - found.len()).clamp(1, PAGE).to_string();
            let next = after.map(|after| after.to_string());
            let query = query(&[
                ("order", Some("newest_first")),
                ("limit", Some(&asked)),
                ("after", next.as_deref()),
                ("lock", lock),
                ("claim", claim),
                ("build", build),
                ("who", who),
                ("kind", kind),
                ("since", since),
                ("until", until),
            ]);
            let page: Page<ChangeView> = self.call(get(format!("{base}{query}")))?;
            found.extend(page.items);
            let next = page.next.as_deref().and_then(|next| next.parse::<u64>().ok());
            let is_full = found.len() >= limit;
            if is_full || next.is_none() {
                let more = next.is_some() || found.len() > limit;
                found.truncate(limit);
                return Ok((found, more));
            }
            if next >= after && after.is_some() {
                return Err(self.repeats());
            }
            after = next;
        }
    }

    /// Waits, holds and use over a span, of all pools or of one.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn stats(
        &self,
        pool: Option<&str>,
        (since, until): (Option<&str>, Option<&str>),
        top: usize,
    ) -> Result<StatsView, CallError> {
        let base = match pool {
            Some(pool) => format!("{}/stats", pool_path(pool)),
            None => "/api/v1/stats".to_owned(),
        };
        let top = top.to_string();
        let query = query(&[("since", since), ("until", until), ("top", Some(&top))]);
        self.call(get(format!("{base}{query}")))
    }
}
