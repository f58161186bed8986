//! Logs that several servers share: one suite for the one in this process, etcd and PostgreSQL, with faults at each call;
//! what is special about each database; and planted bugs, which the suite must find. They need `etcd` and `postgres`
//! (`apt-get install etcd-server etcd-client postgresql pgbouncer`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and name the part that failed")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use locker::store::log::Log;
use locker::store::log::etcd::EtcdLog;
use locker::store::log::memory::{Contents, Fault, MemoryLog};
use locker::store::log::plant::{Plant, Planted};
use locker::store::log::postgres::PostgresLog;

use crate::support::cut::{Cut, CutProxy};
use crate::support::database::{Database, Etcd, Postgres};
use crate::support::eventually;

mod contract;
mod etcd;
mod faults;
mod postgres;

/// How long a call may take: longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of text that deflating makes hardly less: only so is a large record large in every log.
pub fn noise(length: usize) -> Vec<u8> {
    let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let random = std::iter::successors(Some(1_u64), next).map(|state| b'!' + state.to_be_bytes()[0] % 94);
    random.take(length).collect()
}

/// One log, wherever it is. Each handle is like a server of its own.
pub trait Place: Sync {
    fn open(&self) -> Box<dyn Log>;

    /// Cuts the next call, on a handle that has made one before.
    fn cut(&self, cut: Cut);

    /// Whether that has happened.
    fn has_cut(&self) -> bool;

    /// No call has an answer any more, or they have again.
    fn silence(&self, silent: bool);

    /// Kills the database and starts it again.
    fn crash(&self);

    /// Remembers its contents.
    fn save(&self);

    /// Sets it back to what was saved.
    fn set_back(&self);
}

/// A place in this process.
#[derive(Default)]
pub struct InMemory {
    log: MemoryLog,
    saved: std::sync::Mutex<Contents>,
}

impl Place for InMemory {
    fn open(&self) -> Box<dyn Log> {
        Box::new(self.log.clone())
    }

    fn cut(&self, cut: Cut) {
        self.log.fail_next([match cut {
            Cut::Request => Fault::Lost,
            Cut::Answer => Fault::Unanswered,
        }]);
    }

    fn has_cut(&self) -> bool {
        self.log.has_failed()
    }

    fn silence(&self, silent: bool) {
        if silent {
            self.log.fail_next([Fault::Lost; 1000]);
        }
    }

    /// Every call during a crash is lost before or after it has happened.
    fn crash(&self) {
        self.log.fail_next([Fault::Lost, Fault::Unanswered, Fault::Twice, Fault::Unanswered]);
        eventually("calls that have failed", || self.log.has_failed());
    }

    fn save(&self) {
        *self.saved.lock().unwrap() = self.log.contents();
    }

    fn set_back(&self) {
        self.log.set_back(self.saved.lock().unwrap().clone());
    }
}

/// A place in a database, behind a proxy. Many logs share one database.
pub struct InDatabase<'d, D> {
    database: &'d D,
    proxy: CutProxy,
    open: Box<dyn Fn(&CutProxy, Duration) -> Box<dyn Log> + Sync>,
    patience: Duration,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl<'d> InDatabase<'d, Etcd> {
    pub fn of(database: &'d Etcd) -> Self {
        let prefix = format!("log-{}/", NUMBER.fetch_add(1, Ordering::Relaxed));
        let open = move |proxy: &CutProxy, patience| -> Box<dyn Log> {
            let address = format!("etcd:{}?tls=off&prefix={prefix}", proxy.address);
            Box::new(EtcdLog::open(address.parse().unwrap(), patience).unwrap())
        };
        Self { database, proxy: CutProxy::before(database.address()), open: Box::new(open), patience: PATIENCE }
    }
}

