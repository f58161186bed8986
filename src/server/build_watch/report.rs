//! The state of the watch of one Concourse, for `GET /api/v1/info`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::concourse::Concourse;
use crate::core::time::WallMs;
use crate::wire::api::{ConcourseState, ConcourseView};
use crate::wire::text::time;

/// Whether the Concourse answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Contact {
    /// It was not asked yet.
    #[default]
    NotYet,
    Well,
    Failing {
        since: WallMs,
        why: String,
    },
}

/// What is known of the Concourse now.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub contact: Contact,
    pub version: Option<String>,
    pub build_rerun: bool,
    /// The external URL that it says it has, if that is none of the URLs under which its builds are known.
    pub stranger: Option<String>,
    pub watched: usize,
    pub suspects: usize,
}

/// Written by the watch, read by the routes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Report(Arc<Mutex<Status>>);

impl Report {
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Concourse does not answer. The time of the first failure is kept.
    pub fn fails(&self, why: &str, now: WallMs) {
        let mut status = self.status();
        let since = match status.contact {
            Contact::Failing { since, .. } => since,
            Contact::NotYet | Contact::Well => now,
        };
        status.contact = Contact::Failing { since, why: why.to_owned() };
    }

    /// The view for the API.
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
