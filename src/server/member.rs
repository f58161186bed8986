//! A server that shares its store with others: one of them leads and is the coordinator, the others follow it
//! (docs/cluster.md). What it is at a moment is its [`Role`]; one thread changes it.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;

use super::Failure as Down;
use super::coordinator::{Coordinator, Surroundings};
use super::http::{Admitting, Answering, Handler, Request, Response};
use crate::core::names::ParkId;
use crate::store::failstop::FailStop;
use crate::store::log::address::LogAddress;
use crate::store::log::head::{Head, Id, Leader};
use crate::store::shared::{Follower, Look, Membership, SharedStore};
use crate::wire::errors::Code;
use crate::wire::problems::quoted;

/// How often the log says the same trouble in its own log, at most.
const TROUBLE: Duration = Duration::from_secs(30);
/// The pause after a state could not be loaded: long enough that another server may try.
const UNLOADED: Duration = Duration::from_secs(10);

/// What a server is now.
enum Role {
    /// Somebody else leads, as far as it knows.
    Follows {
        leader: Option<String>,
    },
    Leads(Arc<dyn Handler>),
}

/// One of several servers.
pub(super) struct Member {
    role: Arc<Switch>,
    events: Sender<Event>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// What ends a role.
enum Event {
    Stop,
    Lost(anyhow::Error),
}

impl Member {
    /// A server on a shared log, if the settings say that it is one. It follows until it may lead.
    ///
    /// # Errors
    /// The address of the log is not valid, or there is no place for a copy of the log. That the database does not answer
    /// is none: the server waits for it.
    pub fn open(around: &Surroundings, down: &Down) -> anyhow::Result<Option<Self>> {
        let settings = &around.settings;
        let Some(address) = LogAddress::parse(&settings.store) else { return Ok(None) };
        let name = settings.membership.advertise.clone().unwrap_or_else(|| "a server without --advertise".to_owned());
        let membership = Membership {
            address: address.map_err(anyhow::Error::msg)?,
            me: Leader { name, run: Id::random().context("no random bytes")? },
            span: settings.membership.failover,
            cache: settings.membership.cache.clone(),
            seen: Arc::default(),
        };
        let follower = Follower::new(membership.clone())?;
        let role = Arc::new(Switch(ArcSwap::from_pointee(Role::Follows { leader: None })));
        let (events, received) = mpsc::channel();
        let roles = Roles {
            around: around.clone(),
            membership,
            role: Arc::clone(&role),
            events: received,
            lost: events.clone(),
            trouble: None,
        };
        let down = down.clone();
        let run = move || {
            let ended = roles.run(follower);
            if let Err(error) = &ended {
                tracing::error!(error = format!("{error:#}"), "the server is going down");
                down.down(anyhow!("{error:#}"));
            }
            ended
        };
        let thread = thread::Builder::new().name("role".to_owned()).spawn(run)?;
        Ok(Some(Self { role, events, thread }))
    }

    /// What answers behind the door.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::clone(&self.role) as Arc<dyn Handler>
    }

    /// Ends the role. If this server leads, it hands over.
    ///
    /// # Errors
    /// It has failed before.
    pub fn stop(self) -> anyhow::Result<()> {
        // If the thread has ended, it says why below.
        let _ = self.events.send(Event::Stop);
        self.thread.join().unwrap_or_else(|_| bail!("the thread for the role has panicked: this is a bug in locker"))
    }
}

/// The thread that changes the role.
struct Roles {
    around: Surroundings,
    membership: Membership,
    role: Arc<Switch>,
    events: Receiver<Event>,
    lost: Sender<Event>,
    /// What was logged last, and when.
    trouble: Option<(String, Instant)>,
}

impl Roles {
    fn run(mut self, mut follower: Follower) -> anyhow::Result<()> {
        loop {
            let Some(store) = self.follow(follower) else { return Ok(()) };
            if !self.lead(store)? {
                return Ok(());
            }
            // With the same number, a take-over of an earlier time could be taken for one of this time.
            self.membership.me.run = Id::random().context("no random bytes")?;
            follower = Follower::new(self.membership.clone())?;
        }
    }

