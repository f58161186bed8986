//! The limits of stored data and of requests, each with its unit and the reason for its size.
//!
//! A request that exceeds a limit gets a clear 4xx, and other users are still served. Limits that belong to one part of
//! the program live there: `server::limits`, `server::door::limits`, `server::build_watch::limits`, `agent::limits`.
//! Limits are constants; the durations in the rules are settings ([`super::settings::Settings`]).

/// Longest pool or lock name, bytes of UTF-8. A name must fit a file name (255) with room for a prefix.
pub const NAME_BYTES: usize = 128;
/// Longest claim id, run or op id, bytes. A SHA-256 in hexadecimal fits.
pub const ID_BYTES: usize = 64;
/// Longest field of an owner, key, requestor or label, bytes: enough for a build URL.
pub const OWNER_FIELD_BYTES: usize = 256;
/// Longest instance vars, bytes: JSON text that counts as one, larger, owner field.
pub const INSTANCE_VARS_BYTES: usize = 1024;
/// Longest reason, bytes: a few sentences.
pub const REASON_BYTES: usize = 1024;
/// Largest metadata of one lock, bytes: a small YAML file or a key pair.
pub const METADATA_BYTES: usize = 64 * 1024;
/// Most labels on one lock or in one request.
pub const LABELS: usize = 32;
/// Longest label name or value, bytes.
pub const LABEL_BYTES: usize = 64;
/// Most locks in one pool: at worst a step looks at each of them.
pub const LOCKS_PER_POOL: usize = 10_000;
/// Most pools in a store: each costs about 1 KiB of memory.
pub const POOLS: usize = 100_000;
/// Most waiting claims in one pool: at worst a dispatch looks at each of them.
pub const WAITERS_PER_POOL: usize = 10_000;
/// Most pools that one claim may span.
pub const POOLS_PER_CLAIM: usize = 16;
/// Most locks that one claim may take across all its pools.
pub const LOCKS_PER_CLAIM: usize = 1_000;
/// Most claims that share one lock by its key: a step copies the list of them.
pub const HOLDERS_PER_LOCK: usize = 10_000;
/// Most runs remembered for one claim: each restart of a client process adds one.
pub const RUNS_PER_CLAIM: usize = 100;
/// Most parked requests of one claim: a client sends one at a time, and a rerun briefly adds a second.
pub const PARKS_PER_CLAIM: usize = 8;
/// Most ids that are answered with one marked hold: each run of the build can add one. A request past it waits its turn.
pub const ALIASES_PER_CLAIM: usize = 32;
/// Highest priority of a claim; its negative is the lowest. Enough room for any scheme.
pub const PRIORITY: i32 = 1_000;
/// Longest `wait` of one request, milliseconds: below the idle timeout of common proxies.
pub const WAIT_MS: u64 = 60_000;
/// Shortest ttl, milliseconds: below it, network delay alone would end holds.
pub const TTL_MIN_MS: u64 = 1_000;
/// Shortest ttl of `locker run`, milliseconds: the margins that stop its command leave 10 s for a renewal.
pub const LEASE_TTL_MIN_MS: u64 = 15_000;
/// Longest ttl or `give_up_after`, milliseconds (30 days): a forgotten hold ends within the month.
pub const TTL_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// Deadlines up to this span, milliseconds, start again in full when the server restarts; longer ones run on engine
/// time.
pub const SHORT_DEADLINE_MS: u64 = 10 * 60_000;
/// Most queues that one periodic look dispatches again; the next look continues from there. A few milliseconds.
pub const QUEUES_PER_LOOK: usize = 1_000;
/// Most entries on one page of a listing, and most entries that one step examines for pruning.
pub const PAGE: usize = 1_000;
/// Most remembered ended claims: about 100 bytes of memory each; the oldest released ones go first.
pub const ENDED_CLAIMS: usize = 1_000_000;
/// Ended claims that are kept at hand although the store has them: late requests are mostly about the newest.
pub const AT_HAND: usize = 500;
/// Most builds of ended claims that are asked about at the same time, at the slow pace: 28,800 a day.
pub const PAST_BUILDS: usize = 200;
/// Most remembered answers of operations (`op` ids).
pub const OPS: usize = 100_000;
/// Most history entries across all pools: each costs about 170 bytes of memory.
pub const CHANGES: usize = 10_000_000;
/// Most bytes of history across all pools, unless set otherwise: a million entries or so, or 90 days of 5,000 holds a day.
pub const HISTORY_BYTES: u64 = 512 * 1024 * 1024;
/// How many times as old a detail of the history counts: a pool that must lose entries keeps its details for a tenth of
/// the time for which it keeps the rest.
pub const DETAILS_AGE: u64 = 10;
/// Most entries of the history that are removed where one is written: more than can come in at once, so that this
/// catches up.
pub const PRUNED_PER_ENTRY: usize = POOLS_PER_CLAIM + 1;
/// Most latches, locked and released: with full outputs they take 160 MiB, and one listing can contain all of them.
pub const LATCHES: usize = 10_000;
/// Largest outputs of one latch, bytes across all names and values: a few versions, digests and URLs.
pub const LATCH_OUTPUTS_BYTES: usize = 16 * 1024;
/// Most outputs of one latch.
pub const LATCH_OUTPUTS: usize = 64;
/// Longest text by which a latch selects its node, bytes: names of looped Argo nodes contain the loop's item.
pub const LATCH_NODE_BYTES: usize = 1024;
/// Most history entries of latches and tokens, which do not belong to the history of any pool.
pub const LATCH_CHANGES: usize = 100_000;
/// Largest body of a request about a latch, bytes: full outputs, with each character escaped.
pub const LATCH_BODY_BYTES: usize = 128 * 1024;
/// Longest name of a Kubernetes object (an RFC 1123 subdomain), bytes.
pub const KUBERNETES_NAME_BYTES: usize = 253;
/// Longest name of a Kubernetes namespace (an RFC 1123 label), bytes.
pub const KUBERNETES_LABEL_BYTES: usize = 63;
/// Most claims that the search for a waiting cycle visits, two full queues; past it the earlier waiter keeps its turn.
pub const CYCLE_SEARCH: usize = 20_000;
/// Most locks that one search for stuck claims examines, a few milliseconds; past it no claim is reported as stuck.
pub const STUCK_SEARCH: usize = 200_000;
/// Most builds that an answer names when builds wait for each other.
pub const BUILDS_SHOWN: usize = 10;
/// Most waiters that the answer to a waiting client names.
pub const AHEAD_SHOWN: usize = 5;
/// Most holders that the answer to a waiting client names.
pub const HOLDERS_SHOWN: usize = 10;
/// Fewest holds from which a wait is estimated: fewer say little about the next one.
pub const HOLDS_ENOUGH: usize = 5;
/// Most holds of a pool that are remembered for that estimate.
pub const HOLDS: usize = 32;
/// Labels that the waiters of a pool may differ in while questions about the whole queue are answered by its labels: each
/// is compared with the pool's locks, which with more of them costs as much as the walk that it saves.
pub const COMPARED_LABELS: usize = 16;
/// Most tokens that this server has made and nobody has revoked: one for each team and tool of a large organisation. They
/// are all in memory.
pub const TOKENS: usize = 1_000;
/// Longest time for which a token may be made, milliseconds (10 years); it may also be made without an end.
pub const TOKEN_LIFE_MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// Least time between two notes that a token was used, milliseconds (1 h): each is a write to the store.
pub const TOKEN_USE_MS: u64 = 3_600_000;
/// Largest body of a claim, bytes: parked bodies are kept in memory.
pub const CLAIM_BODY_BYTES: usize = 64 * 1024;
/// Most entries that one page of a filtered listing examines; past it the page ends early and says where to continue.
pub const SCAN: usize = 20_000;
