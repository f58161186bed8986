//! What one team may learn of or do to another one: tried over the whole API, by each kind of identity that a team has.
//! Every answer is searched for the names of the other team.

use base64::Engine as _;
use locker::server::routes;
use serde_json::{Value, json};

use super::{BASE64, ask, server};
use crate::support::certs::Files;
use crate::support::http::Answer;
use crate::support::issuer::Key;
use crate::support::{Server, eventually};

const TEAMS: &str = "\
- {to: user:root, may: admin, pools: '*'}
- {to: user:a, may: [claim, manage], pools: [a-*, shared]}
- {to: user:b, may: [claim, manage], pools: [b-*, shared, latches/b-*]}
";

/// Everything that B has. Its names contain `secret`, so that they are found wherever they appear.
fn possessions_of_b(server: &Server) {
    let done = |method: &str, target: &str, body: Value| {
        let answer = ask(server, "b", method, target, &body);
        assert!(matches!(answer.status, 200 | 423), "{method} {target}: {} {}", answer.status, answer.text());
    };
    ask(server, "root", "PUT", "/api/v1/pools/shared", &json!({"capacity": 2}));
    let owner = json!({"cluster": "https://secret.example", "team": "secret-team", "pipeline": "secret-pipe",
        "job": "secret-job", "build_id": "77", "build_name": "1"});
    let claim = |pool: &str| json!({"pool": pool, "owner": owner, "reason": "secret-reason", "supersede": "/secret"});
    let metadata = json!({"metadata": "secret-metadata", "labels": {"secret": "label"}});
    done("PUT", "/api/v1/pools/b-secret/locks/secret-lock", metadata);
    done("PUT", "/api/v1/claims/secret-held", claim("b-secret"));
    done("PUT", "/api/v1/claims/secret-waiting", claim("b-secret"));
    done("PUT", "/api/v1/claims/secret-ended", claim("b-secret2"));
    done("DELETE", "/api/v1/claims/secret-ended", Value::Null);
    // One that has locks of both.
    let both = json!({"pool": "shared", "also": [{"pool": "b-secret3", "lock": "b-secret3"}]});
    done("PUT", "/api/v1/pools/b-secret3/locks/b-secret3", json!({}));
    done("PUT", "/api/v1/claims/both", both);
    done("POST", "/lock", json!({"workflow": "secret-flow", "namespace": "b-ns", "id": LATCH}));
    done("POST", "/lock/b-secret4?owner=secret-owner", Value::Null);
}

const LATCH: &str = "e9205d4a-2545-4c58-86ae-d0e7b3ecec23";

