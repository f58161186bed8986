//! Kills `out`, or breaks the network, at every point of its conversation with the server. Afterwards nothing may be
//! held or waiting. The exception is a confirmed grant: that hold names its build, a re-run finds it, and `release:
//! build` ends it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use crate::support::proxy::{Act, FAULTS, Proxy};
use crate::support::{Build, Server, eventually};
use nix::sys::signal::Signal::{self, SIGINT, SIGKILL, SIGTERM};
use serde_json::json;

/// A process has 2 s to end after a signal, plus a margin for a busy machine.
const GONE: Duration = Duration::from_secs(4);

/// A server with deadlines that are short enough for a test.
fn hasty() -> Server {
    let short = ["--confirm", "1500ms", "--listen-window", "1s", "--grace", "200ms", "--place", "1s", "--drain", "0s"];
    Server::start_with("memory:", &short, &[])
}

/// The claims of the pool: the holders, and how many wait or are granted.
fn claims(server: &Server) -> (usize, usize) {
    let pool = server.pool("p");
    let holders = pool["items"].as_array().unwrap().iter().flat_map(|lock| lock["holders"].as_array().unwrap());
    let (held, granted): (Vec<_>, Vec<_>) = holders.partition(|holder| holder["state"] == "held");
    for holder in &held {
        assert_eq!(holder["owner"]["build_id"], "2", "a hold names its build: {holder}");
        assert_eq!(holder["owner"]["cluster"], "https://ci.example.com");
    }
    (held.len(), granted.len() + usize::try_from(pool["waiting"].as_u64().unwrap()).unwrap())
}

