//! The requests that a server which follows has passed on, or will: where each of them is, and what has come back. Values
//! and times only; nothing here waits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::frame::{self, Answer, Down, Head, Malformed, Number, Up};
use super::limits::{LINK_ANSWERS_BYTES, LINK_PATIENCE_MS, LINK_REQUESTS};
use super::names::lasting;
use super::pipe::{Body, Out};
use crate::core::names::ParkId;
use crate::core::time::Span;
use crate::server::door::{Budget, Refusal, Share};
use crate::server::http::{Handler, Request, Response};
use crate::server::routes::refused;
use crate::wire::errors::Code;

/// What the link is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ask(Number),
    Last(Number),
    More(Number),
    Gone(Number),
}

/// A request as it is passed on, once or again.
pub(super) struct Asked {
    /// The frame that asks.
    frame: Vec<u8>,
    body: Arc<Vec<u8>>,
    /// Asked twice, it does what it does once.
    is_repeatable: bool,
    /// Which client it is of, for [`Known`](super::known::Known).
    pub client: u64,
}

impl Asked {
    /// # Errors
    /// No frame has room for it.
    pub fn new(request: &Request, is_repeatable: bool, client: u64) -> Result<Self, Malformed> {
        let number = request.park.0;
        let length = u32::try_from(request.body.len()).map_err(|_| Malformed("a body that no door accepts"))?;
        let mut frame = Vec::new();
        frame::write(&Up::Ask { number, head: Head::of(request), length }, &[], &mut frame)?;
        frame.shrink_to_fit();
        Ok(Self { frame, body: Arc::new(request.body.clone()), is_repeatable, client })
    }

    /// The request as it was, under its number, not admitted by anybody.
    pub fn request(&self) -> Option<Request> {
        let (Up::Ask { number, head, .. }, _) = frame::read(&self.frame[frame::LENGTH..]).ok()? else { return None };
        Some(head.into_request(self.body.to_vec(), ParkId(number)))
    }

    fn out(&self, number: Number) -> Out {
        Out { frame: self.frame.clone(), body: Body::new(number, Arc::clone(&self.body), None) }
    }
}

/// A body that is arriving.
struct Arriving {
    bytes: Vec<u8>,
    length: usize,
    _share: Option<Share>,
}

impl Arriving {
    fn is_whole(&self) -> bool {
        self.bytes.len() == self.length
    }
}

/// An answer that goes on.
struct Stream {
    status: u16,
    /// A part that has arrived, or is arriving.
    part: Option<Arriving>,
    /// No part follows.
    is_over: bool,
    /// The leader knows that the last part was taken.
    wants_more: bool,
}

/// Where a request is.
enum Stage {
    /// No leader has it, since then.
    Waiting(Instant),
    /// A leader has it, or may have it.
    Sent,
    /// A leader has parked it.
    Parked,
    Answered(Answer, Arriving),
    /// This is the answer, whoever has given it.
    Done(Response),
    Streaming(Stream),
    /// This server leads, and its own handler has parked the request, which it has admitted in this form. With the status
    /// of an answer that goes on.
    Here(Box<Request>, Option<u16>),
}

pub(super) struct Pending {
    pub asked: Arc<Asked>,
    stage: Stage,
    /// Its task waits for it.
    changed: Arc<Notify>,
}

/// What there is for a request now.
pub(super) enum Seen {
    Ready(Response),
    /// Nothing yet, and the leader has parked it.
    Parked {
        changed: Arc<Notify>,
    },
    /// Nothing yet. Without a leader, only until then.
    Nothing {
        changed: Arc<Notify>,
        until: Option<Instant>,
    },
    /// This server leads: its own handler is to answer it.
    Here(Taken),
    /// Nobody knows it.
    Unknown,
}

/// A request that was taken out, to be answered here.
pub(super) struct Taken {
    pub here: Arc<dyn Handler>,
    pub asked: Arc<Asked>,
    /// If this server's own handler has parked it: the form in which it was admitted.
    pub admitted: Option<Box<Request>>,
}

