//! What goes wrong with lock tools in Concourse, as tests: failures of builds, servers and the protocol that the
//! resource must survive. Each test has the name of its story.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use crate::support::proxy::{Act, Proxy};
use crate::support::{Build, Impostor, Server, eventually, out_in};
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use serde_json::{Value, json};

fn acquire() -> Value {
    json!({"acquire": true})
}

fn release_build() -> Value {
    json!({"release": "build"})
}

fn free(server: &Server, pool: &str) -> u64 {
    server.pool(pool)["free"].as_u64().unwrap()
}

#[test]
fn story_1_an_aborted_waiter_is_gone_within_a_second_and_never_granted() {
    let server = Server::start();
    let (holder, aborted) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    holder.out(&acquire()).ok();
    let waiter = aborted.put(&acquire());
    server.until_waiting("p", 1);
    waiter.signal(SIGTERM);
    waiter.finish().failed(143, "nothing is held");
    assert_eq!(server.pool("p")["waiting"], 0, "the ticket was gone before the process");
    holder.out(&release_build()).ok();
    assert_eq!(free(&server, "p"), 1, "it was not granted");
}

#[test]
fn story_2_a_client_that_dies_before_it_hears_of_its_grant_holds_nothing() {
    let short = ["--confirm", "1s", "--listen-window", "1s", "--place", "1s"];
    let server = Server::start_with("memory:", &short, &[]);
    let proxy = Proxy::before(&server.url);
    proxy.rule("PUT /api/v1/claims/", Act::StopAnswer);
    let dead = Build::new(&server, 1, "p").at(&proxy.url).put(&acquire());
    proxy.until_stopped();
    dead.signal(SIGKILL);
    dead.finish();
    Build::new(&server, 2, "p").out(&acquire()).ok().said("waiting: ");
    proxy.go();
}

#[test]
fn story_3_a_release_needs_no_artifact_and_nothing_held() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    // The acquire was aborted, so there is no directory. The pool does not even exist.
    build.out(&release_build()).ok().said("nothing to do");
    build.out(&acquire()).ok();
    build.out(&release_build()).ok().said("released \"p\"");
    build.out(&release_build()).ok().said("nothing to do");
    let dir = build.out(&json!({"release": "p"})).failed(1, "this put has no input \"p\"");
    assert!(!dir.stderr.contains("No such file"), "{}", dir.stderr);
}

#[test]
fn story_4_a_release_gives_up_by_itself_when_the_server_hangs() {
    let server = Server::start();
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let build = Build::new(&server, 1, "p").var("LOCKER_RELEASE_LIMIT", "1s");
    let build = build.at(&format!("http://{}", hung.local_addr().unwrap()));
    let start = Instant::now();
    build.out(&release_build()).failed(1, "gave up after 1s");
    assert!(start.elapsed() < Duration::from_secs(4), "1 s, with a margin for a busy machine");
}

#[test]
fn story_6_out_that_runs_again_in_its_container_finds_its_hold() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "3"]).ok();
    let build = Build::new(&server, 1, "p");
    let first = build.out(&acquire()).ok();
    let again = build.out(&acquire()).ok();
    assert_eq!(
        first.stdout.replace(&first.metadata("waited").unwrap(), ""),
        again.stdout.replace(&again.metadata("waited").unwrap(), "")
    );
    assert_eq!(free(&server, "p"), 2, "one hold, not two");
    // The same when the first one was killed after its hold began, before it read the answer.
    let proxy = Proxy::before(&server.url);
    let other = Build::new(&server, 2, "p").at(&proxy.url);
    proxy.rule("/confirm", Act::StopAnswer);
    let dead = other.put(&acquire());
    proxy.until_stopped();
    dead.signal(SIGKILL);
    dead.finish();
    proxy.go();
    other.out(&acquire()).ok();
    assert_eq!(free(&server, "p"), 1);
}

