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
//! [`listen`] opens the socket, [`logs`] writes the log, [`audit`] its lines about grants and holds.

pub mod audit;
pub mod auth;
pub mod blocking;
pub mod build_watch;
pub mod door;
pub mod engine;
pub mod events;
pub mod history;
pub mod http;
pub mod import;
pub mod limits;
pub mod listen;
pub mod logs;
pub mod long_polls;
pub mod metrics;
mod nearest;
pub mod notices;
pub mod notify;
mod openapi;
pub mod pager;
pub mod pages;
pub mod routes;
pub mod secret_file;
pub mod views;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use prometheus_client::registry::Registry;

use self::auth::access::Live;
use self::auth::browsers::Browsers;
use self::auth::idtoken::issuers::{Patience, Trusted};
use self::auth::idtoken::shown::Builds;
use self::auth::refusals::Refusals;
use self::auth::sessions::Sessions;
use self::auth::tokens::Tokens;
use self::auth::{Guard, Proof};
use self::build_watch::BuildWatch;
use self::build_watch::settings::WatchSettings;
use self::door::{DoorFigures, DoorSettings, Stop, Tls, TlsSettings};
use self::engine::figures::EngineFigures;
use self::engine::{Engine, Listeners};
use self::events::Events;
use self::listen::Bound;
use self::logs::LogSettings;
use self::long_polls::LongPolls;
use self::notices::Notices;
use self::notify::Notify;
use self::routes::contracts::ContractRoutes;
use crate::core::settings::Settings;
use crate::core::time::WallMs;
use crate::env::Env;
use crate::store;
use crate::wire::contracts::{Contracts, UnlockMissing};
use crate::wire::errors::Code;
use crate::wire::secret::Secret;

/// How long requests in flight may take once the store has failed: the process must end within a second.
const FAILED_GRACE: Duration = Duration::from_millis(200);

/// The settings of `locker server`.
#[derive(Clone)]
pub struct ServerSettings {
    /// As for [`listen::bind`]. Port 0 picks a free port.
    pub listen: String,
    /// `sqlite:FILE` or `memory:`.
    pub store: String,
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

    /// The first line that the server prints.
    fn first_line(&self, url: &str) -> String {
        let auth = match &self.access {
            Some(path) => format!("rights by the access file {}", path.display()),
            None => self.proof().describe(),
        };
        format!("locker {} listening on {url}, store {}, {auth}", env!("CARGO_PKG_VERSION"), self.store)
    }
}

/// The guard with this access file: its users, the tokens of this engine, and builds with tokens of its issuers, also with
/// those that have expired since a claim of this engine began.
fn by_access(guard: Guard, access: &Live, engine: &Engine) -> Guard {
    let builds = Builds::new(access.trusted(), engine.clone());
    guard.with_access(access.clone()).with_tokens(Tokens::new(engine.clone())).with_builds(Arc::new(builds))
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
    let results = [tls, watch.map(drop), notify.map(drop), settings.open_access(env).map(drop)];
    let faults = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    (faults, warnings)
}

