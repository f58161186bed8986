//! The end of the server that follows: it passes the requests of its clients on to the server that leads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::dialing::{self, There};
use super::known::Known;
use super::limits::LINK_LAST_MS;
use super::table::{Asked, Seen, Table, Taken, no_leader};
use crate::core::limits::WAIT_MS;
use crate::core::names::ParkId;
use crate::core::time::Span;
use crate::server::door::Refusal;
use crate::server::http::{Admission, Admitting, Answering, Attempt, Handler, Request, Response};
use crate::server::notices::Notices;
use crate::server::pages::nobody_leads;
use crate::server::routes::refused;
use crate::store::log::Cause;
use crate::wire::errors::Code;

/// Who leads, as far as this server knows.
#[derive(Clone)]
pub enum Lead {
    Nobody,
    /// Another server.
    There(There),
    /// This one, with its guard and routes.
    Here(Arc<dyn Handler>),
}

/// Whether a request that is asked twice does what it does once.
pub type Repeatable = fn(&Request) -> bool;

/// The handler of the door of a server that may lead or follow: it calls this server's own handler while it leads, and
/// passes requests on to the leader while it follows. Whoever is parked stays parked while that changes.
pub struct Forwarder {
    shared: Arc<Shared>,
    /// Answers [`METRICS`] while another server leads.
    own: Option<Arc<dyn Handler>>,
    /// Why nobody leads.
    trouble: Mutex<Option<Cause>>,
    lead: watch::Sender<Option<There>>,
}

/// The requests that a server passes on. Cheap to clone.
#[derive(Clone)]
pub struct Passing(Arc<Shared>);

impl Passing {
    /// Whether requests can be passed on.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.0.table().is_linked()
    }

    /// How many requests have been passed on, or wait for a leader, and are not answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.table().len()
    }
}

/// What the door and the link of a server that follows share.
pub(super) struct Shared {
    table: Mutex<Table>,
    pub notices: Notices,
    pub known: Known,
    repeatable: Repeatable,
    /// Tells this start of this server from others.
    pub server: u128,
}

impl Shared {
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened to these requests, some of which may be parked.
    pub fn notify(&self, numbers: impl IntoIterator<Item = u64>) {
        numbers.into_iter().for_each(|number| self.notices.notify(ParkId(number)));
    }
}

