//! The first words on a link: which protocol both speak, that the one who calls may, and that both mean the same log.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame;
use super::limits::LINK_PROTOCOL;
use super::pipe::{Broken, Reader, send};
use crate::store::log::head::Id;

/// What both ends send first, in every protocol that there will ever be, and the number of the protocol behind it.
const MAGIC: [u8; 8] = *b"lkr-link";
const OPENING: usize = MAGIC.len() + size_of::<u16>();

fn opening(protocol: u16) -> [u8; OPENING] {
    let mut bytes = [0; OPENING];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[MAGIC.len()..].copy_from_slice(&protocol.to_be_bytes());
    bytes
}

/// What only those know who can read the head of the log.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Secret(u128);

impl From<Id> for Secret {
    fn from(run: Id) -> Self {
        Self(run.0)
    }
}

impl Secret {
    /// Compares in constant time.
    fn is(&self, other: &Self) -> bool {
        self.0.to_be_bytes()[..].ct_eq(&other.0.to_be_bytes()[..]).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a server that follows says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    pub release: String,
    /// The store that it follows.
    pub store: String,
    /// The term in which it knows the leader.
    pub term: u64,
    pub secret: Secret,
    /// Random, and new for each start.
    pub server: u128,
}

/// The leader's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Welcome {
    Come { release: String },
    Refused(Why),
}

/// Why a leader refuses a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Why {
    #[error("it does not know the secret in the head of the log, or knows an older one")]
    Secret,
    #[error("it follows another store")]
    Store,
    #[error("it follows the leader of another term")]
    Term,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum NotGreeted {
    #[error("the other end does not speak the protocol of links: is the address right?")]
    Stranger,
    #[error(
        "the other server speaks protocol {0} of links, and this one {LINK_PROTOCOL}: run releases that fit each other"
    )]
    Protocol(u16),
    #[error("the leader refuses this server: {0}")]
    Refused(Why),
    #[error("refused: {0}")]
    Refusing(Why),
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// What a leader expects of those who follow.
#[derive(Debug, Clone)]
pub struct Expected {
    pub secret: Secret,
    pub store: String,
    pub term: u64,
}

impl Expected {
    /// The secret first: nobody else is told anything.
    fn check(&self, hello: &Hello) -> Result<(), Why> {
        if !self.secret.is(&hello.secret) {
            return Err(Why::Secret);
        }
        if self.store != hello.store {
            return Err(Why::Store);
        }
        if self.term == hello.term { Ok(()) } else { Err(Why::Term) }
    }
}

/// Reads the opening of the other end.
async fn read_opening<R: AsyncRead + Unpin>(reader: &mut Reader<R>) -> Result<(), NotGreeted> {
    let bytes = reader.bytes(OPENING).await?;
    match bytes.strip_prefix(&MAGIC[..]).and_then(|rest| rest.first_chunk()) {
        None => Err(NotGreeted::Stranger),
        Some(protocol) => match u16::from_be_bytes(*protocol) {
            LINK_PROTOCOL => Ok(()),
            other => Err(NotGreeted::Protocol(other)),
        },
    }
}

/// Greets the leader. Returns its release.
pub async fn introduce<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    writer: &mut (impl AsyncWrite + Unpin),
    hello: &Hello,
) -> Result<String, NotGreeted> {
    introduce_as(LINK_PROTOCOL, reader, writer, hello).await
}

/// The same for a server that speaks this protocol.
pub(super) async fn introduce_as<R: AsyncRead + Unpin>(
    protocol: u16,
    reader: &mut Reader<R>,
    writer: &mut (impl AsyncWrite + Unpin),
    hello: &Hello,
) -> Result<String, NotGreeted> {
    let mut bytes = opening(protocol).to_vec();
    frame::write(hello, &[], &mut bytes).map_err(Broken::from)?;
    send(writer, &bytes).await?;
    read_opening(reader).await?;
    match postcard::from_bytes(reader.raw().await?) {
        Ok(Welcome::Come { release }) => Ok(release),
        Ok(Welcome::Refused(why)) => Err(NotGreeted::Refused(why)),
        Err(_) => Err(NotGreeted::Stranger),
    }
}

/// Greets a server that follows.
pub async fn receive<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    writer: &mut (impl AsyncWrite + Unpin),
    expected: &Expected,
) -> Result<Hello, NotGreeted> {
    let opened = read_opening(reader).await;
    let mut bytes = opening(LINK_PROTOCOL).to_vec();
    if let Err(error) = opened {
        // So that it can say why.
        let _ = send(writer, &bytes).await;
        return Err(error);
    }
    let hello: Hello = postcard::from_bytes(reader.raw().await?).map_err(|_| NotGreeted::Stranger)?;
    let checked = expected.check(&hello);
    let welcome = match checked {
        Ok(()) => Welcome::Come { release: env!("CARGO_PKG_VERSION").to_owned() },
        Err(why) => Welcome::Refused(why),
    };
    frame::write(&welcome, &[], &mut bytes).map_err(Broken::from)?;
    send(writer, &bytes).await?;
    checked.map(|()| hello).map_err(NotGreeted::Refusing)
}
