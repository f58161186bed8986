//! Two servers share a log: one leads, the other one takes over. This is the protocol for shared stores.
//!
//! Two clients claim one lock and release it, and a third one asks who holds it. Writes to the store and their answers
//! are lost, delayed before or after they take effect, and delivered twice; the clock of the first leader stands still
//! at any time. Whether a server acts is always open, so a server may be slow, stopped, cut off from the store or from
//! its clients for as long as it takes.
//!
//! The store is in `leaders/store.rs`, a server in `leaders/server.rs`. [`Without`] has the rules.

mod searches;
mod server;
mod store;

use std::hash::Hash;

use stateright::{Model, Property};

use server::{Request, Role, Server, Told};
use store::{ClientId, Fence, Lock, Standby, Store};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// All rules are there.
    Nothing,
    /// A take-over compares the beat, too.
    Beat,
    /// A beat never lowers the number of the head's beat.
    Rising,
    /// Appends and beats compare the term.
    Term,
    /// Appends and beats compare the record at the head.
    Record,
    /// An answer rests on a write that was sent after the request had arrived.
    SentAfter,
    /// An answer rests on a write. Left out: the lease vouches for it.
    Beats,
    /// A batch is answered when its append was acknowledged.
    Acknowledgement,
    /// A batch whose outcome is unknown is sent again with the same id.
    SameId,
    /// It is sent again with the same content.
    SameContent,
    /// A record that was only read counts after a write that was acknowledged.
    DecidingBeat,
    /// An acknowledgement speaks for the write that it answers, not for a repeat of it.
    OwnAnswer,
    /// The lease counts from before the write was sent.
    CountedFromSending,
    /// A follower compares the predecessor's id.
    Predecessor,
    /// Fences start above everything that the server has ever seen.
    Newest,
}

/// How often each thing may happen, beside what has no limit: delays, losses, ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bounds {
    /// How often each client sends its claim.
    claims: [u8; CLIENTS],
    /// How often somebody asks who holds the lock.
    questions: u8,
    beats: u8,
    repeats: u8,
    take_overs: u8,
    restarts: u8,
    /// How often a write is delivered twice.
    copies: u8,
    promotions: u8,
    /// How often a standby that is not synchronous catches up.
    replicas: u8,
}

const SERVERS: usize = 2;
const CLIENTS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clocks {
    /// They say nothing: a server may take over at any time, and a lease never ends. What is true then rests on no clock.
    Useless,
    Run,
    /// The clock of the first leader may stand still.
    MayStandStill,
}

struct Leaders {
    without: Without,
    standby: Standby,
    bounds: Bounds,
    clocks: Clocks,
    /// In ticks.
    span: u8,
    /// Only this property is looked at.
    only: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    New,
    /// It has asked this server.
    Asking(usize),
    /// It was answered that it holds the lock.
    Holding(Fence),
    Released,
}

#[allow(clippy::struct_excessive_bools, reason = "each is something that has happened or not")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Now {
    store: Store,
    servers: [Server; SERVERS],
    clients: [Client; CLIENTS],
    left: Bounds,
    /// The records so far.
    records: u8,
    /// The length of the log that was acknowledged to a server.
    acknowledged: usize,
    has_stood_still: bool,
    has_lied: bool,
    has_missed: bool,
    has_decided: bool,
    /// A fence was given by a server that had seen it, or a newer one.
    has_repeated: bool,
    /// A fence was given that only the other server had seen.
    has_repeated_unseen: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Claim(ClientId, usize),
    Release(ClientId, usize),
    Question(usize),
    /// A leader sends what it has, or a beat.
    Lead(usize),
    /// A write arrives at the store. The flag says whether a copy of it may still come.
    Arrive(usize, bool),
    /// The answer arrives at its server.
    Hear(usize),
    Look(usize),
    TakeOver(usize),
    /// A leader drops its state, or is killed and started again.
    StepDown(usize),
    /// Time passes. The flag says whether the clock of the first leader stands still.
    Tick(bool),
    Replicate,
    Promote,
}

impl Now {
    /// Something may have changed in the log.
    fn see_truth(&mut self) {
        let bit = Lock::of(&self.store.disk.log).bit();
        let waiting = self.servers.iter_mut().flat_map(|server| &mut server.waiting);
        waiting.for_each(|one| one.truths |= bit);
        self.tidy();
    }

