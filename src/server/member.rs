//! A server that shares its store with others: one of them leads and is the coordinator, the others follow it and pass
//! requests on to it (docs/cluster.md). One thread changes the role; the [`Forwarder`] is what the door sees of it.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::Failure as Down;
use super::coordinator::{Coordinator, Surroundings};
use super::door::Stop;
use super::http::Handler;
use super::link::{Advertised, Forwarder, Key, Lead, LinkServer, LinkSettings, There};
use super::routes;
use super::standing::{self, OwnMetrics};
use crate::store::Store as _;
use crate::store::failstop::FailStop;
use crate::store::log::Trouble;
use crate::store::log::address::LogAddress;
use crate::store::log::head::{Head, Id, Leader, Reign};
#[cfg(feature = "plant")]
use crate::store::log::plant::Plant;
use crate::store::shared::{Admitted, Follower, Look, Membership, Registry, SharedStore};
use crate::wire::escape::escape;

/// How long requests that came over links may take once this server hands over. Others wait to lead.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// How often a leader looks whether its door is stopping, and how many times before it hands over.
const STOP_LOOK: Duration = Duration::from_millis(100);
const STOP_LOOKS: u32 = 3;
/// How often the same trouble is logged, at most.
const TROUBLE: Duration = Duration::from_secs(30);
/// The pause after a state could not be loaded: long enough that another server may try.
const UNLOADED: Duration = Duration::from_secs(10);

/// One of several servers.
pub(super) struct Member {
    #[cfg(feature = "plant")]
    plant: Option<Plant>,
    forwarder: Arc<Forwarder>,
    registry: Arc<Registry>,
    events: Sender<Event>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// What ends a role.
enum Event {
    Stop,
    /// This server does not lead any more in this term. Two parts may find that out, one after the other.
    Lost {
        term: u64,
        error: anyhow::Error,
    },
}

impl Member {
    /// A server on a shared log, if the settings say that it is one. It follows until it may lead. `stop` is the door's.
    ///
    /// # Errors
    /// The address of the log is not valid, there is no place for a copy of the log, or links cannot be accepted. That the
    /// database does not answer is none: the server waits for it.
    pub fn open(around: &Surroundings, down: &Down, stop: &Stop) -> anyhow::Result<Option<Self>> {
        let settings = &around.settings;
        let Some(address) = LogAddress::parse(&settings.store) else { return Ok(None) };
        let link = settings.membership.link.as_deref().map(Link::open).transpose()?;
        let name = match (&link, &settings.membership.advertise) {
            (Some(link), address) => link.advertised(address.as_deref()).to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "a server without a name".to_owned(),
        };
        let address = address.map_err(anyhow::Error::msg)?;
        let address = if settings.membership.etcd_compact { address.compacted() } else { address };
        #[cfg(feature = "plant")]
        let address = match settings.membership.plant {
            Some(plant) => LogAddress::Planted(Box::new(address), plant),
            None => address,
        };
        let membership = Membership {
            address,
            me: Leader { name, run: Id::random().context("no random bytes")? },
            span: settings.membership.failover,
            cache: settings.membership.cache.clone(),
            seen: Arc::default(),
            rules: settings.equal_rules(),
            standing: Arc::default(),
        };
        let follower = Follower::new(membership.clone())?;
        let forwarder = Forwarder::start(around.notices.clone(), routes::is_repeatable)?;
        let links = link.as_ref().map(|link| Arc::clone(&link.links)).unwrap_or_default();
        let shared = standing::metrics_of(&membership.standing, forwarder.passing(), &links);
        let around = Surroundings { shared, standing: Some(Arc::clone(&membership.standing)), ..around.clone() };
        let forwarder = Arc::new(forwarder.with_own(OwnMetrics::guarded(&around)));
        let registry = Arc::new(Registry::start(&membership)?);
        let (events, received) = mpsc::channel();
        let roles = Roles {
            around,
            membership,
            registry: Arc::clone(&registry),
            forwarder: Arc::clone(&forwarder),
            link,
            known: None,
            stop: stop.clone(),
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
        Ok(Some(Self {
            #[cfg(feature = "plant")]
            plant: settings.membership.plant,
            forwarder,
            registry,
            events,
            thread,
        }))
    }

    /// What answers behind the door.
    pub fn handler(&self) -> Arc<dyn Handler> {
        #[cfg(feature = "plant")]
        if self.plant == Some(Plant::FollowerAnswers) {
            return Arc::new(super::link::plant::AnswersByItself::new(Arc::clone(&self.forwarder)));
        }
        Arc::clone(&self.forwarder) as Arc<dyn Handler>
    }

    /// Ends the role. If this server leads, it hands over.
    ///
    /// # Errors
    /// It has failed before.
    pub fn stop(self) -> anyhow::Result<()> {
        // If the thread has ended, it says why below.
        let _ = self.events.send(Event::Stop);
        let ended = self.thread.join();
        self.registry.stop();
        ended.unwrap_or_else(|_| bail!("the thread for the role has panicked: this is a bug in locker"))
    }
}

/// How the time ends in which a server follows.
enum Followed {
    Leads(Box<SharedStore>),
    /// It was its turn, and it has given up.
    CannotLead(anyhow::Error),
    Stopped,
}

/// The thread that changes the role.
struct Roles {
    around: Surroundings,
    membership: Membership,
    registry: Arc<Registry>,
    forwarder: Arc<Forwarder>,
    link: Option<Link>,
    /// The leader that the log has told of last.
    known: Option<There>,
    /// The door is stopping.
    stop: Stop,
    events: Receiver<Event>,
    lost: Sender<Event>,
    /// What was logged last, and when.
    trouble: Option<(String, Instant)>,
}

impl Roles {
    fn run(mut self, mut follower: Follower) -> anyhow::Result<()> {
        loop {
            let goes_on = match self.follow(follower)? {
                Followed::Leads(store) => self.lead(*store)?,
                Followed::CannotLead(error) => self.let_others_lead(&error),
                Followed::Stopped => false,
            };
            if !goes_on {
                return Ok(());
            }
            // With the same number, a take-over of an earlier time could be taken for one of this time.
            self.membership.me.run = Id::random().context("no random bytes")?;
            let Some(next) = self.next_follower() else { return Ok(()) };
            follower = next;
        }
    }

