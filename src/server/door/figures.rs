//! What the door counts, for the metrics: one figure for each of its limits, and the requests themselves.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::tls::Tls;

/// Counts by status.
type ByStatus = Family<[(&'static str, u16); 1], Counter<u64, AtomicU64>>;

/// The figures of one door. Cheap to clone; clones share the figures.
#[derive(Debug, Clone, Default)]
pub struct DoorFigures {
    /// Connections that are open.
    pub(super) connections: Gauge,
    pub(super) connections_refused: Counter,
    pub(super) per_address_refused: Counter,
    pub(super) rate_limited: Counter,
    pub(super) parked: Gauge,
    pub(super) parked_bytes: Gauge,
    /// Bytes of large heads, bodies and answers.
    pub(super) held_bytes: Gauge,
    pub(super) handshakes_failed: Counter,
    pub(super) idle_ended: Counter,
    pub(super) deaf_ended: Counter,
    pub(super) failed_logins: Counter,
    requests: ByStatus,
    refused: ByStatus,
    /// When the certificate expires, seconds since 1970. 0 without TLS.
    certificate_expiry: Gauge,
}

impl DoorFigures {
    /// No figures yet, of a door with this certificate.
    #[must_use]
    pub fn new(tls: Option<&Tls>) -> Self {
        Self { certificate_expiry: tls.map(Tls::expiry).unwrap_or_default(), ..Self::default() }
    }

    /// A request was answered with this status.
    pub(super) fn answered(&self, status: u16) {
        self.requests.get_or_create(&[("status", status)]).inc();
    }

    /// The door itself has refused a request, before any route saw it.
    pub(super) fn refused(&self, status: u16) {
        self.refused.get_or_create(&[("status", status)]).inc();
    }

    /// Adds the metrics, without the prefix of the program.
    pub fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("connections", "Connections that are open", &self.connections),
            ("parked_requests", "Requests that wait in the server", &self.parked),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let bytes = [
            ("parked", "Size of the requests that wait in the server", &self.parked_bytes),
            ("held", "Size of large heads, bodies and answers in transit", &self.held_bytes),
        ];
        for (name, help, gauge) in bytes {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        let counters = [
            ("connections_refused", "Connections turned away because there were too many", &self.connections_refused),
            (
                "connections_per_address_refused",
                "Connections turned away because their address had too many",
                &self.per_address_refused,
            ),
            ("rate_limited", "Requests refused because their address sent too many", &self.rate_limited),
            ("handshakes_failed", "TLS handshakes that failed", &self.handshakes_failed),
            ("connections_idle_ended", "Connections ended because they sent nothing", &self.idle_ended),
            ("connections_deaf_ended", "Connections ended because they took no answer", &self.deaf_ended),
            ("failed_logins", "Requests with wrong credentials", &self.failed_logins),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("requests", "Requests that were answered, by status", self.requests.clone());
        let help = "Requests that the door refused before any route saw them, by status";
        registry.register("requests_refused", help, self.refused.clone());
        if self.certificate_expiry.get() > 0 {
            let help = "When the certificate of the server expires, as Unix time";
            let expiry = self.certificate_expiry.clone();
            registry.register_with_unit("tls_certificate_expiry_timestamp", help, Unit::Seconds, expiry);
        }
    }
}
