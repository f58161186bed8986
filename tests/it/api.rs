//! Our HTTP API without a socket: requests as values through the real engine; every answer is checked against
//! `openapi.json`.
//!
//! Most of it is one table of requests, `SCRIPT`: read it to learn the API.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locker::core::names::ParkId;
use locker::core::settings::Settings;
use locker::core::time::Span;
use locker::server::http::{Attempt, Handler, Request, Response};
use locker::server::notices::Subscription;
use locker::server::routes::description;
use locker::wire::json::violations;
use serde_json::{Value, json};

use crate::support::clock::HandClock;
use crate::support::eventually;
use crate::support::in_process::{HookedStore, House, request};

struct Answer {
    status: u16,
    headers: BTreeMap<&'static str, String>,
    json: Value,
    park: Option<Span>,
}

impl Answer {
    /// The code of an error; the status otherwise.
    fn word(&self) -> String {
        self.json["code"].as_str().map_or_else(|| self.status.to_string(), ToOwned::to_owned)
    }
}

struct Api {
    house: House,
    clock: HandClock,
    /// Makes the store fail.
    store_fails: Arc<AtomicBool>,
    openapi: Value,
    next_park: AtomicU64,
    /// The answers of each route so far: (operation, code or status).
    seen: Mutex<BTreeSet<(String, String)>>,
}

impl Api {
    fn start() -> Self {
        let clock = HandClock::default();
        let (store, store_fails) = HookedStore::failing();
        let house = House::open(Box::new(store), Settings::default(), Arc::new(clock.clone()));
        let (next_park, seen) = (AtomicU64::new(1), Mutex::default());
        Self { house, clock, store_fails, openapi: description().clone(), next_park, seen }
    }

    fn request(&self, method: &str, target: &str, body: &str) -> Request {
        let park = ParkId(self.next_park.fetch_add(1, Ordering::SeqCst));
        Request { park, ..request(method, target, body) }
    }

    fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        self.send(self.request(method, target, body))
    }

    /// Sends a request. The answer must be one that `openapi.json` promises.
    fn send(&self, request: Request) -> Answer {
        let name = format!("{} {}", request.method, request.path);
        let method = request.method.to_lowercase();
        let operation = self.operation(&method, &request.path);
        let Response { status, headers, body, park, .. } = self.house.answer(&request);
        let headers: BTreeMap<_, _> = headers.into_iter().collect();
        let media = headers.get("content-type").and_then(|media| media.split(';').next());
        let media = media.unwrap_or("application/json").to_owned();
        let json: Value = match media.as_str() {
            "application/json" => serde_json::from_slice(&body).unwrap(),
            _ => String::from_utf8(body).unwrap().into(),
        };
        let answer = Answer { status, headers, json, park };
        if let Some((template, operation)) = operation {
            let promised = &operation["responses"][status.to_string()];
            assert!(promised.is_object(), "{name}: {status} is not promised: {}", answer.json);
            let wrong = violations(&self.openapi, &promised["content"][media]["schema"], &answer.json);
            assert!(wrong.is_empty(), "{name}: {wrong:?} in {}", answer.json);
            if status != 200 {
                let codes: Vec<&str> = promised["description"].as_str().unwrap().split(", ").collect();
                assert!(codes.contains(&answer.word().as_str()), "{name}: {} is not promised", answer.json);
            }
            self.seen.lock().unwrap().insert((format!("{method} {template}"), answer.word()));
        }
        answer
    }

    fn operation(&self, method: &str, path: &str) -> Option<(&str, &Value)> {
        let fits = |template: &str| {
            let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.starts_with('{') || *a == b)
        };
        let paths = self.openapi["paths"].as_object().unwrap();
        let (template, item) = paths.iter().find(|(template, _)| fits(template))?;
        Some((template, item.get(method)?))
    }

    fn subscribe(&self, request: &Request) -> Subscription {
        self.house.notices.subscribe(request.park)
    }

    /// Replaces variables in a line: `$name` is the fence of claim `name`, `$now` is the newest revision.
    fn fill(&self, line: &str) -> String {
        let snapshot = self.house.engine.snapshot();
        let mut filled = line.replace("$now", &snapshot.revision.to_string());
        for claim in snapshot.claims.values() {
            if let Some(fence) = claim.fence() {
                filled = filled.replace(&format!("${}", claim.id), &fence.to_string());
            }
        }
        filled
    }

    /// Runs a table: `METHOD target | body | status, then a code or conditions on the answer`. In the conditions,
    /// variables are replaced after the call, and `~` stands for a space.
    fn run(&self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(span) = line.strip_prefix("... ") {
                self.clock.pass(locker::wire::text::span(span).unwrap());
                continue;
            }
            let [request, body, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let (method, target) = request.split_once(' ').unwrap();
            let answer = self.call(method, self.fill(target.trim()).as_str(), &self.fill(body));
            for (n, wanted) in self.fill(expected).split_whitespace().enumerate() {
                let met = match (n, wanted.split_once('=')) {
                    (0, _) => answer.status.to_string() == wanted,
                    (_, None) => answer.word() == wanted,
                    (_, Some((path, value))) => found(&answer.json, path) == value.replace('~', " "),
                };
                assert!(met, "{line}\n  {wanted}\n  answer: {} {:#}", answer.status, answer.json);
            }
        }
    }
}

