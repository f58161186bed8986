//! The time of one leader, as long as it lasts.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Membership, Notes};
use crate::core::time::{EngineMs, Span};
use crate::store::log::head::{self, Place};
use crate::store::log::judge::Lost;
use crate::store::log::leading::{Leading, SystemClock};
use crate::store::log::{Cause, Log, Trouble};

/// A leader beats this many times in a span when it has nothing to append. Four beats may be lost.
const BEATS: u32 = 5;

type Told = Box<dyn FnOnce(Lost) + Send>;

/// A server that leads, as far as it knows. Each append and each beat proves it for the moment at which it was sent.
pub struct Reign {
    name: String,
    leader: head::Reign,
    membership: Membership,
    span: Span,
    state: Mutex<State>,
    ended: Condvar,
    /// Engine time when it took over, and when that was.
    engine: (EngineMs, Instant),
}

struct State {
    /// `None` once it has given up.
    leading: Option<Leading<Box<dyn Log>, SystemClock>>,
    /// When its last acknowledged write was sent.
    sign: Instant,
    /// Who is to be told that it no longer leads.
    told: Option<Told>,
    lost: Option<Lost>,
}

impl std::fmt::Debug for Reign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reign").field("term", &self.leader.term).finish_non_exhaustive()
    }
}

fn given_up() -> Lost {
    Lost::Unknown(Trouble::new(Cause::Failed, "this server has handed over"))
}

impl Reign {
    pub(super) fn new(membership: &Membership, leading: Leading<Box<dyn Log>, SystemClock>, engine: EngineMs) -> Self {
        let leader = leading.place().reign;
        let state = State { leading: Some(leading), sign: Instant::now(), told: None, lost: None };
        Self {
            name: membership.me.shown().to_owned(),
            leader,
            membership: membership.clone(),
            span: membership.span,
            state: Mutex::new(state),
            ended: Condvar::new(),
            engine: (engine, Instant::now()),
        }
    }

    /// The name of the server, as people know it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it keeps notes that only the leader writes.
    #[must_use]
    pub fn notes(&self) -> Notes {
        Notes { membership: self.membership.clone(), by: self.leader, log: None }
    }

    /// The format in which it writes records.
    pub(super) fn format(&self) -> u8 {
        self.membership.standing.format()
    }

    /// Its term and its random number.
    #[must_use]
    pub fn leader(&self) -> head::Reign {
        self.leader
    }

    /// Each change below is complete before the lock is given back.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Engine time: it goes on from that of the leader before.
    pub(super) fn engine(&self) -> EngineMs {
        let (base, since) = self.engine;
        base.plus(Span(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    /// Has `told` called once when this server no longer leads, from the thread that finds out. At once if it is so already.
    /// Not called when it gives up by itself.
    pub fn when_lost(&self, told: impl FnOnce(Lost) + Send + 'static) {
        let mut state = self.state();
        match state.lost.clone() {
            Some(lost) => told(lost),
            None => state.told = Some(Box::new(told)),
        }
    }

    /// Appends a batch, and returns the place after it.
    pub(super) fn append(&self, bytes: Vec<u8>) -> Result<Place, Lost> {
        let length = bytes.len() as u64;
        let place = self.write(|leading, engine| leading.append(bytes, engine).map(|()| leading.place()))?;
        self.membership.standing.appended(place.seq, length);
        Ok(place)
    }

    /// Proves that this server leads, at some moment since the call.
    ///
    /// # Errors
    /// It no longer leads.
    pub fn beat(&self) -> Result<(), Lost> {
        self.write(Leading::beat)?;
        self.membership.standing.beaten();
        Ok(())
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut Leading<Box<dyn Log>, SystemClock>, EngineMs) -> Result<T, Lost>,
    ) -> Result<T, Lost> {
        let mut state = self.state();
        let sent = Instant::now();
        let engine = self.engine();
        let Some(leading) = &mut state.leading else { return Err(state.lost.clone().unwrap_or_else(given_up)) };
        let written = write(leading, engine);
        match &written {
            Ok(_) => state.sign = sent,
            Err(lost) => {
                state.lost.get_or_insert_with(|| lost.clone());
                if let Some(told) = state.told.take() {
                    told(lost.clone());
                }
            }
        }
        written
    }

    /// Hands over: others may take over at once. If it no longer leads, nothing happens.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        state.told = None;
        let leading = state.leading.take();
        self.ended.notify_all();
        if let (Some(leading), None) = (leading, &state.lost)
            && let Err(lost) = leading.give_up(self.engine())
        {
            tracing::warn!("could not hand over, so others wait for {} ms: {lost}", self.span.0);
        }
    }

    /// The thread that beats while nothing is appended, until the reign ends.
    pub(super) fn start_beats(self: &Arc<Self>) -> anyhow::Result<JoinHandle<()>> {
        let reign = Arc::clone(self);
        let run = move || while reign.beat_when_due() {};
        thread::Builder::new().name("beat".to_owned()).spawn(run).context("cannot start the thread that beats")
    }

    /// Waits until a beat is due, and beats. False when the reign has ended.
    fn beat_when_due(&self) -> bool {
        let pause = Duration::from_millis(self.span.0) / BEATS;
        let mut state = self.state();
        loop {
            if state.leading.is_none() || state.lost.is_some() {
                return false;
            }
            let left = pause.saturating_sub(state.sign.elapsed());
            if left.is_zero() {
                break;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.beat().is_ok()
    }
}
