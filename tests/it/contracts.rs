//! The contracts of locker and lockd over real sockets: `docs/contracts.md`, row by row.
//!
//! | file | what |
//! |---|---|
//! | [`locker`], [`lockd`] | a table for each API: status, body, effect |
//! | [`shared`] | clients of several systems on one pool: who may release whose hold, what each sees |
//! | [`import`] | the state file of an original locker |
//! | [`scripts`] | curl, jq and shell as the original documents and resources use them |
//! | [`table`] | how a table of requests is run |
//! | [`load`] | all kinds of clients at once, judged from what they saw |

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod import;
mod load;
mod lockd;
mod locker;
mod scripts;
mod shared;
mod table;
