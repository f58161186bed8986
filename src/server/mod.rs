//! `locker server`: the coordinator.
//!
//! The path from a client's bytes to a decision and back, in reading order:
//! 1. [`door`] handles client sockets: it reads whole requests and parks those that wait.
//! 2. [`auth`] decides which requests are admitted.
//! 3. [`routes`] turn a request value into a command, await the reply of the engine, and return a response value.
//! 4. [`engine`] owns the state: it steps the core, commits, publishes and answers.
//! 5. [`import`] takes over the state of another server, before the first answer.
//! 6. [`build_watch`] asks Concourse whether the builds behind claims are still running, and informs the engine.
//! 7. [`history`] answers questions about what happened, from the store.
//! 8. [`notify`] tells others what happens: chats, webhooks, Concourse.
//! 9. [`notices`], [`long_polls`] and [`events`] wake parked requests.
//!
//! `coordinator` puts together what works on a state. `member` is a server that shares its store with others, and is a
//! coordinator while it leads; `standing` is what it says of itself.
//!
//! [`listen`] opens the socket, [`logs`] writes the log, [`audit`] its lines about grants and holds.

pub mod audit;
pub mod auth;
pub mod blocking;
pub mod build_watch;
mod coordinator;
pub mod door;
pub mod engine;
pub mod events;
pub mod history;
pub mod http;
pub mod import;
pub mod limits;
pub mod link;
pub mod listen;
pub mod logs;
pub mod long_polls;
mod member;
pub mod metrics;
mod nearest;
pub mod notices;
pub mod notify;
mod openapi;
pub mod pager;
pub mod pages;
pub mod routes;
pub mod secret_file;
mod standing;
pub mod views;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use self::auth::Proof;
use self::auth::access::Live;
use self::auth::browsers::Browsers;
use self::auth::idtoken::issuers::{Patience, Trusted};
use self::build_watch::BuildWatch;
use self::build_watch::settings::WatchSettings;
use self::coordinator::{Coordinator, Surroundings};
use self::door::{DoorFigures, DoorSettings, Stop, Tls, TlsSettings};
use self::http::Handler;
use self::listen::Bound;
use self::logs::LogSettings;
use self::notices::Notices;
use self::notify::Notify;
use crate::core::names::NamePattern;
use crate::core::settings::Settings;
use crate::core::time::{Span, WallMs};
use crate::env::Env;
use crate::store;
use crate::wire::contracts::{Contracts, UnlockMissing};
use crate::wire::secret::Secret;
use crate::wire::text::show_span;

/// How long requests in flight may take once the store has failed: the process must end within a second.
const FAILED_GRACE: Duration = Duration::from_millis(200);
/// How long an orderly end may take after the second signal.
const SECOND_SIGNAL: Duration = Duration::from_secs(2);
/// How long the last line of the log may take.
const LAST_LINE: Duration = Duration::from_millis(200);

/// The settings of `locker server`.
#[derive(Clone)]
pub struct ServerSettings {
    /// As for [`listen::bind`]. Port 0 picks a free port.
    pub listen: String,
    /// `sqlite:FILE` or `memory:`, or the address of a log that several servers share.
    pub store: String,
    /// What only a server on a shared log uses.
    pub membership: MemberSettings,
    pub rules: Settings,
    pub door: DoorSettings,
    /// How long requests in flight may take after SIGTERM.
    pub grace: Duration,
    /// The user and password of HTTP Basic.
    pub auth: Option<(String, Secret)>,
    /// The file that says who may do what.
    pub access: Option<PathBuf>,
    /// Warnings for the operator. Logged once the server listens.
    pub warnings: Vec<String>,
    /// An explicit `--no-auth`: serve without authentication on an address that others can reach.
    pub no_auth: bool,
    /// More names of this server, as in [`Browsers::allowed_hosts`].
    pub allowed_hosts: Vec<String>,
    /// The APIs of other servers that are served.
    pub contracts: Contracts,
    /// How lockd's `DELETE` answers when the lock was not locked.
    pub lockd_unlock_missing: UnlockMissing,
    /// The state file of an original locker. Imported if the store is empty; never written.
    pub locker_config: Option<PathBuf>,
    /// Certificates. Without them the server speaks plain HTTP. They go into [`DoorSettings::tls`] at start.
    pub tls: Option<TlsSettings>,
    pub log: LogSettings,
    /// Most pools that have metrics of their own.
    pub metric_pools: usize,
    /// Which builds are watched, and how.
    pub watch: WatchSettings,
    /// The file of targets that are notified.
    pub notify: Option<PathBuf>,
}