/// Serves until SIGTERM or SIGINT, then shuts down in order. A second signal ends the process at once.
///
/// # Errors
/// The server cannot start (the message says what to do), or the store has failed.
pub fn run(settings: ServerSettings, env: &mut Env<'_>) -> anyhow::Result<()> {
    let log = logs::start(settings.log);
    let proof = settings.proof();
    let (tls, warnings) = settings.tls.clone().map(Tls::open).transpose()?.unzip();
    let builds = BuildWatch::open(&settings.watch, &env.vars, Arc::clone(&env.clock)).map_err(anyhow::Error::msg)?;
    let notify = Notify::open(settings.notify.as_deref())?;
    let access = settings.open_access(env)?;
    let is_guarded = proof.is_required() || access.is_on();
    let bound = listen::bind(&settings.listen, is_guarded || settings.no_auth, tls.is_some())?;
    let Bound { listener, url, file: _socket_file } = bound;
    let store = store::open(&settings.store)?;
    let (notices, long_polls, stop) = (Notices::default(), LongPolls::default(), Stop::new());
    let ready = Arc::new(AtomicBool::new(true));
    let failure: Arc<std::sync::Mutex<Option<anyhow::Error>>> = Arc::default();
    let on_failure = {
        let (ready, failure, stop) = (Arc::clone(&ready), Arc::clone(&failure), stop.clone());
        move |error: anyhow::Error| {
            tracing::error!(error = format!("{error:#}"), "the store has failed: the server is going down");
            ready.store(false, Ordering::SeqCst);
            *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            stop.trigger(FAILED_GRACE);
        }
    };
    let (audit, audit_thread) = audit::start().context("cannot start the audit log")?;
    let mut imported = None;
    let (engine, engine_thread) = engine::start_with(
        store,
        settings.rules.clone(),
        Arc::clone(&env.clock),
        Listeners {
            notices: notices.clone(),
            long_polls: long_polls.clone(),
            figures: EngineFigures::new(settings.metric_pools),
            audit,
            notify: notify.bell.clone(),
        },
        |state, now| {
            let Some(file) = &settings.locker_config else { return Ok(()) };
            imported = Some(import::locker_state(file, state, now)?);
            Ok(())
        },
        on_failure,
    )
    .with_context(|| format!("cannot start on store {}", settings.store))?;
    let health = move || if ready.load(Ordering::SeqCst) { Ok(()) } else { Err(Code::StoreFailed) };
    routes::contracts::lockd::left_behind(&engine.snapshot()).into_iter().for_each(|end| engine.post(end));
    let contracts = ContractRoutes::new(settings.contracts.clone(), settings.lockd_unlock_missing);
    let figures = DoorFigures::new(tls.as_deref());
    let (sessions, refusals) = (Sessions::new(tls.is_some(), proof.basic.is_some()), Refusals::default());
    let metrics = {
        let (door, log, file) = (figures.clone(), log.metrics(), store::file(&settings.store));
        let (notify, clock) = (notify.figures.clone(), Arc::clone(&env.clock));
        let clients = of_clients(long_polls.events(), &sessions, &refusals, &access);
        move |registry: &mut Registry| {
            notify.register(registry, WallMs(clock.wall_ms()));
            clients(registry);
            door.register(registry);
            log(registry);
            metrics::store_size(file.as_deref(), registry);
        }
    };
    let waker = long_polls.events().start(notices.clone()).context("cannot start the thread for events")?;
    let routes = routes::Routes::new(engine.clone(), long_polls, Arc::new(health))
        .with_sessions(sessions.clone())
        .with_access(access.clone())
        .with_contracts(contracts)
        .with_builds(builds.clone())
        .with_metrics(Arc::new(metrics));
    let loopback_only = !is_guarded && listener.is_loopback();
    let browsers = Browsers { allowed_hosts: settings.allowed_hosts.clone(), loopback_only };
    let guard = by_access(Guard::new(&proof, routes::access, Arc::new(routes)), &access, &engine);
    let handler = Arc::new(guard.with_browsers(browsers).with_sessions(sessions).with_refusals(refusals));
    stop_on_signals(env, stop.clone(), settings.grace);
    settings.survive_hangup()?;
    let first = settings.first_line(&url);
    let now = WallMs(env.clock.wall_ms());
    for line in std::iter::once(first).chain(imported.map(|imported| imported.to_string())) {
        writeln!(env.stderr, "{}", settings.log.format.line("INFO", &line, now))?;
    }
    warnings.iter().flatten().chain(&settings.warnings).for_each(|warning| tracing::warn!("{warning}"));
    access.keep_fresh(stop.clone()).context("cannot watch the access file")?;
    builds.start(&settings.watch, &engine).context("cannot start the build watch")?;
    let notifying = notify.start(&engine, &settings.store, &env.vars, Arc::clone(&env.clock))?;
    let door = DoorSettings { tls, figures, ..settings.door.clone() };
    let served = door::serve(listener, handler, notices, door, stop);
    drop(waker);
    drop(notifying);
    builds.stop();
    engine.stop();
    if engine_thread.join().is_err() {
        bail!("the engine has panicked: this is a bug in locker; nothing was acknowledged after the panic");
    }
    audit_thread.finish();
    let failed = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match failed {
        Some(error) => Err(error.context(format!(
            "store {} has failed; nothing was acknowledged after that; repair it and start again",
            settings.store
        ))),
        None => served,
    }
}

/// Registers who follows, who is signed in, who is refused, and whose id tokens count.
fn of_clients(
    events: &Events,
    sessions: &Sessions,
    refusals: &Refusals,
    access: &Live,
) -> impl Fn(&mut Registry) + use<> {
    let (events, sessions) = (events.clone(), sessions.clone());
    let (refusals, trusted) = (refusals.clone(), access.trusted());
    move |registry| {
        metrics::of_pages(events.count(), sessions.count(Instant::now()), registry);
        refusals.register(registry);
        metrics::of_issuers(trusted.now().report(), registry);
    }
}

/// The first signal stops the door in order, a second one at once.
fn stop_on_signals(env: &Env<'_>, stop: Stop, grace: Duration) {
    let seen = AtomicBool::new(false);
    env.signals
        .on_signal(move |_| stop.trigger(if seen.swap(true, Ordering::SeqCst) { Duration::ZERO } else { grace }));
}
