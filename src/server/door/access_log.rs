//! One log line for each request, and the id that ties it to the client's answer.

use tokio::time::Instant;

use super::head::Method;
use super::listen::Client;
use crate::core::names::ParkId;
use crate::server::http::Identity;

/// The status that stands in the log when the client left before it was answered.
pub(super) const CLIENT_LEFT: u16 = 499;

/// What the log will say about the present request.
pub(super) struct Entry {
    pub id: String,
    pub park: ParkId,
    pub started: Instant,
    /// Unknown until the head has been read.
    pub method: Option<Method>,
}

/// What is known of a request when it has ended.
pub(super) struct Outcome<'a> {
    pub status: u16,
    /// The template of the route; none when no route was found, or it was not looked for.
    pub route: Option<&'a str>,
    /// Who it was accepted for.
    pub identity: Option<&'a Identity>,
}

impl Entry {
    /// Writes the line. What clients choose freely (paths, queries, headers) is not in it.
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
