//! Watches over a running command: renews its lease, forwards signals, and stops the command before somebody else can
//! get its locks.
//!
//! Everything that happens arrives as an [`Event`], and [`Lease`] decides what to do about the lease. The loop waits
//! for nothing else: requests run in their own threads, and another thread prints the lines for people. So neither a
//! server that hangs nor a full pipe can keep the guard from stopping the command in time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use rustix::process::Signal;

use super::group::{Group, Happened};
use crate::client::backoff::Backoff;
use crate::client::lease::{Lease, Lost, Margins, Step};
use crate::client::{CallError, Client};
use crate::env::Clock;
use crate::wire::api::{ClaimView, RenewBody};
use crate::wire::errors::Code;

/// The time between SIGTERM and SIGKILL for processes that the command leaves behind in its group.
const LEFTOVERS: Duration = Duration::from_secs(5);
/// How long to wait after SIGKILL until the processes are gone. A process that hangs in the kernel may never go.
const VANISH: Duration = Duration::from_secs(1);
/// The time between two looks at what is left of the group.
const LOOK: Duration = Duration::from_millis(20);
/// The longest wait in one piece. Waits do not count the time that the machine sleeps, but leases do.
const SLEEP: Duration = Duration::from_millis(500);

/// What can happen.
pub(super) enum Event {
    /// This process received a signal.
    Signal(i32),
    /// The command's first process did something.
    Command(Happened),
    /// A renewal was answered, or failed.
    Renewed(Result<(), CallError>),
}

/// How the command ended.
pub(super) enum Outcome {
    /// It ended with this exit code while the locks were still held.
    Ended(u8),
    /// The lease was lost, the user has been told, and the command has been stopped.
    Lost,
}

/// The claim that holds the lease.
#[derive(Clone)]
pub(super) struct Leased {
    pub client: Client,
    pub id: String,
    pub run: String,
    pub fence: u64,
    pub margins: Margins,
}

impl Leased {
    /// Renews the lease once. It is harmless to repeat.
    pub(super) fn renew(&self) -> Result<ClaimView, CallError> {
        let body = RenewBody { run: Some(self.run.clone()), fence: Some(self.fence) };
        self.client.renew(&self.id, &body, self.margins.patience())
    }
}

/// Whether an error says that the claim no longer holds its locks. Others, such as refused credentials, do not say so.
pub(super) fn is_over(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Refused(refused) if matches!(
            refused.code,
            Some(Code::Ended | Code::NoSuchClaim | Code::NotGranted | Code::WrongFence | Code::SupersededRun)
        )
    )
}

pub(super) struct Guard {
    pub leased: Leased,
    pub lease: Lease,
    pub clock: Arc<dyn Clock>,
    pub group: Group,
    pub events: Receiver<Event>,
    pub tell: Sender<Event>,
    /// Lines for people.
    pub lines: Sender<String>,
    pub watch: Watch,
}

/// What the guard knows in addition to the lease.
pub(super) struct Watch {
    backoff: Backoff,
    /// Why the last renewal failed, if it did.
    failing: Option<String>,
    is_lost: bool,
    /// Set once the first process has ended.
    ended: Option<Left>,
}

impl Watch {
    pub(super) fn new(margins: &Margins) -> Self {
        Self { backoff: Backoff::new(margins.retry()), failing: None, is_lost: false, ended: None }
    }
}

/// The rest of the group, once its first process has ended.
#[derive(Clone, Copy)]
struct Left {
    code: u8,
    /// When the rest is killed.
    kill_at: Duration,
    killed: bool,
}

