//! Accepts connections, within limits, and hands each to the core with the fewest.
//!
//! Survives every error of `accept`: a process without descriptors waits a moment and goes on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::cores::{Accepted, Cores};
use super::serve::Endpoint;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// In all.
    pub total: usize,
    /// From one address.
    pub per_peer: usize,
}

/// Counts connections, of all listeners together.
#[derive(Debug)]
pub struct Places {
    limits: ConnectionLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    peer: IpAddr,
}

impl Places {
    /// Returns all places, free.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = network_of(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.total >= self.limits.total || of_peer >= self.limits.per_peer {
            return None;
        }
        taken.total += 1;
        taken.by_peer.insert(peer, of_peer + 1);
        Some(Place { places: Arc::clone(self), peer })
    }
}

/// Whoever has one address of an IPv6 network has all of its /64.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        let left = taken.by_peer.get(&self.peer).map_or(0, |count| count - 1);
        if left == 0 {
            taken.by_peer.remove(&self.peer);
        } else {
            taken.by_peer.insert(self.peer, left);
        }
    }
}

/// Accepts until `stop`.
pub async fn accept(
    listener: TcpListener,
    endpoint: Endpoint,
    places: Arc<Places>,
    cores: Arc<Cores>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => hand_over(stream, peer, &endpoint, &places, &cores),
            Err(error) => {
                // Mostly no descriptors left: busy waiting would not make any.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

fn hand_over(stream: TcpStream, peer: SocketAddr, endpoint: &Endpoint, places: &Arc<Places>, cores: &Cores) {
    let Some(place) = places.take(peer.ip()) else {
        metrics::counter!("kms_connections_refused_total", "reason" => "limit").increment(1);
        tracing::debug!(%peer, "too many connections");
        return;
    };
    // Without it a reply waits for the peer's delayed acknowledgement.
    let ready = stream.set_nodelay(true).and_then(|()| stream.into_std());
    match ready {
        Ok(stream) => cores.hand_over(Accepted { stream, peer, endpoint: endpoint.clone(), place }),
        Err(error) => tracing::debug!(%error, %peer, "an accepted connection broke"),
    }
}

const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_per_peer_and_come_back() {
        let places = Places::new(ConnectionLimits { total: 3, per_peer: 2 });
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert!(places.take(a).is_none(), "two of one peer are enough");
        let _third = places.take(b).unwrap();
        assert!(places.take(b).is_none(), "three are enough");
        drop(first);
        assert!(places.take(b).is_some());
        let places = Places::new(ConnectionLimits { total: 3, per_peer: 1 });
        let _first = places.take("2001:db8::1".parse().unwrap()).unwrap();
        assert!(places.take("2001:db8::2".parse().unwrap()).is_none(), "the same /64");
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_some());
    }
}
