//! Upgrades: stores of earlier releases are opened, the resource of the last release works with the server of this one, and the
//! other way round the resource says what to do. `tests/fixtures/make` recorded the releases.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::port::Port;
use crate::support::{Build, Running, Server, Setup, binary, clean, proxy};

fn recorded(release: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(release).join(file)
}

fn json_of(release: &str, file: &str) -> Value {
    serde_json::from_slice(&fs::read(recorded(release, file)).unwrap()).unwrap()
}

/// The path of the first part of `old` that `new` does not have; `same` says when two texts or numbers count as the same.
fn lacks(old: &Value, new: &Value, same: &impl Fn(&Value, &Value) -> bool) -> Option<String> {
    let below = |at: &str, old: &Value, new: &Value| lacks(old, new, same).map(|path| format!("{at}.{path}"));
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old.iter().find_map(|(key, value)| match new.get(key) {
            Some(other) => below(key, value, other),
            None => Some(format!("{key} is missing")),
        }),
        (Value::Array(olds), Value::Array(news)) if olds.len() == news.len() => {
            let mut pairs = olds.iter().zip(news).enumerate();
            pairs.find_map(|(n, (old, new))| below(&n.to_string(), old, new))
        }
        _ => (!same(old, new)).then(|| format!("{old} is now {new}")),
    }
}

/// The stores that this release must open: of 0.1.0 (commit 202f0f1), and of states between it and this one that may have been
/// run (6553cc0, 0723094).
const STORES: [&str; 3] = ["0.1.0", "0.1.0-schema-6", "0.2.0-schema-7"];

#[test]
fn stores_of_earlier_releases_are_opened_with_everything_in_them() {
    for release in STORES {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(recorded(release, "store.sqlite"), dir.path().join("locker.db")).unwrap();
        // The history is older each time that this runs.
        let mut server = Server::start_as(&Setup::sqlite(dir.path()).flag("--history-age", "36500days"));
        let mut before = json_of(release, "export.json");
        // These belong to the moment of the export.
        for name in ["exported_at", "revision"] {
            before.as_object_mut().unwrap().remove(name);
        }
        // Schema 8 marks the lock that a pool has because it was given none.
        for pool in before["pools"].as_array_mut().unwrap() {
            if pool["locks"] == json!([{"lock": pool["pool"], "metadata": ""}]) {
                (pool["locks"], pool["default_lock"]) = (json!([]), json!(true));
            }
        }
        let after = server.cli(&["export", "json"]).ok().json();
        // The time of a hold goes on where it was when that server stopped.
        let is_time = |value: &Value| value.as_str().is_some_and(|text| text.len() == 24 && text.ends_with('Z'));
        let same = |old: &Value, new: &Value| old == new || (is_time(old) && is_time(new));
        assert_eq!(lacks(&before, &after, &same), None, "{release}");
        let ask = |path: &str| server.api("GET", path, &Value::Null).1;
        assert_eq!(ask("/claims/waits")["state"], "waiting", "{release}");
        assert_eq!(ask("/claims/ended-2")["how"], "broken", "{release}");
        assert_eq!(ask("/pools/environments/locks/2")["state"], "quarantined", "{release}");
        let history = ask("/changes?limit=1000");
        let kinds: Vec<&str> = history["items"].as_array().unwrap().iter().filter_map(|e| e["kind"].as_str()).collect();
        assert!(
            kinds.len() > 15 && kinds.contains(&"broken") && kinds.contains(&"latch_released"),
            "{release}: {kinds:?}"
        );
        // Work goes on: a hold of then ends, whoever waited is served next, and fences grow.
        let newest = history["items"].as_array().unwrap().last().unwrap()["revision"].as_u64().unwrap();
        server.cli(&["release", "both"]).ok();
        let asks = json!({"pool": "phones", "scope": "flow", "owner": {"person": "bob"}, "confirm": true, "run": "r1"});
        let (status, granted) = server.api("PUT", "/claims/waits", &asks);
        assert!(status == 200 && granted["fence"].as_u64().unwrap() > newest, "{release}: {granted}");
        server.stop();
        let store = format!("sqlite:{}", dir.path().join("locker.db").display());
        Running::start(clean(binary()).args(["store", "check", "--store", &store]), b"").finish().ok();
    }
}

/// What stands for a value of the recording now: claims, fences and revisions are others each time.
#[derive(Default)]
struct Renamed(BTreeMap<String, String>);

