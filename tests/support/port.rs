//! The port of a pretend server: a thread for each connection, and connections that are refused for a while.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::wait::eventually;

/// It stops accepting when it is dropped.
pub struct Port {
    address: SocketAddr,
    serve: Arc<dyn Fn(TcpStream) + Send + Sync>,
    closing: Arc<AtomicBool>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Port {
    /// Serves each connection of `listener`.
    pub fn open(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let port = Self { address, serve: Arc::new(serve), closing: Arc::default(), accepting: Mutex::default() };
        port.accept(listener);
        port
    }

    /// Refuses connections from now on.
    pub fn refuses(&self) {
        self.close();
        if let Some(thread) = self.accepting.lock().unwrap().take() {
            thread.join().unwrap();
        }
    }

    /// Accepts connections again, if it refuses them.
    pub fn accepts(&self) {
        if self.closing.swap(false, Ordering::SeqCst) {
            let listener = eventually("the port is free again", || TcpListener::bind(self.address).ok());
            self.accept(listener);
        }
    }

    fn accept(&self, listener: TcpListener) {
        let (serve, closing) = (Arc::clone(&self.serve), Arc::clone(&self.closing));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        *self.accepting.lock().unwrap() = Some(thread);
    }

    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // The thread is blocked in `accept`: wake it, so that it drops the listener.
        drop(TcpStream::connect(self.address));
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.close();
    }
}
