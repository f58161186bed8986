//! What happened: the pages of the history, of figures, and of a claim.

use super::*;

/// Claims of two teams that waited, held and ended in several ways.
pub fn some_history(server: &Server) {
    for (n, team) in ["payments", "search", "payments"].into_iter().enumerate() {
        let body = json!({ "pool": "nightly", "owner": { "team": team, "pipeline": "db", "job": "migrate", "build_id": n.to_string() } });
        assert_eq!(server.api("PUT", &format!("/claims/past-{n}"), &body).0, 200);
        assert_eq!(server.api("DELETE", &format!("/claims/past-{n}"), &Value::Null).0, 200);
    }
    let by = json!({ "by": { "owner": { "person": "ada" }, "reason": "its worker is gone" } });
    assert_eq!(server.api("PUT", "/claims/past-3", &json!({ "pool": "nightly" })).0, 200);
    assert_eq!(server.api("POST", "/claims/past-3/break", &by).0, 200);
}

#[test]
fn the_history_answers_by_filter() {
    let (server, browser) = (busy(), Browser::start());
    some_history(&server);
    browser.open(&page(&server, "/history"));
    browser.sees("its worker is gone");
    let entries = "return [...document.querySelectorAll('ul.changes li')].map((one) => one.innerText)";
    let shown = |query: &str| -> Vec<String> {
        browser.open(&page(&server, &format!("/history?{query}")));
        browser.sees("Everything");
        serde_json::from_value(browser.run(entries, &[])).unwrap()
    };
    let all = shown("");
    assert!(all[0].contains("broken") && all[1].contains("claimed"), "the newest first: {all:?}");
    for (query, expected, count) in [
        ("pool=night*", "of nightly", 9),
        ("pool=nightly&kind=released", "released nightly of nightly", 3),
        ("who=SEARCH", "search/db/migrate", 2),
        ("claim=past-3&lock=", "broken", 2),
        ("lock=us", "us of staging", 2),
        ("since=24h&until=&kind=quarantined", "new disks", 1),
    ] {
        let found = shown(query);
        assert_eq!(found.len(), count, "{query}: {found:?}");
        assert!(found.iter().any(|entry| entry.contains(expected)), "{query}: {found:?}");
    }
    browser.open(&page(&server, "/history?until=24h"));
    browser.sees("Nothing of this kind is in the history.");
    assert_eq!(browser.complaints(), [""; 0]);
    // What was asked for stays in the form, and a mistake is named.
    browser.open(&page(&server, "/history?who=ada&kind=broken&since=yesterday"));
    browser.sees("since: ");
    let form = "return [...document.querySelectorAll('.filters [name]')].map((one) => one.value).join()";
    assert_eq!(browser.run(form, &[]), json!(",,ada,broken,yesterday,,"));

    // A long history has several pages.
    for n in 0..120 {
        let note = json!({ "by": { "owner": { "person": "bob" }, "reason": format!("note {n}") } });
        assert_eq!(server.api("POST", "/pools/nightly/changes", &note).0, 200);
    }
    let first = shown("kind=noted&who=bob");
    assert!(first.len() == 100 && first[0].contains("note 119"), "{first:?}");
    browser.run("document.querySelector('[rel=next]').click()", &[]);
    browser.sees("note 19");
    let rest: Vec<String> = serde_json::from_value(browser.run(entries, &[])).unwrap();
    assert!(rest.len() == 20 && rest[19].contains("note 0"), "{rest:?}");
}

#[test]
fn figures_are_tables_with_bars() {
    let (server, browser) = (busy(), Browser::start());
    browser.open(&page(&server, "/figures?pool=none"));
    browser.sees("Nothing happened.");
    some_history(&server);
    browser.open(&page(&server, "/figures"));
    browser.sees("Holds by team");
    let row = "const [heading, name] = arguments; \
               const section = [...document.querySelectorAll('section')].find((one) => one.querySelector('h2').innerText === heading); \
               const row = [...section.querySelectorAll('tbody tr')].find((one) => one.cells[0].innerText === name); \
               return [...row.cells].map((cell) => cell.innerText.trim()).join('|')";
    let cells = |heading: &str, name: &str| browser.run(row, &[heading, name]).as_str().unwrap().to_owned();
    assert_eq!(cells("Holds by pool", "nightly"), "nightly|4|0 s|0 s|0 s|");
    assert_eq!(cells("Holds by team", "payments"), "payments|2|0 s|0 s|0 s|");
    assert_eq!(cells("Waits by team", "no team"), "no team|1|0 s|0 s|0 s|");
    assert!(cells("Use by pool", "nightly").ends_with(" %|0|1|0|"), "{}", cells("Use by pool", "nightly"));
    let bars = browser.run("return document.querySelectorAll('td.plot[aria-hidden=true] svg rect.p95').length", &[]);
    assert!(bars.as_u64().unwrap() >= 6, "{bars}");
    for (link, place) in [("A week", "?over=week&pool="), ("90 days", "?over=90-days&pool=")] {
        let click = "[...document.querySelectorAll('nav.row a')].find((one) => one.innerText === arguments[0]).click()";
        browser.run(click, &[link]);
        eventually(link, || (browser.run("return location.search", &[]) == json!(place)).then_some(()));
        browser.sees("Holds by team");
        let current = browser.run("return document.querySelector('[aria-current]').innerText", &[]);
        assert_eq!(current, json!(link));
    }
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(server.call("GET /figures?over=year", "").status, 400);
}

#[test]
fn a_claim_has_a_timeline() {
    let (server, browser) = (busy(), Browser::start());
    some_history(&server);
    browser.open(&page(&server, "/claims/past-3"));
    browser.sees("has ended");
    let kinds = "return [...document.querySelectorAll('.timeline b')].map((one) => one.innerText).join()";
    assert_eq!(browser.run(kinds, &[]), json!("claimed,broken,ended"));
    browser.sees("its worker is gone");
    browser.open(&page(&server, "/claims/held-1"));
    browser.sees("holds its locks");
    assert_eq!(browser.run(kinds, &[]), json!("asked,claimed"));
    server.api("DELETE", "/claims/held-1", &Value::Null);
    browser.sees("has ended");
    browser.open(&page(&server, "/claims/none"));
    browser.sees("There is no claim");
}
