//! `--listen`: a TCP address, a Unix socket, or a socket that systemd has opened.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};

use super::door::Listener;

/// The mode of a Unix socket: its user and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    pub listener: Listener,
    /// Its address as clients write it, with the scheme.
    pub url: String,
    /// The file of a Unix socket. Removed when this is dropped.
    pub file: Option<SocketFile>,
}

/// Listens on `listen`: `HOST:PORT`, `unix:PATH`, or `systemd` for the socket that a `.socket` unit has opened.
/// `guarded` means that clients must authenticate. Without it, only a loopback address or a Unix socket is accepted.
///
/// # Errors
/// The address is not valid, is in use, or would let others connect without authentication. The message says what to
/// do.
pub fn bind(listen: &str, guarded: bool, tls: bool) -> anyhow::Result<Bound> {
    let scheme = if tls { "https" } else { "http" };
    if let Some(path) = listen.strip_prefix("unix:") {
        ensure!(!tls, "TLS is for network addresses: leave SSL_CERT out, or listen on HOST:PORT instead of {listen}");
        let (listener, file) = bind_unix(Path::new(path))?;
        return Ok(Bound { listener: listener.into(), url: listen.to_owned(), file: Some(file) });
    }
    if listen == "systemd" {
        let listener = from_systemd()?;
        let url = match &listener {
            Listener::Tcp(tcp) => {
                let address = tcp.local_addr().context("cannot read the address of the socket from systemd")?;
                refuse_unguarded(&[address], guarded)?;
                format!("{scheme}://{address}")
            }
            Listener::Unix(unix) => {
                refuse_open_socket(unix, guarded)?;
                ensure!(
                    !tls,
                    "TLS is for network addresses: leave SSL_CERT out, or use a TCP socket in the .socket unit"
                );
                "unix:(from systemd)".to_owned()
            }
        };
        return Ok(Bound { listener, url, file: None });
    }
    let addresses: Vec<SocketAddr> = listen
        .to_socket_addrs()
        .with_context(|| {
            format!("cannot listen on {listen:?}: give an address such as 127.0.0.1:8910 or [::1]:8910, or unix:PATH")
        })?
        .collect();
    refuse_unguarded(&addresses, guarded)?;
    let listener = TcpListener::bind(&addresses[..])
        .with_context(|| format!("cannot listen on {listen}: choose another with --listen"))?;
    let address = listener.local_addr().context("cannot read the address that was bound")?;
    Ok(Bound { listener: listener.into(), url: format!("{scheme}://{address}"), file: None })
}

fn refuse_unguarded(addresses: &[SocketAddr], guarded: bool) -> anyhow::Result<()> {
    let Some(open) = addresses.iter().find(|address| !guarded && !address.ip().to_canonical().is_loopback()) else {
        return Ok(());
    };
    bail!(
        "will not listen on {open} without authentication: set AUTH_USER and AUTH_PASS, listen on 127.0.0.1, \
         or say --no-auth (LOCKER_NO_AUTH=true) if anyone who can connect may take and release locks"
    )
}

/// A Unix socket that every user of this machine can reach is judged like a network address.
fn refuse_open_socket(socket: &UnixListener, guarded: bool) -> anyhow::Result<()> {
    let address = socket.local_addr().context("cannot read the address of the socket from systemd")?;
    let mode =
        address.as_pathname().and_then(|path| std::fs::metadata(path).ok()).map(|found| found.permissions().mode());
    // A socket without a file has no mode, so nobody is kept out.
    if guarded || mode.is_some_and(|mode| mode & 0o002 == 0) {
        return Ok(());
    }
    bail!(
        "refusing to serve the socket from systemd without authentication: every user of this machine can reach it. Set \
         SocketMode=0660 in the .socket unit, set AUTH_USER and AUTH_PASS, or say --no-auth (LOCKER_NO_AUTH=true)"
    )
}

