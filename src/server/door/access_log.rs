//! One log line for each request, and the id that links it to the client's answer.

use tokio::time::Instant;

use super::head::Method;
use super::listen::Client;
use crate::core::names::ParkId;
use crate::server::http::Identity;

/// The status that is logged when the client left before it was answered.
pub(in crate::server) const CLIENT_LEFT: u16 = 499;

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
    /// Writes the line.
    pub fn write(&self, client: &Client, outcome: &Outcome<'_>) {
        let method = self.method.map_or("-", Method::as_str);
        let Self { id, started, .. } = self;
        let identity = outcome.identity.or(client.identity.as_ref());
        let Outcome { status, route, .. } = *outcome;
        Line { id, peer: &client.peer, via: None, identity, method, route, status, started: *started }.write();
    }
}

/// What the log says of a request. It does not contain what clients choose freely (paths, queries, headers).
pub(in crate::server) struct Line<'a> {
    pub id: &'a str,
    pub peer: &'a str,
    /// The server that passed it on.
    pub via: Option<&'a str>,
    pub identity: Option<&'a Identity>,
    pub method: &'a str,
    pub route: Option<&'a str>,
    pub status: u16,
    pub started: Instant,
}

impl Line<'_> {
    /// Writes the line.
    pub fn write(&self) {
        if !tracing::enabled!(target: "locker::request", tracing::Level::INFO) {
            return;
        }
        let identity = self.identity.map(ToString::to_string);
        tracing::info!(
            target: "locker::request",
            id = self.id,
            peer = self.peer,
            via = self.via,
            identity = identity.as_deref().unwrap_or("-"),
            method = self.method,
            route = self.route.unwrap_or("-"),
            status = self.status,
            ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        );
    }
}
