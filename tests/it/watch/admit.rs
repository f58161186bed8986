//! Which claims the server accepts (`scope: build`, `--verify-builds`), and what it reports about its watch.

use std::time::Duration;

use serde_json::json;

use super::{acquire, ask, build, claim, is_held, owner, take, until_ended, watching};
use crate::support::concourse::{Concourse, Fault};
use crate::support::{Build, Server, eventually};

#[test]
fn scope_build_needs_a_concourse_that_the_server_knows() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    let body =
        |cluster: &str, id: &str| json!({"pool": "p", "scope": "build", "owner": {"cluster": cluster, "build_id": id}});
    let table = [
        ("a", body("https://ci.example.com", "1"), 422, "unknown_concourse", "--concourse https://ci.example.com"),
        ("b", body("rubbish", "1"), 422, "unknown_concourse", "add that URL as an alias"),
        ("c", body(&concourse.url, "x7"), 422, "unprocessable", "must be a number"),
        ("d", body(&format!("{}/", concourse.url.to_uppercase()), "7"), 200, "", ""),
    ];
    for (id, body, status, code, text) in table {
        let (got, answer) = ask(&server, id, &body);
        assert_eq!((got, answer["code"].as_str().unwrap_or_default()), (status, code), "{answer}");
        assert!(answer["error"].as_str().unwrap_or_default().contains(text), "{answer}");
    }
    // Other scopes need no build.
    let other = Build::new(&server, 1, "q");
    other.out(&acquire("build")).failed(1, "unknown_concourse");
    other.out(&acquire("flow")).ok();
    other.out(&json!({"release": "build"})).ok();
}

#[test]
fn scope_build_comes_from_the_param_the_source_or_the_pool() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    server.cli(&["pool", "set", "pool", "--capacity", "1", "--scope", "build"]).ok();
    concourse.build(7, "started");
    let of_source = Build::with_source(&server, 7, &json!({"pool": "source", "scope": "build"}));
    let of_source = of_source.var("ATC_EXTERNAL_URL", &concourse.url);
    let puts = [
        ("param", build(&server, &concourse, 7, "param").out(&acquire("build"))),
        ("source", of_source.out(&json!({"acquire": true}))),
        ("pool", build(&server, &concourse, 7, "pool").out(&json!({"acquire": true}))),
    ];
    let held = puts.map(|(what, done)| (what, done.ok().metadata("claim").unwrap()));
    held.iter().for_each(|(what, id)| assert_eq!(claim(&server, id)["scope"], "build", "{what}"));
    concourse.build(7, "succeeded");
    for (what, id) in &held {
        assert_eq!(until_ended(&server, id), "build_over", "{what}");
    }
    // The scope of the pool is refused like the scope of the claim.
    Build::new(&server, 1, "pool").out(&json!({"acquire": true})).failed(1, "unknown_concourse");
    // The param takes precedence.
    concourse.build(8, "started");
    let flow = build(&server, &concourse, 8, "pool").out(&acquire("flow")).ok().metadata("claim").unwrap();
    assert_eq!(claim(&server, &flow)["scope"], "flow");
}

#[test]
fn a_lock_that_comes_claimed_by_a_build_ends_with_it() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    concourse.build(7, "started");
    let files: [(&str, &[u8]); 2] = [("name", b"env-1"), ("metadata", b"{}")];
    let build = build(&server, &concourse, 7, "p");
    build.input_with("env", &files);
    build.out(&json!({"add_claimed": "env", "scope": "build"})).ok();
    concourse.build(7, "aborted");
    eventually("its hold ends", || (server.pool("p")["free"] == 1).then_some(()));
    let other = Build::new(&server, 1, "q");
    other.input_with("env", &files);
    other.out(&json!({"add_claimed": "env", "scope": "build"})).failed(1, "unknown_concourse");
}

#[test]
fn a_verified_build_may_have_long_instance_vars() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--verify-builds"]);
    let vars = |branch: usize| json!({"text": "<&>", "branch": "b".repeat(branch)});
    for (id, length) in [(7_u32, 900), (8, 1_200), (9, 5_000)] {
        concourse.build(id.into(), "started");
        concourse.change(id.into(), |row| row.instance_vars = Some(vars(length)));
        // Concourse escapes these characters in JSON, and its API sends what a parser reads.
        let said = format!(r#"{{"branch":"{}","text":"\u003c\u0026\u003e"}}"#, "b".repeat(length));
        let step = build(&server, &concourse, id, &format!("p{id}")).var("BUILD_PIPELINE_INSTANCE_VARS", &said);
        step.out(&json!({"acquire": true})).ok();
        let other = said.replace("bb", "bc");
        let forged = build(&server, &concourse, id, "q").var("BUILD_PIPELINE_INSTANCE_VARS", &other);
        forged.out(&json!({"acquire": true})).failed(1, "instance vars of its pipeline differ");
    }
}

