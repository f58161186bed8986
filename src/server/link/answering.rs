//! One request that came over a link, until its answer: what a connection of the door does, for a client who is elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::frame::{Down, Head, Number};
use super::leading::{Leader, Link, Signal};
use super::pipe::Body;
use crate::server::door::{Address, Answered, Asker, CLIENT_LEFT, Hold, Line, Refusal};
use crate::server::http::{Admission, Request, Response};

/// A request that is being answered. While it is not parked, it keeps a leader from stopping at once.
pub(super) struct Running<'l> {
    link: &'l Arc<Link>,
    number: Number,
    signals: UnboundedReceiver<Signal>,
    /// Whoever follows knows that it is parked.
    is_parked: bool,
    /// The answer is wanted now.
    is_last: bool,
    admitted: bool,
}

/// Why nobody waits for an answer over this link.
pub(super) enum Ended {
    /// The client has gone.
    Gone,
    /// This is the answer.
    Refused(Refusal),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<'l> Running<'l> {
    pub fn new(link: &'l Arc<Link>, number: Number, signals: UnboundedReceiver<Signal>) -> Self {
        link.leader.busy.fetch_add(1, Ordering::SeqCst);
        Self { link, number, signals, is_parked: false, is_last: false, admitted: false }
    }

    /// The next signal. An error means that the client has gone.
    async fn signal(&mut self) -> Result<Signal, Ended> {
        let signal = self.signals.recv().await.ok_or(Ended::Gone)?;
        self.is_last |= signal == Signal::Last;
        Ok(signal)
    }

    /// Waits until the client has taken the last part, or wants no more.
    async fn taken(&mut self) -> Result<(), Ended> {
        while !self.is_last && self.signal().await? != Signal::More {}
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.link.leader.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// While this lives, its request is parked, and a leader that stops does not wait for it.
struct Idle<'l>(&'l Leader);

impl<'l> Idle<'l> {
    fn new(leader: &'l Leader) -> Self {
        leader.busy.fetch_sub(1, Ordering::SeqCst);
        Self(leader)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_add(1, Ordering::SeqCst);
    }
}

impl Asker for Running<'_> {
    type End = Ended;

    fn parked(&mut self) -> Result<(), Ended> {
        if !self.is_parked {
            self.is_parked = true;
            self.link.send(&Down::Parked { number: self.number }, None);
        }
        Ok(())
    }

    async fn insists(&mut self) -> Result<(), Ended> {
        let link = self.link;
        let _idle = Idle::new(&link.leader);
        while !self.is_last {
            self.signal().await?;
        }
        Ok(())
    }

    async fn begin(&mut self, first: Response) -> Result<(), Ended> {
        // It is no secret that it is parked between its parts.
        self.is_parked = true;
        self.link.respond(self.number, first, self.admitted, true);
        let link = self.link;
        let _idle = Idle::new(&link.leader);
        self.taken().await
    }

    async fn part(&mut self, body: Vec<u8>) -> Result<(), Ended> {
        let (number, length) = (self.number, u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.link.send(&Down::Part { number, length }, Body::new(number, Arc::new(body), None));
        let link = self.link;
        let _idle = Idle::new(&link.leader);
        self.taken().await
    }
}

/// What has become of a request.
enum Outcome {
    Refused(Response),
    Handled(Result<Answered<Ended>, Ended>),
    /// Its link is over.
    Cut,
}

/// Answers one request. If its link breaks before that, it keeps what it holds.
pub(super) async fn answer(mut running: Running<'_>, head: Head, body: Vec<u8>) {
    let (link, started) = (running.link, Instant::now());
    let leader = &link.leader;
    let can_park = head.can_park;
    let mut hold = leader.kept(&head.id);
    // The same request has the same number, so that the engine knows it again.
    let park = hold.as_ref().map_or_else(|| leader.desk.common().next_park(), Hold::park);
    let mut request = head.into_request(body, park);
    let outcome = tokio::select! {
        biased;
        () = link.over() => Outcome::Cut,
        outcome = handle(&mut running, &mut request, &mut hold, can_park) => outcome,
    };
    let (status, route) = match outcome {
        Outcome::Cut => {
            hold.take().into_iter().for_each(|hold| leader.keep(request.id.clone(), hold));
            return;
        }
        Outcome::Refused(response) => respond(&running, response),
        Outcome::Handled(Ok(Answered::Whole(response))) => {
            hold.take().into_iter().for_each(Hold::answered);
            respond(&running, response)
        }
        Outcome::Handled(Ok(Answered::InParts { status, route, ended })) => {
            if ended.is_ok() {
                hold.take().into_iter().for_each(Hold::answered);
            }
            link.send(&Down::End { number: running.number }, None);
            (status, route)
        }
        Outcome::Handled(Err(Ended::Refused(refusal))) => respond(&running, refusal.into_response()),
        Outcome::Handled(Err(Ended::Gone)) => (CLIENT_LEFT, None),
    };
    // What it still holds was not answered: the handler learns that its client has left.
    drop(hold);
    let identity = request.identity.as_ref();
    let (id, peer, via, method) = (&request.id, &request.peer, Some(link.peer.as_str()), &request.method);
    Line { id, peer, via, identity, method, route, status, started }.write();
}

async fn handle(running: &mut Running<'_>, request: &mut Request, hold: &mut Option<Hold>, can_park: bool) -> Outcome {
    let link = running.link;
    let desk = &link.leader.desk;
    match desk.admit(Address::of_peer(&request.peer), request).await {
        Err(refused) => return Outcome::Refused(refused),
        Ok(admission) => running.admitted = admission != Admission::Public,
    }
    let hold = hold.get_or_insert_with(|| desk.hold(request, can_park));
    Outcome::Handled(desk.answer(running, request, hold).await)
}

fn respond(running: &Running<'_>, response: Response) -> (u16, Option<&'static str>) {
    let outcome = (response.status, response.route);
    running.link.respond(running.number, response, running.admitted, false);
    outcome
}
