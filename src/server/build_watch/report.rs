//! How the watch of one Concourse goes, for those who ask the server about itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::concourse::Concourse;
use crate::core::time::WallMs;
use crate::wire::api::{ConcourseState, ConcourseView};
use crate::wire::text::time;

/// Whether the Concourse answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Contact {
    /// It has not been asked yet.
    #[default]
    NotYet,
    Well,
    Failing {
        since: WallMs,
        why: String,
    },
}

/// What is known of it now.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub contact: Contact,
    pub version: Option<String>,
    pub build_rerun: bool,
    /// The external URL that it says it has, when that is none of those by which its builds are known.
    pub stranger: Option<String>,
    pub watched: usize,
    pub suspects: usize,
}

/// Written by the watch, read by routes; cheap to clone.
#[derive(Clone, Default)]
pub struct Report(Arc<Mutex<Status>>);

impl Report {
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It does not answer; since when is kept.
    pub fn fails(&self, why: &str, now: WallMs) {
        let mut status = self.status();
        let since = match status.contact {
            Contact::Failing { since, .. } => since,
            Contact::NotYet | Contact::Well => now,
        };
        status.contact = Contact::Failing { since, why: why.to_owned() };
    }

    /// As it is shown.
    #[must_use]
    pub fn view(&self, concourse: &Concourse) -> ConcourseView {
        let status = self.status().clone();
        let (state, since, why) = match status.contact {
            Contact::NotYet => (ConcourseState::NotYet, None, None),
            Contact::Well => (ConcourseState::Ok, None, None),
            Contact::Failing { since, why } => (ConcourseState::Failing, Some(time(since)), Some(why)),
        };
        let mut urls = concourse.urls.iter().map(ToString::to_string);
        ConcourseView {
            url: urls.next().unwrap_or_default(),
            aliases: urls.collect(),
            login: concourse.login.describe(),
            state,
            since,
            why,
            version: status.version,
            external_url: status.stranger,
            build_rerun: status.build_rerun,
            watched: status.watched,
            suspects: status.suspects,
        }
    }
}
