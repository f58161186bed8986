//! A Concourse that runs builds again in place when a worker vanishes: no build works without its lock, and no lock stays
//! with a build that is over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{acquire, ask, build, claim, owner, take, until_ended, watching};
use crate::support::concourse::{Concourse, Fault};
use crate::support::passes::Passes;
use crate::support::{Build, Server, eventually};

/// A Concourse with that setting, and a server that has learned it. Builds of [`Passes`] name it by its alias.
fn rerunning(more: &[&str]) -> (Concourse, Server) {
    let concourse = Concourse::start();
    concourse.says_of_itself(&concourse.url, true);
    let server = watching(&[&format!("url={},alias=https://ci", concourse.url)], more);
    server.until_log("runs builds again when a worker vanishes");
    (concourse, server)
}

fn passes(server: &Server) -> Passes {
    Passes::new(json!({"locker_uri": server.url, "pool": "p"}))
}

fn holder(server: &Server) -> Value {
    server.pool("p")["items"][0]["holders"][0].clone()
}

const RELEASE: fn() -> Value = || json!({"release": "build"});

/// The lock stays with build 1 until that is over, and then goes to build 2 at once, without a drain.
fn until_the_next_build_gets_it(concourse: &Concourse, server: &Server, first: &Value) {
    let waiter = build(server, concourse, 2, "p").put(&acquire("build"));
    server.until_waiting("p", 1);
    assert_eq!(holder(server)["fence"], first["fence"], "the lock stays with the build");
    concourse.build(1, "succeeded");
    let over = Instant::now();
    waiter.finish().ok();
    assert!(over.elapsed() < Duration::from_secs(20), "{:?}", over.elapsed());
    assert_eq!(until_ended(server, first["claim"].as_str().unwrap()), "released");
}

#[test]
fn where_the_worker_of_acquire_is_lost_the_second_pass_finds_the_lock_of_the_first() {
    let (concourse, server) = rerunning(&["--drain", "10m"]);
    concourse.build(1, "started");
    concourse.build(2, "started");
    let mut passes = passes(&server);
    let first = passes.put("acquire", "one", &json!({"acquire": true}));
    let held = holder(&server);
    // The worker vanishes while the task runs: `ensure` runs on another one, and then the plan again.
    passes.lose("one");
    let release = passes.put("release", "two", &RELEASE());
    assert!(release.stderr.contains("given back when this build is over"), "{}", release.stderr);
    assert_ne!(release.version, first.version, "a version of its own");
    let again = passes.put("acquire", "two", &json!({"acquire": true}));
    assert!(again.ran && again.version == first.version, "{}", again.stderr);
    assert!(again.stderr.contains("is running again"), "{}", again.stderr);
    assert_eq!(holder(&server)["fence"], held["fence"], "one hold, not two");
    assert!(!passes.put("release", "two", &RELEASE()).ran, "the release of the first pass is taken as done");
    until_the_next_build_gets_it(&concourse, &server, &held);
}

#[test]
fn where_the_worker_of_the_task_is_lost_the_second_pass_still_has_the_lock() {
    let (concourse, server) = rerunning(&["--drain", "10m"]);
    concourse.build(1, "started");
    concourse.build(2, "started");
    let mut passes = passes(&server);
    passes.put("acquire", "one", &json!({"acquire": true}));
    let held = holder(&server);
    passes.put("release", "one", &RELEASE());
    assert!(!passes.put("acquire", "one", &json!({"acquire": true})).ran, "it is taken as done");
    // The task runs again, and its lock is there. A script that checks its fence goes on.
    let fence = held["fence"].to_string();
    let verified = server.api("GET", &format!("/verify?pool=p&lock=p&fence={fence}"), &Value::Null);
    assert_eq!(verified.0, 200, "{}", verified.1);
    assert!(!passes.put("release", "one", &RELEASE()).ran);
    until_the_next_build_gets_it(&concourse, &server, &held);
}

