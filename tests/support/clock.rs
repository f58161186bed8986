//! Clocks that tests move: one in this process, and the wall clock of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use locker::core::time::Span;
use locker::env::Clock;

/// The wall clock at the beginning, in Unix milliseconds.
const BEGINNING: u64 = 1_788_000_000_000;

/// Its wall clock and its monotonic clock show the same time. Copies of it move together.
#[derive(Clone, Default)]
pub struct HandClock {
    ms: Arc<AtomicU64>,
}

impl HandClock {
    pub fn pass(&self, span: Span) {
        self.ms.fetch_add(span.0, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.ms.load(Ordering::SeqCst))
    }
    fn wall_ms(&self) -> u64 {
        BEGINNING + self.ms.load(Ordering::SeqCst)
    }
}

/// The wall clock of other processes, moved by libfaketime. Their monotonic clocks stay right.
pub struct WallClock {
    /// Says by how much it is moved.
    file: PathBuf,
    library: Option<String>,
}

impl WallClock {
    /// It is right until it jumps. The file is made.
    pub fn in_file(file: &Path) -> Self {
        // Where Debian's package `faketime` puts it.
        let found =
            ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|arch| format!("/usr/lib/{arch}/faketime/libfaketime.so.1"));
        let library = found.into_iter().find(|path| Path::new(path).exists());
        let clock = Self { file: file.to_owned(), library };
        clock.jump("+0");
        clock
    }

    /// Whether it can be moved here.
    pub fn moves(&self) -> bool {
        self.library.is_some()
    }

    /// What processes need in their environment to have this clock: nothing if it cannot be moved here.
    pub fn vars(&self) -> Vec<(&str, &str)> {
        let Some(library) = &self.library else { return Vec::new() };
        vec![
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
        ]
    }

    /// From now on it shows the right time and this much, such as `-1d`.
    pub fn jump(&self, by: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{by}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}
