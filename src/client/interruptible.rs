//! A request in a thread of its own, so that a signal is heard at once while it waits for its answer.

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
    events: Receiver<Option<T>>,
    signals: Signals,
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
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(move || drop(wake.send(None))));
        std::thread::spawn(move || drop(send.send(Some(work()))));
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
    pub fn wait(&self) -> Result<T, Signal> {
        loop {
            if let Some(signal) = self.signals.caught() {
                return Err(signal);
            }
            match self.events.recv() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                // The thread died without an answer, which only a panic does; it has been reported already.
                Err(_) => return Err(self.signals.caught().unwrap_or(Signal::Term)),
            }
        }
    }

    /// Waits for the answer or a signal, whichever is first, but no longer than `span`: then `None`.
    ///
    /// # Errors
    /// The signal.
    pub fn wait_at_most(&self, span: Duration) -> Result<Option<T>, Signal> {
        let end = Instant::now() + span;
        loop {
            if let Some(signal) = self.signals.caught() {
                return Err(signal);
            }
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Waits for the answer, signals or not, but no longer than `span`.
    #[must_use]
    pub fn wait_for(&self, span: Duration) -> Option<T> {
        let end = Instant::now() + span;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
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
}
