//! Engine, routes and door in the process of the test, for tests that control the clock, the store or the handler.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use locker::core::claim::Ended;
use locker::core::history::Outline;
use locker::core::names::{ClaimId, ParkId};
use locker::core::settings::Settings;
use locker::core::state::{Changes, EndedOutline, Loaded};
use locker::env::Clock;
use locker::server::auth::access::Live;
use locker::server::build_watch::BuildWatch;
use locker::server::build_watch::settings::WatchSettings;
use locker::server::door::{self, DoorSettings, Stop};
use locker::server::engine::{self, Engine};
use locker::server::http::{Attempt, Handler, Request, Response};
use locker::server::long_polls::LongPolls;
use locker::server::notices::Notices;
use locker::server::routes::Routes;
use locker::store::memory::MemoryStore;
use locker::store::{Reader, Store};
use locker::wire::errors::Code;

/// What a [`HookedStore`] is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    Commit,
    /// To show that this server leads, with nothing to write.
    Confirm,
}

type Before = Box<dyn FnMut(Touch) -> anyhow::Result<()> + Send>;

/// A store in memory that asks the test first. Its id is `store-1`.
pub struct HookedStore {
    inner: MemoryStore,
    before: Before,
    is_shared: bool,
}

impl HookedStore {
    /// A store that fails on demand, and the flag that makes it fail.
    pub fn failing() -> (Self, Arc<AtomicBool>) {
        let fails = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&fails);
        let before = move |touch| {
            anyhow::ensure!(touch == Touch::Confirm || !flag.load(Ordering::SeqCst), "planned failure");
            Ok(())
        };
        (Self { inner: MemoryStore::new().unwrap(), before: Box::new(before), is_shared: false }, fails)
    }

    /// A store that several servers share, as one of them sees it.
    pub fn shared(before: impl FnMut(Touch) -> anyhow::Result<()> + Send + 'static) -> Self {
        Self { inner: MemoryStore::new().unwrap(), before: Box::new(before), is_shared: true }
    }
}

impl Store for HookedStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.inner.load()
    }
    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.inner.ended(each)
    }
    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.inner.history(each)
    }
    fn reader(&self) -> Arc<dyn Reader> {
        self.inner.reader()
    }
    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        (self.before)(Touch::Commit)?;
        self.inner.commit(changes)
    }
    fn confirm(&mut self) -> anyhow::Result<()> {
        (self.before)(Touch::Confirm)
    }
    fn is_shared(&self) -> bool {
        self.is_shared
    }
    fn store_id(&self) -> &'static str {
        "store-1"
    }
}

/// The engine with a store and a clock from the test, and the routes to it. It knows one Concourse, `https://ci`, but
/// does not ask it about builds.
pub struct House {
    pub routes: Arc<Routes>,
    pub engine: Engine,
    pub notices: Notices,
    /// The server reports that it is shutting down.
    pub going_down: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl House {
    pub fn open(store: Box<dyn Store>, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self::open_with(store, settings, clock, Live::default())
    }

    /// The same with an access file.
    pub fn open_with(store: Box<dyn Store>, settings: Settings, clock: Arc<dyn Clock>, access: Live) -> Self {
        let (notices, long_polls) = (Notices::default(), LongPolls::default());
        let (failed, going_down) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (fail, down) = (Arc::clone(&failed), Arc::clone(&going_down));
        let note = move |_| fail.store(true, Ordering::SeqCst);
        let (engine, thread) =
            engine::start(store, settings, Arc::clone(&clock), notices.clone(), long_polls.clone(), note).unwrap();
        let health = move || match (failed.load(Ordering::SeqCst), down.load(Ordering::SeqCst)) {
            (true, _) => Err(Code::StoreFailed),
            (false, true) => Err(Code::Unavailable),
            (false, false) => Ok(()),
        };
        let known = WatchSettings { concourses: vec!["https://ci".parse().unwrap()], ..WatchSettings::default() };
        let builds = BuildWatch::open(&known, &BTreeMap::new(), clock).unwrap();
        let routes = Routes::new(engine.clone(), long_polls, Arc::new(health)).with_builds(builds);
        let routes = Arc::new(routes.with_access(access));
        Self { routes, engine, notices, going_down, thread: Some(thread) }
    }

    /// The answer of the routes to a request, without a door.
    pub fn answer(&self, request: &Request) -> Response {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.routes.handle(request))
    }

    /// A door in front of its routes.
    pub fn door(&self, settings: DoorSettings) -> Door {
        Door::open(Arc::clone(&self.routes) as Arc<dyn Handler>, self.notices.clone(), settings)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.engine.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// A door on a free port, in front of a handler. It stops when it is dropped.
pub struct Door {
    pub address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// How long the end of a test waits for requests in flight.
const GRACE: Duration = Duration::from_secs(10);

impl Door {
    pub fn open(handler: Arc<dyn Handler>, notices: Notices, settings: DoorSettings) -> Self {
        Self::open_on(TcpListener::bind("127.0.0.1:0").unwrap(), handler, notices, settings)
    }

    pub fn open_on(listener: TcpListener, handler: Arc<dyn Handler>, notices: Notices, settings: DoorSettings) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = Stop::new();
        let door_stop = stop.clone();
        let thread = thread::spawn(move || door::serve(listener, handler, notices, settings, door_stop));
        Self { address, stop, thread: Some(thread) }
    }

    /// Stops it. Returns the result of serving.
    pub fn stop_within(&mut self, grace: Duration) -> anyhow::Result<()> {
        self.stop.trigger(grace);
        self.ended()
    }

    /// Waits until it has ended by itself. Returns the result of serving.
    pub fn ended(&mut self) -> anyhow::Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.trigger(GRACE);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

/// How many requests there were.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// A request of a client that can be answered at once only.
pub fn request(method: &str, target: &str, body: &str) -> Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        headers: Vec::new(),
        body: body.into(),
        peer: "test".into(),
        // As at the door, no two requests have the same.
        id: format!("test-{}", REQUESTS.fetch_add(1, Ordering::Relaxed)),
        identity: None,
        park: ParkId(1),
        shown: None,
        token: None,
        admitted: false,
        can_park: false,
        attempt: Attempt::First,
    }
}
