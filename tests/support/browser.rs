//! A real Chromium, driven through its own `WebDriver` server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use base64::Engine as _;
use serde_json::{Value, json};

use super::http::Client;
use super::wait::eventually;

/// One browser at a time: several at once are slower than one after the other, and may fail to start.
static TURN: Mutex<()> = Mutex::new(());

/// A browser with one window. It ends when it is dropped.
pub struct Browser {
    _turn: MutexGuard<'static, ()>,
    driver: Child,
    address: String,
    session: String,
}

/// A driver, and the port that it listens on. `None` if it has ended at once.
fn driver() -> Option<(Child, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver: apt-get install chromium-driver");
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned())
    });
    let Some(port) = port else {
        let _ = driver.wait();
        return None;
    };
    // It must not block on a full pipe.
    thread::spawn(move || lines.for_each(drop));
    Some((driver, port))
}

impl Browser {
    /// # Panics
    /// When there is no `chromedriver` or no Chromium. `bin/test` installs both.
    pub fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // It takes a port that is free for IPv4 and gives up if that one is taken for IPv6, so it may need another try.
        let started = (0..10).find_map(|_| driver());
        let (driver, port) = started.expect("chromedriver finds a port");
        let mut browser = Self { _turn: turn, driver, address: format!("127.0.0.1:{port}"), session: String::new() };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.call("POST", "/session", &wanted);
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        browser
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = "content-type: application/json\r\n";
        let answer = Client::new(self.address.as_str()).ask(method, path, headers, &body).unwrap();
        let json = answer.json();
        assert!(json["value"]["error"].is_null(), "{method} {path}: {json}");
        json["value"].clone()
    }

    #[track_caller]
    fn ask(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// Opens a page, and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.ask("/url", &json!({ "url": url }));
    }

    /// Sets the size of the window, pixels.
    pub fn resize(&self, width: u32, height: u32) {
        self.ask("/window/rect", &json!({ "width": width, "height": height }));
    }

    /// Shows pages in the colours of this scheme: `light` or `dark`.
    pub fn colours(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.ask("/goog/cdp/execute", &command);
    }

    /// Runs a script in the page. `arguments` are its arguments.
    #[track_caller]
    pub fn run(&self, script: &str, arguments: &[&str]) -> Value {
        self.ask("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// The text that a reader sees.
    #[track_caller]
    pub fn text(&self) -> String {
        self.run("return document.body.innerText", &[]).as_str().unwrap().to_owned()
    }

    /// Waits until a reader sees this.
    #[track_caller]
    pub fn sees(&self, text: &str) {
        eventually(&format!("the page shows {text:?}"), || self.text().contains(text).then_some(()));
    }

    /// What the page has said on the console since the last call, errors of the network included.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.ask("/se/log", &json!({ "type": "browser" }));
        entries.as_array().unwrap().iter().map(ToString::to_string).collect()
    }

    /// A picture of the window, PNG.
    pub fn picture(&self) -> Vec<u8> {
        let picture = self.call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let path = format!("/session/{}", self.session);
        if let Ok(mut client) = Client::open(self.address.as_str()) {
            let _ = client.ask("DELETE", &path, "", "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