    /// Makes states equal that differ in nothing that matters: old answers and the numbers of writes.
    fn tidy(&mut self) {
        let Store { sent, answers, .. } = &mut self.store;
        let servers = &mut self.servers;
        let awaits = |n: usize, number| servers[n].outstanding.iter().any(|write| write.number == number);
        answers.retain(|answer| awaits(answer.to, answer.number));
        sent.iter_mut().filter(|write| !awaits(write.from, write.number)).for_each(|write| write.number = 0);
        for (n, server) in servers.iter_mut().enumerate() {
            server.renumber(|old, new| {
                let mine = sent.iter_mut().filter(|write| write.from == n && write.number == old);
                mine.for_each(|write| write.number = new);
                let mine = answers.iter_mut().filter(|answer| answer.to == n && answer.number == old);
                mine.for_each(|answer| answer.number = new);
            });
        }
        sent.sort();
        answers.sort();
    }

    fn ask(&mut self, server: usize, request: Request, without: Without) {
        let truths = Lock::of(&self.store.disk.log).bit();
        let told = self.servers[server].arrive(request, truths, self.acknowledged, without);
        self.tell(server, &told);
    }

    /// The clients get their answers.
    fn tell(&mut self, server: usize, told: &[Told]) {
        for Told { request, lock, truths, is_current } in told {
            self.has_lied |= truths & lock.bit() == 0;
            self.has_missed |= !is_current;
            let Request::Claim(n) = *request else { continue };
            if self.clients[n] == Client::Asking(server) {
                self.clients[n] = match lock.holder {
                    Some((holder, fence)) if holder == n => Client::Holding(fence),
                    _ => Client::New,
                };
            }
        }
    }

    fn hear(&mut self, at: usize, without: Without) {
        let answer = self.store.answers.remove(at);
        let server = &mut self.servers[answer.to];
        let was_unknown = matches!(&server.role, Role::Leader { pending: Some(pending), .. } if pending.is_seen);
        let told = server.hear(&answer, &self.store.disk, without);
        let is_decided = matches!(server.role, Role::Leader { pending: None, .. });
        self.has_decided |= was_unknown && is_decided;
        if server.leads() {
            self.acknowledged = self.acknowledged.max(server.log.len());
        }
        self.tell(answer.to, &told);
    }

    fn lead(&mut self, n: usize, without: Without) {
        let is_set_back = self.left.promotions == 0 && self.store.kind == Standby::None;
        let Self { servers, store, records, .. } = self;
        let newest = servers[n].newest;
        let is_new = matches!(servers[n].role, Role::Leader { pending: None, .. });
        let fresh = || {
            *records += 1;
            *records
        };
        let told = servers[n].lead(n, store, fresh, without);
        if let (true, Role::Leader { pending: Some(pending), .. }) = (is_new, &servers[n].role) {
            let fence = Lock::of(std::slice::from_ref(&pending.record)).fence;
            self.has_repeated |= fence != 0 && fence <= newest;
            let elsewhere = servers.iter().map(|server| Lock::of(&server.log).fence).max().unwrap_or_default();
            self.has_repeated_unseen |= is_set_back && fence != 0 && fence <= elsewhere;
        }
        self.tell(n, &told);
    }
}

impl Leaders {
    fn clients_act(now: &Now, n: ClientId, actions: &mut Vec<Action>) {
        for s in 0..SERVERS {
            let is_free = |request| now.servers[s].waiting.iter().all(|waiting| waiting.request != request);
            if !now.servers[s].leads() {
                continue;
            }
            match now.clients[n] {
                Client::New | Client::Asking(_) if now.left.claims[n] > 0 && is_free(Request::Claim(n)) => {
                    actions.push(Action::Claim(n, s));
                }
                Client::Holding(_) if is_free(Request::Release(n)) => actions.push(Action::Release(n, s)),
                _ => {}
            }
        }
    }

    /// Whether it matters when a follower looks. If not, it looks when it takes over.
    fn looks(&self) -> bool {
        self.clocks != Clocks::Useless || self.standby == Standby::Asynchronous
    }

