//! The contracts of locker and lockd over real sockets: `docs/contracts.md`, row by row.
//!
//! | file | what |
//! |---|---|
//! | [`locker`], [`lockd`] | one table for each API: status, body, effect |
//! | [`shared`] | clients of several systems on one pool: which holds each may release, and what each sees |
//! | [`import`] | the state file of an original locker |
//! | [`scripts`] | curl, jq and shell, as in the original documents and resources |
//! | [`table`] | how a table of requests is run |
//! | [`load`] | all kinds of clients at once, judged by what they saw |

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod import;
mod load;
mod lockd;
mod locker;
mod scripts;
mod shared;
mod table;