impl Renamed {
    fn learn(&mut self, old: &Value, new: &Value) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                old.iter().for_each(|(key, value)| self.learn(value, new.get(key).unwrap_or(&Value::Null)));
            }
            (Value::Array(old), Value::Array(new)) => old.iter().zip(new).for_each(|(old, new)| self.learn(old, new)),
            (Value::Number(old), Value::Number(new)) => self.note(old.to_string(), new.to_string()),
            (Value::String(old), Value::String(new)) => self.note(old.clone(), new.clone()),
            _ => {}
        }
    }

    fn note(&mut self, old: String, new: String) {
        if old != new && old.len() > 9 && old.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.0.insert(old, new);
        }
    }

    fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }
}

/// Everything that the resource of 0.1.0 asked is answered as it was, so that it does what it did.
#[test]
fn the_resource_of_the_last_release_works_with_this_server() {
    let exchanges = json_of("0.1.0", "exchanges.json");
    let server = Server::start();
    let mut renamed = Renamed::default();
    // The store of the recording is another one: only the kinds of values are compared.
    let same = |old: &Value, new: &Value| std::mem::discriminant(old) == std::mem::discriminant(new) || old.is_array();
    assert!(exchanges.as_array().unwrap().len() >= 25);
    for exchange in exchanges.as_array().unwrap() {
        let text = |name: &str| exchange[name].as_str().unwrap();
        let line = format!("{} {}", text("method"), renamed.apply(text("target")));
        let body =
            if exchange["request"].is_null() { String::new() } else { renamed.apply(&exchange["request"].to_string()) };
        let answer = server.call(&line, &body);
        assert_eq!(json!(answer.status), exchange["status"], "{line} {body}: {}", answer.json());
        let (old, new) = (&exchange["answer"], answer.json());
        assert_eq!(lacks(old, &new, &same), None, "{line}: {new}");
        if let Some(code) = old.get("code") {
            assert_eq!(&new["code"], code, "{line}");
        }
        renamed.learn(old, &new);
    }
}

/// A server that answers as that of 0.1.0 did, and the requests that nobody sent it when it was recorded.
struct Earlier {
    url: String,
    unheard: Arc<Mutex<Vec<String>>>,
    _port: Port,
}

/// A request without what differs each time: `PUT /api/v1/claims/*`.
fn kind(method: &str, target: &str) -> String {
    let path = target.split('?').next().unwrap();
    let is_id = |part: &str| part.len() > 9 && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let parts: Vec<&str> = path.split('/').map(|part| if is_id(part) { "*" } else { part }).collect();
    format!("{method} {}", parts.join("/"))
}

impl Earlier {
    fn start() -> Self {
        let answers: BTreeMap<String, (u64, String)> = json_of("0.1.0", "answers.json")
            .as_array()
            .unwrap()
            .iter()
            .map(|exchange| {
                let kind = kind(exchange["method"].as_str().unwrap(), exchange["target"].as_str().unwrap());
                (kind, (exchange["status"].as_u64().unwrap(), exchange["answer"].to_string()))
            })
            .collect();
        let unheard = Arc::<Mutex<Vec<String>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::clone(&unheard);
        let port = Port::open(listener, move |mut stream| {
            while let Ok(Some(request)) = proxy::read_message(&mut stream) {
                let request = String::from_utf8_lossy(&request).into_owned();
                let words: Vec<&str> = request.split(' ').take(2).collect();
                let kind = kind(words[0], words[1]);
                let (status, body) = answers.get(&kind).cloned().unwrap_or_else(|| {
                    told.lock().unwrap().push(kind);
                    (404, json!({"error": "there is no such route", "code": "no_such_route"}).to_string())
                });
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
                );
                // The client may have disconnected.
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { url, unheard, _port: port }
    }
}

/// Servers are upgraded first. A resource that is newer than its server says so at once, and holds nothing.
#[test]
fn this_resource_tells_a_server_of_the_last_release_from_others() {
    let earlier = Earlier::start();
    // The source of a build names a server; this one is replaced.
    let stand_in = Server::start();
    let build = Build::new(&stand_in, 1, "staging").at(&earlier.url);
    assert!(build.check(None).is_empty());
    build.out(&json!({"acquire": true})).failed(1, "the server is older than this program: upgrade the server first");
    let unheard = earlier.unheard.lock().unwrap();
    assert!(unheard.is_empty(), "no answer to this was recorded (tests/fixtures/make): {unheard:?}");
}
