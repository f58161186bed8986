//! Both ends in one process, over real sockets, with a real door in front and a small handler behind.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::greeting::{Hello, NotGreeted, Why, introduce_as};
use super::limits::{LINK_FRAME_BYTES, LINK_MOST, LINK_PROTOCOL};
use super::pipe::{Reader, send};
use super::*;
use crate::core::names::ParkId;
use crate::core::time::Span;
use crate::server::door::{self, DoorSettings, Stop};
use crate::server::http::{Admission, Admitting, Answering, Attempt, Handler, Request, Response};
use crate::server::notices::Notices;
use crate::store::log::head::{Id, Leader};

/// Long enough for the busiest machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A handler whose answers say who gave them.
struct Small {
    name: &'static str,
    notices: Notices,
    /// Ids of requests that it was called with for the first time.
    seen: Mutex<Vec<String>>,
    parked: Mutex<BTreeMap<String, ParkId>>,
    granted: Mutex<BTreeSet<String>>,
    left: Mutex<Vec<ParkId>>,
    stuck: tokio::sync::Notify,
    parts: AtomicUsize,
}

impl Small {
    fn new(name: &'static str, notices: Notices) -> Arc<Self> {
        Arc::new(Self {
            name,
            notices,
            seen: Mutex::default(),
            parked: Mutex::default(),
            granted: Mutex::default(),
            left: Mutex::default(),
            stuck: tokio::sync::Notify::new(),
            parts: AtomicUsize::new(0),
        })
    }

    fn text(&self, status: u16, text: &str) -> Response {
        let text = format!("{}: {text}", self.name);
        Response { route: Some("/small"), ..Response::new(status, text.into_bytes()) }
    }

    fn wait_for(&self, request: &Request) -> Response {
        if self.granted.lock().unwrap().contains(&request.path) {
            return self.text(200, "granted");
        }
        if request.can_park {
            self.parked.lock().unwrap().insert(request.path.clone(), request.park);
            return Response { park: Some(Span(60_000)), ..self.text(423, "waits") };
        }
        self.text(423, "waits")
    }

    fn grant(&self, path: &str) {
        self.granted.lock().unwrap().insert(path.to_owned());
        if let Some(park) = self.parked.lock().unwrap().get(path) {
            self.notices.notify(*park);
        }
    }

    fn is_parked(&self, path: &str) -> bool {
        self.parked.lock().unwrap().contains_key(path)
    }

    fn stream(&self) -> Response {
        let part = self.parts.fetch_add(1, Ordering::SeqCst);
        let body = format!("part {part} of {};", self.name).into_bytes();
        let headers = vec![("content-type", "text/plain".to_owned())];
        Response { headers, stream: (part < 5).then_some(Span(0)), ..Response::new(200, body) }
    }
}

impl Handler for Small {
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a> {
        let admitted = match request.header("authorization") {
            Some("wrong") => Err(self.text(401, "no")),
            _ => Ok(Admission::Client),
        };
        request.admitted = admitted.is_ok();
        Box::pin(std::future::ready(admitted))
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        Box::pin(async move {
            assert!(request.admitted);
            if request.attempt == Attempt::First {
                self.seen.lock().unwrap().push(request.id.clone());
            }
            match request.path.as_str() {
                "/panic" => panic!("as it should"),
                "/stuck" => {
                    self.stuck.notified().await;
                    self.text(200, "moved")
                }
                "/stream" => self.stream(),
                "/flood" => Response { stream: Some(Span(0)), ..Response::new(200, vec![b'x'; 256 * 1024]) },
                "/large" => Response::new(200, vec![b'y'; 3 * 1024 * 1024]),
                "/echo" => Response::new(200, request.body.clone()),
                "/peer" => self.text(200, &format!("{} {}", request.peer, request.id)),
                path if path.starts_with("/wait") => self.wait_for(request),
                path => {
                    let headers = vec![("x-name", self.name.to_owned())];
                    Response { headers, ..self.text(200, path) }
                }
            }
        })
    }

    fn left(&self, park: ParkId) {
        self.left.lock().unwrap().push(park);
    }
}

