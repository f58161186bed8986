//! Properties that hold for every input of the door's parsers. Random tests and libFuzzer call them
//! (`tests/proofs/fuzz`). They are not part of any release.

use std::net::IpAddr;

use super::body::ChunkDecoder;
use super::head::{self, Framing};
use super::listen::Client;
use super::settings::DoorSettings;
use crate::core::names::ParkId;
use crate::server::door::limits;

/// A small limit that small inputs can reach.
const BODY: usize = 64;

/// A request head, possibly with more bytes behind it. Whatever passes is exactly one request and can be read in only
/// one way, however its bytes arrive.
///
/// # Panics
/// The property does not hold.
pub fn heads(input: &[u8]) {
    let settings = DoorSettings::default();
    let whole = head::find_end(input, &mut 0, &settings);
    for step in [1, 7, 61] {
        // The cut may decide which of two refusals comes first, but never whether there is one.
        assert_eq!(find_end_in_steps(input, step, &settings).ok(), whole.ok(), "in steps of {step}");
    }
    let Ok(Some(end)) = whole else { return };
    assert!(end <= settings.head_bytes && input[..end].ends_with(b"\r\n\r\n"));
    let mut slots = [httparse::EMPTY_HEADER; limits::DOOR_HEADERS];
    let Ok(head) = head::parse(&input[..end], &mut slots, &settings) else { return };
    if let Framing::Length(length) = head.framing {
        assert!(length <= settings.body_bytes);
    }
    let client = Client { peer: "peer".into(), address: IpAddr::from([127, 0, 0, 1]).into(), identity: None };
    let request = head.to_request(ParkId(7), "7-1", &client);
    let target = format!("{}?{}", request.path, request.query);
    assert!(target == head.target || target.strip_suffix('?') == Some(head.target), "{target:?}");
    for (name, value) in &request.headers {
        assert!(!["transfer-encoding", "content-length", "connection"].contains(&name.as_str()), "{name}");
        assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "{name}");
        assert!(value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)), "{name}: {value:?}");
    }
}

fn find_end_in_steps(
    input: &[u8],
    step: usize,
    settings: &DoorSettings,
) -> Result<Option<usize>, super::refusal::Refusal> {
    let (mut scanned, mut seen) = (0, 0);
    while seen < input.len() {
        seen = (seen + step).min(input.len());
        if let Some(end) = head::find_end(&input[..seen], &mut scanned, settings)? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// A chunked body and what follows it: it decodes to the same bytes however it arrives, and never beyond the limit.
///
/// # Panics
/// The property does not hold.
pub fn chunks(input: &[u8]) {
    let mut whole = ChunkDecoder::new(BODY);
    let mut body = Vec::new();
    let used = whole.feed(input, &mut body);
    assert!(body.len() <= BODY);
    for step in [1, 3, 7] {
        let mut pieces = ChunkDecoder::new(BODY);
        let (mut same, mut at, mut fed) = (Vec::new(), 0, Ok(0));
        while at < input.len() && !pieces.is_done() {
            fed = pieces.feed(&input[at..(at + step).min(input.len())], &mut same);
            match fed {
                Ok(used) => at += used,
                Err(_) => break,
            }
        }
        assert_eq!((&body, whole.is_done()), (&same, pieces.is_done()), "in steps of {step}");
        match used {
            Ok(used) => assert_eq!(used, at, "in steps of {step}"),
            Err(refusal) => assert_eq!(fed, Err(refusal), "in steps of {step}"),
        }
    }
}

#[cfg(test)]
mod tests;
