//! What goes wrong with lock servers and queues, as tests: failures of the server, its protocol and manual use. Each
//! test has the name of its story. 24 and 26 are in `tests/proofs/pauses.rs`, 45 in `tests/proofs/dead_waiters.rs`.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{Build, Server, eventually};
use serde_json::{Value, json};

fn claim(server: &Server, id: &str, body: &Value) -> (u16, Value) {
    server.api("PUT", &format!("/claims/{id}"), body)
}

/// Waits until the claim has ended. Returns how it ended.
fn ended(server: &Server, id: &str) -> String {
    eventually("the claim has ended", || {
        let (_, claim) = server.api("GET", &format!("/claims/{id}"), &Value::Null);
        claim["how"].as_str().map(str::to_owned)
    })
}

fn history(server: &Server, pool: &str) -> Vec<Value> {
    let (_, page) = server.api("GET", &format!("/pools/{pool}/changes"), &Value::Null);
    page["items"].as_array().unwrap().clone()
}

/// A holder that pauses looks dead; only a fence keeps it from doing harm.
#[test]
fn story_21_24_a_client_that_comes_back_too_late_does_no_harm() {
    let server = Server::start_with("memory:", &["--drain", "0s"], &[]);
    let (_, first) = claim(&server, "a", &json!({"pool": "p", "scope": "lease", "ttl": "1s", "run": "r"}));
    assert_eq!(ended(&server, "a"), "lease_lost");
    let (status, second) = claim(&server, "b", &json!({"pool": "p"}));
    assert_eq!((status, &second["state"]), (200, &json!("held")));
    let (late, next) = (first["fence"].as_u64().unwrap(), second["fence"].as_u64().unwrap());
    assert!(late < next, "the fence has grown");
    for (method, path, body) in [
        ("POST", "/claims/a/renew", json!({"run": "r", "fence": late})),
        ("POST", "/claims/a/confirm", json!({"run": "r", "fence": late})),
        ("DELETE", "/claims/a?run=r", Value::Null),
        ("PUT", "/claims/a", json!({"pool": "p", "scope": "lease", "ttl": "1s", "run": "r"})),
    ] {
        let (status, answer) = server.api(method, path, &body);
        assert_eq!((status, &answer["claim"]["how"]), (410, &json!("lease_lost")), "{method} {path}");
        assert!(answer["error"].as_str().unwrap().contains("not renewed"), "it says what happened: {answer}");
    }
    let verify = |fence: u64| server.api("GET", &format!("/verify?pool=p&lock=p&fence={fence}"), &Value::Null).0;
    assert_eq!((verify(late), verify(next)), (409, 200));
}

#[test]
fn story_25_a_task_extends_its_ttl_while_it_runs() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let id = build.out(&json!({"acquire": true, "ttl": "1h"})).ok().metadata("claim").unwrap();
    let (_, before) = server.api("GET", &format!("/claims/{id}"), &Value::Null);
    assert_eq!(before["ttl"], "1h");
    eventually("it ends later than it would have", || {
        let (status, renewed) = server.api("POST", &format!("/claims/{id}/renew"), &Value::Null);
        assert_eq!(status, 200, "{renewed}");
        (renewed["held_until"].as_str() > before["held_until"].as_str()).then_some(())
    });
    let pool = server.pool("p");
    assert!(pool["items"][0]["holders"][0]["until"].is_string(), "everybody sees until when");
}

#[test]
fn story_28_hundreds_of_holds_and_waiters_are_as_before_after_a_restart() {
    // Nothing may run out by itself, however slow the machine's disk is.
    let windows = ["--listen-window", "1h", "--place", "2h", "--confirm", "1h"];
    let mut server = Server::start_with("sqlite", &windows, &[]);
    server.api("PUT", "/pools/p", &json!({"capacity": 500, "policy": {"overtaking": "backfill:3", "scope": "person"}}));
    std::thread::scope(|threads| {
        for first in 0..8 {
            let server = &server;
            threads.spawn(move || {
                for n in (first..800).step_by(8) {
                    let owner = json!({"cluster": "https://ci", "build_id": n.to_string()});
                    claim(server, &format!("c{n:03}"), &json!({"pool": "p", "confirm": n % 2 == 0, "owner": owner}));
                }
            });
        }
    });
    let state = |server: &Server| {
        let (_, claims) = server.api("GET", "/claims?limit=1000", &Value::Null);
        (server.pool("p")["queue"].clone(), claims)
    };
    let (queue, claims) = state(&server);
    assert_eq!((queue.as_array().unwrap().len(), claims["items"].as_array().unwrap().len()), (300, 800));
    server.kill();
    server.again();
    let (queue_after, claims_after) = state(&server);
    let key = |queue: &Value| queue.as_array().unwrap().iter().map(|w| w["claim"].clone()).collect::<Vec<_>>();
    assert_eq!(key(&queue), key(&queue_after));
    assert_eq!(claims, claims_after, "ids, locks, fences, owners");
}

