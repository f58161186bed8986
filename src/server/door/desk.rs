//! Where requests are answered, whoever brings them: a connection of the door, or a link of another server. Both do the
//! same with a request, from the check of its credentials to its final answer.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::address::Address;
use super::figures::DoorFigures;
use super::logins::Logins;
use super::park::{Listener, Lot, Waiting};
use super::refusal::Refusal;
use super::settings::DoorSettings;
use super::stop::Stop;
use crate::core::limits::WAIT_MS;
use crate::core::names::ParkId;
use crate::env::random_hex;
use crate::server::http::{Admission, Answering, Attempt, Handler, Request, Response};
use crate::server::notices::Notices;

/// What all desks of a server share: the numbers of the requests, and the failed logins. Cheap to clone; clones are the
/// same.
#[derive(Clone)]
pub struct Common(Arc<Shared>);

struct Shared {
    parks: AtomicU64,
    /// The prefix of the request ids of this start. Long enough that no two servers ever make the same id.
    start: String,
    logins: Logins,
}

impl Default for Common {
    fn default() -> Self {
        Self(Arc::new(Shared { parks: AtomicU64::new(1), start: random_hex::<8>(), logins: Logins::new() }))
    }
}

impl Common {
    /// The number of the next request.
    pub(in crate::server) fn next_park(&self) -> ParkId {
        ParkId(self.0.parks.fetch_add(1, Ordering::Relaxed))
    }

    /// The id of that request in the logs and for its client.
    pub(super) fn request_id(&self, park: ParkId) -> String {
        format!("{}-{:x}", self.0.start, park.0)
    }
}

/// Who has asked, at the other end of a connection or a link.
pub(in crate::server) trait Asker {
    /// Why nobody waits for the answer any more.
    type End: From<Refusal>;

    /// The request is parked now. An error means that it may not stay.
    fn parked(&mut self) -> Result<(), Self::End>;

    /// Waits, while the request is parked, until its answer is wanted at once. An error means that nobody waits for it any
    /// more. Safe to cancel.
    async fn insists(&mut self) -> Result<(), Self::End>;

    /// Sends the head of an answer in parts, and its first part.
    async fn begin(&mut self, first: Response) -> Result<(), Self::End>;

    /// Sends a further part. Returns when the next one may be made.
    async fn part(&mut self, body: Vec<u8>) -> Result<(), Self::End>;
}

/// How a request was answered.
pub(in crate::server) enum Answered<E> {
    /// This is the answer.
    Whole(Response),
    /// Its parts have been sent, the last of them only if it `ended` well.
    InParts { status: u16, route: Option<&'static str>, ended: Result<(), E> },
}

/// What a request holds until it is answered. Dropping it tells the handler that the client has left.
pub(in crate::server) struct Hold {
    listener: Listener,
    /// `None` if it cannot be parked. In a box, since each connection's task has room for it.
    waiting: Option<Box<Waiting>>,
}

impl Hold {
    /// The handler has given its final answer and no longer counts on this client.
    pub fn answered(self) {
        self.listener.answered();
    }

    /// The number of its request.
    pub fn park(&self) -> ParkId {
        self.listener.park()
    }
}

/// What has ended a wait.
enum Woken {
    /// Something has happened that the request waits for.
    Notice,
    Deadline,
    /// The server stops.
    Stop,
    /// Whoever asked wants the answer now.
    Insisted,
}

impl Woken {
    fn attempt(self) -> Attempt {
        match self {
            Self::Notice => Attempt::Notified,
            Self::Deadline | Self::Stop | Self::Insisted => Attempt::Last,
        }
    }
}

/// Answers requests with one handler.
pub(in crate::server) struct Desk {
    handler: Arc<dyn Handler>,
    notices: Notices,
    lot: Lot,
    stop: Stop,
    /// Time for one pass of a request through the handler.
    total: Duration,
    common: Common,
    figures: DoorFigures,
}

impl Desk {
    pub fn new(handler: Arc<dyn Handler>, notices: Notices, settings: &DoorSettings, stop: Stop) -> Self {
        let (lot, common, figures) = (Lot::new(settings), settings.common.clone(), settings.figures.clone());
        Self { handler, notices, lot, stop, total: settings.total, common, figures }
    }

    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_triggered()
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    /// Decides, by its head alone, whether a request of a client at this address is admitted. If it is not, this is its
    /// answer.
    pub async fn admit(&self, address: Address, request: &mut Request) -> Result<Admission, Response> {
        let logins = &self.common.0.logins;
        let credentials = logins.credentials(address, request);
        if let Some(credentials) = credentials
            && let Err(over) = logins.may_try(address, credentials, std::time::Instant::now())
        {
            self.figures.refused(TOO_MANY_LOGINS.status);
            return Err(TOO_MANY_LOGINS.retry_after(whole_seconds(over)).into_response());
        }
        match (self.handler.admit(request).await, credentials) {
            (Ok(admission), credentials) => {
                if let (Some(right), Admission::Password) = (credentials, admission) {
                    logins.succeeded(right);
                }
                Ok(admission)
            }
            (Err(refused), Some(_)) if refused.status == 401 => {
                // In a box, since few requests come here.
                Box::pin(self.slow_down(address, request)).await;
                Err(refused)
            }
            (Err(refused), _) => Err(refused),
        }
    }

