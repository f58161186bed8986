//! Decodes chunked bodies within bounds. Pure; [`super::connection`] does the reading.

use super::head::body_too_large;
use super::refusal::Refusal;
use crate::server::door::limits;

/// Decodes one chunked body, fed in pieces of any size.
#[derive(Debug)]
pub(super) struct ChunkDecoder {
    state: State,
    /// How many more bytes the body may have.
    room: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk-size line: `seen` bytes of it were read, and the size so far is `size`.
    Size {
        size: usize,
        seen: usize,
    },
    /// In the rest of that line: an extension, which is ignored.
    Extension {
        size: usize,
        seen: usize,
    },
    /// After the line's carriage return.
    SizeEnd {
        size: usize,
    },
    /// In the data of a chunk.
    Data {
        left: usize,
    },
    /// After the data: the carriage return, then the line feed.
    DataEnd,
    DataLineFeed,
    /// In the trailer section: `seen` bytes of it were read; `empty` at the start of a line.
    Trailer {
        seen: usize,
        empty: bool,
    },
    /// After a carriage return in the trailer section; `last` if it ends an empty line.
    TrailerEnd {
        seen: usize,
        last: bool,
    },
    Done,
}

impl ChunkDecoder {
    /// A decoder for a body of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { state: State::Size { size: 0, seen: 0 }, room: limit }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes `input` onto `body` and returns how many bytes of `input` belong to the chunked coding: all of them,
    /// unless the body ends before.
    pub fn feed(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let take = left.min(input.len() - at);
                body.extend_from_slice(&input[at..at + take]);
                at += take;
                self.state = if take == left { State::DataEnd } else { State::Data { left: left - take } };
            } else {
                self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Handles one byte outside of chunk data.
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        const BAD_CHUNK: Refusal = Refusal::malformed("a chunk of the body is not well-formed");
        self.state = match (self.state, byte) {
            (State::Size { seen, .. } | State::Extension { seen, .. }, _) if seen >= limits::DOOR_CHUNK_LINE_BYTES => {
                return Err(BAD_CHUNK);
            }
            (State::Size { size, seen: 1.. }, b'\r') | (State::Extension { size, .. }, b'\r') => {
                State::SizeEnd { size }
            }
            (State::Size { size, seen: seen @ 1.. }, b';') => State::Extension { size, seen: seen + 1 },
            (State::Size { size, seen }, digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(BAD_CHUNK)? as usize;
                let size = size.checked_mul(16).and_then(|s| s.checked_add(digit)).ok_or_else(body_too_large)?;
                if size > self.room {
                    return Err(body_too_large());
                }
                State::Size { size, seen: seen + 1 }
            }
            (State::Extension { size, seen }, b'\t' | b' '..=b'~') => State::Extension { size, seen: seen + 1 },
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailer { seen: 0, empty: true },
            (State::SizeEnd { size }, b'\n') => {
                self.room -= size;
                State::Data { left: size }
            }
            (State::DataEnd, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size { size: 0, seen: 0 },
            (State::Trailer { seen, .. }, _) if seen >= limits::DOOR_TRAILER_BYTES => {
                return Err(Refusal::new(431, "head_too_large", "the trailers of the body are too large"));
            }
            (State::Trailer { seen, empty }, b'\r') => State::TrailerEnd { seen: seen + 1, last: empty },
            (State::Trailer { seen, .. }, b'\t' | b' '..=b'~') => State::Trailer { seen: seen + 1, empty: false },
            (State::TrailerEnd { last: true, .. }, b'\n') => State::Done,
            (State::TrailerEnd { seen, .. }, b'\n') => State::Trailer { seen: seen + 1, empty: true },
            _ => return Err(BAD_CHUNK),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` in pieces of `piece` bytes. Returns the body and what is left over, or the status of the
    /// refusal.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut decoder = ChunkDecoder::new(20);
        let mut body = Vec::new();
        let mut used = 0;
        for part in input.chunks(piece) {
            used += decoder.feed(part, &mut body).map_err(|refusal| refusal.status)?;
        }
        Ok((body, input.len() - used, decoder.is_done()))
    }

    #[test]
    fn bodies_decode_alike_in_all_pieces() {
        let table: [(&[u8], &[u8], usize, bool); 7] = [
            (b"0\r\n\r\n", b"", 0, true),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc", 0, true),
            (b"3\r\nabc\r\n00000A\r\n0123456789\r\n0\r\n\r\nGET", b"abc0123456789", 3, true),
            (b"14\r\n01234567890123456789\r\n0\r\n\r\n", b"01234567890123456789", 0, true),
            (b"3;ext=\"x\"\r\nabc\r\n0;y\r\nTrailer: x\r\nMore: y\r\n\r\n", b"abc", 0, true),
            (b"3\r\nab", b"ab", 0, false),
            (b"3\r\nabc\r\n0\r\n", b"abc", 0, false),
        ];
        for (input, body, left, done) in table {
            for piece in 1..=input.len() {
                let expected = Ok((body.to_vec(), left, done));
                assert_eq!(decode(input, piece), expected, "{:?} by {piece}", input.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        let long_line = [b"1;".to_vec(), vec![b'x'; 300]].concat();
        let long_trailer = [b"0\r\nx: ".to_vec(), vec![b'x'; 5_000]].concat();
        let table: [(&[u8], u16); 16] = [
            (b"\r\n", 400),
            (b";x\r\n", 400),
            (b"g\r\n", 400),
            (b"-1\r\n", 400),
            (b"+1\r\n", 400),
            (b"0x1\r\n", 400),
            (b" 1\r\n", 400),
            (b"1 \r\n", 400),
            (b"1\n", 400),
            (b"1;x\n", 400),
            (b"1\r\nab\r\n", 400),
            (b"1\r\na\n", 400),
            (b"0\r\n\n", 400),
            (b"15\r\n", 413),
            (b"ffffffffffffffffffffffffff\r\n", 413),
            (&long_line, 400),
        ];
        for (input, status) in table {
            assert_eq!(decode(input, 1).unwrap_err(), status, "{:?}", input.escape_ascii().to_string());
            assert_eq!(decode(input, input.len()).unwrap_err(), status, "{:?}", input.escape_ascii().to_string());
        }
        assert_eq!(decode(&long_trailer, 7).unwrap_err(), 431);
        assert_eq!(decode(b"10\r\n0123456789abcdef\r\n5\r\n", 4).unwrap_err(), 413);
    }
}