/// Nested claims in two orders: both build logs report the deadlock at once, and so does the status of the pool.
#[test]
fn story_31_builds_that_wait_for_each_other_are_told_within_a_second() {
    let server = Server::start();
    let build = |id, pool| Build::new(&server, id, pool);
    for (id, pool) in [(1, "a"), (2, "b")] {
        build(id, pool).out(&json!({"acquire": true})).ok();
    }
    let (one, two) = (build(1, "b"), build(2, "a"));
    let first = one.put(&json!({"acquire": true}));
    server.until_waiting("b", 1);
    let second = two.put(&json!({"acquire": true}));
    server.until_waiting("a", 1);
    let closed = Instant::now();
    for waiter in [&first, &second] {
        waiter.until_stderr("each of these builds waits for the next");
    }
    // The promise is one second; a slow machine gets more.
    assert!(closed.elapsed() < Duration::from_secs(5), "{:?}", closed.elapsed());
    for (pool, id) in [("a", "2"), ("b", "1")] {
        let queue = &server.pool(pool)["queue"][0];
        assert_eq!((&queue["stuck"], &queue["owner"]["build_id"]), (&json!("deadlock"), &json!(id)), "{queue}");
        let told = history(&server, pool).iter().any(|change| change["kind"] == "deadlock");
        assert!(told, "the history of {pool} shows it");
        server.cli(&["status", pool]).printed("deadlock");
    }
    build(1, "a").out(&json!({"release": "build"})).ok();
    second.finish().ok();
    build(2, "b").out(&json!({"release": "build"})).ok();
    first.finish().ok();
}

/// A waiter for several locks dies at the head of all its queues. The locks go to the waiters behind it.
#[test]
fn story_30_34_a_waiter_that_goes_leaves_no_ghost_in_any_queue() {
    let server = Server::start();
    for pool in ["a", "b", "c"] {
        claim(&server, pool, &json!({"pool": pool}));
    }
    claim(&server, "all", &json!({"pool": "a", "also": [{"pool": "b"}, {"pool": "c"}], "confirm": true}));
    for pool in ["a", "b", "c"] {
        assert_eq!(claim(&server, &format!("{pool}-next"), &json!({"pool": pool, "confirm": true})).0, 423);
    }
    let waiting = |server: &Server| ["a", "b", "c"].map(|pool| server.pool(pool)["waiting"].as_u64().unwrap());
    for pool in ["a", "b"] {
        server.api("DELETE", &format!("/claims/{pool}"), &Value::Null);
    }
    assert_eq!(waiting(&server), [2, 2, 2], "it waits for the third lock, and the others for it");
    server.api("DELETE", "/claims/all", &Value::Null);
    assert_eq!(waiting(&server), [0, 0, 1], "it is gone from all queues");
    for (id, state) in [("a-next", "granted"), ("b-next", "granted"), ("c-next", "waiting")] {
        assert_eq!(server.api("GET", &format!("/claims/{id}"), &Value::Null).1["state"], state, "{id}");
    }
}

#[test]
fn story_31_ab_and_ba_never_deadlock() {
    let server = Server::start();
    let pools = ["a", "b", "c", "d"];
    claim(&server, "h", &json!({"pool": "a", "also": [{"pool": "b"}, {"pool": "c"}, {"pool": "d"}]}));
    // Each build asks for two to four of the locks, in any order.
    let mut seed = 31_u64;
    let mut sets = BTreeMap::new();
    for n in 0..200 {
        let mut set = pools.to_vec();
        for at in (1..set.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            set.swap(at, usize::try_from(seed >> 33).unwrap() % (at + 1));
        }
        set.truncate(2 + n % 3);
        let also: Vec<Value> = set[1..].iter().map(|pool| json!({"pool": pool})).collect();
        let owner = json!({"cluster": "https://ci", "build_id": n.to_string()});
        sets.insert(format!("s{n:03}"), json!({"pool": set[0], "also": also, "owner": owner}));
    }
    for (id, body) in &sets {
        assert_eq!(claim(&server, id, body).0, 423);
    }
    server.api("DELETE", "/claims/h", &Value::Null);
    // A waiter that asks in its turn gets the lock, so each round over all waiters serves some.
    while !sets.is_empty() {
        let before = sets.len();
        sets.retain(|id, body| {
            let served = claim(&server, id, body).0 == 200;
            if served {
                server.api("DELETE", &format!("/claims/{id}"), &Value::Null);
            }
            !served
        });
        assert!(sets.len() < before, "none of {before} is served: they wait for each other");
    }
}

