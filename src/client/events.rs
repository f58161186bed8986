//! Following what happens: the events of the server (`docs/web.md#events`).

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use super::http::{CallError, Client, Method, NoAnswer, Request, query};
use crate::wire::api::{ChangeView, NowView};

/// The longest line that is read, in bytes: one entry of the history with all its locks.
const LINE_BYTES: u64 = 1024 * 1024;

/// Everything that has happened up to one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What has happened since the previous part. The first one may have changes that another stream had already told.
    pub changes: Vec<ChangeView>,
    /// Everything up to this revision has been told.
    pub revision: u64,
}

/// Events as they come. They end after a while, and one asks again.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
    server: String,
}

impl Client {
    /// Follows the events of this pool, or of all pools: those after `since`, or those from now on. The first part comes
    /// at once, and one at least every 15 s after that. The answer ends after `patience` at the latest.
    ///
    /// # Errors
    /// As [`CallError`]; a server that has no events refuses with the code `no_such_route`.
    pub fn events(&self, pool: Option<&str>, since: Option<u64>, patience: Duration) -> Result<Events, CallError> {
        let since = since.map(|since| since.to_string());
        let path = format!("/api/v1/events{}", query(&[("pool", pool), ("since", since.as_deref())]));
        let answer = self.begin(&Request { method: Method::Get, path, body: None, patience }, "text/event-stream")?;
        Ok(Events { lines: BufReader::new(Box::new(answer)), server: self.server() })
    }
}

impl Events {
    /// The next part. `None` when the answer has ended.
    ///
    /// # Errors
    /// What comes is not from a locker server. Nothing was asked for, so asking again is safe.
    pub fn next_part(&mut self) -> Result<Option<Part>, CallError> {
        let mut changes = Vec::new();
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            // However the answer ends, the client asks again for what it has not seen.
            match self.lines.by_ref().take(LINE_BYTES).read_line(&mut line) {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
            match line.trim_end_matches(['\r', '\n']).split_once(": ") {
                Some(("event", word)) => word.clone_into(&mut name),
                Some(("data", text)) => text.clone_into(&mut data),
                None if line.trim().is_empty() => {
                    match name.as_str() {
                        "change" => changes.push(self.parse(&data)?),
                        "now" => {
                            let NowView { revision } = self.parse(&data)?;
                            return Ok(Some(Part { changes, revision }));
                        }
                        // A newer server may tell more.
                        _ => {}
                    }
                    (name, data) = (String::new(), String::new());
                }
                _ => {}
            }
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, data: &str) -> Result<T, CallError> {
        serde_json::from_str(data).map_err(|error| {
            let why = format!("its events do not come from a locker server: {error}");
            CallError::NoAnswer(NoAnswer {
                server: self.server.clone(),
                why,
                next: None,
                code: None,
                retry_after: None,
            })
        })
    }
}