/// The one socket that systemd has passed.
fn from_systemd() -> anyhow::Result<Listener> {
    let mut passed = listenfd::ListenFd::from_env();
    match passed.len() {
        0 => bail!("--listen systemd, but systemd passed no socket: start locker with a .socket unit of the same name"),
        1 => {}
        more => bail!("systemd passed {more} sockets: list only one in the .socket unit"),
    }
    if let Ok(Some(listener)) = passed.take_tcp_listener(0) {
        return Ok(listener.into());
    }
    match passed.take_unix_listener(0) {
        Ok(Some(listener)) => Ok(listener.into()),
        Ok(None) => Err(anyhow!("the socket from systemd is already in use")),
        Err(error) => Err(error).context("the socket from systemd is neither a TCP nor a Unix stream socket"),
    }
}

/// The file of a Unix socket that this process has created.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that another server's socket is never removed.
    is: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|is| is == self.is) {
            // If this fails, the next start replaces the file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Binds a Unix socket. It is created under a temporary name and renamed. So it never appears with the wrong mode, and
/// the stale socket of a server that was killed is replaced in one step.
fn bind_unix(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    ensure!(path.file_name().is_some(), "unix: needs the path of a socket, such as unix:/run/locker/locker.sock");
    refuse_occupied(path)?;
    let mut name = String::from(".l");
    // Writing to a String cannot fail.
    let _ = write!(name, "{:x}", std::process::id());
    let made = path.with_file_name(name);
    let shown = path.display();
    let bound = (|| {
        match std::fs::remove_file(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&made)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        std::fs::rename(&made, path)?;
        Ok((listener, SocketFile { path: path.to_owned(), is: identity(path)? }))
    })();
    bound.with_context(|| format!("cannot listen on unix:{shown}: choose a short path in a writable directory"))
}

/// Refuses a path that is occupied by something that must not be replaced.
fn refuse_occupied(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot check {shown}")),
        Ok(meta) if !meta.file_type().is_socket() => {
            bail!("cannot listen on unix:{shown}: the path exists and is not a socket; choose another path")
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => {
                bail!("cannot listen on unix:{shown}: another server answers there; stop it or choose another path")
            }
            // Nobody listens: a server that was killed has left the socket behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error).with_context(|| {
                format!("cannot listen on unix:{shown}: cannot find out whether a server answers there")
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(listen: &str, guarded: bool, tls: bool) -> String {
        bind(listen, guarded, tls).unwrap_err().to_string()
    }

    #[test]
    fn strangers_need_a_guard() {
        for open in ["0.0.0.0:0", "[::]:0"] {
            assert!(refusal(open, false, false).contains("without authentication"), "{open}");
            assert!(bind(open, true, false).is_ok(), "{open}");
        }
        for closed in ["127.0.0.1:0", "[::1]:0"] {
            assert!(bind(closed, false, false).unwrap().url.starts_with("http://"), "{closed}");
        }
        assert!(bind("127.0.0.1:0", false, true).unwrap().url.starts_with("https://127.0.0.1:"));
        for none in ["", "127.0.0.1", "unix:", "unix:/", "systemd"] {
            bind(none, true, false).unwrap_err();
        }
    }

    #[test]
    fn a_unix_socket_is_private_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listen = format!("unix:{}", path.display());
        let bound = bind(&listen, false, false).unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, SOCKET_MODE);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(refusal(&listen, false, false).contains("another server answers there"));
        assert!(refusal(&listen, false, true).contains("TLS is for network addresses"));
        drop(bound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_everybody_can_reach_needs_authentication() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locker.sock");
        let socket = UnixListener::bind(&path).unwrap();
        for (mode, guarded, served) in [(0o660, false, true), (0o666, false, false), (0o666, true, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(refuse_open_socket(&socket, guarded).is_ok(), served, "{mode:o} {guarded}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(refuse_open_socket(&socket, false).is_err(), "nobody can say who reaches it");
    }

    #[test]
    fn what_a_killed_server_left_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listen = format!("unix:{}", path.display());
        drop(UnixListener::bind(&path).unwrap());
        let first = bind(&listen, false, false).unwrap();
        // A socket of another server in its place must stay.
        std::fs::remove_file(&path).unwrap();
        let others = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(others);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "data").unwrap();
        assert!(refusal(&listen, false, false).contains("not a socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }
}
