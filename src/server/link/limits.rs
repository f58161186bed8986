//! The limits of the links between servers, each with its unit and the reason for its size.

/// Which protocol the servers speak with each other. Another number is refused.
pub const LINK_PROTOCOL: u16 = 1;
/// Largest frame, bytes: the largest head of a request that a door accepts, with room for lengths.
pub const LINK_FRAME_BYTES: usize = 64 * 1024;
/// Longest piece of a body in one frame, bytes: other frames wait behind it for a fraction of a millisecond.
pub const LINK_PIECE_BYTES: usize = 16 * 1024;
/// Longest id of a request, bytes; ours have less than 40.
pub const LINK_REQUEST_ID_BYTES: usize = 64;
/// Most different names of headers and routes that a server learns from leaders. A release has a few dozen.
pub const LINK_NAMES: usize = 512;
/// Longest of these names, bytes.
pub const LINK_NAME_BYTES: usize = 128;
/// Most bytes of answers that have arrived at a server that follows and were not taken by their clients yet. Answers above
/// it are replaced by a 503. Each is a few KiB; a page of a long listing has 3 MiB.
pub const LINK_ANSWERS_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of the bodies of requests that are arriving at the leader over all its links.
pub const LINK_BODIES_BYTES: usize = 64 * 1024 * 1024;
/// Most requests that one server has passed on and that are not answered: one for each of its clients.
pub const LINK_REQUESTS: usize = 20_000;
/// Most requests of all links that are parked at the leader: two followers full of them.
pub const LINK_PARKED: usize = 20_000;
/// Most links of one leader, and most that are being made: far more servers than anybody runs.
pub const LINK_MOST: usize = 16;
/// Time for a new link, milliseconds, from the connection to the end of the greeting: several round trips and one signature.
pub const LINK_GREETING_MS: u64 = 5_000;
/// Silence after which a server says that it is there, milliseconds.
pub const LINK_ALIVE_MS: u64 = 1_000;
/// Silence after which a link is given up, milliseconds: less than the time after which somebody else leads, with its
/// default.
pub const LINK_SILENCE_MS: u64 = 4_000;
/// Time for the other end to take [`LINK_FRAME_BYTES`], milliseconds.
pub const LINK_WRITE_MS: u64 = 10_000;
/// Shortest pause before a link is made again, milliseconds. It doubles with each failure.
pub const LINK_PAUSE_MIN_MS: u64 = 50;
/// Longest pause before a link is made again, milliseconds.
pub const LINK_PAUSE_MAX_MS: u64 = 1_000;
/// How long the requests of a broken link keep their places at the leader, milliseconds: several attempts to make it again.
pub const LINK_GRACE_MS: u64 = 20_000;
/// How long a request waits for a leader, milliseconds, before it is refused: longer than a take-over with its default, and
/// shorter than common clients wait.
pub const LINK_PATIENCE_MS: u64 = 10_000;
/// How long a server waits for an answer that it wants at once, milliseconds.
pub const LINK_LAST_MS: u64 = 1_000;
/// For how long a client whose request a leader has admitted makes no room for strangers, milliseconds: as at the door.
pub const LINK_KNOWN_MS: u64 = 24 * 60 * 60 * 1_000;
/// Most such clients; beyond it all are forgotten, and known again after their next request.
pub const LINK_KNOWN: usize = 10_000;
