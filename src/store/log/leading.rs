//! A leader, and how a server becomes one. Everything that takes time is here; every decision is in [`super::candidate`]
//! and [`super::judge`].

use std::thread;
use std::time::{Duration, Instant};

use super::candidate::{Candidate, Chance};
use super::head::{Id, Place, Record, Write};
use super::judge::{Lost, Verdict, judge};
#[cfg(any(test, feature = "plant"))]
use super::plant::Plant;
use super::{Cause, Log, Trouble, Written};
use crate::core::time::{EngineMs, Span};

/// The first pause before a write is repeated.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest: well below any span, so that a database that is back is noticed in time.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A monotonic clock that may be waited on.
pub trait Clock: Send {
    /// The time since any moment that stays the same.
    fn now(&self) -> Duration;
    fn pause(&self, span: Duration);
}

/// The machine's.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl SystemClock {
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn pause(&self, span: Duration) {
        thread::sleep(span);
    }
}

/// A server that leads, as far as it knows. The first error is the last: then it no longer leads.
#[derive(Debug)]
pub struct Leading<L, C> {
    log: L,
    clock: C,
    place: Place,
    span: Span,
    lost: Option<Lost>,
    #[cfg(any(test, feature = "plant"))]
    plant: Option<Plant>,
}

/// What came of one look at the log.
#[derive(Debug)]
pub enum Stand<L, C> {
    Leads(Leading<L, C>),
    /// Somebody else leads: look again by then, on the candidate's clock.
    Waits {
        log: L,
        clock: C,
        until: Duration,
    },
    /// The log gave no answer.
    Trouble {
        log: L,
        clock: C,
        trouble: Trouble,
    },
}

/// Looks at the log once, and takes over if that is allowed.
pub fn stand<L: Log, C: Clock>(candidate: &mut Candidate, mut log: L, clock: C) -> Stand<L, C> {
    let attempt = look_and_take_over(candidate, &mut log, &clock);
    match attempt {
        Ok(Ok(place)) => Stand::Leads(Leading {
            log,
            clock,
            place,
            span: candidate.span(),
            lost: None,
            #[cfg(any(test, feature = "plant"))]
            plant: None,
        }),
        Ok(Err(until)) => Stand::Waits { log, clock, until },
        Err(trouble) => Stand::Trouble { log, clock, trouble },
    }
}

/// The place that the candidate leads from, or when to look again.
fn look_and_take_over(
    candidate: &mut Candidate,
    log: &mut impl Log,
    clock: &impl Clock,
) -> Result<Result<Place, Duration>, Trouble> {
    let head = log.head()?;
    let write = match candidate.look(head.clone(), clock.now()) {
        Chance::Wait { until } => return Ok(Err(until)),
        Chance::Free(write) => write,
        Chance::Mine(place) => {
            let engine = head.map_or(EngineMs(0), |head| head.engine);
            Write::beat(place, candidate.span(), engine)
        }
    };
    match log.write(&write)? {
        Written::Done(made) => Ok(Ok(made)),
        // Somebody else was faster, or the old leader lives.
        Written::Refused(_) => Ok(Err(clock.now())),
    }
}

impl<L: Log, C: Clock> Leading<L, C> {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The log, for reading, snapshots and trimming.
    pub fn log(&mut self) -> &mut L {
        &mut self.log
    }

    /// Appends a batch. When it returns, the batch is durable, and at some moment since the call this server led.
    ///
    /// # Errors
    /// It no longer leads; nobody knows whether the batch is in the log.
    pub fn append(&mut self, bytes: Vec<u8>, engine: EngineMs) -> Result<(), Lost> {
        let Place { reign, seq, record: before } = self.place;
        let id = match Id::random() {
            Ok(id) => id,
            Err(error) => return Err(self.lose(Lost::Unknown(Trouble::new(Cause::Failed, error.to_string())))),
        };
        let record = Record { seq: seq.next(), id, before, term: reign.term, bytes };
        self.until_known(Some(&record), engine, self.span)
    }

    /// Proves that this server leads, at some moment since the call.
    ///
    /// # Errors
    /// It no longer leads.
    pub fn beat(&mut self, engine: EngineMs) -> Result<(), Lost> {
        self.until_known(None, engine, self.span)
    }

    /// Gives the head up, so that another server takes over at once.
    ///
    /// # Errors
    /// It led no more, or nobody knows whether it was given up. Others take over after its span at the latest.
    pub fn give_up(mut self, engine: EngineMs) -> Result<(), Lost> {
        self.until_known(None, engine, Span(0))
    }

    /// Writes, and repeats the identical write until its outcome is known, or for as long as others wait at the most.
    fn until_known(&mut self, record: Option<&Record>, engine: EngineMs, span: Span) -> Result<(), Lost> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let end = self.clock.now().saturating_add(Duration::from_millis(self.span.0));
        let after = record.map_or(self.place, |record| self.place.after(record));
        let mut pause = PAUSE;
        // The head has shown the record: a beat behind it proves it.
        let mut shown = false;
        loop {
            let write = match record {
                Some(record) if !shown => Write::append(self.place, record, engine),
                _ => Write::beat(after, span, engine),
            };
            let outcome = self.log.write(&write);
            #[cfg(any(test, feature = "plant"))]
            if self.plant == Some(Plant::ReplayWithANewId)
                && let (Some(record), Err(_)) = (record, &outcome)
            {
                return self.replay_with_a_new_id(record, engine);
            }
            // Once it was shown, an older head means that the record was lost again, and is appended again.
            let verdict = match (judge(self.place, record, &outcome), &outcome) {
                (Verdict::Prove, _) if shown => Verdict::Repeat,
                (verdict, _) => verdict,
            };
            match verdict {
                Verdict::Done => {
                    self.place = after;
                    return Ok(());
                }
                Verdict::Lost(lost) => return Err(self.lose(lost)),
                Verdict::Prove => shown = true,
                Verdict::Repeat => {
                    if let Ok(Written::Refused(Some(head))) = &outcome {
                        shown = record.is_some() && head.place() == after;
                    }
                    if self.clock.now() >= end {
                        let trouble = outcome.err().unwrap_or_else(|| Trouble::new(Cause::Failed, "it keeps changing"));
                        return Err(self.lose(Lost::Unknown(trouble)));
                    }
                    self.clock.pause(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn lose(&mut self, lost: Lost) -> Lost {
        self.lost = Some(lost.clone());
        lost
    }
}

#[cfg(any(test, feature = "plant"))]
impl<L: Log, C: Clock> Leading<L, C> {
    /// The same leader with a planted bug.
    #[must_use]
    pub fn with(mut self, plant: Plant) -> Self {
        self.plant = Some(plant);
        self
    }

    /// The planted bug: it looks where the head is, and appends the batch there as a new record.
    fn replay_with_a_new_id(&mut self, record: &Record, engine: EngineMs) -> Result<(), Lost> {
        let head = loop {
            match self.log.head() {
                Ok(Some(head)) => break head,
                _ => self.clock.pause(PAUSE),
            }
        };
        self.place = head.place();
        self.plant = None;
        self.append(record.bytes.clone(), engine)
    }
}
