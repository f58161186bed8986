//! A pretend receiver of webhooks: it records what it gets, and answers as a test says.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::port::Port;
use super::proxy;
use super::wait::eventually;

/// How it treats a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Answers with this status.
    Says(u16),
    /// Takes the request and never answers.
    Hangs,
    /// Takes the request and closes the connection.
    Closes,
    /// Redirects to this address.
    Redirects(String),
    /// Answers 403, with the whole request as its text.
    Repeats,
}

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Got {
    pub line: String,
    head: String,
    pub body: String,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[derive(Default)]
struct State {
    manner: Option<Manner>,
    got: Vec<Got>,
    /// Connections that get no answer.
    kept: Vec<TcpStream>,
}

pub struct Receiver {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// Serves until this is dropped.
    _port: Port,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let theirs = Arc::clone(&state);
        let port = Port::open(listener, move |stream| serve(stream, &theirs));
        Self { url, state, _port: port }
    }

    /// From now on it treats requests in this manner.
    pub fn behaves(&self, manner: Manner) {
        let mut state = self.state.lock().unwrap();
        state.manner = Some(manner);
        state.kept.clear();
    }

    /// All requests so far.
    pub fn got(&self) -> Vec<Got> {
        self.state.lock().unwrap().got.clone()
    }

    /// The bodies of all requests so far that have one.
    pub fn bodies(&self) -> Vec<Value> {
        self.got().iter().filter(|got| !got.body.is_empty()).map(Got::json).collect()
    }

    /// Waits until it has so many requests.
    #[track_caller]
    pub fn until(&self, count: usize) -> Vec<Got> {
        eventually(&format!("{count} requests"), || Some(self.got()).filter(|got| got.len() >= count))
    }

    /// Waits for a request about this event.
    #[track_caller]
    pub fn event(&self, event: &str) -> Value {
        eventually(event, || self.bodies().into_iter().find(|body| body["event"] == event))
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    // The client may keep the connection for several requests.
    while let Ok(Some(message)) = proxy::read_message(&mut stream) {
        let text = String::from_utf8_lossy(&message).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let line = head.lines().next().unwrap_or_default().to_owned();
        let manner = {
            let mut state = state.lock().unwrap();
            state.got.push(Got { line, head: head.to_owned(), body: body.to_owned() });
            state.manner.clone()
        };
        let (status, more, said) = match manner.unwrap_or(Manner::Says(204)) {
            Manner::Says(status) => (status, String::new(), String::new()),
            Manner::Redirects(place) => (302, format!("location: {place}\r\n"), String::new()),
            Manner::Repeats => (403, String::new(), text.clone()),
            Manner::Closes => return,
            Manner::Hangs => return state.lock().unwrap().kept.push(stream),
        };
        let answer = format!("HTTP/1.1 {status} x\r\n{more}content-length: {}\r\n\r\n{said}", said.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
