//! The API of lockd, and what its document planned.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use locker::core::settings::Settings;
use locker::env::SystemClock;
use locker::server::door::DoorSettings;

use super::table::run;
use crate::support::http::Client;
use crate::support::in_process::{HookedStore, House};
use crate::support::{Server, eventually};

/// Long enough to see that no answer comes.
const MOMENT: Duration = Duration::from_millis(200);

/// The claims that wait in a pool.
fn waiting(server: &Server, pool: &str) -> usize {
    let answer = server.call(&format!("GET /api/v1/claims?pool={pool}&state=waiting"), "");
    answer.json()["items"].as_array().unwrap().len()
}

fn eventually_waiting(server: &Server, pool: &str, wanted: usize) {
    eventually(&format!("{wanted} wait"), || (waiting(server, pool) == wanted).then_some(()));
}

#[test]
fn lock_and_unlock() {
    let server = Server::start();
    run(
        &server,
        r#"
        GET    /lock/foo |  | 404 "code":"not_held" not~locked
        DELETE /lock/foo |  | 409 "code":"not_held" not~locked
        GET    /locks    |  | 200 = {}
        POST   /lock/foo |  | 200 = {}
        POST   /lock/foo |  | 409 "code":"locked" is~locked
        GET    /lock/foo |  | 200 = {}
        DELETE /lock/foo |  | 200 = {}
        GET    /lock/foo |  | 404
        DELETE /lock/foo |  | 409
        # A body of POST is ignored, and so is what the query says that nobody knows.
        POST   /lock/foo?x=1&y=%zz | not JSON | 200 = {}
        POST   /lock/bar | {"key":7} | 200 = {}
        "#,
    );
    assert_eq!(server.call("HEAD /lock/foo", "").status, 200);
    assert_eq!(server.call("HEAD /lock/no", "").status, 404);
}

#[test]
fn names_and_their_messages() {
    let server = Server::start();
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    run(
        &server,
        &format!(
            "
        POST   /lock/Az09$-_.  |  | 200
        POST   /lock/{longest} |  | 200
        POST   /lock/{longer}  |  | 400 Name~is~too~long~(129~bytes~>~max~of~128)
        GET    /lock/{longer}  |  | 400 Name~is~too~long~(129~bytes~>~max~of~128)
        DELETE /lock/{longer}  |  | 400 Name~is~too~long~(129~bytes~>~max~of~128)
        POST   /lock/a+b       |  | 400 Name~contains~non-printable/non-ascii~byte~43~at~offset~1
        GET    /lock/a%2Bb     |  | 400 byte~43~at~offset~1
        DELETE /lock/a+b       |  | 400 byte~43~at~offset~1
        POST   /lock/%00       |  | 400 byte~0~at~offset~0
        POST   /lock/ab%C3%A4  |  | 400 byte~195~at~offset~2
        POST   /lock/a%FFb     |  | 400 Name~contains~non-printable/non-ascii~byte~255~at~offset~1
        GET    /lock/%ff       |  | 400 byte~255~at~offset~0
        DELETE /lock/%C3       |  | 400 byte~195~at~offset~0
        POST   /lock/a%2Fb     |  | 400 byte~47~at~offset~1
        POST   /lock/%252B     |  | 400 byte~37~at~offset~0
        POST   /lock/.foo      |  | 400 dot
        GET    /lock/..        |  | 400 dot
        DELETE /lock/.         |  | 400 dot
        POST   /lock/a/b       |  | 404
        "
        ),
    );
}

#[test]
fn unlocking_what_is_not_locked_can_be_404() {
    let server = Server::start_with("memory:", &["--lockd-unlock-missing", "404"], &[]);
    run(
        &server,
        r#"
        DELETE /lock/foo |  | 404 "code":"not_held"
        POST   /lock/foo |  | 200
        DELETE /lock/foo |  | 200 = {}
        DELETE /lock/foo |  | 404 not~locked
        "#,
    );
}