/// A server that leads.
struct Leads {
    small: Arc<Small>,
    there: There,
    links: Arc<AtomicUsize>,
    server: Option<LinkServer>,
}

impl Leads {
    fn start(name: &'static str, term: u64, grace: Duration) -> Self {
        let notices = Notices::default();
        let small = Small::new(name, notices.clone());
        let key = Key::random().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let advertised = Advertised { address: listener.local_addr().unwrap().to_string(), key: key.public() };
        let secret = Id::random().unwrap();
        let (handler, store) = (Arc::clone(&small) as Arc<dyn Handler>, "store".to_owned());
        let door = DoorSettings::default();
        let (of_store, greeting) = (store.clone(), Duration::from_millis(300));
        let links = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&links);
        let settings = LinkSettings {
            key,
            secret,
            term,
            store: of_store,
            handler,
            notices,
            door,
            grace,
            greeting,
            links: counted,
        };
        let server = Some(LinkServer::start(listener, settings).unwrap());
        let leader = Leader { name: advertised.to_string(), run: secret };
        Self { small, there: There { leader, term, store }, links, server }
    }

    fn usual(name: &'static str) -> Self {
        Self::start(name, 1, Duration::from_secs(600))
    }

    fn links(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }
}

/// A server that follows, with its door.
struct Follows {
    forwarder: Arc<Forwarder>,
    notices: Notices,
    address: SocketAddr,
    stop: Stop,
    door: Option<JoinHandle<()>>,
}

impl Follows {
    fn start() -> Self {
        let notices = Notices::default();
        let repeatable = |request: &Request| request.method != "POST";
        let forwarder = Arc::new(Forwarder::start(notices.clone(), repeatable).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::new();
        let door = {
            let (handler, stop) = (Arc::clone(&forwarder) as Arc<dyn Handler>, stop.clone());
            let notices = notices.clone();
            let settings = DoorSettings { linger: Duration::from_millis(1), ..DoorSettings::default() };
            thread::spawn(move || door::serve(listener, handler, notices, settings, stop).unwrap())
        };
        Self { forwarder, notices, address, stop, door: Some(door) }
    }

    fn of(leader: &Leads) -> Self {
        let follows = Self::start();
        follows.follow(leader);
        follows
    }

    fn follow(&self, leader: &Leads) {
        self.forwarder.set_leader(Lead::There(leader.there.clone()));
        eventually("a link", || self.forwarder.passing().is_linked());
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        answer(self.send(method, path, b""))
    }
}

impl Drop for Follows {
    fn drop(&mut self) {
        self.stop.trigger(Duration::ZERO);
        if let Some(door) = self.door.take()
            && door.join().is_err()
            && !thread::panicking()
        {
            panic!("the door has panicked");
        }
    }
}

fn answer(stream: TcpStream) -> (u16, String) {
    let (status, _, body) = whole(stream);
    (status, body)
}

fn whole(stream: TcpStream) -> (u16, String, String) {
    let mut text = Vec::new();
    (&stream).read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

#[test]
fn requests_are_answered_by_the_leader() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let (status, head, body) = whole(follows.send("GET", "/x?y=1", b""));
    assert_eq!((status, body.as_str()), (200, "a: /x"));
    assert!(head.contains("x-name: a"), "{head}");
    assert_eq!(follows.ask("GET", "/panic").0, 500);
    assert_eq!(follows.ask("GET", "/large").1.len(), 3 * 1024 * 1024);
    let body = "z".repeat(1024 * 1024);
    assert_eq!(answer(follows.send("PUT", "/echo", body.as_bytes())).1, body);
    let (_, head, body) = whole(follows.send("GET", "/peer", b""));
    let (peer, id) = body.strip_prefix("a: ").unwrap().split_once(' ').unwrap();
    assert!(peer.starts_with("127.0.0.1:") && head.contains(&format!("x-request-id: {id}")), "{head} {body}");
    assert_eq!(follows.forwarder.passing().pending(), 0);
}

#[test]
fn a_thousand_requests_at_once() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let streams: Vec<_> = (0..1_000).map(|n| follows.send("GET", &format!("/{n}"), b"")).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        assert_eq!(answer(stream), (200, format!("a: /{n}")));
    }
}

