//! The door: the only code that touches client sockets (design section 8).
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`serve`]: start, accept, stop |
//! | `settings.rs`, `stop.rs` | [`DoorSettings`]; the switch [`Stop`] |
//! | `listen.rs` | [`Listener`]: TCP or a Unix socket, and who has connected |
//! | `entrance.rs` | who comes in: caps, TLS, a word to those turned away |
//! | `tls.rs` | certificates, handshakes, reload |
//! | `address.rs` | what is counted for each client address |
//! | `connection.rs` | one client: read a request, pass it on, park it, relay the answer |
//! | `head.rs` | request heads and every reason to refuse one (pure) |
//! | `keep.rs` | whether a connection stays open after an answer |
//! | `body.rs` | chunked bodies (pure) |
//! | `wire.rs` | a request as it travels to `tiny_http` |
//! | `backend.rs` | the kept-alive connections to `tiny_http` |
//! | `access_log.rs` | the log line of a request |
//! | `park.rs` | room to park; the promise to say when a listener has left |
//! | `budget.rs` | counted room of any kind |
//! | `refusal.rs` | answers that the door gives itself |
//! | `descriptors.rs` | how many connections the limit of open files allows |
//!
//! `tiny_http` and the handler are on the other side of a private socket, in `super::inner`.

mod access_log;
mod address;
mod backend;
mod body;
mod budget;
mod connection;
mod descriptors;
mod entrance;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod fuzz_tests;
mod head;
mod keep;
pub mod limits;
mod listen;
mod park;
mod refusal;
mod settings;
mod stop;
mod tls;
mod wire;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;

pub use listen::Listener;
pub use settings::{DoorSettings, Report};
pub use stop::Stop;
pub use tls::{ClientAuth, Pem, Tls, TlsSettings};

use self::address::RateLimiter;
use self::backend::Backends;
use self::budget::Budget;
use self::entrance::Entrance;
use self::park::Lot;
use super::http::Handler;
use super::inner::Inner;
use super::notices::Notices;
use crate::core::names::ParkId;
use crate::env::random_hex;

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
    /// What the request ids of this start begin with.
    start: String,
    /// The pace of requests, where it is limited.
    requests: Option<RateLimiter>,
    /// The pace of failed logins.
    failed_logins: RateLimiter,
}

impl Door {
    /// A number for the next request.
    fn next_park(&self) -> ParkId {
        ParkId(self.parks.fetch_add(1, Ordering::Relaxed))
    }

    /// What that request is called in logs and to its client.
    fn request_id(&self, park: ParkId) -> String {
        format!("{}-{:x}", self.start, park.0)
    }
}

/// Serves `handler` on `listener` until `stop` is triggered, then answers every parked request with
/// [`Attempt::Last`](super::http::Attempt::Last), lets requests in flight end and returns, within the grace that [`Stop::trigger`] was given.
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
    listener: impl Into<Listener>,
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
        let door = Door {
            lot: Lot::new(&settings),
            requests: settings.requests_per_second.map(|rate| {
                RateLimiter::new(
                    Duration::from_secs(1) / rate.get(),
                    rate.get().saturating_mul(limits::DOOR_RATE_BURST_SECS),
                )
            }),
            failed_logins: RateLimiter::new(
                Duration::from_millis(limits::DOOR_LOGIN_STEP_MS),
                limits::DOOR_LOGIN_BURST,
            ),
            parks: AtomicU64::new(1),
            start: random_hex::<4>(),
            settings,
            handler,
            notices,
            backends,
            held,
            stop,
        };
        run(listener.into(), &Arc::new(door), failed).await
    });
    // Drops what did not end within the grace; each parked request says that its listener has left.
    runtime.shutdown_timeout(LAST_MOMENT);
    inner.stop(LAST_MOMENT);
    served
}

/// Accepts until the stop, then waits for the connections to end.
async fn run(listener: Listener, door: &Arc<Door>, mut failed: mpsc::Receiver<String>) -> anyhow::Result<()> {
    let listener = listener.into_async().context("cannot listen")?;
    if let Some(tls) = &door.settings.tls {
        tokio::spawn(tls::keep_fresh(Arc::clone(tls), door.stop.clone()));
    }
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
                Ok((socket, client)) => entrance.admit(socket, client).await,
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
