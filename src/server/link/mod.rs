//! The link between servers: a server that follows passes every request of its clients on to the server that leads, and
//! answers with the leader's answer (`docs/cluster.md#between-servers`).
//!
//! - [`Advertised`]: what a leader says of itself in the head of the log. [`Key`]: how it proves that it is that server.
//! - [`Forwarder`]: the handler of the door of every server. It is told who leads, here or there, as a [`Lead`].
//! - [`LinkServer`]: the end of the server that leads.
//!
//! | file | contents |
//! |---|---|
//! | `frame.rs` | what travels (values only) |
//! | `pipe.rs` | how frames are read and written, so that nothing waits behind a large body |
//! | `key.rs`, `greeting.rs` | whom the two ends believe |
//! | `following.rs` | the handler that passes requests on |
//! | `table.rs` | the requests that were passed on: where each of them is (values only) |
//! | `known.rs` | clients that a leader has admitted lately |
//! | `dialing.rs` | the thread that makes the link, again and again |
//! | `leading.rs` | accepts links; keeps the requests of a broken one for a while |
//! | `answering.rs` | one request at the leader, until its answer |
//! | `names.rs`, `limits.rs` | names from elsewhere that must last; limits |

mod advertised;
mod answering;
mod dialing;
mod following;
pub mod frame;
mod greeting;
mod key;
mod known;
mod leading;
pub mod limits;
mod names;
mod pipe;
#[cfg(feature = "plant")]
pub mod plant;
mod table;
#[cfg(test)]
mod tests;

pub use advertised::{Advertised, NoLink};
pub use dialing::There;
pub use following::{Forwarder, Lead, Passing, Repeatable};
pub use key::{Key, PublicKey};
pub use leading::{LinkServer, LinkSettings};
