//! The limits of notifications, each with its unit and the reason for its size.

/// Largest file of targets, bytes: some hundred targets with comments.
pub const NOTIFY_FILE_BYTES: u64 = 256 * 1024;
/// Most targets in the file: each may have a thread while it is being told something.
pub const TARGETS: usize = 200;
/// Most pool patterns of one target.
pub const PATTERNS: usize = 100;
/// Largest URL, secret or token, bytes: a larger file is not the one that was meant.
pub const NOTIFY_SECRET_BYTES: usize = 8 * 1024;
/// Least and most bytes of the key that signs, as the convention (Standard Webhooks) has it.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Shortest limit for a wait, a hold or a suspect, milliseconds.
pub const SHORTEST_LIMIT_MS: u64 = 1_000;
/// Time between a change and what is sent about it, milliseconds: what happens together is told together.
pub const GATHER_MS: u64 = 100;
/// Shortest time between two checks of one resource of Concourse, milliseconds: a check costs it a container, and takes
/// about as long.
pub const CHECK_PAUSE_MS: u64 = 2_000;
/// Longest time between two looks at waits, holds and suspects, milliseconds. Short limits are looked at more often.
pub const LOOK_MS: u64 = 5_000;
/// Shortest such time, milliseconds.
pub const LOOK_LEAST_MS: u64 = 100;
/// Time between two looks at the file of targets, milliseconds. SIGHUP is noticed within the same time.
pub const NOTIFY_FILE_POLL_MS: u64 = 1_000;
/// Longest time for one request to a target, milliseconds, including name lookup, connection and TLS.
pub const NOTIFY_TIMEOUT_MS: u64 = 10_000;
/// First and longest pause before a target is tried again, milliseconds. It doubles from one to the other.
pub const RETRY_MS: (u64, u64) = (1_000, 5 * 60 * 1_000);
/// Longest pause that a target may ask for (`Retry-After`), milliseconds.
pub const RETRY_AFTER_MS: u64 = 10 * 60 * 1_000;
/// How often a message is sent that the target refuses as such (400, 413, 415, 422), before it is left out: the next ones
/// must not wait for it.
pub const REFUSALS: u32 = 3;
/// Age from which an entry of the history is no longer told, milliseconds: after a day it is news to nobody, and whoever
/// was away for longer must not get a flood. The target is told that something was left out.
pub const TOLD_WITHIN_MS: u64 = 24 * 60 * 60 * 1_000;
/// Most history entries that are read at one time.
pub const ENTRIES_PER_ROUND: usize = 1_000;
/// Most overdue waits, holds and suspects that one target is told of at one time; the others follow.
pub const OVERDUE_PER_ROUND: usize = 1_000;
/// Most lines in one message for people.
pub const LINES_PER_POST: usize = 20;
/// Largest answer of a target that is read, bytes: enough for the reason of a refusal.
pub const NOTIFY_ANSWER_BYTES: u64 = 16 * 1024;
/// Longest part of an answer that is shown, characters.
pub const SHOWN_CHARS: usize = 200;
/// Shortest time between two writes of what was told, milliseconds. After a crash, what was sent in that time is sent again.
pub const SAVE_PAUSE_MS: u64 = 1_000;
/// The same where nothing was sent, milliseconds: a crash then costs only another look, and each write a sync of the disk.
pub const SAVE_MOVED_PAUSE_MS: u64 = 10_000;
/// Largest file of what was told, bytes.
pub const PROGRESS_BYTES: u64 = 1024 * 1024;
