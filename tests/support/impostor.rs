//! A server of another program.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use super::proxy;

/// A server that answers every request with the same text, and records the requests.
pub struct Impostor {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Impostor {
    pub fn says(status: &'static str, body: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&requests);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let Ok(Some(request)) = proxy::read_message(&mut stream) else { continue };
                heard.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // The client may have disconnected.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        Self { url, requests }
    }

    /// All requests so far, as text.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