    /// Follows until this server may lead. `None`: it is stopped.
    fn follow(&mut self, mut follower: Follower) -> Option<SharedStore> {
        loop {
            match follower.look() {
                Ok(Look::Leads(store)) => return Some(*store),
                Ok(Look::Follows { head }) => self.note_leader(head),
                Err(error) => self.note_trouble(&error),
            }
            match self.events.recv_timeout(follower.pause()) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                // Of an earlier time.
                Ok(Event::Lost(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Leads until another server does. False: it is stopped.
    ///
    /// # Errors
    /// The engine has panicked.
    fn lead(&mut self, store: SharedStore) -> anyhow::Result<bool> {
        let (reign, term) = (store.reign(), store.reign().leader().term);
        let (lost, failed) = (self.lost.clone(), self.lost.clone());
        reign.when_lost(move |why| drop(lost.send(Event::Lost(why.into()))));
        let failed = move |error| drop(failed.send(Event::Lost(error)));
        let coordinator = match Coordinator::start(Box::new(FailStop::new(store)), Some(reign), &self.around, failed) {
            Ok(coordinator) => coordinator,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "this server cannot lead: another one may");
                return Ok(!matches!(self.events.recv_timeout(UNLOADED), Ok(Event::Stop)));
            }
        };
        self.trouble = None;
        tracing::warn!(term, "this server leads");
        if let Some(imported) = &coordinator.imported {
            tracing::info!("{imported}");
        }
        self.role.set(Role::Leads(Arc::clone(&coordinator.handler)));
        let event = self.events.recv();
        self.role.set(Role::Follows { leader: None });
        let goes_on = match event {
            Ok(Event::Lost(error)) => {
                tracing::error!(term, error = format!("{error:#}"), "this server leads no more: it follows");
                true
            }
            Ok(Event::Stop) | Err(_) => false,
        };
        // What waited here is asked again.
        self.around.notices.notify_all();
        coordinator.stop()?;
        Ok(goes_on)
    }

    fn note_leader(&mut self, head: Option<Head>) {
        self.trouble = None;
        let term = head.as_ref().map_or(0, |head| head.term);
        // A span of 0: it has given up.
        let name = head.filter(|head| head.span.0 > 0).map(|head| head.leader.name);
        let Role::Follows { leader: known } = &*self.role.0.load_full() else { return };
        if *known != name {
            match &name {
                Some(name) => tracing::warn!(term, leader = quoted(name), "this server follows"),
                None => tracing::warn!(term, "nobody leads"),
            }
            self.role.set(Role::Follows { leader: name });
        }
    }

    fn note_trouble(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let is_known = self.trouble.as_ref().is_some_and(|(known, at)| *known == text && at.elapsed() < TROUBLE);
        if !is_known {
            tracing::warn!(error = text, "the log of the shared store cannot be followed: it is tried again");
            self.trouble = Some((text, Instant::now()));
        }
    }
}

/// Answers as the role of the server has it.
struct Switch(ArcSwap<Role>);

impl Switch {
    fn set(&self, role: Role) {
        self.0.store(Arc::new(role));
    }
}

impl Handler for Switch {
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a> {
        let role = self.0.load_full();
        Box::pin(async move {
            match &*role {
                Role::Leads(handler) => handler.admit(request).await,
                Role::Follows { leader } => Err(following(leader.as_deref(), &request.path)),
            }
        })
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        let role = self.0.load_full();
        Box::pin(async move {
            match &*role {
                // Whatever is parked was admitted by a coordinator of this process, with the same rules.
                Role::Leads(handler) => handler.handle(request).await,
                Role::Follows { leader } => following(leader.as_deref(), &request.path),
            }
        })
    }

    fn left(&self, park: ParkId) {
        if let Role::Leads(handler) = &*self.0.load_full() {
            handler.left(park);
        }
    }
}

/// The answer of a server that does not lead.
fn following(leader: Option<&str>, path: &str) -> Response {
    if path == "/healthz" {
        return Response::new(200, br#"{"status":"ok"}"#.to_vec());
    }
    let text = match leader {
        Some(name) => format!("this server does not lead, {} does: ask there, or again in a moment", quoted(name)),
        None => "no server leads at the moment: ask again in a moment".to_owned(),
    };
    super::routes::refused(Code::NoLeader, text)
}
