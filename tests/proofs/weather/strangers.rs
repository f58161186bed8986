//! Clients without a password, as many as there can be: what they take, what they give back, and that meanwhile health
//! checks and those who have the password are served.
//!
//! `LOCKER_STRANGERS=16000` sends as many as the default cap turns away (the limit of open files must be above 17,000).
//! `--nocapture` prints the table.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::support::certs::{Ca, Files};
use crate::support::http::{Client, request};
use crate::support::{Server, eventually};
use crate::{AUTH, CALM, Good, Stream, raise_the_limit_of_open_files, served_within};

/// The limit of the container in deploy/kubernetes, in KiB.
const SHIPPED_LIMIT_KIB: usize = 512 * 1024;
/// What may stay resident once the strangers have left, beyond what was before, in KiB.
const KEPT_KIB: usize = 64 * 1024;
/// How soon that must be so.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// For how long an attack goes on. Who was refused comes again.
const LASTS: Duration = Duration::from_secs(4);
/// Descriptors of the test beside the strangers'.
const OWN_DESCRIPTORS: usize = 500;

/// What strangers do once they are connected.
#[derive(Clone, Copy)]
enum Act {
    /// Nothing.
    Silent,
    /// Send this, and nothing more.
    Send(fn() -> Vec<u8>),
    /// Finish a TLS handshake and then send this.
    Shake(fn() -> Vec<u8>),
}

struct Attack {
    name: &'static str,
    act: Act,
    /// Whether the server asks for a password.
    is_guarded: bool,
    is_tls: bool,
    /// One of so many connections is enough.
    share: usize,
}

const PLAIN: Attack = Attack { name: "", act: Act::Silent, is_guarded: true, is_tls: false, share: 1 };

const ATTACKS: &[Attack] = &[
    Attack { name: "idle connections", ..PLAIN },
    Attack { name: "heads that stop at 15 KB", act: Act::Send(half_head), ..PLAIN },
    Attack { name: "15 KB of head, 16,000 bytes of a body", act: Act::Send(half_body), ..PLAIN },
    Attack { name: "the same, no password", act: Act::Send(half_body), is_guarded: false, ..PLAIN },
    Attack { name: "announced bodies of 1 MiB, no password", act: Act::Send(announced), is_guarded: false, ..PLAIN },
    Attack {
        name: "bodies that stop at 1,000,000 bytes, no password",
        act: Act::Send(large_body),
        is_guarded: false,
        share: 16,
        ..PLAIN
    },
    Attack {
        name: "large answers that nobody takes, no password",
        act: Act::Send(large_answers),
        is_guarded: false,
        // Below the cap: without a password, whoever is answered is a client like any other.
        share: 2,
        ..PLAIN
    },
    Attack { name: "TLS: idle connections", is_tls: true, ..PLAIN },
    Attack { name: "TLS: hellos that stop at 60 KB", act: Act::Send(half_hello), is_tls: true, ..PLAIN },
    Attack { name: "TLS: idle after the handshake", act: Act::Shake(Vec::new), is_tls: true, share: 2, ..PLAIN },
    Attack { name: "TLS: heads that stop at 15 KB", act: Act::Shake(half_head), is_tls: true, share: 2, ..PLAIN },
];

fn half_head() -> Vec<u8> {
    format!("GET /api/v1/pools HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(15_000)).into_bytes()
}

fn half_body() -> Vec<u8> {
    let padding = "x".repeat(15_000);
    let head = format!("PUT /api/v1/pools/p/locks/a HTTP/1.1\r\nHost: localhost\r\nX: {padding}\r\n");
    format!("{head}Content-Length: 60000\r\n\r\n{}", "y".repeat(16_000)).into_bytes()
}

fn announced() -> Vec<u8> {
    b"PUT /api/v1/pools/p/locks/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{".to_vec()
}

fn large_body() -> Vec<u8> {
    [announced(), vec![b'y'; 999_990]].concat()
}

fn large_answers() -> Vec<u8> {
    request("GET", "/openapi.json", "", "").repeat(100).into_bytes()
}

/// Records of a handshake message that is never complete.
fn half_hello() -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1, 0x3a, 0x98][..], part].concat();
    let mut first = vec![0; 15_000];
    first[..4].copy_from_slice(&[1, 0, 0xff, 0xf0]);
    [record(&first), record(&[0; 15_000]).repeat(3)].concat()
}

/// The strangers' side.
struct Strangers<'a> {
    server: SocketAddr,
    /// Each attack comes from another address.
    source: [u8; 4],
    attack: &'a Attack,
    said: Vec<u8>,
    tls: Arc<ClientConfig>,
}

