//! The end of the server that leads: it accepts links, and has each request that comes over one answered as its own door
//! would.
//!
//! A link that breaks leaves its unanswered requests behind. They keep their places for a while, so that the same requests,
//! asked again over the next link, go on where they were.

use std::collections::HashMap;
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{ReadHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answering::{self, Running};
use super::frame::{self, Answer, Down, Head, Malformed, Number, Up};
use super::greeting::{self, Expected, Hello, NotGreeted};
use super::key::Key;
use super::limits::{LINK_BODIES_BYTES, LINK_GRACE_MS, LINK_GREETING_MS, LINK_MOST, LINK_PARKED, LINK_REQUESTS};
use super::pipe::{self, Body, Broken, Out, Reader};
use crate::server::door::limits::DOOR_UNCOUNTED_BYTES;
use crate::server::door::{Budget, Desk, DoorSettings, Hold, NO_ROOM_FOR_ANSWER, Refusal, Share, Stop};
use crate::server::engine::answers;
use crate::server::http::{Handler, Response};
use crate::server::notices::Notices;
use crate::store::log::head::Id;

/// How long the last answers may take on their way when a leader stops. Others wait to lead.
const FLUSH: Duration = Duration::from_millis(200);

/// What a leader's end of the links needs.
pub struct LinkSettings {
    /// The key that this server advertises.
    pub key: Key,
    /// The leader's `run` in the head of the log. Whoever follows must know it.
    pub secret: Id,
    /// The term in which this server leads.
    pub term: u64,
    /// The id of the store.
    pub store: String,
    /// The guard and the routes, never a [`Forwarder`](super::Forwarder): a request is passed on once.
    pub handler: Arc<dyn Handler>,
    pub notices: Notices,
    /// The settings of this server's own door, with which the links share figures, numbers and failed logins.
    pub door: DoorSettings,
    /// How long the requests of a broken link keep their places ([`LINK_GRACE_MS`] unless a test is in a hurry).
    pub grace: Duration,
    /// Time for a new link to say who it is ([`LINK_GREETING_MS`] unless a test is in a hurry).
    pub greeting: Duration,
    /// How many servers follow over a link.
    pub links: Arc<AtomicUsize>,
}

impl LinkSettings {
    /// The usual grace.
    pub const GRACE: Duration = Duration::from_millis(LINK_GRACE_MS);
    /// The usual time for a greeting.
    pub const GREETING: Duration = Duration::from_millis(LINK_GREETING_MS);
}

/// The links of a server that leads. Dropping it ends them.
pub struct LinkServer {
    /// How long the requests in flight may take; dropping it means not at all.
    stop: Option<watch::Sender<Option<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

impl LinkServer {
    /// Accepts links on `listener` until it is stopped.
    ///
    /// # Errors
    /// The system has no thread for it, or the socket does not listen.
    pub fn start(listener: StdListener, settings: LinkSettings) -> anyhow::Result<Self> {
        listener.set_nonblocking(true).context("cannot listen for links")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot wait for links")?;
        let (stop, stopped) = watch::channel(None);
        let leader = Arc::new(Leader::new(settings));
        let thread = thread::Builder::new().name("links".into()).spawn(move || {
            answers::Desk::set_up(&runtime);
            if let Err(error) = runtime.block_on(leader.run(listener, stopped)) {
                tracing::error!(target: "locker::link", error = format!("{error:#}"), "no links are accepted");
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread.context("cannot start the thread for links")?) })
    }

    /// Tells those who follow that this server no longer leads, lets the requests that are being answered end within
    /// `grace`, and closes the links. [`Handler::left`] is *not* called for requests that are parked: they are asked again
    /// at the next leader, and until then whoever listened counts as listening. It blocks until then.
    pub fn stop(mut self, grace: Duration) {
        if let Some(stop) = self.stop.take() {
            stop.send_replace(Some(grace));
            self.join();
        }
    }

    fn join(&mut self) {
        // Panics of handlers stay in their requests.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for LinkServer {
    fn drop(&mut self) {
        self.stop.take();
        self.join();
    }
}

/// What all links of a leader share.
pub(super) struct Leader {
    pub desk: Desk,
    key: Key,
    expected: Expected,
    grace: Duration,
    greeting: Duration,
    /// One link for each server that follows.
    links: Mutex<HashMap<u128, Arc<Link>>>,
    count: Arc<AtomicUsize>,
    /// Requests of broken links, by their ids.
    pub orphans: Mutex<HashMap<String, Hold>>,
    /// Bytes of bodies that are arriving or are being answered.
    bodies: Budget,
    /// Bytes of answers that are being sent.
    answers: Budget,
    /// How many requests are being answered, and are not parked.
    pub busy: AtomicUsize,
    is_stopping: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leader {
    fn new(settings: LinkSettings) -> Self {
        let LinkSettings { key, secret, term, store, handler, notices, door, grace, greeting, links: count } = settings;
        let door = DoorSettings { parked: LINK_PARKED, connections: usize::MAX, ..door };
        Self {
            // Never triggered: a parked request is not answered because this server stops, but asked again elsewhere.
            desk: Desk::new(handler, notices, &door, Stop::new()),
            key,
            expected: Expected { secret: secret.into(), store, term },
            grace,
            greeting,
            links: Mutex::default(),
            count,
            orphans: Mutex::default(),
            bodies: Budget::new(LINK_BODIES_BYTES),
            answers: Budget::new(door.memory_bytes / 4),
            busy: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
        }
    }

    async fn run(
        self: Arc<Self>,
        listener: StdListener,
        mut stop: watch::Receiver<Option<Duration>>,
    ) -> anyhow::Result<()> {
        let listener = TcpListener::from_std(listener).context("cannot listen for links")?;
        let room = Budget::new(LINK_MOST);
        // Each link holds a sender, once it has greeted.
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                accepted = listener.accept() => match (accepted, room.take(1)) {
                    (Ok((stream, peer)), Some(share)) => {
                        let (leader, alive) = (Arc::clone(&self), alive.downgrade());
                        tokio::spawn(async move {
                            leader.serve(stream, peer.to_string(), alive).await;
                            drop(share);
                        });
                    }
                    (Ok((_, peer)), None) => {
                        tracing::warn!(target: "locker::link", %peer, most = LINK_MOST, "a link is refused: there are too many");
                    }
                    (Err(error), _) => {
                        tracing::warn!(target: "locker::link", %error, "cannot accept a link, will retry");
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
        drop((listener, alive));
        let grace = (*stop.borrow()).unwrap_or_default();
        let links = self.say_goodbye(grace).await;
        // The last answers go out, if the other ends take them.
        let _ = timeout(FLUSH, all_ended.recv()).await;
        links.iter().for_each(|link| link.close());
        let _ = all_ended.recv().await;
        // Nobody has left: these clients wait for the next leader.
        locked(&self.orphans).drain().for_each(|(_, hold)| hold.answered());
        Ok(())
    }

    /// Returns when nothing is being answered any more, or the grace is over, with the links as they were.
    async fn say_goodbye(&self, grace: Duration) -> Vec<Arc<Link>> {
        /// Between two looks whether all requests in flight have ended.
        const LOOK: Duration = Duration::from_millis(2);
        self.is_stopping.store(true, Ordering::SeqCst);
        let links: Vec<Arc<Link>> = locked(&self.links).values().cloned().collect();
        links.iter().for_each(|link| link.send(&Down::Bye, None));
        let end = Instant::now() + grace;
        while self.busy.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            sleep(LOOK).await;
        }
        links.iter().for_each(|link| link.finish());
        links
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// One link, from the connection to its end.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: String, alive: mpsc::WeakSender<()>) {
        let greeting = timeout(self.greeting, self.greet(stream)).await;
        let (reader, writer, hello) = match greeting {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                tracing::warn!(target: "locker::link", peer, reason = format!("{error:#}"), "no link");
                return;
            }
            Err(_) => {
                tracing::warn!(target: "locker::link", peer, reason = "the greeting took too long", "no link");
                return;
            }
        };
        // Without one, the last link has ended and nobody waits for this one.
        let Some(_alive) = alive.upgrade() else { return };
        let (out, orders) = mpsc::unbounded_channel();
        let link = Arc::new(Link::new(Arc::clone(&self), hello.server, peer, out));
        self.enter(&link).await;
        // Whoever says goodbye has looked before this link was there, or says it to this link, too.
        if self.is_stopping() {
            return self.leave(&link);
        }
        tracing::info!(target: "locker::link", peer = link.peer, release = hello.release, "a server follows over a link");
        self.count.fetch_add(1, Ordering::Relaxed);
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        let ended = tokio::select! {
            ended = link.read(reader, alive) => ended,
            ended = pipe::write::<Down, Out>(writer, orders, Some) => ended,
        };
        if let Err(error) = ended
            && !self.is_stopping()
        {
            tracing::warn!(target: "locker::link", peer = link.peer, reason = %error, "a link is over");
        }
        link.close();
        // Each of its requests holds a sender.
        let _ = all_ended.recv().await;
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.leave(&link);
    }

    async fn greet(&self, stream: TcpStream) -> anyhow::Result<(Reading, Writing, Hello)> {
        stream.set_nodelay(true)?;
        let stream = TlsAcceptor::from(self.key.config()).accept(stream).await?;
        let (reader, mut writer) = split(stream);
        let mut reader = Reader::new(reader);
        let hello: Result<Hello, NotGreeted> = greeting::receive(&mut reader, &mut writer, &self.expected).await;
        Ok((reader, writer, hello?))
    }

    /// Makes this the one link of its server. Its earlier link, which it has given up, ends first, so that the requests on
    /// it can be found when they are asked again.
    async fn enter(&self, link: &Arc<Link>) {
        let before = locked(&self.links).insert(link.server, Arc::clone(link));
        if let Some(before) = before {
            before.close();
            let _ = before.has_ended.subscribe().wait_for(|ended| *ended).await;
        }
    }

    /// The link is over.
    fn leave(&self, link: &Arc<Link>) {
        locked(&self.links).retain(|_, other| !Arc::ptr_eq(other, link));
        link.has_ended.send_replace(true);
    }

    /// A request whose link has broken keeps its place for a while.
    pub(super) fn keep(self: &Arc<Self>, id: String, hold: Hold) {
        if self.is_stopping() {
            hold.answered();
            return;
        }
        let (leader, park) = (Arc::clone(self), hold.park());
        locked(&self.orphans).insert(id.clone(), hold);
        tokio::spawn(async move {
            sleep(leader.grace).await;
            let mut orphans = locked(&leader.orphans);
            if orphans.get(&id).is_some_and(|hold| hold.park() == park) {
                let left = orphans.remove(&id);
                drop(orphans);
                drop(left);
            }
        });
    }

    /// What a request holds that was asked before, over a link that has broken.
    pub(super) fn kept(&self, id: &str) -> Option<Hold> {
        locked(&self.orphans).remove(id)
    }
}

type Reading = Reader<ReadHalf<TlsStream<TcpStream>>>;
type Writing = tokio::io::WriteHalf<TlsStream<TcpStream>>;

/// A request on a link.
enum Entry {
    Arriving {
        head: Box<Head>,
        body: Vec<u8>,
        length: usize,
        share: Share,
    },
    /// Dropping it means that the client has gone.
    Running(mpsc::UnboundedSender<Signal>),
}

/// What whoever follows says about a request that is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Last,
    More,
}

/// One link with a server that follows.
pub(super) struct Link {
    pub leader: Arc<Leader>,
    server: u128,
    pub peer: String,
    /// `None` once nothing more is sent.
    out: Mutex<Option<mpsc::UnboundedSender<Out>>>,
    requests: Mutex<HashMap<Number, Entry>>,
    is_over: watch::Sender<bool>,
    has_ended: watch::Sender<bool>,
}

impl Link {
    fn new(leader: Arc<Leader>, server: u128, peer: String, out: mpsc::UnboundedSender<Out>) -> Self {
        let (is_over, has_ended) = (watch::Sender::new(false), watch::Sender::new(false));
        let out = Mutex::new(Some(out));
        Self { leader, server, peer, out, requests: Mutex::default(), is_over, has_ended }
    }

    fn close(&self) {
        self.is_over.send_replace(true);
    }

    /// Sends what is on its way, and nothing more.
    fn finish(&self) {
        locked(&self.out).take();
    }

    /// Waits until the link is over. Safe to cancel.
    pub async fn over(&self) {
        let _ = self.is_over.subscribe().wait_for(|over| *over).await;
    }

    async fn read(self: &Arc<Self>, mut reader: Reading, alive: mpsc::Sender<()>) -> Result<(), Broken> {
        loop {
            tokio::select! {
                biased;
                () = self.over() => return Ok(()),
                next = reader.next::<Up>() => {
                    let (frame, payload) = next?;
                    self.take(frame, payload, &alive)?;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, frame: Up, payload: &[u8], alive: &mpsc::Sender<()>) -> Result<(), Malformed> {
        match frame {
            Up::Ask { number, .. } if self.leader.is_stopping() => self.send(&Down::NotLeading { number }, None),
            Up::Ask { number, head, length } => return self.ask(number, head, length as usize, alive),
            Up::Piece { number } => return self.piece(number, payload, alive),
            Up::Last { number } => self.signal(number, Signal::Last),
            Up::More { number } => self.signal(number, Signal::More),
            Up::Gone { number } => drop(locked(&self.requests).remove(&number)),
            Up::Alive => {}
        }
        Ok(())
    }

    fn ask(
        self: &Arc<Self>,
        number: Number,
        head: Head,
        length: usize,
        alive: &mpsc::Sender<()>,
    ) -> Result<(), Malformed> {
        let requests = locked(&self.requests);
        if requests.contains_key(&number) {
            return Err(Malformed("the same request twice"));
        }
        let has_room = requests.len() < LINK_REQUESTS;
        drop(requests);
        if !has_room {
            self.refuse(number, Refusal::busy("too many requests of this server wait for its leader"));
            return Ok(());
        }
        let Some(share) = self.leader.bodies.take(length) else {
            self.refuse(number, Refusal::busy("too many large requests are being passed on to the leader"));
            return Ok(());
        };
        if length == 0 {
            self.run(number, head, Vec::new(), share, alive);
        } else {
            let entry = Entry::Arriving { head: Box::new(head), body: Vec::new(), length, share };
            locked(&self.requests).insert(number, entry);
        }
        Ok(())
    }

    fn piece(self: &Arc<Self>, number: Number, piece: &[u8], alive: &mpsc::Sender<()>) -> Result<(), Malformed> {
        let mut requests = locked(&self.requests);
        // A body whose request was refused, or whose client has gone, is dropped.
        let Some(Entry::Arriving { body, length, .. }) = requests.get_mut(&number) else { return Ok(()) };
        if body.len() + piece.len() > *length {
            return Err(Malformed("a body that is longer than announced"));
        }
        body.extend_from_slice(piece);
        if body.len() < *length {
            return Ok(());
        }
        if let Some(Entry::Arriving { head, body, share, .. }) = requests.remove(&number) {
            drop(requests);
            self.run(number, *head, body, share, alive);
        }
        Ok(())
    }

    fn run(self: &Arc<Self>, number: Number, head: Head, body: Vec<u8>, share: Share, alive: &mpsc::Sender<()>) {
        let (signal, signals) = mpsc::unbounded_channel();
        locked(&self.requests).insert(number, Entry::Running(signal));
        let (link, alive) = (Arc::clone(self), alive.clone());
        tokio::spawn(async move {
            answering::answer(Running::new(&link, number, signals), head, body).await;
            locked(&link.requests).remove(&number);
            drop((share, alive));
        });
    }

    fn signal(&self, number: Number, signal: Signal) {
        if let Some(Entry::Running(signals)) = locked(&self.requests).get(&number) {
            // It may just have ended.
            let _ = signals.send(signal);
        }
    }

    /// Sends a frame, and the body that it announces.
    pub fn send(&self, frame: &Down, body: Option<Body>) {
        let mut bytes = Vec::new();
        match frame::write(frame, &[], &mut bytes) {
            // If the link is over, whoever follows asks again.
            Ok(()) => drop(locked(&self.out).as_ref().map(|out| out.send(Out { frame: bytes, body }))),
            Err(error) => tracing::error!(target: "locker::link", %error, "an answer cannot be sent: this is a bug"),
        }
    }

    fn refuse(&self, number: Number, refusal: Refusal) {
        self.respond(number, refusal.into_response(), false, false);
    }

    /// Sends an answer, or the first part of one that `goes_on`.
    pub fn respond(&self, number: Number, mut response: Response, admitted: bool, goes_on: bool) {
        let is_large = response.body.len() > DOOR_UNCOUNTED_BYTES;
        let mut share = if is_large { self.leader.answers.take(response.body.len()) } else { None };
        if is_large && share.is_none() {
            (response, share) = (NO_ROOM_FOR_ANSWER.into_response(), None);
        }
        let Response { status, headers, body, route, .. } = response;
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let answer = Answer { status, headers, route: route.map(str::to_owned), goes_on, admitted };
        // No handler makes a longer body: the budget is smaller.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.send(&Down::Answer { number, answer, length }, Body::new(number, Arc::new(body), share));
    }
}
