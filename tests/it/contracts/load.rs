//! All kinds of clients at once on the same pools, judged by what the clients themselves saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::http::{Answer, Client};
use crate::support::{PATIENCE, Server};

const POOLS: [&str; 3] = ["red", "green", "blue"];
/// The load lasts at least this long. On a slow machine it lasts until each kind of client has held [`HOLDS`] times.
const TIME: Duration = Duration::from_secs(3);
/// Fewer holds of one kind prove little.
const HOLDS: u64 = 20;

/// A hold as its client saw it: from the answer that granted it to the moment before the client asked for its end.
#[derive(Debug, Clone)]
struct Span {
    pool: &'static str,
    /// Clients with the same key may hold at the same time. All others hold alone.
    party: String,
    kind: &'static str,
    from: Instant,
    to: Instant,
}

/// What all clients share.
struct Arena {
    address: SocketAddr,
    start: Instant,
    spans: Mutex<Vec<Span>>,
    /// Holds so far, by kind of client.
    holds: BTreeMap<&'static str, AtomicU64>,
    numbers: AtomicU64,
}

/// One client, which keeps its connection.
struct Worker<'a> {
    arena: &'a Arena,
    kind: &'static str,
    http: Client,
    seed: u64,
}

impl Worker<'_> {
    /// A number below `bound` (xorshift, with one seed for each client).
    fn random(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % bound
    }

    fn call(&mut self, request: &str, body: &str) -> Answer {
        self.http.call(request, body)
    }

    fn is_on(&self) -> bool {
        let elapsed = self.arena.start.elapsed();
        let few = || self.arena.holds.values().any(|holds| holds.load(Ordering::Relaxed) < HOLDS);
        elapsed < TIME || (elapsed < PATIENCE && few())
    }

    /// Works or rests for a moment.
    fn pause(&mut self) {
        thread::sleep(Duration::from_micros(self.random(4_000)));
    }

    /// Holds for a while; `from` is when the answer came.
    fn hold(&mut self, pool: &'static str, party: String) {
        let from = Instant::now();
        self.pause();
        let span = Span { pool, party, kind: self.kind, from, to: Instant::now() };
        self.arena.spans.lock().unwrap().push(span);
        self.arena.holds[self.kind].fetch_add(1, Ordering::Relaxed);
    }

    fn pool(&mut self) -> &'static str {
        POOLS[usize::try_from(self.random(3)).unwrap()]
    }

    /// An unused name.
    fn fresh(&self) -> String {
        format!("c{}", self.arena.numbers.fetch_add(1, Ordering::Relaxed))
    }
}

