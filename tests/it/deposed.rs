//! A server that looks at what it knows, while another one leads already.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use locker::core::settings::Settings;
use locker::env::SystemClock;
use locker::server::auth::access::Live;
use locker::server::auth::idtoken::shown::Builds;
use locker::server::auth::tokens::{self, Tokens};
use locker::server::auth::{Access, Guard, Proof};
use locker::server::http::{Handler, Request, Response};
use locker::server::limits::STRANGERS_MS;
use locker::server::routes;
use serde_json::{Value, json};

use crate::support::certs::Files;
use crate::support::in_process::{HookedStore, House, Touch, request};
use crate::support::issuer::Key;

/// A log that several servers share, as one of them sees it. Clones are the same.
#[derive(Clone)]
struct Log {
    leads: Arc<AtomicBool>,
    /// How often it was asked whether this server leads, with nothing to write.
    confirmed: Arc<AtomicUsize>,
    /// How often that was shown, with something to write or with nothing.
    shown: Arc<AtomicUsize>,
    /// How long a database takes to show it.
    takes: Duration,
}

impl Log {
    fn new() -> Self {
        Self {
            leads: Arc::new(AtomicBool::new(true)),
            confirmed: Arc::default(),
            shown: Arc::default(),
            takes: Duration::ZERO,
        }
    }

    fn house(&self, access: Live) -> House {
        let clock = Arc::new(SystemClock::default());
        let log = self.clone();
        House::open_with(
            Box::new(HookedStore::shared(move |touch| log.check(touch))),
            Settings::default(),
            clock,
            access,
        )
    }

    fn depose(&self) {
        self.leads.store(false, Ordering::SeqCst);
    }

    fn check(&self, touch: Touch) -> anyhow::Result<()> {
        if touch == Touch::Confirm {
            self.confirmed.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(self.takes);
        }
        anyhow::ensure!(self.leads.load(Ordering::SeqCst), "another server leads");
        self.shown.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn confirmed(&self) -> usize {
        self.confirmed.load(Ordering::SeqCst)
    }
}

fn code(answer: &Response) -> (u16, Value) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status, body["code"].clone())
}