impl Strangers<'_> {
    /// One more connection. `None` when the server ends it at once.
    fn connect(&self) -> Option<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // So that thousands of ended connections leave room for those who come again.
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((self.source, 0)).into()).unwrap();
        socket.connect_timeout(&self.server.into(), Duration::from_secs(20)).ok()?;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if let Act::Shake(_) = self.attack.act {
            let mut session = ClientConnection::new(Arc::clone(&self.tls), name()).unwrap();
            let _ = session.writer().write(&self.said);
            let mut stream = &socket;
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(&mut stream).ok()?;
            }
        }
        socket.set_nonblocking(true).unwrap();
        Some(socket)
    }

    /// Sends what the sockets take. Replaces those that the server has ended.
    fn go_on(&self, all: &mut [Option<(TcpStream, usize)>]) {
        let said: &[u8] = if let Act::Send(_) = self.attack.act { &self.said } else { &[] };
        for place in all {
            let Some((socket, sent)) = place else {
                *place = self.connect().map(|socket| (socket, 0));
                continue;
            };
            let is_over = match socket.write(&said[*sent..]) {
                Ok(more) => {
                    *sent += more;
                    // What the server answers is not read.
                    matches!(socket.peek(&mut [0]), Ok(0))
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if is_over {
                *place = None;
            }
        }
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("127.0.0.1").unwrap()
}

/// A server as it is shipped, but for its cap and its door.
fn start(attack: &Attack, cap: usize, files: &Files, ca: &Ca) -> Server {
    let pair = ca.issue(&["127.0.0.1"], "server");
    let (cert, key) = (files.write("cert", &pair.cert), files.write("key", &pair.key));
    let cap = cap.to_string();
    let mut vars = Vec::new();
    if attack.is_guarded {
        vars.extend([("AUTH_USER", "ci"), ("AUTH_PASS", "canary-7Qx")]);
    }
    if attack.is_tls {
        vars.extend([("SSL_CERT", cert.as_str()), ("SSL_KEY", key.as_str())]);
    }
    // Nobody is to leave because of the time that connecting thousands takes.
    Server::start_with("sqlite", &["--max-connections", &cap, "--idle-timeout", "10m"], &vars)
}

/// Prints a row of the table.
fn endure(attack: &Attack, number: u8, strangers: usize) {
    let (ca, files) = (Ca::new("test CA"), Files::new());
    let server = start(attack, strangers * 15 / 16, &files, &ca);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let tls = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let (address, config, is_tls) = (server.socket(), Arc::clone(&tls), attack.is_tls);
    let connect = move || {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = if is_tls {
            Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(&config), name()).unwrap(), socket))
        } else {
            Box::new(socket)
        };
        Client::on(stream)
    };
    // A client with the password that says nothing meanwhile.
    let mut idle = connect();
    assert_eq!(idle.ask("GET", "/api/v1/info", AUTH, "").unwrap().status, 200);
    let good = Good::start_on(connect.clone());
    eventually("the good client asks", || good.asked.load(std::sync::atomic::Ordering::Relaxed) > 8);
    let before = server.resident();
    let said = match attack.act {
        Act::Silent => Vec::new(),
        Act::Send(what) | Act::Shake(what) => what(),
    };
    let crowd = Strangers { server: address, source: [127, 0, 1, number], attack, said, tls };
    let mut all: Vec<_> = (0..strangers / attack.share).map(|_| None).collect();
    let _ = good.take();
    let (mut most, mut end) = (0, None);
    while end.is_none_or(|end| Instant::now() < end) {
        crowd.go_on(&mut all);
        most = most.max(server.descriptors());
        // A probe of the container, from the strangers' own address.
        let start = Instant::now();
        assert_eq!(connect().ask("GET", "/healthz", "", "").unwrap().status, 200, "{}", attack.name);
        assert!(start.elapsed() < served_within(), "{}: a health check took {:?}", attack.name, start.elapsed());
        end = end.or_else(|| Some(Instant::now() + LASTS));
    }
    let (worst, _) = good.take();
    let peak = server.peak_memory();
    assert_eq!(idle.ask("GET", "/api/v1/info", AUTH, "").unwrap().status, 200, "{}", attack.name);
    good.end();
    drop(all);
    let left = Instant::now();
    let kept = loop {
        let resident = server.resident();
        if resident < before + KEPT_KIB || left.elapsed() > GIVEN_BACK_WITHIN {
            break resident;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let back = left.elapsed();
    let mib = |kib: usize| kib / 1024;
    let row = format!(
        "| {} | {} | {most} | {} MiB | {} MiB | {} MiB after {:.1} s | {} ms |",
        attack.name,
        strangers / attack.share,
        mib(before),
        mib(peak),
        mib(kept),
        back.as_secs_f32(),
        worst.as_millis(),
    );
    println!("{row}");
    assert!(worst < served_within(), "{row}");
    assert!(peak < SHIPPED_LIMIT_KIB, "{row}");
    assert!(kept < before + KEPT_KIB, "{row}");
}

#[test]
fn strangers_take_little_and_disturb_nobody() {
    let _alone = CALM.write().unwrap_or_else(PoisonError::into_inner);
    let wanted: usize = std::env::var("LOCKER_STRANGERS").map_or(1_600, |number| number.parse().expect("a number"));
    let strangers = wanted.min(raise_the_limit_of_open_files().saturating_sub(OWN_DESCRIPTORS));
    println!(
        "| attack | strangers | open files of the server | before | peak | once they left | a good client waited at most |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (number, attack) in (1..).zip(ATTACKS) {
        endure(attack, number, strangers);
    }
}