    fn may_take_over(&self, now: &Now, n: usize) -> bool {
        match now.servers[n].role {
            _ if now.left.take_overs == 0 => false,
            Role::Leader { .. } => false,
            _ if !self.looks() => true,
            // It looks once more before it tries.
            Role::Follower { same } => {
                (same >= now.servers[n].seen.span || self.clocks == Clocks::Useless)
                    && now.servers[n].seen == now.store.disk.head
            }
            Role::Candidate => false,
        }
    }

    fn servers_act(&self, now: &Now, n: usize, actions: &mut Vec<Action>) {
        let without = self.without;
        let (server, left) = (&now.servers[n], &now.left);
        let head = now.store.disk.head;
        match &server.role {
            Role::Leader { pending, .. } => {
                let allowed = match pending {
                    Some(pending) if !pending.is_seen => left.repeats > 0,
                    // The first write of a batch has no limit but that of the claims.
                    None if server.changes(without) => true,
                    _ => left.beats > 0,
                };
                actions.extend(allowed.then_some(Action::Lead(n)));
                actions.extend((left.questions > 0).then_some(Action::Question(n)));
                actions.extend((left.restarts > 0).then_some(Action::StepDown(n)));
            }
            Role::Candidate | Role::Follower { .. } => {
                actions.extend((self.looks() && server.seen != head).then_some(Action::Look(n)));
                actions.extend(self.may_take_over(now, n).then_some(Action::TakeOver(n)));
            }
        }
    }
}

impl Model for Leaders {
    type State = Now;
    type Action = Action;

    fn init_states(&self) -> Vec<Now> {
        let store = Store::new(self.standby, self.span);
        let head = store.disk.head;
        let leader = Server::new(Role::Leader { pending: None, lease: 0 }, head);
        vec![Now {
            servers: [leader, Server::new(Role::Follower { same: 0 }, head)],
            store,
            clients: [Client::New; CLIENTS],
            left: self.bounds,
            records: 0,
            acknowledged: 0,
            has_stood_still: false,
            has_lied: false,
            has_missed: false,
            has_decided: false,
            has_repeated: false,
            has_repeated_unseen: false,
        }]
    }

    fn actions(&self, now: &Now, actions: &mut Vec<Action>) {
        (0..CLIENTS).for_each(|n| Self::clients_act(now, n, actions));
        (0..SERVERS).for_each(|n| self.servers_act(now, n, actions));
        for at in 0..now.store.sent.len() {
            actions.push(Action::Arrive(at, false));
            actions.extend((now.left.copies > 0).then_some(Action::Arrive(at, true)));
        }
        for (at, answer) in now.store.answers.iter().enumerate() {
            actions.extend(now.store.gives(answer).then_some(Action::Hear(at)));
        }
        actions.extend((self.clocks != Clocks::Useless).then_some(Action::Tick(false)));
        actions.extend((self.clocks == Clocks::MayStandStill).then_some(Action::Tick(true)));
        if now.store.kind != Standby::None {
            let is_behind = now.store.standby != now.store.disk;
            let may_catch_up = is_behind && (now.store.kind == Standby::Synchronous || now.left.replicas > 0);
            actions.extend(may_catch_up.then_some(Action::Replicate));
            actions.extend((is_behind && now.left.promotions > 0).then_some(Action::Promote));
        }
    }

