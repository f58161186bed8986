//! One log line for each request, and the id that links it to the client's answer.

use tokio::time::Instant;

use super::head::Method;
use super::listen::Client;
use crate::core::names::ParkId;
use crate::server::http::Identity;

/// The status that is logged when the client left before it was answered.
pub(super) const CLIENT_LEFT: u16 = 499;

/// The log entry of the current request.
pub(super) struct Entry {
    pub id: String,
    pub park: ParkId,
    pub started: Instant,
    /// Unknown until the head has been read.
    pub method: Option<Method>,
}

/// The outcome of a request.
pub(super) struct Outcome<'a> {
    pub status: u16,
    /// The template of the route. `None` if no route was found or looked for.
    pub route: Option<&'a str>,
    /// The identity that the request was accepted for.
    pub identity: Option<&'a Identity>,
}

impl Entry {
    /// Writes the line. It does not contain what clients choose freely (paths, queries, headers).
    pub fn write(&self, client: &Client, outcome: &Outcome<'_>) {
        if !tracing::enabled!(target: "locker::request", tracing::Level::INFO) {
            return;
        }
        let identity = outcome.identity.or(client.identity.as_ref()).map(ToString::to_string);
        tracing::info!(
            target: "locker::request",
            id = self.id,
            peer = client.peer,
            identity = identity.as_deref().unwrap_or("-"),
            method = self.method.map_or("-", Method::as_str),
            route = outcome.route.unwrap_or("-"),
            status = outcome.status,
            ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        );
    }
}
