//! Who may do what with which pools, by an access file (docs/access.md).
//!
//! - [`rights`]: the words for what may be done. [`rules`]: to whom the file gives them, and what a caller may see.
//! - [`mod@file`]: reading the file. [`live`]: the file that counts now, read again when it has changed.
//! - [`permit`]: which command needs which right.

pub mod file;
pub mod live;
pub mod permit;
pub mod rights;
pub mod rules;

pub use file::AccessFile;
pub use live::Live;
pub use rights::Right;
pub use rules::Caller;
