//! Which servers there are: each writes a note about itself into the log, again and again. A note that has stood still for
//! a while is of a server that is gone; how late it is by anybody's clock does not matter.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Membership;
use crate::store::log::head::{Head, Id, Seq};
use crate::store::log::{Log, Room};
use crate::store::sqlite::replica;

/// Where the notes are.
const UNDER: &str = "server/";
/// How often a server writes its note, at most: it is a write of the database.
const EVERY: Duration = Duration::from_secs(2);
/// The same while it waits to be admitted.
const SOON: Duration = Duration::from_millis(250);
/// How many spans a note stands still before its server is gone: longer than a database that fails over is away.
const GONE: u32 = 6;
/// After how many looks the room of the database is looked at again. A leader looks at once when it begins to lead.
const ROOM: u64 = 10;
/// How long the end of a server waits until its note is removed.
const LAST: Duration = Duration::from_millis(300);

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// As others know it.
    pub name: String,
    pub version: String,
    /// The newest format of records that it reads.
    pub reads: u8,
    /// The settings that must be the same on all servers, by the names of their flags.
    pub rules: BTreeMap<String, String>,
    /// The term in which it leads.
    pub leads: Option<u64>,
    /// The last record that it has.
    pub applied: u64,
    /// For how long something may be in the log that it does not have, milliseconds.
    pub behind: Option<u64>,
    /// How often it has written this.
    count: u64,
}

/// A server that is registered.
#[derive(Debug, Clone)]
pub struct Registered {
    pub note: Note,
    /// It is the server that says so.
    pub is_here: bool,
    /// When the note was seen to change.
    since: Instant,
}

impl Registered {
    /// For how long something may be in the log that it does not have, as far as it is known here.
    #[must_use]
    pub fn behind(&self) -> Option<Duration> {
        let said = Duration::from_millis(self.note.behind?);
        let unheard = if self.is_here { Duration::ZERO } else { self.since.elapsed().saturating_sub(EVERY) };
        Some(said + unheard)
    }
}

/// A server that does not join, because a setting is not that of the server that leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this server cannot join: {setting} is {here} here and {there} at {leader:?}, which leads: start all servers of one \
     store with the same rules"
)]
pub struct Unequal {
    pub setting: String,
    pub here: String,
    pub there: String,
    pub leader: String,
}

/// The first setting in which they differ. One that only one of them knows is of another release.
fn unequal(here: &Note, leader: &Note) -> Option<Unequal> {
    let both = here.rules.iter().filter_map(|(setting, here)| Some((setting, here, leader.rules.get(setting)?)));
    let (setting, here, there) = both.into_iter().find(|(_, here, there)| here != there)?;
    let (setting, here, there) = (setting.clone(), here.clone(), there.clone());
    Some(Unequal { setting, here, there, leader: leader.name.clone() })
}

/// The notes as they were seen, and since when they look like that. Values only.
#[derive(Debug, Default)]
struct Watched(BTreeMap<String, (Note, Instant)>);

impl Watched {
    /// Takes note of what there is now. Returns the names of notes that have stood still for `gone`.
    fn look(&mut self, found: Vec<(String, Note)>, now: Instant, gone: Duration) -> Vec<String> {
        let mut before = std::mem::take(&mut self.0);
        for (name, note) in found {
            let since = before.remove(&name).filter(|(seen, _)| *seen == note).map_or(now, |(_, since)| since);
            self.0.insert(name, (note, since));
        }
        let is_gone = |(_, since): &(Note, Instant)| now.saturating_duration_since(*since) >= gone;
        self.0.iter().filter(|(_, seen)| is_gone(seen)).map(|(name, _)| name.clone()).collect()
    }
}

/// Whether this server may follow and lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// It has not been registered yet: why, if the log gives no answer.
    NotYet(Option<String>),
    Yes,
    No(Unequal),
}

/// The thread that registers this server, and looks who else is there.
#[derive(Debug)]
pub struct Registry {
    /// A message makes it look now; its end ends the thread.
    wake: Mutex<Option<Sender<()>>>,
    ended: Mutex<Receiver<()>>,
    admitted: Arc<Mutex<Admitted>>,
}

