//! Counted room for connections, parked requests and bytes. Dropping a [`Share`] returns its units.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;

/// A limited number of units, from which shares are taken. Clones are the same budget.
#[derive(Clone)]
pub(in crate::server) struct Budget(Arc<Inner>);

struct Inner {
    limit: usize,
    used: AtomicUsize,
    /// The most that was used since the last call of [`Budget::freed`].
    most: AtomicUsize,
    /// Shows, perhaps together with other budgets, how much is taken.
    shown: Gauge,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self::shown_by(limit, &Gauge::default())
    }

    /// The same, and `gauge` shows how much is taken.
    pub fn shown_by(limit: usize, gauge: &Gauge) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicUsize::new(0), most: AtomicUsize::new(0), shown: gauge.clone() }))
    }

    /// Takes a share of `units`. `None` if there is no room.
    pub fn take(&self, units: usize) -> Option<Share> {
        self.claim(units).then(|| Share { budget: self.clone(), units })
    }

    /// The number of units that are left at the moment.
    pub fn left(&self) -> usize {
        self.0.limit.saturating_sub(self.0.used.load(Ordering::Relaxed))
    }

    /// How far below its peak since the last call the use is now.
    pub fn freed(&self) -> usize {
        let used = self.0.used.load(Ordering::Relaxed);
        self.0.most.swap(used, Ordering::Relaxed).saturating_sub(used)
    }

    /// The number of units that are taken at the moment.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    fn give_back(&self, units: usize) {
        self.0.used.fetch_sub(units, Ordering::Relaxed);
        self.0.shown.dec_by(shown(units));
    }

    fn claim(&self, units: usize) -> bool {
        let room = |used: usize| used.checked_add(units).filter(|sum| *sum <= self.0.limit);
        // The counter orders no other memory, so relaxed is enough.
        let before = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        if let Ok(before) = before {
            self.0.most.fetch_max(before + units, Ordering::Relaxed);
            self.0.shown.inc_by(shown(units));
        }
        before.is_ok()
    }
}

/// A part of a [`Budget`]. Dropping it returns its units.
pub(in crate::server) struct Share {
    budget: Budget,
    units: usize,
}

impl Share {
    /// Grows the share to `units`. Returns false and changes nothing if there is no room.
    pub fn grow_to(&mut self, units: usize) -> bool {
        if units <= self.units {
            return true;
        }
        let grown = self.budget.claim(units - self.units);
        if grown {
            self.units = units;
        }
        grown
    }

    pub fn units(&self) -> usize {
        self.units
    }

    /// Returns all units but these.
    pub fn shrink_to(&mut self, units: usize) {
        let returned = self.units.saturating_sub(units);
        self.units -= returned;
        self.budget.give_back(returned);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.units);
    }
}

/// Units as a gauge counts them. A budget is never so large that this cuts anything off.
pub(super) fn shown(units: usize) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_pass_the_limit_and_come_back() {
        let budget = Budget::new(10);
        let mut share = budget.take(6).unwrap();
        assert!(budget.take(5).is_none());
        assert!(share.grow_to(10) && !share.grow_to(11) && share.grow_to(3));
        assert_eq!(budget.used(), 10);
        assert!(budget.take(usize::MAX).is_none());
        drop(share);
        assert_eq!(budget.used(), 0);
        assert_eq!([budget.freed(), budget.freed()], [10, 0]);
    }
}
