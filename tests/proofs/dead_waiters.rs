//! Waiters that die, stop or disconnect: the next live one gets the lock in time, nothing is left behind, and a waiter
//! that comes back has its old place.
//!
//! Deadlines are shortened by settings. `LOCKER_DEFAULT_DEADLINES=1 cargo test --test dead_waiters` uses the real ones
//! (about a quarter of an hour, because a place is kept for ten minutes).

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use locker::wire::api::{ClaimState, ClaimView, Page, PoolView};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use support::http::{Answer, Client, request};
use support::{Build, Running, Server, Setup};

/// How much "in time" adds to a deadline: the promise for a handover.
const IN_TIME: Duration = Duration::from_secs(1);
/// For steps without a promise, such as starting processes and filling queues.
const PATIENCE: Duration = Duration::from_secs(30);

/// The deadlines of a run.
#[derive(Clone, Copy)]
struct Deadlines {
    confirm: Duration,
    grace: Duration,
    listen: Duration,
    place: Duration,
}

impl Deadlines {
    fn chosen() -> Self {
        if std::env::var_os("LOCKER_DEFAULT_DEADLINES").is_some() {
            return Self {
                confirm: Duration::from_secs(45),
                grace: Duration::from_secs(3),
                listen: Duration::from_secs(20),
                place: Duration::from_secs(600),
            };
        }
        Self {
            confirm: Duration::from_secs(2),
            grace: Duration::from_secs(1),
            listen: Duration::from_secs(1),
            place: Duration::from_secs(6),
        }
    }

    fn setup(self, directory: &Path) -> Setup {
        let ms = |span: Duration| format!("{}ms", span.as_millis());
        Setup::sqlite(directory)
            .flag("--confirm", &ms(self.confirm))
            .flag("--grace", &ms(self.grace))
            .flag("--listen-window", &ms(self.listen))
            .flag("--place", &ms(self.place))
    }
}

/// A connection for reads, and for claims that are never parked.
struct Api(Client);

impl Api {
    fn of(server: &Server) -> Self {
        Self(server.connect())
    }

    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.0.ask(method, path, "", &body.map(ToString::to_string).unwrap_or_default()).expect("an answer")
    }

    fn ask(&mut self, id: &str, pool: &str) -> u16 {
        self.call("PUT", &format!("/api/v1/claims/{id}"), Some(&json!({ "pool": pool, "run": id }))).status
    }

    /// Returns when the answer came.
    fn release(&mut self, id: &str) -> Instant {
        self.release_between(id).1
    }

    /// Returns the moments before and after it happened.
    fn release_between(&mut self, id: &str) -> (Instant, Instant) {
        let before = Instant::now();
        let answer = self.call("DELETE", &format!("/api/v1/claims/{id}"), None);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        (before, Instant::now())
    }

    fn claim(&mut self, id: &str) -> ClaimView {
        let answer = self.call("GET", &format!("/api/v1/claims/{id}"), None);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        answer.parse()
    }

    fn pool(&mut self, pool: &str) -> PoolView {
        let answer = self.call("GET", &format!("/api/v1/pools/{pool}"), None);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        answer.parse()
    }

    fn until<T>(&mut self, what: &str, within: Duration, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "not within {within:?}: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A put step of one build that acquires a lock; killed when dropped.
struct Out {
    build: String,
    running: Running,
    _files: Build,
}

/// What a put printed, and when it ended.
struct Printed {
    at: Instant,
    claim: String,
}

impl Out {
    fn acquire(server: &Server, pool: &str, build: &str) -> Self {
        let files = Build::new(server, build.parse().unwrap(), pool);
        let running = files.put(&json!({ "acquire": true }));
        Self { build: build.to_owned(), running, _files: files }
    }

    /// Waits for its end, which must come by this moment.
    fn ended_by(&mut self, deadline: Instant, what: &str) -> (ExitStatus, Instant) {
        while self.running.is_running() {
            assert!(Instant::now() < deadline, "{what}: build {} has not ended in time", self.build);
            thread::sleep(Duration::from_millis(2));
        }
        let at = Instant::now();
        (self.running.wait(), at)
    }

    /// Waits until it holds the lock and has printed so.
    fn holds_by(&mut self, deadline: Instant, what: &str) -> Printed {
        let (status, at) = self.ended_by(deadline, what);
        assert!(status.success(), "{what}: build {} failed: {status}", self.build);
        let printed: Value = serde_json::from_str(&self.running.stdout()).expect("a version");
        let metadata = printed["metadata"].as_array().expect("metadata");
        let claim = metadata.iter().find(|entry| entry["name"] == "claim").expect("a claim in the metadata");
        Printed { at, claim: claim["value"].as_str().expect("text").to_owned() }
    }
}

/// An API client whose request is parked.
fn parked(server: &Server, id: &str, pool: &str, confirm: bool) -> Client {
    let body = json!({ "pool": pool, "run": id, "confirm": confirm, "wait": "60s" }).to_string();
    let mut conn = server.connect();
    conn.send(request("PUT", &format!("/api/v1/claims/{id}"), "", &body));
    let listens = |api: &mut Api| {
        let answer = api.call("GET", &format!("/api/v1/claims/{id}"), None);
        (answer.status == 200).then(|| answer.parse::<ClaimView>())?.queue.filter(|queue| queue.listening)
    };
    Api::of(server).until(&format!("claim {id} waits"), PATIENCE, listens);
    conn
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Term,
    Kill,
    Stop,
}

const POSITIONS: [(&str, usize); 3] = [("head", 0), ("middle", 1), ("tail", 2)];

#[test]
fn a_waiting_out_that_dies_delays_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let deadlines = Deadlines::chosen();
    let server = Server::start_as(&deadlines.setup(directory.path()));
    let server = &server;
    thread::scope(|scope| {
        for fault in [Fault::Term, Fault::Kill, Fault::Stop] {
            scope.spawn(move || {
                // A stopped process stays stopped until the end, so nothing depends on its death.
                let mut victims = Vec::new();
                for (name, position) in POSITIONS {
                    let pool = format!("{fault:?}-{name}");
                    let victim = dies_waiting(server, &pool, position, fault, deadlines);
                    victims.push((pool, victim));
                }
                for (pool, _) in &victims {
                    nothing_is_left(server, pool, deadlines);
                }
            });
        }
    });
}

