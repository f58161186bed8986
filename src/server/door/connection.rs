//! One client connection: request after request, each answered before the next is read; parked in between.
//!
//! Generic over the stream, so that TLS is a wrapper put around it before it comes here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Door;
use super::access_log::{CLIENT_LEFT, Entry, Outcome};
use super::backend::Backends;
use super::body::ChunkDecoder;
use super::budget::Share;
use super::head::{self, Framing, Method};
use super::keep::Keep;
use super::listen::Client;
use super::park::Listener;
use super::refusal::Refusal;
use super::wire::Wire;
use crate::server::door::limits;
use crate::server::http::Attempt;
use crate::server::notices::Subscription;

/// Memory of an idle connection for what its client sends next, bytes: most requests fit.
const IDLE_BUFFER: usize = 1024;

/// Memory for what is read of a chunked body at once, bytes.
const CHUNKS_BUFFER: usize = 16 * 1024;

/// Why a connection ends.
enum End {
    /// The client has gone, or there is nothing (more) to say to it.
    Gone,
    /// One last answer, then it is closed.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request as read from its client.
struct Ask {
    wire: Wire,
    keep: Keep,
    /// Its part of the bytes on their way, if it is large.
    _share: Option<Share>,
}

/// What a head says of the request that it begins.
struct Opening {
    wire: Wire,
    keep: Keep,
    framing: Framing,
    expects_continue: bool,
}

/// Serves one client until it leaves, is refused, or the door stops.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, client: &Client, door: Arc<Door>) {
    let mut connection =
        Connection { stream, ahead: Vec::new(), scanned: 0, is_head: false, entry: None, client, door };
    let end = loop {
        match connection.serve_one().await {
            Ok(Keep::Close) => break End::Gone,
            Ok(_) if connection.door.stop.is_triggered() => break End::Gone,
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    match end {
        End::Refused(refusal) => {
            if connection.refuse(refusal, Keep::Close).await.is_err() {
                return;
            }
        }
        End::Gone => connection.note_departure(),
    }
    connection.close().await;
}

struct Connection<'a, S> {
    stream: S,
    /// Bytes read and not used yet.
    ahead: Vec<u8>,
    /// How many of them were searched for the end of a head.
    scanned: usize,
    /// Whether the present request is HEAD, so that no answer to it has a body.
    is_head: bool,
    /// The present request, from its first byte to its log line.
    entry: Option<Entry>,
    client: &'a Client,
    door: Arc<Door>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// Reads one request and answers it. What follows for the connection, or why it ends.
    async fn serve_one(&mut self) -> Result<Keep, End> {
        self.is_head = false;
        let Ask { wire, keep, _share } = self.read_request().await?;
        self.is_head = wire.method == Method::Head;
        if let Some(pace) = &self.door.requests
            && let Err(over) = pace.try_spend(self.client.address, std::time::Instant::now())
        {
            // Whole seconds, rounded up.
            let seconds = u32::try_from(over.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            self.refuse(TOO_FAST.retry_after(seconds), keep).await?;
            return Ok(keep);
        }
        self.answer(wire, keep).await
    }

    // ---- Reading ----

    async fn read_request(&mut self) -> Result<Ask, End> {
        if self.ahead.is_empty() {
            self.wait_for_bytes().await?;
        }
        let park = self.door.next_park();
        let started = Instant::now();
        self.entry = Some(Entry { id: self.door.request_id(park), park, started, method: None });
        let deadline = started + self.door.settings.send;
        match timeout_at(deadline, self.read_rest()).await {
            Ok(ask) => ask,
            Err(_) => Err(Refusal::new(408, "request_timeout", "the request took too long to arrive").into()),
        }
    }

    /// Waits for the first bytes of a request, with little memory.
    async fn wait_for_bytes(&mut self) -> Result<(), End> {
        if self.ahead.capacity() != IDLE_BUFFER {
            self.ahead = Vec::with_capacity(IDLE_BUFFER);
        }
        let door = Arc::clone(&self.door);
        tokio::select! {
            biased;
            read = timeout(door.settings.idle, self.fill()) => read.unwrap_or(Err(End::Gone)),
            () = door.stop.triggered() => Err(End::Gone),
        }
    }

    /// Reads more onto `ahead`. Safe to cancel.
    async fn fill(&mut self) -> Result<(), End> {
        if self.ahead.len() == self.ahead.capacity() {
            self.ahead.reserve(self.ahead.len().max(IDLE_BUFFER));
        }
        match self.stream.read_buf(&mut self.ahead).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(End::Gone),
        }
    }

    async fn read_rest(&mut self) -> Result<Ask, End> {
        let opening = loop {
            match self.take_head()? {
                Some(opening) => break opening,
                None => self.fill().await?,
            }
        };
        let Opening { mut wire, keep, framing, expects_continue } = opening;
        self.is_head = wire.method == Method::Head;
        if expects_continue && framing != Framing::Length(0) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| End::Gone)?;
        }
        let share = match framing {
            Framing::Length(length) => self.read_sized(length, &mut wire).await?,
            Framing::Chunked => self.read_chunked(&mut wire).await?,
        };
        wire.end_body();
        Ok(Ask { wire, keep, _share: share })
    }

    /// Takes a complete head off `ahead`.
    fn take_head(&mut self) -> Result<Option<Opening>, Refusal> {
        let settings = &self.door.settings;
        let Some(end) = head::find_end(&self.ahead, &mut self.scanned, settings)? else { return Ok(None) };
        let mut slots = [httparse::EMPTY_HEADER; limits::DOOR_HEADERS];
        let head = head::parse(&self.ahead[..end], &mut slots, settings)?;
        let Some(entry) = &mut self.entry else { return Ok(None) };
        entry.method = Some(head.method);
        let wire = Wire::new(&head, entry.park, &entry.id, self.client, self.door.backends.secret());
        let opening = Opening { wire, keep: head.keep, framing: head.framing, expects_continue: head.expects_continue };
        self.ahead.drain(..end);
        self.scanned = 0;
        Ok(Some(opening))
    }

    async fn read_sized(&mut self, length: usize, wire: &mut Wire) -> Result<Option<Share>, End> {
        let is_large = length > limits::DOOR_UNCOUNTED_BYTES;
        let share = if is_large { Some(self.door.held.take(length).ok_or(NO_ROOM)?) } else { None };
        let here = length.min(self.ahead.len());
        wire.body().extend_from_slice(&self.ahead[..here]);
        self.ahead.drain(..here);
        let mut rest = (&mut self.stream).take((length - here) as u64);
        while rest.limit() > 0 {
            match rest.read_buf(wire.body()).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(End::Gone),
            }
        }
        Ok(share)
    }

    async fn read_chunked(&mut self, wire: &mut Wire) -> Result<Option<Share>, End> {
        let mut decoder = ChunkDecoder::new(self.door.settings.body_bytes);
        let mut share: Option<Share> = None;
        loop {
            let used = decoder.feed(&self.ahead, wire.body())?;
            self.ahead.drain(..used);
            if decoder.is_done() {
                return Ok(share);
            }
            let length = wire.body_len();
            let room = match &mut share {
                _ if length <= limits::DOOR_UNCOUNTED_BYTES => true,
                Some(share) => share.grow_to(length),
                none => {
                    *none = self.door.held.take(length);
                    none.is_some()
                }
            };
            if !room {
                return Err(NO_ROOM.into());
            }
            self.ahead.reserve(CHUNKS_BUFFER);
            self.fill().await?;
        }
    }

    // ---- Answering ----

    /// Passes the request on, again and again while it is parked, and relays the final answer.
    async fn answer(&mut self, mut wire: Wire, keep: Keep) -> Result<Keep, End> {
        let door = Arc::clone(&self.door);
        let place = (!door.stop.is_triggered()).then(|| door.lot.place(wire.bytes().len(), wire.body_len())).flatten();
        // Before it is passed on, so that no notice is missed.
        let subscription = place.as_ref().map(|_| door.notices.subscribe(wire.park));
        let listener = Listener::new(&door.handler, wire.park);
        let mut turn = Attempt::First;
        let mut until: Option<Instant> = None;
        let (answer, keep) = loop {
            let stopping = door.stop.is_triggered();
            let keep = if stopping { Keep::Close } else { keep };
            wire.set_turn(turn, subscription.is_some() && turn != Attempt::Last && !stopping);
            let passing = async {
                let permit = self.permit(&door.backends).await?;
                Ok(door.backends.pass(permit, &wire, keep).await?)
            };
            let answer = timeout(door.settings.total, passing).await.unwrap_or_else(|_| Err(End::from(TIMEOUT)))?;
            match (answer.park, &subscription) {
                (Some(span), Some(subscription)) if turn != Attempt::Last => {
                    drop(answer);
                    // A request that is parked again waits for the rest of its time, no longer.
                    let asked = Instant::now() + Duration::from_millis(span.0.min(crate::core::limits::WAIT_MS));
                    let until = *until.insert(until.map_or(asked, |first| first.min(asked)));
                    wire.shrink();
                    turn = self.park(subscription, until).await?;
                }
                _ => break (answer, keep),
            }
        };
        listener.answered();
        if answer.status == 401 && wire.has_credentials {
            self.slow_down(&wire.id).await;
        }
        drop((wire, subscription, place));
        self.send(&answer.bytes).await.map_err(|_| End::Gone)?;
        let (route, identity) = (answer.route.as_deref(), answer.identity.as_deref());
        self.end_entry(&Outcome { status: answer.status, route, identity });
        Ok(keep)
    }

    /// Waits for an inner connection. A request whose client resets its connection meanwhile is not passed on: in a storm
    /// of them, work for nobody would hold up those who are still there. One that has only shut down its sending half
    /// may still read.
    async fn permit<'b>(&mut self, backends: &'b Backends) -> Result<SemaphorePermit<'b>, End> {
        let permit = backends.permit();
        tokio::pin!(permit);
        let mut sends = true;
        loop {
            let listens = sends && self.ahead.len() < limits::DOOR_AHEAD_BYTES;
            tokio::select! {
                biased;
                permit = &mut permit => return Ok(permit?),
                read = self.stream.read_buf(&mut self.ahead), if listens => match read {
                    Ok(0) => sends = false,
                    Ok(_) => {}
                    Err(_) => return Err(End::Gone),
                },
            }
        }
    }

    /// Holds the answer to a failed login back, longer with each one of this address. Whoever knows the password is
    /// never slowed, also at the same address.
    async fn slow_down(&self, id: &str) {
        let most = Duration::from_millis(limits::DOOR_LOGIN_DELAY_MS);
        let delay = self.door.failed_logins.spend(self.client.address, std::time::Instant::now(), most);
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(target: "locker::door", id, peer = self.client.peer, delay_ms = ms, "failed login");
        let _ = timeout(delay, self.door.stop.triggered()).await;
    }

    /// Waits for a notice, the deadline, the stop or the client's end.
    ///
    /// A client that has shut down its sending half counts as gone: a front that dropped its client looks the same,
    /// and a lock granted to nobody is the worse mistake. What it sends ahead is kept, up to a bound; beyond it the
    /// bytes, and with them the client's end, wait in its socket.
    async fn park(&mut self, subscription: &Subscription, until: Instant) -> Result<Attempt, End> {
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        let deadline = sleep_until(until);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                // First: a client that has gone must not be granted anything.
                read = self.stream.read_buf(&mut self.ahead), if self.ahead.len() < limits::DOOR_AHEAD_BYTES => {
                    if !matches!(read, Ok(1..)) {
                        return Err(End::Gone);
                    }
                }
                () = self.door.stop.triggered() => return Ok(Attempt::Last),
                () = subscription.taken() => return Ok(Attempt::Notified),
                () = &mut deadline => return Ok(Attempt::Last),
            }
        }
    }

    // ---- Sending ----

    /// Gives an answer of the door's own.
    async fn refuse(&mut self, refusal: Refusal, keep: Keep) -> Result<(), End> {
        let id = self.entry.as_ref().map_or("", |entry| &entry.id);
        let answer = refusal.to_bytes(!self.is_head, keep, id);
        let sent = self.send(&answer).await;
        self.end_entry(&Outcome { status: refusal.status, route: None, identity: None });
        sent.map_err(|_| End::Gone)
    }

    fn end_entry(&mut self, outcome: &Outcome<'_>) {
        if let Some(entry) = self.entry.take() {
            entry.write(self.client, outcome);
        }
    }

    /// The client went away; if that was in the middle of a request, the log says so.
    fn note_departure(&mut self) {
        self.end_entry(&Outcome { status: CLIENT_LEFT, route: None, identity: None });
    }

    /// Sends all of `bytes`, within a time that grows with them.
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&mut self.stream, bytes, self.door.settings.write).await
    }

    /// Closes in order: what the client still sends is read and dropped for a while, since closing a socket with
    /// unread bytes resets it, and a reset can overtake the last answer.
    async fn close(mut self) {
        let linger = self.door.settings.linger;
        let stop = self.door.stop.clone();
        self.ahead.clear();
        let drain = async {
            self.stream.shutdown().await?;
            loop {
                self.ahead.clear();
                if self.stream.read_buf(&mut self.ahead).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        tokio::select! {
            biased;
            _ = timeout(linger, drain) => {}
            () = stop.triggered() => {}
        }
    }
}

const TOO_FAST: Refusal = Refusal::new(429, "too_many_requests", "this address sends too many requests");

const TIMEOUT: Refusal =
    Refusal::new(503, "timeout", "the server took too long; whether it acted is unknown, ask again").retry_after(1);

const NO_ROOM: Refusal = Refusal::busy("too many large requests are on their way");

/// Sends all of `bytes`: `unit` of time for each 64 KiB or part of it.
pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], unit: Duration) -> io::Result<()> {
    let units = bytes.len() / limits::DOOR_WRITE_UNIT_BYTES + 1;
    let limit = unit.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(limit, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
