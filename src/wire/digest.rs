//! SHA-256 over a list of fields.

use sha2::{Digest as _, Sha256};

/// A digest of fields. Each field is prefixed with its length, so that different lists never produce the same bytes.
#[derive(Default)]
pub struct Fields(Sha256);

impl Fields {
    /// A text or bytes.
    pub fn text(&mut self, text: impl AsRef<[u8]>) {
        let bytes = text.as_ref();
        self.number(bytes.len());
        self.0.update(bytes);
    }

    /// A number, always 8 bytes long.
    pub fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_be_bytes());
    }

    /// A text that may be missing, which differs from an empty one.
    pub fn optional(&mut self, text: Option<&str>) {
        self.number(usize::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    /// The digest of all fields so far.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
