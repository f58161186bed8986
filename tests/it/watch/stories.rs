//! Failures of lock tools in Concourse that only a look at the builds can resolve, each under its number.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal::SIGKILL;
use serde_json::json;

use super::{acquire, ask, build, claim, is_held, owner, take, until_clear, until_ended, until_suspect, watching};
use crate::support::concourse::{Concourse, Fault, Row};
use crate::support::{Server, eventually, out_in};

fn until_free(server: &Server, pool: &str) {
    eventually(&format!("pool {pool} is free"), || (server.pool(pool)["free"] == 1).then_some(()));
}

#[test]
fn story_5_a_web_node_dies_after_out_has_ended_and_the_lock_comes_back() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    for (id, scope) in [(1, "build"), (2, "flow")] {
        concourse.build(id.into(), "started");
        // It took the lock, but its output is lost, so no `get` and no release by directory will follow.
        build(&server, &concourse, id, scope).out(&acquire(scope)).ok();
        concourse.until_asked(u64::from(id), 1);
        assert_eq!(server.pool(scope)["free"], 0);
        concourse.build(u64::from(id), "errored");
        until_free(&server, scope);
    }
}

#[test]
fn story_7_a_build_that_runs_again_on_another_worker_does_not_wait_for_itself() {
    let concourse = Concourse::start();
    let server = watching(&[&format!("url={},alias=https://ci", concourse.url)], &[]);
    concourse.build(1, "started");
    // With a name of its own, the second run finds the hold of the first, from any container.
    let named = json!({"acquire": true, "scope": "build", "as": "env"});
    let (first, second) = (out_in("worker-1", &server, &named), out_in("worker-2", &server, &named));
    assert_eq!((first.0, second.0), (0, 0), "{} {}", first.2, second.2);
    assert_eq!(server.pool("p")["items"][0]["holders"][0]["fence"].to_string(), fence(&second.1));
    assert_eq!(fence(&first.1), fence(&second.1), "one hold, not two");
    // Without one it says what to do, and stops if the params say so. The lock comes back when the build ends.
    let unnamed = json!({"acquire": true, "scope": "build", "self_wait": "fail"});
    let (code, _, stderr) = out_in("worker-3", &server, &unnamed);
    assert!(code == 1 && stderr.contains("as:"), "{stderr}");
    concourse.build(1, "errored");
    until_free(&server, "p");
}

/// The fence in the output of `out`.
fn fence(stdout: &str) -> String {
    let printed: serde_json::Value = serde_json::from_str(stdout).unwrap();
    let pairs = printed["metadata"].as_array().unwrap();
    pairs.iter().find(|pair| pair["name"] == "fence").unwrap()["value"].as_str().unwrap().to_owned()
}

#[test]
fn story_8_a_put_whose_version_is_not_saved_leaves_no_lock_behind() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "started");
    build(&server, &concourse, 1, "p").out(&acquire("build")).ok();
    // The step fails although it took the lock, and so does the build.
    concourse.build(1, "failed");
    until_free(&server, "p");
    concourse.build(2, "started");
    build(&server, &concourse, 2, "p").out(&acquire("build")).ok();
}

#[test]
fn story_9_after_a_forced_abort_nobody_gets_the_lock_before_the_drain_is_over() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--drain", "2s"]);
    concourse.build(1, "started");
    concourse.build(2, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    let waiter = build(&server, &concourse, 2, "p").put(&acquire("build"));
    server.until_waiting("p", 1);
    let aborted = Instant::now();
    // `fly abort-build --force`: aborted at once, while the task's container still runs.
    concourse.build(1, "aborted");
    assert_eq!(until_ended(&server, &held), "build_over");
    let state = server.pool("p")["items"][0]["state"].clone();
    assert!(state == "draining" || aborted.elapsed() > Duration::from_secs(1), "{state}");
    waiter.finish().ok();
    assert!(
        aborted.elapsed() >= Duration::from_secs(2),
        "{:?}: what is left of the build has its time to end",
        aborted.elapsed()
    );
}

