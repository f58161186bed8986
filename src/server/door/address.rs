//! Counters for each client address: connections, and the rate limits of requests and failed logins.
//!
//! Every table is bounded: by the number of connections, or by [`limits::DOOR_ADDRESSES`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::server::door::limits;

/// The key of a counter: an IPv4 address, an IPv6 network of 64 bits (one host owns at least that much), or the user
/// behind a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::server) enum Address {
    V4(u32),
    V6Network(u64),
    User(u32),
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            // The upper 64 bits.
            IpAddr::V6(ip) => Self::V6Network((ip.to_bits() >> 64) as u64),
        }
    }
}

impl Address {
    /// The address of a client that another door has written as text. All that cannot be read share one account.
    pub fn of_peer(peer: &str) -> Self {
        if let Ok(peer) = peer.parse::<SocketAddr>() {
            return peer.ip().into();
        }
        Self::User(peer.strip_prefix(USER).and_then(|user| user.parse().ok()).unwrap_or(u32::MAX))
    }
}

/// What stands before the user behind a Unix socket, in the text for logs.
pub(super) const USER: &str = "unix:uid=";

/// Counts the connections of each address, up to `limit` each.
pub(super) struct ConnectionCounts {
    limit: usize,
    counts: Mutex<HashMap<Address, usize>>,
}

/// One connection of an address. Dropping it removes it from the count.
pub(super) struct Counted {
    counts: Arc<ConnectionCounts>,
    address: Address,
}

impl ConnectionCounts {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Address, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection. `None` if the address is at its limit.
    pub fn enter(self: &Arc<Self>, address: Address) -> Option<Counted> {
        let mut counts = self.counts();
        let count = counts.get(&address).copied().unwrap_or(0);
        if count >= self.limit {
            return None;
        }
        counts.insert(address, count + 1);
        Some(Counted { counts: Arc::clone(self), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.counts();
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.address)),
        }
    }
}

/// A rate limiter for each address that allows bursts (the generic cell rate algorithm): each spend costs `step` of
/// time, and an address may be `burst` ahead of the clock.
pub(super) struct RateLimiter {
    step: Duration,
    burst: Duration,
    table: Mutex<Table>,
}

struct Table {
    /// When each address will have paid off what it spent.
    paid_until: HashMap<Address, Instant>,
    /// The shared account of all addresses that do not fit in the table.
    others: Instant,
}

impl RateLimiter {
    /// Allows `burst` spends at once, and one more after each `step`.
    pub fn new(step: Duration, burst: u32) -> Self {
        let table = Table { paid_until: HashMap::new(), others: Instant::now() };
        Self { step, burst: step * burst, table: Mutex::new(table) }
    }

    /// Spends one, if that stays within the burst.
    ///
    /// # Errors
    /// Returns how long to wait until it would.
    pub fn try_spend(&self, address: Address, now: Instant) -> Result<(), Duration> {
        self.account(address, now, |paid_until| {
            let over = (*paid_until + self.step).saturating_duration_since(now + self.burst);
            if over > Duration::ZERO {
                return Err(over);
            }
            *paid_until += self.step;
            Ok(())
        })
    }

    /// Checks whether one could be spent within the burst.
    ///
    /// # Errors
    /// Returns how long to wait until it could.
    pub fn has_room(&self, address: Address, now: Instant) -> Result<(), Duration> {
        self.account(address, now, |paid_until| {
            match (*paid_until + self.step).saturating_duration_since(now + self.burst) {
                Duration::ZERO => Ok(()),
                over => Err(over),
            }
        })
    }

    /// Always spends one, up to a debt of `most`. Returns how far this exceeds the burst.
    pub fn spend(&self, address: Address, now: Instant, most: Duration) -> Duration {
        self.account(address, now, |paid_until| {
            *paid_until = (*paid_until + self.step).min(now + self.burst + most);
            paid_until.saturating_duration_since(now + self.burst)
        })
    }

    fn account<T>(&self, address: Address, now: Instant, change: impl FnOnce(&mut Instant) -> T) -> T {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        if table.paid_until.len() >= limits::DOOR_ADDRESSES && !table.paid_until.contains_key(&address) {
            table.paid_until.retain(|_, paid_until| *paid_until > now);
        }
        let is_full = table.paid_until.len() >= limits::DOOR_ADDRESSES && !table.paid_until.contains_key(&address);
        let account = if is_full { &mut table.others } else { table.paid_until.entry(address).or_insert(now) };
        *account = (*account).max(now);
        change(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn who_shares_an_account() {
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }

    #[test]
    fn connections_are_counted_and_forgotten() {
        let counts = ConnectionCounts::new(2);
        let (a, b) = (address("10.0.0.1"), address("10.0.0.2"));
        let inside = [counts.enter(a).unwrap(), counts.enter(a).unwrap()];
        assert!(counts.enter(a).is_none() && counts.enter(b).is_some());
        drop(inside);
        assert!(counts.enter(a).is_some() && counts.counts().is_empty());
    }

    #[test]
    fn a_pace_allows_its_burst_and_then_one_each_step() {
        let limiter = RateLimiter::new(Duration::from_secs(1), 3);
        let (a, start) = (address("10.0.0.1"), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let spent: Vec<bool> = (0..5).map(|_| limiter.try_spend(a, at(0)).is_ok()).collect();
        assert_eq!(spent, [true, true, true, false, false]);
        assert_eq!(limiter.try_spend(a, at(400)), Err(Duration::from_millis(600)));
        assert_eq!(limiter.try_spend(a, at(1_000)), Ok(()));
        assert!(limiter.try_spend(a, at(1_500)).is_err());
        assert_eq!(limiter.try_spend(address("10.0.0.2"), at(1_500)), Ok(()));
    }

    #[test]
    fn a_debt_grows_to_its_bound_and_wears_off() {
        let limiter = RateLimiter::new(Duration::from_secs(1), 2);
        let (a, start, most) = (address("10.0.0.1"), Instant::now(), Duration::from_secs(3));
        let over: Vec<u64> = (0..7).map(|_| limiter.spend(a, start, most).as_secs()).collect();
        assert_eq!(over, [0, 0, 1, 2, 3, 3, 3]);
        assert_eq!(limiter.spend(a, start + Duration::from_secs(60), most), Duration::ZERO);
    }

    #[test]
    fn the_table_is_bounded_and_makes_room() {
        let limiter = RateLimiter::new(Duration::from_secs(1), 1);
        let now = Instant::now();
        for n in 0..limits::DOOR_ADDRESSES + 100 {
            let _ = limiter.try_spend(Address::V4(u32::try_from(n).unwrap()), now);
        }
        assert_eq!(limiter.table.lock().unwrap().paid_until.len(), limits::DOOR_ADDRESSES);
        assert!(limiter.try_spend(Address::User(7), now).is_err(), "the other addresses share one account");
        assert_eq!(limiter.try_spend(Address::User(8), now + Duration::from_secs(9)), Ok(()));
        assert_eq!(limiter.table.lock().unwrap().paid_until.len(), 1);
    }
}