/// What A tries with a name of B's, or with one that nobody has.
fn attempts(names: &[(&str, &str)]) -> Vec<(&'static str, String, Value)> {
    let fill = |text: &str| names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    #[rustfmt::skip]
    let tried: &[(&str, &str, Value)] = &[
        ("GET", "/api/v1/pools/POOL", Value::Null),
        ("GET", "/api/v1/pools/POOL/locks/LOCK", Value::Null),
        ("GET", "/api/v1/pools/POOL/changes", Value::Null),
        ("GET", "/api/v1/pools/POOL/changes/5", Value::Null),
        ("GET", "/api/v1/pools/POOL/stats", Value::Null),
        ("GET", "/api/v1/claims?pool=POOL", Value::Null),
        ("GET", "/api/v1/claims?build=77&cluster=https://CLUSTER", Value::Null),
        ("GET", "/api/v1/claims?build=77&cluster=https://CLUSTER&state=ended", Value::Null),
        ("GET", "/api/v1/changes?pool=POOL", Value::Null),
        ("GET", "/api/v1/changes?lock=LOCK", Value::Null),
        ("GET", "/api/v1/changes?claim=HELD", Value::Null),
        ("GET", "/api/v1/changes?who=TEAM", Value::Null),
        ("GET", "/api/v1/changes?build=77", Value::Null),
        ("GET", "/api/v1/stats?pool=POOL", Value::Null),
        ("GET", "/api/v1/verify?pool=POOL&lock=LOCK&fence=1", Value::Null),
        ("HEAD", "/api/v1/events?pool=POOL", Value::Null),
        ("GET", "/api/v1/claims/HELD", Value::Null),
        ("GET", "/api/v1/claims/WAITING", Value::Null),
        ("GET", "/api/v1/claims/ENDED", Value::Null),
        ("DELETE", "/api/v1/claims/HELD?if_waiting=true", Value::Null),
        ("POST", "/api/v1/claims/HELD/confirm", json!({"fence": 1})),
        ("POST", "/api/v1/claims/HELD/renew", json!({})),
        ("POST", "/api/v1/claims/HELD/release", json!({})),
        ("POST", "/api/v1/claims/ENDED/release", json!({})),
        ("POST", "/api/v1/claims/WAITING/move", json!({"to": "first", "by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("POST", "/api/v1/claims/HELD/deliver", json!({"revision": 1})),
        ("POST", "/api/v1/claims/ENDED/deliver", json!({"revision": 1})),
        ("POST", "/api/v1/claims/HELD/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("POST", "/api/v1/claims/WAITING/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("PUT", "/api/v1/claims/mine", json!({"pool": "POOL"})),
        ("PUT", "/api/v1/claims/mine", json!({"pool": "a-1", "also": [{"pool": "POOL", "lock": "LOCK"}]})),
        ("PUT", "/api/v1/pools/POOL", json!({})),
        ("PATCH", "/api/v1/pools/POOL", json!({})),
        ("DELETE", "/api/v1/pools/POOL", Value::Null),
        ("PUT", "/api/v1/pools/POOL/locks/LOCK", json!({})),
        ("PATCH", "/api/v1/pools/POOL/locks/LOCK", json!({"metadata": "x"})),
        ("DELETE", "/api/v1/pools/POOL/locks/LOCK", Value::Null),
        ("POST", "/api/v1/pools/POOL/locks/LOCK/move", json!({"to": "a-1"})),
        ("POST", "/api/v1/pools/a-1/locks/a-1/move", json!({"to": "POOL"})),
        ("POST", "/api/v1/pools/POOL/locks/LOCK/quarantine", json!({"by": {"owner": {"person": "x"}, "reason": "x"}})),
        ("POST", "/api/v1/pools/POOL/locks/LOCK/return", json!({})),
        ("DELETE", "/api/v1/pools/a-1/locks/a-1", json!({"claim": "HELD"})),
        ("POST", "/api/v1/pools/POOL/changes", json!({})),
        ("GET", "/pools/POOL", Value::Null),
        ("GET", "/pools/POOL.svg", Value::Null),
        ("GET", "/pools/POOL.atom", Value::Null),
        ("GET", "/claims/HELD", Value::Null),
        ("GET", "/claims/ENDED", Value::Null),
        ("GET", "/history?pool=POOL", Value::Null),
        ("GET", "/history?who=TEAM", Value::Null),
        ("GET", "/figures?pool=POOL", Value::Null),
        ("GET", "/lock/POOL", Value::Null),
        ("POST", "/lock/POOL", Value::Null),
        ("DELETE", "/lock/POOL", Value::Null),
        ("PUT", "/lock/POOL", json!({"key": "k", "lock_by": "w"})),
        ("DELETE", "/lock/POOL", json!({"key": "k", "lock_by": "w"})),
        ("GET", "/api/v1/tokens", Value::Null),
        ("POST", "/api/v1/tokens", json!({"name": "a"})),
        ("DELETE", "/api/v1/tokens/LOCK", Value::Null),
        ("POST", "/lock", json!({"workflow": "LOCK", "namespace": "TEAM"})),
        ("GET", "/lock?id=LATCH", Value::Null),
        ("PATCH", "/lock?id=LATCH", json!({})),
        ("DELETE", "/lock?id=LATCH", Value::Null),
    ];
    tried
        .iter()
        .map(|(method, target, body)| (*method, fill(target), body.clone()))
        .map(|(method, target, body)| {
            (
                method,
                target,
                if body.is_null() { body } else { serde_json::from_str(&fill(&body.to_string())).unwrap() },
            )
        })
        .collect()
}

const OF_B: [(&str, &str); 8] = [
    ("POOL", "b-secret"),
    ("LOCK", "secret-lock"),
    ("CLUSTER", "secret.example"),
    ("TEAM", "secret-team"),
    ("HELD", "secret-held"),
    ("WAITING", "secret-waiting"),
    ("ENDED", "secret-ended"),
    ("LATCH", LATCH),
];

const OF_NOBODY: [(&str, &str); 8] = [
    ("POOL", "b-absent"),
    ("LOCK", "absent-lock"),
    ("CLUSTER", "absent.example"),
    ("TEAM", "absent-team"),
    ("HELD", "absent-held"),
    ("WAITING", "absent-waiting"),
    ("ENDED", "absent-ended"),
    ("LATCH", "e9205d4a-2545-4c58-86ae-d0e7b3ecec24"),
];

/// What A gets without any name of B's.
const PLAIN: &[&str] = &[
    "/api/v1/pools",
    "/api/v1/claims",
    "/api/v1/claims?state=ended",
    "/api/v1/changes",
    "/api/v1/stats",
    "/api/v1/changes?order=newest_first",
    "/api/v1/changes?newest=true",
    "/api/v1/info",
    "/",
    "/history",
    "/figures",
    "/locks",
    "/lock?status=all",
    "/lock?status=locked",
    "/api/v1/claims/both",
    "/claims/both",
    "/api/v1/pools/shared",
    "/pools/shared",
    "/pools/shared.atom",
    "/api/v1/pools/shared/changes",
    "/api/v1/pools/shared/stats",
    "/api/v1/pools/b-secre",
    "/api/v1/pools/a-2",
    "/api/v1/verify?pool=a-1&lock=a-1&fence=1",
];

/// The answer without what differs by the time and the names that were asked for.
fn comparable(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body).replace("secret", "absent").replace("ec23", "ec24");
    // Pages and figures say when they were made: `2026-11-27T10:40:06Z`, or `10:40:06Z`.
    let is_of_time =
        |word: &str| word.contains(':') && word.ends_with('Z') && word.starts_with(|c: char| c.is_ascii_digit());
    let words: Vec<&str> = text.split(['"', '<', '>', ' ']).filter(|word| !is_of_time(word)).collect();
    format!("{} {}", answer.status, words.join(" "))
}

/// Each route that may say something about pools is tried.
#[test]
fn the_whole_api_is_tried() {
    let plain = PLAIN.iter().map(|target| ("GET", (*target).to_owned()));
    let tried: Vec<(&str, String)> =
        attempts(&OF_B).into_iter().map(|(method, target, _)| (method, target)).chain(plain).collect();
    // These say nothing of pools: whether the server works, who is signed in, parts of the web page, the description of the API, and all
    // figures, which
    // a test of its own refuses.
    let silent = ["/healthz", "/readyz", "/api/v1/session", "/login", "/metrics", "/openapi.json"];
    for (method, template) in routes::all().filter(|(_, path)| !silent.contains(path) && !path.starts_with("/assets/"))
    {
        let fits = |(of, target): &(&str, String)| {
            let path = target.split('?').next().unwrap();
            let mut parts = path.split('/').zip(template.split('/'));
            // Events have no end, so only their head is asked for.
            (*of == method || (*of == "HEAD" && method == "GET"))
                && path.matches('/').count() == template.matches('/').count()
                && parts.all(|(part, of)| of.starts_with('{') || part == of)
        };
        assert!(tried.iter().any(fits), "A does not try {method} {template}");
    }
}

#[test]
fn a_team_learns_nothing_of_another_one() {
    let world = World::new();
    possessions_of_b(&world.server);
    for (n, credentials) in world.of_a().iter().enumerate() {
        learns_nothing(&world.server, credentials, n);
    }
    // Nothing of B's has changed.
    for (claim, state) in [("secret-held", "held"), ("secret-waiting", "waiting"), ("both", "held")] {
        let claim = ask(&world.server, "b", "GET", &format!("/api/v1/claims/{claim}"), &Value::Null);
        assert_eq!(claim.json()["state"], state);
    }
    let latch = ask(&world.server, "b", "GET", &format!("/lock?id={LATCH}"), &Value::Null);
    assert_eq!(latch.status, 200, "{}", latch.text());
}

/// A server on which both teams have users, and A has a token and an issuer of id tokens.
struct World {
    server: Server,
    key: Key,
    _files: Files,
}

impl World {
    fn new() -> Self {
        let (files, key) = (Files::new(), Key::p256("1"));
        files.write("keys.json", &json!({"keys": [key.jwk()]}).to_string());
        let issuer =
            "issuers: [{name: ci, kind: concourse, issuer: 'https://ci', audience: locker, jwks: keys.json}]\n";
        let rules = TEAMS.replace("user:a,", "[user:a, token:a, team:a],");
        let server = server(&files, &format!("{rules}{issuer}"));
        Self { server, key, _files: files }
    }

    /// The ways in which A proves who it is: a password, a token, the id token of a build.
    fn of_a(&self) -> [String; 3] {
        let made = ask(&self.server, "root", "POST", "/api/v1/tokens", &json!({"name": "a"}));
        let now = chrono::Utc::now().timestamp();
        let claims = json!({"iss": "https://ci", "aud": "locker", "iat": now, "exp": now + 900, "team": "a",
            "pipeline": "app", "job": "deploy"});
        [
            format!("Basic {}", BASE64.encode("a:pw")),
            format!("Bearer {}", made.json()["token"].as_str().unwrap()),
            format!("Bearer {}", self.key.token(&claims)),
        ]
    }
}

/// What this one gets of A's rights, and nothing else.
fn learns_nothing(server: &Server, credentials: &str, n: usize) {
    let headers = format!("Authorization: {credentials}\r\n");
    let ask = |method: &str, target: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        server.connect().ask(method, target, &headers, &body).unwrap()
    };
    let own = ask("PUT", &format!("/api/v1/claims/own{n}"), &json!({"pool": format!("a-{n}")}));
    assert_eq!(own.status, 200, "{}", own.text());
    for target in PLAIN {
        let answer = ask("GET", target, &Value::Null);
        let shown = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        assert!(!shown.replace("b-secre\\\"", "").contains("secret"), "{target}: {shown}");
    }
    assert_eq!(ask("GET", "/metrics", &Value::Null).status, 403);
    // A name of B's is answered like one that nobody has.
    let tried = attempts(&OF_B).into_iter().zip(attempts(&OF_NOBODY));
    for ((method, target, body), (_, other, other_body)) in tried {
        let is_change = !matches!(method, "GET" | "HEAD");
        let pair = || (ask(method, &target, &body), ask(method, &other, &other_body));
        let (mut of_b, mut of_nobody) = pair();
        if !is_change && comparable(&of_b) != comparable(&of_nobody) {
            // A page says how long ago something was, and a second may have begun in between: both are asked anew.
            (of_b, of_nobody) = pair();
        }
        assert_eq!(comparable(&of_b), comparable(&of_nobody), "{method} {target} {body}");
        assert!(!is_change || matches!(of_b.status, 403 | 404), "{method} {target}: {}", of_b.status);
    }
}

#[test]
fn a_team_reaches_only_its_own_claims_in_a_shared_pool() {
    let files = Files::new();
    let server = server(&files, TEAMS);
    possessions_of_b(&server);
    // It may see the claim of B there, as far as it is there.
    let both = ask(&server, "a", "GET", "/api/v1/claims/both", &Value::Null).json();
    assert_eq!(both["locks"].as_array().unwrap().len(), 1, "{both}");
    let refused = |method: &str, target: &str, body: Value, status: u16| {
        let answer = ask(&server, "a", method, target, &body);
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    };
    refused("DELETE", "/api/v1/claims/both", Value::Null, 403);
    refused("POST", "/api/v1/claims/both/release", json!({}), 403);
    refused("POST", "/api/v1/claims/both/renew", json!({}), 403);
    refused("POST", "/api/v1/claims/both/confirm", json!({"fence": both["fence"]}), 403);
    refused("POST", "/api/v1/claims/both/break", json!({"by": {"owner": {"person": "x"}, "reason": "x"}}), 403);
    refused("PUT", "/api/v1/claims/both", json!({"pool": "shared"}), 409);
    refused("DELETE", "/lock/shared", Value::Null, 409);
    let lock = both["locks"][0]["lock"].as_str().unwrap();
    refused("DELETE", &format!("/api/v1/pools/shared/locks/{lock}"), json!({"claim": "both"}), 403);
    // Another claim of the name that B supersedes by, in any pool, reaches nothing of B's.
    let newer = json!({"pool": "a-1", "supersede": "/secret", "owner": {"cluster": "https://secret.example",
        "team": "secret-team", "pipeline": "secret-pipe", "job": "secret-job", "build_id": "99"}});
    assert_eq!(ask(&server, "a", "PUT", "/api/v1/claims/newer", &newer).status, 200);
    assert_eq!(ask(&server, "b", "GET", "/api/v1/claims/secret-waiting", &Value::Null).json()["state"], "waiting");
    // And A's own is not outdated by B's.
    let older = json!({"pool": "a-1", "supersede": "/secret", "queue": true});
    assert_eq!(ask(&server, "a", "PUT", "/api/v1/claims/older", &older).status, 423);
    // An id that A has cancelled before B used it keeps B out of nothing.
    assert_eq!(ask(&server, "a", "DELETE", "/api/v1/claims/early", &Value::Null).status, 404);
    assert_eq!(ask(&server, "b", "PUT", "/api/v1/claims/early", &json!({"pool": "b-early"})).status, 200);
    // B itself and root may.
    assert_eq!(ask(&server, "b", "DELETE", "/api/v1/claims/secret-waiting", &Value::Null).status, 200);
    assert_eq!(
        ask(
            &server,
            "root",
            "POST",
            "/api/v1/claims/both/break",
            &json!({"by": {"owner": {"person": "x"}, "reason": "x"}})
        )
        .status,
        200
    );
    let entries = ask(&server, "root", "GET", "/api/v1/changes?kind=broken", &Value::Null).json();
    assert_eq!(
        (&entries["items"][0]["proved"], &entries["items"][0]["rule"]),
        (&json!("user:root"), &json!("line 14"))
    );
}

/// A circle of builds that leads through pools of B's: A sees who is in the pool that both see, and nobody else.
#[test]
fn a_deadlock_names_nobody_who_is_out_of_sight() {
    let files = Files::new();
    let server = server(&files, TEAMS);
    let put = |who: &str, id: &str, build: &str, job: &str, pool: &str, lock: &str| {
        let owner = json!({"cluster": "https://ci", "team": "t", "pipeline": "p", "job": job, "build_id": build});
        let body = json!({"pool": pool, "lock": lock, "owner": owner, "confirm": false});
        ask(&server, who, "PUT", &format!("/api/v1/claims/{id}"), &body)
    };
    for (pool, lock) in [("shared", "s1"), ("shared", "s2"), ("b-secret", "secret-1"), ("b-secret", "secret-2")] {
        ask(&server, "root", "PUT", &format!("/api/v1/pools/{pool}/locks/{lock}"), &json!({}));
    }
    let holds = [
        ("a", "a-holds", "1", "a-job", "shared", "s2"),
        ("b", "b-holds", "2", "b-job", "shared", "s1"),
        ("b", "secret-holds", "3", "secret-job", "b-secret", "secret-1"),
        ("b", "secret-too", "4", "b-late", "b-secret", "secret-2"),
    ];
    for (who, id, build, job, pool, lock) in holds {
        assert_eq!(put(who, id, build, job, pool, lock).status, 200, "{id}");
    }
    // Each waits for what the next one has; the third one is in B's pool alone.
    put("b", "b-waits", "2", "b-job", "b-secret", "secret-1");
    put("b", "secret-waits", "3", "secret-job", "b-secret", "secret-2");
    put("b", "late-waits", "4", "b-late", "shared", "s2");
    let stuck = eventually("the circle is found", || {
        let answer = put("a", "a-waits", "1", "a-job", "shared", "s1");
        (answer.json()["code"] == "deadlock").then_some(answer)
    });
    let mut jobs: Vec<Value> =
        stuck.json()["builds"].as_array().unwrap().iter().map(|build| build["job"].clone()).collect();
    jobs.sort_by_key(Value::to_string);
    assert_eq!(jobs, ["a-job", "b-job", "b-late"]);
    for (target, what) in [
        ("/api/v1/claims/a-waits", "deadlock"),
        ("/claims/a-waits", "deadlock"),
        ("/api/v1/pools/shared", "s1"),
        ("/pools/shared", "s1"),
        ("/api/v1/changes", "deadlock"),
        ("/api/v1/pools/shared/changes", "deadlock"),
        ("/history", "deadlock"),
    ] {
        let shown = ask(&server, "a", "GET", target, &Value::Null);
        assert!(shown.text().contains(what) && !shown.text().contains("secret"), "{target}: {}", shown.text());
    }
    assert!(!stuck.text().contains("secret"), "{}", stuck.text());
}
