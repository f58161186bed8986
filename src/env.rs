//! The machine as a value: the only file that reads the process's clock, randomness, signals and environment.
//!
//! Every program gets an [`Env`] and touches nothing else, so tests can run it in-process with an `Env` of their own.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a program sees of the machine.
pub struct Env<'a> {
    /// Arguments, starting with the program's name.
    pub args: Vec<String>,
    pub vars: BTreeMap<String, String>,
    pub stdin: &'a mut dyn Read,
    pub stdout: &'a mut dyn Write,
    pub stderr: &'a mut dyn Write,
    /// Whether stdout is a terminal: only then may it be coloured.
    pub is_terminal: bool,
    pub hostname: String,
    pub clock: Arc<dyn Clock>,
    pub signals: Signals,
}

impl Env<'_> {
    /// The value of a variable, unless it is unset or empty.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The content of a file, or of stdin for `-`, as [`read_at_most`] returns it.
    ///
    /// # Errors
    /// It cannot be opened or read.
    pub fn read_input(&mut self, file: &str, max: u64) -> std::io::Result<Option<Vec<u8>>> {
        if file == "-" { read_at_most(&mut *self.stdin, max) } else { read_file(Path::new(file), max) }
    }
}

/// The clocks of the machine.
pub trait Clock: Send + Sync {
    /// Monotonic time since some fixed moment in this process.
    fn monotonic(&self) -> Duration;
    /// Like [`Self::monotonic`], but it also counts the time that the machine sleeps. Leases are counted by it.
    fn through_suspend(&self) -> Duration {
        self.monotonic()
    }
    /// Milliseconds since 1970 UTC: for display only.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn through_suspend(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // It counts from the boot of the machine, so it is never negative.
        Duration::try_from(now).unwrap_or_default()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// `N` random bytes.
///
/// # Panics
/// When the operating system cannot provide random bytes: without them nothing is safe.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// `N` random bytes as hexadecimal.
///
/// # Panics
/// As [`random_bytes`].
#[must_use]
pub fn random_hex<const N: usize>() -> String {
    hex(&random_bytes::<N>())
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from(b"0123456789abcdef"[usize::from(number)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Everything from `from`, if that is at most `max` bytes; otherwise `None`, after reading `max` bytes and one more.
///
/// # Errors
/// It cannot be read.
pub fn read_at_most(from: impl Read, max: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

/// The whole file, if that is at most `max` bytes; otherwise `None`. Named pipes and devices are refused: opening a
/// pipe may block forever, and reading a device may never end. Files that the shell hands over (`<(...)`) are read.
///
/// # Errors
/// It cannot be opened or read, or is not a file.
pub fn read_file(path: &Path, max: u64) -> std::io::Result<Option<Vec<u8>>> {
    let file = open_file(path)?;
    if file.metadata()?.len() > max {
        return Ok(None);
    }
    read_at_most(file, max)
}

/// The bytes that [`read_file`], [`read_at_most`] or [`Env::read_input`] has read.
///
/// # Errors
/// They could not be read, or there are more than `max`.
pub fn whole(read: std::io::Result<Option<Vec<u8>>>, max: u64) -> std::io::Result<Vec<u8>> {
    let too_long = || std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("it is longer than {max} bytes"));
    read?.ok_or_else(too_long)
}

/// The same as text.
///
/// # Errors
/// Also: it is not UTF-8.
pub fn whole_text(read: std::io::Result<Option<Vec<u8>>>, max: u64) -> std::io::Result<String> {
    let not_text = |_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(whole(read, max)?).map_err(not_text)
}

/// Checks the files that libraries read by themselves: the trusted certificates that `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name.
///
/// # Errors
/// Reading them could block or take all memory. The text names the variable.
pub fn check_trusted_files(max: u64) -> Result<(), String> {
    let check = |name: &str, path: &Path| match open_file(path).and_then(|file| file.metadata()) {
        Ok(found) if found.len() > max => Err(format!("{name}: {path:?} is longer than {max} bytes")),
        // What does not exist is not read.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Err(format!("{name}: {path:?}: {error}")),
        _ => Ok(()),
    };
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        check("SSL_CERT_FILE", Path::new(&file))?;
    }
    let dirs = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
    let entries = std::env::split_paths(&dirs).filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| !path.is_dir());
    files.try_for_each(|path| check("SSL_CERT_DIR", &path))
}

/// Opens a file for reading, under the rules of [`read_file`]. Never blocks.
fn open_file(path: &Path) -> std::io::Result<File> {
    if is_handed_over(path) {
        return File::open(path);
    }
    // What it is can only be asked safely once it is open: names change what they mean. This flag keeps a pipe from
    // blocking, and means nothing for regular files.
    let flag = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flag).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file"))
}

/// Whether this is a descriptor of a process: `/dev/stdin`, `/dev/fd/N` or `/proc/PID/fd/N`.
fn is_handed_over(path: &Path) -> bool {
    let of_process = || path.starts_with("/proc/") && path.parent().is_some_and(|parent| parent.ends_with("fd"));
    path.starts_with("/dev/fd/") || path == Path::new("/dev/stdin") || of_process()
}

/// Whether the process was started without a stdout. Rust's runtime then opens `/dev/null` in its place, for reading
/// and writing. Nothing else opens stdout that way.
#[must_use]
pub fn stdout_was_closed() -> bool {
    use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
    let stdout = std::io::stdout();
    let is_read_write = fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDWR);
    let is_null = fstat(&stdout).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == makedev(1, 3)
    });
    is_read_write && is_null
}

