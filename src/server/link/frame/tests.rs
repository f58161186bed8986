#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;
use crate::server::link::limits::LINK_PIECE_BYTES;

fn head() -> impl Strategy<Value = Head> {
    let pair = || (any::<String>(), any::<String>());
    let texts = (any::<String>(), any::<String>(), any::<String>(), any::<String>());
    let rest = (prop::collection::vec(pair(), 0..5), "[a-z0-9-]{1,40}", any::<Option<String>>(), any::<bool>());
    (texts, rest).prop_map(|((method, path, query, peer), (headers, id, certificate, can_park))| Head {
        method,
        path,
        query,
        headers,
        peer,
        id,
        certificate,
        can_park,
    })
}

fn up() -> impl Strategy<Value = Up> {
    prop_oneof![
        (any::<u64>(), head(), 0..1_000_000_u32).prop_map(|(number, head, length)| Up::Ask { number, head, length }),
        any::<u64>().prop_map(|number| Up::Piece { number }),
        any::<u64>().prop_map(|number| Up::Last { number }),
        any::<u64>().prop_map(|number| Up::More { number }),
        any::<u64>().prop_map(|number| Up::Gone { number }),
        Just(Up::Alive),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let headers = prop::collection::vec((any::<String>(), any::<String>()), 0..5);
    (any::<u16>(), headers, any::<Option<String>>(), any::<bool>(), any::<bool>())
        .prop_map(|(status, headers, route, goes_on, admitted)| Answer { status, headers, route, goes_on, admitted })
}

fn down() -> impl Strategy<Value = Down> {
    prop_oneof![
        (any::<u64>(), answer(), any::<u32>()).prop_map(|(number, answer, length)| Down::Answer {
            number,
            answer,
            length
        }),
        any::<u64>().prop_map(|number| Down::Parked { number }),
        (any::<u64>(), any::<u32>()).prop_map(|(number, length)| Down::Part { number, length }),
        any::<u64>().prop_map(|number| Down::Piece { number }),
        any::<u64>().prop_map(|number| Down::End { number }),
        any::<u64>().prop_map(|number| Down::NotLeading { number }),
        Just(Down::Bye),
        Just(Down::Alive),
    ]
}

/// Writes frames behind each other, each piece with this payload, and reads them again.
fn there_and_back<F: Frame + PartialEq + fmt::Debug>(frames: &[F], payload: &[u8]) {
    let of = |frame: &F| if frame.is_piece() { payload } else { &[] };
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| write(frame, of(frame), &mut bytes).unwrap());
    let mut rest = &bytes[..];
    for frame in frames {
        let length = length(rest).unwrap().unwrap();
        let (one, after) = rest.split_at(length);
        let (read, payload) = read::<F>(&one[LENGTH..]).unwrap();
        assert_eq!((&read, payload), (frame, of(frame)));
        // A frame that is cut short is not one, and nothing is behind one but the bytes of a piece.
        assert!(!matches!(super::read::<F>(&one[LENGTH..length - payload.len() - 1]), Ok((cut, _)) if cut == read));
        rest = after;
    }
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(
        ups in prop::collection::vec(up(), 0..8),
        downs in prop::collection::vec(down(), 0..8),
        payload in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        there_and_back(&ups, &payload);
        there_and_back(&downs, &payload);
    }
}

#[test]
fn limits_hold() {
    let mut bytes = Vec::new();
    write(&Up::Piece { number: u64::MAX }, &[7; LINK_PIECE_BYTES], &mut bytes).unwrap();
    assert_eq!(
        write(&Up::Piece { number: 1 }, &vec![7; LINK_FRAME_BYTES], &mut bytes).unwrap_err().0,
        "a frame that is too large"
    );
    assert_eq!(length(&bytes), Ok(Some(bytes.len())), "and nothing was added");
    assert_eq!(length(&[0xff; 4]).unwrap_err().0, "a frame that is too large");
    let head = |id: &str| Head {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        query: String::new(),
        headers: Vec::new(),
        peer: String::new(),
        id: id.to_owned(),
        certificate: None,
        can_park: true,
    };
    let largest = u32::try_from(DOOR_BODY_BYTES).unwrap();
    for (id, length, is_good) in [
        ("7f-1", largest, true),
        ("7f-1", largest + 1, false),
        ("", 0, false),
        ("a b", 0, false),
        ("a\nb", 0, false),
        (&"a".repeat(65), 0, false),
    ] {
        let ask = Up::Ask { number: 1, head: head(id), length };
        assert_eq!(ask.check().is_ok(), is_good, "{id:?} {length}");
    }
}
