//! Requests that were refused: counted by what they showed and why, and logged by identity, within bounds.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{basic_user, idtoken};
use crate::core::origin::Identity;
use crate::server::http::{Request, Response};
use crate::server::limits::REFUSALS_LOGGED;
use crate::wire::escape::escape;

/// Counts by credential and reason. Both are words of this program.
type Counts = Family<[(&'static str, &'static str); 2], Counter<u64, AtomicU64>>;

/// What was refused since the start. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counts: Counts,
    lines: Mutex<Lines>,
}

/// The lines of the present second.
#[derive(Default)]
struct Lines {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Refusals {
    fn count(&self, credential: &'static str, reason: &'static str) {
        self.0.counts.get_or_create(&[("credential", credential), ("reason", reason)]).inc();
    }

    /// A browser sent the request for a page of somebody else.
    pub fn of_browser(&self) {
        self.count("browser", "origin");
    }

    /// An id token proves nothing.
    pub fn of_id_token(&self, request: &Request, refused: &idtoken::Refusal) {
        self.count("id_token", refused.word());
        self.log(request, None, refused.word());
    }

    /// A request was not admitted.
    pub fn of_stranger(&self, request: &Request, response: &Response) {
        let (credential, reason) = match (request.header("authorization"), response.status) {
            // A person is sent to the form.
            (_, 303) => return,
            (None, 403) => ("session", "page"),
            (None, _) => ("none", "missing"),
            // The next leader decides.
            (Some(_), 503) if request.own_token().is_some() => return,
            (Some(_), 503) => ("password", "busy"),
            (Some(_), _) if request.own_token().is_some() => ("token", "unknown"),
            (Some(_), _) if basic_user(request).is_some() => ("password", "wrong"),
            (Some(_), _) => ("other", "malformed"),
        };
        self.count(credential, reason);
        if credential == "token" {
            self.log(request, None, "the token is not known");
        }
    }

    /// A client that was admitted lacks a right.
    pub fn of_client(&self, request: &Request, response: &Response) {
        let credential = match request.identity {
            None => "none",
            Some(Identity::User(_)) => "password",
            Some(Identity::Token(_)) => "token",
            Some(Identity::Certificate(_)) => "certificate",
            Some(Identity::Build(_)) => "id_token",
        };
        self.count(credential, "right");
        let said = serde_json::from_slice::<serde_json::Value>(&response.body).unwrap_or_default();
        self.log(request, response.route, said["error"].as_str().unwrap_or_default());
    }

    /// Writes the line of a refusal, unless there were too many in this second: a client that asks in a loop must not hide
    /// everything else.
    fn log(&self, request: &Request, route: Option<&str>, why: &str) {
        let Some(left_out) = self.may_log(Instant::now()) else { return };
        tracing::info!(
            target: "locker::audit",
            identity = request.identity.as_ref().map(|identity| escape(&identity.to_string())).as_deref(),
            peer = request.peer,
            request = request.id,
            method = escape(&request.method),
            route,
            why = escape(why),
            left_out = (left_out > 0).then_some(left_out),
            "refused",
        );
    }

    /// How many lines were left out before this one. `None` if it is one too many itself.
    fn may_log(&self, now: Instant) -> Option<u64> {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (lines.since, lines.written) = (Some(now), 0);
        }
        if lines.written >= REFUSALS_LOGGED {
            lines.left_out += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.left_out))
    }

    /// Adds the metrics, without the prefix of the program.
    pub fn register(&self, registry: &mut Registry) {
        // The usual ones are there from the beginning, so that their first increase is seen.
        for labels in [("none", "missing"), ("password", "wrong"), ("token", "unknown")] {
            drop(self.0.counts.get_or_create(&[("credential", labels.0), ("reason", labels.1)]));
        }
        let help = "Requests refused because of what their clients have shown or may do";
        registry.register("refusals", help, self.0.counts.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_few_lines_a_second() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let written = |at: Duration| (0..1_000).filter_map(|_| refusals.may_log(start + at)).collect::<Vec<_>>();
        assert_eq!(written(Duration::ZERO), vec![0; REFUSALS_LOGGED as usize]);
        let next = written(Duration::from_secs(1));
        assert_eq!((next.len(), next[0]), (REFUSALS_LOGGED as usize, 1_000 - u64::from(REFUSALS_LOGGED)));
    }
}
