//! Everything that crosses the wire or goes to disk: the JSON of our API, of Concourse, and of stored records.

pub mod api;
pub mod atc;
pub mod concourse;
pub mod contracts;
pub mod digest;
pub mod errors;
pub mod escape;
pub mod identity;
pub mod json;
pub mod latch;
pub mod members;
pub mod notification;
pub mod parse;
pub mod problems;
pub mod record;
pub mod secret;
pub mod server_url;
pub mod shorten;
pub mod text;
pub mod tls;
mod words;
pub mod yaml;