#[test]
fn the_real_binary_marks_by_directory_and_verifies_and_finds_its_claim_by_name() {
    let (concourse, server) = rerunning(&[]);
    concourse.build(1, "started");
    let step = build(&server, &concourse, 1, "p");
    let named = json!({"acquire": true, "as": "env", "scope": "flow"});
    let version = step.out(&named).ok().version();
    step.get(&version, "p").ok();
    let released = step.out(&json!({"release": "p"})).ok();
    assert!(released.stderr.contains("given back when this build is over"), "{}", released.stderr);
    let noted = released.version();
    assert_eq!(step.check(Some(&noted)).first(), Some(&noted), "listed only because it is given");
    assert!(!step.check(Some(&version)).contains(&noted));
    step.get(&noted, "noted").ok();
    step.out(&json!({"verify": "p"})).ok();
    assert_eq!(step.out(&named).ok().version(), version);
    step.out(&json!({"release": "build", "as": "env"})).ok();
    let held = holder(&server);
    assert_eq!((&held["marked"], &held["fetched"]), (&json!(true), &json!(true)));
    // However the build ends: it has released the lock.
    concourse.build(1, "errored");
    assert_eq!(until_ended(&server, held["claim"].as_str().unwrap()), "released");
    eventually("the lock is free", || (server.pool("p")["free"] == 1).then_some(()));
}

#[test]
fn now_and_delete_act_at_once() {
    let (concourse, server) = rerunning(&[]);
    concourse.build(1, "started");
    let step = build(&server, &concourse, 1, "p");
    step.out(&json!({"acquire": true})).ok();
    step.out(&json!({"release": "build", "now": true})).ok();
    assert_eq!(server.pool("p")["free"], 1);
    // Images of older releases end a claim by `DELETE`.
    let held = take(&server, &concourse, 1, "p", "build");
    assert_eq!(server.api("DELETE", &format!("/claims/{held}"), &Value::Null).1["how"], "released");
    assert_eq!(server.pool("p")["free"], 1);
}

#[test]
fn unlock_marks_too() {
    let (concourse, server) = rerunning(&[]);
    concourse.build(1, "started");
    let step = Build::with_source(&server, 1, &json!({"lock_name": "p"})).var("ATC_EXTERNAL_URL", &concourse.url);
    step.out(&json!({"lock_op": "lock", "key": "k"})).ok();
    let told = step.out(&json!({"lock_op": "unlock", "key": "k"})).ok().stderr;
    assert!(told.contains("given back when this build is over"), "{told}");
    assert_eq!(holder(&server)["marked"], true);
    concourse.build(1, "succeeded");
    eventually("the lock is free", || (server.pool("p")["free"] == 1).then_some(()));
}

#[test]
fn a_concourse_without_the_setting_or_without_a_watch_is_served_as_ever() {
    let concourse = Concourse::start();
    concourse.says_of_itself(&concourse.url, false);
    let watched = watching(&[&concourse.url], &[]);
    watched.until_log("Concourse answers");
    for server in [watched, Server::start()] {
        concourse.build(1, "started");
        let step = build(&server, &concourse, 1, "p");
        step.out(&json!({"acquire": true})).ok();
        let told = step.out(&RELEASE()).ok().stderr;
        assert!(told.contains("released \"p\" of pool \"p\"") && !told.contains("warning"), "{told}");
        assert_eq!(server.pool("p")["free"], 1);
    }
}

