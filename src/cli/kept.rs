//! Tokens that `locker login` keeps in the settings of this user: one file, a map from servers to tokens, which nobody
//! else may read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::output::CliError;
use crate::env::{Env, read_file, whole};
use crate::wire::errors::exit;
use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;

/// Largest file that is read, bytes: tokens of a hundred servers.
const FILE_BYTES: u64 = 1024 * 1024;

/// The token that is kept for exactly this server.
pub(super) fn token(server: &ServerUrl, env: &Env<'_>) -> Result<Option<Secret>, CliError> {
    let Some(file) = file(env) else { return Ok(None) };
    let mut tokens = read(&file)?;
    Ok(tokens.remove(&server.to_string()).map(Secret::new))
}

/// Keeps this token for the server, or none. Returns the file.
pub(super) fn keep(server: &ServerUrl, token: Option<&Secret>, env: &Env<'_>) -> Result<PathBuf, CliError> {
    let Some(file) = file(env) else {
        return Err(CliError::usage("there is no place to keep a token: set HOME or XDG_CONFIG_HOME"));
    };
    let mut tokens = read(&file)?;
    match token {
        Some(token) => tokens.insert(server.to_string(), token.expose().to_owned()),
        None => tokens.remove(&server.to_string()),
    };
    write(&file, &tokens).map_err(|error| failed(&format!("cannot write {}: {error}", file.display())))?;
    Ok(file)
}

fn file(env: &Env<'_>) -> Option<PathBuf> {
    let own = || env.var("HOME").map(|home| Path::new(home).join(".config"));
    // As its specification says, what is not absolute does not count.
    let config = env.var("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(config.or_else(own)?.join("locker/tokens.json"))
}

fn failed(text: &str) -> CliError {
    CliError::Failed(exit::FAILED, text.to_owned())
}

fn read(file: &Path) -> Result<BTreeMap<String, String>, CliError> {
    let shown = file.display();
    let mode = match fs::metadata(file) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        found => found.map_err(|error| failed(&format!("cannot read {shown}: {error}")))?.permissions().mode() & 0o777,
    };
    if mode & 0o077 != 0 {
        let what = format!("{shown} has tokens, and others may read or change it (mode {mode:04o})");
        return Err(failed(&format!("{what}: run `chmod 600 {shown}`, and revoke the tokens if somebody did")));
    }
    let text = whole(read_file(file, FILE_BYTES), FILE_BYTES);
    let text = text.map_err(|error| failed(&format!("cannot read {shown}: {error}")))?;
    // The text of the error could repeat a part of a token.
    serde_json::from_slice(&text)
        .map_err(|_| failed(&format!("{shown} is not a map of servers to tokens: remove it, and log in again")))
}

/// Replaces the file in one step, so that it is never half written.
fn write(file: &Path, tokens: &BTreeMap<String, String>) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // A temporary file has mode 0600 from its beginning.
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    new.write_all(&serde_json::to_vec_pretty(tokens)?)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}
