//! Several real servers on one real PostgreSQL or etcd: one leads, another takes over. They need `etcd` and `postgres`
//! (`apt-get install etcd-server postgresql`).

mod standby;

use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::cut::CutProxy;
use crate::support::database::{Database, Etcd, Postgres};
use crate::support::eventually;
use crate::support::server::{Server, Setup};
use crate::support::wires::{Way, Wire};

/// A short failover, so that the tests are quick. A busy machine must still beat in time.
pub const FAILOVER: &str = "2s";

/// Runs a test on each kind of database.
fn on_each(test: impl Fn(&dyn Database, &str)) {
    let postgres = Postgres::start();
    test(&postgres, &format!("postgres://postgres@{}/postgres?sslmode=disable", postgres.address()));
    let etcd = Etcd::start();
    test(&etcd, &format!("etcd:{}?tls=off", etcd.address()));
}

fn server(store: &str, name: &str) -> Server {
    server_with(store, name, FAILOVER)
}

fn server_with(store: &str, name: &str, failover: &str) -> Server {
    let setup = Setup { store: store.to_owned(), ..Setup::memory() };
    Server::start_as(&setup.flags(&["--failover", failover, "--advertise", name]))
}

/// Servers that pass requests on to the leader.
pub fn linked(store: &str, failover: &str) -> Server {
    let setup = Setup { store: store.to_owned(), ..Setup::memory() };
    Server::start_as(&setup.flags(&["--failover", failover, "--link", "127.0.0.1:0"]))
}

fn leads(server: &Server) -> bool {
    server.call("GET /readyz", "").status == 200
}

/// Waits until it leads, or has a link to the leader.
pub fn until_ready(server: &Server) {
    eventually("the server is ready", || leads(server));
}

/// Waits until it leads.
fn until_leading(server: &Server) {
    eventually("the server leads", || leads(server));
}

/// Claims the lock of a pool, which is made if it does not exist.
fn acquire(server: &Server, id: &str, pool: &str) -> (u16, Value) {
    server.api("PUT", &format!("/claims/{id}"), &json!({ "pool": pool }))
}

/// The same, and waits for it.
fn acquire_in_time(server: &Server, id: &str, pool: &str) -> (u16, Value) {
    server.api("PUT", &format!("/claims/{id}"), &json!({ "pool": pool, "wait": "60s" }))
}

fn fence(claim: &Value) -> u64 {
    claim["fence"].as_u64().unwrap_or_else(|| panic!("no fence: {claim}"))
}

#[test]
fn another_server_takes_over_from_one_that_was_killed() {
    on_each(|_, store| {
        let mut first = server(store, "first");
        until_leading(&first);
        let second = server(store, "second");
        let (status, held) = acquire(&first, "a", "x");
        assert_eq!(status, 200, "{held}");
        let (_, info) = first.api("GET", "/info", &Value::Null);
        assert_eq!(info["leader"], json!({ "name": "first", "term": 1 }));
        second.until_log("this server follows");
        let (status, answer) = acquire(&second, "b", "y");
        assert_eq!((status, answer["code"].as_str()), (503, Some("no_leader")), "{answer}");
        assert_eq!(second.call("GET /healthz", "").status, 200);
        first.kill();
        until_leading(&second);
        let (_, info) = second.api("GET", "/info", &Value::Null);
        assert_eq!(info["leader"], json!({ "name": "second", "term": 2 }));
        // It is the same hold, and fences go on growing.
        let (status, again) = second.api("GET", "/claims/a", &Value::Null);
        assert_eq!((status, fence(&again)), (200, fence(&held)), "{again}");
        let (status, next) = acquire(&second, "b", "y");
        assert_eq!(status, 200, "{next}");
        assert!(fence(&next) > fence(&held), "{next} after {held}");
        let (status, waits) = acquire(&second, "c", "x");
        assert_eq!(status, 423, "{waits}");
    });
}