#[test]
fn who_is_refused_by_the_leader_is_refused() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let mut stream = TcpStream::connect(follows.address).unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nauthorization: wrong\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(answer(stream), (401, "a: no".to_owned()));
    assert!(leader.small.seen.lock().unwrap().is_empty());
}

#[test]
fn failed_logins_count_at_the_leader() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let guess = || {
        let mut stream = TcpStream::connect(follows.address).unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nauthorization: wrong\r\nconnection: close\r\n\r\n").unwrap();
        answer(stream)
    };
    // The first ones are typing errors; the debt wears off by one each second.
    let refused = (0..100).map(|_| guess()).find(|(status, _)| *status == 429).unwrap();
    assert!(refused.1.contains("too_many_logins"), "{}", refused.1);
    assert_eq!(follows.ask("GET", "/x").0, 200, "who shows nothing guesses nothing");
}

#[test]
fn a_parked_request_is_answered_when_it_is_notified() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let waits = follows.send("PUT", "/wait", b"{}");
    eventually("parked", || leader.small.is_parked("/wait"));
    leader.small.grant("/wait");
    assert_eq!(answer(waits), (200, "a: granted".to_owned()));
    assert!(leader.small.left.lock().unwrap().is_empty());
}

#[test]
fn the_handler_learns_that_a_client_has_gone() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let waits = follows.send("PUT", "/wait", b"{}");
    eventually("parked", || leader.small.is_parked("/wait"));
    drop(waits);
    eventually("left", || leader.small.left.lock().unwrap().len() == 1);
    assert_eq!(leader.small.left.lock().unwrap()[0], leader.small.parked.lock().unwrap()["/wait"]);
    assert_eq!(follows.forwarder.passing().pending(), 0);
}

#[test]
fn a_follower_that_stops_answers_its_clients() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let waits = follows.send("PUT", "/wait", b"{}");
    eventually("parked", || leader.small.is_parked("/wait"));
    follows.stop.trigger(PATIENCE);
    assert_eq!(answer(waits), (423, "a: waits".to_owned()));
}

#[test]
fn a_parked_request_goes_on_at_the_next_leader() {
    let first = Leads::start("a", 1, Duration::from_millis(50));
    let second = Leads::start("b", 2, Duration::from_secs(600));
    let follows = Follows::of(&first);
    let waits = follows.send("PUT", "/wait", b"{}");
    eventually("parked", || first.small.is_parked("/wait"));
    follows.forwarder.set_leader(Lead::Nobody);
    eventually("left after the grace", || first.small.left.lock().unwrap().len() == 1);
    follows.follow(&second);
    eventually("parked again", || second.small.is_parked("/wait"));
    assert_eq!(*first.small.seen.lock().unwrap(), *second.small.seen.lock().unwrap(), "the same request");
    second.small.grant("/wait");
    assert_eq!(answer(waits), (200, "b: granted".to_owned()));
}

#[test]
fn a_link_that_is_made_again_finds_its_requests() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let waits = follows.send("PUT", "/wait", b"{}");
    eventually("parked", || leader.small.is_parked("/wait"));
    let park = leader.small.parked.lock().unwrap()["/wait"];
    follows.forwarder.set_leader(Lead::Nobody);
    eventually("the end of the link", || leader.links() == 0);
    leader.small.parked.lock().unwrap().clear();
    follows.follow(&leader);
    eventually("parked again", || leader.small.is_parked("/wait"));
    assert_eq!(leader.small.parked.lock().unwrap()["/wait"], park, "under the same number");
    leader.small.grant("/wait");
    assert_eq!(answer(waits), (200, "a: granted".to_owned()));
    assert!(leader.small.left.lock().unwrap().is_empty(), "it never left");
}