/// Three builds wait, the one at `position` gets the fault, and a fourth one arrives. Returns the victim.
fn dies_waiting(server: &Server, pool: &str, position: usize, fault: Fault, deadlines: Deadlines) -> Out {
    let mut api = Api::of(server);
    let first = format!("{pool}-first");
    assert_eq!(api.ask(&first, pool), 200);
    let waits = |api: &mut Api, build: String| {
        let out = Out::acquire(server, pool, &build);
        api.until("the build waits", PATIENCE, |api| {
            let queue = api.pool(pool).queue;
            queue.iter().any(|w| w.owner.build_id.as_ref() == Some(&build) && w.listening).then_some(())
        });
        out
    };
    let mut outs: Vec<Out> = (1..=3).map(|build| waits(&mut api, build.to_string())).collect();
    // A waiter that listens for longer than an answered request counts must have a parked request.
    let queued = Instant::now();
    api.until("all are parked", deadlines.listen + PATIENCE, |api| {
        let all_listen = api.pool(pool).queue.iter().all(|waiter| waiter.listening);
        (all_listen && queued.elapsed() > deadlines.listen).then_some(())
    });
    let mut victim = outs.remove(position);
    let struck = Instant::now();
    match fault {
        Fault::Term => {
            victim.running.signal(Signal::SIGTERM);
            let (status, _) = victim.ended_by(struck + Duration::from_secs(2), pool);
            assert_eq!(status.code(), Some(143), "{pool}");
            assert_eq!(victim.running.stdout(), "", "{pool}: no version");
        }
        Fault::Kill => victim.running.signal(Signal::SIGKILL),
        Fault::Stop => victim.running.signal(Signal::SIGSTOP),
    }
    outs.push(waits(&mut api, "4".into()));
    let (mut before, mut released) = api.release_between(&first);
    for (turn, out) in outs.iter_mut().enumerate() {
        let due = match fault {
            // It has cancelled its claim.
            Fault::Term => released,
            // Its connection is closed, so it keeps its turn only for a moment.
            Fault::Kill => released.max(struck + deadlines.grace),
            // Its connection is open, so it is granted the lock in its turn, and does not confirm.
            Fault::Stop if turn == position => released + deadlines.confirm,
            Fault::Stop => released,
        };
        let held = out.holds_by(due + IN_TIME, &format!("{pool}, turn {turn}"));
        if fault == Fault::Stop && turn == position {
            assert!(held.at >= before + deadlines.confirm, "{pool}: the grant was not given to the stopped build");
        }
        (before, released) = api.release_between(&held.claim);
    }
    victim
}

