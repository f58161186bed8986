//! A server of latches like the original one: it does not hold requests, returns no revision, and stores only the
//! fields of the original record.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::proxy::read_message;

/// A proxy in front of a real server that hides its newer features.
pub struct Original {
    pub url: String,
    waited: Arc<AtomicBool>,
}

impl Original {
    pub fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/lock", listener.local_addr().unwrap());
        let (server, waited) = (server.trim_start_matches("http://").to_owned(), Arc::<AtomicBool>::default());
        let seen = Arc::clone(&waited);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, seen) = (server.clone(), Arc::clone(&seen));
                // A client that disconnects is not a failure.
                std::thread::spawn(move || drop(connection(client, &server, &seen)));
            }
        });
        Self { url, waited }
    }

    /// Whether a client has asked it to hold a request.
    pub fn was_asked_to_wait(&self) -> bool {
        self.waited.load(Ordering::SeqCst)
    }
}

fn connection(mut client: TcpStream, server: &str, waited: &AtomicBool) -> io::Result<()> {
    while let Some(request) = read_message(&mut client)? {
        let text = String::from_utf8_lossy(&request).into_owned();
        let line = text.lines().next().unwrap_or_default();
        waited.fetch_or(line.contains("wait="), Ordering::SeqCst);
        let body = if line.starts_with("POST") { text.split_once("\r\n\r\n").unwrap().1 } else { "" };
        let ask = format!("{line}\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(ask.as_bytes())?;
        let answer = read_message(&mut stream)?.unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        match &mut body {
            Value::Array(latches) => latches.iter_mut().for_each(hide),
            one => hide(one),
        }
        let (status, body) = (head.lines().next().unwrap(), body.to_string());
        write!(client, "{status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

fn hide(latch: &mut Value) {
    if let Some(members) = latch.as_object_mut() {
        members.retain(|name, _| !["node", "workflow_uid", "outputs", "on_release"].contains(&name.as_str()));
    }
}
