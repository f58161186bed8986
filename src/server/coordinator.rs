//! What a server does while it owns the state: the engine, and everything that works on it.
//!
//! A server with a store of its own is a coordinator from its start to its end. One of several on a shared store is one
//! while it leads ([`super::member`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, bail};
use prometheus_client::registry::Registry;

use super::ServerSettings;
use super::audit::{self, AuditThread};
use super::auth::Guard;
use super::auth::access::Live;
use super::auth::browsers::Browsers;
use super::auth::idtoken::shown::Builds;
use super::auth::refusals::Refusals;
use super::auth::sessions::Sessions;
use super::auth::tokens::Tokens;
use super::build_watch::BuildWatch;
use super::door::DoorSettings;
use super::engine::figures::EngineFigures;
use super::engine::{self, Engine, Listeners};
use super::events::{Events, Waker};
use super::http::Handler;
use super::import::{self, Imported};
use super::long_polls::LongPolls;
use super::metrics;
use super::notices::Notices;
use super::notify::progress::Place;
use super::notify::{Notify, Running};
use super::routes::contracts::{ContractRoutes, lockd};
use super::routes::{self, MoreMetrics, Routes};
use crate::core::time::WallMs;
use crate::env::Clock;
use crate::store::shared::{Reign, Standing};
use crate::store::{self, Store};
use crate::wire::errors::Code;

/// What a coordinator needs of the server around it.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub settings: ServerSettings,
    /// The environment, which may name proxies.
    pub vars: BTreeMap<String, String>,
    pub clock: Arc<dyn Clock>,
    pub access: Live,
    /// Of requests that are parked at the door.
    pub notices: Notices,
    pub door: DoorSettings,
    pub log: MoreMetrics,
    /// What a server on a shared log adds.
    pub shared: MoreMetrics,
    pub standing: Option<Arc<Standing>>,
    pub browsers: Browsers,
}

/// The engine of a state, and what works on it.
pub(super) struct Coordinator {
    pub handler: Arc<dyn Handler>,
    /// What was taken over from the state file of another server.
    pub imported: Option<Imported>,
    engine: Engine,
    engine_thread: JoinHandle<()>,
    audit_thread: AuditThread,
    builds: BuildWatch,
    waker: Option<Waker>,
    notifying: Option<Running>,
}

impl Coordinator {
    /// Loads the state and begins to work on it. `failed` is called once if the store fails.
    ///
    /// # Errors
    /// The store cannot be loaded, or a part cannot be started. Then the store is closed.
    pub fn start(
        store: Box<dyn Store>,
        reign: Option<Arc<Reign>>,
        around: &Surroundings,
        failed: impl FnOnce(anyhow::Error) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let Surroundings { settings, vars, clock, notices, .. } = around;
        let builds = BuildWatch::open(&settings.watch, vars, Arc::clone(clock)).map_err(anyhow::Error::msg)?;
        let notify = Notify::open(settings.notify.as_deref())?;
        let long_polls = LongPolls::default();
        let (audit, audit_thread) = audit::start().context("cannot start the audit log")?;
        let ready = Arc::new(AtomicBool::new(true));
        let on_failure = {
            let ready = Arc::clone(&ready);
            move |error| {
                ready.store(false, Ordering::SeqCst);
                failed(error);
            }
        };
        let listeners = Listeners {
            notices: notices.clone(),
            long_polls: long_polls.clone(),
            figures: EngineFigures::new(settings.metric_pools),
            audit,
            notify: notify.bell.clone(),
        };
        let mut imported = None;
        let import = |state: &mut _, now| {
            let Some(file) = &settings.locker_config else { return Ok(()) };
            imported = Some(import::locker_state(file, state, now)?);
            Ok(())
        };
        let started =
            engine::start_with(store, settings.rules.clone(), Arc::clone(clock), listeners, import, on_failure);
        let (engine, engine_thread) = started.with_context(|| format!("cannot start on store {}", settings.store))?;
        if reign.is_none() {
            // On a shared store, those who wait ask again at this server.
            lockd::left_behind(&engine.snapshot()).into_iter().for_each(|end| engine.post(end));
        }
        let failed = if reign.is_some() { Code::NoLeader } else { Code::StoreFailed };
        let health = move || if ready.load(Ordering::SeqCst) { Ok(()) } else { Err(failed) };
        let routes =
            Routes::new(engine.clone(), long_polls.clone(), Arc::new(health)).with_standing(around.standing.clone());
        let routes = if reign.is_some() { routes.with_least_lease(settings.membership.least_lease()) } else { routes };
        let handler = around.guarded(routes, &engine, &builds, &notify, long_polls.events());
        let (waker, notifying) = (None, None);
        let mut this = Self { handler, imported, engine, engine_thread, audit_thread, builds, waker, notifying };
        let place = match &reign {
            Some(reign) => Place::Log(Box::new(reign.notes())),
            None => store::notify_file(&settings.store).map_or(Place::Nowhere, Place::File),
        };
        match this.start_others(around, &long_polls, &notify, place) {
            Ok(()) => Ok(this),
            // Those that work already have the engine, and with it the store.
            Err(error) => this.stop().and(Err(error)),
        }
    }

