//! `/metrics`: what a real server serves, read line by line as Prometheus reads it, and held against the pages and the
//! files that name metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::certs::{Ca, Files};
use crate::support::{Server, eventually};

#[cfg(feature = "plant")]
mod several;

/// The samples of a scrape, by name and labels.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(server: &Server) -> Self {
        let answer = server.call("GET /metrics", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::read(answer.text())
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Self { samples: samples.collect(), text: text.to_owned() }
    }

    #[track_caller]
    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {}", self.text))
    }

    #[track_caller]
    fn is(&self, sample: &str, expected: f64) {
        let value = self.value(sample);
        assert!((value - expected).abs() < f64::EPSILON, "{sample} is {value}, not {expected}");
    }

    /// The names as queries write them: each with `_total`, `_bucket` and so on.
    fn names(&self) -> BTreeSet<String> {
        let families = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        families
            .flat_map(|family| {
                let (name, kind) = family.split_once(' ').unwrap();
                let parts: &[&str] = if kind == "histogram" { &["", "_bucket", "_sum", "_count"] } else { &[""] };
                parts.iter().map(|part| format!("{name}{part}")).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Runs Prometheus's own tool. It must be content.
#[track_caller]
fn promtool(args: &[&str], stdin: &str) {
    let mut tool = Command::new("promtool");
    let mut tool = tool.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tool.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let done = tool.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success() && !said.contains("metric names"), "promtool {args:?}: {said}");
}

fn claim(server: &Server, id: &str, pool: &str) -> u16 {
    let body = json!({ "pool": pool });
    server.api("PUT", &format!("/claims/{id}"), &body).0
}

#[test]
fn a_scrape_tells_how_the_pools_are_and_what_happened() {
    let server = Server::start_durable();
    for lock in ["eu", "us", "asia"] {
        assert_eq!(server.api("PUT", &format!("/pools/prod/locks/{lock}"), &json!({})).0, 200);
    }
    server.api("POST", "/pools/prod/locks/asia/quarantine", &json!({ "by": { "reason": "flood" } }));
    assert_eq!(["a", "b", "c"].map(|id| claim(&server, id, "prod")), [200, 200, 423]);
    server.api("DELETE", "/claims/a", &Value::Null);
    server.api("POST", "/claims/b/break", &json!({ "by": { "reason": "stuck" } }));

    // The figures of a batch are counted after its answers.
    let scrape = eventually("the ends are counted", || {
        let scrape = Scrape::of(&server);
        let counted = scrape.samples.contains_key("locker_pool_ends_total{pool=\"prod\",how=\"broken\"}");
        counted.then_some(scrape)
    });
    let states = ["free", "held", "draining", "quarantined"];
    let locks = states.map(|state| scrape.value(&format!("locker_pool_locks{{pool=\"prod\",state=\"{state}\"}}")));
    let sum: f64 = locks.iter().sum();
    assert!((sum - 3.0).abs() < f64::EPSILON, "{locks:?}");
    scrape.is("locker_pool_locks{pool=\"prod\",state=\"quarantined\"}", 1.0);
    scrape.is("locker_pool_ends_total{pool=\"prod\",how=\"released\"}", 1.0);
    scrape.is("locker_pool_ends_total{pool=\"prod\",how=\"broken\"}", 1.0);
    scrape.is("locker_pool_hold_seconds_count{pool=\"prod\"}", 2.0);
    let grants = scrape.value("locker_pool_grants_total{pool=\"prod\"}");
    assert!(grants >= 2.0, "{grants}");
    scrape.is("locker_pool_wait_seconds_count{pool=\"prod\"}", grants);
    assert!(scrape.value("locker_engine_commit_seconds_count") >= 6.0);
    assert!(scrape.value("locker_engine_batch_commands_count") >= 6.0);
    assert!(scrape.value("locker_engine_commands_total") >= 6.0);
    assert!(scrape.value("locker_store_size_bytes") > 4096.0);
    assert!(scrape.value("locker_requests_total{status=\"200\"}") >= 6.0);
    scrape.is("locker_requests_total{status=\"423\"}", 1.0);
    // Those of earlier requests may not have ended yet.
    assert!(scrape.value("locker_connections") >= 1.0);
    scrape.is(&format!("locker_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    promtool(&["check", "metrics"], &scrape.text);
}

#[test]
fn a_held_lock_in_quarantine_is_held_and_only_waiting_requests_are_parked() {
    let server = Server::start();
    assert_eq!(claim(&server, "a", "p"), 200);
    server.api("POST", "/pools/p/locks/p/quarantine", &json!({ "by": { "reason": "flood" } }));
    assert_eq!(server.api("GET", "/pools/p/locks/p", &Value::Null).1["state"], "held");
    let scrape = Scrape::of(&server);
    scrape.is("locker_pool_locks{pool=\"p\",state=\"held\"}", 1.0);
    scrape.is("locker_pool_locks{pool=\"p\",state=\"quarantined\"}", 0.0);
    scrape.is("locker_parked_requests", 0.0);
    scrape.is("locker_parked_bytes", 0.0);
    let mut waiter = server.connect();
    waiter.start("PUT /api/v1/claims/b", r#"{"pool":"p","wait":"60s"}"#);
    let scrape = eventually("it waits", || {
        let scrape = Scrape::of(&server);
        (scrape.value("locker_parked_requests") > 0.0).then_some(scrape)
    });
    scrape.is("locker_parked_requests", 1.0);
    assert!(scrape.value("locker_parked_bytes") > 100.0);
    server.api("DELETE", "/claims/a", &Value::Null);
    server.api("DELETE", "/claims/b", &Value::Null);
    assert_eq!(waiter.read().status, 410);
    Scrape::of(&server).is("locker_parked_requests", 0.0);
}

#[test]
fn a_client_that_accepts_it_gets_openmetrics() {
    let server = Server::start();
    let request =
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let mut client = server.connect();
    client.send(request);
    let answer = client.read();
    let content_type = answer.header("content-type");
    assert_eq!(content_type, Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.text().ends_with("# EOF\n"), "{}", answer.text());
    assert!(answer.text().contains("\n# TYPE locker_engine_commands counter\n"), "{}", answer.text());
}

#[test]
fn all_pools_beyond_the_limit_are_one_row() {
    let server = Server::start_with("memory:", &["--metric-pools", "2"], &[]);
    for pool in ["p1", "%22%5C%F0%9F%94%92", "p3", "p4"] {
        assert_eq!(server.api("PUT", &format!("/pools/{pool}"), &json!({ "capacity": 2 })).0, 200, "{pool}");
    }
    assert_eq!(claim(&server, "a", "p3"), 200);
    let scrape = Scrape::of(&server);
    scrape.is("locker_pool_locks{pool=\"p1\",state=\"free\"}", 2.0);
    scrape.is("locker_pool_locks{pool=\"\\\"\\\\🔒\",state=\"free\"}", 2.0);
    scrape.is("locker_pool_locks{pool=\"/rest\",state=\"free\"}", 3.0);
    scrape.is("locker_pool_locks{pool=\"/rest\",state=\"held\"}", 1.0);
    promtool(&["check", "metrics"], &scrape.text);

    // A removed pool makes room for another.
    assert_eq!(server.api("DELETE", "/pools/p1", &Value::Null).0, 200);
    assert_eq!(server.api("PUT", "/pools/p5", &json!({ "capacity": 1 })).0, 200);
    let scrape = eventually("the new pool has its row", || {
        let scrape = Scrape::of(&server);
        scrape.samples.contains_key("locker_pool_grants_total{pool=\"p5\"}").then_some(scrape)
    });
    assert!(!scrape.text.contains("pool=\"p1\""), "{}", scrape.text);
}

#[test]
fn metrics_need_the_password() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "s3cret")]);
    assert_eq!(server.call("GET /metrics", "").status, 401);
}

/// A server that has every metric: with a certificate and a target of notifications.
fn with_everything() -> (Server, String) {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let pair = ca.issue(&["localhost"], "server");
    let (cert, key) = (files.write("cert", &pair.cert), files.write("key", &pair.key));
    let ca = files.write("ca", &ca.pem());
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    let notify = files.write("notify", "targets: [{name: ops, url: 'http://127.0.0.1:9', events: [lost]}]\n");
    let vars = [("SSL_CERT", cert.as_str()), ("SSL_KEY", &key), ("LOCKER_NOTIFY", &notify)];
    let server = Server::start_with(&store, &[], &vars);
    let curl = |args: &[&str], target: &str| {
        let url = format!("https://localhost:{}/{target}", server.port());
        let done =
            Command::new("curl").args(["-sS", "-m", "20", "--cacert", &ca]).args(args).arg(&url).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    // A metric by status or pool is there when the first has been counted.
    curl(&["-X", "PUT", "-H", "content-type: application/json", "-d", "{}"], "api/v1/pools/p/locks/l");
    curl(&[], &"x".repeat(9_000));
    let text = curl(&[], "metrics");
    (server, text)
}

/// Everything in a text that looks like a metric of ours.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("locker_"));
    words.map(|word| word.trim_end_matches('_').to_owned()).collect()
}

#[test]
fn the_page_and_the_files_name_just_the_metrics_that_are_served() {
    let (_server, text) = with_everything();
    promtool(&["check", "metrics"], &text);
    let scrape = Scrape::read(&text);
    assert!(scrape.value("locker_tls_certificate_expiry_timestamp_seconds") > 1.7e9);
    let served = scrape.names();
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();

    let page = named(&read("docs/operations.md"));
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let families: BTreeSet<String> = families.map(|(name, _)| name.to_owned()).collect();
    let missing: Vec<_> = families.difference(&page).collect();
    assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
    for file in ["docs/operations.md", "deploy/prometheus/alerts.yml", "deploy/prometheus/dashboard.json"] {
        let unknown: Vec<_> = named(&read(file)).difference(&served).cloned().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which are not served");
    }
}

#[test]
fn the_alert_rules_are_valid() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for (rules, dashboard) in [("alerts.yml", "dashboard.json"), ("cluster-alerts.yml", "cluster-dashboard.json")] {
        promtool(&["check", "rules", dir.join(rules).to_str().unwrap()], "");
        let dashboard = fs::read_to_string(dir.join(dashboard)).unwrap();
        let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() >= 6);
    }
}
