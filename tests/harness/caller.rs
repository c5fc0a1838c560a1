//! A caller: connections of its own to a daemon, with some identity, that speaks the API as it is
//! on the wire.

use std::fmt;

use anyhow::{Context, Result};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{Identity, Ledger, Listener, PATIENCE, Reply, Rpc};

/// A success.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// What came back.
    pub message: T,
    /// What the daemon calls the request, which its record has as `rid`.
    pub request_id: Option<String>,
}

/// A refusal: all that a caller can see of it.
#[derive(Clone, Eq, PartialEq)]
pub struct Refused {
    /// The gRPC code.
    pub code: Code,
    /// The reason from `google.rpc.ErrorInfo`. Nothing when the daemon did not speak: the
    /// connection failed, or it broke off.
    pub reason: Option<String>,
    /// The sentence for people.
    pub message: String,
}

impl Refused {
    /// Returns whether the daemon gave this reason.
    pub fn is(&self, reason: &str) -> bool {
        self.reason.as_deref() == Some(reason)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.as_deref().unwrap_or("no reason");
        write!(f, "{:?} {reason} {:?}", self.code, self.message)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Refused {}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().filter(|info| info.domain == kms_proto::ERROR_DOMAIN);
        Self { code: status.code(), reason: reason.map(|info| info.reason), message: status.message().to_owned() }
    }
}

/// Speaks to a daemon with one identity.
#[derive(Clone)]
pub struct Caller {
    services: Channel,
    operator: Channel,
    ledger: Ledger,
    authorization: Vec<MetadataValue<Ascii>>,
}

impl Caller {
    /// Makes a caller of any daemon: its two addresses, who issued its certificate, and who calls.
    pub fn new(services: &str, operator: &str, ca: &str, identity: Option<&Identity>, ledger: &Ledger) -> Result<Self> {
        Ok(Self {
            services: channel(services, ca, identity)?,
            operator: channel(operator, ca, identity)?,
            ledger: ledger.clone(),
            authorization: Vec::new(),
        })
    }

    /// Returns a caller on the same connections that sends these `authorization` headers, such as `Bearer` and a token.
    pub fn authorized(&self, values: &[&str]) -> Result<Self> {
        let authorization = values.iter().map(|value| value.parse().context("a header")).collect::<Result<_>>()?;
        Ok(Self { authorization, ..self.clone() })
    }

    /// Returns a caller on the same connections that sends a token.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        self.authorized(&[&format!("Bearer {token}")])
    }

    /// Sends a request and enters the reply into the site's ledger.
    pub async fn call<R: Rpc>(&self, request: R) -> Result<Answer<R::Response>, Refused> {
        let result = request.send_with(self.channel(R::LISTENER), &self.authorization).await;
        let request_id = match &result {
            Ok(response) => request_id(response),
            Err(status) => status.get_details_error_info().and_then(|mut info| info.metadata.remove("request_id")),
        };
        let details = result.as_ref().err().map(|status| status.details().to_vec()).unwrap_or_default();
        let answer = match result {
            Ok(response) => Ok(Answer { message: response.into_inner(), request_id: request_id.clone() }),
            Err(status) => Err(Refused::from(status)),
        };
        self.ledger.enter(Reply { op: R::NAME, request_id, refused: answer.as_ref().err().cloned(), details });
        answer
    }

    /// Sends a request and returns only what came back.
    pub async fn ask<R: Rpc>(&self, request: R) -> Result<R::Response, Refused> {
        Ok(self.call(request).await?.message)
    }

    /// Returns the connection to one of the listeners.
    pub fn channel(&self, listener: Listener) -> Channel {
        match listener {
            Listener::Services => self.services.clone(),
            Listener::Operator => self.operator.clone(),
        }
    }
}

fn request_id<T>(response: &Response<T>) -> Option<String> {
    response.metadata().get("x-request-id")?.to_str().ok().map(str::to_owned)
}

fn channel(address: &str, ca: &str, identity: Option<&Identity>) -> Result<Channel> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    if let Some(Identity { certificate, key }) = identity {
        tls = tls.identity(tonic::transport::Identity::from_pem(certificate, key));
    }
    let endpoint =
        Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls).context("client certificates")?;
    // A reply that does not come is a failure, not a wait for ever.
    Ok(endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).tcp_nodelay(true).connect_lazy())
}
