//! Where clients and the nemesis meet: the gate that lets requests through, the common record, the clock.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::history::{Call, Nanos, Op, Seen};

pub struct Arena {
    start: Instant,
    gate: Mutex<Gate>,
    moved: Condvar,
    pub log: Mutex<Vec<Op>>,
    /// Connections that broke: to which life of the server, and when.
    pub broken: Mutex<Vec<(usize, Nanos)>>,
    /// When SIGKILL was sent to each life of the server.
    pub kills: Mutex<Vec<Nanos>>,
    /// Ids that have ended, with a run that spoke for them: late duplicates of their releases come from here.
    pub graveyard: Mutex<Vec<(String, String)>>,
    /// The next client that gets a yes kills the server at once.
    trigger: AtomicBool,
    victim: AtomicI32,
    pub stop: AtomicBool,
}

#[derive(Default)]
struct Gate {
    open: Option<(SocketAddr, usize)>,
    inside: usize,
}

/// A request on its way; the gate cannot be closed over it.
pub struct Pass<'a> {
    arena: &'a Arena,
    pub address: SocketAddr,
    /// Which life of the server it goes to.
    pub server: usize,
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

    /// Lets requests through to this life of the server.
    pub fn open(&self, address: SocketAddr, server: usize, victim: Pid) {
        self.victim.store(victim.as_raw(), Ordering::SeqCst);
        self.gate().open = Some((address, server));
        self.moved.notify_all();
    }

    /// Lets nobody in, and returns when everybody is out.
    pub fn close(&self) {
        let mut gate = self.gate();
        gate.open = None;
        while gate.inside > 0 {
            gate = self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a failed connect: waits until the gate does not lead to that life of the server any more.
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
        // The process is not waited for before this has returned, so its number still means it.
        kill(Pid::from_raw(self.victim.load(Ordering::SeqCst)), Signal::SIGKILL).expect("the server can be killed");
    }

    /// A client has got its answer: when the trigger is armed and the answer was a yes, the server dies now.
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

    pub fn record(&self, op: Op) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
