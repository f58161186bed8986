//! Who is connected, and who makes room when there are too many.
//!
//! Those make room first of whom the least is known: clients that never sent a request, then idle ones, the oldest
//! first; clients of known addresses last. A client whose admitted request has arrived and is not answered yet never does.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::address::Address;
use super::budget::Share;
use super::limits;

/// The keys of clients that cannot make room: they are being served, have been told to go, or have left.
const BUSY: u64 = u64::MAX;
const GONE: u64 = u64::MAX - 1;
const LEFT: u64 = u64::MAX - 2;
/// A client whose address this connection has not noted yet.
const NEVER: u64 = u64::MAX;
/// Where the rank of a client is in its key. Below it is since when, in microseconds.
const RANK: u32 = 56;
/// The part of the rank that clients of known addresses have. Having asked for something adds 1.
const KNOWN: u64 = 2;
/// How many clients are chosen in one pass through all of them.
const CHOSEN: usize = 64;

/// Which clients may be asked to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Only those of addresses that are not known.
    Strangers,
    Anybody,
}

impl Whom {
    fn has(self, key: u64) -> bool {
        key < LEFT && (self == Self::Anybody || key >> RANK < KNOWN)
    }
}

/// All connected clients, and the addresses that are known.
pub(super) struct Crowd {
    start: Instant,
    clients: Mutex<Clients>,
    /// Addresses whose clients have been admitted, and when the last one was.
    known: Mutex<HashMap<Address, Instant>>,
    left: Notify,
}

#[derive(Default)]
struct Clients {
    next: u64,
    all: HashMap<u64, Arc<Client>>,
    /// Who makes room next, with the keys that they had when they were chosen.
    chosen: VecDeque<(u64, Arc<Client>)>,
}

struct Client {
    /// Rank and time. The smallest makes room first.
    key: AtomicU64,
    told: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    pub fn new() -> Arc<Self> {
        let (clients, known) = (Mutex::default(), Mutex::default());
        Arc::new(Self { start: Instant::now(), clients, known, left: Notify::new() })
    }

    /// A client has connected, with this room of its own.
    pub fn enter(self: &Arc<Self>, address: Address, room: Room) -> Seat {
        let is_known = self.knows(address);
        let key = AtomicU64::new(self.key(is_known, false));
        let client = Arc::new(Client { key, told: Notify::new() });
        let mut clients = locked(&self.clients);
        let id = clients.next;
        clients.next += 1;
        clients.all.insert(id, Arc::clone(&client));
        drop(clients);
        let is_known = AtomicBool::new(is_known);
        let noted = AtomicU64::new(NEVER);
        Seat { crowd: Arc::clone(self), id, client, address, is_known, noted, room: Mutex::new(Some(room)) }
    }

    /// Whether a client of this address was admitted lately.
    pub fn knows(&self, address: Address) -> bool {
        let lately = Duration::from_millis(limits::DOOR_KNOWN_MS);
        locked(&self.known).get(&address).is_some_and(|at| at.elapsed() < lately)
    }

    fn note(&self, address: Address) {
        let mut known = locked(&self.known);
        if known.len() >= limits::DOOR_ADDRESSES && !known.contains_key(&address) {
            // Clients that are still active are noted again.
            known.clear();
        }
        known.insert(address, Instant::now());
    }

    /// Tells clients to go, one after another, until `take` finds room for a newcomer. `None` if nobody may go, or it
    /// takes too long. Safe to cancel.
    pub async fn make_room<T>(&self, take: impl FnMut() -> Option<T>) -> Option<T> {
        self.make_room_before(u64::MAX, Whom::Anybody, take).await
    }

