//! What crosses a wire or goes to disk: JSON of our API, of Concourse, of stored records.

pub mod api;
pub mod errors;
pub mod record;
