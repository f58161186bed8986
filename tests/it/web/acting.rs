//! Acting on the page: every button, what it says, and what the server then knows.

use super::*;

/// Presses the button with this text within the first part of the page that contains `near`, fills the form, and
/// confirms. Returns what the form said would happen.
#[track_caller]
pub fn act(browser: &Browser, button: &str, near: &str, fields: &[(&str, &str)]) -> String {
    act_with(browser, button, near, fields, "")
}

/// The same, with a script that fills in more.
#[track_caller]
fn act_with(browser: &Browser, button: &str, near: &str, fields: &[(&str, &str)], more: &str) -> String {
    let press = "
        const holders = [...document.querySelectorAll('li, main .row')].filter((one) => one.innerText.includes(arguments[1]));
        const buttons = holders.flatMap((one) => [...one.querySelectorAll('button')]);
        const found = buttons.find((one) => one.textContent === arguments[0]);
        found?.click();
        return Boolean(found);";
    let pressed = || (browser.run(press, &[button, near]) == json!(true)).then_some(());
    eventually(&format!("there is a button {button:?} near {near:?}"), pressed);
    for (name, value) in [("person", "ada"), ("reason", "trying")].iter().chain(fields) {
        let fill = r#"document.querySelector(`#ask [name="${arguments[0]}"]`).value = arguments[1]"#;
        browser.run(fill, &[name, value]);
    }
    browser.run(more, &[]);
    let text = browser.run("return document.getElementById('ask-text').textContent", &[]);
    browser.run("document.getElementById('ask-do').click()", &[]);
    text.as_str().unwrap().to_owned()
}

#[track_caller]
pub fn is_done(browser: &Browser) {
    eventually("the dialog closes", || {
        let error = browser.run("return document.getElementById('ask-error').textContent", &[]);
        assert_eq!(error, json!(""), "the action failed");
        (browser.run("return document.getElementById('ask').open", &[]) == json!(false)).then_some(())
    });
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
    act(&browser, "Add a lock", "Add a lock", &[("{lock}", "asia/1"), ("labels", "region=asia, size = large")]);
    eventually("the server refuses the name", || browser.text().contains("lock name").then_some(()));
    browser.run(
        "document.querySelector('#ask [name=\"{lock}\"]').value = 'asia'; document.getElementById('ask-do').click()",
        &[],
    );
    is_done(&browser);
    browser.sees("region=asia size=large");
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
fn people_break_at_once_change_the_policy_and_are_next() {
    let (server, browser) = (busy(), Browser::start());
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("live");
    let fields = [("policy.max_hold", "4h"), ("policy.order", "priority"), ("policy.max_queue", "7")];
    let text = act(&browser, "Change the policy", "Change the policy", &fields);
    assert!(text.contains("Replaces the rules of staging"), "{text}");
    is_done(&browser);
    let policy = || server.api("GET", "/pools/staging", &Value::Null).1["policy"].clone();
    assert_eq!(policy(), json!({ "max_hold": "4h", "order": "priority", "max_queue": 7 }));
    browser.sees("max hold");
    // The form begins with the present rules, and what is emptied goes back to the default.
    act(&browser, "Change the policy", "Change the policy", &[("policy.max_hold", "")]);
    is_done(&browser);
    assert_eq!(policy(), json!({ "order": "priority", "max_queue": 7 }));

    // Mine next: in front of everybody, until it is served; the page goes on asking also after it was loaded again.
    act(&browser, "Mine next", "Mine next", &[("ttl", "2h")]);
    is_done(&browser);
    browser.sees("You are next");
    let first = || server.api("GET", "/pools/staging", &Value::Null).1["queue"][0]["owner"]["person"].clone();
    assert_eq!(first(), "ada");
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("You are next");
    // Broken without its drain, the lock is free at once.
    let pools = || server.api("GET", "/pools/staging", &Value::Null).1;
    let (button, near) = ("Break", "#12");
    act_with(&browser, button, near, &[], "document.querySelector('#ask [name=drain]').checked = false");
    is_done(&browser);
    eventually("ada has it", || {
        let holders = pools()["items"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|lock| lock["holders"].as_array().unwrap().clone())
            .collect::<Vec<_>>();
        holders.iter().any(|holder| holder["owner"]["person"] == "ada" && holder["state"] == "held").then_some(())
    });
    eventually("the note is gone", || (!browser.text().contains("You are next")).then_some(()));
    assert_eq!(browser.complaints().iter().filter(|one| !one.contains("423")).count(), 0);
}
