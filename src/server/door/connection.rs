//! One client connection: it reads a request, answers it, and then reads the next. A request may be parked in between.
//!
//! The task that reads a request also has it answered at the desk (`desk.rs`): it calls its route, awaits the engine's
//! answer, and waits while the request is parked. No other task touches the request.
//!
//! Generic over the stream: TLS wraps the stream before it gets here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::Door;
use super::access_log::{CLIENT_LEFT, Entry, Outcome};
use super::answer;
use super::body::ChunkDecoder;
use super::budget::Share;
use super::crowd::Seat;
use super::desk::{Answered, Asker, whole_seconds};
use super::head::{self, Framing, Method};
use super::keep::Keep;
use super::listen::Client;
use super::refusal::Refusal;
use crate::server::door::limits;
use crate::server::http::{Admission, Identity, Request, Response};

/// The read buffer of an idle connection, bytes. Most requests fit.
const IDLE_BUFFER: usize = 1024;

/// The read buffer for chunked bodies, bytes.
const CHUNKS_BUFFER: usize = 16 * 1024;

/// Why a connection ends.
pub(super) enum End {
    /// The client is gone, or there is nothing more to send to it.
    Gone,
    /// Send one last answer, then close.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request as read from its client.
struct Ask {
    /// In a box, since each of the futures that hand it on has room for it for as long as it is parked.
    request: Box<Request>,
    keep: Keep,
    /// Its share of [`Door::held`], if its body is large.
    _share: Option<Share>,
}

/// What the head of a request says.
struct Opening {
    request: Box<Request>,
    keep: Keep,
    framing: Framing,
    expects_continue: bool,
}

/// Serves one client until it leaves, is refused, or the door stops.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, client: &Client, seat: &Seat, door: Arc<Door>) {
    let mut connection = Connection {
        stream,
        ahead: Vec::new(),
        ahead_share: None,
        scanned: 0,
        is_head: false,
        entry: None,
        client,
        seat,
        door,
    };
    let end = loop {
        let served = connection.serve_one().await;
        seat.rest();
        match served {
            Ok(Keep::Close) => break End::Gone,
            Ok(_) if connection.door.desk.is_stopping() => break End::Gone,
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

pub(super) struct Connection<'a, S> {
    stream: S,
    /// Bytes that were read and not used yet.
    ahead: Vec<u8>,
    /// The memory that `ahead` takes beyond [`IDLE_BUFFER`].
    ahead_share: Option<Share>,
    /// How many of these bytes were already searched for the end of a head.
    scanned: usize,
    /// Whether the current request is a HEAD request, whose answer has no body.
    is_head: bool,
    /// The current request, from its first byte to its log line.
    pub(super) entry: Option<Entry>,
    client: &'a Client,
    seat: &'a Seat,
    pub(super) door: Arc<Door>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// Reads one request and answers it. Returns what happens to the connection next, or why it ends.
    async fn serve_one(&mut self) -> Result<Keep, End> {
        self.is_head = false;
        if self.ahead.is_empty() {
            self.wait_for_bytes().await?;
        }
        let park = self.door.desk.common().next_park();
        let started = Instant::now();
        self.entry = Some(Entry { id: self.door.desk.common().request_id(park), park, started, method: None });
        let deadline = started + self.door.settings.send;
        let mut opening = timeout_at(deadline, self.read_head()).await.unwrap_or(Err(TOO_SLOW.into()))?;
        let admission = match self.admit(&mut opening).await {
            Err(refused) => {
                let (keep, identity) = (self.skip_body(&opening), opening.request.identity.take());
                // The client may take its answer slowly. It need not hold its request for that.
                drop(opening);
                return self.respond(refused, identity.as_ref(), keep).await;
            }
            Ok(admission) => admission,
        };
        let is_guest = admission == Admission::Public;
        if !is_guest && !self.seat.admit() {
            return Err(End::Gone);
        }
        let ask = timeout_at(deadline, self.read_body(opening)).await.unwrap_or(Err(TOO_SLOW.into()))?;
        if !is_guest && !self.seat.serve() {
            return Err(End::Gone);
        }
        self.answer(ask).await
    }

    /// Decides by its head alone whether a request is admitted. If it is not, its body is never read.
    async fn admit(&mut self, opening: &mut Opening) -> Result<Admission, Response> {
        let (door, address) = (Arc::clone(&self.door), self.client.address);
        if let Some(pace) = &door.requests
            && let Err(over) = pace.try_spend(address, std::time::Instant::now())
        {
            door.settings.figures.rate_limited.inc();
            return Err(TOO_FAST.retry_after(whole_seconds(over)).into_response());
        }
        door.desk.admit(address, &mut opening.request).await
    }

    /// Drops the body of a refused request if all of it has already arrived. Otherwise the connection must end, because
    /// the door does not wait for the rest.
    fn skip_body(&mut self, opening: &Opening) -> Keep {
        match opening.framing {
            Framing::Length(length) if length <= self.ahead.len() && !opening.expects_continue => {
                self.ahead.drain(..length);
                opening.keep
            }
            Framing::Length(0) => opening.keep,
            _ => Keep::Close,
        }
    }

    // ---- Reading ----

    /// Waits for the first bytes of a request, using little memory.
    async fn wait_for_bytes(&mut self) -> Result<(), End> {
        if self.ahead.capacity() != IDLE_BUFFER {
            self.ahead = Vec::with_capacity(IDLE_BUFFER);
            self.ahead_share = None;
        }
        let door = Arc::clone(&self.door);
        tokio::select! {
            biased;
            read = timeout(door.settings.idle, self.fill()) => read.unwrap_or_else(|_| {
                door.settings.figures.idle_ended.inc();
                Err(End::Gone)
            }),
            () = door.desk.stop().triggered() => Err(End::Gone),
        }
    }

    /// Reads more bytes into `ahead`. Safe to cancel.
    async fn fill(&mut self) -> Result<(), End> {
        if self.ahead.len() == self.ahead.capacity() {
            self.ahead.reserve(self.ahead.len().max(IDLE_BUFFER));
            count(&self.door, self.seat, &mut self.ahead_share, self.ahead.capacity(), IDLE_BUFFER).await?;
        }
        match self.stream.read_buf(&mut self.ahead).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(End::Gone),
        }
    }

    async fn read_head(&mut self) -> Result<Opening, End> {
        loop {
            match self.take_head()? {
                Some(opening) => return Ok(opening),
                None => self.fill().await?,
            }
        }
    }

    async fn read_body(&mut self, opening: Opening) -> Result<Ask, End> {
        let Opening { mut request, keep, framing, expects_continue, .. } = opening;
        if expects_continue && framing != Framing::Length(0) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| End::Gone)?;
        }
        let share = match framing {
            Framing::Length(length) => self.read_sized(length, &mut request.body).await?,
            Framing::Chunked => self.read_chunked(&mut request.body).await?,
        };
        Ok(Ask { request, keep, _share: share })
    }

    /// Removes a complete head from `ahead`.
    fn take_head(&mut self) -> Result<Option<Opening>, Refusal> {
        let settings = &self.door.settings;
        let Some(end) = head::find_end(&self.ahead, &mut self.scanned, settings)? else { return Ok(None) };
        let mut slots = [httparse::EMPTY_HEADER; limits::DOOR_HEADERS];
        let head = head::parse(&self.ahead[..end], &mut slots, settings)?;
        let Some(entry) = &mut self.entry else { return Ok(None) };
        entry.method = Some(head.method);
        self.is_head = head.method == Method::Head;
        let opening = Opening {
            request: Box::new(head.to_request(entry.park, &entry.id, self.client)),
            keep: head.keep,
            framing: head.framing,
            expects_continue: head.expects_continue,
        };
        self.ahead.drain(..end);
        self.scanned = 0;
        Ok(Some(opening))
    }

    async fn read_sized(&mut self, length: usize, body: &mut Vec<u8>) -> Result<Option<Share>, End> {
        if length > self.door.settings.held_bytes() {
            return Err(NO_ROOM.into());
        }
        let mut share = None;
        let here = length.min(self.ahead.len());
        body.reserve_exact(length.min(limits::DOOR_UNCOUNTED_BYTES));
        body.extend_from_slice(&self.ahead[..here]);
        self.ahead.drain(..here);
        let mut rest = (&mut self.stream).take((length - here) as u64);
        while rest.limit() > 0 {
            match rest.read_buf(body).await {
                Ok(1..) => {
                    count(&self.door, self.seat, &mut share, body.capacity(), limits::DOOR_UNCOUNTED_BYTES).await?
                }
                Ok(0) | Err(_) => return Err(End::Gone),
            }
        }
        Ok(share)
    }

    async fn read_chunked(&mut self, body: &mut Vec<u8>) -> Result<Option<Share>, End> {
        let mut decoder = ChunkDecoder::new(self.door.settings.body_bytes);
        let mut share: Option<Share> = None;
        loop {
            let used = decoder.feed(&self.ahead, body)?;
            self.ahead.drain(..used);
            if decoder.is_done() {
                return Ok(share);
            }
            count(&self.door, self.seat, &mut share, body.capacity(), limits::DOOR_UNCOUNTED_BYTES).await?;
            self.ahead.reserve(CHUNKS_BUFFER);
            count(&self.door, self.seat, &mut self.ahead_share, self.ahead.capacity(), IDLE_BUFFER).await?;
            self.fill().await?;
        }
    }

    // ---- Answering ----

    /// Has the request answered, and sends the answer.
    async fn answer(&mut self, ask: Ask) -> Result<Keep, End> {
        let Ask { mut request, keep, _share } = ask;
        let door = Arc::clone(&self.door);
        let hold = door.desk.hold(&request, true);
        // Sent outside of the match, whose value would otherwise take room in each client's task.
        let response = match door.desk.answer(self, &mut request, &hold).await? {
            Answered::Whole(response) => response,
            Answered::InParts { status, route, ended } => {
                self.end_entry(&Outcome { status, route, identity: request.identity.as_ref() });
                // The status has been sent, so nothing else can be.
                ended.map_err(|_| End::Gone)?;
                hold.answered();
                return Ok(Keep::Close);
            }
        };
        hold.answered();
        let keep = if door.desk.is_stopping() { Keep::Close } else { keep };
        self.respond(response, request.identity.as_ref(), keep).await
    }

    // ---- Sending ----

    /// Sends an answer of the door itself.
    async fn refuse(&mut self, refusal: Refusal, keep: Keep) -> Result<Keep, End> {
        self.door.settings.figures.refused(refusal.status);
        self.respond(refusal.into_response(), None, keep).await
    }

    /// Sends an answer and writes the log line of its request.
    async fn respond(&mut self, response: Response, identity: Option<&Identity>, keep: Keep) -> Result<Keep, End> {
        let (status, route) = (response.status, response.route);
        let id = self.entry.as_ref().map_or("", |entry| &entry.id);
        let bytes = answer::to_bytes(response, !self.is_head, keep, id);
        let is_large = bytes.len() > limits::DOOR_UNCOUNTED_BYTES;
        let share = if is_large { self.door.answers.take(bytes.len()) } else { None };
        if is_large && share.is_none() {
            return Err(NO_ROOM_FOR_ANSWER.into());
        }
        self.seat.rest();
        let sent = self.send(&bytes).await;
        self.end_entry(&Outcome { status, route, identity });
        sent.map(|()| keep).map_err(|_| End::Gone)
    }

    pub(super) fn end_entry(&mut self, outcome: &Outcome<'_>) {
        if let Some(entry) = self.entry.take() {
            self.door.settings.figures.answered(outcome.status);
            entry.write(self.client, outcome);
        }
    }

    /// The client has gone. If that happened in the middle of a request, this logs it.
    fn note_departure(&mut self) {
        self.end_entry(&Outcome { status: CLIENT_LEFT, route: None, identity: None });
    }

    /// Sends all of `bytes`. The time limit grows with their number.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(&mut self.stream, bytes, self.door.settings.write).await;
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.door.settings.figures.deaf_ended.inc();
        }
        sent
    }

    /// Closes in order: it reads and drops what the client still sends for a while. Closing a socket with unread bytes
    /// resets it, and a reset can overtake the last answer.
    async fn close(mut self) {
        let linger = self.door.settings.linger;
        let stop = self.door.desk.stop().clone();
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

impl<S: AsyncRead + AsyncWrite + Unpin> Asker for Connection<'_, S> {
    type End = End;

    /// Its handler has let the request in, even if that was not decided before: its client does not make room for others.
    fn parked(&mut self) -> Result<(), End> {
        if self.seat.admit() && self.seat.serve() { Ok(()) } else { Err(End::Gone) }
    }

    /// Waits for the end of the client.
    ///
    /// A client that has shut down its sending half counts as gone. A client whose proxy dropped it looks the same, and
    /// granting a lock to nobody is the worse mistake. Bytes that the client sends ahead are kept, up to a bound.
    /// Beyond it they stay in the socket, and the end of the client is not seen until they are read.
    async fn insists(&mut self) -> Result<(), End> {
        if self.ahead.is_empty() {
            (self.ahead, self.ahead_share) = (Vec::new(), None);
        }
        while self.ahead.len() < limits::DOOR_AHEAD_BYTES {
            if !matches!(self.stream.read_buf(&mut self.ahead).await, Ok(1..)) {
                return Err(End::Gone);
            }
        }
        std::future::pending().await
    }

    async fn begin(&mut self, first: Response) -> Result<(), End> {
        let id = self.entry.as_ref().map(|entry| entry.id.clone()).unwrap_or_default();
        self.send(&answer::first_part(first, &id)).await.map_err(|_| End::Gone)
    }

    async fn part(&mut self, body: Vec<u8>) -> Result<(), End> {
        self.send(&body).await.map_err(|_| End::Gone)
    }
}