/// Something has arrived for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    pub number: Number,
    /// Its task must look.
    pub is_news: bool,
    /// The client, if it has been admitted.
    pub client: Option<u64>,
}

/// One link after another; what an earlier one says does not count any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// All of them.
pub(super) struct Table {
    /// The guard and the routes, while this server leads.
    pub here: Option<Arc<dyn Handler>>,
    pending: HashMap<Number, Pending>,
    generation: Generation,
    /// To the link, while there is one.
    link: Option<UnboundedSender<Order>>,
    /// The leader takes new requests over it.
    is_open: bool,
    answers: Budget,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            here: None,
            pending: HashMap::new(),
            generation: Generation(0),
            link: None,
            is_open: false,
            answers: Budget::new(LINK_ANSWERS_BYTES),
        }
    }
}

impl Table {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether there is a leader that takes requests.
    pub fn is_linked(&self) -> bool {
        self.link.is_some() && self.is_open
    }

    fn order(&self, order: Order) {
        if let Some(link) = &self.link
            && (self.is_open || !matches!(order, Order::Ask(_)))
        {
            // If the link is over, its end is about to be noticed.
            let _ = link.send(order);
        }
    }

    /// Passes a new request on. False if there are too many.
    pub fn ask(&mut self, number: Number, asked: Asked, now: Instant) -> bool {
        if self.pending.len() >= LINK_REQUESTS {
            return false;
        }
        let (asked, changed) = (Arc::new(asked), Arc::default());
        self.pending.insert(number, Pending { asked, stage: Stage::Waiting(now), changed });
        self.order(Order::Ask(number));
        true
    }

    /// Keeps a request that this server's own handler has parked, or whose answer goes on and has this status. If this
    /// server does not lead any more, it is as if it had ceased to a moment later. True: then it must be looked at.
    pub fn keep_here(&mut self, number: Number, asked: Arc<Asked>, request: Request, streaming: Option<u16>) -> bool {
        let is_here = self.here.is_some();
        let stage = Stage::Here(Box::new(Request { headers: Vec::new(), ..request }), streaming);
        let stage = if is_here { stage } else { left_here(stage, &asked, Instant::now()) };
        let is_waiting = matches!(stage, Stage::Waiting(_));
        self.pending.insert(number, Pending { asked, stage, changed: Arc::default() });
        if is_waiting {
            self.order(Order::Ask(number));
        }
        !is_here
    }

    /// Takes a request out that no other server has, if this one leads.
    fn take(&mut self, number: Number) -> Option<Taken> {
        let here = self.here.as_ref()?;
        let Entry::Occupied(entry) = self.pending.entry(number) else { return None };
        if !matches!(entry.get().stage, Stage::Waiting(_) | Stage::Here(..)) {
            return None;
        }
        let Pending { asked, stage, .. } = entry.remove();
        let admitted = if let Stage::Here(request, _) = stage { Some(request) } else { None };
        Some(Taken { here: Arc::clone(here), asked, admitted })
    }

