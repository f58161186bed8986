//! A lock goes from client to client: offer, confirmation, lost answers, lost listeners, withdrawal, late confirmation.
//!
//! Two clients ask for one lock, wait with a parked request or without, get the grant or miss it, and confirm in time
//! or late. Each may die at any moment before it has confirmed (after that, the scope of its hold decides).

use std::hash::{Hash, Hasher};

use locker::core::claim::Claim;
use locker::core::command::{Refusal, Reply, Wait};
use locker::core::names::{Fence, ParkId};
use locker::core::settings::{Plant, Settings};
use locker::core::time::Span;
use stateright::{Model, Property};

use super::server::{Asking, Server, claim};
use super::{digest, search};

const CLIENTS: usize = 2;
/// In milliseconds, one for each tick: the smallest values that still differ.
const LISTEN: u64 = 2;
const CONFIRM: u64 = 3;

struct HandOff {
    /// Whether a grant must be confirmed.
    confirm: bool,
    plant: Plant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// It has not asked, or must ask again.
    Asking,
    /// The server has parked its request.
    Parked(ParkId),
    /// It knows of its grant.
    Granted(Fence),
    /// It knows that the server has its confirmation.
    Holding(Fence),
    Done,
    /// It died. Its request may still be parked.
    Dead(Option<ParkId>),
}

#[derive(Clone, Debug)]
struct Now {
    server: Server,
    clients: [Client; CLIENTS],
    /// The server has accepted its confirmation, whether the client knows or not.
    confirmed: [bool; CLIENTS],
    /// The ticks for which a live, parked client has waited for a dead one.
    stalled: u64,
    newest_fence: Fence,
    fence_shrank: bool,
    late_confirm: bool,
    withdrawn: bool,
}

// Fences and the numbers of parked requests grow without limit. Only one thing matters: whether the fence that a client
// knows is still valid.
impl Hash for Now {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.server.hash(hasher);
        for (n, client) in self.clients.iter().enumerate() {
            match client {
                Client::Granted(fence) => (1u8, self.fence_of(n) == Some(*fence)).hash(hasher),
                Client::Holding(fence) => (2u8, self.fence_of(n) == Some(*fence)).hash(hasher),
                Client::Dead(park) => (3u8, park.is_some()).hash(hasher),
                other => std::mem::discriminant(other).hash(hasher),
            }
        }
        (self.confirmed, self.stalled, self.fence_shrank, self.late_confirm, self.withdrawn).hash(hasher);
    }
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        digest(self) == digest(other)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Asks. The flag says whether it gets the answer.
    Ask(usize, bool),
    /// Asks, and is ready to wait.
    Park(usize, bool),
    /// A parked request runs again, because of a notice or because its time is over.
    Wake(usize, bool),
    /// The connection of a parked request breaks, and both sides notice.
    Cut(usize),
    Confirm(usize, bool),
    Release(usize),
    Die(usize),
    Tick,
}

impl Now {
    fn fence_of(&self, n: usize) -> Option<Fence> {
        self.server.fence(n)
    }

    /// The client gets the answer to its request, or does not.
    fn answered(&mut self, n: usize, park: Option<ParkId>, reply: Result<Reply, Refusal>, heard: bool) {
        let alive = !matches!(self.clients[n], Client::Dead(_));
        let fence = match &reply {
            Ok(Reply::Claim { claim, .. }) => claim.fence(),
            _ => None,
        };
        if let Some(fence) = fence {
            self.fence_shrank |= fence < self.newest_fence;
            self.newest_fence = self.newest_fence.max(fence);
        }
        let held = |claim: &Claim| !claim.waits() && claim.timer().is_none();
        let next = match reply {
            Ok(Reply::Claim { parked: true, .. }) => park.map_or(Client::Asking, Client::Parked),
            Ok(Reply::Claim { claim, .. }) if heard => match claim.fence() {
                Some(fence) if held(&claim) => Client::Holding(fence),
                Some(fence) => Client::Granted(fence),
                None => Client::Asking,
            },
            Ok(_) => Client::Asking,
            // It has ended. The client learns this now or with the next answer.
            Err(_) if heard => Client::Done,
            Err(_) => Client::Asking,
        };
        self.clients[n] = match next {
            _ if !alive => Client::Dead(if let Client::Parked(park) = next { Some(park) } else { None }),
            next => next,
        };
    }

    /// Whether a live client waits, parked, while a dead client or no client has the lock.
    fn is_stalled(&self) -> bool {
        let waits = self.clients.iter().any(|client| matches!(client, Client::Parked(_)));
        let holder = self.server.holder();
        let dead = |n: usize| matches!(self.clients[n], Client::Dead(_));
        let by_dead = (0..CLIENTS).any(|n| dead(n) && holder.as_ref() == Some(&claim(n)));
        waits && (holder.is_none() || by_dead)
    }
}

impl HandOff {
    fn asking(&self) -> Asking {
        Asking { confirm: self.confirm, lease: None }
    }
}

impl Model for HandOff {
    type State = Now;
    type Action = Action;

    fn init_states(&self) -> Vec<Now> {
        let settings = Settings {
            listen: Span(LISTEN),
            grace: Span(1),
            place: Span(4),
            confirm: Span(CONFIRM),
            withdrawals: 2,
            stuck_look: Span(0),
            changes: 4,
            plant: self.plant,
            ..Settings::default()
        };
        vec![Now {
            server: Server::new(settings),
            clients: [Client::Asking; CLIENTS],
            confirmed: [false; CLIENTS],
            stalled: 0,
            newest_fence: Fence(0),
            fence_shrank: false,
            late_confirm: false,
            withdrawn: false,
        }]
    }