/// `{"lock": OWNER}`. It also tries to unlock a lock that it no longer holds.
fn first_generation(worker: &mut Worker<'_>) {
    let (pool, owner) = (worker.pool(), worker.fresh());
    let body = format!(r#"{{"lock":"{owner}"}}"#);
    if worker.call(&format!("PUT /lock/{pool}"), &body).status == 200 {
        worker.hold(pool, owner);
        assert_eq!(worker.call(&format!("DELETE /lock/{pool}"), &body).status, 200);
    }
    // A late release must not affect the present holder.
    assert!([200, 423].contains(&worker.call(&format!("DELETE /lock/{pool}"), &body).status));
}

/// Claims with one of two keys, from several requestors, with several counts.
fn second_generation(worker: &mut Worker<'_>) {
    let (pool, who) = (worker.pool(), worker.fresh());
    let key = format!("key{}", worker.random(2));
    let body = format!(r#"{{"key":"{key}","requestor":"{who}"}}"#);
    let counts = 1 + worker.random(3);
    let got = (0..counts).filter(|_| worker.call(&format!("PUT /lock/{pool}"), &body).status == 200).count();
    if got > 0 {
        worker.hold(pool, key.clone());
        let answer = worker.call(&format!("DELETE /lock/{pool}"), &body);
        assert!(answer.text().contains(&format!("is unlocked: {got} of")), "{got}: {}", answer.text());
    }
    let wrong = format!(r#"{{"key":"key{}x","requestor":"{who}"}}"#, worker.random(2));
    assert!([200, 423].contains(&worker.call(&format!("DELETE /lock/{pool}"), &wrong).status));
}

/// Waits, or tries. It unlocks only what it has locked, because lockd does not check the owner.
fn lockd(worker: &mut Worker<'_>) {
    let (pool, who) = (worker.pool(), worker.fresh());
    let wait = worker.random(80);
    let answer = worker.call(&format!("POST /lock/{pool}?wait={wait}ms&owner={who}"), "");
    if answer.status == 200 {
        worker.hold(pool, who.clone());
        // Not 409, because nobody else has ended this hold.
        assert_eq!(worker.call(&format!("DELETE /lock/{pool}"), "").status, 200);
    } else {
        assert_eq!(answer.status, 409);
    }
}

/// Our API with confirmation. Old claims are released again.
fn api(worker: &mut Worker<'_>) {
    let (pool, id) = (worker.pool(), worker.fresh());
    let body = format!(r#"{{"pool":"{pool}","confirm":true,"wait":"200ms","run":"{id}"}}"#);
    let answer = worker.call(&format!("PUT /api/v1/claims/{id}"), &body);
    if answer.status == 200 {
        let fence = answer.json()["fence"].clone();
        let confirmed =
            worker.call(&format!("POST /api/v1/claims/{id}/confirm"), &format!(r#"{{"fence":{fence},"run":"{id}"}}"#));
        assert_eq!(confirmed.status, 200, "{}", confirmed.text());
        worker.hold(pool, id.clone());
    }
    let ended = worker.call(&format!("DELETE /api/v1/claims/{id}"), "");
    let how = if answer.status == 200 { "released" } else { "cancelled" };
    assert_eq!(ended.json()["how"], how, "{}", ended.text());
    assert_eq!(worker.call(&format!("DELETE /api/v1/claims/{id}"), "").json()["how"], how);
}

/// A latch from its creation to its end. It shares only the server with the pools.
fn latch(worker: &mut Worker<'_>) {
    let body = format!(r#"{{"workflow":"{}","namespace":"default"}}"#, worker.fresh());
    let made = worker.call("POST /lock", &body);
    assert_eq!(made.status, 200, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    worker.pause();
    let released = worker.call(&format!("PATCH /lock?id={id}"), "");
    assert_eq!(released.json()["status"], "released", "{}", released.text());
    assert_eq!(worker.call(&format!("DELETE /lock?id={id}"), "").status, 200);
    assert_eq!(worker.call(&format!("GET /lock?id={id}"), "").status, 404);
}

/// I1 and I7 by the clock: two parties never hold one pool at the same time.
fn overlaps(spans: &[Span]) -> Vec<String> {
    let mut sorted: Vec<&Span> = spans.iter().collect();
    sorted.sort_by_key(|span| span.from);
    let mut found = Vec::new();
    // For each pool and party, the span that ends last.
    let mut last: BTreeMap<&str, BTreeMap<&str, &Span>> = BTreeMap::new();
    for span in sorted {
        let parties = last.entry(span.pool).or_default();
        parties.retain(|_, earlier| earlier.to > span.from);
        for (_, earlier) in parties.iter().filter(|(party, _)| **party != span.party) {
            found.push(format!("{earlier:?} and {span:?}"));
        }
        let entry = parties.entry(&span.party).or_insert(span);
        if span.to > entry.to {
            *entry = span;
        }
    }
    found
}

/// I2 and the history: revisions only grow, and no entry is missing or counted twice.
fn check_history(server: &Server, spans: &[Span]) {
    for pool in POOLS {
        let mut items: Vec<Value> = Vec::new();
        let mut after: u64 = 0;
        loop {
            let page = server.call(&format!("GET /api/v1/pools/{pool}/changes?after={after}"), "").json();
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { break };
            after = next.parse().unwrap();
        }
        let revisions: Vec<u64> = items.iter().map(|item| item["revision"].as_u64().unwrap()).collect();
        assert!(revisions.is_sorted());
        let of = |kind: &str| items.iter().filter(|item| item["kind"] == kind).collect::<Vec<_>>();
        let (claimed, released) = (of("claimed"), of("released"));
        assert_eq!(claimed.len(), released.len(), "{pool}: every hold was released");
        assert!(of("lost").is_empty() && of("broken").is_empty());
        let fences: std::collections::BTreeSet<u64> =
            claimed.iter().map(|item| item["revision"].as_u64().unwrap()).collect();
        assert_eq!(fences.len(), claimed.len(), "{pool}: no two holds share a revision");
        for (program, kinds) in
            [("locker client", &["first", "second"][..]), ("lockd client", &["lockd"]), ("-", &["api"])]
        {
            let by = claimed.iter().filter(|item| item["owner"]["program"].as_str().unwrap_or("-") == program);
            let seen = spans.iter().filter(|span| span.pool == pool && kinds.contains(&span.kind)).count();
            // A requestor that holds more than once has several claims in one span.
            let (by, least) = (by.count(), seen);
            assert!(
                if program == "locker client" { by >= least } else { by == least },
                "{pool} {program}: {by} {least}"
            );
        }
    }
}

#[test]
fn all_kinds_at_once_exclude_each_other() {
    let server = Server::start_with("memory:", &[], &[]);
    let holders: [(&'static str, fn(&mut Worker<'_>)); 4] =
        [("first", first_generation), ("second", second_generation), ("lockd", lockd), ("api", api)];
    let arena = Arena {
        address: server.socket(),
        start: Instant::now(),
        spans: Mutex::default(),
        holds: holders.iter().map(|(kind, _)| (*kind, AtomicU64::new(0))).collect(),
        numbers: AtomicU64::new(0),
    };
    let kinds: Vec<_> = holders.into_iter().chain([("latch", latch as fn(&mut Worker<'_>))]).collect();
    thread::scope(|scope| {
        for n in 0..3 * kinds.len() {
            let (kind, client) = kinds[n % kinds.len()];
            let arena = &arena;
            scope.spawn(move || {
                let seed = 0x9e37_79b9_7f4a_7c15 ^ (n as u64 + 1);
                let mut worker = Worker { arena, kind, http: Client::new(arena.address), seed };
                while worker.is_on() {
                    client(&mut worker);
                    worker.pause();
                }
            });
        }
    });
    let spans = std::mem::take(&mut *arena.spans.lock().unwrap());
    for (kind, _) in holders {
        let holds = arena.holds[kind].load(Ordering::Relaxed);
        assert!(holds >= HOLDS, "{kind} held only {holds} times: this proves little");
        println!("{kind} held {holds} times");
    }
    let found = overlaps(&spans);
    assert!(found.is_empty(), "{} of {}: {:#?}", found.len(), spans.len(), &found[..found.len().min(5)]);
    check_history(&server, &spans);
    assert!(server.call("GET /locks", "").json().as_object().unwrap().values().all(|pool| pool["key"] == ""));
    assert_eq!(server.call("GET /api/v1/claims", "").json()["items"].as_array().unwrap().len(), 0);
}

#[test]
fn the_judge_sees_two_holders() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let span = |pool, party: &str, from, to| Span { pool, party: party.into(), kind: "x", from: at(from), to: at(to) };
    assert!(overlaps(&[span("red", "a", 0, 10), span("red", "b", 10, 20), span("blue", "c", 5, 15)]).is_empty());
    assert!(overlaps(&[span("red", "k", 0, 10), span("red", "k", 5, 15)]).is_empty());
    assert_eq!(overlaps(&[span("red", "a", 0, 10), span("red", "b", 9, 20)]).len(), 1);
    assert_eq!(overlaps(&[span("red", "k", 0, 30), span("red", "k", 5, 6), span("red", "b", 20, 21)]).len(), 1);
}
