//! The text of `/metrics`: what the parts of the server have counted, and how its pools are at this moment.
//!
//! Counters begin at 0 with each start of the server, as Prometheus expects. A scrape reads one published snapshot, so
//! its figures of pools fit together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text as openmetrics};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::auth::idtoken::issuers::IssuerReport;
use super::engine::Engine;
use super::engine::figures::{Counted, Counts};
use crate::core::pool::{Lock, Pool};
use crate::core::state::{Kept, Snapshot};
use crate::core::time::WallMs;
use crate::store;
use crate::wire::api::{ConcourseState, ConcourseView};

/// The label of all pools that have no metrics of their own. No pool can have this name.
const REST: &str = "/rest";

/// The two formats that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// The format of `OpenMetrics`, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for a client that accepts this.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// The content type of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics as text. `register` adds those of other parts than the engine and the pools.
///
/// Takes a time that grows with the number of pools, locks and claims: not for a thread that serves clients.
///
/// # Errors
/// Never in practice: text is written to memory.
pub fn exposition(
    engine: &Engine,
    concourses: Vec<ConcourseView>,
    register: impl FnOnce(&mut Registry),
    format: Format,
) -> Result<String, fmt::Error> {
    let more = |registry: &mut Registry| {
        engine.figures().register(registry);
        let (snapshot, counted) = (engine.snapshot(), engine.figures().pools());
        registry.register_collector(Box::new(Pools::new(&snapshot, &counted, engine.now().wall)));
        registry.register_collector(Box::new(Watches(concourses)));
        registry.register_collector(Box::new(History::new(&snapshot, engine.now().wall)));
        register(registry);
    };
    text(more, format)
}

/// The metrics of the process, and those that `register` adds, as text.
///
/// # Errors
/// Never in practice: text is written to memory.
pub fn text(register: impl FnOnce(&mut Registry), format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("locker");
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The release of the server", version);
    register(&mut registry);
    let mut body = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut body, &registry)?,
        Format::OpenMetrics => openmetrics::encode(&mut body, &registry)?,
    }
    Ok(body)
}

/// Adds how many clients follow events, and how many people are signed in.
pub fn of_pages(followers: usize, sessions: usize, registry: &mut Registry) {
    let mut gauge = |name, help, count: usize| registry.register(name, help, ConstGauge::new(count as u64));
    gauge("event_followers", "Clients that follow events", followers);
    gauge("sessions", "People who are signed in on the web page", sessions);
}

/// Adds how the issuers of id tokens are, by their names in the access file.
pub fn of_issuers(issuers: Vec<IssuerReport>, registry: &mut Registry) {
    registry.register_collector(Box::new(Issuers(issuers)));
}

/// Adds the size of the store's files, if it has any.
pub fn store_size(file: Option<&Path>, registry: &mut Registry) {
    let Some(file) = file else { return };
    let sizes = store::files(file).map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.len()));
    let size = ConstGauge::new(sizes.iter().sum::<u64>());
    registry.register_with_unit("store_size", "Size of the files of the store", Unit::Bytes, size);
}

/// How large the history is.
#[derive(Debug)]
struct History {
    kept: Kept,
    oldest: Duration,
}

impl History {
    fn new(snapshot: &Snapshot, now: WallMs) -> Self {
        let oldest =
            snapshot.pools.values().filter_map(|pool| pool.changes.get_min()).map(|(_, listed)| listed.at).min();
        let oldest = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        Self { kept: snapshot.history, oldest: Duration::from_millis(oldest) }
    }
}

impl Collector for History {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, unit: Option<&Unit>, value: f64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
        };
        #[expect(clippy::cast_precision_loss, reason = "nobody counts so many entries to the last one")]
        gauge("history_entries", "Entries of the history that are kept", None, self.kept.entries as f64)?;
        let help = "Size of the history that is kept, as --history-size counts it";
        #[expect(clippy::cast_precision_loss, reason = "nobody counts so many bytes to the last one")]
        gauge("history_size", help, Some(&Unit::Bytes), self.kept.bytes as f64)?;
        let help = "Age of the oldest entry of the history of a pool, else 0";
        gauge("history_oldest", help, Some(&Unit::Seconds), self.oldest.as_secs_f64())
    }
}

/// How a pool is now.
#[derive(Debug, Default)]
struct State {
    free: u64,
    held: u64,
    draining: u64,
    quarantined: u64,
    waiting: u64,
    oldest_wait: Duration,
    oldest_hold: Duration,
}

impl State {
    /// Adds another pool, for the sum of the rest.
    fn add(&mut self, pool: &Pool, snapshot: &Snapshot, now: WallMs) {
        let age = |since: WallMs| Duration::from_millis(now.0.saturating_sub(since.0));
        for lock in pool.locks.values() {
            *self.of_state(lock) += 1;
        }
        self.waiting += pool.waiting.len() as u64;
        self.oldest_wait = self.oldest_wait.max(snapshot.oldest_wait(pool).map_or(Duration::ZERO, age));
        self.oldest_hold = self.oldest_hold.max(snapshot.oldest_hold(pool).map_or(Duration::ZERO, age));
    }

    fn of_state(&mut self, lock: &Lock) -> &mut u64 {
        // As the API shows it: a lock that is put out of service while it is held stays held until its end.
        if !lock.holders.is_empty() {
            &mut self.held
        } else if lock.quarantine.is_some() {
            &mut self.quarantined
        } else if lock.drain.is_some() {
            &mut self.draining
        } else {
            &mut self.free
        }
    }
}

