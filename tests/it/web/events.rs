//! `GET /api/v1/events`: each event once, in order, from where the client was, within bounds, until the server stops.

use std::io::BufRead as _;

use super::*;
use crate::support::Setup;
use crate::support::http::{Client, request};

/// A client that follows events.
struct Follower(Client);

/// One event.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<u64>,
    data: Value,
}

impl Follower {
    fn new(server: &Server, query: &str, headers: &str) -> Self {
        let mut client = Client::new(server.address());
        client.send(request("GET", &format!("/api/v1/events{query}"), headers, ""));
        let mut head = String::new();
        while client.reader.read_line(&mut head).unwrap() > 2 {}
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("Content-Type: text/event-stream\r\n") || head.contains("content-type: text/event-stream")
        );
        Self(client)
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Event> {
        let mut event = Event { name: String::new(), id: None, data: Value::Null };
        loop {
            let mut line = String::new();
            if self.0.reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => event.id = Some(id.parse().unwrap()),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("retry", _)) => {}
                None if line.trim().is_empty() && event.name.is_empty() => {}
                None if line.trim().is_empty() => return Some(event),
                other => panic!("{other:?}: {line:?}"),
            }
        }
    }

    /// All events up to the next `now`, and the revision of that.
    fn until_now(&mut self) -> (Vec<Event>, u64) {
        let mut events = Vec::new();
        loop {
            let event = self.next().expect("the events go on");
            if event.name == "now" {
                return (events, event.data["revision"].as_u64().unwrap());
            }
            events.push(event);
        }
    }

    /// The kinds of the changes until one of this kind.
    fn until_kind(&mut self, kind: &str) -> Vec<String> {
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|last| last != kind) {
            let event = self.next().expect("the events go on");
            if event.name == "change" {
                kinds.push(event.data["kind"].as_str().unwrap().to_owned());
            }
        }
        kinds
    }
}

fn take(server: &Server, id: &str, pool: &str) {
    assert_eq!(server.api("PUT", &format!("/claims/{id}"), &json!({ "pool": pool })).0, 200);
}

fn give_back(server: &Server, id: &str) {
    assert_eq!(server.api("DELETE", &format!("/claims/{id}"), &Value::Null).0, 200);
}

#[test]
fn each_change_is_an_event_and_nothing_is_missed() {
    let server = Server::start();
    let mut all = Follower::new(&server, "", "");
    assert_eq!(all.until_now().0, []);
    take(&server, "a", "one");
    assert_eq!(all.until_kind("claimed"), ["added", "claimed"]);
    let mut one = Follower::new(&server, "?pool=one", "");
    let mut brief = Follower::new(&server, "?entries=false", "");
    let (_, begin) = (one.until_now(), brief.until_now().1);
    take(&server, "b", "two");
    give_back(&server, "a");
    assert_eq!(one.until_kind("released"), ["released"], "only of its pool");
    assert_eq!(all.until_kind("released").last().unwrap(), "released");
    let (entries, now) = brief.until_now();
    assert!(entries.is_empty() && now > begin, "only that there is something new");

    // Who comes back gets what it has missed.
    let (_, history) = server.api("GET", "/changes", &Value::Null);
    let revisions: Vec<u64> =
        history["items"].as_array().unwrap().iter().map(|it| it["revision"].as_u64().unwrap()).collect();
    for header in [format!("last-event-id: {begin}\r\n"), String::new()] {
        let query = if header.is_empty() { format!("?since={begin}") } else { "?since=0".to_owned() };
        let (missed, _) = Follower::new(&server, &query, &header).until_now();
        let missed: Vec<u64> = missed.iter().map(|event| event.data["revision"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = revisions.iter().copied().filter(|revision| *revision > begin).collect();
        assert_eq!(missed, expected, "{header:?}");
    }
    // The whole history, over several parts: the id comes with the last entry of a revision.
    for n in 0..150 {
        take(&server, &format!("c{n}"), "one");
        give_back(&server, &format!("c{n}"));
    }
    let (events, now) = Follower::new(&server, "?since=0", "").until_now();
    let (_, history) = server.api("GET", "/changes", &Value::Null);
    let items = history["items"].as_array().unwrap();
    assert_eq!(events.iter().map(|event| &event.data).collect::<Vec<_>>(), items.iter().collect::<Vec<_>>());
    assert_eq!(now, items.last().unwrap()["revision"].as_u64().unwrap());
    let ids: Vec<_> = events.iter().filter_map(|event| event.id).collect();
    let mut revisions: Vec<_> = items.iter().map(|item| item["revision"].as_u64().unwrap()).collect();
    revisions.dedup();
    assert_eq!(ids, revisions);
}

#[test]
fn events_are_refused_and_end_in_order() {
    let server = Server::start();
    take(&server, "a", "one");
    let mut connection = server.connect();
    for (target, status) in [
        ("/api/v1/events?pool=none", 404),
        ("/api/v1/events?since=yesterday", 400),
        ("/api/v1/events?entries=no", 400),
        ("/api/v1/events?every=1s", 400),
    ] {
        assert_eq!(connection.get(target).status, status, "{target}");
    }
    let head = connection.call("HEAD /api/v1/events", "");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    // A revision of another store is in the future: the events begin now.
    let mut ahead = Follower::new(&server, "?since=18446744073709551615", "");
    assert_eq!(ahead.until_now().0, []);
    // The events of a pool end with it.
    let mut one = Follower::new(&server, "?pool=one", "");
    one.until_now();
    give_back(&server, "a");
    assert_eq!(server.api("DELETE", "/pools/one", &json!({})).0, 200);
    while one.next().is_some() {}
    ahead.until_kind("pool_removed");
    // All others end when the server stops, and it does not wait for them.
    let mut server = server;
    server.stop();
    while ahead.next().is_some() {}
}

#[test]
fn followers_that_leave_make_room_and_wake_nobody() {
    let server = Server::start_as(&Setup::memory());
    let mut metrics = server.connect();
    let mut parked = || {
        let text = metrics.get("/metrics").text().to_owned();
        let line = text.lines().find(|line| line.starts_with("locker_parked_requests ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let followers: Vec<Follower> = (0..50).map(|_| Follower::new(&server, "?entries=false", "")).collect();
    eventually("all follow", || (parked() >= 50.0).then_some(()));
    drop(followers);
    eventually("those who left are forgotten", || (parked() < 5.0).then_some(()));
}

/// Whoever comes back after entries were pruned is told so, before anything else.
#[test]
fn whoever_was_away_for_too_long_is_told_so() {
    let server = Server::start_with("memory:", &["--history-size", "4KiB"], &[]);
    assert_eq!(server.api("PUT", "/pools/p", &json!({"capacity": 1})).0, 200);
    for _ in 0..50 {
        assert_eq!(server.api("POST", "/pools/p/changes", &json!({})).0, 200);
    }
    for query in ["?since=1", "?since=1&pool=p"] {
        let (events, now) = Follower::new(&server, query, "").until_now();
        let missing = events[0].data["missing_before"].as_u64().unwrap();
        assert_eq!((events[0].name.as_str(), events[1].name.as_str()), ("missing", "change"));
        assert!(missing < now);
        let (events, _) = Follower::new(&server, &format!("?since={missing}{}", &query[8..]), "").until_now();
        assert!(events.iter().all(|event| event.name == "change"));
    }
}
