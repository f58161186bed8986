//! Builds that prove who they are, by id tokens of `OpenID` Connect (docs/decisions/0029).
//!
//! An issuer, such as a Concourse, signs a token for each step: which team, pipeline and job it is of, for whom it is
//! meant, and until when it is good. Whoever sends it as a bearer token has proved that. No token names a build.
//!
//! - [`settings`]: which issuers are trusted, for what, and what their claims mean.
//! - [`jws`]: what a token says, before anything is believed. [`jwk`]: the keys of an issuer.
//! - [`verify`]: whether it is true. [`refusal`]: why not, and what to do.
//! - [`shown`]: who shows a token, also when it has expired since its claim began.
//! - `checked`: tokens that were found true, so that a step that waits does not cost a signature each time.
//! - `schedule`: when keys are fetched. These, without [`shown`], are pure: values in, values out.
//! - `fetch`: discovery and keys over HTTP. [`issuers`]: one thread for each issuer, which keeps its keys at hand.

mod checked;
pub(super) mod fetch;
pub mod issuers;
pub mod jwk;
pub mod jws;
pub mod limits;
pub mod refusal;
mod schedule;
pub mod settings;
pub mod shown;
pub mod verify;

pub use issuers::Issuers;
pub use refusal::Refusal;
pub use verify::Proved;
