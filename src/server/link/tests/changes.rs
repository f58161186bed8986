//! Each way in which the leader of a request changes: what may be repeated is, and what may not be is not.

use super::*;

/// The next one that leads, and what must live as long as it.
struct Next {
    small: Arc<Small>,
    _leads: Option<Leads>,
}

impl Next {
    fn of(leads: Leads) -> Self {
        Self { small: Arc::clone(&leads.small), _leads: Some(leads) }
    }

    fn here(follows: &Follows) -> Self {
        let small = Small::new("own", follows.notices.clone());
        follows.forwarder.set_leader(Lead::Here(Arc::clone(&small) as Arc<dyn Handler>));
        Self { small, _leads: None }
    }
}

type Change = fn(&mut Leads, &Follows) -> Next;

const CHANGES: [(&str, Change); 5] = [
    ("nobody leads, then another server", |_, follows| {
        follows.forwarder.set_leader(Lead::Nobody);
        let second = Leads::start("b", 2, Duration::from_secs(600));
        follows.follow(&second);
        Next::of(second)
    }),
    ("another server leads at once", |_, follows| {
        let second = Leads::start("b", 2, Duration::from_secs(600));
        follows.follow(&second);
        Next::of(second)
    }),
    ("this server leads", |_, follows| Next::here(follows)),
    ("nobody leads, then this server", |_, follows| {
        follows.forwarder.set_leader(Lead::Nobody);
        Next::here(follows)
    }),
    ("the leader ends before it has answered, and another one leads", |first, follows| {
        drop(first.server.take());
        let second = Leads::start("b", 2, Duration::from_secs(600));
        follows.follow(&second);
        Next::of(second)
    }),
];

/// What one client was answered: status, body, and the id of its request.
fn answered(stream: TcpStream) -> (u16, String, String) {
    let (status, head, body) = whole(stream);
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    (status, body, id)
}

/// How often a handler was called with a request that it had not parked.
fn times(small: &Small, id: &str) -> usize {
    small.seen.lock().unwrap().iter().filter(|seen| *seen == id).count()
}

fn assert_unknown(what: &str, (status, body): (u16, &str)) {
    assert!(status == 502 && body.contains("unknown_outcome"), "{what}: {status} {body}");
}

#[test]
fn what_is_under_way_is_repeated_only_if_it_may_be() {
    for (what, change) in CHANGES {
        let mut first = Leads::usual("a");
        let follows = Follows::of(&first);
        let (may, may_not) = (follows.send("PUT", "/stuck", b"{}"), follows.send("POST", "/stuck", b"{}"));
        eventually("both there", || first.small.seen.lock().unwrap().len() == 2);
        let next = change(&mut first, &follows);
        let (status, body, id) = answered(may_not);
        assert_unknown(what, (status, &body));
        eventually("asked again", || !next.small.seen.lock().unwrap().is_empty());
        next.small.stuck.notify_one();
        let (status, body, repeated) = answered(may);
        assert_eq!((status, body), (200, format!("{}: moved", next.small.name)), "{what}");
        assert_eq!(*next.small.seen.lock().unwrap(), [repeated], "{what}");
        assert_eq!(times(&first.small, &id), 1, "{what}");
        assert_eq!(follows.forwarder.passing().pending(), 0, "{what}");
    }
}

#[test]
fn what_is_parked_is_repeated_only_if_it_may_be() {
    for (what, change) in CHANGES {
        let mut first = Leads::usual("a");
        let follows = Follows::of(&first);
        let (may, may_not) = (follows.send("PUT", "/wait/1", b"{}"), follows.send("POST", "/wait/2", b"{}"));
        eventually("both parked", || first.small.is_parked("/wait/1") && first.small.is_parked("/wait/2"));
        let next = change(&mut first, &follows);
        let (status, body, _) = answered(may_not);
        assert_unknown(what, (status, &body));
        eventually("parked again", || next.small.is_parked("/wait/1"));
        next.small.grant("/wait/1");
        let (status, body, repeated) = answered(may);
        assert_eq!((status, body), (200, format!("{}: granted", next.small.name)), "{what}");
        assert_eq!(*next.small.seen.lock().unwrap(), [repeated], "{what}");
        assert_eq!(follows.forwarder.passing().pending(), 0, "{what}");
    }
}

