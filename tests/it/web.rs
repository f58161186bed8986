//! The web page in a real Chromium: every page, every action, and names that attack it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::browser::Browser;
use crate::support::wait::eventually;

/// A name that would run if it were not escaped. As a part of a path.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";
const HOSTILE_IN_PATH: &str = "%3Cimg%20src=x%20onerror=document.title='owned'%3E";

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
    let labelled = json!({ "labels": { "region": "eu" }, "metadata": "url: https://eu.staging.example.com\n" });
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

/// Presses the button with this text within the first part of the page that contains `near`, fills the form, and
/// confirms. Returns what the form said would happen.
#[track_caller]
fn act(browser: &Browser, button: &str, near: &str, fields: &[(&str, &str)]) -> String {
    let press = "
        const holders = [...document.querySelectorAll('li, main > .row')].filter((one) => one.innerText.includes(arguments[1]));
        const buttons = holders.flatMap((one) => [...one.querySelectorAll('button')]);
        const found = buttons.find((one) => one.textContent === arguments[0]);
        found?.click();
        return Boolean(found);";
    assert_eq!(browser.run(press, &[button, near]), json!(true), "no button {button:?} near {near:?}");
    for (name, value) in [("person", "ada"), ("reason", "trying")].iter().chain(fields) {
        let fill = "document.querySelector(`#ask [name=${arguments[0]}]`).value = arguments[1]";
        browser.run(fill, &[name, value]);
    }
    let text = browser.run("return document.getElementById('ask-text').textContent", &[]);
    browser.run("document.getElementById('ask-do').click()", &[]);
    text.as_str().unwrap().to_owned()
}

#[track_caller]
fn is_done(browser: &Browser) {
    eventually("the dialog closes", || {
        let error = browser.run("return document.getElementById('ask-error').textContent", &[]);
        assert_eq!(error, json!(""), "the action failed");
        (browser.run("return document.getElementById('ask').open", &[]) == json!(false)).then_some(())
    });
}

#[test]
fn every_page_is_whole_in_a_browser() {
    let (server, browser) = (busy(), Browser::start());
    let hostile = format!("/pools/{HOSTILE_IN_PATH}");
    for (path, expected) in [
        ("/", "performance-lab"),
        ("/pools/staging", "main/shop/deploy #12"),
        ("/pools/performance-lab", "new disks"),
        (hostile.as_str(), HOSTILE),
        ("/claims/waits-1", "Place 1"),
        ("/claims/held-1", "holds its locks"),
    ] {
        for (width, height) in [(1200, 900), (360, 800)] {
            browser.resize(width, height);
            browser.open(&page(&server, path));
            browser.sees(expected);
            let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.run(wide, &[]), json!(0), "{path} scrolls sideways at {width}");
        }
        let title = browser.run("return document.title", &[]);
        assert!(title.as_str().unwrap().ends_with("· Locker"), "{title}");
        assert_eq!(browser.complaints(), [""; 0], "{path}");
    }
    browser.open(&page(&server, "/pools/none"));
    browser.sees("There is no pool called");
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
fn people_act_on_the_page_and_say_why() {
    let (server, browser) = (busy(), Browser::start());
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("live");
    let text = act(&browser, "Move to front", "#15", &[]);
    assert!(text.contains("main/shop/deploy #15 is served before everybody else"), "{text}");
    is_done(&browser);
    act(&browser, "Release", "#12", &[]);
    is_done(&browser);
    let (_, history) = server.api("GET", "/pools/staging/changes", &Value::Null);
    let entries = history["items"].as_array().unwrap();
    let moved = entries.iter().find(|entry| entry["kind"] == "moved").unwrap();
    assert_eq!((&moved["owner"]["person"], &moved["reason"]), (&json!("ada"), &json!("trying")));
    assert_eq!(server.api("GET", "/claims/waits-2", &Value::Null).1["state"], "granted");
    browser.sees("moved, ada");
    act(&browser, "Cancel", "#14", &[]);
    is_done(&browser);
    act(&browser, "Break", "#13", &[]);
    is_done(&browser);
    browser.sees("draining");
    act(&browser, "Add a lock", "Add a lock", &[("name", "asia/1")]);
    eventually("the server refuses the name", || browser.text().contains("lock name").then_some(()));
    browser.run(
        "document.querySelector('#ask [name=name]').value = 'asia'; document.getElementById('ask-do').click()",
        &[],
    );
    is_done(&browser);
    act(&browser, "Take", "asia", &[("ttl", "2h")]);
    is_done(&browser);
    browser.sees("ada, for");
    let (_, lock) = server.api("GET", "/pools/staging/locks/asia", &Value::Null);
    assert_eq!(lock["holders"][0]["owner"]["person"], "ada");
    assert!(!lock["holders"][0]["until"].is_null());

    browser.open(&page(&server, "/pools/performance-lab"));
    browser.sees("new disks");
    act(&browser, "Return to service", "rack-1", &[]);
    is_done(&browser);
    act(&browser, "Quarantine", "rack-1", &[]);
    is_done(&browser);
    browser.sees("trying");
    act(&browser, "Remove", "rack-1", &[]);
    is_done(&browser);
    browser.sees("The pool is empty");
    // The refusal of the name is the only thing that went wrong.
    let complaints = browser.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("400"), "{complaints:?}");
}

#[test]
fn metadata_is_shown_only_to_those_who_ask() {
    let (server, browser) = (busy(), Browser::start());
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("Metadata");
    assert!(!browser.text().contains("eu.staging.example.com"));
    browser.run("document.querySelector('details summary').click()", &[]);
    browser.sees("url: https://eu.staging.example.com");
}

#[test]
fn a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() {
    let server = busy();
    for (path, kind) in
        [("/", "text/html"), ("/assets/locker.css", "text/css"), ("/assets/locker.js", "text/javascript")]
    {
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

#[test]
fn the_page_needs_the_password() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "s3cret")]);
    let answer = server.call("GET /", "");
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "));
}

/// The pictures of the page in the documentation: `LOCKER_UPDATE_PICTURES=1` takes them again.
#[test]
fn the_documentation_has_pictures_of_the_page() {
    let (server, browser) = (busy(), Browser::start());
    browser.resize(1100, 800);
    for (name, path, expected) in [("pools", "/", "staging"), ("pool", "/pools/staging", "#12")] {
        browser.open(&page(&server, path));
        browser.sees(expected);
        browser.sees("live");
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
