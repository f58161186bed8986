//! Being told: the real server, and pretend receivers that take, refuse, hang and vanish.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use locker::wire::notification::Notification;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::certs::Ca;
use crate::support::concourse::{Concourse, Fault};
use crate::support::{Manner, Receiver, Running, Server, Setup, binary, clean, eventually};

/// A server with a file of targets.
struct Place {
    dir: TempDir,
    server: Server,
}

fn file(dir: &Path) -> String {
    dir.join("notify.yml").display().to_string()
}

fn write(dir: &Path, text: &str) {
    std::fs::write(dir.join("notify.yml"), text).unwrap();
}

impl Place {
    fn new(targets: &str) -> Self {
        Self::with(targets, &[])
    }

    fn with(targets: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hunter2hunter2\n").unwrap();
        std::fs::write(dir.path().join("key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        write(dir.path(), targets);
        let setup = Setup::sqlite(dir.path()).flag("--notify", &file(dir.path())).flags(flags);
        let server = Server::start_as(&setup);
        Self { dir, server }
    }

    fn claim(&self, id: &str, pool: &str) -> u16 {
        self.server.api("PUT", &format!("/claims/{id}"), &json!({"pool": pool, "owner": {"person": "ada"}})).0
    }

    fn broken(&self, id: &str, pool: &str) {
        assert_eq!(self.claim(id, pool), 200);
        let by = json!({"by": {"reason": "urgent", "owner": {"person": "grace"}}});
        assert_eq!(self.server.api("POST", &format!("/claims/{id}/break"), &by).0, 200);
    }
}

fn webhook(name: &str, url: &str, more: &str) -> String {
    format!("- name: {name}\n  url: {url}/in\n{more}")
}

fn told(receiver: &Receiver) -> Vec<String> {
    let claim = |body: &Value| body["claim"].as_str().unwrap_or_default().to_owned();
    receiver.bodies().iter().map(claim).collect()
}

#[test]
fn each_event_is_told_to_whom_it_concerns() {
    let (all, prod) = (Receiver::start(), Receiver::start());
    let events = "  events: [lost, broken, deadlock, self_wait, quarantined, returned]\n";
    let limits = "  waits_longer_than: 1s\n  holds_longer_than: 1s\n";
    let targets = [
        "server_url: https://locker.example.com\ntargets:\n".to_owned(),
        webhook("all", &all.url, &format!("{events}{limits}")),
        webhook("prod", &prod.url, "  events: [broken]\n  pools: 'prod/*'\n"),
    ];
    let place = Place::new(&targets.concat());
    let server = &place.server;
    place.broken("b1", "dev");
    place.broken("b2", "prod/eu");
    let broken = all.event("broken");
    assert_eq!((&broken["claim"], &broken["pools"], &broken["how"]), (&json!("b1"), &json!(["dev"]), &json!("broken")));
    assert_eq!(broken["text"], "Hold broken by grace: dev: dev, held for 0 s: urgent");
    assert_eq!(broken["link"], "https://locker.example.com/claims/b1");
    let reason = json!({"by": {"reason": "disk full"}});
    assert_eq!(server.api("POST", "/pools/dev/locks/dev/quarantine", &reason).0, 200);
    assert_eq!(server.api("POST", "/pools/dev/locks/dev/return", &reason).0, 200);
    assert_eq!(all.event("quarantined")["text"], "Lock out of service: dev: dev: disk full");
    assert_eq!(all.event("returned")["locks"], json!([{"pool": "dev", "lock": "dev"}]));
    // A lease that nobody renews.
    let lease = json!({"pool": "lease", "scope": "lease", "ttl": "1s"});
    assert_eq!(server.api("PUT", "/claims/l1", &lease).0, 200);
    assert_eq!(all.event("lost")["how"], "lease_lost");
    // A hold, and a wait for it.
    assert_eq!(place.claim("h1", "slow"), 200);
    assert_eq!(place.claim("w1", "slow"), 423);
    let hold = all.event("long_hold");
    assert!(["l1", "h1"].contains(&hold["claim"].as_str().unwrap()), "{hold}");
    let wait = all.event("long_wait");
    assert_eq!((&wait["claim"], &wait["longer_than"], &wait["pools"]), (&json!("w1"), &json!("1s"), &json!(["slow"])));
    // Builds that wait for each other, and a build that waits for itself.
    let build =
        |n: u32| json!({"cluster": "https://ci", "team": "t", "pipeline": "p", "job": "j", "build_id": n.to_string()});
    let ask = |id: &str, pool: &str, n: u32| {
        server.api("PUT", &format!("/claims/{id}"), &json!({"pool": pool, "owner": build(n)})).0
    };
    assert_eq!([ask("x1", "x", 1), ask("y2", "y", 2)], [200, 200]);
    assert_eq!([ask("y1", "y", 1), ask("x2", "x", 2)], [423, 423]);
    assert!(all.event("deadlock")["reason"].as_str().unwrap().contains("wait for each other"));
    assert_eq!(ask("z3", "z", 3), 200);
    assert_eq!(ask("z4", "z", 3), 423);
    assert_eq!(all.event("self_wait")["claim"], "z4");
    assert_eq!(told(&prod), ["b2"], "only its pools and its events");
    let bodies = all.bodies();
    let ids: BTreeSet<&str> = bodies.iter().map(|body| body["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), bodies.len(), "each once: {bodies:#?}");
}

#[test]
fn a_build_that_nobody_can_see_is_told() {
    let receiver = Receiver::start();
    let targets = format!("targets:\n{}", webhook("ops", &receiver.url, "  suspect_longer_than: 1s\n  pools: seen\n"));
    let concourse = Concourse::start();
    concourse.fails(Fault::Says(500));
    let flags = ["--concourse", &concourse.url, "--watch-period", "300ms"];
    let place = Place::with(&targets, &flags);
    let owner = json!({"cluster": concourse.url, "team": "t", "pipeline": "p", "job": "j", "build_id": "7"});
    for (id, pool) in [("s1", "seen"), ("s2", "unseen")] {
        let ask = json!({"pool": pool, "scope": "build", "owner": owner});
        assert_eq!(place.server.api("PUT", &format!("/claims/{id}"), &ask).0, 200);
    }
    let suspect = receiver.event("suspect");
    assert_eq!((&suspect["claim"], &suspect["pools"]), (&json!("s1"), &json!(["seen"])));
    assert!(suspect["text"].as_str().unwrap().contains("Nobody knows whether a build is alive"), "{suspect}");
}

#[test]
fn what_happened_before_a_crash_is_told_after_it() {
    let receiver = Receiver::start();
    receiver.behaves(Manner::Says(503));
    let targets = format!("targets:\n{}", webhook("ops", &receiver.url, "  events: broken\n  waits_longer_than: 1s\n"));
    let mut place = Place::new(&targets);
    place.broken("b1", "p");
    assert_eq!(place.claim("h1", "q"), 200);
    assert_eq!(place.claim("w1", "q"), 423);
    receiver.until(1);
    place.server.kill();
    receiver.behaves(Manner::Says(200));
    place.server.again();
    place.broken("b2", "p");
    eventually("both, and the wait", || {
        let told: BTreeSet<String> = told(&receiver).into_iter().collect();
        ["b1", "b2", "w1"].iter().all(|claim| told.contains(*claim))
    });
    let first: Vec<Value> = receiver.bodies().into_iter().filter(|body| body["claim"] == "b1").collect();
    assert!(first.len() >= 2 && first.iter().all(|body| body["id"] == first[0]["id"]), "{first:?}");
    // What it has is not sent again after a clean stop.
    place.server.stop();
    let before = receiver.got().len();
    place.server.again();
    place.broken("b3", "p");
    receiver.until(before + 1);
    assert_eq!(told(&receiver).last().map(String::as_str), Some("b3"));
    assert_eq!(receiver.got().len(), before + 1);
}

#[test]
fn a_target_that_fails_is_tried_again_and_delays_no_other() {
    let good = Receiver::start();
    let elsewhere = Receiver::start();
    let manners = [
        Manner::Says(500),
        Manner::Hangs,
        Manner::Closes,
        Manner::Redirects(format!("{}/elsewhere", elsewhere.url)),
        Manner::Repeats,
    ];
    let bad: Vec<Receiver> = manners.iter().map(|_| Receiver::start()).collect();
    let mut targets = format!("targets:\n{}", webhook("good", &good.url, "  events: [broken]\n"));
    for (n, (receiver, manner)) in bad.iter().zip(&manners).enumerate() {
        receiver.behaves(manner.clone());
        let url = format!("{}/services/hunter2hunter2", receiver.url);
        targets += &webhook(&format!("bad{n}"), &url, "  events: [broken]\n  token_file: token\n");
    }
    let mut place = Place::new(&targets);
    place.broken("b1", "p");
    assert_eq!(good.until(1)[0].json()["claim"], "b1");
    bad.iter().for_each(|receiver| drop(receiver.until(1)));
    place.broken("b2", "p");
    assert_eq!(good.until(2)[1].json()["claim"], "b2");
    for said in
        ["it answers 500", "closed before the answer", "a redirect, which is not followed", "which is not shown"]
    {
        place.server.until_log(said);
    }
    let metrics = place.server.call("GET /metrics", "").text().to_owned();
    assert!(metrics.contains("locker_notify_sent_total{target=\"good\"} 2"), "{metrics}");
    assert!(metrics.contains("locker_notify_lag_seconds{target=\"good\"} 0"), "{metrics}");
    let lag = metrics.lines().find(|line| line.starts_with("locker_notify_lag_seconds{target=\"bad0\"}")).unwrap();
    assert!(!lag.ends_with(" 0") && !lag.ends_with(" 0.0"), "{lag}");
    for (n, receiver) in bad.iter().enumerate().filter(|(n, _)| *n != 1) {
        receiver.behaves(Manner::Says(200));
        eventually(&format!("bad{n} is told"), || told(receiver).contains(&"b2".to_owned()));
    }
    assert_eq!(elsewhere.got().len(), 0);
    // One of them still hangs.
    let began = Instant::now();
    place.server.stop();
    assert!(began.elapsed() < Duration::from_secs(9), "the end waited for a target: {:?}", began.elapsed());
    assert!(!place.server.log().contains("hunter2"), "{}", place.server.log());
}

#[test]
fn a_message_that_is_refused_does_not_hold_up_the_next() {
    let receiver = Receiver::start();
    receiver.behaves(Manner::Says(422));
    let place = Place::new(&format!("targets:\n{}", webhook("ops", &receiver.url, "  events: [broken]\n")));
    place.broken("b1", "p");
    receiver.until(3);
    place.server.until_log("the target refuses this, so it is left out");
    receiver.behaves(Manner::Says(200));
    place.broken("b2", "p");
    assert_eq!(told(&receiver).iter().filter(|claim| *claim == "b1").count(), 3);
    eventually("the next", || told(&receiver).contains(&"b2".to_owned()));
}

#[test]
fn a_target_behind_the_history_hears_that_it_missed_something() {
    let receiver = Receiver::start();
    receiver.behaves(Manner::Says(503));
    let targets = format!("targets:\n{}", webhook("ops", &receiver.url, "  events: [broken]\n"));
    let place = Place::with(&targets, &["--history-size", "1KiB"]);
    place.broken("b0", "p");
    receiver.until(1);
    (1..20).for_each(|n| place.broken(&format!("b{n}"), "p"));
    receiver.behaves(Manner::Says(200));
    let missed = receiver.event("missed");
    assert!(missed["text"].as_str().unwrap().contains("left the history"), "{missed}");
    eventually("the newest", || told(&receiver).contains(&"b19".to_owned()));
}

#[test]
fn a_pool_that_is_removed_at_once_is_no_news() {
    let receiver = Receiver::start();
    let place = Place::new(&format!("targets:\n{}", webhook("ops", &receiver.url, "  events: [broken]\n")));
    place.broken("b1", "p");
    receiver.until(1);
    for n in 0..20 {
        let pool = format!("short{n}");
        assert_eq!(place.claim(&format!("c{n}"), &pool), 200);
        assert_eq!(place.server.api("DELETE", &format!("/claims/c{n}"), &Value::Null).0, 200);
        assert_eq!(place.server.api("DELETE", &format!("/pools/{pool}"), &Value::Null).0, 200);
    }
    place.broken("b2", "p");
    receiver.until(2);
    assert_eq!(told(&receiver), ["b1", "b2"]);
}

#[test]
fn a_message_is_signed_and_a_chat_gets_lines() {
    let (signed, chat) = (Receiver::start(), Receiver::start());
    chat.behaves(Manner::Says(503));
    let targets = [
        "targets:\n".to_owned(),
        webhook("signed", &signed.url, "  events: [broken]\n  secret_file: key\n  token_file: token\n"),
        webhook("chat", &chat.url, "  events: [broken]\n  format: slack\n"),
    ];
    let place = Place::new(&targets.concat());
    place.broken("b1", "<!channel>");
    let got = signed.until(1).remove(0);
    let header = |name: &str| got.header(name).unwrap().to_owned();
    assert_eq!(header("authorization"), "Bearer hunter2hunter2");
    assert_eq!(header("webhook-id"), got.json()["id"]);
    let content = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), got.body);
    let script = "import base64, hmac, sys\n\
        key = base64.b64decode('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')\n\
        print('v1,' + base64.b64encode(hmac.digest(key, sys.stdin.buffer.read(), 'sha256')).decode())";
    let python = Running::start(clean("python3").args(["-c", script]), content.as_bytes()).finish();
    assert_eq!(python.ok().stdout.trim(), header("webhook-signature"));
    chat.until(1);
    place.broken("b2", "p");
    place.broken("b3", "p");
    chat.behaves(Manner::Says(200));
    eventually("three lines", || {
        let text: Vec<String> = chat.bodies().iter().map(|body| body["text"].as_str().unwrap().to_owned()).collect();
        let text = text.join("\n");
        text.contains("&lt;!channel&gt;") && !text.contains("<!") && text.matches("p: p, held").count() == 2
    });
    assert!(chat.bodies().iter().all(|body| body.as_object().unwrap().len() == 1));
}

#[test]
fn resources_of_concourse_are_checked_once_for_a_burst() {
    let concourse = Receiver::start();
    let targets = format!(
        "targets:\n- name: ci\n  pools: [p]\n  concourse:\n    url: {}\n    team: main\n    pipeline: a\n    \
         resource: staging\n    token_file: token\n",
        concourse.url
    );
    let place = Place::new(&targets);
    place.broken("other", "q");
    for n in 0..20 {
        place.broken(&format!("b{n}"), "p");
    }
    let line =
        "POST /api/v1/teams/main/pipelines/a/resources/staging/check/webhook?webhook_token=hunter2hunter2 HTTP/1.1";
    let got = concourse.until(1);
    assert_eq!(got[0].line, line);
    // The last change of the burst has a check after it, and one more change has one more.
    let settled =
        || place.server.call("GET /metrics", "").text().contains("locker_notify_lag_seconds{target=\"ci\"} 0");
    eventually("told", settled);
    let burst = concourse.got().len();
    assert!(burst <= 5, "{burst} checks for a burst of 40 changes");
    place.broken("last", "p");
    concourse.until(burst + 1);
    assert!(!place.server.log().contains("hunter2"));
}

#[test]
fn the_file_is_read_again_and_a_bad_one_changes_nothing() {
    let (old, new) = (Receiver::start(), Receiver::start());
    let place = Place::new(&format!("targets:\n{}", webhook("old", &old.url, "  events: [broken]\n")));
    write(place.dir.path(), "targets:\n- name: x\n  url: http://x\n  evnts: [lost]\n");
    place.server.signal(Signal::SIGHUP);
    let line = place.server.until_log("the new file of targets is not used");
    assert!(line.contains("notify.yml:4: target x: unknown key \\\"evnts\\\"") || line.contains("evnts"), "{line}");
    place.broken("b1", "p");
    old.until(1);
    write(place.dir.path(), &format!("targets:\n{}", webhook("new", &new.url, "  events: [broken]\n")));
    place.server.signal(Signal::SIGHUP);
    place.server.until_log("were read again");
    place.broken("b2", "p");
    assert_eq!(new.until(1)[0].json()["claim"], "b2");
    assert_eq!((old.got().len(), told(&new)), (1, vec!["b2".to_owned()]));
}

#[test]
fn a_bad_file_keeps_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::memory().flag("--notify", &file(dir.path()));
    let says = |text: &str| setup.launch().finish().failed(1, text);
    says("No such file");
    write(dir.path(), "targets:\n- name: a\n  url: http://x\n  events: [lots]\n");
    says("notify.yml:4: target a: unknown event \"lots\": did you mean \"lost\"?");
}

#[test]
fn a_test_message_says_what_each_target_answers() {
    let (good, bad) = (Receiver::start(), Receiver::start());
    bad.behaves(Manner::Says(404));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "hunter2hunter2\n").unwrap();
    let concourse = format!(
        "- name: ci\n  concourse: {{url: '{}', team: t, pipeline: p, resource: r, token_file: token}}\n",
        good.url
    );
    let targets = [
        "targets:\n".to_owned(),
        webhook("good", &good.url, "  events: [lost]\n"),
        webhook("bad", &format!("{}/hunter2hunter2", bad.url), "  events: [lost]\n"),
        concourse,
    ];
    write(dir.path(), &targets.concat());
    let file = file(dir.path());
    let locker = |args: &[&str]| Running::start(clean(binary()).arg("notify").args(args), b"").finish();
    let done = locker(&["test", &file]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.contains(&format!("good ({}): 204, after ", good.url)), "{done:?}");
    assert!(done.stdout.contains(&format!("bad ({}): failed: it answers 404", bad.url)), "{done:?}");
    assert!(!done.stdout.contains("hunter2"), "{done:?}");
    assert_eq!(good.event("test")["text"], "This is a test of the notifications of Locker: nothing has happened");
    assert!(good.got()[1].line.contains("/resources/r/check/webhook"));
    assert!(locker(&["test", &file, "--target", "good"]).ok().stdout.lines().count() == 1);
    locker(&["test", &file, "--target", "god"]).failed(2, "did you mean \"good\"");
    assert!(locker(&["check", &file]).ok().stdout.contains("ci: checks http://"));
    write(dir.path(), "targets: 1\nserverurl: http://x\n");
    let faulty = locker(&["check", &file]);
    let lines: Vec<&str> = faulty.stderr.lines().collect();
    assert!(lines.iter().any(|line| line.ends_with("notify.yml:1: targets must be a list")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("notify.yml:2: unknown key \"serverurl\"")), "{lines:?}");
    faulty.failed(2, "notify.yml cannot be used");
}

#[test]
fn a_target_may_have_issuers_of_its_own() {
    let ca = Ca::new("test CA");
    let pair = ca.issue(&["127.0.0.1"], "server");
    let receiver = Concourse::start_tls(&pair.cert, &pair.key);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let target = |name: &str, more: &str| webhook(name, &receiver.url, &format!("  events: [lost]\n{more}"));
    let targets = [target("trusts", "  ca_cert_file: ca.pem\n"), target("doubts", "")];
    write(dir.path(), &format!("targets:\n{}", targets.concat()));
    let done = Running::start(clean(binary()).args(["notify", "test", &file(dir.path())]), b"").finish();
    let said = |name: &str| done.stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(said("trusts").contains("it answers 405"), "{done:?}");
    assert!(said("doubts").contains("ca_cert_file of the target"), "{done:?}");
}

#[test]
fn the_file_on_the_page_is_right() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/notifications.md");
    let page = std::fs::read_to_string(page).unwrap();
    let text = page.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let dir = tempfile::tempdir().unwrap();
    let secrets = [
        ("chat-url", "https://chat.example.com/services/x"),
        ("bus-key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("bus-token", "t"),
        ("ca.pem", ""),
        ("webhook-token", "t"),
    ];
    for (name, content) in secrets {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    write(dir.path(), &text.replace("/run/secrets/", ""));
    let done = Running::start(clean(binary()).args(["notify", "check", &file(dir.path())]), b"").finish().ok();
    assert_eq!(done.stdout.lines().count(), 3, "{done:?}");
    // The message on the page has the members of the real one.
    let json = page.split_once("```json\n").unwrap().1.split_once("```").unwrap().0;
    let shown: Notification = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_value(&shown).unwrap(), serde_json::from_str::<Value>(json).unwrap());
}
