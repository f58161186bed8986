//! The door's settings.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Common;
use super::figures::DoorFigures;
use super::tls::Tls;
use crate::server::door::limits;

/// Receives one log line about an event that no client gets an answer for, such as a failing `accept`.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// Limits and times of the door. The defaults are the constants of [`limits`]. Tests shorten them.
#[derive(Clone)]
pub struct DoorSettings {
    /// Largest request head, bytes.
    pub head_bytes: usize,
    /// Longest request target, bytes.
    pub target_bytes: usize,
    /// Most headers in a request; at most [`limits::DOOR_HEADERS`].
    pub headers: usize,
    /// Largest request body, bytes.
    pub body_bytes: usize,
    /// Time to receive one whole request, from its first byte.
    pub send: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for one pass of a request through the server, without the time parked.
    pub total: Duration,
    /// Time without a request after which a connection is closed.
    pub idle: Duration,
    /// Time for a client to receive each 64 KiB, or part of it, of an answer.
    pub write: Duration,
    /// Time to keep reading after the last answer before the connection is closed.
    pub linger: Duration,
    /// Most client connections. Lowered if the limit of descriptors is too small for it.
    pub connections: usize,
    /// Most connections of one client address (with IPv6, of one /64 network). Not limited by default, because hundreds
    /// of waiters share the address of one worker.
    pub connections_per_address: Option<usize>,
    /// Most requests per second of one client address, with a burst of [`limits::DOOR_RATE_BURST_SECS`] seconds. Not
    /// limited by default.
    pub requests_per_second: Option<NonZeroU32>,
    /// TLS. Without it the door speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Most parked requests.
    pub parked: usize,
    /// Largest body of a parked request, bytes.
    pub park_body_bytes: usize,
    /// Most bytes of all parked requests.
    pub parked_bytes: usize,
    /// Most memory that clients can take, bytes. Its parts are those of [`limits::DOOR_MEMORY_BYTES`].
    pub memory_bytes: usize,
    /// Threads that serve clients. `None` means one for each core, up to [`limits::DOOR_THREADS`].
    pub threads: Option<usize>,
    /// What is counted.
    pub figures: DoorFigures,
    /// What it shares with the links of other servers.
    pub common: Common,
    /// Where lines for the log go. The default is the log.
    pub report: Report,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            head_bytes: limits::DOOR_HEAD_BYTES,
            target_bytes: limits::DOOR_TARGET_BYTES,
            headers: limits::DOOR_HEADERS,
            body_bytes: limits::DOOR_BODY_BYTES,
            send: Duration::from_millis(limits::DOOR_SEND_MS),
            handshake: Duration::from_millis(limits::DOOR_HANDSHAKE_MS),
            total: Duration::from_millis(limits::DOOR_TOTAL_MS),
            idle: Duration::from_millis(limits::DOOR_IDLE_MS),
            write: Duration::from_millis(limits::DOOR_WRITE_MS),
            linger: Duration::from_millis(limits::DOOR_LINGER_MS),
            connections: limits::DOOR_CONNECTIONS,
            connections_per_address: None,
            requests_per_second: None,
            tls: None,
            parked: limits::DOOR_PARKED,
            park_body_bytes: limits::DOOR_PARK_BODY_BYTES,
            parked_bytes: limits::DOOR_PARKED_BYTES,
            memory_bytes: limits::DOOR_MEMORY_BYTES,
            threads: None,
            figures: DoorFigures::default(),
            common: Common::default(),
            report: Arc::new(|line| tracing::warn!(target: "locker::door", "{line}")),
        }
    }
}

impl DoorSettings {
    /// The connections that waiting requests may not use.
    pub(super) fn kept(&self) -> usize {
        self.connections / limits::DOOR_KEPT_SHARE
    }

    /// The memory for larger heads and bodies, and the same for larger answers, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.memory_bytes / 4
    }
}
