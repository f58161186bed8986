//! How long nobody grants when the leader of three servers ends, and how long a new server takes to follow.
//!
//! ```text
//! cargo bench --bench cluster                                    # all, about 20 minutes
//! cargo bench --bench cluster -- sigterm                         # only this: sigkill, sigterm or follow
//! LOCKER_BENCH_STORES=etcd cargo bench --bench cluster           # only this of etcd and postgres
//! LOCKER_BENCH_TURNS=10 cargo bench --bench cluster -- sigkill   # fewer turns than 50
//! ```
//!
//! - `sigkill`, `sigterm`: a client claims and releases, one cycle after the other, at a server that follows. The leader gets
//!   the signal; measured is the longest time between two grants around it. Then another server takes its place, and the next
//!   turn begins when all are ready.
//! - `follow`: a leader has 100,000 locks in ten pools. Measured is the time from the start of another server until it is
//!   ready: it has repeated the whole log, and has a link to the leader.
//!
//! They need `etcd` and `postgres` (`apt-get install etcd-server postgresql`); the database has one member, on the same
//! machine. The span is the default, 5 s. Nothing is asserted but that every answer is the right one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::database::{Database, Etcd, Postgres};
use support::{Server, Setup, eventually};

const TURNS: usize = 50;
const POOLS: usize = 10;
const LOCKS_OF_A_POOL: usize = 10_000;
const STARTS: usize = 5;
/// Cycles before each signal, so that the leader is at work, and after it.
const CYCLES: usize = 20;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    let turns = std::env::var("LOCKER_BENCH_TURNS").map_or(TURNS, |text| text.parse().expect("LOCKER_BENCH_TURNS"));
    let stores = std::env::var("LOCKER_BENCH_STORES").unwrap_or_else(|_| "etcd,postgres".to_owned());
    for name in stores.split(',') {
        let (_database, store) = start(name);
        for (part, signal) in [("sigkill", Signal::SIGKILL), ("sigterm", Signal::SIGTERM)] {
            if is_chosen(part) {
                failovers(name, &store, signal, turns);
            }
        }
        if is_chosen("follow") {
            follow(name, &store);
        }
    }
}

fn start(name: &str) -> (Box<dyn Database>, String) {
    match name {
        "etcd" => {
            let etcd = Etcd::start();
            let store = format!("etcd:{}?tls=off", etcd.address());
            (Box::new(etcd), store)
        }
        "postgres" => {
            let postgres = Postgres::start();
            let store = format!("postgres://postgres@{}/postgres?sslmode=disable", postgres.address());
            (Box::new(postgres), store)
        }
        _ => panic!("LOCKER_BENCH_STORES: {name:?} is not etcd or postgres"),
    }
}

/// A server that listens for links at an address of its own, by which the log names it.
struct Member {
    server: Server,
    link: String,
}

impl Member {
    fn start(store: &str) -> Self {
        let link = support::database::free_address().to_string();
        let setup = Setup { store: store.to_owned(), ..Setup::memory() };
        Self { server: Server::start_as(&setup.flags(&["--link", &link])), link }
    }

    fn is_ready(&self) -> bool {
        self.server.call("GET /readyz", "").status == 200
    }

    fn until_ready(&self) {
        eventually("the server is ready", || self.is_ready());
    }

    /// Who leads, by its link, as far as this server can find out.
    fn leader(&self) -> Option<String> {
        let (status, info) = self.server.api("GET", "/info", &Value::Null);
        (status == 200).then(|| info["leader"]["name"].as_str().map(str::to_owned))?
    }
}

/// A client that claims and releases.
struct Load {
    claims: u64,
    granted: Instant,
    longest: Duration,
}

impl Load {
    fn cycle(&mut self, server: &Server) {
        self.claims += 1;
        let path = format!("/claims/load-{}", self.claims);
        until_done(server, "PUT", &path, &json!({ "pool": "load" }));
        self.longest = self.longest.max(self.granted.elapsed());
        self.granted = Instant::now();
        until_done(server, "DELETE", &path, &Value::Null);
    }
}

/// Asks until the answer is 200: while nobody leads, it may be that nobody knows.
fn until_done(server: &Server, method: &str, path: &str, body: &Value) {
    eventually(path, || {
        let (status, answer) = server.api(method, path, body);
        assert!([200, 502, 503].contains(&status), "{method} {path}: {status} {answer}");
        status == 200
    });
}

fn failovers(name: &str, store: &str, signal: Signal, turns: usize) {
    let mut members: Vec<Member> = (0..3).map(|_| Member::start(store)).collect();
    let mut load = Load { claims: 0, granted: Instant::now(), longest: Duration::ZERO };
    let mut gaps = Vec::with_capacity(turns);
    for _ in 0..turns {
        members.iter().for_each(Member::until_ready);
        let leader = eventually("a leader", || members[0].leader());
        let (leads, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.link == leader);
        let asked = &others[0].server;
        (0..CYCLES).for_each(|_| load.cycle(asked));
        load.longest = Duration::ZERO;
        leads[0].server.signal(signal);
        while others[0].leader().is_none_or(|now| now == leader) {
            load.cycle(asked);
        }
        (0..CYCLES).for_each(|_| load.cycle(asked));
        gaps.push(load.longest);
        drop(leads);
        members = others;
        members.push(Member::start(store));
    }
    gaps.sort_unstable();
    println!(
        "{name}, {signal}, {turns} turns: without a grant for {} ms (p50), {} ms (worst)",
        gaps[turns / 2].as_millis(),
        gaps[turns - 1].as_millis()
    );
}

fn follow(name: &str, store: &str) {
    let leader = Member::start(store);
    leader.until_ready();
    for pool in 0..POOLS {
        let body = json!({ "capacity": LOCKS_OF_A_POOL });
        let (status, answer) = leader.server.api("PUT", &format!("/pools/many-{pool}"), &body);
        assert_eq!(status, 200, "{answer}");
    }
    for start in 1..=STARTS {
        let began = Instant::now();
        let follower = Member::start(store);
        follower.until_ready();
        println!(
            "{name}: {} locks, start {start}: a new server follows after {} ms",
            POOLS * LOCKS_OF_A_POOL,
            began.elapsed().as_millis()
        );
    }
}
