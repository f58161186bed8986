//! Decides which clients are admitted, and answers those that are not.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::address::{Address, ConnectionCounts};
use super::budget::Budget;
use super::crowd::{Room, Seat};
use super::keep::Keep;
use super::listen::{Client, Socket};
use super::refusal::Refusal;
use super::tls::{NoTls, Tls};
use super::workers::Workers;
use super::{Door, answer, connection};
use crate::server::door::limits;

/// The longest pause after a failed accept.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The first pause after a failed accept. It doubles with each further failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Decides which clients are admitted.
pub(super) struct Entrance<'w> {
    door: Arc<Door>,
    workers: &'w Workers,
    alive: mpsc::Sender<()>,
    connections: Budget,
    newcomers: Newcomers,
    per_address: Option<Arc<ConnectionCounts>>,
    turned_away: Budget,
    /// When the last log line about a client that was turned away was written.
    said: Option<Instant>,
    /// The pause after the next failure. `None` after a success.
    pause: Option<Duration>,
}

impl<'w> Entrance<'w> {
    pub fn new(door: &Arc<Door>, workers: &'w Workers, alive: mpsc::Sender<()>) -> Self {
        Self {
            door: Arc::clone(door),
            workers,
            alive,
            connections: Budget::shown_by(door.settings.connections, &door.settings.figures.connections),
            newcomers: Newcomers::new(),
            per_address: door.settings.connections_per_address.map(ConnectionCounts::new),
            turned_away: Budget::new(limits::DOOR_TURNED_AWAY),
            said: None,
            pause: None,
        }
    }

    /// Starts a task that serves a new client, or that turns it away.
    pub async fn admit(&mut self, socket: Socket, client: Client) {
        self.pause = None;
        let counted = self.per_address.as_ref().map(|crowd| crowd.enter(client.address));
        let refusal = match &counted {
            Some(None) => {
                self.door.settings.figures.per_address_refused.inc();
                Refusal::new(429, "too_many_connections", "this address has too many connections").retry_after(5)
            }
            _ => match self.room(client.address).await {
                Some(room) => {
                    let seat = self.door.crowd.enter(client.address, room);
                    let (door, alive, unseen) = (Arc::clone(&self.door), self.alive.clone(), self.newcomers.enter());
                    // In a box, since each of the futures that hand it on has room for it.
                    let client = Box::new(client);
                    // An error means that the connection has already ended.
                    let Ok(socket) = socket.leave() else { return };
                    self.workers.spawn(async move {
                        let Ok(socket) = socket.arrive() else { return };
                        let mut work = pin!(async {
                            tokio::select! {
                                biased;
                                () = seat.must_go() => {}
                                () = welcome(socket, client, &seat, door) => {}
                            }
                        });
                        // A client that has already gone is noticed in this first poll.
                        let first = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
                        drop(unseen);
                        if first.is_pending() {
                            work.await;
                        }
                        drop((counted, alive));
                    });
                    return;
                }
                None => {
                    self.door.settings.figures.connections_refused.inc();
                    Refusal::busy("there are too many connections")
                }
            },
        };
        self.say_turned_away(&client, refusal);
        if let Some(share) = self.turned_away.take(1) {
            let door = Arc::clone(&self.door);
            tokio::spawn(async move {
                match socket {
                    // A TLS client cannot read a plain answer, and a handshake is too much work here.
                    Socket::Tcp(_) if door.settings.tls.is_some() => {}
                    Socket::Tcp(stream) => turn_away(stream, refusal, &door).await,
                    Socket::Unix(stream) => turn_away(stream, refusal, &door).await,
                }
                drop(share);
            });
        }
    }

    /// Takes room for one more client. If there is little or none, another one makes room for it.
    ///
    /// Before that, it waits until the newest clients have been looked at. Accepting is quicker than serving, so in a
    /// storm of clients that reset their connections most of them have already gone.
    async fn room(&mut self, address: Address) -> Option<Room> {
        let kept = self.door.settings.kept();
        if self.connections.left() > kept
            && let Some(room) = self.take()
        {
            return Some(room);
        }
        self.newcomers.all_seen().await;
        if self.connections.left() > kept
            && let Some(room) = self.take()
        {
            return Some(room);
        }
        if let Some(room) = self.door.crowd.make_room(|| self.take()).await {
            return Some(room);
        }
        // Everybody is being served. What is left is for those who may go again at once, and for known addresses.
        let may_enter = self.connections.left() > kept / 2 || self.door.crowd.knows(address);
        if may_enter { self.take() } else { None }
    }