const TOO_FAST: Refusal = Refusal::new(429, "too_many_requests", "this address sends too many requests");

const TOO_SLOW: Refusal = Refusal::new(408, "request_timeout", "the request took too long to arrive");

const NO_ROOM: Refusal = Refusal::busy("too many large requests are being received");

pub(in crate::server) const NO_ROOM_FOR_ANSWER: Refusal = Refusal::busy("too many large answers are being sent");

/// Counts memory as a client's bytes arrive, once it is more than `free`. A size that is only announced takes no room
/// from others. If there is no room, strangers who came earlier make some, the oldest first.
async fn count(door: &Door, seat: &Seat, share: &mut Option<Share>, bytes: usize, free: usize) -> Result<(), Refusal> {
    let mut take = || match &mut *share {
        _ if bytes <= free => Some(()),
        Some(share) => share.grow_to(bytes).then_some(()),
        none => {
            *none = door.held.take(bytes);
            none.is_some().then_some(())
        }
    };
    match take() {
        Some(()) => Ok(()),
        // In a box, since few come here, and the tasks of all clients would have room for it.
        None => Box::pin(seat.make_room(take)).await.ok_or(NO_ROOM),
    }
}

/// Sends all of `bytes`. The limit is `unit` for each 64 KiB or part of it.
pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], unit: Duration) -> io::Result<()> {
    let units = bytes.len() / limits::DOOR_WRITE_UNIT_BYTES + 1;
    let limit = unit.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(limit, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
