//! What a server on a shared log knows of itself and of the others, for those who ask: metrics, `/api/v1/info`, the page.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::registry::Registered;
use crate::store::log::Room;
use crate::store::log::head::{Head, Seq};
use crate::store::sqlite::replica;

/// What a server knows. Its parts are kept up to date by those who find them out.
#[derive(Debug)]
pub struct Standing {
    now: Mutex<Known>,
    /// The last record in the log, and the last one that this server has applied.
    head: AtomicU64,
    applied: AtomicU64,
    appends: AtomicU64,
    appended_bytes: AtomicU64,
    beats: AtomicU64,
    /// The format of records that everybody reads.
    format: AtomicU8,
}

#[derive(Debug, Default)]
struct Known {
    leads: Option<u64>,
    leader: Option<LeaderSeen>,
    took_over: u64,
    lost: u64,
    fresh: Fresh,
    servers: Vec<Registered>,
    room: Option<Room>,
    snapshot: Option<Seq>,
    /// Bytes of records since the snapshot, while this server leads.
    log_bytes: Option<Arc<AtomicU64>>,
}

/// When the last look was sent after which nothing of the log was missing here. At first, when this server began to look.
#[derive(Debug, Clone, Copy)]
struct Fresh(Instant);

impl Default for Fresh {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// Who leads, by the head of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderSeen {
    /// As people know it.
    pub name: String,
    pub term: u64,
}

/// All of it at one moment.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The term in which this server leads, if it does.
    pub leads: Option<u64>,
    /// Who leads. `None`: nobody, or the log has not been read yet.
    pub leader: Option<LeaderSeen>,
    /// How often this server took over since it was started, and how often it lost that again without having handed over.
    pub took_over: u64,
    pub lost: u64,
    /// The number of the last record in the log, as it was last seen, and of the last one that this server has.
    pub head: u64,
    pub applied: u64,
    /// For how long something may be in the log that is not here: since the start, if the log has not been read yet.
    pub behind: Duration,
    /// What it has written while it led.
    pub appends: u64,
    pub appended_bytes: u64,
    pub beats: u64,
    /// All servers that are registered, by name.
    pub servers: Vec<Registered>,
    /// Of the database.
    pub room: Option<Room>,
    /// How many records the log has that are not in its snapshot.
    pub records: Option<u64>,
    /// Their bytes, as the leader knows them.
    pub log_bytes: Option<u64>,
}

impl Shown {
    /// Records in the log that are not here.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.head.saturating_sub(self.applied)
    }

    /// The servers, each under a name of its own.
    #[must_use]
    pub fn named_servers(&self) -> Vec<(String, &Registered)> {
        let mut named: Vec<(String, &Registered)> = Vec::new();
        for server in &self.servers {
            let name = &server.note.name;
            let same = named.iter().filter(|(_, before)| before.note.name == *name).count();
            named.push((if same == 0 { name.clone() } else { format!("{name} ({})", same + 1) }, server));
        }
        named
    }
}

impl Default for Standing {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            now: Mutex::default(),
            head: zero(),
            applied: zero(),
            appends: zero(),
            appended_bytes: zero(),
            beats: zero(),
            format: AtomicU8::new(replica::OLDEST),
        }
    }
}

impl Standing {
    fn now(&self) -> MutexGuard<'_, Known> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it now.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let now = self.now();
        let [head, applied, appends, appended_bytes, beats] =
            [&self.head, &self.applied, &self.appends, &self.appended_bytes, &self.beats]
                .map(|number| number.load(Ordering::Relaxed));
        Shown {
            leads: now.leads,
            leader: now.leader.clone(),
            took_over: now.took_over,
            lost: now.lost,
            // They are not read at once.
            head: head.max(applied),
            applied,
            behind: if now.leads.is_some() { Duration::ZERO } else { now.fresh.0.elapsed() },
            appends,
            appended_bytes,
            beats,
            servers: now.servers.clone(),
            room: now.room,
            log_bytes: now.log_bytes.as_ref().map(|bytes| bytes.load(Ordering::Relaxed)),
            records: now.snapshot.map(|Seq(snapshot)| head.max(applied).saturating_sub(snapshot)),
        }
    }

    /// The head of the log was read. It names nobody if its leader has given up.
    pub fn saw(&self, head: Option<&Head>) {
        self.head.store(head.map_or(0, |head| head.seq.0), Ordering::Relaxed);
        let leader = head.filter(|head| head.span.0 > 0);
        self.now().leader = leader.map(|head| LeaderSeen { name: head.leader.shown().to_owned(), term: head.term });
    }

    /// This server has everything up to this record.
    pub(super) fn has(&self, seq: Seq) {
        self.applied.store(seq.0, Ordering::Relaxed);
    }

    /// Nothing was missing here that was in the log at that time.
    pub(super) fn is_fresh(&self, at: Instant) {
        self.now().fresh = Fresh(at);
    }

    /// The leader that this server is has appended this record.
    pub(super) fn appended(&self, seq: Seq, bytes: u64) {
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.head.store(seq.0, Ordering::Relaxed);
        self.has(seq);
    }

    /// It has given a sign without an append.
    pub(super) fn beaten(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// This server leads from now on.
    pub fn leads(&self, name: &str, term: u64) {
        let mut now = self.now();
        now.took_over += 1;
        (now.leads, now.leader) = (Some(term), Some(LeaderSeen { name: name.to_owned(), term }));
    }

    /// It no longer leads. `lost`: it has not handed over.
    pub fn follows(&self, lost: bool) {
        let mut now = self.now();
        now.lost += u64::from(lost);
        (now.leads, now.leader, now.fresh, now.log_bytes) = (None, None, Fresh::default(), None);
    }

    /// Where the bytes are counted of the records that the log has since its snapshot.
    pub(super) fn counts_bytes(&self, bytes: Arc<AtomicU64>) {
        self.now().log_bytes = Some(bytes);
    }

    pub(super) fn set_servers(&self, servers: Vec<Registered>) {
        self.now().servers = servers;
    }

    pub(super) fn set_room(&self, room: Option<Room>, snapshot: Seq) {
        let mut now = self.now();
        (now.room, now.snapshot) = (room, Some(snapshot));
    }

    /// The format in which records are written: the newest that all servers read.
    pub(super) fn format(&self) -> u8 {
        self.format.load(Ordering::Relaxed)
    }

    pub(super) fn set_format(&self, format: u8) {
        self.format.store(format, Ordering::Relaxed);
    }
}