/// The settings of a server that shares its store with others.
#[derive(Debug, Clone)]
pub struct MemberSettings {
    /// Where other servers reach this one while it leads, if not at the address on which it listens for them.
    pub advertise: Option<String>,
    /// Where it listens for servers that follow. `None`: they cannot pass requests on to it.
    pub link: Option<String>,
    /// How long the leader may give no sign before another server takes over.
    pub failover: Span,
    /// The directory for its copy of the log.
    pub cache: PathBuf,
    /// Whether the leader compacts the etcd, because nobody else uses it.
    pub etcd_compact: bool,
    /// Testing only: the planted bug of its log.
    #[cfg(feature = "plant")]
    pub plant: Option<crate::store::log::plant::Plant>,
}

impl MemberSettings {
    /// The shortest ttl of a lease: a change of leaders takes a span and a few seconds, and two of three renewals may get no
    /// answer because of one.
    #[must_use]
    pub fn least_lease(&self) -> Span {
        Span(3 * (self.failover.0 + 4_000))
    }
}

impl ServerSettings {
    /// What a client must prove.
    fn proof(&self) -> Proof {
        let certificate = self.tls.as_ref().and_then(TlsSettings::client_auth);
        Proof { basic: self.auth.clone(), certificate }
    }

    /// Without TLS there may be nothing to read again on SIGHUP; units that reload with it must not end the server.
    fn survive_hangup(&self) -> anyhow::Result<()> {
        if self.tls.is_none() {
            signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).context("cannot ignore SIGHUP")?;
        }
        Ok(())
    }

    /// The access file, if there is one. Its issuers are trusted.
    fn open_access(&self, env: &Env<'_>) -> anyhow::Result<Live> {
        let Some(path) = &self.access else { return Ok(Live::default()) };
        let other_user = self.auth.as_ref().map(|(user, _)| user.clone());
        let trusted = Trusted::new(env.vars.clone(), Arc::clone(&env.clock), Patience::default());
        Live::open_with(path.clone(), other_user, trusted).map_err(anyhow::Error::msg)
    }

    /// The settings that must be the same on all servers of one store, by the names of their flags.
    fn equal_rules(&self) -> BTreeMap<String, String> {
        let Settings { listen, grace, place, confirm, drain, lease, memory, history_age, .. } = self.rules;
        let spans = [
            ("--listen-window", listen),
            ("--grace", grace),
            ("--place", place),
            ("--confirm", confirm),
            ("--drain", drain),
            ("--lease", lease),
            ("--memory", memory),
            ("--history-age", history_age),
        ];
        let patterns: Vec<&str> = self.rules.claims_make.iter().map(NamePattern::as_str).collect();
        let texts = [
            ("--history-size", self.rules.history_bytes.to_string()),
            ("--declared-only", self.rules.declared_only.to_string()),
            ("--claims-make", patterns.join(",")),
            ("--contracts", self.contracts.to_string()),
            ("--lockd-unlock-missing", self.lockd_unlock_missing.status().to_string()),
        ];
        let spans = spans.map(|(name, span)| (name, show_span(span)));
        spans.into_iter().chain(texts).map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// The first line that the server prints.
    fn first_line(&self, url: &str) -> String {
        let auth = match &self.access {
            Some(path) => format!("rights by the access file {}", path.display()),
            None => self.proof().describe(),
        };
        format!("locker {} listening on {url}, store {}, {auth}", env!("CARGO_PKG_VERSION"), self.store)
    }
}

/// What keeps these settings from being used, and what somebody should look at. It reads what a start reads, and opens neither
/// the address nor the store, which a running server has.
#[must_use]
pub fn check(settings: &ServerSettings, env: &Env<'_>) -> (Vec<String>, Vec<String>) {
    let mut warnings = settings.warnings.clone();
    let tls = settings.tls.clone().map(Tls::open).transpose().map(|opened| {
        warnings.extend(opened.map(|(_, warnings)| warnings).unwrap_or_default());
    });
    let watch = BuildWatch::open(&settings.watch, &env.vars, Arc::clone(&env.clock)).map_err(anyhow::Error::msg);
    let notify = Notify::open(settings.notify.as_deref()).map_err(anyhow::Error::from);
    let store = store::check(&settings.store);
    let results = [store, tls, watch.map(drop), notify.map(drop), settings.open_access(env).map(drop)];
    let faults = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    (faults, warnings)
}

