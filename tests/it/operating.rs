//! What operators of several servers rely on: messages, notifications, the page, releases side by side. They need `etcd` and
//! `postgres` (`apt-get install etcd-server etcd-client postgresql`).

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use locker::store::sqlite::replica::newest;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{FAILOVER, linked, until_ready};
use crate::support::database::{Database as _, Etcd, Postgres};
use crate::support::http::Answer;
use crate::support::{Manner, Receiver, Server, SetsAtEnd, Setup, eventually};

fn in_postgres(postgres: &Postgres) -> String {
    format!("postgres://postgres@{}/postgres?sslmode=disable", postgres.address())
}

fn flags(store: &str, more: &[&str]) -> Setup {
    let setup = Setup { store: store.to_owned(), ..Setup::memory() };
    setup.flags(&["--failover", FAILOVER, "--link", "127.0.0.1:0"]).flags(more)
}

fn claim(server: &Server, id: &str, body: &Value) -> (u16, Value) {
    server.api("PUT", &format!("/claims/{id}"), body)
}

fn metric(server: &Server, name: &str) -> Option<f64> {
    let scrape = server.call("GET /metrics", "");
    let line = scrape.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn a_lease_outlasts_a_change_of_leaders() {
    let postgres = Postgres::start();
    let server = Server::start_as(&flags(&in_postgres(&postgres), &["--lease", "15s"]));
    until_ready(&server);
    let lease = |ttl: &str| json!({ "pool": "x", "scope": "lease", "ttl": ttl });
    let (status, refused) = claim(&server, "a", &lease("17s"));
    assert_eq!((status, refused["code"].as_str()), (422, Some("unprocessable")), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("needs 18s at least"), "{refused}");
    assert_eq!(claim(&server, "a", &lease("18s")).0, 200);
    // What is no lease is not renewed.
    assert_eq!(claim(&server, "b", &json!({ "pool": "y", "scope": "person", "ttl": "5s" })).0, 200);
    server.until_log("a lease without a ttl gets 18s instead of 15s (--lease)");
}

#[test]
fn a_full_etcd_is_named_to_everybody_until_there_is_room() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "8000000"], "http");
    let server = linked(&format!("etcd:{}?tls=off", etcd.address()), FAILOVER);
    until_ready(&server);
    assert_eq!(claim(&server, "a", &json!({ "pool": "x" })).0, 200);
    let large = "x".repeat(100_000);
    let filled = (0..200).any(|n| etcd.try_etcdctl(&["put", &format!("other/{n}"), &large]).is_err());
    assert!(filled, "it was never full");
    let answer = eventually("the reason is told", || {
        let (status, answer) = claim(&server, "b", &json!({ "pool": "x" }));
        assert_ne!(status, 200, "{answer}");
        answer["error"].as_str().unwrap_or_default().contains("the database is full").then_some((status, answer))
    });
    assert_eq!((answer.0, answer.1["code"].as_str()), (503, Some("no_leader")), "{answer:?}");
    assert!(server.until_log("the database is full").contains("makes room"), "{}", server.log());
    let mut client = server.connect();
    let page = client.ask("GET", "/", "accept: text/html\r\n", "").unwrap();
    assert!(page.status == 503 && page.text().contains("The reason: the database is full."), "{}", page.text());
    etcd.etcdctl(&["del", "--prefix", "other/"]);
    let status: Value = serde_json::from_str(&etcd.etcdctl(&["endpoint", "status", "--write-out", "json"])).unwrap();
    etcd.etcdctl(&["compact", &status[0]["Status"]["header"]["revision"].to_string()]);
    etcd.etcdctl(&["defrag"]);
    etcd.etcdctl(&["alarm", "disarm"]);
    eventually("grants go on", || claim(&server, "c", &json!({ "pool": "y" })).0 == 200);
}