#[test]
fn a_leader_that_stops_hands_over() {
    let mut first = Leads::usual("a");
    let second = Leads::start("b", 2, Duration::from_secs(600));
    let follows = Follows::of(&first);
    let waits = follows.send("PUT", "/wait", b"{}");
    let slow = follows.send("POST", "/stuck", b"{}");
    eventually("both there", || first.small.is_parked("/wait") && first.small.seen.lock().unwrap().len() == 2);
    let server = first.server.take().unwrap();
    let stopping = thread::spawn(move || server.stop(PATIENCE));
    eventually("goodbye", || !follows.forwarder.passing().is_linked());
    first.small.stuck.notify_one();
    assert_eq!(answer(slow), (200, "a: moved".to_owned()), "what is in flight is answered");
    stopping.join().unwrap();
    assert!(first.small.left.lock().unwrap().is_empty(), "who waits for the next leader has not left");
    follows.follow(&second);
    eventually("parked again", || second.small.is_parked("/wait"));
    second.small.grant("/wait");
    assert_eq!(answer(waits), (200, "b: granted".to_owned()));
}

/// Its greeting ends when the leader has said goodbye already.
#[test]
fn a_link_that_comes_late_does_not_hold_up_a_stop() {
    let mut leader = Leads::usual("a");
    let Advertised { address, key } = leader.there.leader.name.parse().unwrap();
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut there = leader.there.clone();
    there.leader.name = Advertised { address: relay.local_addr().unwrap().to_string(), key }.to_string();
    let follows = Follows::start();
    follows.forwarder.set_leader(Lead::There(there));

    let (mut from, mut to) = (relay.accept().unwrap().0, TcpStream::connect(&address).unwrap());
    let mut first = [0; 4096];
    let length = from.read(&mut first).unwrap();
    to.write_all(&first[..length]).unwrap();
    // Now the leader serves it, and waits for what the relay keeps back.
    assert!(to.peek(&mut first).unwrap() > 0);
    let server = leader.server.take().unwrap();
    let stopping = thread::spawn(move || server.stop(PATIENCE));
    eventually("goodbye", || TcpStream::connect(&address).is_err());
    let (mut down, mut back) = (to.try_clone().unwrap(), from.try_clone().unwrap());
    let copies = [
        thread::spawn(move || drop(std::io::copy(&mut from, &mut to))),
        thread::spawn(move || drop(std::io::copy(&mut down, &mut back))),
    ];
    eventually("the end of the stop", || stopping.is_finished());
    drop(follows);
    copies.into_iter().chain([stopping]).for_each(|thread| thread.join().unwrap());
}

#[test]
fn this_server_may_lead_itself() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let waits = follows.send("PUT", "/wait/1", b"{}");
    eventually("parked", || leader.small.is_parked("/wait/1"));
    // It takes over: who waited goes on here.
    let own = Small::new("own", follows.notices.clone());
    follows.forwarder.set_leader(Lead::Here(Arc::clone(&own) as Arc<dyn Handler>));
    eventually("parked here", || own.is_parked("/wait/1"));
    assert_eq!(follows.ask("GET", "/x"), (200, "own: /x".to_owned()));
    let later = follows.send("PUT", "/wait/2", b"{}");
    eventually("parked here", || own.is_parked("/wait/2"));
    own.grant("/wait/1");
    assert_eq!(answer(waits), (200, "own: granted".to_owned()));
    // It no longer leads: who waits goes on there.
    follows.follow(&leader);
    eventually("parked there", || leader.small.is_parked("/wait/2"));
    leader.small.grant("/wait/2");
    assert_eq!(answer(later), (200, "a: granted".to_owned()));
    assert_eq!(follows.forwarder.passing().pending(), 0);
}

#[test]
fn a_server_without_a_leader_says_so() {
    let follows = Follows::start();
    assert_eq!(follows.ask("GET", "/healthz").0, 200);
    let (status, head, body) = whole(follows.send("GET", "/readyz", b""));
    assert!(status == 503 && body.contains("no_leader") && head.contains("retry-after: 1"), "{head} {body}");
    let asks = follows.send("GET", "/x", b"");
    let leader = Leads::usual("a");
    follows.follow(&leader);
    assert_eq!(answer(asks), (200, "a: /x".to_owned()), "it has waited for one");
    assert_eq!(follows.ask("GET", "/readyz").0, 200);
}

#[test]
fn an_answer_in_parts() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let (status, head, body) = whole(follows.send("GET", "/stream", b""));
    let expected = (0..6).map(|n| format!("part {n} of a;")).collect::<Vec<_>>().concat();
    assert_eq!((status, body), (200, expected));
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain"), "{head}");
    assert_eq!(follows.forwarder.passing().pending(), 0);
    assert!(leader.small.left.lock().unwrap().is_empty());
}