impl<'d> InDatabase<'d, Postgres> {
    pub fn of(database: &'d Postgres) -> Self {
        let schema = format!("log_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let open = move |proxy: &CutProxy, patience| -> Box<dyn Log> {
            let address = format!("postgres://postgres@{}/postgres?sslmode=disable&schema={schema}", proxy.address);
            Box::new(PostgresLog::open(address.parse().unwrap(), patience).unwrap())
        };
        Self { database, proxy: CutProxy::before(database.address()), open: Box::new(open), patience: PATIENCE }
    }
}

impl<D: Database> Place for InDatabase<'_, D> {
    fn open(&self) -> Box<dyn Log> {
        (self.open)(&self.proxy, self.patience)
    }

    fn cut(&self, cut: Cut) {
        self.proxy.cut(cut);
    }

    fn has_cut(&self) -> bool {
        self.proxy.has_cut()
    }

    fn silence(&self, silent: bool) {
        self.proxy.silence(silent);
    }

    fn crash(&self) {
        self.database.crash();
    }

    fn save(&self) {
        self.database.save();
    }

    fn set_back(&self) {
        self.database.set_back();
    }
}

/// The same place, with a planted bug in each handle.
struct WithBug<P> {
    place: P,
    plant: Plant,
}

impl<P: Place> Place for WithBug<P> {
    fn open(&self) -> Box<dyn Log> {
        Box::new(Planted { log: self.place.open(), plant: self.plant })
    }

    fn cut(&self, cut: Cut) {
        self.place.cut(cut);
    }

    fn has_cut(&self) -> bool {
        self.place.has_cut()
    }

    fn silence(&self, silent: bool) {
        self.place.silence(silent);
    }

    fn crash(&self) {
        self.place.crash();
    }

    fn save(&self) {
        self.place.save();
    }

    fn set_back(&self) {
        self.place.set_back();
    }
}

/// The suite that every log passes; each part has a log of its own.
fn suite<P: Place>(make: impl Fn() -> P) {
    for (name, part) in contract::ALL.iter().chain(faults::ALL) {
        println!("{name}");
        part(&make());
    }
}

#[test]
fn the_log_in_this_process_keeps_the_contract() {
    suite(InMemory::default);
}

#[test]
fn a_log_in_etcd_keeps_the_contract() {
    let etcd = Etcd::start();
    suite(|| InDatabase::<Etcd>::of(&etcd));
}

#[test]
fn a_log_in_postgres_keeps_the_contract() {
    let postgres = Postgres::start();
    suite(|| InDatabase::<Postgres>::of(&postgres));
}

/// Each bug with the part of the suite that must find it.
#[test]
fn planted_bugs_of_logs_are_found() {
    let (etcd, postgres) = (Etcd::start(), Postgres::start());
    let parts: [(Plant, fn(&dyn Place)); 3] = [
        (Plant::AppendWithoutTerm, contract::an_append_compares_who_leads),
        (Plant::TakeOverByTermAlone, contract::a_take_over_compares_everything),
        (Plant::ReplayWithANewId, |place| faults::each_batch_is_there_once(place, Some(Plant::ReplayWithANewId))),
    ];
    for (plant, part) in parts {
        let places: [Box<dyn Place>; 3] = [
            Box::new(InMemory::default()),
            Box::new(InDatabase::<Etcd>::of(&etcd)),
            Box::new(InDatabase::<Postgres>::of(&postgres)),
        ];
        for place in places {
            let planted = WithBug { place, plant };
            let found = catch_unwind(AssertUnwindSafe(|| part(&planted)));
            assert!(found.is_err(), "{plant:?} was not found");
        }
    }
}

impl Place for Box<dyn Place + '_> {
    fn open(&self) -> Box<dyn Log> {
        (**self).open()
    }

    fn cut(&self, cut: Cut) {
        (**self).cut(cut);
    }

    fn has_cut(&self) -> bool {
        (**self).has_cut()
    }

    fn silence(&self, silent: bool) {
        (**self).silence(silent);
    }

    fn crash(&self) {
        (**self).crash();
    }

    fn save(&self) {
        (**self).save();
    }

    fn set_back(&self) {
        (**self).set_back();
    }
}
