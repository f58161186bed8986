//! The status table, for every kind of claim.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ask, build, claim, is_held, owner, take, until_ended, watching};
use crate::support::concourse::Concourse;
use crate::support::eventually;

#[test]
fn pending_and_started_builds_keep_their_holds() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    for (id, status) in [(1, "started"), (2, "pending")] {
        concourse.build(u64::from(id), status);
        let held = take(&server, &concourse, id, status, "build");
        concourse.until_asked(u64::from(id), 4);
        let claim = claim(&server, &held);
        assert_eq!((&claim["state"], &claim["suspect"]), (&json!("held"), &json!(null)), "{claim}");
    }
}

#[test]
fn finished_builds_lose_their_holds_and_the_lock_comes_back_after_the_drain() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    for (id, status) in [(1, "succeeded"), (2, "failed"), (3, "errored"), (4, "aborted")] {
        concourse.build(u64::from(id), "started");
        let held = take(&server, &concourse, id, status, "build");
        concourse.until_asked(u64::from(id), 1);
        assert!(is_held(&server, &held));
        concourse.build(u64::from(id), status);
        assert_eq!(until_ended(&server, &held), "build_over", "{status}");
        eventually("the lock is free", || (server.pool(status)["free"] == 1).then_some(()));
    }
    let log = server.log();
    assert!(log.contains("the build is over") && log.contains("aborted"), "{log}");
}

#[test]
fn a_missing_build_is_gone_only_after_a_while() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--watch-gone", "4s"]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 1);
    concourse.destroy(1);
    concourse.until_asked(1, 2);
    let missing = Instant::now();
    // It is not suspect: the answer is certain, but not old enough yet.
    let now = claim(&server, &held);
    assert!(now["state"] == "held" && now["suspect"].is_null(), "{now}");
    assert_eq!(until_ended(&server, &held), "build_over");
    assert!(missing.elapsed() > Duration::from_secs(2), "4 s after the first 404, which was two questions ago");
    assert!(concourse.infos() >= 2, "the server checked whether the 404 came from Concourse");
}

#[test]
fn a_briefly_missing_build_is_not_gone() {
    let concourse = Concourse::start();
    // Longer than each absence, but shorter than all of them together.
    let server = watching(&[&concourse.url], &["--watch-gone", "2s"]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    for _ in 0..8 {
        concourse.destroy(1);
        concourse.until_asked(1, 2);
        concourse.build(1, "started");
        concourse.until_asked(1, 2);
    }
    assert!(is_held(&server, &held));
}

#[test]
fn a_404_from_another_server_is_not_believed() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 1);
    // A proxy that has lost Concourse answers 404 to everything.
    concourse.fails(crate::support::concourse::Fault::Says(404));
    super::until_suspect(&server, &held, "404 for a build, which is not believed");
    concourse.well();
    super::until_clear(&server, &held);
    // The address leads to another Concourse, which has other builds.
    concourse.says_of_itself("https://other.example.com", false);
    concourse.destroy(1);
    super::until_suspect(&server, &held, "another Concourse answers, https://other.example.com");
    assert!(is_held(&server, &held));
    concourse.says_of_itself(&concourse.url, false);
    assert_eq!(until_ended(&server, &held), "build_over");
}

#[test]
fn claims_that_wait_or_are_granted_end_with_their_build_whatever_their_scope() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--confirm", "35s"]);
    for (id, scope) in [(1, "flow"), (2, "build"), (3, "person")] {
        concourse.build(u64::from(id), "started");
        let owner = owner(&concourse, id);
        let (first, second) = (format!("granted-{id}"), format!("waiting-{id}"));
        let granted = ask(&server, &first, &json!({"pool": scope, "scope": scope, "confirm": true, "owner": owner}));
        assert_eq!((granted.0, &granted.1["state"]), (200, &json!("granted")), "{granted:?}");
        let waiting = ask(&server, &second, &json!({"pool": scope, "scope": scope, "owner": owner}));
        assert_eq!(waiting.0, 423, "{waiting:?}");
        concourse.until_asked(u64::from(id), 2);
        concourse.build(u64::from(id), "aborted");
        assert_eq!([until_ended(&server, &first), until_ended(&server, &second)], ["build_over", "build_over"]);
        let late = json!({"fence": granted.1["fence"]});
        let late = server.api("POST", &format!("/claims/{first}/confirm"), &late);
        assert_eq!((late.0, &late.1["code"]), (410, &json!("ended")), "a late confirm");
        assert_eq!(ask(&server, &second, &json!({"pool": scope, "scope": scope, "owner": owner})).0, 410);
        eventually("a grant that nobody confirmed needs no drain", || (server.pool(scope)["free"] == 1).then_some(()));
    }
}