#[test]
fn story_14_a_lock_of_another_flow_is_refused_when_its_hold_is_over() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let (one, two) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    let of_one = one.out(&acquire()).ok();
    let of_two = two.out(&acquire()).ok();
    assert_ne!(of_one.version(), of_two.version(), "each acquire has a version of its own");
    one.out(&release_build()).ok();
    // Build 3 of a later job gets the version of build 1, although build 2 holds now.
    let late = Build::new(&server, 3, "p");
    late.get(&of_one.version(), "p").failed(1, "error: lock instance is no longer acquired");
    late.get(&of_two.version(), "q").ok();
    assert_eq!(
        std::fs::read_to_string(late.input("q").join("fence")).unwrap().trim(),
        of_two.metadata("fence").unwrap()
    );
}

#[test]
fn story_15_only_the_get_of_an_ended_hold_fails() {
    let server = Server::start();
    let (one, two) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    let claimed = one.out(&acquire()).ok().version();
    let released = one.out(&release_build()).ok().version();
    let reclaimed = two.out(&acquire()).ok().version();
    one.get(&claimed, "a").failed(1, "error: lock instance is no longer acquired").said("released at ");
    one.get(&released, "b").ok();
    two.get(&reclaimed, "c").ok();
}

#[test]
fn story_16_a_put_that_runs_out_of_time_leaves_the_queue() {
    let server = Server::start();
    let holder = Build::new(&server, 1, "p");
    holder.out(&acquire()).ok();
    // Concourse's own timeout is a SIGTERM.
    let timed_out = Build::new(&server, 2, "p").put(&acquire());
    server.until_waiting("p", 1);
    let next = Build::new(&server, 3, "p").put(&acquire());
    server.until_waiting("p", 2);
    timed_out.signal(SIGTERM);
    timed_out.finish().failed(143, "nothing is held");
    server.until_waiting("p", 1);
    Build::new(&server, 4, "p").out(&json!({"acquire": true, "timeout": "200ms"})).failed(1, "place 2 in the queue");
    holder.out(&release_build()).ok();
    next.finish().ok();
}

#[test]
fn story_17_waiters_need_not_pile_up() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "1", "--max-queue", "1"]).ok();
    Build::new(&server, 1, "p").out(&acquire()).ok();
    let start = Instant::now();
    let now_or_never = Build::new(&server, 2, "p").out(&json!({"acquire": true, "queue": false}));
    now_or_never.failed(1, "queue: false says not to wait; held: \"1\" by main/app/deploy #1");
    assert!(start.elapsed() < Duration::from_secs(5));
    let waiter = Build::new(&server, 3, "p").put(&acquire());
    server.until_waiting("p", 1);
    let over_the_cap = Build::new(&server, 4, "p").out(&json!({"acquire": true, "timeout": "500ms"}));
    over_the_cap.failed(1, "queue of pool \"p\" is full");
    assert_eq!(server.pool("p")["waiting"], 1);
    drop(waiter);
}