    /// The same for one who is there already: only clients who go before it are told to go.
    async fn make_room_before<T>(&self, own: u64, whom: Whom, mut take: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + Duration::from_millis(limits::DOOR_ROOM_MS);
        let mut leaving = self.tell_one(own, whom)?;
        loop {
            if let Some(taken) = take() {
                return Some(taken);
            }
            if Instant::now() >= deadline {
                return None;
            }
            if leaving.key.load(Ordering::Acquire) == LEFT {
                match self.tell_one(own, whom) {
                    Some(next) => leaving = next,
                    None => return take(),
                }
            }
            let _ = timeout(Duration::from_millis(limits::DOOR_ROOM_LOOK_MS), self.left.notified()).await;
        }
    }

    /// Tells one client to go who goes before the one with the key `own`. `None` if there is none who may.
    fn tell_one(&self, own: u64, whom: Whom) -> Option<Arc<Client>> {
        let mut clients = locked(&self.clients);
        for _ in 0..2 {
            // The smallest key is in front.
            while clients.chosen.front().is_some_and(|(key, _)| *key < own) {
                let Some((key, client)) = clients.chosen.pop_front() else { break };
                let told = || client.key.compare_exchange(key, GONE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
                if whom.has(key) && told() {
                    client.told.notify_one();
                    return Some(client);
                }
            }
            clients.choose(whom);
        }
        None
    }

    fn key(&self, is_known: bool, has_asked: bool) -> u64 {
        let rank = if is_known { KNOWN } else { 0 } | u64::from(has_asked);
        let since = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        rank << RANK | since.min((1 << RANK) - 1)
    }
}

impl Clients {
    /// Chooses the next ones of the lowest rank.
    fn choose(&mut self, whom: Whom) {
        let key = |client: &Arc<Client>| client.key.load(Ordering::Relaxed);
        let mut found: Vec<_> = self.all.values().map(|c| (key(c), c)).filter(|(key, _)| whom.has(*key)).collect();
        let lowest = found.iter().map(|(key, _)| key >> RANK).min();
        found.retain(|(key, _)| Some(key >> RANK) == lowest);
        if found.len() > CHOSEN {
            found.select_nth_unstable_by_key(CHOSEN, |(key, _)| *key);
            found.truncate(CHOSEN);
        }
        found.sort_unstable_by_key(|(key, _)| *key);
        self.chosen = found.into_iter().map(|(key, client)| (key, Arc::clone(client))).collect();
    }
}

/// What a connection takes: one of the connections, and memory.
pub(super) struct Room {
    pub _connection: Share,
    pub memory: Share,
    /// What it takes once its client is known, bytes.
    pub memory_if_known: usize,
}

/// The place of one connected client. Dropping it makes the place free.
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    id: u64,
    client: Arc<Client>,
    address: Address,
    is_known: AtomicBool,
    /// When its address was last noted as known, in milliseconds since the start of the crowd. [`NEVER`] before.
    noted: AtomicU64,
    /// `None` once it has left.
    room: Mutex<Option<Room>>,
}

impl Seat {
    /// Waits until this client must make room. Safe to cancel.
    pub async fn must_go(&self) {
        self.client.told.notified().await;
    }

    /// Makes room for more of this client's own request. Nobody goes for it who would not go before it, so those who
    /// need much do not push out those who have just come.
    pub async fn make_room<T>(&self, take: impl FnMut() -> Option<T>) -> Option<T> {
        let own = self.client.key.load(Ordering::Acquire);
        if own == GONE {
            return None;
        }
        self.crowd.make_room_before(own, Whom::Strangers, take).await
    }

    /// A request of this client has been admitted: from now on the client and its address are known. False if it has
    /// been told to go.
    pub fn admit(&self) -> bool {
        let known = |key| (key != GONE).then_some(if key < LEFT { key | KNOWN << RANK } else { key });
        if self.client.key.fetch_update(Ordering::AcqRel, Ordering::Relaxed, known).is_err() {
            return false;
        }
        if !self.is_known.swap(true, Ordering::Relaxed)
            && let Some(room) = &mut *locked(&self.room)
        {
            let bytes = room.memory_if_known;
            room.memory.shrink_to(bytes);
        }
        self.note();
        true
    }

