//! The limits of id tokens, each with its unit and the reason for its size.

/// Longest token, bytes. Those of Concourse have 1.5 KiB with a key of 4,096 bits, those of GitHub and GitLab up to 3 KiB.
pub const IDTOKEN_BYTES: usize = 8 * 1024;
/// How far the clocks of an issuer and of this server may differ, seconds: machines that set their clocks by NTP differ
/// by much less, and a token is good for only so much longer than it says.
pub const IDTOKEN_LEEWAY_SECONDS: i64 = 60;
/// Most issuers of one access file. Each has a thread.
pub const IDTOKEN_ISSUERS: usize = 16;
/// Most tokens that were found true and are remembered, about 1 KiB each: more steps than a large Concourse runs at a
/// time.
pub const IDTOKEN_CHECKED: usize = 4_096;
/// Largest discovery document that is read, bytes: usual ones have 1 to 4 KiB.
pub const IDTOKEN_DISCOVERY_BYTES: u64 = 64 * 1024;
/// Largest set of keys that is read, bytes, from an issuer or a file: some send a certificate chain with each key.
pub const IDTOKEN_JWKS_BYTES: u64 = 256 * 1024;
/// Most keys of one issuer. Concourse publishes two to four, large providers about ten.
pub const IDTOKEN_KEYS: usize = 64;
/// Largest file of trusted certificates, bytes.
pub const IDTOKEN_PEM_BYTES: u64 = 1024 * 1024;
/// Longest time for one request to an issuer, milliseconds, including name lookup, connection and TLS.
pub const IDTOKEN_TIMEOUT_MS: u64 = 10_000;
/// How old keys may become before they are fetched again, milliseconds: a key that its issuer withdraws is not trusted
/// for longer, while the issuer answers.
pub const IDTOKEN_REFRESH_MS: u64 = 600_000;
/// Least time between two fetches that unknown keys cause, milliseconds: tokens are free to make up, and must not become
/// requests to the issuer.
pub const IDTOKEN_PAUSE_MS: u64 = 10_000;
/// First pause after a fetch that failed, milliseconds. It doubles with each further failure.
pub const IDTOKEN_FIRST_PAUSE_MS: u64 = 1_000;
/// Longest pause after a fetch that failed, milliseconds: builds fail meanwhile.
pub const IDTOKEN_AWAY_MS: u64 = 60_000;