    /// Looks for an answer, or whether this server is to give it. What is returned is taken out. A request that its door has
    /// parked waits for a leader for as long as it is parked, any other for as long as is usual.
    ///
    /// What another server has answered, or may have done, is not done again here.
    pub fn look(&mut self, number: Number, is_parked: bool, now: Instant) -> Seen {
        if let Some(taken) = self.take(number) {
            return Seen::Here(taken);
        }
        let Some(pending) = self.pending.get_mut(&number) else { return Seen::Unknown };
        let changed = Arc::clone(&pending.changed);
        match &mut pending.stage {
            Stage::Parked => return Seen::Parked { changed },
            Stage::Sent | Stage::Answered(..) | Stage::Here(..) => return Seen::Nothing { changed, until: None },
            Stage::Waiting(since) => {
                let until = *since + Duration::from_millis(LINK_PATIENCE_MS);
                if is_parked || now < until {
                    return Seen::Nothing { changed, until: (!is_parked).then_some(until) };
                }
                self.pending.remove(&number);
                return Seen::Ready(no_leader());
            }
            Stage::Streaming(stream) => {
                let goes_on = |body, pause| Response { stream: Some(pause), ..Response::new(stream.status, body) };
                if let Some(part) = stream.part.take_if(|part| part.is_whole()) {
                    stream.wants_more = false;
                    return Seen::Ready(goes_on(part.bytes, AT_ONCE));
                }
                if !stream.is_over {
                    let (response, was_told) = (goes_on(Vec::new(), A_WHILE), stream.wants_more);
                    stream.wants_more = true;
                    if !was_told && stream.part.is_none() {
                        self.order(Order::More(number));
                    }
                    return Seen::Ready(response);
                }
                let end = Response::new(stream.status, Vec::new());
                self.pending.remove(&number);
                return Seen::Ready(end);
            }
            Stage::Done(_) => {}
        }
        match self.pending.remove(&number) {
            Some(Pending { stage: Stage::Done(response), asked, changed }) => {
                if response.stream.is_some() {
                    let (status, part) = (response.status, None);
                    let stream = Stream { status, part, is_over: false, wants_more: false };
                    self.pending.insert(number, Pending { asked, changed, stage: Stage::Streaming(stream) });
                }
                Seen::Ready(response)
            }
            _ => Seen::Unknown,
        }
    }

    /// Asks the leader to answer now. False if no leader has the request.
    pub fn insist(&mut self, number: Number) -> bool {
        let is_sent = self.pending.get(&number).is_some_and(|pending| !matches!(pending.stage, Stage::Waiting(_)));
        if is_sent {
            self.order(Order::Last(number));
        }
        is_sent && self.link.is_some()
    }

    /// Nobody waits for the answer any more. Returns what to say if it is asked for at once.
    pub fn give_up(&mut self, number: Number) -> Option<Response> {
        let Pending { asked, stage, .. } = self.pending.remove(&number)?;
        match stage {
            Stage::Waiting(_) | Stage::Here(..) => Some(no_leader()),
            Stage::Done(response) => Some(response),
            Stage::Streaming(Stream { status, .. }) => {
                self.order(Order::Gone(number));
                Some(Response::new(status, Vec::new()))
            }
            Stage::Sent | Stage::Parked | Stage::Answered(..) => {
                self.order(Order::Gone(number));
                Some(if asked.is_repeatable { no_leader() } else { unknown_outcome() })
            }
        }
    }

    // ---- The link ----

    /// There is a link: everything that waits for a leader goes to this one. `None` if this server leads itself by now: what
    /// waits is answered here, and nowhere else.
    pub fn linked(&mut self, link: UnboundedSender<Order>) -> Option<Generation> {
        if self.here.is_some() {
            return None;
        }
        let is_waiting = |pending: &Pending| matches!(pending.stage, Stage::Waiting(_));
        let waiting = self.pending.iter().filter(|(_, pending)| is_waiting(pending));
        let mut waiting: Vec<Number> = waiting.map(|(number, _)| *number).collect();
        // In the order in which they came.
        waiting.sort_unstable();
        (self.link, self.is_open) = (Some(link), true);
        waiting.into_iter().for_each(|number| self.order(Order::Ask(number)));
        self.generation.0 += 1;
        Some(self.generation)
    }

    /// The present link.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The leader takes no more requests over this link.
    fn leaving(&mut self) {
        self.is_open = false;
    }

