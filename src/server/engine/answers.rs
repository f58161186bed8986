//! What a thread that serves clients asks of the engine, and the answers on their way back.
//!
//! To wake another thread costs a system call, whether it sleeps or not. So each thread of the door has a [`Desk`], and so
//! has the thread of the links from other servers. What is asked there is stepped there, all at once. The answers of a batch
//! are put on the desks of their threads, and each thread is told once.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};

use super::EngineError;
use super::inbox::Inbox;
use crate::core::command::Reply;

type Outcome = Result<Reply, EngineError>;
type Sender = oneshot::Sender<Outcome>;

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// Where one thread puts what it asks, and finds its answers. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Desk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Where something was asked that has not been stepped yet.
    inboxes: Mutex<Vec<Arc<Inbox>>>,
    asked: Notify,
    answers: Mutex<Vec<(Sender, Outcome)>>,
    filled: Notify,
}

impl Desk {
    /// Gives the thread that this is called on a desk. From then on it must run this runtime, and no other thread may.
    pub fn set_up(runtime: &Runtime) {
        let desk = Self::default();
        DESK.set(Some(desk.clone()));
        // Tasks of their own: to wake that of `block_on` costs a system call, even on this thread.
        runtime.spawn(desk.clone().step());
        runtime.spawn(desk.hand_on());
    }

    /// The thread that this is called on has no desk any more.
    #[cfg(test)]
    pub fn take_down() {
        DESK.set(None);
    }

    /// Steps what is asked on this thread, after the tasks that are ready now: they may ask, too. However much others ask
    /// meanwhile, these tasks have their turn in between.
    async fn step(self) {
        let Stepping(desk) = &Stepping(self);
        loop {
            desk.0.asked.notified().await;
            let more: Vec<_> = desk.take_asked().into_iter().filter(|inbox| inbox.step()).collect();
            if !more.is_empty() {
                more.iter().for_each(|inbox| desk.ask(inbox));
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes those where something was asked.
    fn take_asked(&self) -> Vec<Arc<Inbox>> {
        std::mem::take(&mut *self.0.inboxes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands on what is put here.
    async fn hand_on(self) {
        loop {
            self.0.filled.notified().await;
            let answers = std::mem::take(&mut *self.0.answers.lock().unwrap_or_else(PoisonError::into_inner));
            for (to, outcome) in answers {
                // The caller may have gone.
                let _ = to.send(outcome);
            }
        }
    }

    /// Has an inbox stepped soon.
    fn ask(&self, inbox: &Arc<Inbox>) {
        let mut inboxes = self.0.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        if !inboxes.iter().any(|known| Arc::ptr_eq(known, inbox)) {
            inboxes.push(Arc::clone(inbox));
            self.0.asked.notify_one();
        }
    }

    fn put(&self, to: Sender, outcome: Outcome) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).push((to, outcome));
    }
}

/// A desk whose thread steps what is asked there. When that thread ends, it leaves what it was to step to the engine's: it
/// may be what other threads have asked.
struct Stepping(Desk);

impl Drop for Stepping {
    fn drop(&mut self) {
        self.0.take_asked().iter().for_each(|inbox| inbox.call());
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

/// Has this inbox stepped soon on this thread. False if it has no desk.
pub(super) fn step_soon(inbox: &Arc<Inbox>) -> bool {
    DESK.with_borrow(|desk| desk.as_ref().map(|desk| desk.ask(inbox)).is_some())
}