    /// Delays the answer to a failed login, longer with each failure from this address. A login that succeeds is never
    /// delayed, not even at the same address.
    async fn slow_down(&self, address: Address, request: &Request) {
        self.figures.failed_logins.inc();
        let delay = self.common.0.logins.failed(address, std::time::Instant::now());
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(target: "locker::door", id = request.id, peer = request.peer, delay_ms = ms, "failed login");
        let _ = timeout(delay, self.stop.triggered()).await;
    }

    /// Takes room for a request, so that it can be parked, if it `may_park` and there is room.
    pub fn hold(&self, request: &Request, may_park: bool) -> Hold {
        let place = (may_park && !self.is_stopping()).then(|| self.lot.place(request)).flatten();
        // Subscribe before the first call, so that no notice is missed.
        let waiting = place.map(|place| Waiting { place, subscription: self.notices.subscribe(request.park) });
        let waiting = waiting.map(Box::new);
        Hold { listener: Listener::new(&self.handler, request.park), waiting }
    }

    /// Calls the handler, again and again while the request is parked, until its answer is final.
    pub async fn answer<A: Asker>(
        &self,
        asker: &mut A,
        request: &mut Request,
        hold: &Hold,
    ) -> Result<Answered<A::End>, A::End> {
        let mut until: Option<Instant> = None;
        let response = loop {
            request.can_park = hold.waiting.is_some() && request.attempt != Attempt::Last && !self.is_stopping();
            let response = self.handled(request).await?;
            match (response.park, &hold.waiting) {
                (Some(span), Some(waiting)) if request.attempt != Attempt::Last => {
                    drop(response);
                    // A request that is parked again only waits for the rest of its time.
                    let asked = Instant::now() + Duration::from_millis(span.0.min(WAIT_MS));
                    let until = *until.insert(until.map_or(asked, |first| first.min(asked)));
                    shrink(request);
                    request.attempt = self.park(asker, waiting, until).await?.attempt();
                }
                _ => break response,
            }
        };
        if let (Some(_), Some(waiting), true) = (response.stream, &hold.waiting, request.method != "HEAD") {
            let (status, route) = (response.status, response.route);
            // In a box, since few requests come here.
            let ended = Box::pin(self.in_parts(asker, request, response, waiting)).await;
            return Ok(Answered::InParts { status, route, ended });
        }
        Ok(Answered::Whole(response))
    }

    /// Sends the parts of an answer, the first of which is here, until the handler ends it or the client leaves. In
    /// between, its request is parked like any other.
    async fn in_parts<A: Asker>(
        &self,
        asker: &mut A,
        request: &mut Request,
        first: Response,
        waiting: &Waiting,
    ) -> Result<(), A::End> {
        let (status, mut next) = (first.status, first.stream);
        asker.begin(first).await?;
        shrink(request);
        while let Some(pause) = next {
            let until = Instant::now() + Duration::from_millis(pause.0);
            request.attempt = match self.park(asker, waiting, until).await? {
                Woken::Notice | Woken::Deadline => Attempt::Notified,
                Woken::Stop | Woken::Insisted => Attempt::Last,
            };
            // Whatever goes wrong now, the status has been sent: the client sees that the answer has ended.
            let part = self.handled(request).await?;
            if part.status == status && !part.body.is_empty() {
                asker.part(part.body).await?;
            }
            next = part.stream.filter(|_| part.status == status && request.attempt != Attempt::Last);
        }
        Ok(())
    }

    /// Calls the handler once. A panic fails only this request.
    async fn handled(&self, request: &Request) -> Result<Response, Refusal> {
        match timeout(self.total, caught(self.handler.handle(request))).await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => {
                // The panic message itself was printed where it happened. This line ties it to the request.
                tracing::error!(request = request.id, "a handler panicked: this is a bug in locker");
                Ok(INTERNAL.into_response())
            }
            Err(_) => Err(TIMEOUT),
        }
    }

    /// Waits for a notice, the deadline, the stop, or the other end.
    async fn park<A: Asker>(&self, asker: &mut A, waiting: &Waiting, until: Instant) -> Result<Woken, A::End> {
        asker.parked()?;
        let _parked = self.lot.park(waiting);
        tokio::select! {
            biased;
            // Check this first: a client that has gone must not be granted anything.
            insisted = asker.insists() => insisted.map(|()| Woken::Insisted),
            () = self.stop.triggered() => Ok(Woken::Stop),
            () = waiting.subscription.taken() => Ok(Woken::Notice),
            () = sleep_until(until) => Ok(Woken::Deadline),
        }
    }
}

const TOO_MANY_LOGINS: Refusal = Refusal::new(
    429,
    "too_many_logins",
    "too many logins of this address have failed: these credentials were not looked at, wait and try again",
);

const TIMEOUT: Refusal =
    Refusal::new(503, "timeout", "the server took too long and may or may not have acted; ask again").retry_after(1);

const INTERNAL: Refusal = Refusal::new(500, "internal", "internal error");

/// Whole seconds for `Retry-After`, rounded up.
pub(super) fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
}

/// Drops what a parked request no longer needs: it has been authorized, and no handler reads its headers again.
fn shrink(request: &mut Request) {
    request.headers = Vec::new();
    request.body.shrink_to_fit();
}

/// The future's output, or `None` if it panics.
async fn caught(mut future: Answering<'_>) -> Option<Response> {
    poll_fn(|context| {
        // Handlers keep their state valid over a panic or have none, and the future is not used again afterwards.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(panic) => {
                // The panic's payload may itself panic when it is dropped.
                std::mem::forget(panic);
                Poll::Ready(None)
            }
        }
    })
    .await
}