/// The value at `a.0.b` of an answer, as plain text. `a.#` is the number of items; a missing value is `-`.
fn found(json: &Value, path: &str) -> String {
    let mut at = json;
    for part in path.split('.') {
        if part == "#" {
            return at.as_array().map_or("-".into(), |items| items.len().to_string());
        }
        at = part.parse::<usize>().ok().and_then(|n| at.get(n)).unwrap_or(&at[part]);
    }
    match at {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every route, and nearly every refusal that the routes promise.
const SCRIPT: &str = r#"
# Pools and locks
GET    /api/v1/pools                    |                                                | 200 items.#=0
PUT    /api/v1/pools/p                  | {"capacity":2,"policy":{"drain":"90s","max_queue":3}} | 200 revision=$now
PUT    /api/v1/pools/p                  | {"capacity":2,"policy":{"drain":"1m 30s","max_queue":3}} | 200 revision=$now
PUT    /api/v1/pools/big                | {"capacity":10001}                             | 429 limit
PATCH  /api/v1/pools/big                | {"capacity":10001}                             | 429 limit
PATCH  /api/v1/pools/p                  | {"policy":{"max_queue":3}}                     | 200
PUT    /api/v1/pools/p                  | {"policy":{"drain":"x","max_hold":"10ms","max_queue":10001}} | 400 problems.#=3
PUT    /api/v1/pools/.p                 | {"capcity":1}                                  | 400 problems.#=2
GET    /api/v1/pools                    |                                                | 200 items.0.pool=p items.0.free=2 items.0.policy.drain=1m30s next=-
GET    /api/v1/pools/p                  |                                                | 200 locks=2 items.0.lock=1 items.0.state=free queue.#=0
GET    /api/v1/pools/p?limit=1          |                                                | 200 items.#=1 next=1
GET    /api/v1/pools/p?limit=1&after=1  |                                                | 200 items.0.lock=2 next=-
GET    /api/v1/pools/none               |                                                | 404 no_such_pool
GET    /api/v1/pools/p?limit=0          |                                                | 400 bad_request
GET    /api/v1/pools?limit=1001         |                                                | 400 bad_request
GET    /api/v1/pools?after=a//b         |                                                | 400 bad_request
PUT    /api/v1/pools/p/locks/eu         | {"metadata":"zone: eu","labels":{"size":"big"},"by":{"op":"op1","reason":"new"}} | 200 revision=$now
PUT    /api/v1/pools/p/locks/eu         | {"metadata":"zone: eu","labels":{"size":"big"},"by":{"op":"op1","reason":"again"}} | 200 revision=$now
PUT    /api/v1/pools/p/locks/eu         | {"metadata":"other","by":{"op":"op1"}}         | 409 different_request
PUT    /api/v1/pools/p/locks/eu         |                                                | 409 lock_exists
PUT    /api/v1/pools/p/locks/us         | {"metadata":"a","metadata_base64":"!","labels":{"":"x"},"by":{"op":"a b"}} | 400 problems.#=3
GET    /api/v1/pools/p/locks/eu         |                                                | 200 metadata=zone:~eu labels.size=big state=free
PATCH  /api/v1/pools/p/locks/eu         | {"metadata_base64":"/wA="}                     | 200 revision=$now
GET    /api/v1/pools/p/locks/eu         |                                                | 200 metadata=- metadata_base64=/wA= labels.size=big
PATCH  /api/v1/pools/p/locks/no         | {}                                             | 404 no_such_lock
PATCH  /api/v1/pools/none/locks/no      | {}                                             | 404 no_such_pool
PATCH  /api/v1/pools/p/locks/eu         | {"labels":{"a":7}}                             | 400 bad_request
GET    /api/v1/pools/p/locks/no         |                                                | 404 no_such_lock
GET    /api/v1/pools/none/locks/no      |                                                | 404 no_such_pool
GET    /api/v1/pools/p/locks/..         |                                                | 400 bad_request
DELETE /api/v1/pools/p/locks/no         |                                                | 404 no_such_lock
DELETE /api/v1/pools/none/locks/no      |                                                | 404 no_such_pool
DELETE /api/v1/pools/p/locks/1          | {"claim":"x y"}                                | 400 bad_request
DELETE /api/v1/pools/p/locks/1          | {"claim":"nobody"}                             | 409 not_holder
POST   /api/v1/pools/p/locks/no/move    | {"to":"q"}                                     | 404 no_such_lock
POST   /api/v1/pools/none/locks/no/move | {"to":"q"}                                     | 404 no_such_pool
POST   /api/v1/pools/p/locks/eu/move    | {"to":"p"}                                     | 409 lock_exists
POST   /api/v1/pools/p/locks/eu/move    | {"to":"a/"}                                    | 400 bad_request
POST   /api/v1/pools/p/locks/eu/move    |                                                | 400 bad_request
POST   /api/v1/pools/p/locks/eu/move    | {"to":"q","claim":"nobody"}                    | 409 not_holder
PUT    /api/v1/pools/full               | {"capacity":10000}                             | 200 revision=$now
PUT    /api/v1/pools/full/locks/more    |                                                | 429 limit
POST   /api/v1/pools/p/locks/eu/move    | {"to":"full"}                                  | 429 limit
GET    /api/v1/pools/full               |                                                | 200 locks=10000 items.#=1000 next=1898

# Claims
PUT    /api/v1/claims/a                 | {"pool":"p","lock":"eu","run":"r1","reason":"deploy","owner":{"cluster":"https://ci","team":"main","build_id":"7"}} | 200 state=held locks.0.lock=eu fence=$a revision=$a life=1 requestor=-
PUT    /api/v1/claims/a                 | {"pool":"p","lock":"eu","run":"r1","owner":{"cluster":"https://ci","team":"main","build_id":"7"},"ttl":"1h"} | 200 state=held held_until=-
PUT    /api/v1/claims/a                 | {"pool":"p","lock":"eu","run":"r2","owner":{"cluster":"https://ci","team":"main","build_id":"7"}} | 200 state=held
PUT    /api/v1/claims/a                 | {"pool":"p","lock":"eu","run":"r1","owner":{"cluster":"https://ci","team":"main","build_id":"7"}} | 409 superseded_run
PUT    /api/v1/claims/a                 | {"pool":"p","lock":"eu","owner":{"cluster":"https://ci","team":"main","build_id":"8"}} | 409 different_request
PUT    /api/v1/claims/b                 | {"pool":"p","lock":"eu","confirm":true,"run":"r1","ttl":"1h","key":"k","requestor":"me"} | 423 waiting parked=false claim.queue.position=1 claim.queue.ahead.#=0 holders.0.claim=a claim.requestor=me
PUT    /api/v1/claims/c                 | {"pool":"p","lock":"eu"}                       | 423 waiting claim.queue.position=2 claim.queue.ahead.0.claim=b claim.queue.listening=true
PUT    /api/v1/claims/d                 | {"pool":"p","lock":"eu","queue":false}         | 423 locked holders.0.lock=eu holders.0.owner.build_id=7 claim=-
PUT    /api/v1/claims/d                 | {"pool":"p","lock":"eu"}                       | 423 waiting claim.queue.position=3
PUT    /api/v1/claims/e                 | {"pool":"p","lock":"eu"}                       | 429 queue_full
PUT    /api/v1/claims/e                 | {"pool":"p","pool":"q"}                        | 400 bad_request
PUT    /api/v1/claims/e                 |                                                | 400 problems.#=1
PUT    /api/v1/claims/e                 | {"pool":"full","lock":"no"}                    | 404 no_such_lock
PUT    /api/v1/claims/e                 | {"pool":"none","lock":"no"}                    | 404 no_such_pool
PUT    /api/v1/claims/e                 | {"pool":"full","count":2,"labels":{"a":"b"}}   | 422 too_many
PUT    /api/v1/claims/e                 | {"pool":"full","expect_store":"store-2"}       | 421 other_store
PUT    /api/v1/claims/f                 | {"pool":"full","expect_store":"store-1","scope":"person"} | 200 state=held scope=person asks.0.count=1
PUT    /api/v1/claims/g                 | {"pool":"full","locks":["7","8"],"also":[{"pool":"own"}],"wait":"5m"} | 200 locks.#=3 asks.#=2
GET    /api/v1/claims/g                 |                                                | 200 state=held asks.0.locks.1=8 asks.1.pool=own
GET    /api/v1/claims/b                 |                                                | 200 state=waiting queue.position=1 queue.holders.0.claim=a
GET    /api/v1/claims/zzz               |                                                | 404 no_such_claim
GET    /api/v1/claims/z%20z             |                                                | 400 bad_request
GET    /api/v1/claims                   |                                                | 200 items.#=6 items.0.id=a items.1.queue=-
GET    /api/v1/claims?limit=2           |                                                | 200 items.#=2 next=b
GET    /api/v1/claims?limit=2&after=b   |                                                | 200 items.0.id=c next=d
GET    /api/v1/claims?pool=p&limit=3    |                                                | 200 items.#=3 next=c
GET    /api/v1/claims?pool=p&after=c    |                                                | 200 items.#=1 items.0.id=d next=-
GET    /api/v1/claims?pool=p&state=held |                                                | 200 items.#=1 items.0.id=a
GET    /api/v1/claims?pool=none         |                                                | 200 items.#=0
GET    /api/v1/claims?build=7&cluster=https%3A%2F%2Fci |                                 | 200 items.#=1 items.0.id=a
GET    /api/v1/claims?build=7&cluster=x |                                                | 200 items.#=0
GET    /api/v1/claims?build=7           |                                                | 400 bad_request
GET    /api/v1/claims?state=helt        |                                                | 400 bad_request
GET    /api/v1/claims?state=ended&pool=p |                                               | 400 bad_request
GET    /api/v1/pools/p                  |                                                | 200 waiting=3 queue.0.claim=b queue.0.listening=true
GET    /api/v1/verify?pool=p&lock=eu&fence=$a |                                          | 200 holder.claim=a holder.reason=deploy
GET    /api/v1/verify?pool=p&lock=1&fence=$a |                                           | 409 not_held
GET    /api/v1/verify?pool=none&lock=eu&fence=1 |                                        | 409 not_held
GET    /api/v1/verify?pool=p&lock=eu&fence=x |                                           | 400 problems.#=1
GET    /api/v1/verify                   |                                                | 400 problems.#=3
GET    /api/v1/events?pool=none         |                                                | 404 no_such_pool
GET    /api/v1/events?entries=1&since=x |                                                | 400 problems.#=2
GET    /api/v1/events                   |                                                | 429 limit
POST   /api/v1/tokens                   | {}                                             | 400
POST   /api/v1/tokens                   | {"name":"x"}                                   | 422 unprocessable
GET    /api/v1/tokens                   |                                                | 200
GET    /api/v1/tokens?a=b               |                                                | 400
DELETE /api/v1/tokens/x                 |                                                | 404 no_such_token
DELETE /api/v1/tokens/a%2Fb             |                                                | 400
GET    /api/v1/session                  |                                                | 200
GET    /api/v1/session?a=b              |                                                | 400
POST   /api/v1/session                  |                                                | 422 unprocessable
POST   /api/v1/session                  | {"username":"ada"}                             | 400
DELETE /api/v1/session                  |                                                | 200
DELETE /api/v1/session?a=b              |                                                | 400
DELETE /api/v1/pools/p/locks/eu         |                                                | 409 lock_held
PATCH  /api/v1/pools/p/locks/eu         | {"metadata":"x","if_free":true}                | 409 lock_held
DELETE /api/v1/pools/p                  |                                                | 409 pool_in_use
DELETE /api/v1/pools/p                  | {"claim":"a"}                                  | 400 bad_request
POST   /api/v1/claims/b/confirm         | {"fence":1}                                    | 409 not_granted
DELETE /api/v1/claims/a?run=r1          |                                                | 409 superseded_run
DELETE /api/v1/claims/a?runn=r1         |                                                | 400 bad_request
DELETE /api/v1/claims/a?run=r1&run=r2   |                                                | 400 bad_request
DELETE /api/v1/claims/a                 | {"run":"r2"}                                   | 400 bad_request
DELETE /api/v1/claims/a?by=bob&reason=done%20with+it |                                   | 200 state=ended how=released by=bob owner.build_id=7
DELETE /api/v1/claims/a                 |                                                | 200 how=released by=bob
GET    /api/v1/claims/a                 |                                                | 200 state=ended how=released

# b was next, and must confirm
GET    /api/v1/claims/b                 |                                                | 200 state=granted queue=- fence=$b revision=-
GET    /api/v1/pools/p/locks/eu         |                                                | 200 state=granted holders.0.state=granted
GET    /api/v1/verify?pool=p&lock=eu&fence=$b |                                          | 409 not_held
POST   /api/v1/claims/b/confirm         | {"fence":1}                                    | 409 wrong_fence
POST   /api/v1/claims/b/confirm         | {"fence":"1","ran":"r1"}                       | 400 problems.#=2
POST   /api/v1/claims/b/confirm         | {"fence":$b,"run":"r2"}                        | 200 state=held held_until=2026-08-29T11:40:00.000Z
POST   /api/v1/claims/b/confirm         | {"fence":$b,"run":"r2"}                        | 200 state=held
POST   /api/v1/claims/b/confirm         | {"fence":$b,"run":"r1"}                        | 409 superseded_run
POST   /api/v1/claims/zzz/confirm       | {"fence":1}                                    | 404 no_such_claim
GET    /api/v1/verify?pool=p&lock=eu&fence=$b |                                          | 200 holder.key=k holder.until=2026-08-29T11:40:00.000Z

# ... and is lost an hour later, while the others are away
... 1h
POST   /api/v1/claims/b/confirm         | {"fence":1}                                    | 410 ended claim.how=lost
PUT    /api/v1/claims/b                 | {"pool":"p","lock":"eu","key":"k","requestor":"me"} | 410 ended claim.state=ended
DELETE /api/v1/claims/b                 |                                                | 410 ended
GET    /api/v1/claims/b                 |                                                | 200 state=ended how=lost
GET    /api/v1/pools/p/locks/eu         |                                                | 200 state=draining
GET    /api/v1/claims?state=ended       |                                                | 200 items.0.id=a items.1.id=b
GET    /api/v1/claims?state=ended&limit=1 |                                              | 200 items.0.id=a next=a
GET    /api/v1/claims?state=ended&limit=1&after=a |                                      | 200 items.0.id=b next=-
GET    /api/v1/claims/c                 |                                                | 200 state=waiting queue.listening=false
GET    /api/v1/claims?state=ended&build=7&cluster=https://ci |                           | 200 items.#=1
DELETE /api/v1/claims/never             |                                                | 404 no_such_claim
DELETE /api/v1/claims/never             |                                                | 200 how=cancelled life=0 revision=-

# One operation, one request
POST   /api/v1/pools/p/changes          | {"by":{"op":"once"}}                           | 200
POST   /api/v1/pools/p/changes          | {"lock":"eu","by":{"op":"once"}}               | 409 different_request
POST   /api/v1/pools/p/locks/eu/quarantine | {"by":{"op":"once","reason":"x"}}           | 409 different_request
POST   /api/v1/pools/p/locks/eu/return  | {"by":{"op":"once"}}                           | 409 different_request
PATCH  /api/v1/pools/p/locks/eu         | {"by":{"op":"once"}}                           | 409 different_request
DELETE /api/v1/pools/p/locks/eu         | {"by":{"op":"once"}}                           | 409 different_request
PUT    /api/v1/pools/p                  | {"by":{"op":"once"}}                           | 409 different_request
PATCH  /api/v1/pools/p                  | {"by":{"op":"once"}}                           | 409 different_request
DELETE /api/v1/pools/p                  | {"by":{"op":"once"}}                           | 409 different_request
POST   /api/v1/claims/c/move            | {"to":"first","by":{"op":"once","reason":"x"}} | 409 different_request

# History
GET    /api/v1/pools/none/changes       |                                                | 404 no_such_pool
GET    /api/v1/pools/p/changes          |                                                | 200 items.0.kind=pool_set
GET    /api/v1/pools/p/changes?versions=true&newest=true |                               | 200 items.#=1 items.0.kind=lost items.0.how=lost items.0.claim=b items.0.held=1h items.0.waited=-
GET    /api/v1/pools/p/changes          |                                                | 200 items.5.kind=claimed items.5.waited=0s items.5.held=-
GET    /api/v1/pools/p/changes?after=$now |                                              | 200 items.#=0 next=-
GET    /api/v1/pools/p/changes?after=1&from=1 |                                          | 400 bad_request
GET    /api/v1/pools/p/changes?newest=yes |                                              | 400 bad_request
GET    /api/v1/pools/p/changes?wait=soon |                                               | 400 bad_request
GET    /api/v1/pools/p/changes?after=-1 |                                                | 400 bad_request
POST   /api/v1/pools/p/changes          | {"lock":"eu","by":{"reason":"looked","owner":{"job":"j"}}} | 200 revision=$now
POST   /api/v1/pools/none/changes       |                                                | 404 no_such_pool
POST   /api/v1/pools/p/changes          | {"lock":"..","by":{"owner":{"job":""}}}        | 400 problems.#=2
GET    /api/v1/pools/p/changes?from=$now&versions=true |                                 | 200 items.#=1 items.0.kind=noted items.0.owner.job=j
GET    /api/v1/pools/p/changes?from=$now&versions=true&newest=true |                     | 200 items.#=1 items.0.kind=noted
GET    /api/v1/pools/p/changes?versions=true&newest=true |                               | 200 items.0.kind=lost
GET    /api/v1/pools/p/changes/$now     |                                                | 200 items.#=1 items.0.reason=looked
GET    /api/v1/pools/p/changes/7        |                                                | 404 no_such_revision
GET    /api/v1/pools/none/changes/7     |                                                | 404 no_such_pool
GET    /api/v1/pools/p/changes/x        |                                                | 400 bad_request
GET    /api/v1/changes?newest=true      |                                                | 200 items.0.kind=noted
GET    /api/v1/changes?limit=1          |                                                | 200 items.0.kind=pool_set
GET    /api/v1/changes?limit=x          |                                                | 400 bad_request

# The newest first, and only what is asked for
GET    /api/v1/pools/p/changes?order=newest_first&limit=1 |                              | 200 items.#=1 items.0.kind=noted
GET    /api/v1/pools/p/changes?order=newest_first&limit=1&after=$now |                   | 200 items.#=1 items.0.kind=noted items.0.owner.job=-
GET    /api/v1/pools/p/changes?order=newest_first&kind=lost,claimed |                    | 200 items.#=3 items.0.kind=lost items.1.claim=b items.2.claim=a
GET    /api/v1/pools/p/changes?order=newest_first&claim=b&limit=2 |                      | 200 items.#=2 items.0.kind=lost items.1.kind=claimed
GET    /api/v1/pools/p/changes?claim=b&lock=eu  |                                        | 200 items.#=3 items.0.kind=granted items.2.kind=lost next=-
GET    /api/v1/pools/p/changes?lock=1   |                                                | 200 items.#=1 items.0.kind=added
GET    /api/v1/pools/p/changes?build=7  |                                                | 200 items.#=2 items.0.kind=claimed items.1.kind=released
GET    /api/v1/pools/p/changes?build=7&cluster=https://other |                           | 200 items.#=0
GET    /api/v1/pools/p/changes?who=MAIN |                                                | 200 items.0.owner.team=main
GET    /api/v1/pools/p/changes?since=10m |                                               | 200 items.0.kind=lost
GET    /api/v1/pools/p/changes?until=10m&kind=lost |                                     | 200 items.#=0
GET    /api/v1/pools/p/changes?since=2026-08-29T11:00:00Z&kind=lost |                    | 200 items.#=1
GET    /api/v1/pools/p/changes?since=2027-01-01T00:00:00Z |                              | 200 items.#=0
GET    /api/v1/pools/p/changes?cluster=https://ci |                                      | 400 bad_request
GET    /api/v1/pools/p/changes?order=down |                                              | 400 bad_request
GET    /api/v1/pools/p/changes?order=newest_first&from=1&wait=1s&newest=true |           | 400 problems.#=3
GET    /api/v1/pools/p/changes?newest=true&claim=b |                                     | 400 bad_request
GET    /api/v1/pools/p/changes?kind=lots&since=soon&lock=.&claim=a%20b&who= |            | 400 problems.#=5
GET    /api/v1/pools/p/changes?pool=q   |                                                | 400 bad_request
GET    /api/v1/changes?order=newest_first&limit=1 |                                      | 200 items.0.kind=noted items.#=1
GET    /api/v1/changes?order=newest_first&kind=lost&since=2h |                           | 200 items.#=1 items.0.claim=b
GET    /api/v1/changes?pool=f*l&kind=claimed |                                           | 200 items.#=2 items.0.claim=f items.1.claim=g
GET    /api/v1/changes?since=10m&kind=lost |                                             | 200 items.#=1 items.0.claim=b
GET    /api/v1/changes?until=10m&order=newest_first&limit=1 |                            | 200 items.0.claim=b items.0.kind=claimed
GET    /api/v1/pools/p/stats            |                                                | 200 complete=true pools.#=1 pools.0.pool=p pools.0.locks=3 pools.0.figures.waits.count=2 pools.0.figures.holds.longest=1h pools.0.figures.lost=1 longest_holds.0.claim=b held.#=0 waiting.#=2
GET    /api/v1/stats?top=1&since=2h     |                                                | 200 teams.#=2 longest_holds.#=1 held.#=1 held.0.id=f
GET    /api/v1/stats?pool=f*l           |                                                | 200 pools.#=1 pools.0.pool=full pools.0.figures.in_use=3h pools.0.utilisation=0.0
GET    /api/v1/pools/none/stats         |                                                | 404 no_such_pool
GET    /api/v1/pools/.p/stats           |                                                | 400 bad_request
GET    /api/v1/stats?top=101&since=1h&until=2h |                                         | 400 problems.#=2

... 10m
GET    /api/v1/pools/p/locks/eu         |                                                | 200 state=draining
DELETE /api/v1/claims/c                 |                                                | 200 how=listener_lost
GET    /api/v1/pools/p/locks/eu         |                                                | 200 state=free
DELETE /api/v1/pools/p/locks/1          | {"by":{"reason":"broken"}}                     | 200 revision=$now
DELETE /api/v1/pools/p                  |                                                | 200 revision=$now
DELETE /api/v1/pools/p                  |                                                | 404 no_such_pool
GET    /api/v1/pools/p/changes          |                                                | 404 no_such_pool
GET    /api/v1/changes?newest=true      |                                                | 200 items.0.kind=pool_removed items.0.pools.0=p

# Web page; tests/it/web.rs tells more
GET    /                                |                                                | 200
GET    /?x=1                            |                                                | 400 bad_request
GET    /pools/own                       |                                                | 200
GET    /pools/..                        |                                                | 400 bad_request
GET    /claims/a                        |                                                | 200
GET    /claims/never-was                |                                                | 404
GET    /claims/z%20z                    |                                                | 400 bad_request
GET    /assets/locker.css               |                                                | 200
GET    /assets/locker.css?x=1           |                                                | 400 bad_request
GET    /assets/locker.js                |                                                | 200
GET    /assets/locker.js?x=1            |                                                | 400 bad_request
GET    /assets/locker.svg               |                                                | 200
GET    /assets/locker.svg?x=1           |                                                | 400 bad_request

# Metrics
GET    /metrics                         |                                                | 200
GET    /metrics?x=1                     |                                                | 400 bad_request

# Contracts; they are told in full in tests/it/contracts.rs
GET    /locks                           |                                                | 200 own.locked_by.g=1 prod=-
PUT    /lock/prod                       | {"lock":"me"}                                  | 200 response=pool~"prod"~is~locked~by~"me"
PUT    /lock/prod                       | {"key":"k"}                                    | 423 locked
PUT    /lock/prod                       | {}                                             | 400 bad_request
PUT    /lock/full                       | {"key":"k"}                                    | 404 no_such_lock
GET    /lock/prod                       |                                                | 200
GET    /lock/none                       |                                                | 404 not_held
GET    /lock/a+b                        |                                                | 400 bad_request
PUT    /lock/                           | {"key":"k"}                                    | 404 no_such_route
GET    /lock/                           |                                                | 404 no_such_route
POST   /lock/prod                       |                                                | 409 locked
POST   /lock/.prod                      |                                                | 400 bad_request
POST   /lock/full                       |                                                | 404 no_such_lock
POST   /lock/                           |                                                | 404 no_such_route
DELETE /lock/prod                       | {"lock":"you"}                                 | 423 locked
DELETE /lock/prod                       | []                                             | 400 bad_request
DELETE /lock/prod                       | {"lock":"me"}                                  | 200 response=pool~"prod"~is~unlocked:~1~of~"me"
DELETE /lock/prod                       |                                                | 409 not_held
DELETE /lock/                           |                                                | 404 no_such_route
POST   /lock/prod?wait=1s               |                                                | 200

# Latches; they are told in full in tests/it/latches.rs
POST   /lock | {"id":"e9205d4a-2545-4c58-86ae-d0e7b3ecec23","workflow":"w"}   | 200 status=locked namespace=default
POST   /lock | {"id":"e9205d4a-2545-4c58-86ae-d0e7b3ecec23","workflow":"x"}   | 409 latch_exists
POST   /lock | {"workflow":"W"}                                              | 400 bad_request
GET    /lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec23   |                     | 200 workflow=w
GET    /lock?status=all                 |                                                | 200 0.workflow=w
GET    /lock?status=none                |                                                | 400 bad_request
GET    /lock?id=x                       |                                                | 404 no_such_latch
PATCH  /lock?id=x                       |                                                | 404 no_such_latch
PATCH  /lock                            |                                                | 400 bad_request
PATCH  /lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec23   | {"outputs":{"v":"1"}} | 200 status=released outputs.v=1
PATCH  /lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec23   | {"outputs":{"v":"2"}} | 409 latch_released
DELETE /lock?id=x                       |                                                | 404 no_such_latch
DELETE /lock                            |                                                | 400 bad_request
DELETE /lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec23   |                     | 200
POST   /lock | {"id":"e9205d4a-2545-4c58-86ae-d0e7b3ecec24","workflow":"w"}   | 200

# The server itself
GET    /api/v1/info                     |                                                | 200 store_id=store-1 revision=$now time=2026-08-29T11:50:00.000Z
GET    /api/v1/info?x=1                 |                                                | 400 bad_request
GET    /healthz                         |                                                | 200 status=ok
GET    /readyz                          |                                                | 200 status=ok
GET    /healthz?x=1                     |                                                | 400 bad_request
GET    /readyz?x=1                      |                                                | 400 bad_request
GET    /openapi.json                    |                                                | 200 openapi=3.1.0
GET    /openapi.json?x=1                |                                                | 400 bad_request
HEAD   /api/v1/info                     |                                                | 200 store_id=store-1

# Nowhere
GET    /nothing                         |                                                | 404 no_such_route
GET    /api/v1/pool                     |                                                | 404 no_such_route
GET    /api/v1/info/                    |                                                | 404 no_such_route
GET    //healthz                        |                                                | 404 no_such_route
GET    *                                |                                                | 404 no_such_route
GET    /%zz                             |                                                | 400 bad_request
GET    /api/v1/pools/                   |                                                | 400 bad_request
GET    /%61pi/v1/info                   |                                                | 200
POST   /api/v1/info                     |                                                | 405 method_not_allowed
BREW   /api/v1/info                     |                                                | 405 method_not_allowed
"#;

/// Orders of queues, groups that supersede, and waits that cannot end.
const ORDERS: &str = r#"
PUT    /api/v1/pools/prio       | {"capacity":1,"policy":{"order":"priority"}}           | 200 revision=$now
PUT    /api/v1/pools/prio2      | {"capacity":1,"policy":{"order":"priority"}}           | 200
PUT    /api/v1/pools/prio       | {"policy":{"order":"lilo"}}                            | 400 bad_request
GET    /api/v1/pools/prio       |                                                        | 200 policy.order=priority
PUT    /api/v1/claims/o1        | {"pool":"prio","priority":1001,"supersede":""}         | 400 problems.#=2
PUT    /api/v1/claims/o1        | {"pool":"prio"}                                        | 200 state=held priority=- supersede=-
PUT    /api/v1/claims/o2        | {"pool":"prio","supersede":"x"}                        | 423 waiting claim.queue.position=1 claim.supersede=x
PUT    /api/v1/claims/o3        | {"pool":"prio","priority":5}                           | 423 waiting claim.queue.position=1 claim.priority=5
PUT    /api/v1/claims/o3        | {"pool":"prio","priority":-5,"supersede":"x"}          | 423 waiting claim.priority=5 claim.supersede=-
PUT    /api/v1/claims/o4        | {"pool":"prio","supersede":"x"}                        | 423 waiting claim.queue.position=2 claim.queue.ahead.0.claim=o3
PUT    /api/v1/claims/o2        | {"pool":"prio"}                                        | 410 ended claim.how=superseded
GET    /api/v1/pools/prio       |                                                        | 200 queue.0.claim=o3 queue.1.claim=o4
PUT    /api/v1/claims/o5        | {"pool":"prio","also":[{"pool":"p"}]}                  | 422 mixed_orders
PUT    /api/v1/claims/o5        | {"pool":"prio","also":[{"pool":"prio2"}]}              | 423 waiting
PUT    /api/v1/pools/prio2      | {"policy":{"order":"fifo"}}                            | 409 pool_in_use
PATCH  /api/v1/pools/prio2      | {"policy":{"order":"fifo"}}                            | 409 pool_in_use
PATCH  /api/v1/pools/prio2      | {"policy":{"drain":"1s"},"defaults":["ordr"]}          | 400 problems.#=1

PUT    /api/v1/claims/s1        | {"pool":"sa","owner":{"cluster":"https://ci","build_id":"1"}} | 200 state=held
PUT    /api/v1/claims/s2        | {"pool":"sb","owner":{"cluster":"https://ci","build_id":"2"}} | 200 state=held
PUT    /api/v1/claims/s3        | {"pool":"sa","owner":{"cluster":"https://ci","build_id":"1"}} | 423 self_wait parked=false own.0.claim=s1 own.0.lock=sa builds=- claim.queue.stuck=self_wait
GET    /api/v1/claims/s3        |                                                        | 200 queue.stuck=self_wait
DELETE /api/v1/claims/s3        |                                                        | 200
PUT    /api/v1/claims/s4        | {"pool":"sb","owner":{"cluster":"https://ci","build_id":"1"}} | 423 waiting claim.queue.stuck=-
... 1s
# Whether a timer or this step has looked at what s4 waits for, the next look is due in a second.
PUT    /api/v1/claims/s3        | {"pool":"sa","owner":{"cluster":"https://ci","build_id":"1"}} | 410 ended
... 1s
PUT    /api/v1/claims/s5        | {"pool":"sa","owner":{"cluster":"https://ci","build_id":"2","team":"main","job":"j","build_name":"3"}} | 423 deadlock builds.#=2 builds.0.build_id=2 builds.1.build_id=1 own=-
PUT    /api/v1/claims/s4        | {"pool":"sb","owner":{"cluster":"https://ci","build_id":"1"}} | 423 deadlock builds.0.build_id=1 builds.1.job=j

# A lock that comes claimed
PUT    /api/v1/pools/fc/locks/x | {"claim":{"id":"f1","run":"r1","ttl":"1h"},"by":{"op":"fc1","reason":"new","owner":{"build_id":"9"}}} | 200 revision=$now
PUT    /api/v1/pools/fc/locks/x | {"claim":{"id":"f1","run":"r1","ttl":"1h"},"by":{"op":"fc1","reason":"new","owner":{"build_id":"9"}}} | 200 revision=$now
PUT    /api/v1/pools/fc/locks/x | {"by":{"op":"fc1"}}                                     | 409 different_request
GET    /api/v1/claims/f1        |                                                        | 200 state=held locks.0.lock=x owner.build_id=9 reason=new
PUT    /api/v1/pools/fc/locks/y | {"claim":{"id":"f1"}}                                   | 409 different_request
PUT    /api/v1/pools/fc/locks/y | {"claim":{"id":"a b","ttl":"0s"},"if_free":true}        | 400 problems.#=2
PUT    /api/v1/pools/fc/locks/y | {"claim":{"id":"f2","pool":"x"}}                        | 400 bad_request
PATCH  /api/v1/pools/fc/locks/x | {"claim":{"id":"f2"}}                                   | 400 bad_request
DELETE /api/v1/pools/fc/locks/x | {"claim":"f1"}                                          | 200
PUT    /api/v1/pools/fc/locks/x | {"claim":{"id":"f1","run":"r1"},"by":{"owner":{"build_id":"9"}}} | 410 ended claim.how=released
PUT    /api/v1/pools/fc/locks/x | {"claim":{"id":"f1","run":"r2"},"by":{"owner":{"build_id":"9"}}} | 200
DELETE /api/v1/pools/fc/locks/x | {"claim":"f1"}                                          | 200
PUT    /api/v1/pools/fc/locks/x | {"claim":{"id":"f1","run":"r1"},"by":{"owner":{"build_id":"9"}}} | 409 superseded_run
GET    /api/v1/pools/fc         |                                                        | 200 locks=0
"#;

/// Scopes, renewals and what an `in` has fetched.
const SCOPES: &str = r#"
PUT    /api/v1/pools/sc         | {"capacity":3,"policy":{"scope":"build","max_hold":"1h"}}  | 200 revision=$now
PUT    /api/v1/pools/sc         | {"policy":{"scope":"lease"}}                           | 400 bad_request
GET    /api/v1/pools/sc         |                                                        | 200 policy.scope=build
PUT    /api/v1/claims/x1        | {"pool":"sc"}                                          | 422 unprocessable
PUT    /api/v1/claims/x1        | {"pool":"sc","scope":"build","owner":{"build_id":"7"}} | 422 unprocessable
PUT    /api/v1/pools/sc/locks/x | {"claim":{"id":"x1"}}                                  | 422 unprocessable
PUT    /api/v1/claims/x1        | {"pool":"sc","owner":{"cluster":"https://no","build_id":"7"}} | 422 unknown_concourse
PUT    /api/v1/pools/sc/locks/x | {"claim":{"id":"x1"},"by":{"owner":{"cluster":"https://no","build_id":"7"}}} | 422 unknown_concourse
PUT    /api/v1/claims/x1        | {"pool":"sc","owner":{"cluster":"https://ci","build_id":"7"}} | 200 state=held scope=build ttl=- held_for=1h
PUT    /api/v1/claims/x1        | {"pool":"sc","scope":"build","owner":{"cluster":"https://ci","build_id":"7"}} | 409 different_request
GET    /api/v1/pools/sc/locks/1 |                                                        | 200 holders.0.scope=build holders.0.suspect=-
PUT    /api/v1/claims/x2        | {"pool":"sc","scope":"lease","confirm":true,"run":"r1"} | 200 state=granted scope=lease ttl=1m held_for=-
POST   /api/v1/claims/x2/renew  | {"fence":1}                                            | 409 wrong_fence
POST   /api/v1/claims/x2/renew  | {"fence":$x2,"run":"r1"}                               | 200 state=held held_for=1m
... 40s
POST   /api/v1/claims/x2/renew  |                                                        | 200 state=held held_for=1m fence=$x2
... 40s
GET    /api/v1/claims/x2        |                                                        | 200 state=held held_for=20s
GET    /api/v1/verify?pool=sc&lock=2&fence=$x2 |                                         | 200 holder.claim=x2
POST   /api/v1/claims/x2/renew  | {"run":"r2"}                                           | 200 state=held held_for=1m
POST   /api/v1/claims/x2/renew  | {"run":"r1"}                                           | 409 superseded_run
POST   /api/v1/claims/x2/renew  | {"run":"r2","fense":1}                                 | 400 bad_request
POST   /api/v1/claims/x9/renew  |                                                        | 404 no_such_claim
PUT    /api/v1/claims/x3        | {"pool":"sc","lock":"2","scope":"person"}              | 423 waiting holders.0.scope=lease
POST   /api/v1/claims/x3/renew  |                                                        | 409 not_granted
DELETE /api/v1/claims/x3        |                                                        | 200
... 60s
POST   /api/v1/claims/x2/renew  | {"run":"r2"}                                           | 410 ended claim.how=lease_lost
DELETE /api/v1/claims/x2        |                                                        | 410 ended claim.how=lease_lost
GET    /api/v1/pools/sc/changes?newest=true&versions=true |                              | 200 items.0.kind=lost items.0.how=lease_lost items.0.reason=it~was~not~renewed~within~its~ttl

PUT    /api/v1/claims/x4        | {"pool":"fetched","owner":{"cluster":"https://ci","build_id":"8"}} | 200 state=held scope=flow delivered=- revision=$now
POST   /api/v1/claims/x4/deliver | {"revision":1}                                        | 200 state=held delivered=-
POST   /api/v1/claims/x4/deliver | {"revision":$x4,"build":{"cluster":"https://ci","build_id":"8"}} | 200 fetched=true delivered=-
POST   /api/v1/claims/x4/deliver | {"revision":$x4,"build":{"cluster":"https://ci"}}     | 400 bad_request
POST   /api/v1/claims/x4/deliver | {"revision":$x4,"build":{"cluster":"https://ci","build_id":"9"}} | 200 fetched=true delivered=true
POST   /api/v1/claims/x4/deliver | {"revision":$x4}                                      | 200 state=held delivered=true
POST   /api/v1/claims/x4/deliver |                                                       | 400 bad_request
POST   /api/v1/claims/x9/deliver | {"revision":1}                                        | 404 no_such_claim
DELETE /api/v1/claims/x4        |                                                        | 200
POST   /api/v1/claims/x4/deliver | {"revision":1}                                        | 410 ended claim.how=released

PUT    /api/v1/claims/y1        | {"pool":"stepped","owner":{"cluster":"https://ci","build_id":"8"}} | 200 state=held
POST   /api/v1/claims/y1/release | {"step":"8"}                                          | 400 bad_request
POST   /api/v1/claims/y1/release | {"owner":{"cluster":"https://ci","build_id":"8"}}     | 200 claim.how=released claim.marked=- reruns=- revision=$now
POST   /api/v1/claims/y1/release |                                                       | 200 claim.how=released
POST   /api/v1/claims/y2/release |                                                       | 404 no_such_claim
POST   /api/v1/claims/x2/release |                                                       | 410 ended claim.how=lease_lost
"#;

/// What people do by hand, and policies.
const BY_HAND: &str = r#"
PUT    /api/v1/pools/bh         | {"capacity":2,"policy":{"order":"lifo","overtaking":"backfill:2","pick":"random"}} | 200
GET    /api/v1/pools/bh         |                                                        | 200 policy.order=lifo policy.overtaking=backfill:2 policy.pick=random
PUT    /api/v1/pools/bh         | {"policy":{"overtaking":"backfill:0","pick":"best"}}   | 400 problems.#=1
PUT    /api/v1/pools/bh         | {"policy":{"overtaking":"backfill:0"}}                 | 400 problems.#=1
PUT    /api/v1/pools/bh2        | {"capacity":1,"policy":{"order":"lifo"}}               | 200
PUT    /api/v1/claims/h0        | {"pool":"bh","also":[{"pool":"bh2"}]}                  | 422 mixed_orders
PUT    /api/v1/pools/bh         | {"policy":{"overtaking":"strict","pick":"least_recent","order":"fifo"}} | 200
GET    /api/v1/pools/bh         |                                                        | 200 policy.order=- policy.overtaking=- policy.pick=-

POST   /api/v1/pools/bh/locks/1/quarantine | {"for":"2h","by":{"reason":"disk full","owner":{"person":"Ada"}}} | 200 revision=$now
POST   /api/v1/pools/bh/locks/1/quarantine | {"for":"2h","by":{}}                        | 400 problems.#=1
POST   /api/v1/pools/bh/locks/1/quarantine |                                             | 400 bad_request
POST   /api/v1/pools/bh/locks/9/quarantine | {"by":{"reason":"x"}}                       | 404 no_such_lock
POST   /api/v1/pools/no/locks/9/quarantine | {"by":{"reason":"x"}}                       | 404 no_such_pool
GET    /api/v1/pools/bh/locks/1 |                                                        | 200 state=quarantined quarantine.by=Ada quarantine.reason=disk~full
GET    /api/v1/pools/bh/changes?newest=true&versions=true |                              | 200 items.0.kind=quarantined items.0.reason=disk~full items.0.owner.person=Ada
PUT    /api/v1/claims/h1        | {"pool":"bh"}                                          | 200 state=held locks.0.lock=2
PUT    /api/v1/claims/h2        | {"pool":"bh"}                                          | 423 waiting
PUT    /api/v1/claims/h3        | {"pool":"bh"}                                          | 423 waiting claim.queue.position=2
PUT    /api/v1/claims/h4        | {"pool":"bh"}                                          | 423 waiting claim.queue.position=3

POST   /api/v1/claims/h4/move   | {"before":"h3","by":{"reason":"hotfix","owner":{"person":"Ada"}}} | 200 revision=$now
GET    /api/v1/pools/bh/changes?newest=true |                                            | 200 items.0.kind=moved items.0.claim=h4 items.0.reason=hotfix items.0.owner.person=Ada
GET    /api/v1/pools/bh         |                                                        | 200 queue.1.claim=h4 queue.2.claim=h3
POST   /api/v1/claims/h4/move   | {"to":"first","by":{"reason":"hotfix","op":"m1"}}      | 200 revision=$now
POST   /api/v1/claims/h4/move   | {"to":"first","by":{"reason":"hotfix","op":"m1"}}      | 200
POST   /api/v1/claims/h4/move   | {"to":"last","by":{"reason":"hotfix"}}                 | 200
GET    /api/v1/pools/bh         |                                                        | 200 queue.0.claim=h2 queue.1.claim=h3 queue.2.claim=h4
POST   /api/v1/claims/h4/move   | {"to":"last","before":"h2","by":{}}                    | 400 problems.#=2
POST   /api/v1/claims/h1/move   | {"to":"last","by":{"reason":"x"}}                      | 409 not_waiting
POST   /api/v1/claims/no/move   | {"to":"last","by":{"reason":"x"}}                      | 404 no_such_claim
DELETE /api/v1/claims/h1?if_waiting=true&by=Ada |                                        | 409 not_waiting
DELETE /api/v1/claims/h3?if_waiting=true&by=Ada&reason=not%20needed |                    | 200 how=cancelled by=Ada reason=not~needed
PUT    /api/v1/claims/h3        | {"pool":"bh"}                                          | 410 ended claim.by=Ada claim.reason=not~needed
POST   /api/v1/claims/h3/move   | {"to":"last","by":{"reason":"x"}}                      | 410 ended
POST   /api/v1/claims/h3/break  | {"by":{"reason":"x"}}                                  | 410 ended

POST   /api/v1/claims/h2/break  | {"by":{"reason":"x"}}                                  | 409 not_granted
POST   /api/v1/claims/h1/break  | {"by":{"owner":{"person":"Ada"}}}                      | 400 problems.#=1
POST   /api/v1/claims/no/break  | {"by":{"reason":"x"}}                                  | 404 no_such_claim
POST   /api/v1/claims/h1/break  | {"drain":true,"by":{"reason":"runaway","owner":{"person":"Ada"}}} | 200 how=broken by=Ada reason=runaway
GET    /api/v1/pools/bh/locks/2 |                                                        | 200 state=draining
POST   /api/v1/claims/h1/break  | {"by":{"reason":"again"}}                              | 200 how=broken reason=runaway
DELETE /api/v1/claims/h1        |                                                        | 410 ended claim.how=broken claim.by=Ada
POST   /api/v1/claims/h1/renew  |                                                        | 410 ended claim.reason=runaway
GET    /api/v1/pools/bh/changes?newest=true&versions=true |                              | 200 items.0.kind=broken items.0.how=broken items.0.reason=runaway
POST   /api/v1/pools/bh/locks/1/return |                                                 | 200 revision=$now
POST   /api/v1/pools/bh/locks/9/return |                                                 | 404 no_such_lock
POST   /api/v1/pools/no/locks/9/return |                                                 | 404 no_such_pool
POST   /api/v1/pools/bh/locks/1/return | {"reason":"x"}                                  | 400 bad_request
GET    /api/v1/pools/bh/changes?newest=true&versions=true |                              | 200 items.0.kind=returned
PUT    /api/v1/claims/h2        | {"pool":"bh"}                                          | 200 state=held locks.0.lock=1

# A lock moves
PUT    /api/v1/pools/ready/locks/m      | {"metadata":"one","labels":{"size":"big"}}     | 200 revision=$now
POST   /api/v1/pools/ready/locks/m/move | {"to":"in/use","labels":{"size":"small"},"by":{"op":"op-move"}} | 200 revision=$now
POST   /api/v1/pools/ready/locks/m/move | {"to":"in/use","labels":{"size":"small"},"by":{"op":"op-move"}} | 200 revision=$now
POST   /api/v1/pools/ready/locks/m/move | {"to":"elsewhere","by":{"op":"op-move"}}       | 409 different_request
GET    /api/v1/pools/in%2Fuse/locks/m   |                                                | 200 metadata=one labels.size=small state=free
GET    /api/v1/pools/in%2Fuse/changes   |                                                | 200 items.#=1 items.0.revision=$now items.0.kind=added
GET    /api/v1/pools/ready/changes      |                                                | 200 items.#=2 items.1.revision=$now items.1.kind=removed
PUT    /api/v1/claims/mover             | {"pool":"in/use"}                              | 200 state=held
POST   /api/v1/pools/in%2Fuse/locks/m/move | {"to":"ready"}                              | 409 lock_held
POST   /api/v1/pools/in%2Fuse/locks/m/move | {"to":"ready","claim":"mover","metadata":"two"} | 200 revision=$now
GET    /api/v1/claims/mover             |                                                | 200 state=ended how=released
GET    /api/v1/pools/ready/locks/m      |                                                | 200 metadata=two labels.size=small state=free
"#;

/// Refusals that would take too long to cause here, such as 100,000 pools, or that another test causes.
const NOT_SEEN: &[(&str, &str)] = &[
    ("put /api/v1/claims/{id}", "limit"),
    ("put /api/v1/pools/{pool}/locks/{lock}", "too_many_runs"),
    // With --verify-builds: tests/it/watch.rs.
    ("put /api/v1/claims/{id}", "build_refused"),
    ("put /api/v1/claims/{id}", "concourse_unavailable"),
    ("put /api/v1/pools/{pool}/locks/{lock}", "build_refused"),
    ("put /api/v1/pools/{pool}/locks/{lock}", "concourse_unavailable"),
    // An answer that goes on, and sessions: tests/it/web.
    ("get /api/v1/events", "200"),
    ("post /api/v1/session", "200"),
    // Tokens need an access file: tests/it/tokens.rs.
    ("post /api/v1/tokens", "200"),
    ("post /api/v1/tokens", "token_exists"),
    ("post /api/v1/tokens", "limit"),
    ("post /api/v1/tokens", "store_failed"),
    ("delete /api/v1/tokens/{name}", "200"),
    ("put /lock/{name}", "limit"),
    ("post /lock/{name}", "limit"),
    // Pools must be declared; or a server serves no contracts: tests/it/contracts.rs.
    ("put /lock/{name}", "no_such_pool"),
    ("post /lock/{name}", "no_such_pool"),
    ("post /lock/{name}", "queue_full"),
    ("get /locks", "no_such_route"),
    // Likewise: tests/it/latches.rs.
    ("post /lock", "no_such_route"),
    ("get /lock", "no_such_route"),
    ("patch /lock", "no_such_route"),
    ("delete /lock", "no_such_route"),
    ("post /lock", "limit"),
];

#[test]
fn every_route_answers_and_refuses_as_promised() {
    let api = Api::start();
    api.run(SCRIPT);
    api.run(ORDERS);
    api.run(SCOPES);
    api.run(BY_HAND);
    too_many_runs(&api);
    let body = format!(r#"{{"pool":"own","reason":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(api.call("PUT", "/api/v1/claims/large", &body).word(), "too_large");
    assert_eq!(api.call("PUT", "/lock/large", &body).word(), "too_large");
    assert_eq!(api.call("DELETE", "/lock/large", &body).word(), "too_large");
    let body = "x".repeat(129 * 1024);
    assert_eq!(api.call("POST", "/lock", &body).word(), "too_large");
    assert_eq!(api.call("PATCH", "/lock?id=x", &body).word(), "too_large");
    api.house.going_down.store(true, Ordering::SeqCst);
    assert_eq!(api.call("GET", "/readyz", "").word(), "unavailable");
    store_fails(&api);
    // Whoever waited is told first, and a moment later the server is not ready any more.
    eventually("the server says that its store has failed", || api.call("GET", "/readyz", "").word() == "store_failed");
    let seen = api.seen.lock().unwrap();
    for (path, item) in api.openapi["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            let words = responses.iter().flat_map(|(status, response)| match status.as_str() {
                "200" => vec!["200"],
                // The guard answers it before any route: tests/it/strangers.rs.
                "401" => Vec::new(),
                _ => response["description"].as_str().unwrap().split(", ").collect(),
            });
            let unseen = |word: &&str| {
                // Likewise: tests/it/idtoken/server.rs, tests/it/access/routes.rs.
                !matches!(*word, "issuer_unavailable" | "forbidden")
                    && !seen.contains(&(name.clone(), (*word).into()))
                    && !NOT_SEEN.contains(&(name.as_str(), word))
            };
            let unseen: Vec<&str> = words.filter(unseen).collect();
            assert!(unseen.is_empty(), "{name}: {unseen:?} is promised, but was not seen");
        }
    }
}