/// Takes the place of a closed stdout: every write fails.
pub struct ClosedStdout;

impl std::io::Write for ClosedStdout {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("stdout is closed"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Term,
    Int,
    /// Only caught by [`Signals::relay`]; otherwise it ends the process, or reloads the server's certificates.
    Hup,
    /// Only caught by [`Signals::relay`]; otherwise it ends the process.
    Quit,
}

impl Signal {
    /// The exit code that shells expect after this signal.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Term => 143,
            Self::Int => 130,
            Self::Hup => 129,
            Self::Quit => 131,
        }
    }

    /// Its usual name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
            Self::Hup => "SIGHUP",
            Self::Quit => "SIGQUIT",
        }
    }
}

/// The signals that this process ignores, as a bit mask; 0 where the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[derive(Default)]
struct SignalState {
    first: Option<Signal>,
    listeners: Vec<Box<dyn Fn(Signal) + Send>>,
}

/// The signals that have arrived. Cheap to clone. Code that waits sleeps here, so that a signal wakes it.
#[derive(Clone, Default)]
pub struct Signals {
    inner: Arc<(Mutex<SignalState>, Condvar)>,
}

impl Signals {
    /// Catches SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// The operating system refuses the handlers.
    pub fn of_process() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let signals = Self::default();
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in caught.forever() {
                handle.raise(if signal == SIGINT { Signal::Int } else { Signal::Term });
            }
        })?;
        Ok(signals)
    }

    /// From now on, calls `hear` for every SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 and SIGCONT. SIGHUP and
    /// SIGQUIT now also ask the process to end. A signal to end is recorded before `hear` is called. Signals that were
    /// ignored at the start (because of `nohup`, for example) stay ignored.
    ///
    /// # Errors
    /// The operating system refuses the handlers.
    pub fn relay(&self, hear: impl Fn(i32) + Send + 'static) -> std::io::Result<()> {
        use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let ignored = ignored_signals();
        let wanted = [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT].into_iter().filter(|s| ignored >> (s - 1) & 1 == 0);
        let mut caught = signal_hook::iterator::Signals::new(wanted.chain([SIGINT, SIGTERM]))?;
        let signals = self.clone();
        std::thread::Builder::new().name("relay".into()).spawn(move || {
            for signal in caught.forever() {
                match signal {
                    SIGHUP => signals.raise(Signal::Hup),
                    SIGQUIT => signals.raise(Signal::Quit),
                    SIGINT => signals.raise(Signal::Int),
                    SIGTERM => signals.raise(Signal::Term),
                    _ => {}
                }
                hear(signal);
            }
        })?;
        Ok(())
    }

    /// Records a signal and calls every listener. Only the first signal is remembered.
    pub fn raise(&self, signal: Signal) {
        let (state, changed) = &*self.inner;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.first.get_or_insert(signal);
        state.listeners.iter().for_each(|listener| listener(signal));
        changed.notify_all();
    }

    /// Calls `listener` for each later signal, and at once if one has already arrived. It must not block.
    pub fn on_signal(&self, listener: impl Fn(Signal) + Send + 'static) {
        let mut state = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = state.first {
            listener(signal);
        }
        state.listeners.push(Box::new(listener));
    }

    /// The first signal, if one has arrived.
    #[must_use]
    pub fn caught(&self) -> Option<Signal> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner).first
    }

    /// Sleeps for `span`, or until a signal arrives; returns the first signal, if any.
    #[must_use]
    pub fn sleep(&self, span: Duration) -> Option<Signal> {
        let (state, changed) = &*self.inner;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) =
            changed.wait_timeout_while(state, span, |s| s.first.is_none()).unwrap_or_else(PoisonError::into_inner);
        state.first
    }
}
