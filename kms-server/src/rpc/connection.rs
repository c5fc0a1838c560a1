//! What is known of a connection: its peer, who it is, and what holds it back.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use super::error::Error;
use super::trust::Admission;
use crate::audit::{Hold, Leaf, Log, LogFailed};
use crate::authn::{Identified, NotIdentified, token};
use crate::keyring::Who;
use crate::noun::Clock;

/// What every request of a connection is told.
#[derive(Clone)]
pub struct ConnectionInfo {
    /// The peer's address.
    pub net: IpAddr,
    /// By what it was let in, and who it is.
    pub(super) admission: Arc<Admission>,
    /// Holds its bytes back until its last record is durable.
    pub hold: Arc<Hold>,
}

impl ConnectionInfo {
    /// WHO: by the certificate of the connection and the token of the request, and by what is trusted at this moment.
    pub(super) async fn identify(&self, headers: &HeaderMap, clock: &dyn Clock) -> Result<Identified, Error> {
        let identified = match token::bearer(headers) {
            Ok(token) => self.admission.identify(token, clock).await,
            Err(invalid) => Err(NotIdentified::Token(invalid)),
        };
        identified.map_err(|why| match why {
            NotIdentified::Certificate(none) => Error::NoIdentity(none),
            NotIdentified::Token(invalid) => {
                metrics::counter!("kms_tokens_refused_total", "reason" => invalid.reason()).increment(1);
                Error::Token(invalid)
            }
        })
    }

    /// Returns how a request on it is signed in the log: by who was identified, or else by whom its certificate names.
    pub(super) fn who(&self, identified: Option<&Identified>, request_id: &Arc<str>) -> Who {
        let principal = identified.map(|identified| &identified.principal).or(self.admission.principal());
        Who {
            sub: principal.map(|principal| principal.as_str().into()),
            shown: identified.and_then(Identified::presented_by),
            net: Some(self.net),
            rid: Some(Arc::clone(request_id)),
            rule: None,
        }
    }

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