    fn next_state(&self, last: &Now, action: Action) -> Option<Now> {
        let mut now = last.clone();
        let without = self.without;
        match action {
            Action::Claim(n, s) => {
                now.left.claims[n] -= 1;
                now.clients[n] = Client::Asking(s);
                now.ask(s, Request::Claim(n), without);
            }
            Action::Release(n, s) => {
                now.clients[n] = Client::Released;
                now.ask(s, Request::Release(n), without);
            }
            Action::Question(s) => {
                now.left.questions -= 1;
                now.ask(s, Request::Who, without);
            }
            Action::Lead(n) => {
                match &now.servers[n].role {
                    Role::Leader { pending: Some(pending), .. } if !pending.is_seen => now.left.repeats -= 1,
                    Role::Leader { pending: None, .. } if now.servers[n].changes(without) => {}
                    _ => now.left.beats -= 1,
                }
                now.lead(n, without);
            }
            Action::Arrive(at, again) => {
                let sent = if again { now.store.sent[at].clone() } else { now.store.sent.remove(at) };
                now.left.copies -= u8::from(again);
                now.store.deliver(&sent, without);
            }
            Action::Hear(at) => now.hear(at, without),
            Action::Look(n) => now.servers[n].look(&now.store.disk, without),
            Action::TakeOver(n) => {
                now.left.take_overs -= 1;
                if !self.looks() {
                    now.servers[n].look(&now.store.disk, without);
                }
                now.servers[n].take_over(n, &mut now.store);
            }
            Action::StepDown(n) => {
                now.left.restarts -= 1;
                now.servers[n].step_down(&now.store.disk, without);
            }
            Action::Tick(stands_still) => {
                now.servers.iter_mut().skip(usize::from(stands_still)).for_each(Server::tick);
                now.has_stood_still |= stands_still && now.servers[1] != last.servers[1];
            }
            Action::Replicate => {
                now.left.replicas -= u8::from(now.store.kind == Standby::Asynchronous);
                now.store.replicate();
            }
            Action::Promote => {
                now.left.promotions -= 1;
                now.store.promote();
            }
        }
        now.see_truth();
        now.store.tidy(without);
        (now != *last).then_some(now)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all = vec![
            Property::always(ONE, |_, now: &Now| {
                now.clients.iter().filter(|client| matches!(client, Client::Holding(_))).count() <= 1
            }),
            Property::always(STAYS, |_, now: &Now| {
                let holder = Lock::of(&now.store.disk.log).holder;
                now.clients.iter().enumerate().all(|(n, client)| match client {
                    Client::Holding(fence) => holder == Some((n, *fence)),
                    _ => true,
                })
            }),
            Property::always(TRUE, |_, now: &Now| !now.has_lied),
            Property::always(SEES, |_, now: &Now| !now.has_missed),
            Property::always(CHAIN, |_, now: &Now| {
                let ids = std::iter::once(0).chain(now.store.disk.log.iter().map(|record| record.id));
                now.store.disk.log.iter().zip(ids).all(|(record, before)| record.before == before)
            }),
            Property::always(ONCE, |_, now: &Now| {
                let log = &now.store.disk.log;
                log.iter().enumerate().all(|(n, record)| log[..n].iter().all(|other| other.batch != record.batch))
            }),
            Property::always(PAGES, |_, now: &Now| {
                let is_current = |server: &Server| !server.has_lease() || server.log.len() >= now.acknowledged;
                now.servers.iter().enumerate().all(|(n, server)| n == 0 && now.has_stood_still || is_current(server))
            }),
            Property::always(GROW, |_, now: &Now| !now.has_repeated),
            Property::sometimes(AFTER, |_, now: &Now| {
                now.store.disk.head.term > 1 && matches!(now.clients[1], Client::Holding(_))
            }),
            Property::sometimes(AGAIN, |_, now: &Now| now.has_repeated_unseen),
            Property::sometimes(DECIDED, |_, now: &Now| now.has_decided),
        ];
        let is_asked = |property: &Property<Self>| match self.only {
            Some(only) => property.name == only,
            None if property.name == PAGES => self.clocks != Clocks::Useless,
            None if property.name == AFTER => self.bounds.claims[1] > 0 && self.bounds.take_overs > 0,
            None if property.name == DECIDED => self.standby != Standby::Asynchronous && self.bounds.beats > 0,
            None if property.name == AGAIN => self.standby == Standby::Asynchronous,
            None => self.standby != Standby::Asynchronous || WHEN_SET_BACK.contains(&property.name),
        };
        all.into_iter().filter(is_asked).collect()
    }
}

const ONE: &str = "two clients are never both answered that they hold the lock";
const STAYS: &str = "a grant that was answered stays in the log";
const TRUE: &str = "an answer was true at some moment after its request had arrived";
const SEES: &str = "an answer shows what was acknowledged before its request arrived";
const CHAIN: &str = "each record in the log follows its predecessor";
const ONCE: &str = "a batch is in the log once";
const PAGES: &str = "a page under a lease shows all that was answered, unless that server's clock stood still";
const GROW: &str = "no server gives a fence that it has seen";
const AFTER: &str = "a lock is granted after a take-over";
/// Not promised: only the clocks by which leaders begin their fences keep this from happening.
const AGAIN: &str = "a log that was set back gives a fence again that only the other server has seen";
const DECIDED: &str = "an append whose outcome was unknown is in the log";
/// What holds when the log may be set back.
const WHEN_SET_BACK: [&str; 5] = [TRUE, CHAIN, ONCE, GROW, AFTER];