#[test]
fn a_client_that_takes_nothing_delays_nobody() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let deaf = follows.send("GET", "/flood", b"");
    let mut first = [0];
    (&deaf).read_exact(&mut first).unwrap();
    for n in 0..50 {
        assert_eq!(follows.ask("GET", &format!("/{n}")).0, 200);
    }
    drop(deaf);
    eventually("left", || leader.small.left.lock().unwrap().len() == 1);
}

#[test]
fn an_answer_in_parts_ends_with_its_link() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let mut stream = follows.send("GET", "/flood", b"");
    stream.read_exact(&mut [0]).unwrap();
    follows.forwarder.set_leader(Lead::Nobody);
    let (mut bytes, mut all) = (vec![0; 64 * 1024], 0);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => all += count,
        }
    }
    assert!(all > 0);
    eventually("nothing is left", || follows.forwarder.passing().pending() == 0);
}

#[test]
fn only_those_who_know_the_secret_may_follow() {
    let leader = Leads::usual("a");
    let changed: [(&str, fn(&mut There), &str); 4] = [
        ("secret", |there| there.leader.run = Id(7), "secret"),
        ("store", |there| there.store = "another".to_owned(), "another store"),
        ("term", |there| there.term = 9, "another term"),
        ("key", |there| there.leader.name = with_another_key(&there.leader.name), "prove"),
    ];
    for (what, change, expected) in changed {
        let mut there = leader.there.clone();
        change(&mut there);
        let error = try_to_follow(&there).expect_err(what);
        assert!(format!("{error:#}").contains(expected), "{what}: {error:#}");
    }
    assert!(try_to_follow(&leader.there).is_ok());
    let there = There { leader: Leader { name: "server-1".to_owned(), run: Id(1) }, ..leader.there.clone() };
    assert!(format!("{:#}", try_to_follow(&there).unwrap_err()).contains("without a link"));
}

fn with_another_key(name: &str) -> String {
    let advertised: Advertised = name.parse().unwrap();
    Advertised { key: Key::random().unwrap().public(), ..advertised }.to_string()
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn try_to_follow(there: &There) -> anyhow::Result<()> {
    on_runtime(async { dialing::greet(5, there).await.map(drop) })
}

/// A connection that says these things, and what it hears.
async fn say(there: &There, protocol: u16, change: impl FnOnce(&mut Hello)) -> Result<String, NotGreeted> {
    let Advertised { address, key } = there.leader.name.parse().unwrap();
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("locker").unwrap();
    let connector = tokio_rustls::TlsConnector::from(key::only(key).unwrap());
    let (reader, mut writer) = tokio::io::split(connector.connect(name, stream).await.unwrap());
    let mut hello = Hello {
        release: "0".to_owned(),
        store: there.store.clone(),
        term: there.term,
        secret: there.leader.run.into(),
        server: 1,
    };
    change(&mut hello);
    introduce_as(protocol, &mut Reader::new(reader), &mut writer, &hello).await
}

#[test]
fn servers_of_other_protocols_are_refused() {
    let leader = Leads::usual("a");
    let refused = on_runtime(say(&leader.there, LINK_PROTOCOL + 1, |_| ()));
    // It learns which protocol the leader speaks, and says so.
    assert!(matches!(refused, Err(NotGreeted::Protocol(LINK_PROTOCOL) | NotGreeted::Broken(_))), "{refused:?}");
    assert!(matches!(
        on_runtime(say(&leader.there, LINK_PROTOCOL, |hello| hello.term = 2)),
        Err(NotGreeted::Refused(Why::Term))
    ));
    assert!(on_runtime(say(&leader.there, LINK_PROTOCOL, |_| ())).is_ok());
}

#[test]
fn a_silent_stranger_is_cut_off() {
    let leader = Leads::usual("a");
    let address = leader.there.leader.name.parse::<Advertised>().unwrap().address;
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stranger.read(&mut [0]).unwrap(), 0);
    assert_eq!(leader.links(), 0);
}