#[test]
fn a_verified_build_must_run_and_be_what_it_says() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--verify-builds"]);
    for (id, status) in
        [(1, "started"), (2, "pending"), (3, "succeeded"), (4, "failed"), (5, "errored"), (6, "aborted")]
    {
        concourse.build(id, status);
    }
    concourse.build(7, "started");
    concourse.change(7, |row| row.instance_vars = Some(json!({"branch": "main", "n": 1})));
    let mut asks = Vec::new();
    let mut table = |owner: serde_json::Value, status: u16, text: &'static str| asks.push((owner, status, text));
    let said = |id: u32, field: &str, value: &str| {
        let mut owner = owner(&concourse, id);
        owner[field] = json!(value);
        owner
    };
    table(owner(&concourse, 1), 200, "");
    table(owner(&concourse, 2), 403, "is pending");
    table(owner(&concourse, 3), 403, "is succeeded");
    table(owner(&concourse, 4), 403, "is failed");
    table(owner(&concourse, 5), 403, "is errored");
    table(owner(&concourse, 6), 403, "is aborted");
    table(owner(&concourse, 99), 403, "knows no such build");
    table(said(1, "team", "other"), 403, "its team is \"main\", not \"other\"");
    table(said(1, "pipeline", "other"), 403, "its pipeline is \"app\"");
    table(said(1, "job", "other"), 403, "its job is \"deploy\"");
    table(said(1, "instance_vars", r#"{"branch":"main"}"#), 403, "instance vars");
    table(said(7, "instance_vars", r#"{"n": 1, "branch": "main"}"#), 200, "");
    table(said(7, "instance_vars", r#"{"n": 2, "branch": "main"}"#), 403, "instance vars");
    table(json!({"cluster": "https://ci.example.com", "build_id": "1"}), 422, "this server verifies builds");
    table(json!({"person": "ada"}), 200, "");
    for (n, (owner, status, text)) in asks.into_iter().enumerate() {
        let body = json!({"pool": format!("p{n}"), "owner": owner});
        let (got, answer) = ask(&server, &format!("c{n}"), &body);
        assert_eq!(got, status, "{owner}: {answer}");
        assert!(answer["error"].as_str().unwrap_or_default().contains(text), "{answer}");
        let code = match status {
            403 => json!("build_refused"),
            422 => json!("unknown_concourse"),
            _ => json!(null),
        };
        assert_eq!(answer["code"], code);
    }
    // A step that comes too late fails at once, and does not retry.
    build(&server, &concourse, 6, "q").out(&acquire("flow")).failed(1, "build_refused");
    build(&server, &concourse, 1, "q").out(&acquire("build")).ok();
}

#[test]
fn a_claim_that_cannot_be_verified_retries_and_an_accepted_one_keeps_its_place() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--verify-builds", "--watch-timeout", "1s"]);
    for id in 1..=3 {
        concourse.build(id, "started");
    }
    let held = take(&server, &concourse, 1, "p", "build");
    let before = build(&server, &concourse, 2, "p").put(&acquire("build"));
    server.until_waiting("p", 1);
    for fault in [Fault::Refuses, Fault::Silent, Fault::Says(503), Fault::Says(401), Fault::Says(404), Fault::BadJson] {
        concourse.fails(fault.clone());
        let body = json!({"pool": "q", "owner": owner(&concourse, 3)});
        let (status, answer) = ask(&server, "late", &body);
        assert_eq!((status, &answer["code"]), (503, &json!("concourse_unavailable")), "{fault:?}: {answer}");
    }
    let late = build(&server, &concourse, 3, "p").put(&acquire("build"));
    late.until_stderr("cannot be verified now");
    // A claim that waited before keeps waiting, and asking again is not verified again.
    assert_eq!(server.pool("p")["waiting"], 1);
    assert!(is_held(&server, &held));
    server.api("DELETE", &format!("/claims/{held}"), &json!(null));
    before.finish().ok();
    assert_eq!(server.pool("p")["waiting"], 0);
    concourse.well();
    server.until_waiting("p", 1);
    build(&server, &concourse, 2, "p").out(&json!({"release": "build"})).ok();
    late.finish().ok();
}

#[test]
fn checks_of_builds_do_not_use_up_the_workers() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--verify-builds"]);
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.fails(Fault::Silent);
    std::thread::scope(|scope| {
        let asks: Vec<_> = (2..80)
            .map(|id| {
                let body = json!({"pool": format!("p{id}"), "owner": owner(&concourse, id)});
                let server = &server;
                scope.spawn(move || ask(server, &format!("c{id}"), &body).0)
            })
            .collect();
        // More clients than the server has workers ask at the same time. The server still answers everything else.
        for _ in 0..20 {
            assert!(is_held(&server, &held));
        }
        assert!(asks.into_iter().all(|asked| asked.join().unwrap() == 503));
    });
    concourse.well();
    // One question is enough for claims of the same build that arrive close together.
    concourse.build(100, "started");
    let before = concourse.paths().iter().filter(|path| path.ends_with("/100")).count();
    eventually("the pause after the failure is over", || {
        (ask(&server, "first", &json!({"pool": "x", "owner": owner(&concourse, 100), "scope": "person"})).0 == 200)
            .then_some(())
    });
    let again = |n: usize| json!({"pool": format!("y{n}"), "owner": owner(&concourse, 100), "scope": "person"});
    (0..5).for_each(|n| assert_eq!(ask(&server, &format!("again{n}"), &again(n)).0, 200));
    let asked = concourse.paths().iter().filter(|path| path.ends_with("/100")).count() - before;
    assert!(asked <= 2, "{asked} questions for six claims that no watch asks about");
}

#[test]
fn the_log_says_what_is_watched_and_who_the_server_is_there() {
    let concourse = Concourse::start();
    let server = watching(&[&format!("url={},alias=https://old.example.com", concourse.url)], &[]);
    let line = server.until_log("watching the builds of a Concourse");
    assert!(line.contains(&concourse.url) && line.contains("https://old.example.com"), "{line}");
    server.until_log("Concourse answers: its builds are watched");
    let first = server.log().lines().next().unwrap().to_owned();
    assert!(first.starts_with("locker ") && first.contains(" listening on "), "{first}");
}

fn doctor(server: &Server, concourse: &Concourse) -> String {
    let mut command = server.cli_command();
    command.env("ATC_EXTERNAL_URL", &concourse.url).arg("doctor");
    crate::support::Running::start(&mut command, b"").finish().ok().stdout
}

#[test]
fn a_concourse_that_re_runs_builds_is_known_as_one() {
    let concourse = Concourse::start();
    concourse.says_of_itself(&concourse.url, true);
    let server = watching(&[&concourse.url], &[]);
    server.until_log("runs builds again when a worker vanishes");
    let told = doctor(&server, &concourse);
    assert!(!told.contains("warn  builds") && told.contains("runs builds again when a worker vanishes"), "{told}");
    assert!(told.contains("is among them"), "{told}");
    // The server checks it again when it comes back, because it may have another version.
    concourse.says_of_itself(&concourse.url, false);
    concourse.build(1, "started");
    take(&server, &concourse, 1, "p", "build");
    concourse.fails(Fault::Says(503));
    server.until_log("Concourse does not answer");
    assert!(doctor(&server, &concourse).contains("has been unable to see the builds of"));
    concourse.well();
    eventually("it is seen again", || doctor(&server, &concourse).contains("is watched without login").then_some(()));
    eventually("it is no longer said", || (!doctor(&server, &concourse).contains("runs builds again")).then_some(()));
}

#[test]
fn a_concourse_with_another_name_gets_a_warning() {
    let concourse = Concourse::start();
    concourse.says_of_itself("https://ci.example.com", false);
    let server = watching(&[&concourse.url], &[]);
    server.until_log("know it by another URL");
    let told = doctor(&server, &concourse);
    assert!(told.contains("alias=https://ci.example.com"), "{told}");
    let without = Server::start();
    let told = doctor(&without, &concourse);
    assert!(told.contains("does not watch this Concourse"), "{told}");
    let named = watching(&[&format!("url={},alias=https://ci.example.com", concourse.url)], &[]);
    named.until_log("Concourse answers");
    assert!(!named.log().contains("another URL"), "{}", named.log());
}

#[test]
fn holds_of_a_concourse_that_is_no_longer_watched_stay_and_say_so() {
    let concourse = Concourse::start();
    concourse.build(1, "started");
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    let mut options = super::SHORT.to_vec();
    options.extend(["--concourse", &concourse.url]);
    let mut server = Server::start_with(&store, &options, &[]);
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 1);
    server.kill();
    let mut without = Server::start_with(&store, &super::SHORT, &[]);
    without.until_log("a Concourse that is not watched");
    super::until_suspect(&without, &held, "does not know its Concourse");
    without.kill();
    concourse.build(1, "succeeded");
    let again = Server::start_with(&store, &options, &[]);
    assert_eq!(until_ended(&again, &held), "build_over");
}

#[test]
fn a_slow_concourse_is_waited_for() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &["--verify-builds"]);
    concourse.build(1, "started");
    concourse.fails(Fault::Slow(Duration::from_millis(400)));
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 2);
    assert!(claim(&server, &held)["suspect"].is_null());
}
