//! The door: the only code that touches client sockets (`docs/design.md#the-door`).
//!
//! | file | contents |
//! |---|---|
//! | `mod.rs` | [`serve`]: start, accept, stop |
//! | `settings.rs`, `stop.rs` | [`DoorSettings`]; the switch [`Stop`] |
//! | `listen.rs` | [`Listener`]: TCP or a Unix socket, and the identity of each client that connects |
//! | `workers.rs` | the threads that serve clients |
//! | `entrance.rs` | admission: caps, TLS, and an answer for clients that are turned away |
//! | `tls.rs` | certificates, handshakes, reload |
//! | `address.rs` | counters for each client address |
//! | `crowd.rs` | who is connected, and who makes room when there are too many |
//! | `logins.rs` | limits on guessing passwords |
//! | `connection.rs` | one client: read a request, let its route answer, park it, send the answer |
//! | `head.rs` | request heads and every reason to refuse one (pure) |
//! | `desk.rs` | one request until its final answer: admit it, call its route, park it, call again; also for links |
//! | `keep.rs` | whether a connection stays open after an answer |
//! | `body.rs` | chunked bodies (pure) |
//! | `answer.rs` | the bytes of an answer, with the help of `tiny_http` |
//! | `access_log.rs` | the log line of a request |
//! | `park.rs` | room for parked requests, and the report that a listener has left |
//! | `budget.rs`, `tidy.rs` | counted room of any kind; memory goes back to the system |
//! | `figures.rs` | what the door counts, for the metrics |
//! | `refusal.rs` | answers that the door gives without a route |
//! | `descriptors.rs` | how many connections the limit of open files allows |
//!
//! Behind the door is a [`Handler`]: the guard and the routes. It runs in the task of the connection.

mod access_log;
mod address;
mod answer;
mod body;
mod budget;
mod connection;
mod crowd;
mod descriptors;
mod desk;
mod entrance;
mod figures;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod head;
mod keep;
pub mod limits;
mod listen;
mod logins;
mod park;
mod refusal;
mod settings;
mod stop;
mod tidy;
mod tls;
mod workers;

use std::io;
use std::num::{NonZero, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;

pub(super) use access_log::{CLIENT_LEFT, Line};
pub(super) use address::Address;
pub(super) use budget::{Budget, Share};
pub(super) use connection::NO_ROOM_FOR_ANSWER;
pub use desk::Common;
pub(super) use desk::{Answered, Asker, Desk, Hold};
pub use figures::DoorFigures;
pub use listen::Listener;
pub(super) use refusal::Refusal;
pub use settings::{DoorSettings, Report};
pub use stop::Stop;
pub use tls::{ClientAuth, Pem, Tls, TlsSettings};

use self::address::RateLimiter;
use self::crowd::Crowd;
use self::entrance::Entrance;
use self::workers::Workers;
use super::http::Handler;
use super::notices::Notices;

/// How long to wait for the threads to end after the grace. Threads that still block are left behind.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// State that all connections share.
struct Door {
    settings: DoorSettings,
    desk: Desk,
    /// Everybody who is connected.
    crowd: Arc<Crowd>,
    /// What the connections take, bytes.
    memory: Budget,
    /// Bytes of large bodies that have arrived.
    held: Budget,
    /// Bytes of large answers being sent.
    answers: Budget,
    /// The rate limit of requests, if there is one.
    requests: Option<RateLimiter>,
}

/// Serves `handler` on `listener` until `stop` is triggered. Then it answers every parked request with
/// [`Attempt::Last`](super::http::Attempt::Last), lets the requests in flight end, and returns within the grace that
/// was passed to [`Stop::trigger`]. It blocks the caller's thread until then, which must not be a thread of an async
/// runtime.
///
/// Raises this process's soft limit of open descriptors to the hard limit.
///
/// [`Handler::left`] is called once for each request whose client left or whose answer was lost before the final
/// answer. It is called for every request that was parked, but possibly also for a request that the handler never
/// parked or never saw.
///
/// # Errors
/// The door cannot start, or the socket stops listening.
/// Failures of single connections are not errors, nor are failures to accept one: accepting pauses and then continues.
pub fn serve(
    listener: impl Into<Listener>,
    handler: Arc<dyn Handler>,
    notices: Notices,
    mut settings: DoorSettings,
    stop: Stop,
) -> anyhow::Result<()> {
    descriptors::fit(&mut settings);
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get).min(limits::DOOR_THREADS);
    let workers = Workers::start(settings.threads.unwrap_or_else(cores), LAST_MOMENT)?;
    let accepting = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let accepting = accepting.context("cannot wait for connections")?;
    let per_second = |rate: NonZeroU32| {
        let burst = rate.get().saturating_mul(limits::DOOR_RATE_BURST_SECS);
        RateLimiter::new(Duration::from_secs(1) / rate.get(), burst)
    };
    let door = Arc::new(Door {
        desk: Desk::new(handler, notices, &settings, stop),
        crowd: Crowd::new(),
        requests: settings.requests_per_second.map(per_second),
        memory: Budget::new(settings.memory_bytes / 2),
        held: Budget::shown_by(settings.held_bytes(), &settings.figures.held_bytes),
        answers: Budget::shown_by(settings.held_bytes(), &settings.figures.held_bytes),
        settings,
    });
    // Connections that do not end within the grace are dropped with the workers. Each parked request then reports that
    // its listener has left.
    accepting.block_on(run(listener.into(), &door, &workers))
}

/// Accepts connections until the stop, then waits for them to end.
async fn run(listener: Listener, door: &Arc<Door>, workers: &Workers) -> anyhow::Result<()> {
    let listener = listener.into_async().context("cannot listen")?;
    if let Some(tls) = &door.settings.tls {
        tokio::spawn(tls::keep_fresh(Arc::clone(tls), door.desk.stop().clone()));
    }
    tokio::spawn(tidy::keep_tidy(Arc::clone(door)));
    // Each connection holds a sender. When the last sender is dropped, all connections have ended.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let mut entrance = Entrance::new(door, workers, alive);
    let result = loop {
        tokio::select! {
            biased;
            () = door.desk.stop().triggered() => break Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((socket, client)) => entrance.admit(socket, client).await,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    break Err(error).context("the socket no longer listens");
                }
                Err(error) => entrance.pause(&error).await,
            }
        }
    };
    drop((listener, entrance));
    if result.is_ok() {
        tokio::select! {
            _ = all_ended.recv() => {}
            () = door.desk.stop().grace_is_over() => {}
        }
    }
    result
}