#[test]
fn a_leader_that_ends_in_order_hands_over_at_once() {
    on_each(|_, store| {
        // Nobody would wait that long.
        let mut first = server_with(store, "first", "60s");
        until_leading(&first);
        let second = server_with(store, "second", "60s");
        second.until_log("this server follows");
        assert_eq!(acquire(&first, "a", "x").0, 200);
        first.stop();
        until_leading(&second);
        assert_eq!(acquire(&second, "b", "x").0, 423);
    });
}

#[test]
fn a_leader_that_was_paused_says_nothing_that_is_not_so_any_more() {
    on_each(|_, store| {
        let first = server(store, "first");
        until_leading(&first);
        let second = server(store, "second");
        let (_, held) = acquire(&first, "a", "x");
        second.until_log("this server follows");
        first.signal(Signal::SIGSTOP);
        until_leading(&second);
        assert_eq!(second.api("DELETE", "/claims/a", &Value::Null).0, 200);
        assert_eq!(acquire(&second, "b", "x").0, 200);
        // What is asked while it stands still is answered as soon as it goes on.
        let asked = [
            ("GET", "/claims/a".to_owned()),
            ("GET", format!("/verify?pool=x&lock=x&fence={}", fence(&held))),
            ("PUT", "/claims/a".to_owned()),
            ("GET", "/pools/x".to_owned()),
        ];
        std::thread::scope(|scope| {
            let ask = |(method, path): &(&str, String)| {
                let body = if *method == "PUT" { json!({ "pool": "x" }) } else { Value::Null };
                first.api(method, path, &body)
            };
            let answers: Vec<_> = asked.iter().map(|request| scope.spawn(move || ask(request))).collect();
            first.signal(Signal::SIGCONT);
            for (request, answer) in asked.iter().zip(answers) {
                let (status, answer) = answer.join().unwrap();
                assert_eq!(status, 503, "{request:?}: {answer}");
                let code = answer["code"].as_str().unwrap();
                let is_told = code == "no_leader" || request.0 == "PUT" && code == "unknown_outcome";
                assert!(is_told && !answer.to_string().contains("going down"), "{request:?}: {answer}");
            }
        });
        first.until_log("it follows");
        assert_eq!(acquire(&second, "c", "y").0, 200);
    });
}

