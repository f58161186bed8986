//! Every limit of Locker, with its unit and the reason for its size.
//!
//! A limit that a request passes is answered with a clear 4xx; other users go on being served.
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
/// Most entries in one page of a listing.
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
/// Most commands in one batch: larger ones cost latency and win nothing (measured).
pub const BATCH: usize = 512;
/// Largest body of a claim, bytes: parked bodies are kept in memory.
pub const CLAIM_BODY_BYTES: usize = 64 * 1024;
/// Most entries that one page of a filtered listing looks at; past it the page ends early and names where to go on.
pub const SCAN: usize = 20_000;

// ---- The door (design section 8) ----
/// Largest request head (request line and headers), bytes: several times what clients and their proxies send.
pub const DOOR_HEAD_BYTES: usize = 16 * 1024;
/// Longest request target, bytes: half a head, so that headers always have room.
pub const DOOR_TARGET_BYTES: usize = 8 * 1024;
/// Most headers in one request.
pub const DOOR_HEADERS: usize = 100;
/// Largest request body, bytes, declared or chunked: metadata of a lock with room for JSON escapes.
pub const DOOR_BODY_BYTES: usize = 1024 * 1024;
/// Longest chunk-size line of a chunked body, bytes: the size and a short extension, which is ignored.
pub const DOOR_CHUNK_LINE_BYTES: usize = 256;
/// Largest trailer section of a chunked body, bytes: it is read and ignored.
pub const DOOR_TRAILER_BYTES: usize = 4 * 1024;
/// Time to send one whole request, milliseconds, from its first byte: a 1 MiB body at 1 Mbit/s.
pub const DOOR_SEND_MS: u64 = 10_000;
/// Time between two requests, and before the first, milliseconds: longer than common proxies keep connections.
pub const DOOR_IDLE_MS: u64 = 75_000;
/// Time for a client to take an answer, milliseconds for each 64 KiB or part of it: 6.4 KiB/s at least.
pub const DOOR_WRITE_MS: u64 = 10_000;
/// The unit of [`DOOR_WRITE_MS`], bytes.
pub const DOOR_WRITE_UNIT_BYTES: usize = 64 * 1024;
/// Time to read on after the last answer, milliseconds, so that a reset does not overtake that answer.
pub const DOOR_LINGER_MS: u64 = 2_000;
/// Time to wait for a free inner connection, milliseconds: longer means that the store stands still.
pub const DOOR_BUSY_MS: u64 = 30_000;
/// Time for requests in flight to end when the server stops, milliseconds.
pub const DOOR_GRACE_MS: u64 = 10_000;
/// Most client connections: 10,000 parked ones and 5,000 others. Fewer when descriptors are short.
pub const DOOR_CONNECTIONS: usize = 15_000;
/// Most connections over the cap that get a proper 503 at the same time; further ones are closed at once.
pub const DOOR_TURNED_AWAY: usize = 64;
/// Kept-alive connections to `tiny_http`, each with one worker: as many requests can meet in one group commit. On slow
/// disks 64 serve three times what 16 do; when nothing is committed at all, 16 serve half as much again (measured).
pub const DOOR_BACKENDS: usize = 64;
/// Descriptors that one inner connection costs: the door's end, `tiny_http`'s end and its copy.
pub const DOOR_BACKEND_DESCRIPTORS: usize = 3;
/// Descriptors left to the store, logs and outgoing calls.
pub const DOOR_RESERVED_DESCRIPTORS: usize = 64;
/// Connections that may wait to be accepted; the system may lower it (`net.core.somaxconn`).
pub const DOOR_ACCEPT_QUEUE: i32 = 4_096;
/// Most parked requests.
pub const DOOR_PARKED: usize = 10_000;
/// Largest body of a request that may be parked, bytes (the largest claim).
pub const DOOR_PARK_BODY_BYTES: usize = 64 * 1024;
/// Most bytes of all parked requests.
pub const DOOR_PARKED_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes that a client may send ahead while its request is parked; more waits in its socket.
pub const DOOR_AHEAD_BYTES: usize = 4 * 1024;
/// Bodies and answers up to this size, bytes, are not counted in [`DOOR_HELD_BYTES`].
pub const DOOR_UNCOUNTED_BYTES: usize = 16 * 1024;
/// Most bytes of all larger bodies being received and larger answers being sent; more is refused with 503.
pub const DOOR_HELD_BYTES: usize = 256 * 1024 * 1024;
/// Silence after which the system asks whether a client is still there, seconds; then every
/// [`DOOR_KEEPALIVE_INTERVAL_SECS`]. Finds parked clients that vanished without a word.
pub const DOOR_KEEPALIVE_SECS: u64 = 15;
/// Time between two such questions, seconds.
pub const DOOR_KEEPALIVE_INTERVAL_SECS: u64 = 5;
/// Time for a TLS handshake, milliseconds: several round trips over a bad line.
pub const DOOR_HANDSHAKE_MS: u64 = 10_000;
/// Time between two looks at the certificate files, milliseconds: renewals come days ahead, so this is no hurry.
pub const DOOR_TLS_POLL_MS: u64 = 5_000;
/// Largest certificate, key or CA file, bytes: hundreds of certificates.
pub const DOOR_PEM_BYTES: u64 = 1024 * 1024;
/// Longest subject of a client certificate, bytes: it travels in a header and stands in log lines.
pub const DOOR_SUBJECT_BYTES: usize = 512;
/// Time for one pass of a request through the server, milliseconds, parked time not counted: longer than the wait for
/// an inner connection, so that whoever waited that long can still be answered.
pub const DOOR_TOTAL_MS: u64 = 45_000;
/// Addresses whose request rate, or failed logins, are remembered; what exceeds it shares one account.
pub const DOOR_ADDRESSES: usize = 10_000;
/// Seconds of requests at the full rate that an address may send at once.
pub const DOOR_RATE_BURST_SECS: u32 = 2;
/// Failed logins of one address that are answered without delay: a person's typing errors.
pub const DOOR_LOGIN_BURST: u32 = 5;
/// Delay that each further failed login of an address adds, milliseconds; it is worn off at the same pace.
pub const DOOR_LOGIN_STEP_MS: u64 = 1_000;
/// Longest delay of the answer to a failed login, milliseconds: below the timeouts of common clients.
pub const DOOR_LOGIN_DELAY_MS: u64 = 20_000;
/// Time between two lines about connections that were turned away, milliseconds: a flood is one line, not many.
pub const DOOR_TURNED_AWAY_LINE_MS: u64 = 10_000;
/// Most log lines that wait to be written; further ones are dropped, since a full pipe must stop nobody.
pub const LOG_LINES: usize = 16_384;

