//! Answers on their way to those who wait for them.
//!
//! To wake a thread of the door costs a system call, for each answer, whether it sleeps or not. So each of these threads
//! has a [`Desk`]. The answers of a batch are put on the desks of their threads, and each thread is told once.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::EngineError;
use crate::core::command::Reply;

type Outcome = Result<Reply, EngineError>;
type Sender = oneshot::Sender<Outcome>;

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// Where the answers for one thread are put. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Desk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    answers: Mutex<Vec<(Sender, Outcome)>>,
    filled: Notify,
}

impl Desk {
    /// Makes this the desk of the thread that it is called on: whoever asks the engine there is answered as long as
    /// [`Self::hand_on`] runs there.
    pub fn set_up(&self) {
        DESK.set(Some(self.clone()));
    }

    /// Hands on what is put here, until it is dropped.
    pub async fn hand_on(&self) {
        loop {
            self.0.filled.notified().await;
            let answers = std::mem::take(&mut *self.0.answers.lock().unwrap_or_else(PoisonError::into_inner));
            for (to, outcome) in answers {
                // The caller may have gone.
                let _ = to.send(outcome);
            }
        }
    }

    fn put(&self, to: Sender, outcome: Outcome) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).push((to, outcome));
    }
}

/// The way to one who waits.
pub(super) struct Answer {
    to: Sender,
    desk: Option<Desk>,
}

impl Answer {
    /// For one who waits on this thread, at the receiver.
    pub fn channel() -> (Self, oneshot::Receiver<Outcome>) {
        let (to, answered) = oneshot::channel();
        (Self { to, desk: DESK.with_borrow(Clone::clone) }, answered)
    }

    /// Answers at once.
    pub fn send(self, outcome: Outcome) {
        // The caller may have gone.
        let _ = self.to.send(outcome);
    }
}

/// Answers a batch.
pub(super) fn send_all(answers: Vec<(Answer, Outcome)>) {
    let mut desks: Vec<Desk> = Vec::new();
    for (Answer { to, desk }, outcome) in answers {
        let Some(desk) = desk else {
            // The caller may have gone.
            let _ = to.send(outcome);
            continue;
        };
        desk.put(to, outcome);
        if !desks.iter().any(|known| Arc::ptr_eq(&known.0, &desk.0)) {
            desks.push(desk);
        }
    }
    desks.iter().for_each(|desk| desk.0.filled.notify_one());
}