#[test]
fn story_19_a_check_without_a_good_answer_says_nothing_on_stdout() {
    let mut server = Server::start();
    let payload = |url: &str| json!({"source": {"locker_uri": url, "pool": "p"}}).to_string();
    let build = Build::new(&server, 1, "p");
    let answers = [
        ("502 Bad Gateway", "oops", "status 502"),
        ("200 OK", "[\"not ours\"]", "does not come from a locker server"),
        ("401 Unauthorized", r#"{"error":"who?","code":"unauthorized"}"#, "who? (unauthorized)"),
    ];
    for (status, body, text) in answers {
        let done = build.raw("check", None, payload(&Impostor::says(status, body).url).as_bytes()).failed(1, text);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    }
    let url = server.url.clone();
    server.kill();
    build.raw("check", None, payload(&url).as_bytes()).failed(1, "no answer from the locker server");
}

#[test]
fn story_20_a_change_of_one_lock_is_no_version_of_another_pool() {
    let server = Server::start();
    let source = |name: &str| json!({"lock_name": name});
    let (x, y) = (Build::with_source(&server, 1, &source("x")), Build::with_source(&server, 1, &source("y")));
    let lock = |key: &str| json!({"lock_op": "lock", "key": key});
    let of_y = y.out(&lock("k")).ok().version();
    x.out(&lock("k")).ok();
    x.out(&json!({"lock_op": "unlock", "key": "k"})).ok();
    assert_eq!(y.check(Some(&of_y)), std::slice::from_ref(&of_y));
    assert_eq!(y.check(None), [of_y]);
}

#[test]
fn story_22_a_release_whose_answer_was_lost_does_not_touch_the_next_holder() {
    let server = Server::start();
    let proxy = Proxy::before(&server.url);
    let (one, two) = (Build::new(&server, 1, "p").at(&proxy.url), Build::new(&server, 2, "p"));
    let claimed = one.out(&acquire()).ok().version();
    one.get(&claimed, "p").ok();
    let waiter = two.put(&acquire());
    server.until_waiting("p", 1);
    // The release takes effect, but its answer is lost. Another build holds the lock before the retry.
    proxy.rule("/release HTTP", Act::LoseAnswer);
    proxy.rule("/release HTTP", Act::StopRequest);
    let release = one.put(&json!({"release": "p"}));
    proxy.until_stopped();
    let held = waiter.finish().ok();
    proxy.go();
    release.finish().ok();
    let holder = server.pool("p")["items"][0]["holders"][0].clone();
    assert_eq!(holder["fence"].to_string(), held.metadata("fence").unwrap());
    one.out(&json!({"release": "p"})).ok().said("nothing to do");
    assert_eq!(free(&server, "p"), 0);
}

#[test]
fn story_23_an_acquire_whose_answer_was_lost_keeps_its_place() {
    for fault in [Act::LoseAnswer, Act::BadGateway, Act::Twice] {
        let server = Server::start();
        let proxy = Proxy::before(&server.url);
        let holder = Build::new(&server, 1, "p");
        holder.out(&acquire()).ok();
        (0..3).for_each(|_| proxy.rule("PUT ", fault));
        let first = Build::new(&server, 2, "p").var("LOCKER_WAIT", "300ms").at(&proxy.url).put(&acquire());
        server.until_waiting("p", 1);
        let second = Build::new(&server, 3, "p").put(&acquire());
        server.until_waiting("p", 2);
        eventually("three faults", || (proxy.seen("PUT ") > 3).then_some(()));
        holder.out(&release_build()).ok();
        let one = first.finish().ok();
        Build::new(&server, 2, "p").out(&release_build()).ok();
        let two = second.finish().ok();
        let fence = |done: &crate::support::Done| done.metadata("fence").unwrap().parse::<u64>().unwrap();
        assert!(fence(&one) < fence(&two), "{fault:?}");
    }
}

#[test]
fn story_38_a_claim_that_can_never_be_served_fails_at_once() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let build = Build::new(&server, 1, "p");
    let cases = [
        (json!({"claim": "3"}), "pool \"p\" has no lock \"3\""),
        (json!({"acquire": true, "labels": {"size": "big"}}), "no lock of pool \"p\" has size=big"),
        (json!({"acquire": true, "count": 3}), "pool \"p\" has 2 locks, and the claim asks for 3"),
        (json!({"acquire": true, "count": 0}), "params.count: must be a whole number of at least 1"),
        (json!({"claim": "a/b"}), "contains '/'"),
        (json!({"acquire": true, "also": [{"pool": "nowhere", "lock": "x"}]}), "there is no pool \"nowhere\""),
    ];
    for (params, text) in cases {
        build.out(&params).failed(1, text);
    }
    // Names are bytes: case and spaces count.
    server.cli(&["lock", "add", "p", "Env 1"]).ok();
    build.out(&json!({"claim": "env 1"})).failed(1, "has no lock \"env 1\"");
    build.out(&json!({"claim": "Env 1"})).ok();
    assert_eq!(server.pool("p")["waiting"], 0);
}

