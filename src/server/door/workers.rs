//! The threads that serve clients. Each thread has its own runtime, and a client stays on the thread that it was given.
//! A single runtime over all threads wakes another thread for each request, which costs more than the request.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::server::engine::answers::Desk;

/// Shorter than the limits of the door, and long enough to cost nothing.
const TICK: Duration = Duration::from_millis(500);

/// The running threads. Dropping this ends them, together with the connections that they still serve.
pub(super) struct Workers {
    threads: Vec<Worker>,
    next: AtomicUsize,
}

struct Worker {
    runtime: Handle,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads. On shutdown each thread waits at most `last_moment` for its blocking calls.
    ///
    /// # Errors
    /// The system cannot start a thread, or has no way to wait for sockets.
    pub fn start(count: usize, last_moment: Duration) -> anyhow::Result<Self> {
        let threads = (0..count.max(1)).map(|_| Worker::start(last_moment)).collect::<anyhow::Result<_>>();
        Ok(Self { threads: threads.context("cannot start the door's threads")?, next: AtomicUsize::new(0) })
    }

    /// Runs a client's task on the next thread (round robin).
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // The exact order does not matter, so relaxed is enough.
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        self.threads[next].runtime.spawn(task);
    }
}

impl Worker {
    fn start(last_moment: Duration) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new().name("door".into()).spawn(move || {
            Desk::set_up(&runtime);
            runtime.block_on(async {
                tokio::select! {
                    // Nothing is ever sent: this waits until the sender is dropped.
                    _ = stopped => {}
                    () = tick() => {}
                }
            });
            runtime.shutdown_timeout(last_moment);
        })?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

/// Keeps a timer that is due before those of clients. A timer that is due before all others wakes the thread, with a system
/// call, even if it is set by the thread itself: each request would.
async fn tick() {
    loop {
        sleep(TICK).await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Signal all threads before waiting for any of them.
        self.threads.iter_mut().for_each(|worker| drop(worker.stop.take()));
        for worker in &mut self.threads {
            // A panic of a task stays in that task, so the thread itself cannot have panicked.
            let _ = worker.thread.take().map(JoinHandle::join);
        }
    }
}