/// The server lists no claim of the pool any more, at the latest when places expire.
fn nothing_is_left(server: &Server, pool: &str, deadlines: Deadlines) {
    let within = deadlines.place + deadlines.confirm + IN_TIME;
    Api::of(server).until(&format!("pool {pool} is at rest"), within, |api| {
        let claims: Page<ClaimView> = api.call("GET", &format!("/api/v1/claims?pool={pool}"), None).parse();
        let view = api.pool(pool);
        let free = view.items.iter().all(|lock| lock.holders.is_empty());
        (claims.items.is_empty() && view.queue.is_empty() && free).then_some(())
    });
}

/// How a client is lost between its grant and its confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It gets its answer, and does nothing.
    Silent,
    /// It closes its connection when the answer comes.
    Closed,
    /// It does not even read the answer. To the server, a half-open connection looks like this.
    Deaf,
}

#[test]
fn a_grant_that_nobody_confirms_goes_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let deadlines = Deadlines::chosen();
    let server = Server::start_as(&deadlines.setup(directory.path()));
    thread::scope(|scope| {
        for lost in [Lost::Silent, Lost::Closed, Lost::Deaf] {
            let server = &server;
            scope.spawn(move || dies_granted(server, lost, deadlines));
        }
    });
}

fn dies_granted(server: &Server, lost: Lost, deadlines: Deadlines) {
    let pool = format!("{lost:?}");
    let mut api = Api::of(server);
    let id = |name: &str| format!("{pool}-{name}");
    assert_eq!(api.ask(&id("first"), &pool), 200);
    let mut victim = parked(server, &id("victim"), &pool, true);
    let mut next = parked(server, &id("next"), &pool, true);
    let (before, after) = api.release_between(&id("first"));
    let fence = match lost {
        Lost::Deaf => api.until("the victim is granted", IN_TIME, |api| api.claim(&id("victim")).fence),
        Lost::Silent | Lost::Closed => {
            let view: ClaimView = victim.receive().unwrap().parse();
            assert_eq!(view.state, ClaimState::Granted, "{pool}");
            view.fence.unwrap()
        }
    };
    let kept = (lost != Lost::Closed).then_some(victim);
    let view: ClaimView = next.receive().unwrap().parse();
    let served = Instant::now();
    assert_eq!(view.state, ClaimState::Granted, "{pool}: {view:?}");
    assert!(served >= before + deadlines.confirm, "{pool}: withdrawn too early");
    assert!(served <= after + deadlines.confirm + IN_TIME, "{pool}: withdrawn too late");
    assert!(view.fence.unwrap() > fence, "{pool}: a new grant has a larger fence");
    let confirm = |api: &mut Api, name: &str, fence: u64| {
        let body = json!({ "run": id(name), "fence": fence });
        api.call("POST", &format!("/api/v1/claims/{}/confirm", id(name)), Some(&body)).status
    };
    assert_eq!(confirm(&mut api, "victim", fence), 409, "{pool}: too late");
    assert_eq!(confirm(&mut api, "next", view.fence.unwrap()), 200, "{pool}");
    // The victim comes back and has its old place, before a waiter that came after it.
    let mut later = parked(server, &id("later"), &pool, true);
    drop(kept);
    let mut victim = parked(server, &id("victim"), &pool, true);
    assert_eq!(api.claim(&id("victim")).queue.unwrap().position, 1, "{pool}");
    let released = api.release(&id("next"));
    let view: ClaimView = victim.receive().unwrap().parse();
    assert!(released.elapsed() < IN_TIME, "{pool}");
    assert_eq!(view.state, ClaimState::Granted, "{pool}");
    api.release(&id("victim"));
    assert_eq!(later.receive().unwrap().status, 200, "{pool}");
    api.release(&id("later"));
    nothing_is_left(server, &pool, deadlines);
}