#[test]
fn story_41_blips_in_a_long_wait_do_not_cost_the_place() {
    let mut server = Server::start_durable();
    let holder = Build::new(&server, 1, "p");
    holder.out(&acquire()).ok();
    // It asks every 300 ms, so that each failure shows up in its log.
    let first = Build::new(&server, 2, "p").var("LOCKER_PROGRESS", "0s").var("LOCKER_WAIT", "300ms").put(&acquire());
    server.until_waiting("p", 1);
    let second = Build::new(&server, 3, "p").put(&acquire());
    server.until_waiting("p", 2);
    let said = |text: &str| first.stderr().matches(text).count();
    for _ in 0..3 {
        let (away, waits) = (said("no answer from the locker server"), said("waiting: place 1"));
        server.kill();
        eventually("the blip is noticed", || (said("no answer from the locker server") > away).then_some(()));
        server.again();
        eventually("it waits in its old place", || (said("waiting: place 1") > waits).then_some(()));
    }
    holder.out(&release_build()).ok();
    first.finish().ok();
    assert!(server.pool("p")["waiting"] == 1, "{}", second.stderr());
}

#[test]
fn story_42_a_refused_client_learns_it_at_once() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "secret")]);
    let start = Instant::now();
    Build::new(&server, 1, "p").out(&acquire()).failed(1, "unauthorized");
    let forbidden = Impostor::says("403 Forbidden", r#"{"error":"not for you","code":"forbidden"}"#);
    Build::new(&server, 1, "p").at(&forbidden.url).out(&acquire()).failed(1, "not for you (forbidden)");
    // A code that this release does not know is final, too.
    let new = Impostor::says("418 Teapot", r#"{"error":"no tea","code":"no_teapot"}"#);
    Build::new(&server, 1, "p").at(&new.url).out(&acquire()).failed(1, "no tea (no_teapot)");
    assert!(start.elapsed() < Duration::from_secs(20), "no back-off");
}

#[test]
fn story_46_every_kind_of_re_run_must_get_the_lock() {
    let server = Server::start();
    let first = Build::new(&server, 1, "p");
    let hold = first.out(&acquire()).ok();
    // A re-run is another build: it waits like any other.
    let re_run = Build::new(&server, 2, "p");
    re_run.out(&json!({"acquire": true, "timeout": "200ms"})).failed(1, "held: \"p\" by main/app/deploy #1");
    first.out(&release_build()).ok();
    // After a release the same step takes the lock again, with a larger fence and a new version.
    let again = first.out(&acquire()).ok();
    let fence = |done: &crate::support::Done| done.metadata("fence").unwrap().parse::<u64>().unwrap();
    assert!(fence(&again) > fence(&hold) && again.version() != hold.version());
    first.out(&release_build()).ok();

    // An attempt in another container does not find the hold of the previous one, and says why it fails ...
    let (code, ..) = out_in("attempt-1", &server, &acquire());
    assert_eq!(code, 0);
    let (code, stdout, stderr) = out_in("attempt-2", &server, &json!({"acquire": true, "timeout": "20s"}));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("as: NAME"), "{stderr}");
    let (code, ..) = out_in("attempt-2", &server, &release_build());
    assert_eq!(code, 0);
    // ... with a name, it finds it.
    let named = json!({"acquire": true, "as": "env"});
    let version = |stdout: &str| serde_json::from_str::<Value>(stdout).unwrap()["version"].clone();
    let one = out_in("attempt-1", &server, &named);
    let two = out_in("attempt-2", &server, &named);
    assert_eq!((one.0, version(&one.1)), (two.0, version(&two.1)));
}
