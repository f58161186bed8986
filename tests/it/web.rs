//! The web page in a real Chromium: every page, every action, and names that attack it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

mod acting;
mod events;
mod looks;
mod past;
mod signing_in;

use crate::support::Server;
use crate::support::browser::Browser;
use crate::support::wait::eventually;

/// A name that would run if it were not escaped. As a part of a path.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";
const HOSTILE_IN_PATH: &str = "%3Cimg%20src=x%20onerror=document.title='owned'%3E";

/// Some of it is secret.
const METADATA: &str = "\
url: https://eu.staging.example.com
user: ada
password: hunter2
db: postgres://app:s3cret@db.example.com/app
key: |
  -----BEGIN PRIVATE KEY-----
  MIIEvQ
  -----END PRIVATE KEY-----
note: ghp_0123456789abcdef0123456789abcdef01
";

fn owner(build: &str) -> Value {
    json!({
        "cluster": "https://ci.example.com", "team": "main", "pipeline": "shop", "job": "deploy",
        "build_id": build, "build_name": build, "build_url": format!("https://ci.example.com/builds/{build}"),
    })
}

fn claim(server: &Server, id: &str, pool: &str, build: &str) -> u16 {
    // Only who waits may be granted something that it must confirm.
    let confirm = id.starts_with("waits");
    let body = json!({ "pool": pool, "owner": owner(build), "confirm": confirm });
    server.api("PUT", &format!("/claims/{id}"), &body).0
}

/// A server with some pools: free, held, waited for, quarantined, and with names that attack.
fn busy() -> Server {
    let server = Server::start();
    let put = |path: &str, body: &Value| assert_eq!(server.api("PUT", path, body).0, 200, "{path}");
    let labelled = json!({ "labels": { "region": "eu" }, "metadata": METADATA });
    put("/pools/staging/locks/eu", &labelled);
    put("/pools/staging/locks/us", &json!({ "labels": { "region": "us" } }));
    put("/pools/performance-lab/locks/rack-1", &json!({}));
    put(&format!("/pools/{HOSTILE_IN_PATH}/locks/{HOSTILE_IN_PATH}"), &json!({ "metadata": HOSTILE }));
    assert_eq!(claim(&server, "held-1", "staging", "12"), 200);
    assert_eq!(claim(&server, "held-2", "staging", "13"), 200);
    assert_eq!(claim(&server, "waits-1", "staging", "14"), 423);
    assert_eq!(claim(&server, "waits-2", "staging", "15"), 423);
    let by = json!({ "by": { "owner": { "person": "ada" }, "reason": "new disks" } });
    server.api("POST", "/pools/performance-lab/locks/rack-1/quarantine", &by);
    server
}

/// The URL of a page. The server has no password, so it answers to loopback names.
fn page(server: &Server, path: &str) -> String {
    format!("http://localhost:{}{path}", server.port())
}

#[test]
fn the_page_follows_what_happens() {
    let (server, browser) = (busy(), Browser::start());
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("live");
    server.api("DELETE", "/claims/held-1", &Value::Null);
    browser.sees("main/shop/deploy #14, not confirmed yet");
    let holders = "return [...document.querySelectorAll('.holder')].map((one) => one.innerText).join()";
    let is_gone = || !browser.run(holders, &[]).as_str().unwrap().contains("#12");
    eventually("the first hold is gone", || is_gone().then_some(()));

    // What a reader has typed and opened stays.
    browser.open(&page(&server, "/"));
    browser.sees("live");
    browser.run("const s = document.getElementById('search'); s.value = 'STAG'; s.dispatchEvent(new Event('input', {bubbles: true}))", &[]);
    assert!(!browser.text().contains("performance-lab"));
    assert_eq!(claim(&server, "waits-3", "staging", "16"), 423);
    let waiting = "return document.querySelector('[data-name=staging]').cells[3].innerText";
    eventually("the new waiter counts", || (browser.run(waiting, &[]) == json!("2")).then_some(()));
    assert!(!browser.text().contains("performance-lab"));
    let sorted =
        "document.querySelectorAll('thead button')[3].click(); return document.querySelector('tbody tr').dataset.name";
    assert_eq!(browser.run(sorted, &[]), json!("staging"), "the most waiting first");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn metadata_is_shown_only_to_those_who_ask() {
    let (server, browser) = (busy(), Browser::start());
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("Metadata");
    assert!(!browser.text().contains("eu.staging.example.com"));
    browser.run("document.querySelector('details summary').click()", &[]);
    browser.sees("url: https://eu.staging.example.com");
    // What looks secret stays hidden until somebody asks for it.
    let text = browser.text();
    for secret in ["hunter2", "s3cret", "MIIEvQ", "ghp_"] {
        assert!(!text.contains(secret), "{secret} is shown: {text}");
    }
    assert!(text.contains("user: ada") && text.contains("password: hidden: show"), "{text}");
    assert!(text.contains("db: postgres://app:hidden: show@db.example.com/app"), "{text}");
    browser.run("document.querySelector('.secret').click()", &[]);
    browser.sees("password: hunter2");
    assert!(!browser.text().contains("s3cret"));
}

#[test]
fn a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() {
    let server = busy();
    for (path, kind) in [
        ("/", "text/html"),
        ("/history", "text/html"),
        ("/figures", "text/html"),
        ("/assets/locker.css", "text/css"),
        ("/assets/locker.js", "text/javascript"),
    ] {
        let answer = server.call(&format!("GET {path}"), "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let hostile = server.call(&format!("GET /pools/{HOSTILE_IN_PATH}"), "");
    assert!(!hostile.text().contains("<img"), "{}", hostile.text());
}

/// The pictures of the page in the documentation: `LOCKER_UPDATE_PICTURES=1` takes them again.
#[test]
fn the_documentation_has_pictures_of_the_page() {
    let (server, browser) = (busy(), Browser::start());
    browser.resize(1100, 800);
    past::some_history(&server);
    for (name, path, expected) in [
        ("pools", "/", "staging"),
        ("pool", "/pools/staging", "#12"),
        ("claim", "/claims/waits-1", "Place 1"),
        ("history", "/history", "claimed"),
        ("figures", "/figures", "Waits by pool"),
    ] {
        browser.open(&page(&server, path));
        browser.sees(expected);
        let picture = browser.picture();
        assert!(picture.starts_with(b"\x89PNG"), "{name}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/images/web-{name}.png"));
        if std::env::var_os("LOCKER_UPDATE_PICTURES").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, picture).unwrap();
        }
        assert!(file.exists(), "{}", file.display());
    }
}