#[test]
fn the_next_leader_notifies_on_from_where_the_last_one_was() {
    let (postgres, receiver, dir) = (Postgres::start(), Receiver::start(), tempfile::tempdir().unwrap());
    let file = dir.path().join("notify.yml");
    std::fs::write(&file, format!("targets:\n- name: chat\n  url: {}/in\n  events: [broken]\n", receiver.url)).unwrap();
    let store = in_postgres(&postgres);
    let start = || Server::start_as(&flags(&store, &["--notify", file.to_str().unwrap()]));
    let mut first = start();
    first.until_log("this server leads");
    let second = start();
    until_ready(&second);
    let broken = |server: &Server, id: &str| {
        assert_eq!(claim(server, id, &json!({ "pool": id, "owner": { "person": "ada" } })).0, 200);
        let by = json!({ "by": { "reason": "urgent" } });
        assert_eq!(server.api("POST", &format!("/claims/{id}/break"), &by).0, 200);
    };
    broken(&second, "a");
    receiver.until(1);
    let place = || {
        let note = postgres.sql("SELECT convert_from(bytes, 'UTF8') FROM locker.notes WHERE name = 'notify'");
        serde_json::from_str::<Value>(note.trim()).unwrap()["targets"]["chat"]["revision"].as_u64().unwrap()
    };
    let told = receiver.bodies()[0]["revision"].as_u64().unwrap();
    eventually("what was told is in the log", || place() >= told);
    // Nobody takes this one before the leader is gone.
    receiver.behaves(Manner::Says(500));
    broken(&second, "b");
    receiver.until(2);
    first.kill();
    receiver.behaves(Manner::Says(200));
    second.until_log("this server leads");
    broken(&second, "c");
    let claims = || {
        let bodies = receiver.bodies();
        bodies.iter().map(|body| body["claim"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    eventually("the rest is told", || claims().last().is_some_and(|last| last == "c"));
    let claims = claims();
    assert_eq!(claims.iter().filter(|claim| *claim == "a").count(), 1, "{claims:?}");
    assert!(claims.iter().filter(|claim| *claim == "b").count() >= 2, "{claims:?}");
}

#[test]
fn the_page_says_who_leads_and_asks_to_sign_in_again() {
    let postgres = Postgres::start();
    let secret = [("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2")];
    let setup = flags(&in_postgres(&postgres), &[]).vars(&secret);
    let mut first = Server::start_as(&setup);
    first.until_log("this server leads");
    let mut second = Server::start_as(&setup);
    until_ready(&second);
    let ask = |server: &Server, method: &str, target: &str, headers: &str| -> Answer {
        server.connect().ask(method, target, headers, "").unwrap()
    };
    // ci:hunter2
    let basic = "authorization: Basic Y2k6aHVudGVyMg==\r\ncontent-type: application/json\r\n";
    let signed = ask(&second, "POST", "/api/v1/session", basic);
    let cookie = signed.header("set-cookie").unwrap().split(';').next().unwrap();
    let as_person = format!("cookie: {cookie}\r\naccept: text/html\r\n");
    let page = eventually("both servers are on the page", || {
        let page = ask(&second, "GET", "/", &as_person);
        (page.text().matches("<th scope=\"row\">127.0.0.1:").count() == 2).then_some(page)
    });
    assert!(page.text().contains("leads (term 1)"), "{}", page.text());
    assert!(!page.text().contains("the only server"), "{}", page.text());
    assert!(page.text().contains("The log ends with record"), "{}", page.text());
    let info = ask(&second, "GET", "/api/v1/info", basic).json();
    assert!(
        info["log"]["last_record"].as_u64() > Some(0) && info["log"]["database_bytes"].as_u64() > Some(0),
        "{info}"
    );
    first.kill();
    second.until_log("this server leads");
    let page = ask(&second, "GET", "/", &as_person);
    assert_eq!((page.status, page.header("location")), (303, Some("/login?next=%2F")));
    let form = ask(&second, "GET", "/login?next=%2F", &as_person);
    assert!(form.text().contains("Your session has ended"), "{}", form.text());
    assert!(!ask(&second, "GET", "/login", "").text().contains("Your session has ended"));
    let action = ask(&second, "GET", "/api/v1/pools", &format!("cookie: {cookie}\r\nx-locker-page: x\r\n"));
    assert!(action.status == 401 && action.text().contains("your session has ended"), "{}", action.text());
    second.stop();
}

/// Grants of one lock through these servers, one after the other, until it is told to stop. Returns how many there were.
fn grants(servers: &Mutex<Vec<String>>, stop: &AtomicBool) -> usize {
    let (mut last, mut count) = (0, 0);
    let ask = |n: usize, method: &str, id: &str, body: &str| {
        let address = {
            let servers = servers.lock().unwrap();
            servers[n % servers.len()].clone()
        };
        let headers = "content-type: application/json\r\n";
        let answer = crate::support::http::Client::open(&*address)
            .and_then(|mut client| client.ask(method, &format!("/api/v1/claims/{id}"), headers, body));
        answer.ok().map(|answer| (answer.status, answer.text().to_owned()))
    };
    while !stop.load(Ordering::Relaxed) {
        let id = format!("load-{count}");
        let mut tries = 0;
        let granted = eventually("a grant", || {
            tries += 1;
            let (status, text) = ask(count + tries, "PUT", &id, r#"{"pool":"load","wait":"5s"}"#)?;
            assert!([200, 423, 502, 503].contains(&status), "{status} {text}");
            (status == 200).then_some(text)
        });
        let fence = serde_json::from_str::<Value>(&granted).unwrap()["fence"].as_u64().unwrap();
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        eventually("a release", || {
            tries += 1;
            let (status, text) = ask(count + tries, "DELETE", &id, "")?;
            assert!([200, 410, 502, 503].contains(&status), "{status} {text}");
            matches!(status, 200 | 410).then_some(())
        });
        count += 1;
    }
    count
}

#[test]
fn servers_of_two_releases_share_a_log_until_the_last_old_one_is_gone() {
    let postgres = Postgres::start();
    let store = in_postgres(&postgres);
    let (old, new) = (flags(&store, &[]), flags(&store, &[]).vars(&[("LOCKER_PLANT", "next-format")]));
    let format =
        || postgres.sql("SELECT get_byte(bytes, 0) FROM locker.records ORDER BY seq DESC LIMIT 1").trim().to_owned();
    let mut first = Server::start_as(&old);
    first.until_log("this server leads");
    let mut second = Server::start_as(&old);
    until_ready(&second);
    let servers = Mutex::new(vec![first.address().to_owned(), second.address().to_owned()]);
    let replace = |gone: &Server, come: &Server| {
        let mut servers = servers.lock().unwrap();
        servers.retain(|address| address != gone.address());
        servers.push(come.address().to_owned());
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| grants(&servers, &stop));
        let stopping = SetsAtEnd(&stop);
        let third = Server::start_as(&new);
        until_ready(&third);
        // The old one must not take over, so that a new one leads it.
        second.signal(Signal::SIGSTOP);
        replace(&first, &third);
        first.stop();
        third.until_log("this server leads");
        second.signal(Signal::SIGCONT);
        until_ready(&second);
        assert_eq!(claim(&second, "through-the-old-one", &json!({ "pool": "x" })).0, 200);
        assert_eq!(format(), newest().to_string());
        eventually("the old one has everything", || metric(&second, "locker_log_lag_records") == Some(0.0));
        let fourth = Server::start_as(&new);
        until_ready(&fourth);
        replace(&second, &fourth);
        second.stop();
        eventually("the new format is used", || format() == (newest() + 1).to_string());
        let late = old.launch();
        eventually("an old one says what to do", || late.said("upgrade this server").is_some());
        drop(stopping);
        assert!(load.join().unwrap() > 0);
    });
}