    /// The link is over. Whatever may be asked again waits for the next leader; for the rest, nobody knows what has become
    /// of it. Returns the numbers of those that have an answer now.
    pub fn broken(&mut self, link: Generation, now: Instant) -> Vec<Number> {
        if self.generation != link {
            return Vec::new();
        }
        self.generation.0 += 1;
        self.link = None;
        let mut changed = Vec::new();
        for (number, pending) in &mut self.pending {
            match &mut pending.stage {
                Stage::Waiting(_) | Stage::Done(_) | Stage::Here(..) => {}
                Stage::Sent | Stage::Parked | Stage::Answered(..) if pending.asked.is_repeatable => {
                    pending.stage = Stage::Waiting(now);
                    pending.changed.notify_one();
                }
                Stage::Sent | Stage::Parked | Stage::Answered(..) => {
                    pending.stage = Stage::Done(unknown_outcome());
                    changed.push(*number);
                }
                Stage::Streaming(stream) => {
                    stream.is_over = true;
                    stream.part.take_if(|part| !part.is_whole());
                    changed.push(*number);
                }
            }
        }
        self.wake(&changed);
        changed
    }

    /// This server leads now, or does not lead any more. Returns the numbers of all that must be looked at again.
    pub fn moved(&mut self, now: Instant) -> Vec<Number> {
        for pending in self.pending.values_mut() {
            let stage = std::mem::replace(&mut pending.stage, Stage::Sent);
            pending.stage = left_here(stage, &pending.asked, now);
        }
        let all: Vec<Number> = self.pending.keys().copied().collect();
        self.wake(&all);
        all
    }

    fn wake(&self, numbers: &[Number]) {
        numbers.iter().filter_map(|number| self.pending.get(number)).for_each(|pending| pending.changed.notify_one());
    }

    /// What an order sends over this link. `None` if nobody waits for it any more.
    pub fn out(&mut self, link: Generation, order: Order) -> Option<Out> {
        if self.generation != link {
            return None;
        }
        let frame = match order {
            Order::Ask(number) => {
                let pending = self.pending.get_mut(&number)?;
                if !matches!(pending.stage, Stage::Waiting(_)) {
                    return None;
                }
                pending.stage = Stage::Sent;
                return Some(pending.asked.out(number));
            }
            Order::Last(number) => Up::Last { number },
            Order::More(number) => Up::More { number },
            Order::Gone(number) => Up::Gone { number },
        };
        let mut bytes = Vec::new();
        frame::write(&frame, &[], &mut bytes).ok()?;
        Some(Out { frame: bytes, body: None })
    }