#[test]
fn a_client_id_is_kept_and_can_be_overridden() {
    let server = Server::start();
    let long = "x".repeat(257);
    run(
        &server,
        &format!(
            r#"
        POST   /lock/foo?owner=ann |  | 200 = {{}}
        POST   /lock/foo?owner=ann |  | 409 ann
        GET    /locks              |  | 200 "locked_by":{{"ann":1}}
        DELETE /lock/foo?owner=bob |  | 423 "code":"locked" ann bob
        GET    /lock/foo           |  | 200
        DELETE /lock/foo?owner=ann |  | 200 = {{}}
        POST   /lock/foo?owner=ann |  | 200
        DELETE /lock/foo           |  | 200 = {{}}
        POST   /lock/foo           |  | 200
        DELETE /lock/foo?owner=bob |  | 423
        DELETE /lock/foo           |  | 200
        POST   /lock/foo?owner=    |  | 400 owner
        POST   /lock/foo?owner={long} |  | 400 owner
        POST   /lock/foo?owner=a&owner=b |  | 400 twice
        "#
        ),
    );
}

#[test]
fn a_lock_ends_by_itself_after_its_ttl() {
    let server = Server::start_with("memory:", &["--drain", "0s"], &[]);
    run(
        &server,
        "
        POST /lock/foo?ttl=1s   |  | 200 = {}
        POST /lock/foo          |  | 409
        POST /lock/bar?ttl=10ms |  | 400 ttl
        POST /lock/bar?ttl=31d  |  | 400 ttl
        POST /lock/bar?ttl=soon |  | 400 ttl
        ",
    );
    eventually("it is unlocked", || (server.call("GET /lock/foo", "").status == 404).then_some(()));
    let changes = server.call("GET /api/v1/pools/foo/changes?versions=true&newest=true", "").json();
    assert_eq!((&changes["items"][0]["kind"], &changes["items"][0]["how"]), (&"lost".into(), &"lost".into()));
    assert_eq!(server.call("POST /lock/foo", "").status, 200);
}

#[test]
fn a_lock_that_drains_is_locked_but_nobody_can_unlock_it() {
    let server = Server::start();
    assert_eq!(server.call("POST /lock/foo?ttl=1s", "").status, 200);
    eventually("it is lost", || (server.call("DELETE /lock/foo?owner=nobody", "").status == 409).then_some(()));
    run(
        &server,
        "
        GET    /lock/foo |  | 200
        POST   /lock/foo |  | 409 out~of~use
        DELETE /lock/foo |  | 409
        ",
    );
}