/// Locks that are held in each way.
const HELD: [(&str, &str, &str); 4] = [
    ("PUT", "/lock/alone", r#"{"lock":"me"}"#),
    ("PUT", "/lock/shared", r#"{"key":"k","requestor":"r"}"#),
    ("POST", "/lock/named?owner=me", ""),
    ("PUT", "/api/v1/claims/two", r#"{"pool":"one","also":[{"pool":"other"}]}"#),
];

/// A claim for a build of a Concourse that this server does not know.
const UNKNOWN: &str = r#"{"pool":"p","scope":"build","owner":{"cluster":"https://unknown","build_id":"1"}}"#;

/// Requests that would change something, and that a look answers.
const LOOKED_UP: [(&str, &str, &str, u16); 10] = [
    ("DELETE", "/lock/nobody", r#"{"lock":"me"}"#, 200),
    ("DELETE", "/lock/nobody", r#"{"key":"k","requestor":"r"}"#, 200),
    ("DELETE", "/lock/shared", r#"{"key":"k","requestor":"another"}"#, 200),
    ("DELETE", "/lock/alone", r#"{"lock":"another"}"#, 423),
    ("DELETE", "/lock/alone", r#"{"key":"k","requestor":"r"}"#, 423),
    ("DELETE", "/lock/nobody", "", 409),
    ("DELETE", "/lock/shared", "", 423),
    ("DELETE", "/lock/named?owner=another", "", 423),
    ("DELETE", "/lock/one", "", 423),
    // A claim that is there is not looked at so closely.
    ("PUT", "/api/v1/claims/new", UNKNOWN, 422),
];

#[test]
fn a_look_is_an_answer_only_of_a_server_that_leads() {
    let log = Log::new();
    let house = log.house(Live::default());
    let ask = |method: &str, target: &str, body: &str| house.answer(&request(method, target, body));
    for (method, target, body) in HELD {
        assert_eq!(ask(method, target, body).status, 200, "{method} {target} {body}");
    }
    assert_eq!(log.confirmed(), 0, "whatever is written needs no proof besides");
    for (method, target, body, status) in LOOKED_UP {
        let before = log.shown.load(Ordering::SeqCst);
        assert_eq!(ask(method, target, body).status, status, "{method} {target} {body}");
        assert!(log.shown.load(Ordering::SeqCst) > before, "{method} {target} {body}");
    }
    log.depose();
    for (method, target, body, _) in LOOKED_UP {
        let answer = ask(method, target, body);
        assert_eq!(code(&answer), (503, json!("no_leader")), "{method} {target} {body}");
    }
}

#[test]
fn no_guarded_route_answers_anything_once_another_server_leads() {
    let log = Log::new();
    let house = log.house(Live::default());
    log.depose();
    let mut guarded = 0;
    for (method, path) in routes::all() {
        let target: Vec<&str> =
            path.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment }).collect();
        let request = request(method, &target.join("/"), "");
        if routes::access(&request) == Access::Guarded {
            guarded += 1;
            assert_eq!(house.answer(&request).status, 503, "{method} {path}");
        }
    }
    assert!(guarded > 40, "only {guarded} routes");
}

#[test]
fn taking_and_giving_back_needs_no_proof_besides_its_own_writes() {
    let log = Log::new();
    let house = log.house(Live::default());
    for (method, target, body) in [
        ("PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#),
        ("DELETE", "/api/v1/claims/a", ""),
        ("POST", "/lock/a", ""),
        ("DELETE", "/lock/a", ""),
        ("PUT", "/lock/b", r#"{"lock":"me"}"#),
        ("DELETE", "/lock/b", r#"{"lock":"me"}"#),
        ("PUT", "/lock/c", r#"{"key":"k","requestor":"r"}"#),
        ("DELETE", "/lock/c", r#"{"key":"k","requestor":"r"}"#),
    ] {
        let answer = house.answer(&request(method, target, body));
        assert_eq!(answer.status, 200, "{method} {target} {body}");
        assert_eq!(log.confirmed(), 0, "{method} {target} {body}");
    }
}

/// An id token that has expired, with a key that the issuer of the access file has.
fn expired(key: &Key) -> String {
    key.token(&json!({
        "iss": "https://ci.example.com", "aud": "locker", "iat": 1_700_000_000, "exp": 1_700_000_900,
        "sub": "payments/app", "team": "payments", "pipeline": "app", "job": "deploy",
    }))
}

/// It may be known to the server that leads: its token, or the claim that it has begun.
#[test]
fn nobody_is_a_stranger_to_a_server_that_no_longer_leads() {
    let (log, files, key) = (Log::new(), Files::new(), Key::p256("1"));
    files.write("keys.json", &json!({"keys": [key.jwk()]}).to_string());
    let path = files.write(
        "access.yml",
        "rules:\n- {to: authenticated, may: admin, pools: '*'}\nissuers:\n- {name: ci, kind: concourse, issuer: \
         'https://ci.example.com', audience: locker, jwks: keys.json}\n",
    );
    let access = Live::open(path.into(), None).unwrap();
    let house = log.house(access.clone());
    let builds = Builds::new(access.trusted(), house.engine.clone());
    let guard = Guard::new(&Proof::default(), routes::access, Arc::clone(&house.routes) as Arc<dyn Handler>);
    let tokens = Tokens::new(house.engine.clone());
    let guard = guard.with_access(access).with_tokens(tokens).with_builds(Arc::new(builds));
    let refused = |token: &str| {
        let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
        let mut request = Request { headers, ..request("DELETE", "/api/v1/claims/c", "") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        code(&runtime.block_on(guard.admit(&mut request)).unwrap_err())
    };
    let strangers = [tokens::make().expose().to_owned(), expired(&key)];
    for token in &strangers {
        assert_eq!(refused(token), (401, json!("unauthorized")));
    }
    log.depose();
    for token in &strangers {
        assert_eq!(refused(token), (503, json!("no_leader")));
    }
    drop(guard);
}

/// However many come, and whenever.
#[test]
fn strangers_share_proofs() {
    let log = Log { takes: Duration::from_millis(2), ..Log::new() };
    let house = log.house(Live::default());
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let all = runtime.block_on(async {
        let mut strangers = tokio::task::JoinSet::new();
        for number in 0..100 {
            let engine = house.engine.clone();
            strangers.spawn(async move {
                tokio::time::sleep(Duration::from_millis(number)).await;
                engine.confirm_for_strangers().await
            });
        }
        strangers.join_all().await
    });
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let times = usize::try_from(began.elapsed().as_millis()).unwrap() / usize::try_from(STRANGERS_MS).unwrap() + 2;
    // In each time there is one, and a few more for those whom it did not reach any more.
    assert!((1..=5 * times).contains(&log.confirmed()), "{} proofs in {times} times", log.confirmed());
}
