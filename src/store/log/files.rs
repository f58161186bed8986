//! Files that the address of a log names: certificates and passwords. They are read for each new connection, so that a
//! renewed one counts.

use std::path::{Path, PathBuf};

use crate::wire::secret::Secret;
use crate::wire::tls::Tls;

/// The largest file, bytes: a bundle of certificates has a few KiB, and a whole system's 200 KiB.
const FILE_BYTES: u64 = 1024 * 1024;

/// How the database is checked, and who the server is to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Authorities to trust instead of the machine's, PEM.
    pub ca: Option<PathBuf>,
    /// The certificate to show and its key, PEM.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The password, without the newlines at the end of the file.
    pub password: Option<PathBuf>,
}

impl Credentials {
    /// The settings of TLS.
    ///
    /// # Errors
    /// Which file cannot be read, and why.
    pub fn tls(&self) -> Result<Tls, String> {
        let ca_cert = self.ca.as_deref().map(read).transpose()?;
        let client = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read(cert)?, Secret::new(read(key)?))),
            (None, None) => None,
            _ => return Err("a client certificate needs its key, and a key its certificate: give both".to_owned()),
        };
        Ok(Tls { ca_cert, client, skip_verification: None })
    }

    /// The password.
    ///
    /// # Errors
    /// The file cannot be read, and why.
    pub fn password(&self) -> Result<Option<Secret>, String> {
        let text = self.password.as_deref().map(read).transpose()?;
        Ok(text.map(|text| Secret::new(text.trim_end_matches(['\r', '\n']))))
    }
}

fn read(file: &Path) -> Result<String, String> {
    let broken = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", file.display());
    let bytes = crate::env::read_file(file, FILE_BYTES).map_err(|error| broken(&error))?;
    let bytes = bytes.ok_or_else(|| broken(&format!("it has more than {FILE_BYTES} bytes")))?;
    String::from_utf8(bytes).map_err(|_| broken(&"it is not valid UTF-8"))
}