#[test]
fn a_closed_connection_keeps_its_turn_for_the_grace_only() {
    let directory = tempfile::tempdir().unwrap();
    let deadlines = Deadlines::chosen();
    let server = Server::start_as(&deadlines.setup(directory.path()));
    let mut api = Api::of(&server);
    assert_eq!(api.ask("first", "p"), 200);
    let cut = parked(&server, "cut", "p", true);
    let mut next = parked(&server, "next", "p", true);
    drop(cut);
    // A grant before the server has noticed would have to be confirmed first.
    api.until("the server has noticed", PATIENCE, |_| {
        server.call("GET /metrics", "").text().contains("\nlocker_parked_requests 1\n").then_some(())
    });
    let closed = Instant::now();
    let released = api.release("first");
    let view: ClaimView = next.receive().unwrap().parse();
    let served = Instant::now();
    assert_eq!((view.id.as_str(), view.state), ("next", ClaimState::Granted));
    assert!(served <= released.max(closed + deadlines.grace) + IN_TIME, "{:?}", served - released);
}

#[test]
fn a_client_that_was_away_has_its_old_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut deadlines = Deadlines::chosen();
    deadlines.place = deadlines.place.max(Duration::from_secs(60));
    let server = Server::start_as(&deadlines.setup(directory.path()));
    let mut api = Api::of(&server);
    assert_eq!(api.ask("holder", "p"), 200);
    assert_eq!(api.ask("away", "p"), 423);
    let mut second = parked(&server, "second", "p", false);
    let gone = |api: &mut Api| (!api.claim("away").queue.unwrap().listening).then_some(());
    api.until("the first waiter counts as away", deadlines.listen + IN_TIME, gone);
    // It comes back before anything was granted: it is first again.
    let mut back = parked(&server, "away", "p", false);
    assert_eq!(api.claim("away").queue.unwrap().position, 1);
    let released = api.release("holder");
    assert_eq!(back.receive().unwrap().status, 200);
    assert!(released.elapsed() < IN_TIME);
    assert_eq!(api.claim("second").state, ClaimState::Waiting);
    api.release("away");
    assert_eq!(second.receive().unwrap().status, 200);

    // While it is away, it holds no other waiter back.
    assert_eq!(api.ask("away-2", "p"), 423);
    let gone = |api: &mut Api| (!api.claim("away-2").queue.unwrap().listening).then_some(());
    let mut third = parked(&server, "third", "p", false);
    api.until("the waiter counts as away", deadlines.listen + IN_TIME, gone);
    let released = api.release("second");
    assert_eq!(third.receive().unwrap().status, 200);
    assert!(released.elapsed() < IN_TIME);
    // It has missed its turn, but its place is still before all waiters that came later.
    let mut fourth = parked(&server, "fourth", "p", false);
    let mut back = parked(&server, "away-2", "p", false);
    api.release("third");
    assert_eq!(back.receive().unwrap().status, 200);
    api.release("away-2");
    assert_eq!(fourth.receive().unwrap().status, 200);
    api.release("fourth");
}

/// The periodic check of all queues repairs a lost wake-up.
#[cfg(feature = "plant")]
mod planted {
    use super::*;

    #[test]
    fn story_45_a_lost_notice_is_repaired_within_seconds() {
        /// How often the engine checks all queues.
        const RECONCILE: Duration = Duration::from_secs(5);
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start_as(&Setup::sqlite(directory.path()).plant("lost-notice"));
        let mut api = Api::of(&server);
        let mut longest = Duration::ZERO;
        // Claims that confirm, as `out` does. For other claims, the planted bug also loses the repeated notices.
        for pool in ["a", "b", "c"] {
            let (first, next) = (format!("{pool}-first"), format!("{pool}-next"));
            assert_eq!(api.ask(&first, pool), 200);
            let mut waiter = parked(&server, &next, pool, true);
            let released = api.release(&first);
            assert_eq!(waiter.receive().unwrap().status, 200);
            longest = longest.max(released.elapsed());
            assert!(released.elapsed() < RECONCILE + IN_TIME, "{pool}: {:?}", released.elapsed());
        }
        assert!(longest > Duration::from_millis(200), "no notice was lost: {longest:?}");
    }
}
