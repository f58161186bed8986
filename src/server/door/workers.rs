//! The threads that serve clients. Each has a runtime of its own, and a client stays on the thread that it was given:
//! waking another thread for each request, as one runtime over all threads does, costs more than the request.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The running threads. They end when this is dropped, together with what they still serve.
pub(super) struct Workers {
    threads: Vec<Worker>,
    next: AtomicUsize,
}

struct Worker {
    runtime: Handle,
    /// Dropped: the thread ends.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads. When they are to end, each waits this long at most for what blocks one of its own.
    ///
    /// # Errors
    /// The system gives no thread, or no way to wait for sockets.
    pub fn start(count: usize, last_moment: Duration) -> anyhow::Result<Self> {
        let threads = (0..count.max(1)).map(|_| Worker::start(last_moment)).collect::<anyhow::Result<_>>();
        Ok(Self { threads: threads.context("cannot start the door's threads")?, next: AtomicUsize::new(0) })
    }

    /// Runs a client's task on the next thread in turn.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // The order matters to nobody, so relaxed is enough.
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
            // Nothing is ever sent: the sender's end is what is waited for.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(last_moment);
        })?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All are told before any is waited for.
        self.threads.iter_mut().for_each(|worker| drop(worker.stop.take()));
        for worker in &mut self.threads {
            // A panic of a task stays in it, so the thread itself cannot have panicked.
            let _ = worker.thread.take().map(JoinHandle::join);
        }
    }
}