/// It gets no answer from the database, and does not know that another one leads.
#[test]
fn a_leader_that_is_cut_off_from_the_database_does_not_say_that_nobody_holds() {
    let postgres = Postgres::start();
    let store = |address| format!("postgres://postgres@{address}/postgres?sslmode=disable");
    let wire = Wire::to(postgres.address());
    let first = server(&store(wire.address), "first");
    until_leading(&first);
    let second = server(&store(postgres.address()), "second");
    second.until_log("this server follows");
    assert_eq!(first.call("POST /lock/z", "").status, 200);
    // It stands still meanwhile, so that it cannot give up before it is asked.
    first.signal(Signal::SIGSTOP);
    wire.hold(Way::There);
    wire.hold(Way::Back);
    until_leading(&second);
    assert_eq!(second.call("POST /lock/x", "").status, 200);
    assert_eq!(second.call("PUT /lock/y", r#"{"lock":"me"}"#).status, 200);
    first.signal(Signal::SIGCONT);
    std::thread::scope(|scope| {
        let asked = [("DELETE /lock/x", ""), ("DELETE /lock/y", r#"{"lock":"me"}"#), ("DELETE /lock/z", "")];
        let answers = asked.map(|(line, body)| (line, scope.spawn(|| first.call(line, body))));
        for (line, answer) in answers {
            let answer = answer.join().unwrap();
            let (status, text) = (answer.status, answer.text());
            let is_told = status == 503 && text.contains("no_leader");
            // It has tried that, and nobody may try it again without a look.
            let is_unknown = status == 502 && text.contains("unknown_outcome") && line == "DELETE /lock/z";
            assert!(is_told || is_unknown, "{line}: {status} {text}");
        }
    });
    wire.heal();
    for line in ["GET /lock/x", "GET /lock/y", "GET /lock/z"] {
        assert_eq!(second.call(line, "").status, 200, "{line}");
    }
    assert_eq!(second.call("DELETE /lock/x", "").status, 200);
    assert_eq!(second.call("DELETE /lock/y", r#"{"lock":"me"}"#).status, 200);
}

#[test]
fn grants_go_on_when_the_database_is_back() {
    on_each(|database, store| {
        let first = server(store, "first");
        until_leading(&first);
        let (_, held) = acquire(&first, "a", "x");
        database.crash();
        // Whether it leads on or leads again, it is the same hold.
        let fenced = eventually("a grant", || {
            let (status, claim) = acquire(&first, "b", "y");
            (status == 200).then(|| fence(&claim))
        });
        assert!(fenced > fence(&held), "{fenced} after {held}");
        let (status, again) = first.api("GET", "/claims/a", &Value::Null);
        assert_eq!((status, fence(&again)), (200, fence(&held)), "{again}");
    });
}

#[test]
fn a_store_moves_between_files_and_databases_and_fences_go_on_growing() {
    let (postgres, etcd, dir) = (Postgres::start(), Etcd::start(), tempfile::tempdir().unwrap());
    let file = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
    let stores = [
        file("first.db"),
        format!("postgres://postgres@{}/postgres?sslmode=disable", postgres.address()),
        format!("etcd:{}?tls=off", etcd.address()),
        format!("postgres://postgres@{}/postgres?sslmode=disable&schema=second", postgres.address()),
        file("last.db"),
    ];
    let mut fences = Vec::new();
    for (number, store) in stores.iter().enumerate() {
        let mut server = server(store, "one");
        until_leading(&server);
        let (status, held) = acquire(&server, &format!("c{number}"), &format!("pool{number}"));
        assert_eq!(status, 200, "{held}");
        fences.push(fence(&held));
        for (earlier, expected) in fences.iter().enumerate() {
            let (status, held) = server.api("GET", &format!("/claims/c{earlier}"), &Value::Null);
            assert_eq!((status, fence(&held)), (200, *expected), "{held}");
        }
        let Some(next) = stores.get(number + 1) else { break };
        // A backup and a check disturb nobody; a copy waits for nobody.
        let backup = dir.path().join(format!("backup{number}"));
        server.cli(&["backup", "--store", store, backup.to_str().unwrap()]).ok();
        server.cli(&["store", "check", "--store", store]).ok();
        let refused = server.cli(&["store", "copy", store, next]);
        assert!(
            refused.stderr.contains("stop all servers") || refused.stderr.contains("another server"),
            "{refused:?}"
        );
        server.stop();
        server.cli(&["store", "copy", store, next]).ok();
        let again = server.cli(&["store", "copy", store, next]);
        assert!(again.stderr.contains("name a"), "{again:?}");
        let itself = server.cli(&["store", "copy", next, next]);
        let says = if next.starts_with("sqlite:") { "the same store" } else { "it is not empty" };
        assert!(itself.stderr.contains(says), "{itself:?}");
    }
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

#[test]
fn clients_may_talk_to_any_server_and_wait_through_a_change_of_leaders() {
    on_each(|_, store| {
        let mut first = linked(store, FAILOVER);
        first.until_log("this server leads");
        let (second, third) = (linked(store, FAILOVER), linked(store, FAILOVER));
        until_ready(&second);
        until_ready(&third);
        let (status, held) = acquire(&second, "a", "x");
        assert_eq!(status, 200, "{held}");
        let (_, seen) = third.api("GET", "/claims/a", &Value::Null);
        assert_eq!(fence(&seen), fence(&held));
        let (_, info) = second.api("GET", "/info", &Value::Null);
        assert_eq!(info["leader"]["term"], 1, "{info}");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| acquire_in_time(&second, "b", "x"));
            second.until_waiting("x", 1);
            let waits_too = scope.spawn(|| acquire_in_time(&third, "c", "x"));
            second.until_waiting("x", 2);
            // Nobody notices but by a pause, and the turns stay what they were.
            first.kill();
            assert_eq!(third.api("DELETE", "/claims/a", &Value::Null).0, 200);
            let (status, granted) = waits.join().unwrap();
            assert_eq!(status, 200, "{granted}");
            assert!(fence(&granted) > fence(&held));
            assert_eq!(third.api("GET", "/claims/c", &Value::Null).1["state"], "waiting");
            assert_eq!(third.api("DELETE", "/claims/b", &Value::Null).0, 200);
            assert_eq!(waits_too.join().unwrap().0, 200);
        });
        let (_, info) = second.api("GET", "/info", &Value::Null);
        assert_eq!(info["leader"]["term"], 2, "{info}");
    });
}

#[test]
fn who_waits_at_a_leader_that_loses_its_reign_waits_on() {
    on_each(|_, store| {
        let first = linked(store, FAILOVER);
        first.until_log("this server leads");
        let second = linked(store, FAILOVER);
        until_ready(&second);
        let (_, held) = acquire(&first, "a", "x");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| acquire_in_time(&first, "b", "x"));
            first.until_waiting("x", 1);
            first.signal(Signal::SIGSTOP);
            second.until_log("this server leads");
            first.signal(Signal::SIGCONT);
            first.until_log("it follows");
            assert_eq!(second.api("DELETE", "/claims/a", &Value::Null).0, 200);
            let (status, granted) = waits.join().unwrap();
            assert_eq!(status, 200, "{granted}");
            assert!(fence(&granted) > fence(&held));
        });
    });
}

#[test]
fn a_server_with_other_rules_joins_when_nobody_leads_by_them() {
    on_each(|_, store| {
        let with = |drain: &str| {
            let setup = Setup { store: store.to_owned(), ..Setup::memory() };
            setup.flags(&["--failover", FAILOVER, "--advertise", drain, "--drain", drain])
        };
        let mut first = Server::start_as(&with("30s"));
        until_leading(&first);
        let mut other = with("10s").launch();
        assert!(!other.wait().success());
        let said = other.stderr();
        assert!(said.contains("--drain is 10s here and 30s at \"30s\", which leads"), "{said}");
        assert!(!said.contains("store has failed"), "{said}");
        // It stays registered when it is killed, but that it lives is what counts.
        first.kill();
        let other = Server::start_as(&with("10s"));
        until_leading(&other);
    });
}

#[test]
fn a_server_that_cannot_begin_to_lead_lets_another_one_lead() {
    let postgres = Postgres::start();
    let store = format!("postgres://postgres@{}/postgres?sslmode=disable", postgres.address());
    let mut first = server(&store, "first");
    until_leading(&first);
    // It watches builds by the time at which it finds that it cannot use what the leader before has noted.
    let targets =
        postgres.file("targets.yml", "targets:\n- name: ops\n  url: http://127.0.0.1:1/in\n  events: [broken]\n");
    let setup = Setup { store: store.clone(), ..Setup::memory() };
    let second = Server::start_as(&setup.flags(&[
        "--failover",
        FAILOVER,
        "--advertise",
        "second",
        "--concourse",
        "http://127.0.0.1:1",
        "--notify",
        targets.to_str().unwrap(),
    ]));
    second.until_log("this server follows");
    postgres.sql("INSERT INTO locker.notes (name, bytes) VALUES ('notify', 'of another release')");
    first.kill();
    second.until_log("this server cannot lead: another one may");
    until_leading(&server(&store, "third"));
}

/// A first signal lets the server wait for its database, or for a disk that hangs.
#[test]
fn a_second_signal_ends_a_server_whose_database_hangs() {
    let postgres = Postgres::start();
    let proxy = CutProxy::before(postgres.address());
    let store = format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address);
    let mut server = server_with(&store, "first", "1m");
    until_leading(&server);
    proxy.silence(true);
    server.signal(Signal::SIGTERM);
    eventually("no new clients are accepted", || TcpStream::connect(server.socket()).is_err());
    assert!(server.is_running());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(1));
    server.until_log("told twice to stop");
}
