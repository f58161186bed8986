//! An answer that goes on: its parts are sent one after another. In between, its request is parked like any other.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::access_log::Outcome;
use super::answer;
use super::connection::{Connection, End, shrink};
use super::keep::Keep;
use super::park::Waiting;
use crate::server::http::{Attempt, Request, Response};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// Sends the parts of an answer, the first of which is here, until the handler ends it or the client leaves.
    pub(super) async fn stream(
        &mut self,
        request: &mut Request,
        first: Response,
        waiting: &Waiting,
    ) -> Result<Keep, End> {
        let (status, route) = (first.status, first.route);
        let streamed = self.parts(request, first, waiting).await;
        self.end_entry(&Outcome { status, route, identity: request.identity.as_ref() });
        streamed.map(|()| Keep::Close)
    }

    async fn parts(&mut self, request: &mut Request, first: Response, waiting: &Waiting) -> Result<(), End> {
        let (status, mut next) = (first.status, first.stream);
        let id = self.entry.as_ref().map(|entry| entry.id.clone()).unwrap_or_default();
        self.send(&answer::first_part(first, &id)).await.map_err(|_| End::Gone)?;
        shrink(request);
        while let Some(pause) = next {
            let until = Instant::now() + Duration::from_millis(pause.0);
            request.attempt = match self.park(waiting, until).await? {
                Attempt::Last if !self.door.stop.is_triggered() => Attempt::Notified,
                attempt => attempt,
            };
            // Whatever goes wrong now, the status has been sent: the client sees that the answer has ended.
            let part = self.handled(request).await.map_err(|_| End::Gone)?;
            if part.status == status && !part.body.is_empty() {
                self.send(&part.body).await.map_err(|_| End::Gone)?;
            }
            next = part.stream.filter(|_| part.status == status && request.attempt != Attempt::Last);
        }
        Ok(())
    }
}
