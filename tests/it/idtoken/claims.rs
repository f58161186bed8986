//! Tokens live shorter than queues: a claim goes on with the token that it began with, and with no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use locker::core::settings::Settings;
use locker::core::time::Span;
use locker::env::Clock;
use locker::server::auth::access::Live;
use locker::server::auth::idtoken::issuers::{Patience, Trusted};
use locker::server::auth::idtoken::shown::Builds;
use locker::server::auth::{Guard, Proof};
use locker::server::http::{Handler, Request, Response};
use locker::server::routes;
use locker::store;
use serde_json::{Value, json};

use super::{claims, concourse, issuers, with};
use crate::support::certs::Files;
use crate::support::clock::HandClock;
use crate::support::eventually;
use crate::support::in_process::{House, request};
use crate::support::issuer::Key;

const URL: &str = "https://ci.example.com";

/// A server that trusts one issuer, by a file of keys.
struct World {
    files: Files,
    clock: HandClock,
    key: Key,
    house: Option<House>,
    guard: Option<Guard>,
    trusted: Trusted,
}

impl World {
    fn new() -> Self {
        let (files, clock, key) = (Files::new(), HandClock::default(), Key::p256("1"));
        let trusted = Trusted::new(BTreeMap::new(), Arc::new(clock.clone()), Patience::default());
        let mut world = Self { files, clock, key, house: None, guard: None, trusted };
        world.start();
        world
    }

    /// Starts the server, again on the same store.
    fn start(&mut self) {
        (self.guard, self.house) = (None, None);
        let uri = format!("sqlite:{}", self.files.path("locker.db").display());
        // A process that another test has just forked holds the lock file, too, until it runs its program.
        let store = eventually("the store is free", || store::open(&uri).ok());
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        self.files.write("access.yml", "rules:\n- {to: authenticated, may: admin, pools: '*'}\n");
        let path = self.files.path("access.yml");
        let access = Live::open_with(path, None, self.trusted.clone()).unwrap();
        let house = House::open_with(store, Settings::default(), clock, access.clone());
        let builds = Builds::new(self.trusted.clone(), house.engine.clone());
        let guard = Guard::new(&Proof::default(), routes::access, Arc::clone(&house.routes) as Arc<dyn Handler>);
        self.guard = Some(guard.with_access(access).with_builds(Arc::new(builds)));
        self.house = Some(house);
        let key = self.key.jwk();
        self.trust(URL, &json!({"keys": [key]}));
    }

    /// From now on this issuer counts, with these keys.
    fn trust(&self, url: &str, keys: &Value) {
        self.files.write("keys.json", &keys.to_string());
        let list = issuers(json!([with(concourse(url), "jwks", json!("keys.json"))]));
        self.trusted.trust(&list, self.files.0.path()).unwrap();
    }

    /// A token of a job that is good for a quarter of an hour.
    fn token(&self, job: &str) -> String {
        let now = i64::try_from(self.clock.wall_ms() / 1_000).unwrap();
        let claims = with(with(claims(URL), "iat", json!(now)), "exp", json!(now + 900));
        self.key.token(&with(claims, "job", json!(job)))
    }

    /// The same with instance vars.
    fn token_with(&self, job: &str, vars: &Value) -> String {
        let now = i64::try_from(self.clock.wall_ms() / 1_000).unwrap();
        let claims = with(with(claims(URL), "iat", json!(now)), "exp", json!(now + 900));
        self.key.token(&with(with(claims, "job", json!(job)), "instance_vars", vars.clone()))
    }

    /// Another token of the time of this one, which has expired too.
    fn token_of_other(&self, first: &str) -> String {
        let body = URL_SAFE_NO_PAD.decode(first.split('.').nth(1).unwrap()).unwrap();
        self.key.token(&with(serde_json::from_slice(&body).unwrap(), "job", json!("other")))
    }

    fn pass(&self, seconds: u64) {
        self.clock.pass(Span::secs(seconds));
    }