#[test]
fn a_flow_hold_that_nobody_fetched_ends_when_its_build_was_cut_short() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(99, "started");
    take(&server, &concourse, 99, "clock", "build");
    // Which holds end: one that nobody fetched, and one that only the get of the same build fetched.
    for (id, status, ends, own_ends) in [
        (1, "aborted", true, true),
        (2, "errored", true, true),
        (3, "succeeded", false, false),
        (4, "failed", true, false),
    ] {
        concourse.build(u64::from(id), "started");
        let [undelivered, own, delivered, kept] = ["u", "o", "d", "k"].map(|pool| format!("{pool}-{status}"));
        server.cli(&["pool", "set", &kept, "--capacity", "1", "--cut-short", "keep"]).ok();
        build(&server, &concourse, id, &undelivered).out(&super::acquire("flow")).ok();
        for (pool, by) in [(&own, id), (&delivered, 99), (&kept, id)] {
            let version = build(&server, &concourse, id, pool).out(&super::acquire("flow")).ok().version();
            build(&server, &concourse, by, pool).get(&version, "lock").ok();
        }
        concourse.until_asked(u64::from(id), 1);
        concourse.build(u64::from(id), status);
        if own_ends {
            eventually("it ends", || (server.pool(&own)["free"] == 1).then_some(()));
        }
        if ends {
            eventually("it ends", || (server.pool(&undelivered)["free"] == 1).then_some(()));
            let how = server.api("GET", &format!("/pools/{undelivered}/changes"), &json!(null)).1;
            assert!(how.to_string().contains("undelivered"), "{how}");
        }
        // Nothing of this build is left to ask about: the holds that stay outlive it.
        eventually("the server does not ask about it", || {
            let before = concourse.asked(u64::from(id));
            concourse.until_asked(99, 3);
            (concourse.asked(u64::from(id)) == before).then_some(())
        });
        assert_eq!(server.pool(&delivered)["free"], 0, "{status}: delivered");
        assert_eq!(server.pool(&kept)["free"], 0, "{status}: kept");
        assert_eq!(server.pool(&own)["free"], u64::from(own_ends), "{status}: fetched by its own build");
        assert_eq!(server.pool(&undelivered)["free"], u64::from(ends), "{status}: not fetched");
    }
}

#[test]
fn a_hold_that_outlives_its_build_says_how_and_when_that_ended() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    for (id, pool, by, shown) in [
        (1, "succeeded", 1, "its build succeeded 5 min ago"),
        (2, "failed", 2, "its build failed 5 min ago"),
        (3, "aborted", 9, "its build was aborted 5 min ago"),
    ] {
        concourse.build(u64::from(id), "started");
        let owner = build(&server, &concourse, id, pool);
        let version = owner.out(&super::acquire("flow")).ok().version();
        build(&server, &concourse, by, pool).get(&version, "lock").ok();
        let how = shown.split(' ').rev().nth(3).unwrap();
        concourse.ended_build(u64::from(id), how, 301);
        let told = eventually("the server knows the end", || {
            let lock = server.api("GET", &format!("/pools/{pool}"), &json!(null)).1;
            let holder = lock["items"][0]["holders"][0].clone();
            assert!(holder.is_object(), "the hold stays: {lock}");
            holder["build_ended"].is_object().then_some(holder)
        });
        let claim = claim(&server, told["claim"].as_str().unwrap());
        assert_eq!((&claim["build_ended"]["how"], &claim["build_over"]), (&json!(how), &json!(true)), "{claim}");
        let status = server.cli(&["status", pool]).ok().stdout;
        assert!(status.contains(shown), "{status}");
        for page in [format!("/pools/{pool}"), format!("/claims/{}", claim["id"].as_str().unwrap())] {
            let page = server.call(&format!("GET {page}"), "");
            assert!(page.text().contains(shown), "{}", page.text());
        }
        let waits = build(&server, &concourse, 9, pool).out(&json!({"acquire": true, "queue": false}));
        assert!(waits.stderr.contains(shown), "{}", waits.stderr);
    }
    let asked = concourse.asked(1);
    concourse.build(4, "started");
    take(&server, &concourse, 4, "clock", "build");
    concourse.until_asked(4, 30);
    assert!(concourse.asked(1) <= asked + 1, "nobody asks about a build again that is over");
}

#[test]
fn a_person_and_a_program_are_not_watched_and_hold_on() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "person");
    concourse.build(1, "aborted");
    server.cli(&["claim", "q"]).ok();
    concourse.build(2, "started");
    let other = take(&server, &concourse, 2, "r", "build");
    concourse.until_asked(2, 3);
    assert!(is_held(&server, &held) && is_held(&server, &other));
    assert_eq!((server.pool("q")["free"].as_u64(), concourse.asked(1)), (Some(0), 0));
}

#[test]
fn one_question_for_each_build_however_many_claims_and_evenly_spread() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--watch-period", "1s"]);
    for id in 1..=20 {
        concourse.build(u64::from(id), "started");
        for pool in ["p", "q", "r"] {
            take(&server, &concourse, id, &format!("{pool}{id}"), "build");
        }
    }
    let (start, before) = (Instant::now(), concourse.moments().len());
    concourse.until_asked(1, 4);
    let periods = start.elapsed().as_millis().div_ceil(1000);
    let asked: Vec<_> = concourse.moments()[before..].to_vec();
    for id in 1..=20 {
        let of_build = asked.iter().filter(|(_, of)| *of == id).count() as u128;
        assert!(of_build <= periods + 1, "{of_build} questions about build {id} in {periods} periods");
    }
    let mut moments: Vec<u128> = asked.iter().map(|(at, _)| (*at - start).as_millis() / 250).collect();
    moments.dedup();
    assert!(moments.len() > 8, "every quarter of a period has some of the questions, not all at once: {moments:?}");
}

#[test]
fn a_restart_forgets_nothing() {
    let concourse = Concourse::start();
    let options = ["--concourse", &concourse.url];
    let options: Vec<&str> = super::SHORT.iter().chain(&options).copied().collect();
    let mut server = super::Server::start_with("sqlite", &options, &[]);
    concourse.build(1, "started");
    concourse.build(2, "started");
    let (one, two) = (take(&server, &concourse, 1, "p", "build"), take(&server, &concourse, 2, "q", "build"));
    concourse.until_asked(2, 1);
    server.kill();
    concourse.build(1, "succeeded");
    server.again();
    assert_eq!(until_ended(&server, &one), "build_over");
    assert!(is_held(&server, &two));
}
