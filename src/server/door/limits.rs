//! The limits of the door, each with its unit and the reason for its size.

/// Largest request head (request line and headers), bytes: many times what clients and proxies send.
pub const DOOR_HEAD_BYTES: usize = 16 * 1024;
/// Longest request target, bytes: half a head, so that there is always room for headers.
pub const DOOR_TARGET_BYTES: usize = 8 * 1024;
/// Most headers in one request.
pub const DOOR_HEADERS: usize = 100;
/// Largest request body, bytes, declared or chunked: the metadata of a lock, with room for JSON escapes.
pub const DOOR_BODY_BYTES: usize = 1024 * 1024;
/// Longest chunk-size line of a chunked body, bytes: the size and a short extension, which is ignored.
pub const DOOR_CHUNK_LINE_BYTES: usize = 256;
/// Largest trailer section of a chunked body, bytes. It is read and ignored.
pub const DOOR_TRAILER_BYTES: usize = 4 * 1024;
/// Time to receive one whole request from its first byte, milliseconds: enough for a 1 MiB body at 1 Mbit/s.
pub const DOOR_SEND_MS: u64 = 10_000;
/// Time between two requests, and before the first, milliseconds: longer than common proxies keep connections open.
pub const DOOR_IDLE_MS: u64 = 75_000;
/// Time for a client to receive each 64 KiB, or part of it, of an answer, milliseconds: at least 6.4 KiB/s.
pub const DOOR_WRITE_MS: u64 = 10_000;
/// The unit of [`DOOR_WRITE_MS`], bytes.
pub const DOOR_WRITE_UNIT_BYTES: usize = 64 * 1024;
/// Time to keep reading after the last answer, milliseconds, so that a reset does not overtake that answer.
pub const DOOR_LINGER_MS: u64 = 2_000;
/// Time for requests in flight to end when the server stops, milliseconds.
pub const DOOR_GRACE_MS: u64 = 10_000;
/// Most threads that serve clients, unless set otherwise: more than one engine can keep busy.
pub const DOOR_THREADS: usize = 8;
/// Most client connections: 10,000 parked ones and 5,000 others. Fewer when descriptors are short.
pub const DOOR_CONNECTIONS: usize = 15_000;
/// Most connections over the cap that receive a proper 503 at the same time. Further ones are closed at once.
pub const DOOR_TURNED_AWAY: usize = 64;
/// Descriptors that are left for the store, logs and outgoing calls.
pub const DOOR_RESERVED_DESCRIPTORS: usize = 64;
/// Most connections that wait to be accepted. The system may lower it (`net.core.somaxconn`).
pub const DOOR_ACCEPT_QUEUE: i32 = 4_096;
/// Most parked requests.
pub const DOOR_PARKED: usize = 10_000;
/// Largest body of a request that may be parked, bytes (the largest claim).
pub const DOOR_PARK_BODY_BYTES: usize = 64 * 1024;
/// Most bytes of all parked requests.
pub const DOOR_PARKED_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes that a client may send ahead while its request is parked. More bytes wait in its socket.
pub const DOOR_AHEAD_BYTES: usize = 4 * 1024;
/// Heads, bodies and answers up to this size, bytes, are counted with their connection: most requests fit.
pub const DOOR_UNCOUNTED_BYTES: usize = 1024;
/// Most memory that clients can take, bytes, and with it all that strangers can: half of it is for connections and TLS
/// handshakes, a quarter for larger heads and bodies that have arrived, a quarter for larger answers being sent. With
/// the rest of the server it stays below the 512 MiB that deploy/ allows.
pub const DOOR_MEMORY_BYTES: usize = 320 * 1024 * 1024;
/// What a connection takes, bytes, with its small requests and answers: 4.4 KiB when it is idle (measured, docs/proofs.md).
pub const DOOR_CONNECTION_BYTES: usize = 8 * 1024;
/// What a TLS connection takes at most until its client is known, bytes: one message of 64 KiB that is not complete, beside
/// the 5 KiB of the connection (measured, docs/proofs.md).
pub const DOOR_TLS_STRANGER_BYTES: usize = 72 * 1024;
/// What a TLS connection of a known client takes, bytes.
pub const DOOR_TLS_BYTES: usize = 14 * 1024;
/// Size of the system's buffers of a connection, bytes in each direction: what a client that is 50 ms away takes in
/// 50 ms at 10 Mbit/s. The system doubles it for its own needs.
pub const DOOR_SOCKET_BYTES: usize = 64 * 1024;
/// One connection in this many is kept free of waiting requests, so that there is always somebody who can make room.
pub const DOOR_KEPT_SHARE: usize = 16;
/// For how long an address is known after a client of it was admitted, milliseconds: builds come at least daily.
pub const DOOR_KNOWN_MS: u64 = 24 * 60 * 60 * 1_000;
/// Time after which a connection that is still used notes its address again, milliseconds: rarely, because all
/// connections share the table.
pub const DOOR_KNOWN_AGAIN_MS: u64 = 60_000;
/// Time for a client that must make room to leave, milliseconds. It only has to be noticed.
pub const DOOR_ROOM_MS: u64 = 1_000;
/// Time between two looks at how much memory clients have freed, milliseconds: the allocator keeps it for a second anyway.
pub const DOOR_TIDY_MS: u64 = 1_000;
/// Freed memory that is worth giving back to the system, bytes: hundreds of connections.
pub const DOOR_TIDY_BYTES: usize = 4 * 1024 * 1024;
/// How many looks in a row give memory back afterwards: what is freed last is kept for a second.
pub const DOOR_TIDY_LOOKS: u32 = 3;
/// Pause between two looks for memory that is being freed, milliseconds.
pub const DOOR_ROOM_LOOK_MS: u64 = 5;
/// Silence after which the system probes whether a client is still there, seconds. It then probes every
/// [`DOOR_KEEPALIVE_INTERVAL_SECS`]. This detects parked clients that have vanished without closing the connection.
pub const DOOR_KEEPALIVE_SECS: u64 = 15;
/// Time between two probes, seconds.
pub const DOOR_KEEPALIVE_INTERVAL_SECS: u64 = 5;
/// Time for a TLS handshake, milliseconds: several round trips over a bad line.
pub const DOOR_HANDSHAKE_MS: u64 = 10_000;
/// Time between two checks of the certificate files, milliseconds. Renewals happen days ahead, so there is no hurry.
pub const DOOR_TLS_POLL_MS: u64 = 5_000;
/// Largest certificate, key or CA file, bytes: room for hundreds of certificates.
pub const DOOR_PEM_BYTES: u64 = 1024 * 1024;
/// Longest subject of a client certificate, bytes: it is passed in a header and written to log lines.
pub const DOOR_SUBJECT_BYTES: usize = 512;
/// Time for one pass of a request through the server, milliseconds, without the time parked. If it takes longer, the
/// store is stuck.
pub const DOOR_TOTAL_MS: u64 = 45_000;
/// Most addresses whose request rates and failed logins are remembered. All further addresses share one account.
pub const DOOR_ADDRESSES: usize = 10_000;
/// Length of the burst that an address may send at once, seconds of requests at the full rate.
pub const DOOR_RATE_BURST_SECS: u32 = 2;
/// Failed logins of one address that are answered without delay: a person's typing errors.
pub const DOOR_LOGIN_BURST: u32 = 5;
/// Delay that each further failed login of an address adds, milliseconds. It wears off at the same rate.
pub const DOOR_LOGIN_STEP_MS: u64 = 1_000;
/// Longest delay of the answer to a failed login, milliseconds: below the timeouts of common clients.
pub const DOOR_LOGIN_DELAY_MS: u64 = 20_000;
/// Time between two log lines about connections that were turned away, milliseconds: a flood makes one line, not many.
pub const DOOR_TURNED_AWAY_LINE_MS: u64 = 10_000;