    /// Starts what works on the state beside the engine.
    fn start_others(
        &mut self,
        around: &Surroundings,
        long_polls: &LongPolls,
        notify: &Notify,
        place: Place,
    ) -> anyhow::Result<()> {
        let Surroundings { settings, vars, clock, notices, .. } = around;
        let waker = long_polls.events().start(notices.clone()).context("cannot start the thread for events")?;
        self.waker = Some(waker);
        self.builds.start(&settings.watch, &self.engine).context("cannot start the build watch")?;
        self.notifying = notify.start(&self.engine, place, vars, Arc::clone(clock))?;
        Ok(())
    }

    /// Ends everything, after the door has answered. The store is closed when it returns.
    ///
    /// # Errors
    /// The engine has panicked.
    pub fn stop(self) -> anyhow::Result<()> {
        let Self { handler, engine, engine_thread, audit_thread, builds, waker, notifying, .. } = self;
        drop((handler, waker, notifying));
        builds.stop();
        engine.stop();
        if engine_thread.join().is_err() {
            bail!("the engine has panicked: this is a bug in locker; nothing was acknowledged after the panic");
        }
        drop(engine);
        audit_thread.finish();
        Ok(())
    }
}

impl Surroundings {
    /// The routes of an engine behind the guard.
    fn guarded(
        &self,
        routes: Routes,
        engine: &Engine,
        builds: &BuildWatch,
        notify: &Notify,
        events: &Events,
    ) -> Arc<dyn Handler> {
        let Self { settings, access, browsers, .. } = self;
        let proof = settings.proof();
        let (sessions, refusals) = (Sessions::new(settings.tls.is_some(), proof.basic.is_some()), Refusals::default());
        let contracts = ContractRoutes::new(settings.contracts.clone(), settings.lockd_unlock_missing);
        let metrics = {
            let (door, log, file) = (self.door.figures.clone(), Arc::clone(&self.log), store::file(&settings.store));
            let shared = Arc::clone(&self.shared);
            let (notify, clock) = (notify.figures.clone(), Arc::clone(&self.clock));
            let clients = of_clients(events, &sessions, &refusals, access);
            move |registry: &mut Registry| {
                notify.register(registry, WallMs(clock.wall_ms()));
                clients(registry);
                door.register(registry);
                log(registry);
                metrics::store_size(file.as_deref(), registry);
                shared(registry);
            }
        };
        let routes = routes
            .with_sessions(sessions.clone())
            .with_access(access.clone())
            .with_contracts(contracts)
            .with_builds(builds.clone())
            .with_metrics(Arc::new(metrics));
        let guard = by_access(Guard::new(&proof, routes::access, Arc::new(routes)), access, engine);
        Arc::new(guard.with_browsers(browsers.clone()).with_sessions(sessions).with_refusals(refusals))
    }
}

/// The guard with this access file: its users, the tokens of this engine, and builds with tokens of its issuers, also with
/// those that have expired since a claim of this engine began.
fn by_access(guard: Guard, access: &Live, engine: &Engine) -> Guard {
    let builds = Builds::new(access.trusted(), engine.clone());
    guard.with_access(access.clone()).with_tokens(Tokens::new(engine.clone())).with_builds(Arc::new(builds))
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
