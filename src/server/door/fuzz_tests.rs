//! Request heads and chunked bodies under mutated input: what passes can be read in one way only.

use std::net::IpAddr;

use super::body::ChunkDecoder;
use super::head::{self, Framing};
use super::listen::Client;
use super::settings::DoorSettings;
use super::wire::Wire;
use crate::core::limits;
use crate::core::names::ParkId;
use crate::server::inner::{self, Secret};

#[path = "../../../tests/common/mutate.rs"]
mod mutate;

use mutate::fuzz;

const HEADS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /a?b=c%20d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"PUT /api/v1/claims/x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n{\"pool\":\"p\"}",
    b"POST /x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\nX: \t y \r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"HEAD /x HTTP/1.1\r\nHost: a\r\nLocker-Secret: s\r\nlocker-turn: L\r\nAuthorization: Basic eDp5\r\n\r\n",
    b"DELETE /x HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nContent-Encoding: identity\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded: z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\nZ: z\r\n\r\n",
];

#[test]
fn whatever_passes_as_a_head_reaches_the_inner_server_as_one_request() {
    let settings = DoorSettings::default();
    let secret = Secret::for_tests();
    let client = Client { peer: "peer".into(), address: IpAddr::from([127, 0, 0, 1]).into(), identity: None };
    fuzz(HEADS, |dice, input| {
        let whole = head::find_end(input, &mut 0, &settings);
        let mut scanned = 0;
        let cut = dice.below(input.len() + 1);
        let early = head::find_end(&input[..cut], &mut scanned, &settings);
        let end = match (early, head::find_end(input, &mut scanned, &settings)) {
            (Ok(None), later) => later,
            (early, _) => early,
        };
        // A cut may decide which of two refusals comes first, never whether there is one.
        assert_eq!(end.ok(), whole.ok(), "cut at {cut}");
        let Ok(Some(end)) = whole else { return };
        assert!(end <= settings.head_bytes && input[..end].ends_with(b"\r\n\r\n"));
        let mut slots = [httparse::EMPTY_HEADER; limits::DOOR_HEADERS];
        let Ok(head) = head::parse(&input[..end], &mut slots, &settings) else { return };
        if let Framing::Length(length) = head.framing {
            assert!(length <= settings.body_bytes);
        }
        let mut wire = Wire::new(&head, ParkId(7), "7-1", &client, &secret);
        wire.end_body();
        let bytes = wire.bytes();
        let mut slots = [httparse::EMPTY_HEADER; limits::DOOR_HEADERS + inner::INTERNAL.len()];
        let mut passed = httparse::Request::new(&mut slots);
        let length = passed.parse(bytes).expect("the inner server can read it");
        assert_eq!(length, httparse::Status::Complete(bytes.len()), "nothing follows the head");
        assert_eq!(passed.path, Some(head.target));
        for only in [inner::SECRET, inner::TURN, inner::PARK_ID, inner::REQUEST_ID, "content-length"] {
            let times = passed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(only)).count();
            assert_eq!(times, 1, "{only}");
        }
        for header in passed.headers.iter() {
            assert!(!header.name.eq_ignore_ascii_case("transfer-encoding"));
            assert!(header.value.iter().all(|b| *b == b'\t' || (b' '..=b'~').contains(b)), "{:?}", header.name);
        }
    });
}

const CHUNKS: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"a;x=\"y\"\r\n0123456789\r\nA\r\n0123456789\r\n0\r\nt: u\r\n\r\nGET / HTTP/1.1\r\n",
    b"00000005\r\nabcde\r\n000\r\n\r\n",
    b"fffffffffffffffff\r\n",
    b"3\r\n\r\n\r\r\n0\r\n\r\n",
];

#[test]
fn chunks_decode_alike_however_they_come_and_never_beyond_the_limit() {
    const LIMIT: usize = 64;
    fuzz(CHUNKS, |dice, input| {
        let mut whole = ChunkDecoder::new(LIMIT);
        let mut body = Vec::new();
        let used = whole.feed(input, &mut body);
        let mut pieces = ChunkDecoder::new(LIMIT);
        let (mut same, mut at) = (Vec::new(), 0);
        let mut fed = Ok(0);
        while at < input.len() && !pieces.is_done() {
            let end = (at + 1 + dice.below(7)).min(input.len());
            fed = pieces.feed(&input[at..end], &mut same);
            match fed {
                Ok(used) => at += used,
                Err(_) => break,
            }
        }
        assert_eq!((&body, whole.is_done()), (&same, pieces.is_done()));
        assert!(body.len() <= LIMIT);
        match used {
            Ok(used) => assert_eq!(used, at),
            Err(refusal) => assert_eq!(fed, Err(refusal)),
        }
    });
}
