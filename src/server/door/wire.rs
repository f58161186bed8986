//! A request as it travels to `tiny_http`: one buffer, built once, in which a later attempt changes single bytes.
//!
//! The headers of the door come first and have a fixed width, so that they can be changed in place.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::head::{Head, Method};
use super::listen::Client;
use crate::core::names::ParkId;
use crate::server::http::{Attempt, Identity};
use crate::server::inner::{self, Secret};

/// Width of the Content-Length that is filled in when the body is complete, digits.
const LENGTH_DIGITS: usize = 12;

/// One request, ready to be sent (more than once, if it is parked).
pub(super) struct Wire {
    bytes: Vec<u8>,
    turn_at: usize,
    can_park_at: usize,
    length_at: usize,
    body_at: usize,
    pub method: Method,
    pub park: ParkId,
    /// What the client is told as `x-request-id`.
    pub id: String,
    /// It carries credentials, right or wrong.
    pub has_credentials: bool,
}

impl Wire {
    /// The head; the body is added to [`Self::body`].
    pub fn new(head: &Head<'_, '_>, park: ParkId, id: &str, client: &Client, secret: &Secret) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        let mut put = |parts: &[&[u8]]| {
            for part in parts {
                bytes.extend_from_slice(part);
            }
            bytes.len()
        };
        put(&[head.method.as_str().as_bytes(), b" ", head.target.as_bytes(), b" HTTP/1.1\r\n"]);
        put(&[inner::SECRET.as_bytes(), b": ", secret.as_bytes(), b"\r\n"]);
        put(&[inner::PARK_ID.as_bytes(), b": ", park.0.to_string().as_bytes(), b"\r\n"]);
        put(&[inner::PEER.as_bytes(), b": ", client.peer.as_bytes(), b"\r\n"]);
        put(&[inner::REQUEST_ID.as_bytes(), b": ", id.as_bytes(), b"\r\n"]);
        if let Some(Identity::Certificate(subject)) = &client.identity {
            let subject = utf8_percent_encode(subject, NON_ALPHANUMERIC).to_string();
            put(&[inner::SUBJECT.as_bytes(), b": ", subject.as_bytes(), b"\r\n"]);
        }
        let turn_at = put(&[inner::TURN.as_bytes(), b": "]);
        let can_park_at = put(&[b"F\r\n", inner::CAN_PARK.as_bytes(), b": "]);
        let length_at = put(&[b"0\r\ncontent-length: "]);
        put(&[&[b'0'; LENGTH_DIGITS], b"\r\n"]);
        for (name, value) in head.passed_headers() {
            let at = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            bytes[at..].make_ascii_lowercase();
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        let body_at = bytes.len();
        let Head { method, has_credentials, .. } = *head;
        Self { bytes, turn_at, can_park_at, length_at, body_at, method, park, id: id.to_owned(), has_credentials }
    }

    /// Where the body is appended.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes of the body so far.
    pub fn body_len(&self) -> usize {
        self.bytes.len() - self.body_at
    }

    /// Says that the body is complete.
    pub fn end_body(&mut self) {
        let mut left = self.body_len();
        for digit in self.bytes[self.length_at..self.length_at + LENGTH_DIGITS].iter_mut().rev() {
            // A remainder by ten is a digit.
            #[allow(clippy::cast_possible_truncation)]
            let digit_value = (left % 10) as u8;
            *digit = b'0' + digit_value;
            left /= 10;
        }
    }

    /// Sets why it is sent, and whether it may be parked then.
    pub fn set_turn(&mut self, attempt: Attempt, can_park: bool) {
        self.bytes[self.turn_at] = inner::turn_letter(attempt);
        self.bytes[self.can_park_at] = if can_park { b'1' } else { b'0' };
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives spare memory back before a long wait.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}