fn too_many_runs(api: &Api) {
    let body = |run: usize| format!(r#"{{"pool":"runs","confirm":true,"run":"r{run}"}}"#);
    for run in 0..100 {
        assert_eq!(api.call("PUT", "/api/v1/claims/runs", &body(run)).status, 200);
    }
    assert_eq!(api.call("POST", "/api/v1/claims/runs/renew", r#"{"run":"r100"}"#).word(), "too_many_runs");
    assert_eq!(api.call("PUT", "/api/v1/claims/runs", &body(100)).word(), "too_many_runs");
    assert_eq!(api.call("DELETE", "/api/v1/claims/runs?run=r100", "").word(), "too_many_runs");
    let confirmed = api.call("POST", "/api/v1/claims/runs/confirm", r#"{"fence":1,"run":"r100"}"#);
    assert_eq!(confirmed.word(), "too_many_runs");
}

/// After the first failed commit, the server answers no change.
fn store_fails(api: &Api) {
    api.store_fails.store(true, Ordering::SeqCst);
    for (method, target, body) in [
        ("PUT", "/api/v1/claims/new", r#"{"pool":"new"}"#),
        ("DELETE", "/api/v1/claims/f", ""),
        ("POST", "/api/v1/claims/f/confirm", r#"{"fence":1}"#),
        ("POST", "/api/v1/claims/f/renew", ""),
        ("POST", "/api/v1/claims/f/break", r#"{"by":{"reason":"x"}}"#),
        ("POST", "/api/v1/claims/f/move", r#"{"to":"first","by":{"reason":"x"}}"#),
        ("POST", "/api/v1/pools/own/locks/own/move", r#"{"to":"x"}"#),
        ("POST", "/api/v1/pools/own/locks/own/quarantine", r#"{"by":{"reason":"x"}}"#),
        ("POST", "/api/v1/pools/own/locks/own/return", ""),
        ("POST", "/api/v1/claims/f/deliver", r#"{"revision":1}"#),
        ("POST", "/api/v1/claims/f/release", ""),
        ("PUT", "/api/v1/pools/new", ""),
        ("PATCH", "/api/v1/pools/new", ""),
        ("DELETE", "/api/v1/pools/own", ""),
        ("PUT", "/api/v1/pools/own/locks/a", ""),
        ("PATCH", "/api/v1/pools/own/locks/a", ""),
        ("DELETE", "/api/v1/pools/own/locks/a", ""),
        ("POST", "/api/v1/pools/own/changes", ""),
        ("DELETE", "/api/v1/tokens/x", ""),
        ("PUT", "/lock/new", r#"{"key":"k"}"#),
        ("POST", "/lock/new", ""),
        ("DELETE", "/lock/prod", ""),
        ("POST", "/lock", r#"{"workflow":"w"}"#),
        ("PATCH", "/lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec24", ""),
        ("DELETE", "/lock?id=e9205d4a-2545-4c58-86ae-d0e7b3ecec24", ""),
    ] {
        assert_eq!(api.call(method, target, body).word(), "store_failed", "{method} {target}");
    }
}

#[test]
fn the_description_is_whole() {
    let document = description();
    let mut references = BTreeSet::new();
    collect_references(document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some_and(Value::is_object), "{reference}");
    }
    let schemas: Vec<&String> = document["components"]["schemas"].as_object().unwrap().keys().collect();
    let nameless = schemas.iter().find(|name| name.ends_with(|c: char| c.is_ascii_digit()));
    assert_eq!(nameless, None, "a schema whose name says nothing");
    assert_eq!(document["components"]["securitySchemes"]["password"]["scheme"], "basic");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{path}");
            let public = operation["security"] == json!([]);
            assert_ne!(operation["responses"].get("401").is_some(), public, "{path}");
            if let Some(body) = operation.pointer("/requestBody/content/application~1json") {
                let wrong = locker::wire::json::violations(document, &body["schema"], &body["example"]);
                assert_eq!(wrong, [""; 0], "the example of {path}: {}", body["example"]);
            }
            let named = |p: &&Value| p["in"] == "path";
            let in_path = operation["parameters"].as_array().unwrap().iter().filter(named).count();
            assert_eq!(in_path, path.matches('{').count(), "{path}");
        }
    }
}

fn collect_references<'d>(value: &'d Value, into: &mut BTreeSet<&'d str>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, into)),
        _ => {}
    }
}

#[test]
fn every_error_in_a_claim_is_listed() {
    let api = Api::start();
    let cases = [
        (
            json!({"pool": "p", "lock": "a", "locks": ["b"], "count": 1}),
            &["a pool: give either `lock`, or `locks`, or"][..],
        ),
        (json!({"pool": "p", "lock": "a", "labels": {"x": "y"}}), &["a pool: give either"]),
        (json!({"pool": "p", "count": 0}), &["count: must be at least 1"]),
        (json!({"pool": "p", "count": 1001}), &["count: must be at most 1000"]),
        (json!({"pool": "p", "locks": []}), &["locks: must name 1 to 1000 locks"]),
        (
            json!({"pool": "p", "locks": ["a", "b", "a", "/"]}),
            &["locks[2]: lock \"a\" is named twice", "locks[3]: lock name"],
        ),
        (json!({"pool": "p", "also": [{"pool": "q"}, {"pool": "p"}]}), &["also[1].pool: pool \"p\" is named twice"]),
        (json!({"pool": "p", "also": [{"lock": "x"}]}), &["also[0].pool: pool name is empty"]),
        (
            json!({"pool": "p", "count": 600, "also": [{"pool": "q", "count": 600}]}),
            &["a claim takes at most 1000 locks"],
        ),
        (json!({"pool": "p", "also": vec![json!({"pool": "q"}); 16]}), &["also: a claim spans at most 16 pools"]),
        (json!({"pool": "p", "requestor": "me"}), &["requestor: needs a `key`"]),
        (json!({"pool": "p", "key": ""}), &["key: text is empty"]),
        (json!({"pool": "p", "ttl": "999ms"}), &["ttl: \"999ms\" is not between 1s and 30days"]),
        (json!({"pool": "p", "ttl": "31days"}), &["ttl: \"31days\" is not between 1s and 30days"]),
        (json!({"pool": "p", "give_up_after": "0s"}), &["give_up_after: \"0s\" is not between 1ms and 30days"]),
        (
            json!({"pool": "p", "scope": "zone"}),
            &["scope: unknown word \"zone\": expected one of flow, build, lease, person"],
        ),
        (
            json!({"pool": "a//b", "lokc": 1, "ttl": "x", "wait": "-1s", "run": "a b", "owner": {"team": "x".repeat(257)}}),
            &["unknown member \"lokc\": did you mean \"lock\"?", "pool: ", "owner.team: ", "run: ", "ttl: ", "wait: "],
        ),
    ];
    for (body, expected) in cases {
        let answer = api.call("PUT", "/api/v1/claims/x", &body.to_string());
        assert_eq!(answer.word(), "bad_request", "{body}");
        let problems: Vec<&str> =
            answer.json["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(problems.len(), expected.len(), "{body}: {problems:#?}");
        for (problem, start) in problems.iter().zip(expected) {
            assert!(problem.starts_with(start), "{body}: {problems:#?}");
        }
        assert!(!answer.json["error"].as_str().unwrap().contains('\n'));
    }
    assert_eq!(api.call("PUT", "/api/v1/claims/a%20b", r#"{"count":0}"#).json["problems"].as_array().unwrap().len(), 2);
    assert!(api.house.engine.snapshot().claims.is_empty());
}

#[test]
fn names_are_refused_or_passed_on_unchanged() {
    let api = Api::start();
    let long = "x".repeat(128);
    let longer = "x".repeat(129);
    let emoji = "%F0%9F%94%92".repeat(32);
    for (encoded, decoded) in [
        ("a%20b", "a b"),
        ("%20a%20", " a "),
        ("%C3%A4", "ä"),
        ("a%252fb", "a%2fb"),
        ("a+b", "a+b"),
        ("-rf", "-rf"),
        ("%22%3Cscript%3E", "\"<script>"),
        ("a;b", "a;b"),
        (&long, &long),
        (&emoji, &"🔒".repeat(32)),
    ] {
        assert_eq!(api.call("PUT", &format!("/api/v1/pools/{encoded}"), "{}").status, 200, "{encoded}");
        assert_eq!(api.call("GET", &format!("/api/v1/pools/{encoded}"), "").json["pool"], *decoded);
        assert_eq!(api.call("PUT", &format!("/api/v1/pools/{encoded}/locks/{encoded}"), "").status, 200);
        let claim = api.call("PUT", "/api/v1/claims/x", &json!({"pool": decoded, "lock": decoded}).to_string());
        assert_eq!(claim.json["locks"], json!([{"pool": decoded, "lock": decoded}]));
        let query = encoded.replace('+', "%2B");
        assert_eq!(api.call("GET", &format!("/api/v1/claims?pool={query}"), "").json["items"][0]["id"], "x");
        let parts = (
            api.call("DELETE", "/api/v1/claims/x", ""),
            api.call("PUT", "/api/v1/claims/x", r#"{"pool":"none","run":"n"}"#),
        );
        assert_eq!((parts.0.status, parts.1.word().as_str()), (200, "different_request"));
        api.clock.pass(Span::hours(25));
    }
    let pools = api.house.engine.snapshot().pools.len();
    for encoded in [
        "..",
        ".",
        ".hidden",
        "%2e%2e",
        "a%2f%2fb",
        "a%2f..%2fb",
        "%2F",
        "a%00",
        "a%0d%0ab",
        "%1b[2J",
        "%7f",
        "%C2%9B",
        "%",
        "%f",
        "%gg",
        "%ff",
        "%C0%AF",
        "%ED%A0%80",
        &longer,
        &format!("x{emoji}"),
    ] {
        for target in [format!("/api/v1/pools/{encoded}"), format!("/api/v1/pools/p/locks/{encoded}")] {
            for method in ["GET", "PUT", "DELETE"] {
                let answer = api.call(method, &target, "");
                assert_eq!(answer.word(), "bad_request", "{method} {target}");
                let text = answer.json["error"].as_str().unwrap();
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
        assert_eq!(api.call("GET", &format!("/api/v1/claims?pool={encoded}"), "").status, 400, "{encoded}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(api.call(method, "/api/v1/pools/p/locks/a%2fb", "").word(), "bad_request", "only pools are nested");
    }
    assert_eq!(api.house.engine.snapshot().pools.len(), pools);
    let nowhere = api.call("GET", &format!("/%1b[2J%0a\u{1b}]0;x\u{7}{longer}{longer}"), "");
    assert_eq!(nowhere.word(), "no_such_route");
    let text = nowhere.json["error"].as_str().unwrap();
    assert!(!text.chars().any(char::is_control) && text.len() < 400, "{text:?}");
}

#[test]
fn a_wrong_method_gets_the_allowed_ones() {
    let api = Api::start();
    for (path, allow) in [
        ("/api/v1/info", "GET, HEAD"),
        ("/api/v1/claims/a", "PUT, GET, DELETE, HEAD"),
        ("/api/v1/claims/a/confirm", "POST"),
        ("/api/v1/pools/p/locks/l", "GET, PUT, PATCH, DELETE, HEAD"),
    ] {
        let answer = api.call("OPTIONS", path, "");
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, allow));
    }
}

/// Whether there is a notice for a request. Takes it.
fn notified(subscription: &Subscription) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), subscription.taken()).await.is_ok() })
}

const WAITS: &str = r#"{"pool":"p","confirm":true,"wait":"25s"}"#;

#[test]
fn a_waiting_claim_is_parked_and_served() {
    let api = Api::start();
    assert_eq!(api.call("PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#).status, 200);
    let first = Request { can_park: true, ..api.request("PUT", "/api/v1/claims/b", WAITS) };
    let subscription = api.subscribe(&first);
    let answer = api.send(first.clone());
    assert_eq!((answer.status, answer.park), (423, Some(Span::secs(25))));
    let again = Request { attempt: Attempt::Notified, ..first.clone() };
    assert_eq!(api.send(again.clone()).park, Some(Span::secs(25)));
    assert_eq!(api.call("DELETE", "/api/v1/claims/a", "").status, 200);
    assert!(notified(&subscription));
    let served = api.send(again);
    assert_eq!((served.status, served.park, &served.json["state"]), (200, None, &json!("granted")));
    let parks: Vec<_> = api.house.engine.snapshot().claims.values().flat_map(|claim| claim.parks.clone()).collect();
    assert!(parks.is_empty());
}

/// Two builds get into a deadlock while one of them is parked: the parked one is answered once, and then parked again.
#[test]
fn a_parked_claim_is_told_of_a_deadlock() {
    let api = Api::start();
    let body = |pool: &str, build: &str| {
        format!(
            r#"{{"pool":"{pool}","confirm":true,"wait":"25s","owner":{{"cluster":"https://ci","build_id":"{build}"}}}}"#
        )
    };
    let park = |id: &str, pool: &str, build: &str| {
        let request = api.request("PUT", &format!("/api/v1/claims/{id}"), &body(pool, build));
        Request { can_park: true, ..request }
    };
    for (id, pool, build) in [("a", "p", "1"), ("b", "q", "2")] {
        assert_eq!(api.send(park(id, pool, build)).status, 200);
    }
    let first = park("a2", "q", "1");
    let subscription = api.subscribe(&first);
    assert_eq!(api.send(first.clone()).park, Some(Span::secs(25)));
    api.clock.pass(Span::secs(1));
    let second = api.send(park("b2", "p", "2"));
    assert_eq!(second.park, Some(Span::secs(25)), "the deadlock check runs after the answer");
    assert!(notified(&subscription));
    let told = api.send(Request { attempt: Attempt::Notified, ..first.clone() });
    assert_eq!((told.status, told.park, told.word().as_str()), (423, None, "deadlock"));
    assert_eq!((&told.json["parked"], told.json["builds"].as_array().unwrap().len()), (&json!(false), 2));
    assert!(told.json["error"].as_str().unwrap().contains("build 1, build 2"), "{}", told.json);
    let again = park("a2", "q", "1");
    assert_eq!(api.send(again.clone()).park, Some(Span::secs(25)));
    let over = api.send(Request { attempt: Attempt::Last, ..again });
    assert_eq!((over.word().as_str(), &over.json["parked"]), ("deadlock", &json!(true)));
    let history = api.call("GET", "/api/v1/pools/q/changes", "");
    assert_eq!(history.json["items"].as_array().unwrap().last().unwrap()["kind"], "deadlock");
}

#[test]
fn parked_is_true_only_for_a_parked_request() {
    let api = Api::start();
    assert_eq!(api.call("PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#).status, 200);
    let no_room = api.request("PUT", "/api/v1/claims/b", WAITS);
    let room = Request { can_park: true, ..no_room.clone() };
    let not_asked = Request { body: br#"{"pool":"p","confirm":true}"#.to_vec(), ..room.clone() };
    let too_long = Request { body: br#"{"pool":"p","confirm":true,"wait":"1h"}"#.to_vec(), ..room.clone() };
    for (name, request, park, parked) in [
        ("no room", no_room.clone(), None, false),
        ("no wait", not_asked, None, false),
        ("room", room.clone(), Some(Span::secs(25)), false),
        ("longer than allowed", too_long, Some(Span::secs(60)), false),
        ("notified, no room any more", Request { attempt: Attempt::Notified, ..no_room }, None, false),
        ("over", Request { attempt: Attempt::Last, ..room }, None, true),
    ] {
        let answer = api.send(request);
        assert_eq!((answer.status, answer.park), (423, park), "{name}");
        assert_eq!(answer.json["parked"], parked, "{name}");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let claim = api.call("GET", "/api/v1/claims/b", "");
    assert_eq!(claim.json["queue"]["listening"], true);
    assert!(api.house.engine.snapshot().claims.values().all(|claim| claim.parks.is_empty()));
}

#[test]
fn a_client_that_left_is_passed_over_and_keeps_its_place() {
    let api = Api::start();
    assert_eq!(api.call("PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#).status, 200);
    let request = Request { can_park: true, ..api.request("PUT", "/api/v1/claims/b", WAITS) };
    assert!(api.send(request.clone()).park.is_some());
    api.house.routes.left(request.park);
    assert_eq!(api.call("DELETE", "/api/v1/claims/never", "").status, 404, "`left` took effect before this");
    api.clock.pass(Span::secs(4));
    assert_eq!(api.call("DELETE", "/api/v1/claims/never", "").status, 200);
    let place = api.call("GET", "/api/v1/claims/b", "");
    assert_eq!(
        place.json["queue"],
        json!({"position": 1, "ahead": [], "holders": place.json["queue"]["holders"], "holder_count": 1, "listening": false})
    );
    assert_eq!(api.call("DELETE", "/api/v1/claims/a", "").status, 200);
    assert_eq!(api.call("PUT", "/api/v1/claims/c", r#"{"pool":"p"}"#).json["state"], "held");
}

#[test]
fn a_long_poll_hears_of_the_next_change() {
    let api = Api::start();
    assert_eq!(api.call("PUT", "/api/v1/pools/p", r#"{"capacity":1}"#).status, 200);
    let now = api.house.engine.snapshot().revision;
    let target = format!("/api/v1/pools/p/changes?after={now}&versions=true&wait=1m");
    let first = Request { can_park: true, ..api.request("GET", &target, "") };
    let subscription = api.subscribe(&first);
    assert_eq!(api.send(first.clone()).park, Some(Span::secs(60)));
    // An entry that is not a version does not end the poll: it is parked again.
    assert_eq!(api.call("POST", "/api/v1/pools/p/changes", "").status, 200);
    assert!(notified(&subscription));
    let again = Request { attempt: Attempt::Notified, ..first.clone() };
    assert_eq!(api.send(again.clone()).park, Some(Span::secs(60)));
    assert_eq!(api.call("PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#).status, 200);
    assert!(notified(&subscription));
    let told = api.send(again);
    assert_eq!((told.park, &told.json["items"][0]["kind"]), (None, &json!("claimed")));

    // The answer comes at once when there is no room, when the wait is over, and when the pool is removed.
    let now = api.house.engine.snapshot().revision;
    let target = format!("/api/v1/pools/p/changes?after={now}&wait=1m");
    let poll = Request { can_park: true, ..api.request("GET", &target, "") };
    let subscription = api.subscribe(&poll);
    assert!(api.send(poll.clone()).park.is_some());
    for request in [Request { attempt: Attempt::Last, ..poll.clone() }, Request { can_park: false, ..poll.clone() }] {
        let answer = api.send(request);
        assert_eq!((answer.status, answer.park, &answer.json), (200, None, &json!({"items": []})));
    }
    assert!(api.send(poll.clone()).park.is_some());
    assert_eq!(api.call("DELETE", "/api/v1/claims/a", "").status, 200);
    assert_eq!(api.call("DELETE", "/api/v1/pools/p", "").status, 200);
    assert!(notified(&subscription));
    assert_eq!(api.send(Request { attempt: Attempt::Notified, ..poll }).word(), "no_such_pool");
}

#[test]
fn pages_of_history_never_part_a_revision() {
    let api = Api::start();
    assert_eq!(api.call("PUT", "/api/v1/pools/p", r#"{"capacity":5}"#).status, 200);
    for name in ["a", "b", "c"] {
        assert_eq!(api.call("PUT", &format!("/api/v1/pools/p/locks/{name}"), "").status, 200);
    }
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = api.call("GET", &format!("/api/v1/pools/p/changes?limit=2&after={after}"), "");
        let items = page.json["items"].as_array().unwrap().clone();
        sizes.push(items.len());
        seen.extend(items.iter().map(|item| item["revision"].as_u64().unwrap()));
        match page.json["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    // The pool and its five locks were added in one revision.
    assert_eq!(sizes, [6, 2, 1]);
    assert!(seen.is_sorted());
    for query in ["order=newest_first", "order=newest_first&until=2099-01-01T00:00:00Z", "order=newest_first&since=1h"]
    {
        for path in ["/api/v1/pools/p/changes", "/api/v1/changes"] {
            let (mut sizes, mut back, mut after) = (Vec::new(), Vec::new(), String::new());
            loop {
                let page = api.call("GET", &format!("{path}?{query}&limit=2{after}"), "");
                let items = page.json["items"].as_array().unwrap().clone();
                sizes.push(items.len());
                back.extend(items.iter().map(|item| item["revision"].as_u64().unwrap()));
                let Some(next) = page.json["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!((sizes, back), (vec![2, 7], seen.iter().rev().copied().collect()), "{path} {query}");
        }
    }
    let one = api.call("GET", &format!("/api/v1/pools/p/changes/{}", seen[0]), "");
    assert_eq!(one.json["items"].as_array().unwrap().len(), 6);
}

#[test]
fn equal_requests_are_equal_however_they_are_written() {
    let api = Api::start();
    for locks in ["1", "2"] {
        assert_eq!(api.call("PUT", &format!("/api/v1/pools/p/locks/{locks}"), "").status, 200);
    }
    let same = [
        json!({"pool": "p", "lock": "1", "key": "k", "also": [{"pool": "q"}]}),
        json!({"pool": "p", "locks": ["1"], "key": "k", "requestor": "k", "also": [{"pool": "q", "count": 1}]}),
        json!({"pool": "q", "also": [{"pool": "p", "lock": "1"}], "key": "k", "owner": {"job": "other"}}),
    ];
    for body in same {
        assert_eq!(api.call("PUT", "/api/v1/claims/a", &body.to_string()).status, 200, "{body}");
    }
    for other in [
        json!({"pool": "p", "lock": "2", "key": "k", "also": [{"pool": "q"}]}),
        json!({"pool": "p", "lock": "1", "also": [{"pool": "q"}]}),
        json!({"pool": "p", "lock": "1", "key": "k"}),
        json!({"pool": "p", "lock": "1", "key": "k", "requestor": "l", "also": [{"pool": "q"}]}),
        json!({"pool": "p", "lock": "1", "key": "k", "also": [{"pool": "q", "count": 2}]}),
        json!({"pool": "p", "lock": "1", "key": "k", "also": [{"pool": "q"}], "scope": "flow"}),
        json!({"pool": "p", "lock": "1", "key": "k", "also": [{"pool": "q"}], "scope": "person"}),
        json!({"pool": "p", "lock": "1", "key": "k", "also": [{"pool": "q"}], "owner": {"team": "t"}}),
    ] {
        assert_eq!(api.call("PUT", "/api/v1/claims/a", &other.to_string()).word(), "different_request", "{other}");
    }
}
