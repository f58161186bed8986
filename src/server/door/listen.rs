//! Where clients connect (a TCP address or a Unix socket), and what is known of them before they send anything.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::address::{Address, USER};
use crate::server::door::limits;
use crate::server::http::Identity;

/// A bound socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<std::os::unix::net::UnixListener> for Listener {
    fn from(listener: std::os::unix::net::UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Listener {
    /// Whether it is a network address that only this machine can reach.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback()),
            Self::Unix(_) => false,
        }
    }

    /// Turns it into a listener that can be awaited. Must be called within the runtime.
    pub(super) fn into_async(self) -> io::Result<AsyncListener> {
        // std asks for a shorter queue. Calling listen again on a listening socket only changes the length of that
        // queue.
        Ok(match self {
            Self::Tcp(listener) => {
                let socket = SockRef::from(&listener);
                // Accepted connections inherit these. Without them the system would keep megabytes for each client that
                // takes no answers, in memory that counts for the container and that no budget of ours knows.
                socket.set_send_buffer_size(limits::DOOR_SOCKET_BYTES)?;
                socket.set_recv_buffer_size(limits::DOOR_SOCKET_BYTES)?;
                socket.listen(limits::DOOR_ACCEPT_QUEUE)?;
                listener.set_nonblocking(true)?;
                AsyncListener::Tcp(TcpListener::from_std(listener)?)
            }
            Self::Unix(listener) => {
                SockRef::from(&listener).listen(limits::DOOR_ACCEPT_QUEUE)?;
                listener.set_nonblocking(true)?;
                AsyncListener::Unix(UnixListener::from_std(listener)?)
            }
        })
    }
}

pub(super) enum AsyncListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Detaches the socket from the runtime that accepted it.
    pub fn leave(self) -> io::Result<Moving> {
        Ok(match self {
            Self::Tcp(stream) => Moving::Tcp(stream.into_std()?),
            Self::Unix(stream) => Moving::Unix(stream.into_std()?),
        })
    }
}

/// A connection on its way to the thread that will serve it.
pub(super) enum Moving {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Moving {
    /// Attaches the socket to the current runtime.
    pub fn arrive(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// The client at the other end of a connection.
pub(super) struct Client {
    /// For logs.
    pub peer: String,
    pub address: Address,
    /// The identity in the client's TLS certificate.
    pub identity: Option<Identity>,
}

impl AsyncListener {
    /// Accepts the next connection. Safe to cancel.
    pub async fn accept(&self) -> io::Result<(Socket, Client)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                set_options(&stream);
                let client = Client { peer: peer.to_string(), address: peer.ip().into(), identity: None };
                Ok((Socket::Tcp(stream), client))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // If the system does not know the user, all such clients share one account.
                let user = stream.peer_cred().map_or(u32::MAX, |credentials| credentials.uid());
                let client = Client { peer: format!("{USER}{user}"), address: Address::User(user), identity: None };
                Ok((Socket::Unix(stream), client))
            }
        }
    }
}

/// Sends answers without delay, and detects clients that have vanished without closing the connection.
fn set_options(stream: &TcpStream) {
    // The connection also works without these options. If setting them fails, it has most likely ended already.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(limits::DOOR_KEEPALIVE_SECS))
        .with_interval(Duration::from_secs(limits::DOOR_KEEPALIVE_INTERVAL_SECS));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
