//! The agent and its state: `run` is its loop, `act` its look at one latch.

use std::sync::Arc;
use std::time::Duration;

use super::backlog::Backlog;
use super::cluster::Cluster;
use crate::client::interruptible::Interruptible;
use crate::client::latches::LatchClient;
use crate::core::latch::Namespace;
use crate::env::{Clock, Signals, random_bytes};
use crate::wire::errors::exit;
use crate::wire::escape::cut;

/// The agent's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time between two full listings. Also the longest pause for a latch that was released too early.
    pub interval: Duration,
    /// How long a workflow may be missing before the agent gives its latch up.
    pub gone_after: Duration,
    /// Only latches of these namespaces. Empty: all.
    pub namespaces: Vec<Namespace>,
    /// Make one pass, then end.
    pub once: bool,
    /// Change and delete nothing.
    pub dry_run: bool,
}

/// The agent.
pub struct Agent {
    pub settings: Settings,
    pub latches: LatchClient,
    pub cluster: Cluster,
    pub clock: Arc<dyn Clock>,
    pub signals: Signals,
}

/// A running agent and its state.
pub(super) struct Worker {
    pub agent: Agent,
    pub interruptible: Interruptible,
    pub backlog: Backlog,
    /// The revision up to which releases are known, if the server supports that.
    pub after: Option<u64>,
    pub next_listing: Duration,
    pub listing_failures: u32,
    pub last_failure: String,
    pub exit: u8,
}

impl Worker {
    pub fn new(agent: Agent) -> Self {
        Self {
            interruptible: Interruptible::new(&agent.signals),
            agent,
            backlog: Backlog::default(),
            after: None,
            next_listing: Duration::ZERO,
            listing_failures: 0,
            last_failure: String::new(),
            exit: exit::OK,
        }
    }
}

/// The part of a latch's id that a log line may show. The whole id grants the right to release.
pub(super) fn short(id: &str) -> &str {
    cut(id, 8)
}

pub(super) fn random() -> u8 {
    let [byte] = random_bytes::<1>();
    byte
}
