//! Where clients and the nemesis meet: the gate that lets requests through, the common record, the clock.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::history::{Call, Nanos, Op, Seen};
use crate::support::http::Client as Conn;

pub struct Arena {
    start: Instant,
    gate: Mutex<Gate>,
    moved: Condvar,
    pub log: Mutex<Vec<Op>>,
    /// Broken connections: the life of the server, and the time.
    pub broken: Mutex<Vec<(usize, Nanos)>>,
    /// When each life of the server got SIGKILL.
    pub kills: Mutex<Vec<Nanos>>,
    /// Ended ids, each with a run that acted for it. Late duplicates of releases use these.
    pub graveyard: Mutex<Vec<(String, String)>>,
    /// The next client that gets a positive answer kills the server at once.
    trigger: AtomicBool,
    victim: AtomicI32,
    pub stop: AtomicBool,
}

#[derive(Default)]
struct Gate {
    open: Option<(SocketAddr, usize)>,
    inside: usize,
}

/// A request under way. The gate cannot close before it is done.
pub struct Pass<'a> {
    arena: &'a Arena,
    address: SocketAddr,
    /// Which life of the server it goes to.
    pub server: usize,
}

impl Pass<'_> {
    /// A connection; `which` of the client's two.
    pub fn connect(&self, _which: usize) -> io::Result<Conn> {
        Conn::open(self.address)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.arena.gate().inside -= 1;
        self.arena.moved.notify_all();
    }
}

impl Arena {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            gate: Mutex::default(),
            moved: Condvar::new(),
            log: Mutex::default(),
            broken: Mutex::default(),
            kills: Mutex::default(),
            graveyard: Mutex::default(),
            trigger: AtomicBool::new(false),
            victim: AtomicI32::new(0),
            stop: AtomicBool::new(false),
        }
    }

    pub fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run takes less than centuries")
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the gate is open.
    pub fn enter(&self) -> Pass<'_> {
        let mut gate = self.gate();
        loop {
            if let Some((address, server)) = gate.open {
                gate.inside += 1;
                return Pass { arena: self, address, server };
            }
            gate = self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Opens the gate to this life of the server.
    pub fn open(&self, address: SocketAddr, server: usize, victim: Pid) {
        self.victim.store(victim.as_raw(), Ordering::SeqCst);
        self.gate().open = Some((address, server));
        self.moved.notify_all();
    }

    /// Closes the gate, and returns when no request is under way.
    pub fn close(&self) {
        let mut gate = self.gate();
        gate.open = None;
        while gate.inside > 0 {
            gate = self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a failed connect: waits until the gate no longer leads to that life of the server.
    pub fn wait_for_another(&self, server: usize) {
        let mut gate = self.gate();
        while gate.open.is_some_and(|(_, s)| s == server) {
            gate = self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn arm(&self) {
        self.trigger.store(true, Ordering::SeqCst);
    }

    /// False when the trigger has been pulled already.
    pub fn disarm(&self) -> bool {
        self.trigger.swap(false, Ordering::SeqCst)
    }

    pub fn kill(&self) {
        let now = self.now();
        self.kills.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        // Nobody reaps the process before this returns, so its number still refers to it.
        kill(Pid::from_raw(self.victim.load(Ordering::SeqCst)), Signal::SIGKILL).expect("the server can be killed");
    }

    /// A client got its answer. If the trigger is armed and the answer was positive, this kills the server.
    pub fn answered(&self, call: Call, seen: &Seen) {
        let yes = match call {
            Call::Ask | Call::Confirm => seen.is_held(),
            Call::End => matches!(seen, Seen::Ended { .. }),
            Call::Look | Call::Audit | Call::Neglect => false,
        };
        if yes && self.disarm() {
            self.kill();
        }
    }

    /// Whether an answer that did not come must have come.
    #[allow(clippy::unused_self, reason = "with several servers, it depends on the client")]
    pub fn is_hang(&self, error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    }

    pub fn record(&self, op: Op) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    /// How many operations were recorded.
    pub fn recorded(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
