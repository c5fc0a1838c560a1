//! What is known of a connection: its peer, who it is, and what holds it back.

use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::{Hold, Leaf, Log, LogFailed};
use crate::authn::NoIdentity;
use crate::noun::Principal;

/// What every request of a connection is told.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The peer's address.
    pub net: IpAddr,
    /// The principal of its certificate, or why there is none.
    pub identity: Arc<Result<Principal, NoIdentity>>,
    /// Holds its bytes back until its last record is durable.
    pub hold: Arc<Hold>,
}

impl ConnectionInfo {
    /// Writes a record of something on this connection, whose bytes wait for it from now on. Where
    /// there can be no record there is no reply either: the connection is severed.
    pub(super) fn remember(&self, log: &Log, leaf: Leaf) -> Result<(), LogFailed> {
        match log.append(leaf) {
            Ok(index) => {
                self.hold.until_durable(index);
                Ok(())
            }
            Err(failed) => {
                self.hold.sever();
                Err(failed)
            }
        }
    }
}