    fn send(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
        let mut request = Request { headers, ..request(method, &format!("/api/v1{path}"), &body) };
        let guard = self.guard.as_ref().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer: Response = match runtime.block_on(guard.admit(&mut request)) {
            Err(refused) => refused,
            Ok(_) => runtime.block_on(guard.handle(&request)),
        };
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    #[track_caller]
    fn expect(&self, call: (&str, &str), token: &str, body: &Value, status: u16) -> Value {
        let (found, answer) = self.send(call.0, call.1, token, body);
        assert_eq!(found, status, "{call:?}: {answer}");
        answer
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The guard holds the routes, which hold the engine.
        self.guard = None;
    }
}

fn ask(run: &str) -> Value {
    json!({"pool": "p", "confirm": true, "run": run, "scope": "lease", "ttl": "5h"})
}

#[test]
fn an_expired_token_serves_the_claim_that_it_began_and_nothing_else() {
    let mut world = World::new();
    let first = world.token("deploy");
    let held = world.expect(("PUT", "/claims/a"), &first, &ask("r"), 200);
    world.expect(("PUT", "/claims/b"), &world.token("other"), &ask("r"), 423);
    let this = json!({"fence": held["fence"], "run": "r"});
    world.expect(("POST", "/claims/a/confirm"), &first, &this, 200);
    // It has expired; it renews, looks and releases all the same, also after a restart.
    world.pass(3_600);
    world.expect(("POST", "/claims/a/renew"), &first, &this, 200);
    world.start();
    world.expect(("POST", "/claims/a/renew"), &first, &this, 200);
    world.expect(("GET", "/claims/a"), &first, &Value::Null, 200);
    // For nothing else: no claim of somebody else, no new one, no list.
    for (method, path) in
        [("GET", "/claims/b"), ("PUT", "/claims/c"), ("GET", "/claims"), ("GET", "/pools"), ("PUT", "/pools/p")]
    {
        let body = if method == "PUT" { ask("r") } else { Value::Null };
        let answer = world.expect((method, path), &first, &body, 401);
        let text = answer["error"].as_str().unwrap();
        assert!(text.starts_with("the token expired 45m ago: get a new one"), "{text}");
        assert_eq!(answer["code"], "unauthorized");
        assert!(first.split('.').all(|part| !answer.to_string().contains(part)), "{answer}");
    }
    world.expect(("DELETE", "/claims/a?run=r"), &first, &Value::Null, 200);
    // It learns how its claim ended, also when it asks late, and also from a new server; but it begins nothing.
    for _ in 0..2 {
        assert_eq!(world.expect(("GET", "/claims/a"), &first, &Value::Null, 200)["how"], "released");
        world.expect(("DELETE", "/claims/a?run=r"), &first, &Value::Null, 200);
        for run in ["r", "r2"] {
            let answer = world.expect(("PUT", "/claims/a"), &first, &ask(run), 410);
            assert_eq!((&answer["code"], &answer["claim"]["how"]), (&json!("ended"), &json!("released")), "{answer}");
        }
        world.expect(("GET", "/claims/a"), &world.token_of_other(&first), &Value::Null, 401);
        world.start();
    }
    world.expect(("PUT", "/claims/a"), &world.token("deploy"), &ask("r3"), 423);
}

#[test]
fn a_step_cannot_change_what_it_says_once_its_token_has_expired() {
    let world = World::new();
    let vars = json!({"branch": "main"});
    let token = world.token_with("deploy", &vars);
    let body = |vars: &Value, cluster: &str| {
        let owner = json!({"cluster": cluster, "instance_vars": vars.to_string()});
        with(ask("r"), "owner", owner)
    };
    world.expect(("PUT", "/claims/a"), &token, &body(&vars, URL), 200);
    world.pass(3_600);
    world.expect(("PUT", "/claims/a"), &token, &body(&vars, URL), 200);
    let other = body(&json!({"branch": "other"}), URL);
    let answer = world.expect(("PUT", "/claims/a"), &token, &other, 403);
    assert!(answer["error"].as_str().unwrap().contains("other instance vars than when it showed"), "{answer}");
    let answer = world.expect(("PUT", "/claims/a"), &token, &body(&vars, "https://other"), 403);
    assert!(answer["error"].as_str().unwrap().contains("another Concourse than when it showed"), "{answer}");
}

#[test]
fn only_the_very_same_token_is_remembered() {
    let world = World::new();
    let (first, alike) = (world.token("deploy"), world.token("deploy"));
    assert_ne!(first, alike, "each signature is another");
    world.expect(("PUT", "/claims/a"), &first, &ask("r"), 200);
    world.pass(1_200);
    world.expect(("GET", "/claims/a"), &first, &Value::Null, 200);
    world.expect(("GET", "/claims/a"), &alike, &Value::Null, 401);
    let cut = &first[..first.rfind('.').unwrap()];
    for forged in [format!("{cut}.AAAA"), format!("{first}A")] {
        world.expect(("GET", "/claims/a"), &forged, &Value::Null, 401);
    }
    // A new token of the same job counts for everything.
    world.expect(("GET", "/claims/a"), &world.token("deploy"), &Value::Null, 200);
    world.expect(("GET", "/pools"), &world.token("deploy"), &Value::Null, 200);
}

#[test]
fn a_step_waits_longer_than_its_token_lives() {
    let world = World::new();
    let (holder, waiter) = (world.token("deploy"), world.token("next"));
    let held = world.expect(("PUT", "/claims/a"), &holder, &ask("r"), 200);
    world.expect(("POST", "/claims/a/confirm"), &holder, &json!({"fence": held["fence"], "run": "r"}), 200);
    // It asks every 15 s for 25 minutes, and its token is good for 15.
    for _ in 0..100 {
        world.expect(("PUT", "/claims/b"), &waiter, &ask("r"), 423);
        world.pass(15);
    }
    world.expect(("DELETE", "/claims/a?run=r"), &holder, &Value::Null, 200);
    let granted = world.expect(("PUT", "/claims/b"), &waiter, &ask("r"), 200);
    let this = json!({"fence": granted["fence"], "run": "r"});
    world.expect(("POST", "/claims/b/confirm"), &waiter, &this, 200);
    world.expect(("DELETE", "/claims/b?run=r"), &waiter, &Value::Null, 200);
}

#[test]
fn a_newer_process_brings_a_newer_token() {
    let world = World::new();
    let first = world.token("deploy");
    world.expect(("PUT", "/claims/a"), &first, &ask("r1"), 200);
    world.pass(800);
    let second = world.token("deploy");
    world.expect(("PUT", "/claims/a"), &second, &ask("r2"), 200);
    world.pass(1_200);
    world.expect(("GET", "/claims/a"), &second, &Value::Null, 200);
    world.expect(("GET", "/claims/a"), &first, &Value::Null, 401);
}

#[test]
fn what_the_settings_say_now_counts_for_old_tokens_too() {
    let world = World::new();
    let token = world.token("deploy");
    world.expect(("PUT", "/claims/a"), &token, &ask("r"), 200);
    // Its key leaves the issuer: the claim goes on.
    world.trust(URL, &json!({"keys": [Key::p256("2").jwk()]}));
    world.expect(("GET", "/claims/a"), &token, &Value::Null, 200);
    world.expect(("GET", "/pools"), &token, &Value::Null, 401);
    // Its issuer is not trusted any more: nor is the token.
    world.trust("https://other", &json!({"keys": [world.key.jwk()]}));
    let answer = world.expect(("GET", "/claims/a"), &token, &Value::Null, 401);
    let expected =
        r#"the token is from the issuer "https://ci.example.com", which is not among the issuers of this server"#;
    assert!(answer["error"].as_str().unwrap().starts_with(expected), "{answer}");
}