impl Forwarder {
    /// A server of which nobody leads yet. `notices` are those of its door. The thread of its link ends when this is
    /// dropped.
    ///
    /// # Errors
    /// The system has no thread for the link, or no random bytes.
    pub fn start(notices: Notices, repeatable: Repeatable) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot wait for the link to the leader")?;
        let server = crate::store::log::head::Id::random().map_err(|error| anyhow::anyhow!("{error}"))?.0;
        let (table, known) = (Mutex::default(), Known::default());
        let shared = Arc::new(Shared { table, notices, known, repeatable, server });
        let (lead, follows) = watch::channel(None);
        let of_link = Arc::clone(&shared);
        thread::Builder::new()
            .name("link".into())
            .spawn(move || runtime.block_on(dialing::follow(&of_link, follows)))
            .context("cannot start the thread for the link to the leader")?;
        Ok(Self { shared, own: None, trouble: Mutex::default(), lead })
    }

    /// Says who leads now. May be called by any thread, and again with the same; it does not block.
    pub fn set_leader(&self, lead: Lead) {
        let (here, there) = match lead {
            Lead::Nobody => (None, None),
            Lead::There(there) => (None, Some(there)),
            Lead::Here(handler) => (Some(handler), None),
        };
        let is_other = *self.lead.borrow() != there;
        let mut table = self.shared.table();
        let is_same_here = match (&table.here, &here) {
            (None, None) => true,
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let mut changed = Vec::new();
        if is_other || !is_same_here {
            let link = table.generation();
            changed.extend(table.broken(link, Instant::now()));
        }
        table.here = here;
        if !is_same_here {
            changed.extend(table.moved(Instant::now()));
        }
        drop(table);
        if is_other {
            self.lead.send_replace(there);
        }
        self.shared.notify(changed);
    }

    /// The same, with a handler for the metrics of this server while another one leads.
    #[must_use]
    pub fn with_own(self, own: Arc<dyn Handler>) -> Self {
        Self { own: Some(own), ..self }
    }

    /// What it passes on.
    #[must_use]
    pub fn passing(&self) -> Passing {
        Passing(Arc::clone(&self.shared))
    }

    /// Says why nobody leads, as far as this server knows.
    pub fn set_trouble(&self, trouble: Option<Cause>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The answer to a request that no leader has taken, for programs or for people, with the reason.
    fn nobody(&self, request: &Request) -> Response {
        let trouble = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let why = trouble.map(Cause::words);
        let is_page = request.header("accept").is_some_and(|accepted| accepted.contains("text/html"));
        match why {
            _ if is_page && reads(request) => nobody_leads(why),
            Some(why) => refused(Code::NoLeader, format!("no server leads at the moment: {why}; ask again")),
            None => no_leader(),
        }
    }

    /// What answers this request although this server does not lead, behind a guard of its own.
    fn own(&self, request: &Request) -> Option<&Arc<dyn Handler>> {
        let is_own = reads(request) && request.path == METRICS && self.shared.table().here.is_none();
        self.own.as_ref().filter(|_| is_own)
    }

    /// The answers of this server about itself, while another one leads.
    fn about_itself(&self, request: &Request) -> Option<Response> {
        let route = [HEALTH, READY].into_iter().find(|path| reads(request) && request.path == *path)?;
        let is_well = route == HEALTH || self.shared.table().is_linked();
        let response = if is_well { Response::new(200, br#"{"status":"ok"}"#.to_vec()) } else { no_leader() };
        Some(Response { route: Some(route), ..response })
    }

    /// Passes a request on, or gives it to this server's own handler, and waits until it is answered or parked.
    async fn first(&self, request: &Request) -> Response {
        let number = request.park.0;
        let here = self.shared.table().here.clone();
        if let Some(here) = here.filter(|_| request.admitted) {
            let response = here.handle(request).await;
            if goes_on(&response) && request.can_park {
                self.keep_here(request.clone(), None, &response);
            }
            return response;
        }
        let (is_repeatable, client) = ((self.shared.repeatable)(request), self.shared.known.client(request));
        let Ok(asked) = Asked::new(request, is_repeatable, client) else { return TOO_LARGE.into_response() };
        if !self.shared.table().ask(number, asked, Instant::now()) {
            return NO_ROOM.into_response();
        }
        self.wait(request, None).await
    }

    /// Waits for the answer; if there is a `limit`, until then, and otherwise until the leader has parked the request.
    async fn wait(&self, request: &Request, limit: Option<Instant>) -> Response {
        let number = request.park.0;
        loop {
            let seen = self.shared.table().look(number, limit.is_some(), Instant::now());
            let (changed, until) = match seen {
                Seen::Ready(response) => return response,
                Seen::Here(taken) => return self.answer_here(taken, request).await,
                Seen::Parked { .. } if request.can_park && limit.is_none() => return parked(),
                Seen::Parked { changed } => (changed, limit),
                Seen::Nothing { changed, until } => (changed, limit.or(until)),
                Seen::Unknown => return no_leader(),
            };
            let waited = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed.notified() => {}
                () = waited => if limit.is_some() {
                    return self.shared.table().give_up(number).unwrap_or_else(no_leader);
                }
            }
        }
    }

    /// Looks whether there is an answer to a request that is parked.
    async fn again(&self, request: &Request) -> Response {
        let seen = self.shared.table().look(request.park.0, true, Instant::now());
        match seen {
            Seen::Ready(response) => response,
            Seen::Here(taken) => self.answer_here(taken, request).await,
            Seen::Parked { .. } | Seen::Nothing { .. } => parked(),
            Seen::Unknown => no_leader(),
        }
    }

    /// The request is not parked any longer: waits a moment for its answer.
    async fn last(&self, request: &Request) -> Response {
        let limit = if self.shared.table().insist(request.park.0) {
            Duration::from_millis(LINK_LAST_MS)
        } else {
            Duration::ZERO
        };
        self.wait(request, Some(Instant::now() + limit)).await
    }

    /// Has a request answered by this server's own handler. If that parks it, it can still be passed on later.
    async fn answer_here(&self, taken: Taken, request: &Request) -> Response {
        let Taken { here, asked, admitted } = taken;
        let mut own = match admitted {
            Some(own) => Request { attempt: request.attempt, ..*own },
            None => {
                let Some(mut own) = asked.request() else { return TOO_LARGE.into_response() };
                if let Err(refused) = here.admit(&mut own).await {
                    return refused;
                }
                own
            }
        };
        own.can_park = request.can_park && request.attempt != Attempt::Last;
        let response = here.handle(&own).await;
        if goes_on(&response) && own.can_park {
            self.keep_here(own, Some(asked), &response);
        }
        response
    }

    fn keep_here(&self, request: Request, asked: Option<Arc<Asked>>, response: &Response) {
        let (number, streaming) = (request.park.0, response.stream.map(|_| response.status));
        let asked = asked.or_else(|| {
            let (is_repeatable, client) = ((self.shared.repeatable)(&request), self.shared.known.client(&request));
            Asked::new(&request, is_repeatable, client).ok().map(Arc::new)
        });
        let Some(asked) = asked else { return };
        let must_look = self.shared.table().keep_here(number, asked, request, streaming);
        if must_look {
            self.shared.notify([number]);
        }
    }
}

const HEALTH: &str = "/healthz";
const READY: &str = "/readyz";
const METRICS: &str = "/metrics";

fn reads(request: &Request) -> bool {
    matches!(request.method.as_str(), "GET" | "HEAD")
}

const TOO_LARGE: Refusal = Refusal::new(431, "head_too_large", "the head of this request is too large to be passed on");

const NO_ROOM: Refusal = Refusal::busy("too many requests wait for the leader");

fn goes_on(response: &Response) -> bool {
    response.park.is_some() || response.stream.is_some()
}

/// The request waits at its leader.
fn parked() -> Response {
    Response { park: Some(Span(WAIT_MS)), ..no_leader() }
}

impl Handler for Forwarder {
    /// While another server leads, it decides. A client whose credentials it has accepted before is known; any other is a
    /// guest until its request is parked.
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a> {
        Box::pin(async {
            if let Some(own) = self.own(request) {
                return own.admit(request).await;
            }
            let here = self.shared.table().here.clone();
            match here {
                Some(here) => here.admit(request).await,
                None if self.shared.known.is_known(self.shared.known.client(request)) => Ok(Admission::Client),
                None => Ok(Admission::Public),
            }
        })
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        Box::pin(async {
            if let Some(own) = self.own(request) {
                return own.handle(request).await;
            }
            let is_here = self.shared.table().here.is_some();
            if let Some(response) = self.about_itself(request).filter(|_| !is_here) {
                return response;
            }
            let response = match request.attempt {
                Attempt::First => self.first(request).await,
                Attempt::Notified => self.again(request).await,
                Attempt::Last => self.last(request).await,
            };
            // What is parked has the same body, which nobody gets.
            if response.park.is_none() && response.body == no_leader().body { self.nobody(request) } else { response }
        })
    }

    fn left(&self, park: ParkId) {
        let mut table = self.shared.table();
        table.give_up(park.0);
        let here = table.here.clone();
        drop(table);
        if let Some(here) = here {
            here.left(park);
        }
    }
}
