//! Where clients and faults meet: which server a client talks to, the common record, the clock. Clients see it as they see
//! the arena of the proof with one server.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::history::{Call, Nanos, Op, Seen};
use crate::support::http::{ANSWER_WITHIN, Client as Conn};

/// How long most clients wait for an answer before they ask another server. A few wait as long as a server may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// One client in this many is patient.
const PATIENT: usize = 4;
/// A client goes to another server after this many requests, if nothing happens.
const REQUESTS: usize = 40;

pub struct Arena {
    start: Instant,
    gate: Mutex<Gate>,
    moved: Condvar,
    pub log: Mutex<Vec<Op>>,
    /// Broken connections: the server, and the time.
    pub broken: Mutex<Vec<(usize, Nanos)>>,
    /// Ended ids, each with a run that acted for it. Late duplicates of releases use these.
    pub graveyard: Mutex<Vec<(String, String)>>,
    pub stop: AtomicBool,
    /// The doors of the servers, as clients reach them.
    doors: Vec<SocketAddr>,
    clients: AtomicUsize,
}

#[derive(Default)]
struct Gate {
    is_open: bool,
    inside: usize,
}

/// What a client thread has in mind.
#[derive(Clone, Copy)]
struct Mind {
    server: usize,
    requests: usize,
    is_patient: bool,
}

thread_local! {
    static MIND: Cell<Option<Mind>> = const { Cell::new(None) };
}

/// A request under way. The gate cannot close before it is done.
pub struct Pass<'a> {
    arena: &'a Arena,
    pub server: usize,
}

impl Pass<'_> {
    /// A connection; `which` of the client's two: the second one goes to another server.
    pub fn connect(&self, which: usize) -> io::Result<Conn> {
        let door = self.arena.doors[(self.server + which) % self.arena.doors.len()];
        Conn::within(door, if self.arena.mind().is_patient { ANSWER_WITHIN } else { PATIENCE })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.arena.gate().inside -= 1;
        self.arena.moved.notify_all();
    }
}

impl Arena {
    pub fn new(doors: Vec<SocketAddr>) -> Self {
        Self {
            start: Instant::now(),
            gate: Mutex::default(),
            moved: Condvar::new(),
            log: Mutex::default(),
            broken: Mutex::default(),
            graveyard: Mutex::default(),
            stop: AtomicBool::new(false),
            doors,
            clients: AtomicUsize::new(0),
        }
    }

    pub fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run takes less than centuries")
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mind(&self) -> Mind {
        MIND.get().unwrap_or_else(|| {
            let number = self.clients.fetch_add(1, Ordering::SeqCst);
            let mind =
                Mind { server: number % self.doors.len(), requests: 0, is_patient: number.is_multiple_of(PATIENT) };
            MIND.set(Some(mind));
            mind
        })
    }

    /// This client goes to another server next time.
    pub fn move_on(&self) {
        let mind = self.mind();
        MIND.set(Some(Mind { server: (mind.server + 1) % self.doors.len(), requests: 0, ..mind }));
    }

    /// Waits until the gate is open.
    pub fn enter(&self) -> Pass<'_> {
        let mut gate = self.gate();
        while !gate.is_open {
            gate = self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        gate.inside += 1;
        drop(gate);
        let mind = self.mind();
        MIND.set(Some(Mind { requests: mind.requests + 1, ..mind }));
        if mind.requests > REQUESTS {
            self.move_on();
        }
        Pass { arena: self, server: self.mind().server }
    }

    pub fn open(&self) {
        self.gate().is_open = true;
        self.moved.notify_all();
    }

    /// Closes the gate, and returns when no request is under way.
    pub fn close(&self) {
        let mut gate = self.gate();
        gate.is_open = false;
        while gate.inside > 0 {
            gate = self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a failed connect or a lost answer: goes to another server, after a moment, for all may be down.
    pub fn wait_for_another(&self, _server: usize) {
        thread::sleep(Duration::from_millis(5));
        self.move_on();
    }

    /// A client got its answer.
    pub fn answered(&self, _call: Call, seen: &Seen) {
        if *seen == Seen::Nothing {
            self.wait_for_another(0);
        }
    }

    /// Whether an answer that did not come must have come: the patient wait longer than any fault lasts.
    pub fn is_hang(&self, error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) && self.mind().is_patient
    }

    pub fn record(&self, op: Op) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
