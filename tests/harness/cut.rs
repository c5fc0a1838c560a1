//! A way to a daemon that breaks after so many bytes: a caller that hangs up at any point, or whose network does.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Where a way breaks.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// After so many bytes to the daemon.
    Up(usize),
    /// After so many bytes from the daemon.
    Down(usize),
    /// Nowhere: what passes is only counted.
    Never,
}

/// A listener that passes the bytes of one connection on, until they are cut.
pub struct CutWay {
    address: SocketAddr,
    task: JoinHandle<(usize, usize)>,
}

impl CutWay {
    /// Listens on loopback for one connection to a daemon's address. It is cut with a reset, or else properly closed.
    pub async fn to(daemon: &str, cut: Cut, reset: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, daemon) = (listener.local_addr()?, daemon.to_owned());
        let task = tokio::spawn(async move {
            let Ok((caller, _)) = listener.accept().await else { return (0, 0) };
            // Nobody else gets in: a caller that tries again finds nothing.
            drop(listener);
            let Ok(daemon) = TcpStream::connect(daemon).await else { return (0, 0) };
            pass(caller, daemon, cut, reset).await
        });
        Ok(Self { address, task })
    }

    /// Returns where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns how many bytes went to the daemon and from it, once the way has ended.
    pub async fn passed(self) -> Result<(usize, usize)> {
        crate::patiently("the end of a way that is cut", self.task).await?.map_err(Into::into)
    }
}

async fn pass(caller: TcpStream, daemon: TcpStream, cut: Cut, reset: bool) -> (usize, usize) {
    let (mut up, mut down) = (0, 0);
    let (up_max, down_max) = match cut {
        Cut::Up(bytes) => (bytes, usize::MAX),
        Cut::Down(bytes) => (usize::MAX, bytes),
        Cut::Never => (usize::MAX, usize::MAX),
    };
    if reset {
        // What is not sent yet is thrown away, and the other side told so.
        drop((daemon.set_zero_linger(), caller.set_zero_linger()));
    }
    let ((from_caller, to_caller), (from_daemon, to_daemon)) = (caller.into_split(), daemon.into_split());
    let ways = async {
        tokio::select! {
            () = copy(from_caller, to_daemon, up_max, &mut up) => {}
            () = copy(from_daemon, to_caller, down_max, &mut down) => {}
        }
    };
    ways.await;
    (up, down)
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, max: usize, passed: &mut usize) {
    let mut buffer = vec![0; 64 << 10];
    while *passed < max {
        let room = buffer.len().min(max - *passed);
        let Ok(read @ 1..) = from.read(&mut buffer[..room]).await else { return };
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        *passed += read;
    }
}