impl Guard {
    /// Watches until no process of the command is left.
    pub(super) fn watch(mut self) -> Outcome {
        loop {
            let now = self.clock.through_suspend();
            let until = match self.lease.next(now) {
                Step::Renew => {
                    self.renew(now);
                    continue;
                }
                Step::Term(why) => {
                    self.group.signal(Signal::TERM);
                    self.lose(why, now);
                    continue;
                }
                Step::Kill => {
                    self.group.signal(Signal::KILL);
                    self.say("lease lost: SIGKILL to the command".to_owned());
                    continue;
                }
                Step::Wait(until) => until,
            };
            if let Some(code) = self.is_done(now) {
                return if self.watch.is_lost { Outcome::Lost } else { Outcome::Ended(code) };
            }
            let span = until.map_or(SLEEP, |until| until.saturating_sub(now));
            let span = span.min(if self.watch.ended.is_some() { LOOK } else { SLEEP });
            // The guard itself has a sender, so this can only time out.
            if let Ok(event) = self.events.recv_timeout(span) {
                self.hear(event);
            }
        }
    }

    fn say(&self, line: String) {
        // The receiver lives as long as the guard.
        let _ = self.lines.send(line);
    }

    fn renew(&mut self, now: Duration) {
        let (leased, tell) = (self.leased.clone(), self.tell.clone());
        let thread = std::thread::Builder::new().name("renewal".into());
        let sent = thread.spawn(move || drop(tell.send(Event::Renewed(leased.renew().map(drop)))));
        if let Err(error) = sent {
            self.failed(now, format!("cannot start a thread: {error}"), None);
        }
    }

    fn hear(&mut self, event: Event) {
        let now = self.clock.through_suspend();
        match event {
            Event::Signal(signal) if signal == Signal::CONT.as_raw() => self.group.lend_terminal(),
            Event::Signal(signal) => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    self.group.signal(signal);
                }
            }
            Event::Command(Happened::Suspended) if self.group.has_terminal() => {
                self.group.signal(Signal::CONT);
                self.say("the command continues: if it were suspended, its lease would be lost".to_owned());
            }
            Event::Command(Happened::Suspended) => {}
            Event::Command(Happened::Ended(code)) => {
                self.group.signal(Signal::TERM);
                self.watch.ended = Some(Left { code, kill_at: now + LEFTOVERS, killed: false });
            }
            Event::Renewed(Ok(())) => {
                self.lease.renewed();
                self.watch.backoff.reset();
                if self.watch.failing.take().is_some() {
                    self.say("the lease is renewed again".to_owned());
                }
            }
            Event::Renewed(Err(error)) if is_over(&error) => {
                self.watch.failing = Some(error.to_string());
                self.lease.ended(now);
            }
            Event::Renewed(Err(CallError::NoAnswer(why))) => self.failed(now, why.to_string(), why.retry_after),
            Event::Renewed(Err(error)) => self.failed(now, error.to_string(), None),
        }
    }

    /// A renewal failed: reports each new reason once, and schedules the next attempt.
    fn failed(&mut self, now: Duration, why: String, retry_after: Option<Duration>) {
        self.lease.failed(now, self.watch.backoff.pause(retry_after));
        if !self.watch.is_lost && self.watch.failing.as_ref() != Some(&why) {
            let left = self.lease.term_at().saturating_sub(now).as_secs();
            self.say(format!("the lease could not be renewed: {why}; retrying, the command is stopped in {left}s"));
            self.watch.failing = Some(why);
        }
    }

    fn lose(&mut self, why: Lost, now: Duration) {
        let last = self.watch.failing.take();
        let why = match why {
            Lost::Ended => last.unwrap_or_else(|| "the claim has ended".to_owned()),
            Lost::NotRenewed => {
                let last = last.map(|why| format!(": {why}")).unwrap_or_default();
                format!("not renewed in time{last}")
            }
        };
        let grace = self.lease.kill_at().saturating_sub(now).as_secs();
        self.say(format!("lease lost: {why}; SIGTERM to the command, SIGKILL in {grace}s"));
        self.watch.is_lost = true;
    }

    /// The exit code of the command, once no process of its group is left.
    fn is_done(&mut self, now: Duration) -> Option<u8> {
        let mut left = self.watch.ended?;
        if !self.group.is_alive() || (left.killed && now >= left.kill_at + VANISH) {
            return Some(left.code);
        }
        if now >= left.kill_at && !left.killed {
            self.group.signal(Signal::KILL);
            left.killed = true;
            self.watch.ended = Some(left);
        }
        None
    }
}
