//! Whether a connection stays open after an answer.

/// What becomes of the connection after the answer, and what the answer says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// HTTP/1.1: it stays, and nothing need be said.
    Open,
    /// HTTP/1.0 with `Connection: keep-alive`: it stays, and that is said.
    OpenSaid,
    Close,
}

impl Keep {
    /// What an answer says of it, and the end of the answer's head.
    pub const fn header_and_end(self) -> &'static str {
        match self {
            Self::Open => "\r\n",
            Self::OpenSaid => "connection: keep-alive\r\n\r\n",
            Self::Close => "connection: close\r\n\r\n",
        }
    }
}
