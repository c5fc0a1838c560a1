//! A wire between a client and a server that can be cut: it forwards bytes, and breaks what it is told to break.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Wire {
    pub address: String,
    accepting: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Wire {
    /// Lays one to an address such as `https://127.0.0.1:1`.
    pub async fn to(address: &str) -> Arc<Self> {
        let to: SocketAddr = address.strip_prefix("https://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let connections = Arc::new(Mutex::new(Vec::new()));
        let into = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let forward = async move {
                    if let Ok(mut to) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                };
                into.lock().unwrap().push(tokio::spawn(forward));
            }
        });
        Arc::new(Self { address, accepting, connections })
    }

    /// Breaks all connections. New ones can be made. Returns how many there had been.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.iter().for_each(JoinHandle::abort);
        connections.len()
    }

    /// Breaks all connections, and refuses new ones once this returns.
    pub async fn remove(&self) {
        self.accepting.abort();
        let socket: SocketAddr = self.address.strip_prefix("https://").unwrap().parse().unwrap();
        // The listener is gone when nobody answers any more.
        while TcpStream::connect(socket).await.is_ok() {
            tokio::task::yield_now().await;
        }
        self.cut();
    }
}
