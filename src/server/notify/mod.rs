//! Notifications: who is told what happens in pools (docs/notifications.md).
//!
//! - [`settings`]: the file of targets, read by `reader` with the line of each fault.
//! - [`conditions`]: what a target is told; pure. `message`: the notifications themselves.
//! - `planner`: one thread reads the history and the state, and finds what is to be told. `sender`: a thread for each target
//!   that is being told something. `bell`: wakes and stops them.
//! - [`receiver`]: one target over HTTP. `progress`: up to where each target has been told, in a file or a log.
//!
//! The engine only rings the bell. The outbox is the history: what a target has not been told is what comes after its
//! place in it (docs/decisions/0026-the-history-is-the-outbox.md).

pub mod bell;
pub mod conditions;
pub mod figures;
pub mod limits;
pub mod message;
mod planner;
pub mod progress;
mod reader;
pub mod receiver;
mod sender;
pub mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;

use self::bell::Bell;
use self::figures::Figures;
use self::planner::Planner;
use self::progress::{Place, Progress};
use self::sender::Shared;
use self::settings::{BadFile, Settings, read_text};
use super::engine::Engine;
use crate::env::Clock;

/// The notifications of a server. The default notifies nobody.
#[derive(Default)]
pub struct Notify {
    /// The file of targets, its text, and what it says.
    file: Option<(PathBuf, String, Settings)>,
    pub bell: Bell,
    pub figures: Figures,
}

/// The threads. They end when this is dropped, except those that wait for an answer: they end with the process.
pub struct Running {
    bell: Bell,
    planner: Option<JoinHandle<()>>,
    progress: Arc<Mutex<Progress>>,
}

impl Notify {
    /// Reads the file of targets. Nothing is sent before [`Self::start`].
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn open(file: Option<&Path>) -> Result<Self, BadFile> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = read_text(file)?;
        let settings = Settings::parse(file, &text)?;
        Ok(Self { file: Some((file.to_owned(), text, settings)), bell: Bell::new(), figures: Figures::default() })
    }

    /// Starts to notify. `place` is where it is kept what the targets have been told; `vars` is the environment, which may name proxies.
    ///
    /// # Errors
    /// It cannot be read what the targets were told before, or the system cannot start a thread.
    pub fn start(
        &self,
        engine: &Engine,
        place: Place,
        vars: &BTreeMap<String, String>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Option<Running>> {
        let Some((file, text, settings)) = self.file.clone() else { return Ok(None) };
        let progress = Progress::open(place, engine.store_id())?;
        let progress = Arc::new(Mutex::new(progress));
        let hangup = Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&hangup))
            .context("cannot listen for SIGHUP")?;
        tracing::info!(file = %file.display(), count = settings.targets.len(), "targets are notified of what happens");
        let shared = Shared {
            progress: Arc::clone(&progress),
            figures: self.figures.clone(),
            bell: self.bell.clone(),
            vars: Arc::new(vars.clone()),
            clock,
        };
        let (engine, reader) = (engine.clone(), engine.reader());
        let mut planner =
            Planner { engine, reader, shared, file, text, settings, hangup, state: planner::State::default() };
        // Before the first request, so that the targets are told of what it does.
        planner.begin();
        let planner = std::thread::Builder::new().name("notify".into()).spawn(move || planner.run())?;
        Ok(Some(Running { bell: self.bell.clone(), planner: Some(planner), progress }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.bell.stop();
        // It waits for no target. If it has panicked, that was logged.
        let _ = self.planner.take().map(JoinHandle::join);
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).save_now();
    }
}
