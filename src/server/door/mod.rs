//! The door: the only code that touches client sockets (design section 8).
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`serve`]: start, accept, stop |
//! | `settings.rs` | [`DoorSettings`], the switch [`Stop`] |
//! | `connection.rs` | one client: read a request, pass it on, park it, relay the answer |
//! | `head.rs` | request heads and every reason to refuse one (pure) |
//! | `body.rs` | chunked bodies (pure) |
//! | `wire.rs` | a request as it travels to `tiny_http` |
//! | `backend.rs` | the kept-alive connections to `tiny_http` |
//! | `park.rs` | room to park; the promise to say when a listener has left |
//! | `budget.rs` | counted room of any kind |
//! | `refusal.rs` | answers that the door gives itself |
//! | `descriptors.rs` | how many connections the limit of open files allows |
//!
//! `tiny_http` and the handler are on the other side of a private socket, in `super::inner`.

mod backend;
mod body;
mod budget;
mod connection;
mod descriptors;
mod head;
mod park;
mod refusal;
mod settings;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

pub use settings::{DoorSettings, Report, Stop};

use self::backend::Backends;
use self::budget::Budget;
use self::park::Lot;
use self::refusal::Refusal;
use super::http::Handler;
use super::inner::Inner;
use super::notices::Notices;
use crate::core::limits;
use crate::core::names::ParkId;

/// Longest pause after a failed accept.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// First pause after a failed accept; it doubles with each further failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Time for threads to end after the grace: those that still block are left behind.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What all connections share.
struct Door {
    settings: DoorSettings,
    handler: Arc<dyn Handler>,
    notices: Notices,
    backends: Backends,
    lot: Lot,
    /// Bytes of large bodies and answers on their way.
    held: Budget,
    stop: Stop,
    parks: AtomicU64,
}

impl Door {
    /// A number for the next request.
    fn next_park(&self) -> ParkId {
        ParkId(self.parks.fetch_add(1, Ordering::Relaxed))
    }
}

/// Serves `handler` on `listener` until `stop` is triggered, then answers every parked request with
/// [`Turn::Last`](super::http::Turn::Last), lets requests in flight end and returns, within the grace that [`Stop::trigger`] was given.
/// The caller's thread is blocked all the time; it must not be one of an async runtime.
///
/// The private socket is made in the first of `runtime_dirs` where that is possible. The soft limit of open
/// descriptors of this process is raised to the hard one.
///
/// [`Handler::left`] is called once for each request whose client left, or whose answer got lost, before the final
/// answer: for every request that was parked, but perhaps also for one that the handler never parked or never saw.
///
/// # Errors
/// When it cannot start, when the inner server ends by itself, and when the listener stops being one.
/// Failures of single connections, also of accepting them, are no errors: accepting pauses and goes on.
pub fn serve(
    listener: std::net::TcpListener,
    handler: Arc<dyn Handler>,
    notices: Notices,
    mut settings: DoorSettings,
    runtime_dirs: &[PathBuf],
    stop: Stop,
) -> anyhow::Result<()> {
    descriptors::fit(&mut settings);
    let (failed_tx, failed) = mpsc::channel(1);
    // Only the first failure matters; the channel being full means that there is one.
    let report_failure = move |error: &io::Error| drop(failed_tx.try_send(error.to_string()));
    let inner = Inner::start(&handler, settings.backends, runtime_dirs, report_failure)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.thread_name("door").enable_all().build().context("cannot start the door's threads")?;
    let served = runtime.block_on(async {
        let held = Budget::new(settings.held_bytes);
        let backends =
            Backends::open(inner.socket(), inner.secret(), settings.backends, settings.busy, held.clone()).await?;
        let lot = Lot::new(&settings);
        let door = Arc::new(Door { settings, handler, notices, backends, lot, held, stop, parks: AtomicU64::new(1) });
        run(listener, &door, failed).await
    });
    // Drops what did not end within the grace; each parked request says that its listener has left.
    runtime.shutdown_timeout(LAST_MOMENT);
    inner.stop(LAST_MOMENT);
    served
}

/// Accepts until the stop, then waits for the connections to end.
async fn run(
    listener: std::net::TcpListener,
    door: &Arc<Door>,
    mut failed: mpsc::Receiver<String>,
) -> anyhow::Result<()> {
    // std asks for a shorter queue; on a listening socket this only changes its length.
    SockRef::from(&listener).listen(limits::DOOR_ACCEPT_QUEUE).context("cannot listen")?;
    listener.set_nonblocking(true).context("cannot listen")?;
    let listener = TcpListener::from_std(listener).context("cannot listen")?;
    // Each connection holds a sender; when the last is dropped, all have ended.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let mut entrance = Entrance::new(door, alive);
    let result = loop {
        tokio::select! {
            biased;
            () = door.stop.triggered() => break Ok(()),
            error = failed.recv() => {
                break Err(anyhow!("the inner server has ended: {}", error.as_deref().unwrap_or("its workers are gone")));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => entrance.admit(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    break Err(error).context("the socket does not listen any more");
                }
                Err(error) => entrance.pause(&error).await,
            }
        }
    };
    drop((listener, entrance));
    if result.is_ok() {
        tokio::select! {
            _ = all_ended.recv() => {}
            () = door.stop.grace_is_over() => {}
        }
    }
    result
}

/// Decides who comes in.
struct Entrance {
    door: Arc<Door>,
    alive: mpsc::Sender<()>,
    connections: Budget,
    turned_away: Budget,
    /// The pause after the next failure; `None` after a success.
    pause: Option<Duration>,
}

impl Entrance {
    fn new(door: &Arc<Door>, alive: mpsc::Sender<()>) -> Self {
        Self {
            door: Arc::clone(door),
            alive,
            connections: Budget::new(door.settings.connections),
            turned_away: Budget::new(limits::DOOR_TURNED_AWAY),
            pause: None,
        }
    }

    /// Starts a task for a new client. Caps per address and TLS belong here.
    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        self.pause = None;
        let door = Arc::clone(&self.door);
        if let Some(share) = self.connections.take(1) {
            set_options(&stream);
            let alive = self.alive.clone();
            tokio::spawn(async move {
                connection::serve(stream, &peer.to_string(), door).await;
                drop((share, alive));
            });
        } else if let Some(share) = self.turned_away.take(1) {
            tokio::spawn(async move {
                turn_away(&mut stream, &door).await;
                drop(share);
            });
        }
    }

    /// Waits a little after a failed accept, so that a lack of descriptors or memory costs no processor.
    async fn pause(&mut self, error: &io::Error) {
        let pause = self.pause.unwrap_or_else(|| {
            (self.door.settings.report)(&format!("cannot accept a connection, trying again: {error}"));
            ACCEPT_PAUSE
        });
        self.pause = Some((pause * 2).min(ACCEPT_PAUSE_MAX));
        let _ = timeout(pause, self.door.stop.triggered()).await;
    }
}

/// Answers quickly, and finds clients that vanished without a word.
fn set_options(stream: &TcpStream) {
    // Without these a connection works, only less well; the most likely failure is that it has ended already.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(limits::DOOR_KEEPALIVE_SECS))
        .with_interval(Duration::from_secs(limits::DOOR_KEEPALIVE_INTERVAL_SECS));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Tells a client over the cap to come back later.
async fn turn_away(stream: &mut TcpStream, door: &Door) {
    let answer = Refusal::busy("there are too many connections").to_bytes(true);
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
