use super::*;

fn settings() -> DoorSettings {
    DoorSettings::default()
}

/// Parses a whole request head. Returns the result of `read`, or the status of the refusal.
fn parse_with<T>(text: &str, read: impl FnOnce(Head<'_, '_>) -> T) -> Result<T, u16> {
    let settings = settings();
    let end = find_end(text.as_bytes(), &mut 0, &settings).map_err(|r| r.status)?.expect("a complete head");
    let mut slots = [httparse::EMPTY_HEADER; 100];
    parse(&text.as_bytes()[..end], &mut slots, &settings).map(read).map_err(|r| r.status)
}

#[test]
fn the_end_is_found_wherever_the_bytes_are_cut() {
    let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
    let settings = settings();
    for first in 0..text.len() {
        let mut scanned = 0;
        let early = find_end(&text[..first], &mut scanned, &settings).unwrap();
        let end = find_end(text, &mut scanned, &settings).unwrap();
        assert_eq!(early.or(end), Some(29), "cut at {first}");
    }
    assert_eq!(find_end(b"", &mut 0, &settings), Ok(None));
    assert_eq!(find_end(b"\r", &mut 0, &settings), Ok(None));
}

#[test]
fn what_a_head_says() {
    let post = |headers: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let table = [
        ("", Framing::Length(0), Keep::Open, false),
        ("Content-Length: 0\r\n", Framing::Length(0), Keep::Open, false),
        ("content-length:  007 \r\n", Framing::Length(7), Keep::Open, false),
        ("Content-Length: 1048576\r\n", Framing::Length(1_048_576), Keep::Open, false),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked, Keep::Open, false),
        ("Connection: a, close ,b\r\n", Framing::Length(0), Keep::Close, false),
        ("Connection: a\r\nConnection: close\r\n", Framing::Length(0), Keep::Close, false),
        ("Connection: closed\r\n", Framing::Length(0), Keep::Open, false),
        ("Expect: 100-Continue\r\n", Framing::Length(0), Keep::Open, true),
    ];
    for (headers, framing, keep, expects) in table {
        let said = parse_with(&post(headers), |head| (head.framing, head.keep, head.expects_continue));
        assert_eq!(said, Ok((framing, keep, expects)), "{headers}");
    }
    let old = |headers: &str| parse_with(&format!("GET / HTTP/1.0\r\n{headers}\r\n"), |head| head.keep);
    assert_eq!(old(""), Ok(Keep::Close));
    assert_eq!(old("Connection: Keep-Alive\r\n"), Ok(Keep::OpenSaid));
    assert_eq!(old("Connection: keep-alive, close\r\n"), Ok(Keep::Close));
    assert_eq!(parse_with("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", |h| h.expects_continue), Ok(false));
}

#[test]
fn limits_hold_to_the_byte() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
    assert_eq!(parse_with(&target(8 * 1024), |h| h.target.len()), Ok(8 * 1024));
    assert_eq!(parse_with(&target(8 * 1024 + 1), |_| ()), Err(414));
    let head = |length: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        frame.replace("X: ", &format!("X: {}", "y".repeat(length - frame.len())))
    };
    assert_eq!(head(500).len(), 500);
    assert_eq!(parse_with(&head(16 * 1024), |_| ()), Ok(()));
    assert_eq!(parse_with(&head(16 * 1024 + 1), |_| ()), Err(431));
    let unfinished = |text: String| find_end(text.as_bytes(), &mut 0, &settings()).map_err(|r| r.status);
    assert_eq!(unfinished("x".repeat(8 * 1024)), Ok(None));
    assert_eq!(unfinished("x".repeat(9 * 1024)), Err(414));
    assert_eq!(unfinished(format!("GET / HTTP/1.1\r\n{}", "x".repeat(10 * 1024))), Ok(None));
    assert_eq!(unfinished(format!("GET / HTTP/1.1\r\n{}", "x".repeat(16 * 1024))), Err(431));
}

#[test]
fn only_what_concerns_the_handler_is_passed_on() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nTE: trailers\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\n\
                Proxy-Connection: x\r\nTrailer: y\r\nContent-Length: 0\r\n\
                Authorization: Basic x\r\nlocker-note: z\r\n\r\n";
    let client = Client { peer: "peer".into(), address: std::net::IpAddr::from([127, 0, 0, 1]).into(), identity: None };
    let request = parse_with(text, |head| head.to_request(ParkId(7), "7-1", &client)).unwrap();
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host", "authorization", "locker-note"]);
}

#[test]
fn nothing_is_read_two_ways() {
    // Each of these has been used to make two servers disagree. The table over real sockets has many more.
    for text in [
        "GET / HTTP/1.1\rX: y\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eDp5\r\nauthorization: Basic eDp6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n",
    ] {
        assert_eq!(parse_with(text, |_| ()), Err(400), "{text:?}");
    }
}
