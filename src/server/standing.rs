//! What one of several servers says of itself, also while another one leads: its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::auth::Guard;
use super::auth::access::{Live, Right};
use super::coordinator::Surroundings;
use super::http::{Admitting, Answering, Handler, Request, Response};
use super::link::Passing;
use super::metrics::{self, Format};
use super::routes::{self, MoreMetrics};
use crate::core::names::ParkId;
use crate::store::shared::{Shown, Standing};
use crate::wire::errors::Code;

/// The metrics of a server on a shared log: where it stands, what it passes on, and how many follow it over links.
pub(super) fn metrics_of(standing: &Arc<Standing>, passing: Passing, links: &Arc<AtomicUsize>) -> MoreMetrics {
    let (standing, links) = (Arc::clone(standing), Arc::clone(links));
    Arc::new(move |registry| {
        let shown = standing.shown();
        let links = links.load(Ordering::Relaxed);
        registry.register("links", "Servers that pass requests on to this one, while it leads", gauge(links as u64));
        let help = "Whether this server has a link to the one that leads; 0 while it leads itself";
        registry.register("link_up", help, gauge(passing.is_linked().into()));
        let help = "Requests that were passed on to the leader, or wait for one, and are not answered";
        registry.register("passed_on_requests", help, gauge(passing.pending() as u64));
        register(&shown, registry);
        if shown.leads.is_some() {
            registry.register_collector(Box::new(Lags(shown)));
        }
    })
}

fn gauge(value: u64) -> ConstGauge<u64> {
    ConstGauge::new(value)
}

fn register(shown: &Shown, registry: &mut Registry) {
    let leader = shown.leader.as_ref();
    let gauges = [
        ("leads", "Whether this server leads", Some(shown.leads.is_some().into())),
        ("leader_term", "Term of the server that leads: grows with each change of leaders; 0 if nobody leads", {
            Some(leader.map_or(0, |leader| leader.term))
        }),
        ("log_last_record", "Number of the last record in the shared log", Some(shown.head)),
        ("log_lag_records", "Records in the log that this server does not have yet", Some(shown.lag())),
        ("log_records", "Records in the log that its snapshot does not contain", shown.records),
        ("servers", "Servers that are registered in the log", Some(shown.servers.len() as u64)),
        ("database_full", "Whether the database accepts no more", {
            // A PostgreSQL does not say.
            shown.room.filter(|room| room.quota.is_some() || room.is_full).map(|room| room.is_full.into())
        }),
    ];
    for (name, help, value) in gauges {
        let Some(value) = value else { continue };
        registry.register(name, help, gauge(value));
    }
    let help = "For how long something may be in the log that this server does not have";
    registry.register_with_unit("log_lag", help, Unit::Seconds, ConstGauge::new(shown.behind.as_secs_f64()));
    let bytes = [
        ("log_size", "Size of the records that the snapshot of the log does not contain", shown.log_bytes),
        ("database_size", "Size of the database with everything in it", shown.room.map(|room| room.size)),
        ("database_used", "The part of it that is in use", shown.room.and_then(|room| room.used)),
        ("database_quota", "The size at which it accepts no more", shown.room.and_then(|room| room.quota)),
    ];
    for (name, help, value) in bytes {
        let Some(value) = value else { continue };
        registry.register_with_unit(name, help, Unit::Bytes, gauge(value));
    }
    let counters = [
        ("takeovers", "How often this server has begun to lead", shown.took_over),
        ("reigns_lost", "How often it has led no more without having handed over", shown.lost),
        ("log_appends", "Batches that this server has appended to the shared log", shown.appends),
        ("log_appended_bytes", "Bytes of these batches", shown.appended_bytes),
        ("log_beats", "Signs that this server has given as the leader without an append", shown.beats),
    ];
    for (name, help, value) in counters {
        registry.register(name, help, ConstCounter::new(value));
    }
}

/// How far each server is behind, as the leader knows it.
#[derive(Debug)]
struct Lags(Shown);

impl Collector for Lags {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let named = self.0.named_servers();
        let help = "Records in the log that this server did not have when it said so last";
        let mut family = encoder.encode_descriptor("server_lag_records", help, None, MetricType::Gauge)?;
        for (name, server) in &named {
            let lag = self.0.head.saturating_sub(server.note.applied);
            gauge(lag).encode(family.encode_family(&[("server", name.as_str())])?)?;
        }
        let help = "For how long something may be in the log that this server does not have";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("server_lag", help, unit, MetricType::Gauge)?;
        for (name, server) in &named {
            let Some(behind) = server.behind() else { continue };
            let behind = ConstGauge::new(behind.as_secs_f64());
            behind.encode(family.encode_family(&[("server", name.as_str())])?)?;
        }
        Ok(())
    }
}

/// Answers `/metrics` while another server leads.
pub(super) struct OwnMetrics {
    access: Live,
    register: MoreMetrics,
}

impl OwnMetrics {
    /// Behind a guard that checks passwords, certificates and the access file. Tokens are in the store.
    pub fn guarded(around: &Surroundings) -> Arc<dyn Handler> {
        let Surroundings { settings, access, browsers, .. } = around;
        let (door, log, shared) = (around.door.figures.clone(), Arc::clone(&around.log), Arc::clone(&around.shared));
        let register = move |registry: &mut Registry| {
            door.register(registry);
            log(registry);
            shared(registry);
        };
        let own = Self { access: access.clone(), register: Arc::new(register) };
        let guard = Guard::new(&settings.proof(), routes::access, Arc::new(own));
        Arc::new(NoTokens(guard.with_access(access.clone()).with_browsers(browsers.clone())))
    }

    fn answer(&self, request: &Request) -> Response {
        if let Err(why) = self.access.caller(request.identity.as_ref()).check_everywhere(Right::Metrics) {
            return routes::refused(Code::Forbidden, why);
        }
        let format = Format::accepted(request.header("accept"));
        match metrics::text(|registry| (self.register)(registry), format) {
            Ok(body) => {
                let headers = vec![("content-type", format.content_type().to_owned())];
                Response { headers, ..Response::new(200, body.into_bytes()) }
            }
            Err(_) => routes::refused(Code::Internal, "the metrics cannot be written"),
        }
    }
}

impl Handler for OwnMetrics {
    fn admit<'a>(&'a self, _: &'a mut Request) -> Admitting<'a> {
        Box::pin(std::future::ready(Ok(super::http::Admission::Client)))
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        Box::pin(std::future::ready(Response { route: Some("/metrics"), ..self.answer(request) }))
    }

    fn left(&self, _: ParkId) {}
}

/// The guard of a server that follows: it cannot check tokens, and says so.
struct NoTokens(Guard);

impl Handler for NoTokens {
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a> {
        if request.own_token().or(request.signed_token()).is_none() {
            return self.0.admit(request);
        }
        let why = "this server follows another one, and checks no tokens for its metrics: use a user and a password, or a \
                   client certificate";
        Box::pin(std::future::ready(Err(routes::refused(Code::Unauthorized, why))))
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        self.0.handle(request)
    }

    fn left(&self, park: ParkId) {
        self.0.left(park);
    }
}
