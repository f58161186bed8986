//! What a parked request holds: its room, its part of the figures, and the guarantee that the engine learns when its
//! client leaves.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;

use super::budget::{Budget, Share, shown};
use super::settings::DoorSettings;
use crate::core::names::ParkId;
use crate::server::http::{Handler, Request};
use crate::server::notices::Subscription;

/// Room for parked requests.
pub(super) struct Lot {
    requests: Budget,
    bytes: Budget,
    body_bytes: usize,
    /// How many requests are parked, and their bytes.
    shown: [Gauge; 2],
}

/// The room of a request that may be parked. Dropping it frees the room.
pub(super) struct Place {
    _request: Share,
    bytes: Share,
}

/// What a request needs to be parked.
pub(super) struct Waiting {
    pub place: Place,
    pub subscription: Subscription,
}

/// A request that is parked now. Dropping it takes it out of the figures.
pub(super) struct Parked<'l>(&'l Lot, i64);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let [requests, bytes] = &self.0.shown;
        requests.dec();
        bytes.dec_by(self.1);
    }
}

impl Lot {
    pub fn new(settings: &DoorSettings) -> Self {
        Self {
            requests: Budget::new(settings.parked.min(settings.connections - settings.kept())),
            bytes: Budget::new(settings.parked_bytes),
            body_bytes: settings.park_body_bytes,
            shown: [settings.figures.parked.clone(), settings.figures.parked_bytes.clone()],
        }
    }

    /// Takes a place for this request. `None` if there is no room.
    pub fn place(&self, request: &Request) -> Option<Place> {
        if request.body.len() > self.body_bytes {
            return None;
        }
        Some(Place { _request: self.requests.take(1)?, bytes: self.bytes.take(bytes(request))? })
    }

    /// The request is parked from now on.
    pub fn park(&self, waiting: &Waiting) -> Parked<'_> {
        let [requests, bytes] = &self.shown;
        let size = shown(waiting.place.bytes.units());
        requests.inc();
        bytes.inc_by(size);
        Parked(self, size)
    }
}

/// The memory that a request takes, bytes.
fn bytes(request: &Request) -> usize {
    let header = |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
    let headers: usize = request.headers.iter().map(header).sum();
    size_of::<Request>() + request.path.len() + request.query.len() + headers + request.body.len()
}

/// Reports to the engine, exactly once, that a listener has left, unless it was answered. This covers every way in
/// which a connection's task can end, including being dropped.
pub(super) struct Listener {
    handler: Arc<dyn Handler>,
    park: ParkId,
    answered: bool,
}

impl Listener {
    pub fn new(handler: &Arc<dyn Handler>, park: ParkId) -> Self {
        Self { handler: Arc::clone(handler), park, answered: false }
    }

    /// The number of its request.
    pub fn park(&self) -> ParkId {
        self.park
    }

    /// The engine has given its final answer and no longer counts on this listener.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.answered {
            self.handler.left(self.park);
        }
    }
}
