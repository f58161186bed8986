//! Log lines in transit to standard error. A separate thread writes many of them at a time.
//!
//! `tracing-appender` wakes its thread for each line, which costs more than the request that the line is about
//! (`docs/decisions/0018-one-way-through-the-server.md`). This thread looks once per [`GATHER`], and sleeps without a
//! timer while there is nothing to write.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use crate::priority;
use crate::server::limits;

/// How long lines are gathered before they are written together: too short for a person to notice.
const GATHER: Duration = Duration::from_millis(10);
/// How long the server waits at its end for the last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The number of lines that were dropped for lack of room.
    dropped: u64,
    /// The thread waits for the first line.
    asleep: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Lines that were dropped since the start, for the metrics.
    dropped: Counter,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where lines are put. Cheap to clone. It never blocks: if there is no room for a line, the line is dropped and
/// counted.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Writes lines until it is dropped. Then it writes the remaining lines, for at most [`LAST_LINES`].
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Disconnected when the thread has written everything.
    done: Receiver<()>,
}

impl Writer {
    /// Counts the lines that were dropped.
    pub fn dropped(&self) -> Counter {
        self.shared.dropped.clone()
    }
}

/// Starts the thread that writes to `to`.
pub(super) fn start(mut to: impl Write + Send + 'static) -> (Lines, Writer) {
    let shared = Arc::<Shared>::default();
    let (alive, done) = mpsc::channel();
    let theirs = Arc::clone(&shared);
    let run = move || {
        priority::second();
        while let Some(bytes) = next(&theirs) {
            // If this fails, there is nobody to report it to.
            let _ = to.write_all(&bytes).and_then(|()| to.flush());
        }
        drop(alive);
    };
    // Without a thread there is no log, and nobody to report that to.
    let _ = std::thread::Builder::new().name("log".into()).spawn(run);
    (Lines(Arc::clone(&shared)), Writer { shared, done })
}

/// The lines to write next. `None` when all have been written and no more will come.
fn next(shared: &Shared) -> Option<Vec<u8>> {
    let mut waiting = shared.waiting();
    while waiting.bytes.is_empty() && !waiting.ended {
        waiting.asleep = true;
        waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
    waiting.asleep = false;
    let more = |waiting: &mut Waiting| !waiting.ended;
    let gathered = shared.changed.wait_timeout_while(waiting, GATHER, more);
    let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
    let mut bytes = std::mem::take(&mut waiting.bytes);
    let dropped = std::mem::take(&mut waiting.dropped);
    drop(waiting);
    if dropped > 0 {
        bytes.extend_from_slice(
            format!("{dropped} lines of the log were dropped: nobody read them in time\n").as_bytes(),
        );
    }
    (!bytes.is_empty()).then_some(bytes)
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting();
        if waiting.bytes.len() + line.len() > limits::LOG_BYTES {
            waiting.dropped += 1;
            self.0.dropped.inc();
            return Ok(line.len());
        }
        waiting.bytes.extend_from_slice(line);
        if std::mem::take(&mut waiting.asleep) {
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;
    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.waiting().ended = true;
        self.shared.changed.notify_all();
        // Nothing is ever sent: this waits until the thread ends or the time is over.
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that takes nothing while the test holds it.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_all_of_them_at_the_end() {
        let pipe = Pipe::default();
        let (mut lines, writer) = start(pipe.clone());
        for n in 0..1_000 {
            writeln!(lines, "{n}").unwrap();
        }
        drop(writer);
        let written = String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap();
        assert!(written.lines().eq((0..1_000).map(|n| n.to_string())), "{written}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_stops_nobody_and_what_is_dropped_is_counted() {
        let pipe = Pipe::default();
        let (mut lines, writer) = start(pipe.clone());
        let full = pipe.0.lock().unwrap();
        let line = [b'x'; 1023];
        for _ in 0..=2 * limits::LOG_BYTES / 1024 {
            lines.write_all(&line).unwrap();
            lines.write_all(b"\n").unwrap();
        }
        drop(full);
        drop(writer);
        let text = String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap();
        assert!(text.len() <= 2 * limits::LOG_BYTES + 1024);
        let last = text.lines().last().unwrap();
        assert!(last.ends_with(" lines of the log were dropped: nobody read them in time"), "{last}");
    }
}
