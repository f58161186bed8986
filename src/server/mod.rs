//! `locker server`: the coordinator.
//!
//! From a client's bytes to a decision and back, in reading order:
//! 1. [`door`] ends client sockets, reads whole requests, parks those that wait.
//! 2. `inner` is `tiny_http` behind the door: it calls a [`http::Handler`].
//! 3. [`auth`] and [`routes`] are such handlers: a request value in, a response value out.
//! 4. [`engine`] owns the truth: it steps the core, commits, publishes, answers.
//! 5. [`import`] takes over what another server left, before the first answer.
//! 6. [`notices`] and [`watchers`] tell parked requests to try again.

pub mod auth;
pub mod door;
pub mod engine;
pub mod http;
pub mod import;
mod inner;
pub mod notices;
pub mod openapi;
pub mod routes;
pub mod views;
pub mod watchers;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use self::auth::BasicAuth;
use self::door::{DoorSettings, Stop};
use self::http::Handler;
use self::notices::Notices;
use self::routes::contracts::ContractRoutes;
use self::watchers::Watchers;
use crate::core::settings::Settings;
use crate::env::Env;
use crate::store;
use crate::wire::contracts::{Contracts, UnlockMissing};
use crate::wire::errors::Code;
use crate::wire::secret::Secret;

/// How long what is in flight may take once the store has failed: the process must be gone within a second.
const FAILED_GRACE: Duration = Duration::from_millis(200);

/// What `locker server` is told.
#[derive(Clone)]
pub struct ServerSettings {
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// `sqlite:FILE` or `memory:`.
    pub store: String,
    pub rules: Settings,
    pub door: DoorSettings,
    /// Time for requests in flight to end after SIGTERM.
    pub grace: Duration,
    /// Where the private socket may lie, tried first.
    pub runtime_dir: Option<PathBuf>,
    /// User and password of HTTP Basic.
    pub auth: Option<(String, Secret)>,
    /// Said aloud: serve an address that others can reach without authentication.
    pub no_auth: bool,
    /// Which APIs of other servers are served.
    pub contracts: Contracts,
    /// How lockd's `DELETE` answers when the lock was not locked.
    pub lockd_unlock_missing: UnlockMissing,
    /// The state file of an original locker, imported when the store is empty; never written.
    pub locker_config: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT, then ends well; a second signal ends it at once.
///
/// # Errors
/// It cannot start (the message says what to do), or the store has failed.
pub fn run(settings: ServerSettings, env: &mut Env<'_>) -> anyhow::Result<()> {
    let listener = bind(&settings)?;
    let address = listener.local_addr().context("cannot read the address that was bound")?;
    let store = store::open(&settings.store)?;
    let (notices, watchers, stop) = (Notices::default(), Watchers::default(), Stop::new());
    let ready = Arc::new(AtomicBool::new(true));
    let failure: Arc<std::sync::Mutex<Option<anyhow::Error>>> = Arc::default();
    let on_failure = {
        let (ready, failure, stop) = (Arc::clone(&ready), Arc::clone(&failure), stop.clone());
        move |error| {
            ready.store(false, Ordering::SeqCst);
            *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            stop.trigger(FAILED_GRACE);
        }
    };
    let mut imported = None;
    let (engine, engine_thread) = engine::start_with(
        store,
        settings.rules.clone(),
        Arc::clone(&env.clock),
        (notices.clone(), watchers.clone()),
        |state, now| {
            let Some(file) = &settings.locker_config else { return Ok(()) };
            imported = Some(import::locker_state(file, state, now)?);
            Ok(())
        },
        on_failure,
    )
    .with_context(|| format!("cannot start on store {}", settings.store))?;
    let health = move || if ready.load(Ordering::SeqCst) { Ok(()) } else { Err(Code::StoreFailed) };
    let contracts = ContractRoutes::new(settings.contracts.clone(), settings.lockd_unlock_missing);
    let routes = routes::Routes::new(engine.clone(), watchers, Arc::new(health)).with_contracts(contracts);
    let handler = handler(&settings, routes);
    {
        let (stop, grace) = (stop.clone(), settings.grace);
        let seen = AtomicBool::new(false);
        env.signals
            .on_signal(move |_| stop.trigger(if seen.swap(true, Ordering::SeqCst) { Duration::ZERO } else { grace }));
    }
    let auth = if settings.auth.is_some() { "HTTP Basic authentication" } else { "no authentication" };
    let version = env!("CARGO_PKG_VERSION");
    writeln!(env.stderr, "locker {version} listening on http://{address}, store {}, {auth}", settings.store)?;
    if let Some(imported) = imported {
        writeln!(env.stderr, "{imported}")?;
    }
    let served = door::serve(listener, handler, notices, settings.door.clone(), &runtime_dirs(&settings), stop);
    engine.stop();
    if engine_thread.join().is_err() {
        bail!("the engine has panicked: this is a bug in locker; nothing was acknowledged after it");
    }
    let failed = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match failed {
        Some(error) => Err(error.context(format!(
            "store {} has failed: nothing was acknowledged since; repair it and start again",
            settings.store
        ))),
        None => served,
    }
}

fn handler(settings: &ServerSettings, routes: routes::Routes) -> Arc<dyn Handler> {
    match &settings.auth {
        Some((user, password)) => Arc::new(BasicAuth::new(user, password.expose(), Arc::new(routes))),
        None => Arc::new(routes),
    }
}

/// Binds the address, unless strangers could reach it unguarded.
fn bind(settings: &ServerSettings) -> anyhow::Result<TcpListener> {
    let listen = &settings.listen;
    let addresses: Vec<SocketAddr> = listen
        .to_socket_addrs()
        .with_context(|| format!("cannot listen on {listen:?}: give an address such as 127.0.0.1:8910"))?
        .collect();
    let unguarded = settings.auth.is_none() && !settings.no_auth;
    if let Some(open) = addresses.iter().find(|a| unguarded && !a.ip().is_loopback()) {
        bail!(
            "refusing to listen on {open} without authentication: set AUTH_USER and AUTH_PASS, \
             listen on 127.0.0.1, or say --no-auth if everybody who can connect may take and release locks"
        );
    }
    TcpListener::bind(&addresses[..])
        .with_context(|| format!("cannot listen on {listen}: choose another with --listen"))
}

/// Directories for the private socket, best first: as told, beside the store, the temporary one.
fn runtime_dirs(settings: &ServerSettings) -> Vec<PathBuf> {
    let beside_store = settings.store.strip_prefix("sqlite:").map(|file| {
        let parent = std::path::Path::new(file).parent().filter(|p| !p.as_os_str().is_empty());
        parent.map_or_else(|| PathBuf::from("."), PathBuf::from)
    });
    settings.runtime_dir.iter().cloned().chain(beside_store).chain([std::env::temp_dir()]).collect()
}
