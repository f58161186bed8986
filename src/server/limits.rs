//! The limits of the engine and the log, each with its unit and the reason for its size.

/// Most commands that are stepped at one time; as many again may join their batch while it waits for the commit before it.
/// Larger batches increase latency and gain nothing (measured).
pub const BATCH: usize = 512;
/// Commands that may wait to be stepped before new requests are refused: one of each connection, as when all clients ask
/// again after a restart. Each takes 2 KiB or so of memory, without its body. More wait only while the store hangs: requests
/// that are not answered in time end, but their commands stay.
pub const INBOX: usize = 16_384;
/// Bytes of the bodies of these commands before new requests are refused: 2 KiB for each, several times what claims have.
pub const INBOX_BYTES: usize = 32 * 1024 * 1024;
/// Longest listing that is made on a thread that serves clients, in pools, locks, waiters, claims, entries or latches:
/// others on that thread wait for it, less than a millisecond.
pub const SHORT_LISTING: usize = 100;
/// Most longer listings that are made at one time: more would not be ready earlier on a small machine.
pub const LISTERS: usize = 2;
/// Most bytes of log lines that wait to be written, about 20,000 lines. Further lines are dropped and counted, because
/// a full pipe must not block the server.
pub const LOG_BYTES: usize = 4 * 1024 * 1024;
/// Most pools that have metrics of their own, unless set otherwise: about 40 lines each, so a scrape stays below 1 MiB
/// or so. All others are summed.
pub const METRIC_POOLS: usize = 200;
/// Most batches of changes whose audit lines wait to be written; further lines are left out and counted. A slow log must
/// not fill the memory.
pub const AUDIT_BATCHES: usize = 1_000;
/// Most history entries that one read of the store takes before others may read: a few milliseconds.
pub const ENTRIES_PER_READ: usize = 1_000;
/// Most history entries from which one answer makes figures: a second or two of reading.
pub const ENTRIES_COUNTED: usize = 200_000;
/// Most pools, and most teams, in one answer with figures.
pub const GROUPS_SHOWN: usize = 1_000;
/// Most waits, and most holds, that an answer lists as the longest.
pub const LONGEST_SHOWN: usize = 100;
/// How long a person stays signed in on the web page, milliseconds: a working day.
pub const SESSION_MS: u64 = 12 * 60 * 60 * 1_000;
/// Most people who are signed in on the web page. Beyond it, the session that was not used for the longest time ends.
pub const SESSIONS: usize = 1_000;
/// Most clients that follow events at one time. Each costs a little at every change, but the engine nothing.
pub const FOLLOWERS: usize = 1_000;
/// Shortest time between two parts of the events that one client follows, milliseconds: a burst of changes makes one
/// part, and people still see each within a second.
pub const EVENTS_PACE_MS: u64 = 250;
/// Time after which a client that follows events gets a sign of life, milliseconds: less than proxies wait.
pub const EVENTS_BEAT_MS: u64 = 15_000;
/// Longest time that a client follows events before it must ask again, milliseconds, so that its rights are checked again.
pub const EVENTS_MS: u64 = 10 * 60 * 1_000;
/// Most history entries in one part of the events that a client follows, about 100 KiB. The rest follows at once.
pub const EVENTS_PART: usize = 200;
/// How long the figures of the web page are shown before they are counted again, milliseconds.
pub const FIGURES_MS: u64 = 60_000;
/// Most spans and pools whose figures are kept for the web page: more than people look at within a minute.
pub const FIGURES_KEPT: usize = 32;
/// Most pages of the web page that are kept for a moment, for the next reader of the same page: 3 MiB each at most.
pub const PAGES_KEPT: usize = 16;
/// Largest access file, bytes: far more than its users and rules take.
pub const ACCESS_FILE_BYTES: usize = 1024 * 1024;
/// Most users in the access file; each is looked up by name.
pub const ACCESS_USERS: usize = 1_000;
/// Most rules in the access file: each is compared with each request's identity.
pub const ACCESS_RULES: usize = 1_000;
/// Most subjects, rights or patterns in one rule.
pub const ACCESS_LIST: usize = 100;
/// How often the access file is looked at, milliseconds: a change counts within a second or two.
pub const ACCESS_LOOK_MS: u64 = 1_000;
/// Most log lines about refused requests in one second: enough to see who is refused, and too few to hide the rest.
pub const REFUSALS_LOGGED: u32 = 10;
/// How long those wait for a proof that this server leads who have shown no token that it knows, milliseconds. They share one
/// write to the database in that time.
pub const STRANGERS_MS: u64 = 100;
/// Most passwords that are checked at one time: each takes 19 MiB and tens of milliseconds of a processor.
pub const LOGINS_AT_ONCE: usize = 1;
/// Most passwords that are checked or wait for it: about a second of work. Further ones are asked to come back.
pub const LOGINS_WAITING: usize = 32;
/// How long a password that was right is known to be right, milliseconds: clients ask many times within it.
pub const LOGIN_KEPT_MS: u64 = 30_000;
/// Most of these passwords, as hashes of 32 bytes.
pub const LOGINS_KEPT: usize = 1_000;
/// Most memory that the check of a password may take, KiB.
pub const PASSWORD_HASH_KIB: u32 = 64 * 1024;