/// One pool with metrics of its own, or the rest.
#[derive(Debug)]
struct Row {
    pool: String,
    state: State,
    counts: Arc<Counts>,
}

/// The metrics of all pools, by name.
#[derive(Debug)]
struct Pools(Vec<Row>);

impl Pools {
    fn new(snapshot: &Snapshot, counted: &Counted, now: WallMs) -> Self {
        let mut rows = Vec::new();
        let mut rest = State::default();
        for (name, pool) in &snapshot.pools {
            match counted.own.get(name) {
                Some(counts) => {
                    let mut state = State::default();
                    state.add(pool, snapshot, now);
                    rows.push(Row { pool: name.to_string(), state, counts: Arc::clone(counts) });
                }
                None => rest.add(pool, snapshot, now),
            }
        }
        if rows.len() < snapshot.pools.len() {
            rows.push(Row { pool: REST.to_owned(), state: rest, counts: Arc::clone(&counted.rest) });
        }
        Self(rows)
    }

    /// One gauge of each pool.
    fn gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<&Unit>),
        of: impl Fn(&State) -> f64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for row in &self.0 {
            ConstGauge::new(of(&row.state)).encode(family.encode_family(&[("pool", row.pool.as_str())])?)?;
        }
        Ok(())
    }

    fn locks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Locks by state: free, held, draining or quarantined";
        let mut family = encoder.encode_descriptor("pool_locks", help, None, MetricType::Gauge)?;
        for Row { pool, state, .. } in &self.0 {
            let states = [
                ("free", state.free),
                ("held", state.held),
                ("draining", state.draining),
                ("quarantined", state.quarantined),
            ];
            for (word, count) in states {
                let labels = [("pool", pool.as_str()), ("state", word)];
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn ends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Claims that have ended, by how";
        let mut family = encoder.encode_descriptor("pool_ends", help, None, MetricType::Counter)?;
        for row in &self.0 {
            for (how, count) in row.counts.ends() {
                let labels = [("pool", row.pool.as_str()), ("how", how)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// One metric that is counted for each pool.
    fn counted(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<&Unit>),
        of: impl Fn(&Counts) -> &dyn EncodeMetric,
    ) -> fmt::Result {
        let Some(kind) = self.0.first().map(|row| of(&row.counts).metric_type()) else { return Ok(()) };
        let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
        for row in &self.0 {
            of(&row.counts).encode(family.encode_family(&[("pool", row.pool.as_str())])?)?;
        }
        Ok(())
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, seconds) = (&mut encoder, Some(&Unit::Seconds));
        self.locks(encoder)?;
        #[expect(clippy::cast_precision_loss, reason = "nobody has so many waiters")]
        self.gauge(encoder, ("pool_waiting", "Claims that wait", None), |state| state.waiting as f64)?;
        let oldest = ("pool_oldest_wait", "How long the claim that waits longest has waited, else 0", seconds);
        self.gauge(encoder, oldest, |state| state.oldest_wait.as_secs_f64())?;
        let oldest = ("pool_oldest_hold", "How long the claim that holds longest has held, else 0", seconds);
        self.gauge(encoder, oldest, |state| state.oldest_hold.as_secs_f64())?;
        self.counted(encoder, ("pool_grants", "Claims that got their locks", None), |counts| &counts.grants)?;
        self.ends(encoder)?;
        let waits = ("pool_wait", "How long claims had waited when they got their locks", seconds);
        self.counted(encoder, waits, |counts| &counts.waits)?;
        let holds = ("pool_hold", "How long holds had lasted when they ended", seconds);
        self.counted(encoder, holds, |counts| &counts.holds)
    }
}

/// The metrics of the build watch, by Concourse.
#[derive(Debug)]
struct Watches(Vec<ConcourseView>);

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, of: fn(&ConcourseView) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for view in &self.0 {
                ConstGauge::new(of(view)).encode(family.encode_family(&[("concourse", view.url.as_str())])?)?;
            }
            fmt::Result::Ok(())
        };
        gauge("concourse_up", "Whether the last question to this Concourse was answered", |view| {
            u64::from(view.state == ConcourseState::Ok)
        })?;
        gauge("builds_watched", "Builds that this Concourse is asked about", |view| view.watched as u64)?;
        gauge("builds_suspect", "Builds whose state is unknown: their holds stay", |view| view.suspects as u64)
    }
}

/// The metrics of the issuers of id tokens.
#[derive(Debug)]
struct Issuers(Vec<IssuerReport>);

impl Collector for Issuers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, of: fn(&IssuerReport) -> i64| {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for issuer in &self.0 {
                ConstGauge::new(of(issuer)).encode(family.encode_family(&[("issuer", issuer.name.as_str())])?)?;
            }
            fmt::Result::Ok(())
        };
        gauge("issuer_keys", "Keys of this issuer of id tokens that are known", None, |issuer| {
            i64::try_from(issuer.keys).unwrap_or(i64::MAX)
        })?;
        let help = "When the keys of this issuer were fetched, since 1970; 0 if never";
        gauge("issuer_fetched", help, Some(&Unit::Seconds), |issuer| issuer.fetched.unwrap_or_default())?;
        gauge("issuer_failures", "How many fetches of its keys in a row have failed", None, |issuer| {
            i64::from(issuer.failures)
        })
    }
}