// ---- The build watch (design section 5) ----
/// Time between two questions about one build, milliseconds: an ended build's lock comes back soon, and a thousand builds
/// cost a Concourse less than a few open dashboards.
pub const WATCH_PERIOD_MS: u64 = 15_000;
/// Least time between the two 404s that make a build gone, milliseconds: longer than a hiccup of a web node.
pub const WATCH_GONE_MS: u64 = 60_000;
/// Longest that one request to a Concourse may take, milliseconds, name, connection and TLS included.
pub const WATCH_TIMEOUT_MS: u64 = 10_000;
/// Longest pause before a build that cannot be looked at alone is asked about again, in periods (2 minutes by default).
pub const WATCH_BUILD_BACKOFF_PERIODS: u32 = 8;
/// Longest pause before a Concourse that does not answer is asked again, in periods (1 minute by default).
pub const WATCH_AWAY_PERIODS: u32 = 4;
/// Longest pause before a login that was refused is tried again, in periods (10 minutes by default): directories lock
/// accounts after some wrong passwords.
pub const WATCH_REFUSED_PERIODS: u32 = 40;
/// Failures in a row after which a Concourse counts as failing, and all its builds as suspect: one may be a blip.
pub const WATCH_FAILURES: u32 = 3;
/// First pause after a failure, as a part of the period (1 s by default); it doubles from there.
pub const WATCH_FIRST_PAUSE_PART: u32 = 15;
/// Largest answer of a Concourse that is read, bytes: a build with long instance vars and a comment.
pub const WATCH_ANSWER_BYTES: u64 = 256 * 1024;
/// Largest password or token, bytes: larger is not the file that was meant.
pub const WATCH_SECRET_BYTES: usize = 8 * 1024;
/// Longest that an unused connection to a Concourse is kept, milliseconds: shorter than proxies do, so that no request
/// meets a closing one.
pub const WATCH_IDLE_MS: u64 = 5_000;
/// Most suspect builds named in one log line.
pub const WATCH_NAMED: usize = 10;
/// Checks of builds (`--verify-builds`) that ask a Concourse at the same time: its database has 10 connections.
pub const VERIFY_AT_ONCE: usize = 4;
/// Checks that may wait for those; further claims are told to ask again. With [`VERIFY_AT_ONCE`] well below
/// [`DOOR_BACKENDS`], so that a slow Concourse leaves the server its workers.
pub const VERIFY_WAITING: usize = 16;
/// Longest that a check waits for its turn, and longest that it asks, milliseconds each.
pub const VERIFY_MS: u64 = 5_000;
/// What was found out about a build is believed this long, milliseconds: all claims of one build come close together.
pub const VERIFY_CACHE_MS: u64 = 10_000;
/// After a failure a Concourse is left alone this long, milliseconds; claims are told to ask again.
pub const VERIFY_PAUSE_MS: u64 = 1_000;
/// Most builds whose check is remembered.
pub const VERIFY_CACHED: usize = 10_000;
/// Largest answer of a cluster that is read, bytes: a workflow is below 2 MiB in every etcd that is set up as usual.
pub const ARGO_ANSWER_BYTES: u64 = 32 * 1024 * 1024;
/// Largest kubeconfig, certificate or token file that is read, bytes: larger is not the file that was meant.
pub const KUBECONFIG_BYTES: u64 = 4 * 1024 * 1024;
/// Largest map of nodes that is unpacked from a workflow, bytes: Argo packs what is over 1 MiB, and text packs well.
pub const ARGO_NODES_BYTES: u64 = 64 * 1024 * 1024;
/// Largest packed map of nodes that is written, bytes: Argo's own bound for a workflow.
pub const ARGO_STATUS_BYTES: usize = 1024 * 1024;