    fn actions(&self, now: &Now, actions: &mut Vec<Action>) {
        for n in 0..CLIENTS {
            match now.clients[n] {
                Client::Asking => {
                    for heard in [true, false] {
                        actions.extend([Action::Ask(n, heard), Action::Park(n, heard)]);
                    }
                }
                Client::Parked(_) => {
                    actions.extend([Action::Wake(n, true), Action::Wake(n, false), Action::Cut(n)]);
                }
                Client::Dead(Some(_)) => actions.extend([Action::Wake(n, false), Action::Cut(n)]),
                Client::Granted(_) => actions.extend([Action::Confirm(n, true), Action::Confirm(n, false)]),
                Client::Holding(_) => actions.push(Action::Release(n)),
                Client::Done | Client::Dead(None) => {}
            }
            let ended = matches!(now.clients[n], Client::Holding(_) | Client::Done | Client::Dead(_));
            if !ended && !now.confirmed[n] {
                actions.push(Action::Die(n));
            }
        }
        // The door handles a notice at once, before any time passes.
        if now.server.told.is_empty() {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &Now, action: Action) -> Option<Now> {
        let mut now = last.clone();
        match action {
            Action::Ask(n, heard) => {
                let reply = now.server.ask(n, self.asking(), Wait::No);
                now.answered(n, None, reply, heard);
            }
            Action::Park(n, heard) => {
                let park = now.server.fresh_park();
                let reply = now.server.ask(n, self.asking(), Wait::Park(park));
                now.answered(n, Some(park), reply, heard);
            }
            Action::Wake(n, heard) => {
                let (Client::Parked(park) | Client::Dead(Some(park))) = now.clients[n] else { return None };
                let reply = now.server.ask(n, self.asking(), Wait::Over(park));
                now.answered(n, None, reply, heard);
            }
            Action::Cut(n) => {
                let (Client::Parked(park) | Client::Dead(Some(park))) = now.clients[n] else { return None };
                now.server.left(park);
                let dead = matches!(now.clients[n], Client::Dead(_));
                now.clients[n] = if dead { Client::Dead(None) } else { Client::Asking };
            }
            Action::Confirm(n, heard) => {
                let Client::Granted(fence) = now.clients[n] else { return None };
                match now.server.confirm(n, fence) {
                    Ok(_) => {
                        now.confirmed[n] = true;
                        if heard {
                            now.clients[n] = Client::Holding(fence);
                        }
                    }
                    Err(_) => {
                        now.late_confirm = true;
                        now.clients[n] = Client::Asking;
                    }
                }
            }
            Action::Release(n) => {
                let _ = now.server.end(n);
                now.clients[n] = Client::Done;
            }
            Action::Die(n) => {
                let park = if let Client::Parked(park) = now.clients[n] { Some(park) } else { None };
                now.clients[n] = Client::Dead(park);
            }
            Action::Tick => {
                let before = now.server.holder();
                now.stalled = if now.is_stalled() { (now.stalled + 1).min(CONFIRM + 2) } else { 0 };
                now.server.tick(1);
                now.withdrawn |= before.is_some() && now.server.holder() != before;
            }
        }
        Some(now)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holding(now: &Now, n: usize) -> bool {
            matches!(now.clients[n], Client::Holding(_))
        }
        vec![
            Property::always("two clients never think that they hold the lock", |_, now: &Now| {
                (0..CLIENTS).filter(|n| holding(now, *n)).count() <= 1
            }),
            Property::always("who thinks that it holds the lock does", |_, now: &Now| {
                (0..CLIENTS).all(|n| !holding(now, n) || now.server.held(n) == now.fence_of(n))
            }),
            Property::always(
                "a dead client keeps nobody waiting for longer than the time to confirm",
                |_, now: &Now| now.stalled <= CONFIRM,
            ),
            Property::always("fences grow", |_, now: &Now| !now.fence_shrank),
            Property::sometimes("a grant is withdrawn", |_, now: &Now| now.withdrawn),
            Property::sometimes("a late confirm is refused", |_, now: &Now| now.late_confirm),
            Property::sometimes("the next one holds it after a dead one had been offered it", |_, now: &Now| {
                now.withdrawn && holding(now, 1) && matches!(now.clients[0], Client::Dead(_))
            }),
        ]
    }
}

#[test]
fn a_lock_is_handed_over() {
    assert!(search("hand-over", HandOff { confirm: true, plant: Plant::None }).is_empty());
}

#[test]
fn naive_a_grant_without_confirm_stays_with_the_dead() {
    let wrong = search("hand-over, without confirm", HandOff { confirm: false, plant: Plant::None });
    assert!(wrong.contains(&"a dead client keeps nobody waiting for longer than the time to confirm"), "{wrong:?}");
}

#[test]
fn naive_a_lost_notice_leaves_a_free_lock_alone() {
    let wrong = search("hand-over, notices lost", HandOff { confirm: true, plant: Plant::LostNotice });
    assert!(wrong.contains(&"a dead client keeps nobody waiting for longer than the time to confirm"), "{wrong:?}");
}
