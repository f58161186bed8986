//! A request in a thread of its own, so that a signal is heard at once while it waits for its answer.
//!
//! A panic of the work goes on in whoever waits for it: nobody waits for an answer that never comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::env::{Signal, Signals};

type Waker = Box<dyn Fn() + Send>;

/// Sends requests off. One for each process (or in-process test) is enough: it hears the signals once and for all.
pub struct Interruptible {
    signals: Signals,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// A request on its way.
pub struct Running<T> {
    events: Receiver<Event<T>>,
    signals: Signals,
}

/// What is heard of it.
enum Event<T> {
    Done(T),
    Panicked(Box<dyn Any + Send>),
    /// A signal has come. It is noted elsewhere.
    Signal,
}

impl Interruptible {
    /// Begins to listen for signals.
    #[must_use]
    pub fn new(signals: &Signals) -> Self {
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let slot = Arc::clone(&waker);
        signals.on_signal(move |_| {
            if let Some(wake) = slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                wake();
            }
        });
        Self { signals: signals.clone(), waker }
    }

    /// Starts `work` in a thread. Whoever stops waiting for it leaves it behind: it ends with its own timeouts.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let (send, events) = mpsc::channel();
        let wake = send.clone();
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Box::new(move || drop(wake.send(Event::Signal))));
        std::thread::spawn(move || {
            // The waker has a sender, too, so the end of this thread would not be heard: each end is told.
            let event = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(answer) => Event::Done(answer),
                Err(panic) => Event::Panicked(panic),
            };
            // Nobody may be waiting any more.
            let _ = send.send(event);
        });
        Running { events, signals: self.signals.clone() }
    }

    /// Runs `work`, unless a signal comes first.
    ///
    /// # Errors
    /// The signal. What the work did or will still do is unknown.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Signal> {
        self.start(work).wait()
    }

    /// Sleeps, unless a signal comes first or has come.
    ///
    /// # Errors
    /// The signal.
    pub fn sleep(&self, span: Duration) -> Result<(), Signal> {
        self.signals.sleep(span).map_or(Ok(()), Err)
    }

    /// The signal that has come.
    ///
    /// # Errors
    /// The signal.
    pub fn check(&self) -> Result<(), Signal> {
        self.signals.caught().map_or(Ok(()), Err)
    }
}

impl<T> Running<T> {
    /// Waits for the answer or a signal, whichever is first.
    ///
    /// # Errors
    /// The signal.
    ///
    /// # Panics
    /// When the work has.
    pub fn wait(&self) -> Result<T, Signal> {
        loop {
            if let Some(signal) = self.signals.caught() {
                return Err(signal);
            }
            match self.events.recv() {
                Ok(Event::Done(answer)) => return Ok(answer),
                Ok(Event::Panicked(panic)) => resume_unwind(panic),
                Ok(Event::Signal) => {}
                // The answer was taken before; there is no other.
                Err(_) => return Err(self.signals.caught().unwrap_or(Signal::Term)),
            }
        }
    }

    /// Waits for the answer or a signal, whichever is first, but no longer than `span`: then `None`.
    ///
    /// # Errors
    /// The signal.
    ///
    /// # Panics
    /// When the work has.
    pub fn wait_at_most(&self, span: Duration) -> Result<Option<T>, Signal> {
        let end = Instant::now() + span;
        loop {
            if let Some(signal) = self.signals.caught() {
                return Err(signal);
            }
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Event::Done(answer)) => return Ok(Some(answer)),
                Ok(Event::Panicked(panic)) => resume_unwind(panic),
                Ok(Event::Signal) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Waits for the answer, signals or not, but no longer than `span`.
    ///
    /// # Panics
    /// When the work has.
    #[must_use]
    pub fn wait_for(&self, span: Duration) -> Option<T> {
        let end = Instant::now() + span;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Event::Done(answer)) => return Some(answer),
                Ok(Event::Panicked(panic)) => resume_unwind(panic),
                Ok(Event::Signal) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_the_wait_not_the_work() {
        let signals = Signals::default();
        let interruptible = Interruptible::new(&signals);
        assert_eq!(interruptible.run(|| 1), Ok(1));
        let (go, gate) = mpsc::channel::<()>();
        let running = interruptible.start(move || gate.recv().map(|()| 2));
        let raiser = signals.clone();
        std::thread::spawn(move || raiser.raise(Signal::Int));
        assert_eq!(running.wait(), Err(Signal::Int));
        go.send(()).unwrap();
        assert_eq!(running.wait_for(Duration::from_secs(10)), Some(Ok(2)));
        assert_eq!(interruptible.run(|| 3), Err(Signal::Int));
        assert_eq!(interruptible.sleep(Duration::from_secs(10)), Err(Signal::Int));
    }

    #[test]
    fn a_panic_of_the_work_is_heard_by_whoever_waits() {
        let interruptible = Interruptible::new(&Signals::default());
        let panics = || -> u8 { panic!("as it must") };
        let long = Duration::from_secs(60);
        let waits: [fn(&Running<u8>, Duration) -> bool; 3] = [
            |running, _| running.wait().is_ok(),
            |running, long| running.wait_at_most(long).is_ok(),
            |running, long| running.wait_for(long).is_some(),
        ];
        for wait in waits {
            let running = interruptible.start(panics);
            let heard = catch_unwind(AssertUnwindSafe(|| wait(&running, long))).unwrap_err();
            assert_eq!(heard.downcast_ref::<&str>(), Some(&"as it must"));
        }
    }
}
