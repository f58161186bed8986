//! One link as two streams of frames: how they are read, and how they are written so that nothing waits behind a large body.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use super::frame::{self, Frame, LENGTH, Malformed, Number};
use super::limits::{LINK_ALIVE_MS, LINK_FRAME_BYTES, LINK_PIECE_BYTES, LINK_SILENCE_MS, LINK_WRITE_MS};
use crate::server::door::Share;

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the other server has closed it")]
    Closed,
    #[error("the other server has been silent for {} s", LINK_SILENCE_MS / 1_000)]
    Silent,
    #[error("the other server takes nothing")]
    Stuck,
    #[error("the other server has sent {0}")]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// Reads frames.
pub struct Reader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// How many of these bytes have been returned.
    used: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), used: 0 }
    }

    /// Exactly these many bytes, which are no frame. Safe to cancel.
    pub async fn bytes(&mut self, count: usize) -> Result<&[u8], Broken> {
        while self.buffer.len() - self.used < count {
            self.fill().await?;
        }
        self.used += count;
        Ok(&self.buffer[self.used - count..self.used])
    }

    /// The bytes of the next frame. Safe to cancel.
    pub async fn raw(&mut self) -> Result<&[u8], Broken> {
        let length = loop {
            match frame::length(&self.buffer[self.used..])? {
                Some(length) if self.buffer.len() - self.used >= length => break length,
                _ => self.fill().await?,
            }
        };
        self.used += length;
        Ok(&self.buffer[self.used - length + LENGTH..self.used])
    }

    /// The next frame, and the bytes that belong to it. Safe to cancel.
    pub async fn next<F: Frame>(&mut self) -> Result<(F, &[u8]), Broken> {
        Ok(frame::read(self.raw().await?)?)
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(LINK_PIECE_BYTES);
        let silence = Duration::from_millis(LINK_SILENCE_MS);
        match timeout(silence, self.stream.read_buf(&mut self.buffer)).await.map_err(|_| Broken::Silent)?? {
            0 => Err(Broken::Closed),
            _ => Ok(()),
        }
    }
}

/// A frame that is to be sent, as [`frame::write`] makes it.
pub struct Out {
    pub frame: Vec<u8>,
    /// The body that it announces.
    pub body: Option<Body>,
}

/// A body on its way.
pub struct Body {
    number: Number,
    bytes: Arc<Vec<u8>>,
    sent: usize,
    _share: Option<Share>,
}

impl Body {
    /// The body of this request or answer, with its share of what is counted. `None` if it is empty.
    pub fn new(number: Number, bytes: Arc<Vec<u8>>, share: Option<Share>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self { number, bytes, sent: 0, _share: share })
    }

    /// Writes the next piece. True if that was the last one.
    fn write_piece<F: Frame>(&mut self, bytes: &mut Vec<u8>) -> Result<bool, Malformed> {
        let end = self.bytes.len().min(self.sent + LINK_PIECE_BYTES);
        frame::write(&F::piece(self.number), &self.bytes[self.sent..end], bytes)?;
        self.sent = end;
        Ok(end == self.bytes.len())
    }
}

/// Writes what `orders` turn into, until nobody can order any more. After each batch of frames one piece of one body goes
/// out, from each body in turn. When there is nothing to say it says that it is there.
pub async fn write<F: Frame, O>(
    mut stream: impl AsyncWrite + Unpin,
    mut orders: UnboundedReceiver<O>,
    mut out: impl FnMut(O) -> Option<Out>,
) -> Result<(), Broken> {
    let mut bodies: VecDeque<Body> = VecDeque::new();
    let mut buffer = Vec::with_capacity(2 * LINK_PIECE_BYTES);
    let mut is_over = false;
    loop {
        let mut add = |order, buffer: &mut Vec<u8>, bodies: &mut VecDeque<Body>| {
            if let Some(Out { frame, body }) = out(order) {
                buffer.extend_from_slice(&frame);
                bodies.extend(body);
            }
        };
        while buffer.len() < LINK_PIECE_BYTES {
            match orders.try_recv() {
                Ok(order) => add(order, &mut buffer, &mut bodies),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    is_over = true;
                    break;
                }
            }
        }
        if let Some(mut body) = bodies.pop_front()
            && !body.write_piece::<F>(&mut buffer)?
        {
            bodies.push_back(body);
        }
        if buffer.is_empty() {
            if is_over {
                return Ok(stream.shutdown().await?);
            }
            match timeout(Duration::from_millis(LINK_ALIVE_MS), orders.recv()).await {
                Ok(Some(order)) => add(order, &mut buffer, &mut bodies),
                Ok(None) => is_over = true,
                Err(_) => frame::write(&F::ALIVE, &[], &mut buffer)?,
            }
            continue;
        }
        send(&mut stream, &buffer).await?;
        buffer.clear();
        buffer.shrink_to(LINK_FRAME_BYTES);
    }
}

/// Sends all of these bytes.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Broken> {
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    Ok(timeout(Duration::from_millis(LINK_WRITE_MS), sending).await.map_err(|_| Broken::Stuck)??)
}
