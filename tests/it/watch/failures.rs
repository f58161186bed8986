//! Every way in which a Concourse fails: the hold stays and is marked as suspect, with the reason, until its build is
//! seen again.

use std::time::Duration;

use serde_json::json;

use super::{build, claim, is_held, owner, take, until_clear, until_ended, until_suspect, watching};
use crate::support::concourse::{Concourse, Fault};
use crate::support::eventually;

/// The timeout of one question. It is short where the test waits for silence.
const IMPATIENT: [&str; 2] = ["--watch-timeout", "1s"];

#[test]
fn every_failure_keeps_the_hold_and_recovery_clears_it() {
    let (concourse, elsewhere) = (Concourse::start(), Concourse::start());
    let server = watching(&[&concourse.url], &IMPATIENT);
    concourse.build(1, "started");
    elsewhere.build(1, "aborted");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 1);
    let faults = [
        (Fault::Silent, "no answer"),
        (Fault::Refuses, "no answer"),
        (Fault::Slow(Duration::from_secs(5)), "no answer"),
        (Fault::Trickles, "no answer"),
        (Fault::Cut, "no answer"),
        (Fault::Endless, "no answer"),
        (Fault::Says(401), "401"),
        (Fault::Says(403), "role viewer"),
        (Fault::Says(500), "500"),
        (Fault::SaysForBuilds(500), "500"),
        (Fault::Says(502), "502"),
        (Fault::Says(503), "503"),
        (Fault::Says(429), "429"),
        (Fault::Says(400), "400, which Concourse does not say here"),
        (Fault::Says(204), "204"),
        (Fault::BadJson, "not Concourse's"),
        (Fault::OtherJson, "not Concourse's"),
        (Fault::Redirects(elsewhere.url.clone()), "302: it redirects to http://127.0.0.1"),
    ];
    for (fault, why) in faults {
        concourse.fails(fault.clone());
        let suspect = until_suspect(&server, &held, why);
        assert!(suspect["since"].as_str().unwrap().starts_with("20"), "{fault:?}: {suspect}");
        assert!(is_held(&server, &held), "{fault:?}");
        concourse.well();
        until_clear(&server, &held);
    }
    assert_eq!(elsewhere.asked(1), 0, "no redirect is followed to another host");
    concourse.build(1, "succeeded");
    assert_eq!(until_ended(&server, &held), "build_over");
}

#[test]
fn a_suspect_build_is_logged_once_and_so_is_its_return() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    let lines = |text: &str| server.log().lines().filter(|line| line.contains(text)).count();
    concourse.until_asked(1, 1);
    concourse.fails(Fault::Says(403));
    until_suspect(&server, &held, "403");
    concourse.until_asked(1, 3);
    assert_eq!(lines("not known whether these builds are alive"), 1, "{}", server.log());
    concourse.well();
    until_clear(&server, &held);
    concourse.until_asked(1, 3);
    assert_eq!(lines("it is no longer suspect"), 1, "{}", server.log());
}

#[test]
fn an_outage_changes_only_messages_and_ends_by_itself() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    for id in 1..=4_u32 {
        concourse.build(u64::from(id), "started");
    }
    let scopes = [(1, "build"), (2, "build"), (3, "flow")];
    let held = scopes.map(|(id, scope)| take(&server, &concourse, id, &format!("p{id}"), scope));
    concourse.until_asked(1, 1);
    concourse.fails(Fault::Refuses);
    held.iter().for_each(|id| drop(until_suspect(&server, id, "no answer")));
    server.until_log("Concourse does not answer: all holds stay");
    // It is shown wherever a hold is shown: in its claim, its pool, the answer to a waiter, the command line, a build
    // log.
    let suspect = &server.pool("p1")["items"][0]["holders"][0]["suspect"];
    assert!(suspect["why"].as_str().is_some_and(|why| why.contains("no answer")), "{suspect}");
    let body = json!({"pool": "p1", "owner": owner(&concourse, 4)});
    let waiting = super::ask(&server, "waiter", &body);
    assert_eq!(waiting.0, 423);
    assert!(waiting.1["holders"][0]["suspect"]["since"].is_string(), "{}", waiting.1);
    server.cli(&["status", "p1"]).ok().printed("not known to be alive since");
    let log = build(&server, &concourse, 4, "p2").put(&json!({"acquire": true, "as": "x"}));
    log.until_stderr("not known to be alive since");
    // An hour of this, shortened: the remaining four questions a minute find the same.
    eventually("it is asked less and less often", || (info(&server)["since"].is_string()).then_some(()));
    let since = claim(&server, &held[0])["suspect"]["since"].clone();
    concourse.fails(Fault::Says(503));
    concourse.until_asked(1, 1);
    concourse.until_asked(2, 2);
    assert!(held.iter().all(|id| is_held(&server, id)), "a missing answer frees nothing");
    assert_eq!(claim(&server, &held[0])["suspect"]["since"], since, "since the first failure");
    // In the meantime one of the builds has ended.
    concourse.build(1, "errored");
    concourse.well();
    assert_eq!(until_ended(&server, &held[0]), "build_over");
    held[1..].iter().for_each(|id| until_clear(&server, id));
    server.until_log("Concourse answers again");
    eventually("it works again", || (info(&server)["state"] == "ok" && info(&server)["suspects"] == 0).then_some(()));
}

