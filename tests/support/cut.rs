//! A TCP proxy that cuts a connection at a chosen moment, and knows nothing of what travels through it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to the next request on an existing connection. A request is whatever a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive, and the connection ends.
    Request,
    /// It arrives, its answer does not, and the connection ends.
    Answer,
}

#[derive(Default)]
struct Shared {
    next: Mutex<Option<Cut>>,
    /// Everything that is sent disappears, and so do all answers.
    silent: AtomicBool,
    closed: AtomicBool,
}

/// A running proxy.
pub struct CutProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl CutProxy {
    /// A proxy in front of this server.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::Relaxed) {
                    return;
                }
                // While the server is down, its proxy hangs up.
                if let Ok(server) = TcpStream::connect(server) {
                    join(&serving, client, server);
                }
            }
        });
        Self { address, shared }
    }

    /// Cuts the next request or its answer.
    pub fn cut(&self, cut: Cut) {
        *self.shared.next.lock().unwrap() = Some(cut);
    }

    /// Whether the cut has happened, or has begun.
    pub fn has_cut(&self) -> bool {
        self.shared.next.lock().unwrap().is_none()
    }

    /// Lets everything disappear, or no more.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::Relaxed);
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

/// Carries bytes both ways, each on a thread that ends with the connection.
fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let unanswered = Arc::new(AtomicBool::new(false));
    let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (requests, answers) = (Arc::clone(shared), Arc::clone(shared));
    let mark = Arc::clone(&unanswered);
    thread::spawn(move || {
        carry(client, to_server, |_| match requests.next.lock().unwrap().take() {
            Some(Cut::Request) => Fate::End,
            Some(Cut::Answer) => {
                mark.store(true, Ordering::SeqCst);
                Fate::Pass
            }
            None if requests.silent.load(Ordering::Relaxed) => Fate::Vanish,
            None => Fate::Pass,
        });
    });
    thread::spawn(move || {
        carry(server, to_client, |_| match unanswered.load(Ordering::SeqCst) {
            true => Fate::End,
            false if answers.silent.load(Ordering::Relaxed) => Fate::Vanish,
            false => Fate::Pass,
        });
    });
}

enum Fate {
    Pass,
    Vanish,
    End,
}

/// The end of a connection is no request: it must not use up the cut that is meant for the next one.
fn carry(mut from: TcpStream, mut to: TcpStream, fate: impl Fn(&[u8]) -> Fate) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let sent = match fate(&bytes[..read]) {
            Fate::Pass => to.write_all(&bytes[..read]).is_ok(),
            Fate::Vanish => true,
            Fate::End => false,
        };
        if !sent {
            break;
        }
    }
    // They may have ended already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