/// Serves until SIGTERM or SIGINT, then shuts down in order. A second signal ends the process within
/// seconds.
///
/// # Errors
/// The server cannot start (the message says what to do), or the store has failed.
pub fn run(settings: ServerSettings, env: &mut Env<'_>) -> anyhow::Result<()> {
    let log = logs::start(settings.log);
    let (tls, warnings) = settings.tls.clone().map(Tls::open).transpose()?.unzip();
    // Their faults are found before anything is opened.
    store::check(&settings.store)?;
    BuildWatch::open(&settings.watch, &env.vars, Arc::clone(&env.clock)).map_err(anyhow::Error::msg)?;
    Notify::open(settings.notify.as_deref())?;
    let access = settings.open_access(env)?;
    let is_guarded = settings.proof().is_required() || access.is_on();
    let bound = listen::bind(&settings.listen, is_guarded || settings.no_auth, tls.is_some())?;
    let Bound { listener, url, file: _socket_file } = bound;
    let loopback_only = !is_guarded && listener.is_loopback();
    let stop = Stop::new();
    let around = Surroundings {
        vars: env.vars.clone(),
        clock: Arc::clone(&env.clock),
        access: access.clone(),
        notices: Notices::default(),
        door: DoorSettings { figures: DoorFigures::new(tls.as_deref()), tls, ..settings.door.clone() },
        log: Arc::new(log.metrics()),
        shared: Arc::new(|_| ()),
        standing: None,
        browsers: Browsers { allowed_hosts: settings.allowed_hosts.clone(), loopback_only },
        settings,
    };
    let settings = &around.settings;
    let failure = Failure::new(&stop);
    let own = match member::Member::open(&around, &failure, &stop)? {
        Some(member) => Own::Shared(member),
        None => {
            let store = store::open(&settings.store)?;
            Own::Alone(Box::new(Coordinator::start(store, None, &around, failure.on_store(&settings.store))?))
        }
    };
    stop_on_signals(env, stop.clone(), settings.grace);
    settings.survive_hangup()?;
    let first = settings.first_line(&url);
    let now = WallMs(env.clock.wall_ms());
    for line in std::iter::once(first).chain(own.imported()) {
        writeln!(env.stderr, "{}", settings.log.format.line("INFO", &line, now))?;
    }
    warnings.iter().flatten().chain(&settings.warnings).for_each(|warning| tracing::warn!("{warning}"));
    access.keep_fresh(stop.clone()).context("cannot watch the access file")?;
    let served = door::serve(listener, own.handler(), around.notices.clone(), around.door.clone(), stop);
    own.stop()?;
    match failure.take() {
        Some(error) => Err(error),
        None => served,
    }
}

/// What answers behind the door.
enum Own {
    /// The only server on its store.
    Alone(Box<Coordinator>),
    /// One of several.
    Shared(member::Member),
}

impl Own {
    fn handler(&self) -> Arc<dyn Handler> {
        match self {
            Self::Alone(coordinator) => Arc::clone(&coordinator.handler),
            Self::Shared(member) => member.handler(),
        }
    }

    fn imported(&self) -> Option<String> {
        match self {
            Self::Alone(coordinator) => coordinator.imported.as_ref().map(ToString::to_string),
            Self::Shared(_) => None,
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Alone(coordinator) => coordinator.stop(),
            Self::Shared(member) => member.stop(),
        }
    }
}

/// Why the server goes down, once it does.
#[derive(Clone)]
struct Failure {
    error: Arc<Mutex<Option<anyhow::Error>>>,
    stop: Stop,
}

impl Failure {
    fn new(stop: &Stop) -> Self {
        Self { error: Arc::default(), stop: stop.clone() }
    }

    /// Takes the server down because this store of its own has failed.
    fn on_store(&self, store: &str) -> impl FnOnce(anyhow::Error) + Send + use<> {
        let (this, store) = (self.clone(), store.to_owned());
        move |error| {
            tracing::error!(error = format!("{error:#}"), "the store has failed: the server is going down");
            this.down(error.context(format!(
                "store {store} has failed; nothing was acknowledged after that; repair it and start again"
            )));
        }
    }

    fn down(&self, error: anyhow::Error) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.stop.trigger(FAILED_GRACE);
    }

    fn take(&self) -> Option<anyhow::Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The first signal stops the door in order. A second one stops it at once, and ends the process soon, whatever that waits
/// for: a disk may hang.
fn stop_on_signals(env: &Env<'_>, stop: Stop, grace: Duration) {
    let seen = AtomicBool::new(false);
    env.signals.on_signal(move |_| {
        let is_first = !seen.swap(true, Ordering::SeqCst);
        stop.trigger(if is_first { grace } else { Duration::ZERO });
        if !is_first {
            std::thread::spawn(|| {
                std::thread::sleep(SECOND_SIGNAL);
                tracing::error!(
                    "this server has been told twice to stop, and still waits for its disk or its database: it ends now; \
                     nothing that was acknowledged is lost"
                );
                // The line is written by another thread.
                std::thread::sleep(LAST_LINE);
                std::process::exit(1);
            });
        }
    });
}