fn info(server: &super::Server) -> serde_json::Value {
    server.api("GET", "/info", &json!(null)).1["concourses"][0].clone()
}

#[test]
fn a_concourse_that_fails_is_asked_less_and_less_often() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--watch-period", "1s"]);
    for id in 1..=30 {
        concourse.build(u64::from(id), "started");
        take(&server, &concourse, id, &format!("p{id}"), "build");
    }
    concourse.until_asked(30, 1);
    concourse.fails(Fault::SaysForBuilds(503));
    server.until_log("Concourse does not answer");
    let before = concourse.moments().len();
    // The first pauses are 1/15, 2/15, ... of a period. The longest one is 4 periods.
    eventually("some questions while it fails", || (concourse.moments().len() >= before + 5).then_some(()));
    let moments = concourse.moments();
    let gaps: Vec<Duration> = moments[before..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] > pair[0]), "{gaps:?}");
    assert!(moments.len() - before < 20, "it is no longer asked about 30 builds a second");
    concourse.well();
    eventually("all are asked about again", || {
        let suspects = (1..=30).filter(|id| !claim(&server, &format!("p{id}-{id}"))["suspect"].is_null()).count();
        (suspects == 0).then_some(())
    });
}

#[test]
fn one_build_that_may_not_be_seen_does_not_hide_the_others() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.private_build(1, "started");
    concourse.build(2, "started");
    let (one, two) = (take(&server, &concourse, 1, "p", "build"), take(&server, &concourse, 2, "q", "build"));
    until_suspect(&server, &one, "the pipeline is not exposed");
    assert!(claim(&server, &two)["suspect"].is_null());
    concourse.build(2, "failed");
    assert_eq!(until_ended(&server, &two), "build_over");
    assert!(is_held(&server, &one));
    assert_eq!(info(&server)["state"], "ok");
}

#[test]
fn a_server_that_starts_while_concourse_is_away_serves_and_says_so() {
    let concourse = Concourse::start();
    concourse.build(1, "started");
    concourse.fails(Fault::Refuses);
    let server = watching(&[&concourse.url], &[]);
    server.until_log("no good contact with Concourse");
    let held = take(&server, &concourse, 1, "p", "build");
    until_suspect(&server, &held, "no answer");
    assert_eq!(info(&server)["state"], "failing");
    concourse.well();
    until_clear(&server, &held);
    server.until_log("Concourse answers: its builds are watched");
    eventually("it works again", || (info(&server)["state"] == "ok").then_some(()));
}

#[test]
fn a_restart_during_an_outage_frees_nothing() {
    let concourse = Concourse::start();
    let options = ["--concourse", &concourse.url];
    let options: Vec<&str> = super::SHORT.iter().chain(&options).copied().collect();
    let mut server = super::Server::start_with("sqlite", &options, &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 1);
    concourse.fails(Fault::Silent);
    server.kill();
    server.again();
    concourse.fails(Fault::Refuses);
    until_suspect(&server, &held, "no answer");
    assert!(is_held(&server, &held));
    concourse.well();
    until_clear(&server, &held);
}

#[test]
fn an_untrusted_certificate_does_not_count_as_an_answer() {
    use crate::support::certs::{Ca, Files};
    let (ca, other, files) = (Ca::new("ours"), Ca::new("theirs"), Files::new());
    let good = ca.issue(&["127.0.0.1"], "ci");
    let concourse = Concourse::start_tls(&good.cert, &good.key);
    let file = files.write("ca.pem", &ca.pem());
    let server = watching(&[&format!("url={},ca={file}", concourse.url)], &[]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 2);
    assert!(claim(&server, &held)["suspect"].is_null(), "its own authority is trusted");
    let table = [
        (other.issue(&["127.0.0.1"], "ci"), "give the certificate of that authority as ca= in --concourse"),
        (ca.issue(&["elsewhere.example.com"], "ci"), "is not for 127.0.0.1, but for elsewhere.example.com: use one"),
        (ca.issue_expired(&["127.0.0.1"]), "expired on 2021-01-01T00:00:00Z: renew it"),
    ];
    for (bad, text) in table {
        concourse.shows(&bad.cert, &bad.key);
        let suspect = until_suspect(&server, &held, "certificate");
        assert!(suspect["why"].as_str().unwrap().contains(text), "{text}: {suspect}");
        concourse.shows(&good.cert, &good.key);
        until_clear(&server, &held);
    }
    // Without that authority no certificate is trusted, but the server starts.
    let server = watching(&[&concourse.url], &[]);
    server.until_log("no good contact with Concourse");
}
