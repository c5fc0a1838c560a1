//! What is known of a connection: its peer, who it is, and what holds it back.

use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::Hold;
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
