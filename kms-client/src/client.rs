//! The client and the one way in which it calls.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::guard::guarded;
use crate::{ClientBuilder, Error};

/// A connection to the service. Cheap to clone; share one.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    service: Target,
    operator: Option<Target>,
    timeout: Duration,
}

/// One listener of the server.
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

impl Client {
    /// Begins a client for the service at an address such as `https://kms.internal:8443`.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    pub(crate) fn new(service: Target, operator: Option<Target>, timeout: Duration) -> Self {
        Self { inner: Arc::new(Inner { service, operator, timeout }) }
    }

    /// Calls the service.
    pub(crate) async fn call<M, R, F>(
        &self,
        operation: &'static str,
        message: M,
        send: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_at(&self.inner.service, operation, message, send).await
    }

    /// Calls the operator listener.
    pub(crate) async fn call_operator<M, R, F>(
        &self,
        operation: &'static str,
        message: M,
        send: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let Some(operator) = &self.inner.operator else {
            return Err(Error::config("no operator address is set")
                .with_hint("the status is asked for at the operator listener, which has an address of its own"));
        };
        self.call_at(operator, operation, message, send).await
    }

    async fn call_at<M, R, F>(
        &self,
        target: &Target,
        operation: &'static str,
        message: M,
        send: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let limit = self.inner.timeout;
        let mut request = Request::new(message);
        request.set_timeout(limit);
        // Kept here too: while a connection is being made, or if the server forgets the limit, nobody else keeps it.
        match tokio::time::timeout(limit, guarded(send(target.channel.clone(), request))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(operation, &target.address, limit, status)),
            Err(_) => Err(Error::deadline(operation, &target.address, limit)),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.inner.service.address)
            .field("operator_address", &self.inner.operator.as_ref().map(|target| &target.address))
            .field("timeout", &self.inner.timeout)
            .finish_non_exhaustive()
    }
}

/// The largest answer that is read: the 4 MiB that a message of the API may have, and room for what frames it.
pub(crate) const ANSWER_BYTES_MAX: usize = (4 << 20) + (64 << 10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, KeyRef, PageRequest, VersionNumber};

    #[test]
    fn a_client_can_be_cloned_sent_and_shared() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<Client>();
    }

    /// Compiled, not run: every call can be awaited on any thread.
    #[expect(dead_code, reason = "that it compiles is the test")]
    fn every_call_can_be_sent(client: &'static Client, key: &'static KeyRef, context: &'static Context) {
        fn check<T: Send>(_: T) {}
        check(client.encrypt(key, b"", context));
        check(client.list_keys(key.tenant(), PageRequest::first()));
        check(client.list_all_keys(key.tenant(), 10, None));
        check(client.disable_key_version(key, VersionNumber::new(1).unwrap()));
        check(client.status());
        check(Client::builder("").connect());
    }
}