#[test]
fn story_32_33_a_large_claim_waits_no_longer_than_the_policy_says() {
    let server = Server::start();
    for (pool, policy, past) in [("s", "strict", 0), ("n", "backfill:3", 3), ("b", "backfill", 8)] {
        server.api("PUT", &format!("/pools/{pool}"), &json!({"capacity": 3, "policy": {"overtaking": policy}}));
        claim(&server, &format!("{pool}-holder"), &json!({"pool": pool}));
        let (big, want) = (format!("{pool}-big"), json!({"pool": pool, "count": 3}));
        assert_eq!(claim(&server, &big, &want).0, 423);
        // A stream of small claims, each released before the next one.
        let served = (0..8).filter(|n| {
            let id = format!("{pool}-{n}");
            let (status, _) = claim(&server, &id, &json!({"pool": pool, "queue": false}));
            server.api("DELETE", &format!("/claims/{id}"), &Value::Null);
            status == 200
        });
        assert_eq!(served.count(), past, "{policy}");
        server.api("DELETE", &format!("/claims/{pool}-holder"), &Value::Null);
        assert_eq!(claim(&server, &big, &want).0, 200, "then it is its turn");
    }
}

#[test]
fn story_35_a_pool_that_shrinks_evicts_nobody_and_grants_nothing_until_it_fits() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "3"]).ok();
    let ids: Vec<String> = (0..3).map(|_| server.cli(&["claim", "p"]).ok().stdout.trim().to_owned()).collect();
    server.cli(&["pool", "set", "p", "--capacity", "1"]).ok();
    let held = |pool: &Value| pool["items"].as_array().unwrap().iter().filter(|l| l["state"] == "held").count();
    assert_eq!(held(&server.pool("p")), 3);
    for id in &ids[1..] {
        server.cli(&["release", id]).ok();
        server.cli(&["claim", "p", "--try"]).failed(3, "not free");
    }
    server.cli(&["release", &ids[0]]).ok();
    server.cli(&["claim", "p", "--try"]).ok();
    assert_eq!(server.pool("p")["locks"], 1);
}

#[test]
fn story_36_37_edits_of_a_held_lock_are_refused_or_outlast_the_hold() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "eu"]).ok();
    let id = server.cli(&["claim", "p"]).ok().stdout.trim().to_owned();
    server.cli(&["lock", "remove", "p", "eu"]).failed(5, "is held by claim");
    server.cli(&["lock", "add", "p", "eu"]).failed(5, "already has a lock");
    server.cli(&["lock", "set", "p", "eu", "--label", "zone=b"]).ok();
    server.cli(&["release", &id]).ok();
    let (_, lock) = server.api("GET", "/pools/p/locks/eu", &Value::Null);
    assert_eq!((&lock["state"], &lock["labels"]["zone"]), (&json!("free"), &json!("b")), "no old copy came back");
}

#[test]
fn story_39_one_release_wakes_one_waiter() {
    let server = Server::start();
    let holder = Build::new(&server, 1, "p");
    holder.out(&json!({"acquire": true})).ok();
    let builds: Vec<Build> = (2..10).map(|id| Build::new(&server, id, "p")).collect();
    let mut waiters: Vec<_> = builds.iter().map(|build| build.put(&json!({"acquire": true}))).collect();
    server.until_waiting("p", 8);
    holder.out(&json!({"release": "build"})).ok();
    let first = eventually("one of them holds it", || waiters.iter_mut().position(|waiter| !waiter.is_running()));
    waiters.remove(first).finish().ok();
    let granted = history(&server, "p").iter().filter(|change| change["kind"] == "granted").count();
    assert_eq!((granted, server.pool("p")["waiting"].as_u64()), (2, Some(7)), "the holder's, and one more");
}

