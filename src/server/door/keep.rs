//! Whether a connection stays open after an answer.

/// Whether the connection stays open after the answer, and what the answer says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// HTTP/1.1: it stays open, which is the default.
    Open,
    /// HTTP/1.0 with `Connection: keep-alive`: it stays open, and the answer must say so.
    OpenSaid,
    Close,
}

impl Keep {
    /// The header that an answer needs for this, and the end of its head.
    pub const fn header_and_end(self) -> &'static str {
        match self {
            Self::Open => "\r\n",
            Self::OpenSaid => "connection: keep-alive\r\n\r\n",
            Self::Close => "connection: close\r\n\r\n",
        }
    }
}