    /// Takes what the leader has sent over this link.
    ///
    /// # Errors
    /// It does not fit what came before.
    pub fn arrived(
        &mut self,
        link: Generation,
        frame: Down,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Arrived>, Malformed> {
        if self.generation != link {
            return Ok(None);
        }
        let number = match &frame {
            Down::Parked { number }
            | Down::Answer { number, .. }
            | Down::Part { number, .. }
            | Down::Piece { number }
            | Down::End { number }
            | Down::NotLeading { number } => *number,
            Down::Bye => {
                self.leaving();
                return Ok(None);
            }
            Down::Alive => return Ok(None),
        };
        let is_admitted = match &frame {
            Down::Parked { .. } => true,
            Down::Answer { answer, .. } => answer.admitted,
            _ => false,
        };
        let answers = self.answers.clone();
        // Nobody may wait for it any more.
        let Some(pending) = self.pending.get_mut(&number) else { return Ok(None) };
        let is_repeatable = pending.asked.is_repeatable;
        let stage = std::mem::replace(&mut pending.stage, Stage::Sent);
        let (stage, is_news) = match (frame, stage) {
            (Down::Parked { .. }, Stage::Sent) => (Stage::Parked, true),
            (Down::NotLeading { .. }, Stage::Sent) => (Stage::Waiting(now), true),
            (Down::Answer { answer, length, .. }, Stage::Sent | Stage::Parked) => match arriving(&answers, length) {
                Some(body) => whole(answer, body),
                None => {
                    self.order(Order::Gone(number));
                    let lost = if is_repeatable { NO_ROOM.into_response() } else { unknown_outcome() };
                    (Stage::Done(lost), true)
                }
            },
            (Down::Piece { .. }, Stage::Answered(answer, mut body)) => {
                add(&mut body, payload)?;
                whole(answer, body)
            }
            (Down::Piece { .. }, Stage::Streaming(mut stream)) => {
                let part = stream.part.as_mut().ok_or(Malformed("a piece of nothing"))?;
                add(part, payload)?;
                let is_news = part.is_whole();
                (Stage::Streaming(stream), is_news)
            }
            (Down::Part { length, .. }, Stage::Streaming(mut stream)) if stream.part.is_none() => {
                stream.part = arriving(&answers, length);
                // Without room for it, the answer ends, and its client begins again.
                stream.is_over |= stream.part.is_none();
                let is_news = stream.is_over;
                (Stage::Streaming(stream), is_news)
            }
            (Down::End { .. }, Stage::Streaming(stream)) => {
                (Stage::Streaming(Stream { is_over: true, ..stream }), true)
            }
            // The rest of an answer for which there was no room.
            (
                Down::Piece { .. } | Down::Part { .. } | Down::End { .. },
                stage @ (Stage::Done(_) | Stage::Streaming(_)),
            ) => (stage, false),
            // What is answered already, here or by an earlier word of the leader.
            (
                Down::Parked { .. } | Down::NotLeading { .. } | Down::Answer { .. },
                stage @ (Stage::Done(_) | Stage::Here(..)),
            ) => (stage, false),
            _ => return Err(Malformed("an answer that does not fit its request")),
        };
        let Some(pending) = self.pending.get_mut(&number) else { return Ok(None) };
        pending.stage = stage;
        if is_news {
            pending.changed.notify_one();
        }
        let client = is_admitted.then_some(pending.asked.client);
        Ok(Some(Arrived { number, is_news, client }))
    }
}

/// Where a request is when its server's own handler has it no more.
fn left_here(stage: Stage, asked: &Asked, now: Instant) -> Stage {
    match stage {
        Stage::Here(_, None) if asked.is_repeatable => Stage::Waiting(now),
        Stage::Here(_, None) => Stage::Done(unknown_outcome()),
        Stage::Here(_, Some(status)) => {
            Stage::Streaming(Stream { status, part: None, is_over: true, wants_more: false })
        }
        stage => stage,
    }
}

fn arriving(answers: &Budget, length: u32) -> Option<Arriving> {
    let length = length as usize;
    let share = if length == 0 { None } else { Some(answers.take(length)?) };
    Some(Arriving { bytes: Vec::new(), length, _share: share })
}

fn add(body: &mut Arriving, piece: &[u8]) -> Result<(), Malformed> {
    if piece.is_empty() || body.bytes.len() + piece.len() > body.length {
        return Err(Malformed("a body of another length than announced"));
    }
    body.bytes.extend_from_slice(piece);
    Ok(())
}

/// The answer, if all of it is there.
fn whole(answer: Answer, body: Arriving) -> (Stage, bool) {
    if !body.is_whole() {
        return (Stage::Answered(answer, body), false);
    }
    let Answer { status, headers, route, goes_on, .. } = answer;
    let headers = headers.into_iter().filter_map(|(name, value)| Some((lasting(&name)?, value))).collect();
    let route = route.as_deref().and_then(lasting);
    let stream = goes_on.then_some(AT_ONCE);
    (Stage::Done(Response { status, headers, body: body.bytes, park: None, stream, route }), true)
}

/// When the door asks for the next part after it has sent one: then the leader is told to make it.
const AT_ONCE: Span = Span(0);
/// When it asks again without a notice.
const A_WHILE: Span = Span(60_000);

const NO_ROOM: Refusal = Refusal::busy("too many large answers are on their way from the leader");

/// The answer to a request that no leader has taken.
pub(super) fn no_leader() -> Response {
    refused(Code::NoLeader, "no server leads at the moment, or this one cannot reach it (its log says more): ask again")
}

/// The answer to a request that a leader may have taken, and whose answer was lost.
pub(super) fn unknown_outcome() -> Response {
    let error = "the answer of the leader was lost: nobody knows whether it has acted; look before you ask again";
    refused(Code::UnknownOutcome, error)
}