/// Where in its conversation `out` is stopped.
struct Point {
    name: &'static str,
    /// The message that is stopped. With `None`, `out` waits behind another build.
    stop: Option<(&'static str, Act)>,
    /// Whether a hold may be left after SIGKILL.
    may_hold: bool,
}

const POINTS: [Point; 5] = [
    Point { name: "while sending", stop: Some(("PUT /api/v1/claims/", Act::StopRequest)), may_hold: false },
    Point {
        name: "before hearing of the grant",
        stop: Some(("PUT /api/v1/claims/", Act::StopAnswer)),
        may_hold: false,
    },
    Point { name: "while parked", stop: None, may_hold: false },
    // The confirmation has been sent, and may arrive.
    Point { name: "before the confirmation", stop: Some(("/confirm", Act::StopRequest)), may_hold: true },
    Point { name: "before printing", stop: Some(("/confirm", Act::StopAnswer)), may_hold: true },
];

#[test]
fn a_killed_acquire_leaves_nothing_or_a_hold_that_is_found_again() {
    std::thread::scope(|scope| {
        for point in &POINTS {
            scope.spawn(move || [SIGTERM, SIGINT, SIGKILL].into_iter().for_each(|signal| kill_at(point, signal)));
        }
    });
}

fn kill_at(point: &Point, signal: Signal) {
    let at = format!("{signal} {}", point.name);
    let server = hasty();
    let (holder, proxy) = (Build::new(&server, 1, "p"), Proxy::before(&server.url));
    let build = Build::new(&server, 2, "p").var("LOCKER_WAIT", "500ms").at(&proxy.url);
    server.cli(&["pool", "set", "p", "--capacity", "1"]).ok();
    let out = match point.stop {
        Some((line, act)) => {
            proxy.rule(line, act);
            let out = build.put(&json!({"acquire": true}));
            proxy.until_stopped();
            out
        }
        None => {
            holder.out(&json!({"acquire": true})).ok();
            let out = build.put(&json!({"acquire": true}));
            server.until_waiting("p", 1);
            out
        }
    };
    let start = Instant::now();
    // Guardian repeats its signal about every second. Repetition must change nothing.
    (0..3).for_each(|_| out.signal(signal));
    let done = out.finish();
    assert!(start.elapsed() < GONE, "{at}: {:?}", start.elapsed());
    let code = match signal {
        SIGTERM => 143,
        SIGINT => 130,
        _ => 137,
    };
    assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{at}: {}", done.stderr);
    // The message that was under way arrives now, after its sender has gone.
    proxy.go();
    proxy.until_idle();
    if point.stop.is_none() {
        holder.out(&json!({"release": "build"})).ok();
    }
    let may_hold = point.may_hold && signal == SIGKILL;
    let held = eventually(&at, || match claims(&server) {
        (0, 0) => Some(false),
        (1, 0) if may_hold => Some(true),
        _ => None,
    });
    if held {
        let found = build.out(&json!({"acquire": true})).ok();
        assert!(found.metadata("fence").is_some(), "{at}");
        assert_eq!(claims(&server), (1, 0), "{at}: found again, not taken twice");
        build.out(&json!({"release": "build"})).ok().said("released ");
    }
    assert_eq!(claims(&server), (0, 0), "{at}");
    build.out(&json!({"acquire": true})).ok();
}

#[test]
fn a_killed_out_that_never_connected_leaves_nothing() {
    let mut away = Server::start();
    let build = Build::new(&away, 2, "p");
    away.kill();
    for signal in [SIGTERM, SIGINT, SIGKILL] {
        let out = build.put(&json!({"acquire": true}));
        out.until_stderr("no answer from the locker server");
        let start = Instant::now();
        out.signal(signal);
        assert_eq!(out.finish().stdout, "");
        assert!(start.elapsed() < GONE);
    }
}

#[test]
fn an_early_signal_leaves_nothing() {
    let server = hasty();
    let build = Build::new(&server, 2, "p");
    server.cli(&["pool", "set", "p", "--capacity", "1"]).ok();
    for _ in 0..10 {
        let out = build.put(&json!({"acquire": true}));
        out.signal(SIGTERM);
        let done = out.finish();
        if done.code == 143 {
            assert_eq!(done.stdout, "");
            eventually("nothing is left", || (claims(&server) == (0, 0)).then_some(()));
        } else {
            // It ended before the signal.
            done.ok();
            build.out(&json!({"release": "build"})).ok();
        }
    }
}

#[test]
fn a_signalled_release_still_sends_its_request() {
    // The stopped message, how long it stays stopped, and whether the hold must be over.
    let cases = [
        ("GET /api/v1/claims?", Act::StopAnswer, true, true),
        ("/release HTTP", Act::StopRequest, false, true),
        ("/release HTTP", Act::StopAnswer, false, true),
    ];
    for (line, act, goes_on_at_once, is_over) in cases {
        let server = hasty();
        let proxy = Proxy::before(&server.url);
        Build::new(&server, 2, "p").out(&json!({"acquire": true})).ok();
        let build = Build::new(&server, 2, "p").at(&proxy.url);
        proxy.rule(line, act);
        let release = build.put(&json!({"release": "build"}));
        proxy.until_stopped();
        let start = Instant::now();
        (0..3).for_each(|_| release.signal(SIGTERM));
        if goes_on_at_once {
            proxy.go();
        }
        release.finish().failed(143, "SIGTERM received");
        assert!(start.elapsed() < GONE, "{line}: {:?}", start.elapsed());
        proxy.go();
        proxy.until_idle();
        assert_eq!(claims(&server) == (0, 0), is_over, "{line} {act:?}");
        build.out(&json!({"release": "build"})).ok();
    }
}

#[test]
fn a_killed_release_has_happened_or_not_and_is_done_by_the_next() {
    for act in [Act::StopRequest, Act::StopAnswer] {
        let server = hasty();
        let proxy = Proxy::before(&server.url);
        Build::new(&server, 2, "p").out(&json!({"acquire": true})).ok();
        let build = Build::new(&server, 2, "p").at(&proxy.url);
        proxy.rule("/release HTTP", act);
        let release = build.put(&json!({"release": "build"}));
        proxy.until_stopped();
        release.signal(SIGKILL);
        assert_eq!(release.finish().stdout, "");
        build.out(&json!({"release": "build"})).ok();
        proxy.go();
        proxy.until_idle();
        assert_eq!(claims(&server), (0, 0));
    }
}

#[test]
fn a_signalled_add_claimed_takes_the_lock_out_again() {
    for act in [Act::StopRequest, Act::StopAnswer] {
        let server = hasty();
        let proxy = Proxy::before(&server.url);
        server.cli(&["pool", "set", "p", "--capacity", "0"]).ok();
        let build = Build::new(&server, 2, "p").at(&proxy.url);
        build.input_with("new", &[("name", b"env"), ("metadata", b"x")]);
        proxy.rule("PUT /api/v1/pools/p/locks/env", act);
        let out = build.put(&json!({"add_claimed": "new"}));
        proxy.until_stopped();
        let start = Instant::now();
        out.signal(SIGTERM);
        out.finish().failed(143, "SIGTERM received");
        assert!(start.elapsed() < GONE + Duration::from_secs(1));
        proxy.go();
        proxy.until_idle();
        assert_eq!(server.pool("p")["locks"], 0, "{act:?}");
    }
}

#[test]
fn any_fault_of_one_message_costs_time_only() {
    let messages = ["PUT /api/v1/claims/", "/confirm", "GET /api/v1/claims?", "/release HTTP"];
    std::thread::scope(|scope| {
        for message in messages {
            scope.spawn(move || {
                let server = Server::start();
                let proxy = Proxy::before(&server.url);
                let build = Build::new(&server, 2, "p").at(&proxy.url);
                let mut before = 0;
                for fault in FAULTS {
                    proxy.rule(message, fault);
                    let claimed = build.out(&json!({"acquire": true})).ok();
                    let fence: u64 = claimed.metadata("fence").unwrap().parse().unwrap();
                    assert!(fence > before, "{message} {fault:?}");
                    before = fence;
                    assert_eq!(claims(&server), (1, 0), "{message} {fault:?}");
                    build.out(&json!({"release": "build"})).ok();
                    proxy.until_idle();
                    assert_eq!(claims(&server), (0, 0), "{message} {fault:?}");
                    proxy.calm();
                }
            });
        }
    });
}

#[test]
fn many_faults_neither_lose_nor_double_a_hold() {
    let seeds: Vec<u64> = match std::env::var("LOCKER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=8_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
    };
    for seed in seeds {
        println!("LOCKER_TEST_SEED={seed}");
        let server = Server::start();
        let proxy = Proxy::before(&server.url);
        let build = Build::new(&server, 2, "p").var("LOCKER_WAIT", "300ms").at(&proxy.url);
        // Both steps belong to one build, so every hold must name it.
        server.cli(&["pool", "set", "p", "--capacity", "1"]).ok();
        proxy.chaos(seed);
        let first = build.out(&json!({"acquire": true, "as": "first"})).ok();
        let second = build.put(&json!({"acquire": true, "as": "second", "self_wait": "wait"}));
        server.until_waiting("p", 1);
        build.out(&json!({"release": "build", "as": "first"})).ok();
        let second = second.finish().ok();
        let fence = |done: &crate::support::Done| done.metadata("fence").unwrap().parse::<u64>().unwrap();
        assert!(fence(&second) > fence(&first));
        assert_eq!(claims(&server), (1, 0));
        build.out(&json!({"release": "build"})).ok();
        proxy.until_idle();
        assert_eq!(claims(&server), (0, 0));
    }
}
