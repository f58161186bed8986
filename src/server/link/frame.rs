//! What travels between two servers: frames, and how they are written. Values only.
//!
//! A frame is its length in four bytes, big end first, then the frame in postcard, then the bytes that belong to it, if it
//! has any. Bodies travel in pieces behind the frame that announces their length, so that other frames pass between them.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::limits::{LINK_FRAME_BYTES, LINK_REQUEST_ID_BYTES};
use crate::core::names::ParkId;
use crate::server::door::limits::DOOR_BODY_BYTES;
use crate::server::http::{Attempt, Identity, Request};

/// The number of a request on its link: that of the server that follows.
pub type Number = u64;

/// A request as its door has read it, without its body.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// The client's address, as its door writes it into logs.
    pub peer: String,
    /// The id of the request, the same at every server and every time that it is asked.
    pub id: String,
    /// The subject of the client's certificate, which its door has verified.
    pub certificate: Option<String>,
    /// Whether its door can park it.
    pub can_park: bool,
}

/// Headers may be secret, and the rest is in the log line.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({} of {})", self.id, self.peer)
    }
}

impl Head {
    /// The head of a request that was not admitted yet.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let certificate = match &request.identity {
            Some(Identity::Certificate(subject)) => Some(subject.clone()),
            _ => None,
        };
        Self {
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            peer: request.peer.clone(),
            id: request.id.clone(),
            certificate,
            can_park: request.can_park,
        }
    }

    /// The request with this body, as its door had it, under a number of this server.
    #[must_use]
    pub fn into_request(self, body: Vec<u8>, park: ParkId) -> Request {
        Request {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: self.headers,
            body,
            peer: self.peer,
            id: self.id,
            identity: self.certificate.map(Identity::Certificate),
            shown: None,
            token: None,
            admitted: false,
            park,
            can_park: self.can_park,
            attempt: Attempt::First,
        }
    }
}

/// What a server that follows sends to its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// A client has sent this request; `length` bytes of body follow in pieces.
    Ask { number: Number, head: Head, length: u32 },
    /// A piece of a body.
    Piece { number: Number },
    /// Answer this request now.
    Last { number: Number },
    /// Its client has taken the last part.
    More { number: Number },
    /// Its client has gone.
    Gone { number: Number },
    /// The server is there.
    Alive,
}

/// What a leader sends to a server that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// The request is parked here. It is sent once.
    Parked { number: Number },
    /// Its answer, or the first part of one that goes on; `length` bytes of body follow in pieces.
    Answer { number: Number, answer: Answer, length: u32 },
    /// A further part; `length` bytes follow in pieces.
    Part { number: Number, length: u32 },
    /// A piece of a body.
    Piece { number: Number },
    /// The last part was sent, or there is none.
    End { number: Number },
    /// This server does not lead any more, and nobody has looked at the request.
    NotLeading { number: Number },
    /// This server does not lead any more. It still answers what it is at, and then closes the link.
    Bye,
    /// The server is there.
    Alive,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub route: Option<String>,
    /// Parts follow.
    pub goes_on: bool,
    /// The client was admitted: it has proven who it is, or needs no proof.
    pub admitted: bool,
}

/// The frames of one direction.
pub trait Frame: Serialize + DeserializeOwned {
    /// The sign of life.
    const ALIVE: Self;

    /// A piece of the body of this request or answer.
    fn piece(number: Number) -> Self;

    /// Whether bytes may follow it in the same frame.
    fn is_piece(&self) -> bool;

    /// # Errors
    /// What is wrong with it, although it could be read.
    fn check(&self) -> Result<(), Malformed>;
}

impl Frame for Up {
    const ALIVE: Self = Self::Alive;

    fn piece(number: Number) -> Self {
        Self::Piece { number }
    }

    fn is_piece(&self) -> bool {
        matches!(self, Self::Piece { .. })
    }

    fn check(&self) -> Result<(), Malformed> {
        let Self::Ask { head, length, .. } = self else { return Ok(()) };
        let is_id = (1..=LINK_REQUEST_ID_BYTES).contains(&head.id.len())
            && head.id.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric());
        match (is_id, *length as usize <= DOOR_BODY_BYTES) {
            (true, true) => Ok(()),
            (false, _) => Err(Malformed("a request without a proper id")),
            (_, false) => Err(Malformed("a body that no door accepts")),
        }
    }
}

impl Frame for Down {
    const ALIVE: Self = Self::Alive;

    fn piece(number: Number) -> Self {
        Self::Piece { number }
    }

    fn is_piece(&self) -> bool {
        matches!(self, Self::Piece { .. })
    }

    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Bytes that are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Adds a frame to `bytes`, with the bytes that belong to it.
///
/// # Errors
/// It is larger than [`LINK_FRAME_BYTES`]. Then `bytes` is as it was.
pub fn write(frame: &impl Serialize, payload: &[u8], bytes: &mut Vec<u8>) -> Result<(), Malformed> {
    const TOO_LARGE: Malformed = Malformed("a frame that is too large");
    let start = bytes.len();
    bytes.extend_from_slice(&[0; LENGTH]);
    let written = postcard::to_extend(frame, std::mem::take(bytes));
    // Only a length that is not known in advance can fail, and no frame has one.
    *bytes = written.map_err(|_| TOO_LARGE)?;
    bytes.extend_from_slice(payload);
    let length = bytes.len() - start - LENGTH;
    match u32::try_from(length).ok().filter(|_| length <= LINK_FRAME_BYTES) {
        Some(length) => {
            bytes[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        None => {
            bytes.truncate(start);
            Err(TOO_LARGE)
        }
    }
}

/// The length of a length, bytes.
pub const LENGTH: usize = 4;

/// How long the first frame in `bytes` is, with its length. `None` if there are too few bytes to know it.
///
/// # Errors
/// It is larger than [`LINK_FRAME_BYTES`].
pub fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > LINK_FRAME_BYTES { Err(Malformed("a frame that is too large")) } else { Ok(Some(LENGTH + length)) }
}

/// Reads one frame, without its length, and the bytes that belong to it.
///
/// # Errors
/// It is not one.
pub fn read<F: Frame>(bytes: &[u8]) -> Result<(F, &[u8]), Malformed> {
    let (frame, rest) = postcard::take_from_bytes::<F>(bytes).map_err(|_| Malformed("a frame that cannot be read"))?;
    if !frame.is_piece() && !rest.is_empty() {
        return Err(Malformed("a frame with something behind it"));
    }
    frame.check()?;
    Ok((frame, rest))
}

#[cfg(test)]
mod tests;