    /// Notes the address, but not for each request: the table is shared by all clients.
    fn note(&self) {
        let now = u64::try_from(self.crowd.start.elapsed().as_millis()).unwrap_or(NEVER);
        let noted = self.noted.load(Ordering::Relaxed);
        if noted == NEVER || now.saturating_sub(noted) >= limits::DOOR_KNOWN_AGAIN_MS {
            self.noted.store(now, Ordering::Relaxed);
            self.crowd.note(self.address);
        }
    }

    /// All of the admitted request has arrived: it is served until [`Self::rest`]. False if the client has been told to
    /// go.
    pub fn serve(&self) -> bool {
        let to_busy = |key| (key != GONE).then_some(BUSY);
        self.client.key.fetch_update(Ordering::AcqRel, Ordering::Relaxed, to_busy).is_ok()
    }

    /// The answer to a request is on its way, or was sent. Who takes it slowly can make room.
    pub fn rest(&self) {
        let key = self.crowd.key(self.is_known.load(Ordering::Relaxed), true);
        let idle = |old| (old != GONE).then_some(key);
        // An error means that it has been told to go, which stays so.
        let _ = self.client.key.fetch_update(Ordering::AcqRel, Ordering::Relaxed, idle);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        locked(&self.crowd.clients).all.remove(&self.id);
        // Who waits for this room must find it.
        locked(&self.room).take();
        self.client.key.store(LEFT, Ordering::Release);
        self.crowd.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    #[test]
    fn who_makes_room_first() {
        let (crowd, budget) = (Crowd::new(), Budget::new(100));
        let address = |last| Address::from(std::net::IpAddr::from([10, 0, 0, last]));
        let enter = |last| {
            // So that each is younger than those before.
            std::thread::sleep(Duration::from_millis(2));
            let take = |units| budget.take(units).unwrap();
            crowd.enter(address(last), Room { _connection: take(1), memory: take(5), memory_if_known: 2 })
        };
        let gone = |seat: &Seat| seat.client.key.load(Ordering::Relaxed) == GONE;
        let next = |seats: &[&Seat], whom| {
            let before: Vec<bool> = seats.iter().map(|seat| gone(seat)).collect();
            crowd
                .tell_one(u64::MAX, whom)
                .map(|_| seats.iter().zip(before).position(|(seat, was)| gone(seat) && !was).unwrap())
        };
        let proven = enter(1);
        assert!(proven.admit());
        assert_eq!(budget.used(), 3, "a known client takes less");
        assert!(proven.serve());
        proven.rest();
        let (asked, silent, later, busy) = (enter(2), enter(3), enter(4), enter(5));
        asked.rest();
        assert!(busy.admit() && busy.serve());
        let sending = enter(6);
        assert!(sending.admit());
        let of_known = enter(1);
        let seats = [&proven, &asked, &silent, &later, &busy, &sending, &of_known];
        let before = silent.client.key.load(Ordering::Relaxed);
        assert!(crowd.tell_one(before, Whom::Anybody).is_none(), "those who came later stay");
        assert_eq!(next(&seats, Whom::Strangers), Some(2));
        assert_eq!(next(&seats, Whom::Anybody), Some(3));
        assert_eq!(next(&seats, Whom::Anybody), Some(1), "who has asked is more than who never did");
        assert_eq!(next(&seats, Whom::Strangers), None);
        assert_eq!(next(&seats, Whom::Anybody), Some(5), "admitted, and not all of its request has arrived");
        assert_eq!(next(&seats, Whom::Anybody), Some(6), "never asked, at a known address");
        assert_eq!(next(&seats, Whom::Anybody), Some(0));
        assert_eq!(next(&seats, Whom::Anybody), None, "who is served stays");
        assert!(!silent.admit() && !sending.serve(), "it is too late");
        busy.rest();
        assert_eq!(next(&seats, Whom::Anybody), Some(4));
        drop((proven, asked, silent, later, busy, sending, of_known));
        assert!(budget.used() == 0 && locked(&crowd.clients).all.is_empty());
    }
}