#[test]
fn story_40_claims_of_different_free_locks_do_not_wait_for_each_other() {
    let server = Server::start_durable();
    server.cli(&["pool", "set", "p", "--capacity", "30"]).ok();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for n in 1..=30 {
            let server = &server;
            scope.spawn(move || {
                let (status, answer) = claim(server, &format!("c{n}"), &json!({"pool": "p", "lock": n.to_string()}));
                assert_eq!(status, 200, "{answer}");
            });
        }
    });
    assert!(start.elapsed() < Duration::from_secs(10), "one second, with a margin for a busy machine");
}

#[test]
fn story_43_a_broken_hold_says_who_broke_it_and_why() {
    let server = Server::start();
    let (old, new) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    let put = old.out(&json!({"acquire": true})).ok();
    let (id, version) = (put.metadata("claim").unwrap(), put.version());
    server.cli(&["break", &id]).failed(2, "--reason");
    server.cli(&["break", "--pool", "p", "--lock", "p", "--reason", "runaway deploy"]).ok().printed("broke claim");
    let again = server.cli(&["break", &id, "--reason", "another"]).ok().stdout;
    assert_eq!(again, format!("claim {id} was already broken\n"));
    let next = new.out(&json!({"acquire": true})).ok();
    assert!(next.metadata("fence").unwrap() > put.metadata("fence").unwrap());
    let told = old.get(&version, "lock").failed(1, "no longer acquired: ");
    assert!(told.stderr.contains("broken by ada") && told.stderr.contains("runaway deploy"), "{}", told.stderr);
    old.input_with("held", &[("claim", id.as_bytes())]);
    let told = old.out(&json!({"release": "held"})).failed(1, "broken");
    assert!(told.stderr.contains("runaway deploy"), "{}", told.stderr);
    let changes = history(&server, "p");
    let broken = changes.iter().find(|change| change["kind"] == "broken").unwrap();
    let person = broken["owner"]["person"].as_str().unwrap();
    assert!(person.starts_with("ada") && broken["reason"] == "runaway deploy", "{broken}");
    assert_eq!(server.pool("p")["items"][0]["holders"][0]["owner"]["build_id"], "2", "the new hold is not affected");
}

#[test]
fn story_44_a_reservation_joins_the_queue_is_shown_and_expires() {
    let server = Server::start_with("memory:", &["--drain", "0s"], &[]);
    let build = Build::new(&server, 1, "p");
    build.out(&json!({"acquire": true})).ok();
    let mut command = server.cli_command();
    let args = ["claim", "p", "--lock", "p", "--ttl", "2s", "--reason", "mine next"];
    let waiter = crate::support::Running::start(command.args(args), b"");
    server.until_waiting("p", 1);
    build.out(&json!({"release": "build"})).ok();
    let id = waiter.finish().ok().stdout.trim().to_owned();
    let (_, claim) = server.api("GET", &format!("/claims/{id}"), &Value::Null);
    if claim["state"] == "held" {
        assert_eq!((&claim["scope"], &claim["ttl"]), (&json!("person"), &json!("2s")));
        assert!(claim["held_until"].is_string() && claim["reason"] == "mine next", "{claim}");
    }
    assert_eq!(ended(&server, &id), "lost");
}

#[test]
fn locks_are_taken_out_of_service_and_waiters_moved_by_hand() {
    let server = Server::start();
    server.cli(&["lock", "quarantine", "p", "p", "--reason", "disk full"]).failed(4, "no pool");
    server.cli(&["pool", "set", "p", "--capacity", "1"]).ok();
    server.cli(&["lock", "quarantine", "p", "1", "--reason", "disk full"]).ok();
    server.cli(&["status", "p"]).ok().printed("disk full").printed("quarantined");
    let (first, second) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    let versions = first.check(None);
    let one = first.put(&json!({"acquire": true, "as": "x"}));
    server.until_waiting("p", 1);
    let two = second.put(&json!({"acquire": true, "as": "x"}));
    server.until_waiting("p", 2);
    let id = server.pool("p")["queue"][1]["claim"].as_str().unwrap().to_owned();
    server.cli(&["queue", "move", &id, "--first", "--reason", "hotfix"]).ok();
    assert_eq!(server.pool("p")["queue"][0]["claim"], json!(id));
    let other = server.pool("p")["queue"][1]["claim"].as_str().unwrap().to_owned();
    server.cli(&["queue", "cancel", &other, "--reason", "not needed"]).ok();
    one.finish().failed(1, "not needed");
    server.cli(&["lock", "return", "p", "1"]).ok();
    two.finish().ok();
    server.cli(&["queue", "cancel", &id, "--reason", "too late"]).failed(5, "is not waiting");
    assert!(first.check(versions.last().map(String::as_str)).len() >= 3, "quarantined, returned, claimed");
}
