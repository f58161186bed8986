//! Who comes in, and what those are told who do not.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::address::ConnectionCounts;
use super::budget::{Budget, Share};
use super::keep::Keep;
use super::listen::{Client, Socket};
use super::refusal::Refusal;
use super::tls::NoTls;
use super::workers::Workers;
use super::{Door, answer, connection};
use crate::server::door::limits;

/// Longest pause after a failed accept.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// First pause after a failed accept; it doubles with each further failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Decides who comes in.
pub(super) struct Entrance<'w> {
    door: Arc<Door>,
    workers: &'w Workers,
    alive: mpsc::Sender<()>,
    connections: Budget,
    newcomers: Newcomers,
    per_address: Option<Arc<ConnectionCounts>>,
    turned_away: Budget,
    /// When it was last said that somebody was turned away.
    said: Option<Instant>,
    /// The pause after the next failure; `None` after a success.
    pause: Option<Duration>,
}

impl<'w> Entrance<'w> {
    pub fn new(door: &Arc<Door>, workers: &'w Workers, alive: mpsc::Sender<()>) -> Self {
        Self {
            door: Arc::clone(door),
            workers,
            alive,
            connections: Budget::new(door.settings.connections),
            newcomers: Newcomers::new(),
            per_address: door.settings.connections_per_address.map(ConnectionCounts::new),
            turned_away: Budget::new(limits::DOOR_TURNED_AWAY),
            said: None,
            pause: None,
        }
    }

    /// Starts a task for a new client, or for a word to it.
    pub async fn admit(&mut self, socket: Socket, client: Client) {
        self.pause = None;
        let counted = self.per_address.as_ref().map(|crowd| crowd.enter(client.address));
        let refusal = match &counted {
            Some(None) => {
                Refusal::new(429, "too_many_connections", "this address has too many connections").retry_after(5)
            }
            _ => match self.room().await {
                Some(share) => {
                    let (door, alive, unseen) = (Arc::clone(&self.door), self.alive.clone(), self.newcomers.enter());
                    // An error means that the connection has ended.
                    let Ok(socket) = socket.leave() else { return };
                    self.workers.spawn(async move {
                        let Ok(socket) = socket.arrive() else { return };
                        let mut work = pin!(welcome(socket, client, door));
                        // By then a client that has gone already has been noticed.
                        let first = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
                        drop(unseen);
                        if first.is_pending() {
                            work.await;
                        }
                        drop((share, counted, alive));
                    });
                    return;
                }
                None => Refusal::busy("there are too many connections"),
            },
        };
        self.say_turned_away(&client, refusal);
        if let Some(share) = self.turned_away.take(1) {
            let door = Arc::clone(&self.door);
            tokio::spawn(async move {
                match socket {
                    // What is not encrypted means nothing to a TLS client, and a handshake is too much work here.
                    Socket::Tcp(_) if door.settings.tls.is_some() => {}
                    Socket::Tcp(stream) => turn_away(stream, refusal, &door).await,
                    Socket::Unix(stream) => turn_away(stream, refusal, &door).await,
                }
                drop(share);
            });
        }
    }

    /// Room for one more client. Where there is none, those who came last are looked at first: accepting is quicker
    /// than serving, and of a storm of clients that reset their connections most have gone already.
    async fn room(&mut self) -> Option<Share> {
        match self.connections.take(1) {
            None => {
                self.newcomers.all_seen().await;
                self.connections.take(1)
            }
            share => share,
        }
    }

    /// One line for a flood of refusals.
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

    /// Waits a little after a failed accept, so that a lack of descriptors or memory costs no processor.
    pub async fn pause(&mut self, error: &io::Error) {
        let pause = self.pause.unwrap_or_else(|| {
            (self.door.settings.report)(&format!("cannot accept a connection, trying again: {error}"));
            ACCEPT_PAUSE
        });
        self.pause = Some((pause * 2).min(ACCEPT_PAUSE_MAX));
        let _ = timeout(pause, self.door.stop.triggered()).await;
    }
}

/// Clients that came in and were not looked at yet: each holds a sender.
struct Newcomers {
    unseen: mpsc::Sender<()>,
    all_seen: mpsc::Receiver<()>,
}

impl Newcomers {
    fn new() -> Self {
        let (unseen, all_seen) = mpsc::channel(1);
        Self { unseen, all_seen }
    }

    /// What a newcomer drops when it has been looked at.
    fn enter(&self) -> mpsc::Sender<()> {
        self.unseen.clone()
    }

    /// Waits until all who came so far have been looked at. Short: it depends on no client.
    async fn all_seen(&mut self) {
        let Self { unseen, mut all_seen } = std::mem::replace(self, Self::new());
        drop(unseen);
        // Nothing is ever sent: this is the last sender's end.
        let _ = all_seen.recv().await;
    }
}

/// Serves a client that may come in, after its handshake where there is TLS.
async fn welcome(socket: Socket, mut client: Client, door: Arc<Door>) {
    let stream = match socket {
        Socket::Unix(stream) => return connection::serve(stream, &client, door).await,
        Socket::Tcp(stream) => stream,
    };
    let Some(tls) = &door.settings.tls else { return connection::serve(stream, &client, door).await };
    let accepted = tokio::select! {
        accepted = tls.accept(stream, door.settings.handshake) => accepted,
        () = door.stop.triggered() => return,
    };
    match accepted {
        Ok(accepted) => {
            client.identity = accepted.identity;
            connection::serve(accepted.stream, &client, door).await;
        }
        Err(NoTls::Plain(stream)) => {
            let refusal = Refusal::malformed("this port speaks TLS: use https");
            turn_away(stream, refusal, &door).await;
        }
        Err(NoTls::Silent) => {}
        Err(NoTls::Failed(reason)) => {
            tracing::info!(target: "locker::door", peer = client.peer, reason, "no TLS connection");
        }
    }
}

/// Gives a client an answer without having read its request.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, refusal: Refusal, door: &Door) {
    let answer = answer::to_bytes(refusal.into_response(), true, Keep::Close, &door.request_id(door.next_park()));
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
        () = door.stop.triggered() => {}
    }
}