impl Registry {
    /// Starts to register this server.
    ///
    /// # Errors
    /// The system has no thread, or no random bytes.
    pub fn start(membership: &Membership) -> anyhow::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let mut registrar = Registrar::new(&Id::random().context("no random bytes")?.to_string(), membership);
        let admitted = Arc::clone(&registrar.admitted);
        let run = move || {
            registrar.run(&woken);
            drop(ends);
        };
        thread::Builder::new()
            .name("registry".to_owned())
            .spawn(run)
            .context("cannot start the thread for the registry")?;
        Ok(Self { wake: Mutex::new(Some(wake)), ended: Mutex::new(ended), admitted })
    }

    /// Whether this server may follow and lead.
    #[must_use]
    pub fn admitted(&self) -> Admitted {
        locked(&self.admitted).clone()
    }

    /// Something has changed that others should know now.
    pub fn announce(&self) {
        if let Some(wake) = &*locked(&self.wake) {
            // If the thread has panicked, that has been printed.
            let _ = wake.send(());
        }
    }

    /// Removes the note of this server, unless that takes too long: then it ends by itself.
    pub fn stop(&self) {
        drop(locked(&self.wake).take());
        let _ = locked(&self.ended).recv_timeout(LAST);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Registrar {
    /// Of its note.
    name: String,
    membership: Membership,
    /// `None` after an error: the next look connects again.
    log: Option<Box<dyn Log>>,
    watched: Watched,
    count: u64,
    /// The head under a leader with other rules, and since when it looks like that.
    judged: Option<(Head, Instant)>,
    /// The term in which it led when it looked last.
    led: Option<u64>,
    /// Standbys that may lose something, as was said last.
    standbys: u64,
    admitted: Arc<Mutex<Admitted>>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Registrar {
    fn new(name: &str, membership: &Membership) -> Self {
        Self {
            name: format!("{UNDER}{name}"),
            membership: membership.clone(),
            log: None,
            watched: Watched::default(),
            count: 0,
            judged: None,
            led: None,
            standbys: 0,
            admitted: Arc::new(Mutex::new(Admitted::NotYet(None))),
        }
    }

    fn run(&mut self, woken: &Receiver<()>) {
        let span = Duration::from_millis(self.membership.span.0);
        loop {
            if let Err(error) = self.look() {
                self.log = None;
                let mut admitted = locked(&self.admitted);
                if matches!(*admitted, Admitted::NotYet(_)) {
                    *admitted = Admitted::NotYet(Some(format!("{error:#}")));
                }
            }
            let waits = matches!(locked(&self.admitted).clone(), Admitted::NotYet(_));
            let pause = if waits { SOON.min(span / 10) } else { EVERY.min(span / 2) };
            if woken.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        if let Some(log) = &mut self.log {
            // Otherwise the others see that it stands still.
            let _ = log.drop_note(&self.name);
        }
    }

    /// What this server says of itself now.
    fn note(&self) -> Note {
        let Membership { me, rules, standing, .. } = &self.membership;
        let shown = standing.shown();
        Note {
            name: me.shown().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reads: replica::newest(),
            rules: rules.clone(),
            leads: shown.leads,
            applied: shown.applied,
            behind: Some(u64::try_from(shown.behind.as_millis()).unwrap_or(u64::MAX)),
            count: self.count,
        }
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.membership.address.open(self.membership.patience())?,
        };
        let mine = self.note();
        log.put_note(&self.name, &serde_json::to_vec(&mine)?, None)?;
        let found = log.notes(UNDER)?.into_iter();
        // One that cannot be read is of another release; that it reads little is assumed.
        let found = found.map(|(name, bytes)| (name, serde_json::from_slice(&bytes).unwrap_or_default())).collect();
        let gone = self.watched.look(found, Instant::now(), Duration::from_millis(self.membership.span.0) * GONE);
        for name in gone.iter().filter(|name| **name != self.name) {
            if mine.leads.is_some() {
                log.drop_note(name)?;
            }
            self.watched.0.remove(name);
        }
        let head = log.head()?;
        let standing = &self.membership.standing;
        standing.set_servers(self.servers());
        standing.set_format(self.format());
        let has_begun = mine.leads.is_some() && mine.leads != self.led;
        if has_begun || self.count.is_multiple_of(ROOM) {
            let snapshot = log.manifest()?.map_or(Seq(0), |manifest| manifest.seq);
            // Somebody who may use the log may not be allowed to ask this.
            let room = log.room().ok();
            standing.set_room(room, snapshot);
            if mine.leads.is_some() {
                self.tidy(&mut *log, room);
            }
        }
        self.judge(&mine, head);
        (self.count, self.led, self.log) = (self.count + 1, mine.leads, Some(log));
        Ok(())
    }

    /// What the leader does for the database, and says of it, now and then.
    fn tidy(&mut self, log: &mut dyn Log, room: Option<Room>) {
        if let Err(trouble) = log.tidy() {
            tracing::warn!(reason = %trouble, "the database cannot be compacted: it is tried again");
        }
        let standbys = room.map_or(0, |room| room.async_standbys);
        if standbys > 0 && standbys != self.standbys {
            tracing::warn!(
                standbys,
                "no standby of the database is synchronous: what has not reached one is lost if that becomes the primary \
                 (docs/cluster.md#what-the-database-must-promise)"
            );
        }
        self.standbys = standbys;
    }

    /// The servers that are there.
    fn servers(&self) -> Vec<Registered> {
        let server = |(name, (note, since)): (&String, &(Note, Instant))| Registered {
            note: note.clone(),
            is_here: *name == self.name,
            since: *since,
        };
        let mut servers: Vec<Registered> = self.watched.0.iter().map(server).collect();
        servers.sort_by(|a, b| a.note.name.cmp(&b.note.name));
        servers
    }

    /// The newest format that all of them read.
    fn format(&self) -> u8 {
        let all = self.watched.0.values().map(|(note, _)| note.reads);
        all.fold(replica::newest(), u8::min).max(replica::OLDEST)
    }

    /// Compares the rules with those of the server that leads. That it is only registered says little: it may have been
    /// killed. So the head must have been seen to change, or to stand still for its span.
    fn judge(&mut self, mine: &Note, head: Option<Head>) {
        let found = head.as_ref().filter(|_| mine.leads.is_none()).and_then(|head| {
            let leads =
                |(name, (note, _)): &(&String, &(Note, Instant))| **name != self.name && note.leads == Some(head.term);
            unequal(mine, &self.watched.0.iter().find(leads)?.1.0)
        });
        let (Some(unequal), Some(head)) = (found, head) else {
            self.judged = None;
            *locked(&self.admitted) = Admitted::Yes;
            return;
        };
        let span = Duration::from_millis(head.span.0);
        let is_new = self.judged.as_ref().is_none_or(|(seen, _)| seen.term != head.term);
        let seen = self.judged.get_or_insert_with(|| (head.clone(), Instant::now()));
        *locked(&self.admitted) = if is_new {
            *seen = (head, Instant::now());
            if span.is_zero() { Admitted::Yes } else { Admitted::NotYet(Some(unequal.to_string())) }
        } else if seen.0 != head {
            Admitted::No(unequal)
        } else if seen.1.elapsed() >= span {
            Admitted::Yes
        } else {
            Admitted::NotYet(Some(unequal.to_string()))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lead, membership};
    use super::*;
    use crate::store::log::memory::MemoryLog;

    fn note(name: &str, count: u64) -> (String, Note) {
        (name.to_owned(), Note { name: name.to_owned(), count, ..Note::default() })
    }

    #[test]
    fn a_server_is_gone_when_its_note_has_stood_still() {
        let (mut watched, start, gone) = (Watched::default(), Instant::now(), Duration::from_secs(12));
        let mut look = |seconds, found| watched.look(found, start + Duration::from_secs(seconds), gone);
        assert!(look(0, vec![note("a", 7), note("b", 1)]).is_empty());
        assert!(look(11, vec![note("a", 8), note("b", 1)]).is_empty());
        assert_eq!(look(12, vec![note("a", 8), note("b", 1)]), ["b"]);
        // It was only slow: it begins again, whatever its number.
        assert!(look(13, vec![note("a", 8), note("b", 0)]).is_empty());
        assert_eq!(look(24, vec![note("a", 8), note("b", 0)]), ["a"]);
    }

    #[test]
    fn rules_that_both_know_must_be_equal() {
        let with = |rules: &[(&str, &str)]| Note {
            rules: rules.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Note::default()
        };
        let leader = with(&[("--drain", "30s"), ("--old", "1")]);
        assert_eq!(unequal(&with(&[("--drain", "30s"), ("--new", "1")]), &leader), None);
        let refused = unequal(&with(&[("--drain", "10s"), ("--new", "1")]), &leader).unwrap().to_string();
        assert!(refused.contains("--drain is 10s here and 30s at"), "{refused}");
    }

    #[test]
    fn the_oldest_server_says_how_records_are_written() {
        let (mut log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
        let membership = membership(&log, cache.path());
        let store = lead(membership.clone());
        let mut mine = Registrar::new("mine", &membership);
        mine.look().unwrap();
        assert_eq!((mine.format(), mine.servers().len()), (replica::newest(), 1));
        // One whose note cannot be read counts as the oldest.
        log.put_note("server/other", b"[]", None).unwrap();
        mine.look().unwrap();
        assert_eq!((mine.format(), mine.servers().len()), (replica::OLDEST, 2));
        drop(store);
    }

    #[test]
    fn a_server_with_other_rules_does_not_join_the_one_that_leads() {
        let (log, cache) = (MemoryLog::default(), tempfile::tempdir().unwrap());
        let with = |drain: &str| {
            let rules = BTreeMap::from([("--drain".to_owned(), drain.to_owned())]);
            Membership { rules, standing: Arc::default(), ..membership(&log, cache.path()) }
        };
        let (first, other, same) = (with("30s"), with("10s"), with("30s"));
        let store = lead(first.clone());
        first.standing.leads("first", store.reign().leader().term);
        Registrar::new("first", &first).look().unwrap();
        let (mut differs, mut fits) = (Registrar::new("other", &other), Registrar::new("same", &same));
        let admitted = |registrar: &mut Registrar| {
            registrar.look().unwrap();
            locked(&registrar.admitted).clone()
        };
        assert_eq!(admitted(&mut fits), Admitted::Yes);
        assert!(matches!(admitted(&mut differs), Admitted::NotYet(Some(_))), "the leader may be gone");
        store.reign().beat().unwrap();
        assert!(matches!(admitted(&mut differs), Admitted::No(_)));
        // One that has given up, or that has stood still, is in nobody's way.
        let mut late = Registrar::new("late", &other);
        assert!(matches!(admitted(&mut late), Admitted::NotYet(Some(_))));
        late.judged.as_mut().unwrap().1 -= Duration::from_secs(60);
        assert_eq!(admitted(&mut late), Admitted::Yes);
        drop(store);
        assert_eq!(admitted(&mut Registrar::new("next", &other)), Admitted::Yes);
    }
}