#[test]
fn story_10_concourse_is_away_for_an_hour() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--watch-timeout", "1s"]);
    for id in 1..=2_u32 {
        concourse.build(id.into(), "started");
    }
    let (build_scope, flow) = (take(&server, &concourse, 1, "p", "build"), take(&server, &concourse, 2, "q", "flow"));
    concourse.until_asked(1, 1);
    let since = until_suspect_twice(&server, &concourse, &build_scope);
    for fault in [Fault::Says(401), Fault::Says(404), Fault::Says(500), Fault::BadJson] {
        let before = concourse.infos() + concourse.moments().len();
        concourse.fails(fault.clone());
        eventually("some more questions", || {
            (concourse.infos() + concourse.moments().len() >= before + 3).then_some(())
        });
        assert!(is_held(&server, &build_scope) && is_held(&server, &flow), "{fault:?}: not knowing is not death");
    }
    assert_eq!(claim(&server, &build_scope)["suspect"]["since"], since, "one outage, one beginning");
    concourse.well();
    until_clear(&server, &build_scope);
    until_clear(&server, &flow);
    assert!(is_held(&server, &build_scope) && is_held(&server, &flow));
}

/// Makes Concourse refuse connections. Waits until the hold is suspect and the log says why. Returns since when.
fn until_suspect_twice(server: &Server, concourse: &Concourse, held: &str) -> serde_json::Value {
    concourse.fails(Fault::Refuses);
    let since = until_suspect(server, held, "no answer")["since"].clone();
    server.until_log("Concourse does not answer");
    since
}

#[test]
fn story_11_a_pending_build_is_alive() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "pending");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 5);
    assert!(is_held(&server, &held) && claim(&server, &held)["suspect"].is_null());
}

#[test]
fn story_12_names_may_change_while_a_lock_is_held_and_only_a_build_that_has_gone_is_over() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    let changes: [(&str, fn(&mut Row)); 4] = [
        ("the team was renamed", |row| row.team = "other".into()),
        ("the pipeline was renamed", |row| row.pipeline = Some("other".into())),
        ("the job left the pipeline", |row| row.job = None),
        ("it has other instance vars", |row| row.instance_vars = Some(json!({"branch": "main"}))),
    ];
    for (what, change) in changes {
        concourse.change(1, change);
        concourse.until_asked(1, 3);
        assert!(is_held(&server, &held) && claim(&server, &held)["suspect"].is_null(), "{what}");
    }
    // If the pipeline is archived, running builds go on. If it is destroyed, the row is gone.
    concourse.destroy(1);
    assert_eq!(until_ended(&server, &held), "build_over");
    until_free(&server, "p");
}

#[test]
fn story_13_a_flow_outlives_the_build_that_began_it_and_ends_by_its_ttl_for_all_to_see() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "started");
    let a = build(&server, &concourse, 1, "p");
    let version = a.out(&json!({"acquire": true, "ttl": "6s"})).ok().version();
    a.get(&version, "p").ok();
    let held = server.pool("p")["items"][0]["holders"][0]["claim"].as_str().unwrap().to_owned();
    concourse.build(1, "succeeded");
    concourse.build(2, "started");
    take(&server, &concourse, 2, "clock", "build");
    concourse.until_asked(2, 3);
    assert!(is_held(&server, &held), "job B may still run");
    // B never runs.
    assert_eq!(until_ended(&server, &held), "lost");
    let changes = server.api("GET", "/pools/p/changes", &json!(null)).1;
    assert!(changes.to_string().contains(r#""kind":"lost""#), "{changes}");
    until_free(&server, "p");
}

#[test]
fn story_18_a_ticket_of_a_dead_build_blocks_nobody() {
    let concourse = Concourse::start();
    // Silent waiters are not passed over here: only the watch can remove the dead one.
    let server = watching(&[&concourse.url], &["--listen-window", "10m", "--place", "1h"]);
    for id in 1..=3_u32 {
        concourse.build(id.into(), "started");
    }
    let held = take(&server, &concourse, 1, "p", "build");
    let dead = ask(&server, "dead", &json!({"pool": "p", "owner": owner(&concourse, 2)}));
    assert_eq!(dead.0, 423, "{}", dead.1);
    let next = build(&server, &concourse, 3, "p").put(&acquire("build"));
    server.until_waiting("p", 2);
    concourse.until_asked(2, 2);
    assert_eq!(server.pool("p")["waiting"], 2, "a build that is alive keeps its ticket");
    concourse.build(2, "aborted");
    assert_eq!(until_ended(&server, "dead"), "build_over");
    server.api("DELETE", &format!("/claims/{held}"), &json!(null));
    next.finish().ok();
    // A worker that vanishes also leaves a silent ticket.
    let vanished = build(&server, &concourse, 1, "p").put(&acquire("build"));
    server.until_waiting("p", 1);
    vanished.signal(SIGKILL);
    vanished.finish();
    concourse.build(1, "errored");
    server.until_waiting("p", 0);
}
