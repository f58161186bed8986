//! Runs a request in its own thread, so that a signal takes effect at once while the request waits for its answer.
//!
//! If the work panics, the panic resumes in the thread that waits for it, so nothing waits for an answer that never
//! comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::env::{Signal, Signals};

type Waker = Box<dyn Fn() + Send>;

/// Starts requests. One for each process (or in-process test) is enough.
pub struct Interruptible {
    signals: Signals,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// A request in progress.
pub struct Running<T> {
    events: Receiver<Event<T>>,
    signals: Signals,
}

/// What the waiting thread receives.
enum Event<T> {
    Done(T),
    Panicked(Box<dyn Any + Send>),
    /// A signal has arrived. [`Signals`] records which.
    Signal,
}

impl Interruptible {
    /// Starts listening for signals.
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

    /// Starts `work` in a thread. If the caller stops waiting, the thread runs on until its own timeouts end it.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let (send, events) = mpsc::channel();
        let wake = send.clone();
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Box::new(move || drop(wake.send(Event::Signal))));
        std::thread::spawn(move || {
            // The waker holds a sender, too, so the end of this thread does not close the channel. Report both
            // outcomes.
            let event = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(answer) => Event::Done(answer),
                Err(panic) => Event::Panicked(panic),
            };
            // The receiver may be gone.
            let _ = send.send(event);
        });
        Running { events, signals: self.signals.clone() }
    }

    /// Runs `work` and waits for it, unless a signal arrives first.
    ///
    /// # Errors
    /// The signal. Whether the work took effect, or still will, is unknown.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Signal> {
        self.start(work).wait()
    }

    /// Sleeps, unless a signal arrives first or has already arrived.
    ///
    /// # Errors
    /// The signal.
    pub fn sleep(&self, span: Duration) -> Result<(), Signal> {
        self.signals.sleep(span).map_or(Ok(()), Err)
    }

    /// Fails if a signal has arrived.
    ///
    /// # Errors
    /// The signal.
    pub fn check(&self) -> Result<(), Signal> {
        self.signals.caught().map_or(Ok(()), Err)
    }
}

impl<T> Running<T> {
    /// Waits for the answer or a signal, whichever comes first.
    ///
    /// # Errors
    /// The signal.
    ///
    /// # Panics
    /// If the work panicked.
    pub fn wait(&self) -> Result<T, Signal> {
        loop {
            if let Some(signal) = self.signals.caught() {
                return Err(signal);
            }
            match self.events.recv() {
                Ok(Event::Done(answer)) => return Ok(answer),
                Ok(Event::Panicked(panic)) => resume_unwind(panic),
                Ok(Event::Signal) => {}
                // The answer has already been taken, and there is no other.
                Err(_) => return Err(self.signals.caught().unwrap_or(Signal::Term)),
            }
        }
    }

    /// Waits for the answer or a signal, whichever comes first, but at most for `span`: then returns `None`.
    ///
    /// # Errors
    /// The signal.
    ///
    /// # Panics
    /// If the work panicked.
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

    /// Waits for the answer for at most `span`. Signals do not interrupt it.
    ///
    /// # Panics
    /// If the work panicked.
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
    fn a_panic_of_the_work_reaches_the_thread_that_waits() {
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