#[test]
fn waiters_get_the_lock_in_their_turn() {
    let server = Server::start();
    server.call("POST /lock/foo", "");
    let mut waiters: Vec<Client> = Vec::new();
    for n in 1..=3 {
        let mut client = server.connect();
        client.start(&format!("POST /lock/foo?wait=30s&owner=w{n}"), "");
        eventually_waiting(&server, "foo", n);
        waiters.push(client);
    }
    // A client that does not wait does not overtake.
    assert_eq!(server.call("POST /lock/foo", "").status, 409);
    for (n, waiter) in waiters.iter_mut().enumerate() {
        assert!(!waiter.is_answered(MOMENT));
        assert_eq!(server.call("DELETE /lock/foo", "").status, 200);
        let answer = waiter.read();
        assert_eq!((answer.status, answer.text()), (200, "{}"));
        let who = format!("w{}", n + 1);
        assert!(server.call("GET /locks", "").text().contains(&format!(r#"{{"{who}":1}}"#)));
    }
    assert_eq!(waiting(&server, "foo"), 0);
    assert_eq!(server.call("DELETE /lock/foo", "").status, 200);
    assert_eq!(server.call("GET /lock/foo", "").status, 404);
    // Each request made one claim.
    let changes = server.call("GET /api/v1/pools/foo/changes", "").json();
    let kinds = |kind: &str| changes["items"].as_array().unwrap().iter().filter(|c| c["kind"] == kind).count();
    assert_eq!((kinds("waiting"), kinds("claimed"), kinds("released")), (3, 4, 4));
}

#[test]
fn a_wait_that_is_over_keeps_no_place() {
    let server = Server::start();
    server.call("POST /lock/foo", "");
    let answer = server.call("POST /lock/foo?wait=300ms", "");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (409, Some("locked")));
    assert_eq!(waiting(&server, "foo"), 0);
    assert_eq!(server.call("DELETE /lock/foo", "").status, 200);
    // If the old place were kept, this claim would have to wait.
    assert_eq!(server.call("POST /lock/foo", "").status, 200);
    assert_eq!(server.call("POST /lock/bar?wait=", "").status, 400);
}

#[test]
fn a_waiter_that_leaves_keeps_no_place() {
    let server = Server::start();
    server.call("POST /lock/foo", "");
    let mut waiter = server.connect();
    waiter.start("POST /lock/foo?wait=30s", "");
    eventually_waiting(&server, "foo", 1);
    drop(waiter);
    eventually_waiting(&server, "foo", 0);
    assert_eq!(server.call("DELETE /lock/foo", "").status, 200);
    assert_eq!(server.call("POST /lock/foo", "").status, 200);
}

#[test]
fn a_waiter_of_a_killed_server_keeps_no_place() {
    let mut server = Server::start_durable();
    assert_eq!(server.call("POST /lock/foo", "").status, 200);
    let mut waiter = server.connect();
    waiter.start("POST /lock/foo?wait=60s", "");
    eventually_waiting(&server, "foo", 1);
    server.kill();
    server.again();
    assert_eq!(server.call("DELETE /lock/foo", "").status, 200);
    assert_eq!(server.call("POST /lock/foo", "").status, 200);
}

#[test]
fn a_server_that_stops_answers_its_waiters() {
    let mut server = Server::start();
    server.call("POST /lock/foo", "");
    let mut waiter = server.connect();
    waiter.start("POST /lock/foo?wait=30s", "");
    eventually_waiting(&server, "foo", 1);
    server.stop();
    assert_eq!(waiter.read().status, 409);
}

#[test]
fn without_room_to_park_a_wait_is_a_try() {
    let server = Server::start_with("memory:", &["--max-parked", "0"], &[]);
    run(
        &server,
        "
        POST   /lock/foo?wait=30s |  | 200 = {}
        POST   /lock/foo?wait=30s |  | 409
        DELETE /lock/foo          |  | 200
        POST   /lock/foo          |  | 200
        ",
    );
}

#[test]
fn locks_outlive_the_server() {
    let mut server = Server::start_durable();
    server.call("POST /lock/foo?owner=ann", "");
    server.call("PUT /lock/bar", r#"{"key":"k","requestor":"r"}"#);
    let list = server.call("GET /locks", "");
    server.stop();
    server.again();
    assert_eq!(server.call("GET /locks", "").body, list.body);
    run(
        &server,
        r#"
        POST   /lock/foo |  | 409
        PUT    /lock/bar | {"key":"other"} | 423
        DELETE /lock/foo |  | 200 = {}
        DELETE /lock/bar | {"key":"k","requestor":"r"} | 200
        "#,
    );
}

#[test]
fn a_store_that_cannot_commit_is_503() {
    let (store, fails) = HookedStore::failing();
    let house = House::open(Box::new(store), Settings::default(), Arc::new(SystemClock::default()));
    let door = house.door(DoorSettings::default());
    let call = |request: &str, body: &str| Client::new(door.address).call(request, body);
    assert_eq!(call("POST /lock/held", "").status, 200);
    fails.store(true, Ordering::SeqCst);
    for (request, body) in [
        ("POST /lock/foo", ""),
        ("POST /lock/foo?wait=1s", ""),
        ("DELETE /lock/held", ""),
        ("PUT /lock/foo", r#"{"key":"k"}"#),
        ("PUT /lock/foo", r#"{"lock":"k"}"#),
    ] {
        let answer = call(request, body);
        assert_eq!((answer.status, &answer.json()["code"]), (503, &"store_failed".into()), "{request}");
        assert!(answer.json()["error"].is_string());
    }
    // Earlier promises still hold.
    assert_eq!(call("GET /lock/held", "").status, 200);
    assert_eq!(call("GET /lock/foo", "").status, 404);
}