#[test]
fn what_a_release_cannot_keep_is_said() {
    let (concourse, server) = rerunning(&[]);
    concourse.build(1, "started");
    concourse.build(2, "started");
    let first = build(&server, &concourse, 1, "p");
    let version = first.out(&json!({"acquire": true})).ok().version();
    // Another build gives it back: that build may run again without the lock.
    let second = build(&server, &concourse, 2, "p");
    second.get(&version, "p").ok();
    let told = second.out(&json!({"release": "p"})).ok().stderr;
    assert!(told.contains("warning:") && told.contains("another build took it"), "{told}");
    // Two steps that ask alike need names to find their own locks again.
    server.api("PUT", "/pools/two", &json!({"capacity": 2}));
    let (one, two) = (build(&server, &concourse, 1, "two"), json!({"acquire": true, "as": "two"}));
    one.out(&json!({"acquire": true})).ok();
    let told = one.out(&two).ok().stderr;
    assert!(!told.contains("warning:"), "it has a name: {told}");
    server.api(
        "DELETE",
        &format!("/claims/{}", server.pool("two")["items"][0]["holders"][0]["claim"].as_str().unwrap()),
        &Value::Null,
    );
    let told = one.out(&json!({"acquire": true})).ok().stderr;
    assert!(told.contains("warning:") && told.contains("as: NAME"), "{told}");
}

#[test]
fn the_setting_is_read_again_and_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", directory.path().join("locker.db").display());
    let concourse = Concourse::start();
    let options = ["--watch-period", "150ms", "--watch-gone", "600ms", "--concourse", &concourse.url];
    let server = Server::start_with(&store, &options, &[]);
    server.until_log("Concourse answers");
    concourse.says_of_itself(&concourse.url, true);
    server.until_log("runs builds again when a worker vanishes");
    drop(server);
    // It starts while the Concourse is away: the last answer counts, also for the builds of marked holds.
    concourse.fails(Fault::Says(503));
    let server = Server::start_with(&store, &options, &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "flow");
    let body = json!({"owner": owner(&concourse, 1)});
    let (status, answer) = server.api("POST", &format!("/claims/{held}/release"), &body);
    assert_eq!((status, &answer["claim"]["marked"], &answer["reruns"]), (200, &json!(true), &json!(true)), "{answer}");
    drop(server);
    let server = Server::start_with(&store, &options, &[]);
    assert_eq!(claim(&server, &held)["marked"], true);
    concourse.well();
    concourse.build(1, "succeeded");
    assert_eq!(until_ended(&server, &held), "released");
}

#[test]
fn another_request_of_the_build_gets_the_lock_that_it_has_marked() {
    let (concourse, server) = rerunning(&[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    let body = json!({"owner": owner(&concourse, 1)});
    server.api("POST", &format!("/claims/{held}/release"), &body);
    let same = ask(&server, "other", &json!({"pool": "p", "scope": "build", "owner": owner(&concourse, 1)}));
    assert_eq!((same.0, &same.1["id"], &same.1["aliases"]), (200, &json!(held), &json!(["other"])), "{}", same.1);
    assert_eq!(claim(&server, "other")["id"], held.as_str());
    let (status, named) = ask(&server, "named", &json!({"pool": "p", "lock": "p", "owner": owner(&concourse, 1)}));
    assert_eq!((status, &named["id"], &named["state"]), (200, &json!("named"), &json!("held")), "{named}");
    assert_eq!(until_ended(&server, &held), "released");
    assert_eq!(claim(&server, "other")["state"], "ended");
}

#[test]
fn a_marked_build_is_asked_about_at_once_and_every_two_seconds() {
    let (concourse, server) = rerunning(&["--watch-period", "10m"]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "flow");
    let before = concourse.asked(1);
    let body = json!({"owner": owner(&concourse, 1)});
    server.api("POST", &format!("/claims/{held}/release"), &body);
    let marked = Instant::now();
    concourse.until_asked(1, 3);
    let moments = concourse.moments();
    let after: Vec<Duration> =
        moments.iter().filter(|(_, id)| *id == 1).skip(before).map(|(at, _)| at.duration_since(marked)).collect();
    assert!(after[0] >= Duration::from_millis(250) && after[2] >= Duration::from_millis(2_500), "{after:?}");
    concourse.build(1, "aborted");
    assert_eq!(until_ended(&server, &held), "released");
}
