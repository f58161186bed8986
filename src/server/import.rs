//! Imports the state of another server: the state file of the original locker, at start, into an empty store.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::core::command::{By, Command, Refusal, Reply};
use crate::core::names::{NameError, PoolName};
use crate::core::pool::PolicyChange;
use crate::core::state::State;
use crate::core::step::step;
use crate::core::time::Now;
use crate::env;
use crate::wire::contracts::state_file::{self, ImportedHold, STATE_FILE_BYTES, StateFile};
use crate::wire::parse;
use crate::wire::problems::Problems;
use crate::wire::text::counted;

/// The outcome of an import, for a line on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// The state now has the file's pools and holds.
    Done { file: PathBuf, pools: usize, holds: usize, left_out: Vec<NameError> },
    /// The store has or had pools or claims. The file was not read.
    NotEmpty { file: PathBuf },
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { file, pools, holds, left_out } => {
                write!(
                    f,
                    "imported {} with {} from LOCKER_CONFIG {}",
                    counted(*pools, "pool"),
                    counted(*holds, "hold"),
                    file.display()
                )?;
                match left_out.first() {
                    None => Ok(()),
                    Some(first) => write!(
                        f,
                        "; left out, because nobody holds it and its name is not allowed here: {}, the first: {first}",
                        counted(left_out.len(), "pool")
                    ),
                }
            }
            Self::NotEmpty { file } => {
                write!(f, "LOCKER_CONFIG {} was not imported: the store is not empty", file.display())
            }
        }
    }
}

/// Imports the state file of an original locker, if the state is empty. Never writes to the file.
///
/// # Errors
/// The file cannot be read or fully understood. The error has its name and the reason. In that case the state is not
/// usable: the caller must not commit it.
pub fn locker_state(file: &Path, state: &mut State, now: Now) -> anyhow::Result<Imported> {
    let snapshot = &state.snapshot;
    if !(snapshot.pools.is_empty() && snapshot.claims.is_empty() && state.remembered() == 0 && state.has_no_history()) {
        return Ok(Imported::NotEmpty { file: file.to_owned() });
    }
    let name = file.display();
    let text = env::whole_text(env::read_file(file, STATE_FILE_BYTES), STATE_FILE_BYTES).with_context(|| {
        format!("cannot read LOCKER_CONFIG {name}: unset it to start without the locks of the original locker")
    })?;
    let advice = "repair it, or unset LOCKER_CONFIG to start without its locks";
    let StateFile { pools, left_out } = state_file::parse(&text)
        .map_err(|error| anyhow!("LOCKER_CONFIG {name} is damaged, nothing was imported: {error}; {advice}"))?;
    let mut holds = 0;
    for pool in &pools {
        add(state, &pool.pool, now).with_context(|| format!("cannot import LOCKER_CONFIG {name}"))?;
        for hold in &pool.holds {
            hold_now(state, hold, now).with_context(|| format!("cannot import LOCKER_CONFIG {name}"))?;
            holds += 1;
        }
    }
    Ok(Imported::Done { file: file.to_owned(), pools: pools.len(), holds, left_out })
}

/// Makes a pool with one lock of the same name. The pool is declared, so that a server of declared pools keeps it.
fn add(state: &mut State, pool: &PoolName, now: Now) -> Result<(), Refusal> {
    let (change, by) = (PolicyChange::default(), By::default());
    step(state, Command::ChangePool { pool: pool.clone(), change, capacity: None, by }, now).map(|_| ())
}

/// Gives a pool's lock to a holder.
fn hold_now(state: &mut State, hold: &ImportedHold, now: Now) -> anyhow::Result<()> {
    let mut problems = Problems::default();
    let asked = parse::claim(hold.id.clone(), hold.body.clone(), &mut problems);
    let asked = problems.done(asked).map_err(|problems| anyhow!(problems.into_list().join("; ")))?;
    match step(state, Command::Ask(Box::new(asked.ask)), now)? {
        Reply::Claim { claim, .. } if !claim.waits() => Ok(()),
        _ => bail!("pool {:?} cannot be held by {:?}", hold.body.pool, hold.body.owner.person),
    }
}