    /// Begins to follow again, once there is a place for the copy of the log. `None`: this server is stopped.
    fn next_follower(&mut self) -> Option<Follower> {
        loop {
            match Follower::new(self.membership.clone()) {
                Ok(follower) => return Some(follower),
                Err(error) => self.note_trouble(format!("{error:#}")),
            }
            if !self.pause(UNLOADED) {
                return None;
            }
        }
    }

    /// Follows until this server may lead.
    ///
    /// # Errors
    /// Its rules are not those of the server that leads.
    fn follow(&mut self, mut follower: Follower) -> anyhow::Result<Followed> {
        loop {
            match self.registry.admitted() {
                Admitted::Yes => match follower.look() {
                    Ok(Look::Leads(store)) => return Ok(Followed::Leads(store)),
                    Ok(Look::CannotLead(error)) => return Ok(Followed::CannotLead(error)),
                    Ok(Look::Follows { head }) => {
                        self.forwarder.set_trouble(None);
                        self.note_leader(head, follower.store_id());
                    }
                    Err(error) => {
                        self.forwarder.set_trouble(error.downcast_ref::<Trouble>().map(|trouble| trouble.cause));
                        self.note_trouble(format!("{error:#}"));
                    }
                },
                Admitted::NotYet(trouble) => trouble.into_iter().for_each(|trouble| self.note_trouble(trouble)),
                Admitted::No(unequal) => return Err(unequal.into()),
            }
            if !self.pause(follower.pause()) {
                return Ok(Followed::Stopped);
            }
        }
    }