    fn take(&self) -> Option<Room> {
        let (memory, memory_if_known) = match self.door.settings.tls {
            Some(_) => (limits::DOOR_TLS_STRANGER_BYTES, limits::DOOR_TLS_BYTES),
            None => (limits::DOOR_CONNECTION_BYTES, limits::DOOR_CONNECTION_BYTES),
        };
        Some(Room { _connection: self.connections.take(1)?, memory: self.door.memory.take(memory)?, memory_if_known })
    }

    /// Writes one log line for a flood of refusals.
    fn say_turned_away(&mut self, client: &Client, refusal: Refusal) {
        let now = Instant::now();
        let pause = Duration::from_millis(limits::DOOR_TURNED_AWAY_LINE_MS);
        if self.said.is_none_or(|said| now.duration_since(said) >= pause) {
            self.said = Some(now);
            (self.door.settings.report)(&format!(
                "turning connections away, such as {}: {}",
                client.peer, refusal.text
            ));
        }
    }

    /// Pauses briefly after a failed accept, so that a lack of descriptors or memory does not burn CPU time.
    pub async fn pause(&mut self, error: &io::Error) {
        let pause = self.pause.unwrap_or_else(|| {
            (self.door.settings.report)(&format!("cannot accept a connection, will retry: {error}"));
            ACCEPT_PAUSE
        });
        self.pause = Some((pause * 2).min(ACCEPT_PAUSE_MAX));
        let _ = timeout(pause, self.door.desk.stop().triggered()).await;
    }
}

/// Clients that have connected and were not looked at yet. Each holds a sender.
struct Newcomers {
    unseen: mpsc::Sender<()>,
    all_seen: mpsc::Receiver<()>,
}

impl Newcomers {
    fn new() -> Self {
        let (unseen, all_seen) = mpsc::channel(1);
        Self { unseen, all_seen }
    }

    /// Returns a sender. A newcomer drops it when it has been looked at.
    fn enter(&self) -> mpsc::Sender<()> {
        self.unseen.clone()
    }

    /// Waits until all clients that have connected so far have been looked at. This is short: it depends on no client.
    async fn all_seen(&mut self) {
        let Self { unseen, mut all_seen } = std::mem::replace(self, Self::new());
        drop(unseen);
        // Nothing is ever sent: this waits until the last sender is dropped.
        let _ = all_seen.recv().await;
    }
}

/// Serves an admitted client, after the handshake if TLS is on.
async fn welcome(socket: Socket, client: Box<Client>, seat: &Seat, door: Arc<Door>) {
    match socket {
        Socket::Unix(stream) => connection::serve(stream, &client, seat, door).await,
        Socket::Tcp(stream) => match door.settings.tls.clone() {
            None => connection::serve(stream, &client, seat, door).await,
            // In a box, since the state of TLS is larger than everything else about a client.
            Some(tls) => Box::pin(welcome_tls(stream, &tls, client, seat, door)).await,
        },
    }
}

async fn welcome_tls(stream: TcpStream, tls: &Tls, mut client: Box<Client>, seat: &Seat, door: Arc<Door>) {
    let accepted = tokio::select! {
        accepted = tls.accept(stream, door.settings.handshake) => accepted,
        () = door.desk.stop().triggered() => return,
    };
    match accepted {
        Ok(accepted) => {
            client.identity = accepted.identity;
            connection::serve(accepted.stream, &client, seat, door).await;
        }
        Err(NoTls::Plain(stream)) => {
            let refusal = Refusal::malformed("this port speaks TLS: use https");
            turn_away(stream, refusal, &door).await;
        }
        Err(NoTls::Silent) => {}
        Err(NoTls::Failed(reason)) => {
            door.settings.figures.handshakes_failed.inc();
            tracing::info!(target: "locker::door", peer = client.peer, reason, "no TLS connection");
        }
    }
}

/// Answers a client without reading its request.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, refusal: Refusal, door: &Door) {
    let answer = answer::to_bytes(
        refusal.into_response(),
        true,
        Keep::Close,
        &door.desk.common().request_id(door.desk.common().next_park()),
    );
    let telling = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        _ = telling => {}
        () = sleep(door.settings.linger) => {}
        () = door.desk.stop().triggered() => {}
    }
}