/// Two connections to a leader, one after the other.
struct Relay {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), streams: Arc::default() };
        let streams = Arc::clone(&relay.streams);
        thread::spawn(move || {
            for _ in 0..2 {
                let (mut from, mut to) = (listener.accept().unwrap().0, TcpStream::connect(&address).unwrap());
                streams.lock().unwrap().extend([from.try_clone().unwrap(), to.try_clone().unwrap()]);
                let (mut down, mut back) = (to.try_clone().unwrap(), from.try_clone().unwrap());
                thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                thread::spawn(move || drop(std::io::copy(&mut down, &mut back)));
            }
        });
        relay
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // The other end may have closed it.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn a_link_that_breaks_and_comes_back_repeats_only_what_may_be() {
    let leader = Leads::usual("a");
    let Advertised { address, key } = leader.there.leader.name.parse().unwrap();
    let relay = Relay::to(address);
    let mut there = leader.there.clone();
    there.leader.name = Advertised { address: relay.address.to_string(), key }.to_string();
    let follows = Follows::start();
    follows.forwarder.set_leader(Lead::There(there));
    let (may, may_not) = (follows.send("PUT", "/stuck", b"{}"), follows.send("POST", "/stuck", b"{}"));
    eventually("both there", || leader.small.seen.lock().unwrap().len() == 2);
    relay.cut();
    let (status, body, id) = answered(may_not);
    assert_unknown("a broken link", (status, &body));
    eventually("asked again", || leader.small.seen.lock().unwrap().len() == 3);
    leader.small.stuck.notify_one();
    let (status, body, repeated) = answered(may);
    assert_eq!((status, body.as_str()), (200, "a: moved"));
    assert_eq!((times(&leader.small, &id), times(&leader.small, &repeated)), (1, 2));
}

#[test]
fn what_this_server_has_parked_is_repeated_elsewhere_only_if_it_may_be() {
    let follows = Follows::start();
    let own = Next::here(&follows);
    let (may, may_not) = (follows.send("PUT", "/wait/1", b"{}"), follows.send("POST", "/wait/2", b"{}"));
    eventually("both parked", || own.small.is_parked("/wait/1") && own.small.is_parked("/wait/2"));
    let leader = Leads::usual("a");
    follows.follow(&leader);
    let (status, body, _) = answered(may_not);
    assert_unknown("parked here", (status, &body));
    eventually("parked there", || leader.small.is_parked("/wait/1"));
    assert_eq!(leader.small.seen.lock().unwrap().len(), 1);
    leader.small.grant("/wait/1");
    assert_eq!(answer(may), (200, "a: granted".to_owned()));
}

#[test]
fn a_server_that_stops_after_its_leader_was_lost_repeats_nothing() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let (may, may_not) = (follows.send("PUT", "/wait/1", b"{}"), follows.send("POST", "/wait/2", b"{}"));
    eventually("both parked", || leader.small.is_parked("/wait/1") && leader.small.is_parked("/wait/2"));
    follows.forwarder.set_leader(Lead::Nobody);
    let (status, body, _) = answered(may_not);
    assert_unknown("stops", (status, &body));
    follows.stop.trigger(PATIENCE);
    let (status, body) = answer(may);
    assert!(status == 503 && body.contains("no_leader"), "{status} {body}");
    assert_eq!(leader.small.seen.lock().unwrap().len(), 2);
}

/// Begun again here, it would lack what happened in between, or repeat what its client has.
#[test]
fn an_answer_in_parts_ends_when_this_server_leads() {
    let leader = Leads::usual("a");
    let follows = Follows::of(&leader);
    let mut stream = follows.send("GET", "/flood", b"");
    stream.read_exact(&mut [0]).unwrap();
    let own = Next::here(&follows);
    let mut bytes = vec![0; 64 * 1024];
    // Until it is cut off, or at its end.
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
        assert!(own.small.seen.lock().unwrap().is_empty());
    }
    eventually("nothing is left", || follows.forwarder.passing().pending() == 0);
    assert!(own.small.seen.lock().unwrap().is_empty());
}

/// Who has made a link may learn later that this server leads by now.
#[test]
fn a_link_gets_nothing_once_this_server_leads() {
    let now = tokio::time::Instant::now();
    for is_repeatable in [true, false] {
        let mut table = table::Table::default();
        let asked = Arc::into_inner(asked_as("a-1", is_repeatable).1).unwrap();
        assert!(table.ask(7, asked, now));
        table.here = Some(Small::new("own", Notices::default()));
        let (orders, mut ordered) = tokio::sync::mpsc::unbounded_channel();
        assert!(table.linked(orders).is_none());
        assert!(ordered.try_recv().is_err());
        assert!(matches!(table.look(7, false, now), table::Seen::Here(_)), "it is answered here");
    }
}

/// Asked again, it might undo what somebody else has done since.
#[test]
fn an_answer_without_room_says_that_nobody_knows_what_has_become_of_it() {
    let now = tokio::time::Instant::now();
    for (is_repeatable, expected) in [(true, 503), (false, 502)] {
        let mut table = table::Table::default();
        let (orders, _ordered) = tokio::sync::mpsc::unbounded_channel();
        let link = table.linked(orders).unwrap();
        let asked = Arc::into_inner(asked_as("a-1", is_repeatable).1).unwrap();
        assert!(table.ask(7, asked, now));
        assert!(table.out(link, table::Order::Ask(7)).is_some());
        let answer = frame::Answer { status: 200, headers: Vec::new(), route: None, goes_on: false, admitted: true };
        let length = u32::try_from(super::super::limits::LINK_ANSWERS_BYTES).unwrap() + 1;
        table.arrived(link, frame::Down::Answer { number: 7, answer, length }, &[], now).unwrap();
        let table::Seen::Ready(response) = table.look(7, false, now) else { panic!("no answer") };
        assert_eq!(response.status, expected);
    }
}
