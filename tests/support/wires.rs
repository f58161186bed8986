//! TCP proxies that cut, hold, delay and lose what travels through them, each direction by itself. They know nothing of
//! what it says.
//!
//! What is held arrives when it is let go, as with a network that was cut for a while, even if whoever sent it has given up
//! meanwhile: so requests arrive late, and after their own repetition.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A direction on a wire, as seen by whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Requests.
    There = 0,
    /// Answers.
    Back = 1,
}

/// What happens to the next request on a wire. Its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lose {
    /// It does not arrive.
    Request,
    /// It arrives, and its answer does not.
    Answer,
}

#[derive(Default)]
struct State {
    /// Where it leads.
    target: Option<SocketAddr>,
    /// Connections of an earlier number have ended.
    number: u64,
    /// New connections end at once.
    is_cut: bool,
    is_held: [bool; 2],
    /// Requests with this text are held.
    held_text: Option<String>,
    delay: Duration,
    lose: Option<Lose>,
    streams: Vec<TcpStream>,
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// How often something happened to what travels.
    touched: AtomicUsize,
    /// Requests that were held because of their text.
    waiting: AtomicUsize,
    /// What is held, until it has been sent on.
    stopped: AtomicUsize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::SeqCst);
    }
}

/// A running proxy.
pub struct Wire {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Wire {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        shared.state().target = Some(target);
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (target, is_cut, is_closed) = {
                    let state = serving.state();
                    (state.target, state.is_cut, state.is_closed)
                };
                if is_closed {
                    return;
                }
                if is_cut {
                    serving.touch();
                } else if let Some(Ok(server)) = target.map(TcpStream::connect) {
                    join(&serving, client, server);
                }
            }
        });
        Self { address, shared }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }

    /// Leads elsewhere. Connections to the earlier target end.
    pub fn lead_to(&self, target: SocketAddr) {
        self.change(|state| state.target = Some(target));
        self.reset();
    }

    /// Ends all connections.
    pub fn reset(&self) {
        self.change(|state| {
            state.number += 1;
            for stream in state.streams.drain(..) {
                self.shared.touch();
                // It may have ended already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Ends all connections, and accepts no more.
    pub fn cut(&self) {
        self.change(|state| state.is_cut = true);
        self.reset();
    }

    pub fn hold(&self, way: Way) {
        self.change(|state| state.is_held[way as usize] = true);
    }

    /// Holds requests that contain this text.
    pub fn hold_text(&self, text: &str) {
        self.change(|state| state.held_text = Some(text.to_owned()));
    }

    /// How many requests were held because of their text.
    pub fn held(&self) -> usize {
        self.shared.waiting.load(Ordering::SeqCst)
    }

    /// Whether everything that was held has gone on.
    pub fn is_through(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst) == 0
    }

    pub fn delay(&self, time: Duration) {
        self.change(|state| state.delay = time);
    }

    pub fn lose_next(&self, lose: Lose) {
        self.change(|state| state.lose = Some(lose));
    }

    /// Lets everything through, also what was held.
    pub fn heal(&self) {
        self.change(|state| {
            (state.is_cut, state.is_held, state.held_text) = (false, [false; 2], None);
            (state.delay, state.lose) = (Duration::ZERO, None);
        });
    }

    /// How often something has happened to what travels.
    pub fn touched(&self) -> usize {
        self.shared.touched.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.heal();
        self.change(|state| state.is_closed = true);
        self.reset();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection through a wire.
struct Pair {
    shared: Arc<Shared>,
    number: u64,
    /// The answer to its last request is lost.
    is_lost: Arc<Mutex<bool>>,
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let number = {
        let mut state = shared.state();
        state.streams.retain(|stream| stream.peer_addr().is_ok());
        state.streams.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        state.number
    };
    let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let is_lost = Arc::<Mutex<bool>>::default();
    for (way, from, to) in [(Way::There, client, to_server), (Way::Back, server, to_client)] {
        let pair = Pair { shared: Arc::clone(shared), number, is_lost: Arc::clone(&is_lost) };
        thread::spawn(move || pair.carry(way, from, to));
    }
}

impl Pair {
    fn carry(&self, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read) = from.read(&mut bytes) {
            let mut was_held = false;
            let may_pass = read > 0 && self.may_pass(way, &bytes[..read], &mut was_held);
            let has_passed = may_pass && to.write_all(&bytes[..read]).is_ok();
            self.shared.stopped.fetch_sub(usize::from(was_held), Ordering::SeqCst);
            if !has_passed {
                break;
            }
        }
        // They may have ended already.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Waits until it may. False: it is lost, and the connection ends.
    fn may_pass(&self, way: Way, bytes: &[u8], was_held: &mut bool) -> bool {
        let mut state = self.shared.state();
        match (way, state.lose) {
            (Way::There, Some(lose)) => {
                state.lose = None;
                self.shared.touch();
                if lose == Lose::Request {
                    return false;
                }
                *self.is_lost.lock().unwrap() = true;
            }
            (Way::Back, _) if *self.is_lost.lock().unwrap() => return false,
            _ => {}
        }
        if !state.delay.is_zero() {
            let delay = state.delay;
            self.shared.touch();
            drop(state);
            thread::sleep(delay);
            state = self.shared.state();
        }
        let by_text = |state: &State| {
            let text = state.held_text.as_deref().filter(|_| way == Way::There);
            text.is_some_and(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        };
        let held = |state: &State| state.is_held[way as usize] || by_text(state);
        while held(&state) && !state.is_closed {
            if !*was_held {
                *was_held = true;
                self.shared.touch();
                self.shared.stopped.fetch_add(1, Ordering::SeqCst);
                self.shared.waiting.fetch_add(usize::from(by_text(&state)), Ordering::SeqCst);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // What was held arrives, though its connection may have been given up. What was cut does not.
        state.number == self.number
    }
}