#[test]
fn a_peer_that_is_silent_after_its_greeting_is_given_up() {
    let leader = Leads::usual("a");
    on_runtime(async {
        let (mut reader, writer) = dialing::greet(7, &leader.there).await.unwrap();
        // It counts the link a moment after it has greeted.
        eventually("the link", || leader.links() == 1);
        // The leader says that it is there, and hears nothing.
        while reader.raw().await.is_ok() {}
        drop(writer);
    });
    eventually("the end of the link", || leader.links() == 0);
}

#[test]
fn there_are_so_many_links_and_no_more() {
    let leader = Leads::usual("a");
    on_runtime(async {
        let mut links = Vec::new();
        for server in 0..LINK_MOST as u128 {
            links.push(dialing::greet(server, &leader.there).await.unwrap());
        }
        assert!(dialing::greet(99, &leader.there).await.is_err());
        eventually("all links", || leader.links() == LINK_MOST);
    });
    // Who was refused comes again.
    eventually("room for a link", || try_to_follow(&leader.there).is_ok());
}

#[test]
fn a_frame_that_is_too_large_ends_the_link() {
    let leader = Leads::usual("a");
    on_runtime(async {
        let (mut reader, mut writer) = dialing::greet(7, &leader.there).await.unwrap();
        let length = u32::try_from(LINK_FRAME_BYTES + 1).unwrap();
        send(&mut writer, &length.to_be_bytes()).await.unwrap();
        while reader.raw().await.is_ok() {}
    });
    eventually("the end of the link", || leader.links() == 0);
}

fn asked(id: &str) -> (Request, Arc<table::Asked>) {
    asked_as(id, true)
}

fn asked_as(id: &str, is_repeatable: bool) -> (Request, Arc<table::Asked>) {
    let head = frame::Head {
        method: "PUT".to_owned(),
        path: "/wait".to_owned(),
        query: String::new(),
        headers: Vec::new(),
        peer: "127.0.0.1:1".to_owned(),
        id: id.to_owned(),
        certificate: None,
        can_park: true,
    };
    let request = head.into_request(Vec::new(), ParkId(7));
    let asked = Arc::new(table::Asked::new(&request, is_repeatable, 0).unwrap());
    (request, asked)
}

#[test]
fn a_request_that_crosses_the_goodbye_waits_for_the_next_leader() {
    let now = tokio::time::Instant::now();
    let mut table = table::Table::default();
    let ask = |table: &mut table::Table, number| {
        let asked = Arc::into_inner(asked("a-1").1).unwrap();
        assert!(table.ask(number, asked, now));
    };
    let (orders, mut ordered) = tokio::sync::mpsc::unbounded_channel();
    let link = table.linked(orders).unwrap();
    ask(&mut table, 7);
    assert_eq!(ordered.try_recv(), Ok(table::Order::Ask(7)));
    assert!(table.out(link, table::Order::Ask(7)).is_some());
    for frame in [frame::Down::Bye, frame::Down::NotLeading { number: 7 }] {
        table.arrived(link, frame, &[], now).unwrap();
    }
    ask(&mut table, 8);
    assert!(ordered.try_recv().is_err(), "this leader takes no more");
    assert!(table.broken(link, now).is_empty(), "both wait");
    let (orders, mut ordered) = tokio::sync::mpsc::unbounded_channel();
    table.linked(orders);
    assert_eq!([ordered.try_recv(), ordered.try_recv()], [Ok(table::Order::Ask(7)), Ok(table::Order::Ask(8))]);
}

#[test]
fn a_request_that_is_parked_too_late_is_passed_on() {
    let (request, asked) = asked("a-1");
    let (orders, mut ordered) = tokio::sync::mpsc::unbounded_channel();
    let mut table = table::Table::default();
    let link = table.linked(orders).unwrap();
    // Its own handler has parked it, but by now another server leads.
    table.keep_here(7, asked, request, None);
    assert_eq!(ordered.try_recv(), Ok(table::Order::Ask(7)));
    assert!(table.out(link, table::Order::Ask(7)).is_some());
    assert!(table.out(link, table::Order::Ask(7)).is_none(), "once");
}
