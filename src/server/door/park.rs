//! What a parked request holds: its room, and the guarantee that the engine learns when its client leaves.

use std::sync::Arc;

use super::budget::{Budget, Share};
use super::settings::DoorSettings;
use crate::core::names::ParkId;
use crate::server::http::{Handler, Request};

/// Room for parked requests.
pub(super) struct Lot {
    requests: Budget,
    bytes: Budget,
    body_bytes: usize,
}

/// The room of one parked request. Dropping it frees the room.
pub(super) struct Place {
    _request: Share,
    _bytes: Share,
}

impl Lot {
    pub fn new(settings: &DoorSettings) -> Self {
        Self {
            requests: Budget::shown_by(
                settings.parked.min(settings.connections - settings.kept()),
                &settings.figures.parked,
            ),
            bytes: Budget::shown_by(settings.parked_bytes, &settings.figures.parked_bytes),
            body_bytes: settings.park_body_bytes,
        }
    }

    /// Takes a place for this request. `None` if there is no room.
    pub fn place(&self, request: &Request) -> Option<Place> {
        if request.body.len() > self.body_bytes {
            return None;
        }
        Some(Place { _request: self.requests.take(1)?, _bytes: self.bytes.take(bytes(request))? })
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