    /// Leads until another server does. False: it is stopped.
    ///
    /// # Errors
    /// The engine has panicked, or links cannot be accepted.
    fn lead(&mut self, store: SharedStore) -> anyhow::Result<bool> {
        let (reign, store_id) = (store.reign(), store.store_id().to_owned());
        let leader = reign.leader();
        let (term, lost) = (leader.term, self.lost.clone());
        let failed = move |error| drop(lost.send(Event::Lost { term, error }));
        let told = failed.clone();
        reign.when_lost(move |why| told(why.into()));
        let coordinator = match Coordinator::start(Box::new(FailStop::new(store)), Some(reign), &self.around, failed) {
            Ok(coordinator) => coordinator,
            Err(error) => return Ok(self.let_others_lead(&error)),
        };
        (self.trouble, self.known) = (None, None);
        self.membership.standing.leads(self.membership.me.shown(), term);
        self.registry.announce();
        tracing::warn!(term, "this server leads");
        if let Some(imported) = &coordinator.imported {
            tracing::info!("{imported}");
        }
        let accept = |link: &Link| link.accept(&self.around, &coordinator.handler, leader, &store_id);
        let links = match self.link.as_ref().map(accept).transpose() {
            Ok(links) => links,
            Err(error) => return coordinator.stop().and(Err(error)),
        };
        self.forwarder.set_leader(Lead::Here(Arc::clone(&coordinator.handler)));
        let lost = self.until_over(term);
        if let Some(error) = &lost {
            tracing::error!(term, error = format!("{error:#}"), "this server no longer leads: it follows");
        }
        self.membership.standing.follows(lost.is_some());
        // What waits here is asked again at the next leader.
        self.forwarder.set_leader(Lead::Nobody);
        if let Some(links) = links {
            links.stop(LAST_ANSWERS);
        }
        coordinator.stop()?;
        Ok(lost.is_some())
    }

    /// Pauses after this server could not begin to lead. False: it is stopped.
    fn let_others_lead(&self, error: &anyhow::Error) -> bool {
        tracing::error!(error = format!("{error:#}"), "this server cannot lead: another one may");
        self.pause(UNLOADED)
    }

    /// Waits, whatever this server has heard of earlier terms. False: it is stopped.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Event::Lost { .. }) => {}
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Waits until this server is to lead no more: why it has lost this term, or `None` if it is stopped. When the door
    /// stops, it hands over soon, though a client may still be taking its last answer.
    fn until_over(&self, term: u64) -> Option<anyhow::Error> {
        let mut stops = 0;
        loop {
            match self.events.recv_timeout(STOP_LOOK) {
                Ok(Event::Lost { term: lost, error }) if lost == term => return Some(error),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.stop.is_triggered() => stops += 1,
                // Nothing, or news of an earlier term.
                Ok(Event::Lost { .. }) | Err(RecvTimeoutError::Timeout) => {}
            }
            if stops > STOP_LOOKS {
                return None;
            }
        }
    }

    fn note_leader(&mut self, head: Option<Head>, store_id: Option<&str>) {
        self.trouble = None;
        // A span of 0: it has given up.
        let head = head.filter(|head| head.span.0 > 0);
        let there = head.zip(store_id).map(|(head, store)| There::of(&head, store));
        if self.known == there {
            return;
        }
        match &there {
            Some(there) => {
                let leader = escape(there.leader.shown());
                tracing::warn!(term = there.term, leader, "this server follows");
            }
            None => tracing::warn!("nobody leads"),
        }
        self.forwarder.set_leader(there.clone().map_or(Lead::Nobody, Lead::There));
        self.known = there;
    }

    fn note_trouble(&mut self, text: String) {
        let is_known = self.trouble.as_ref().is_some_and(|(known, at)| *known == text && at.elapsed() < TROUBLE);
        if !is_known {
            tracing::warn!(error = text, "the log of the shared store cannot be followed: it is tried again");
            self.trouble = Some((text, Instant::now()));
        }
    }
}

/// Where links are accepted, and how this server proves that it is the one that leads.
struct Link {
    listener: TcpListener,
    key: Key,
    /// How many servers follow over it.
    links: Arc<AtomicUsize>,
}

impl Link {
    fn open(listen: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen for links on {listen}"))?;
        Ok(Self { listener, key: Key::random()?, links: Arc::default() })
    }

    /// What the others are told: `address`, or the one that it listens on.
    fn advertised(&self, address: Option<&str>) -> Advertised {
        let bound = self.listener.local_addr().map_or_else(|_| String::new(), |bound| bound.to_string());
        Advertised { address: address.map_or(bound, str::to_owned), key: self.key.public() }
    }

    fn accept(
        &self,
        around: &Surroundings,
        handler: &Arc<dyn Handler>,
        leader: Reign,
        store: &str,
    ) -> anyhow::Result<LinkServer> {
        let settings = LinkSettings {
            key: self.key.clone(),
            secret: leader.run,
            term: leader.term,
            store: store.to_owned(),
            handler: Arc::clone(handler),
            notices: around.notices.clone(),
            door: around.door.clone(),
            grace: LinkSettings::GRACE,
            greeting: LinkSettings::GREETING,
            links: Arc::clone(&self.links),
        };
        LinkServer::start(self.listener.try_clone().context("cannot listen for links")?, settings)
    }
}
