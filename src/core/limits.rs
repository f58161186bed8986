//! The limits of what is kept and asked, each with its unit and the reason for its size.
//!
//! A request that exceeds a limit gets a clear 4xx; other users are still served. Limits of a part of the program live
//! with that part: `server::limits`, `server::door::limits`, `server::build_watch::limits`, `agent::limits`.
//! Limits are constants; the durations of the rules are settings ([`super::settings::Settings`]).

/// Longest pool or lock name, bytes of UTF-8. A name must fit a file name (255) with room for a prefix.
pub const NAME_BYTES: usize = 128;
/// Longest claim id, run or op id, bytes. A SHA-256 in hexadecimal fits.
pub const ID_BYTES: usize = 64;
/// Longest field of an owner, key, requestor or label, bytes: enough for a build URL.
pub const OWNER_FIELD_BYTES: usize = 256;
/// Longest instance vars, bytes: they are JSON text and count as one owner field, but a larger one.
pub const INSTANCE_VARS_BYTES: usize = 1024;
/// Longest reason, bytes: a few sentences.
pub const REASON_BYTES: usize = 1024;
/// Largest metadata of one lock, bytes: a small YAML file or a key pair.
pub const METADATA_BYTES: usize = 64 * 1024;
/// Most labels on one lock or in one request.
pub const LABELS: usize = 32;
/// Longest label name or value, bytes.
pub const LABEL_BYTES: usize = 64;
/// Most locks in one pool: a step looks at each of them at worst.
pub const LOCKS_PER_POOL: usize = 10_000;
/// Most pools in a store: each costs about 1 KiB of memory.
pub const POOLS: usize = 100_000;
/// Most waiting claims in one pool: a dispatch looks at each of them at worst.
pub const WAITERS_PER_POOL: usize = 10_000;
/// Most pools that one claim may span.
pub const POOLS_PER_CLAIM: usize = 16;
/// Most locks that one claim may take over all its pools.
pub const LOCKS_PER_CLAIM: usize = 1_000;
/// Most claims that share one lock by its key: a step copies their list.
pub const HOLDERS_PER_LOCK: usize = 10_000;
/// Most runs remembered for one claim: each restart of a client process adds one.
pub const RUNS_PER_CLAIM: usize = 100;
/// Most parked requests of one claim: one client asks once; a re-run briefly twice.
pub const PARKS_PER_CLAIM: usize = 8;
/// Highest priority of a claim, and with a minus the lowest: enough room for any scheme.
pub const PRIORITY: i32 = 1_000;
/// Longest `wait` of one request, milliseconds: below the idle timeout of common proxies.
pub const WAIT_MS: u64 = 60_000;
/// Shortest ttl, milliseconds: below it, network delay alone would end holds.
pub const TTL_MIN_MS: u64 = 1_000;
/// Shortest ttl of `locker run`, milliseconds: after the margins that stop its command 10 s are left to renew in.
pub const LEASE_TTL_MIN_MS: u64 = 15_000;
/// Longest ttl or `give_up_after`, milliseconds (30 days): a forgotten hold ends within the month.
pub const TTL_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// Deadlines up to this span, milliseconds, restart in full with the server; longer ones run on engine time.
pub const SHORT_DEADLINE_MS: u64 = 10 * 60_000;
/// Most queues that one periodic look dispatches again; the next look goes on from there. Some milliseconds.
pub const QUEUES_PER_LOOK: usize = 1_000;
/// Most entries in one page of a listing; also most that one step looks at for what is too old or too much.
pub const PAGE: usize = 1_000;
/// Most ended claims remembered: about 300 bytes each; the oldest released ones go first.
pub const ENDED_CLAIMS: usize = 1_000_000;
/// Most remembered answers of operations (`op` ids).
pub const OPS: usize = 100_000;
/// Most history entries over all pools.
pub const CHANGES: usize = 10_000_000;
/// Most latches, locked and released: with full outputs they take 160 MiB, and one listing holds them all.
pub const LATCHES: usize = 10_000;
/// Largest outputs of one latch, bytes over all names and values: a few versions, digests and URLs.
pub const LATCH_OUTPUTS_BYTES: usize = 16 * 1024;
/// Most outputs of one latch.
pub const LATCH_OUTPUTS: usize = 64;
/// Longest text by which a latch selects its node, bytes: names of looped Argo nodes contain the loop's item.
pub const LATCH_NODE_BYTES: usize = 1024;
/// Most history entries of latches; they are not in the history of any pool.
pub const LATCH_CHANGES: usize = 100_000;
/// Largest body of a request about a latch, bytes: full outputs, each character escaped.
pub const LATCH_BODY_BYTES: usize = 128 * 1024;
/// Longest name of a Kubernetes object (an RFC 1123 subdomain), bytes.
pub const KUBERNETES_NAME_BYTES: usize = 253;
/// Longest name of a Kubernetes namespace (an RFC 1123 label), bytes.
pub const KUBERNETES_LABEL_BYTES: usize = 63;
/// Most claims that the search for a waiting cycle visits, two full queues; past it the earlier waiter keeps its right.
pub const CYCLE_SEARCH: usize = 20_000;
/// Most locks looked at in one search for claims that are stuck: some milliseconds; past it nobody is called stuck.
pub const STUCK_SEARCH: usize = 200_000;
/// Most builds named of those that wait for each other.
pub const BUILDS_SHOWN: usize = 10;
/// Most waiters named in the answer to one that waits.
pub const AHEAD_SHOWN: usize = 5;
/// Most holders named in the answer to one that waits.
pub const HOLDERS_SHOWN: usize = 10;
/// Fewest holds from which a wait is guessed: fewer say little about the next one.
pub const HOLDS_ENOUGH: usize = 5;
/// Entries of a pool's history in which recent holds are looked for; each answer to a waiting claim looks.
pub const HOLDS_SCAN: usize = 200;
/// Largest body of a claim, bytes: parked bodies are kept in memory.
pub const CLAIM_BODY_BYTES: usize = 64 * 1024;
/// Most entries that one page of a filtered listing looks at; past it the page ends early and names where to go on.
pub const SCAN: usize = 20_000;
