//! The client and the one way in which it calls.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::call::{Attempt, Caller};
use crate::connect::LastBreak;
use crate::guard::guarded;
use crate::lease::{Began, Clock, Leased, SystemClock};
use crate::tls::Credentials;
use crate::{ClientBuilder, Error};

/// A connection to the service. Cheap to clone; share one.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    service: Caller<Arc<Target>>,
    operator: Option<Caller<Arc<Target>>>,
    credentials: Arc<Credentials>,
    /// Of leases.
    clock: Arc<dyn Clock>,
}

/// One listener of the server.
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    pub(crate) last_break: LastBreak,
}

impl Client {
    /// Begins a client for the service at an address such as `https://kms.internal:8443`. It may have several:
    /// [`ClientBuilder::endpoint`].
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    pub(crate) fn new(
        service: Caller<Arc<Target>>,
        operator: Option<Caller<Arc<Target>>>,
        credentials: Arc<Credentials>,
    ) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self { inner: Arc::new(Inner { service, operator, credentials, clock }) }
    }

    /// Returns what is wrong with the certificate files as they are now. While this is not `None`, connections are made
    /// with what the files held before.
    ///
    /// Files are looked at whenever a connection is made, and at most every minute while calls are made.
    pub fn certificate_problem(&self) -> Option<String> {
        self.inner.credentials.problem()
    }

    /// Calls the service.
    pub(crate) async fn call<M: Clone, R, F>(
        &self,
        operation: &'static str,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_at(&self.inner.service, operation, message, send).await
    }

    /// Calls the service for keys in the clear. Their leases count from here, before the first attempt.
    pub(crate) async fn call_leased<M: Clone, R, F>(
        &self,
        operation: &'static str,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<Leased<R>, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let began = Began::now(&self.inner.clock);
        Ok(began.answered(self.call(operation, message, send).await?))
    }

    /// Calls the operator listener.
    pub(crate) async fn call_operator<M: Clone, R, F>(
        &self,
        operation: &'static str,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
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

    async fn call_at<M: Clone, R, F>(
        &self,
        caller: &Caller<Arc<Target>>,
        operation: &'static str,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.look_at_certificates(caller.time.now());
        let attempt = |attempt: Attempt<Arc<Target>>| {
            let Attempt { endpoint, previous, left } = attempt;
            let mut request = Request::new(message.clone());
            // The server is told what is left. It is kept here too: while a connection is being made, or if the server
            // forgets it, nobody else keeps it.
            request.set_timeout(left);
            if previous > 0 {
                request.metadata_mut().insert("grpc-previous-rpc-attempts", MetadataValue::from(previous));
            }
            let answer = guarded(send(endpoint.channel.clone(), request));
            async move {
                match answer.await {
                    Ok(response) => {
                        endpoint.last_break.forget();
                        Ok(response.into_inner())
                    }
                    Err(status) => {
                        let last_break = || endpoint.last_break.found();
                        let error = Error::from_status(operation, &endpoint.address, caller.limit, status, last_break);
                        if error.is_answer() {
                            endpoint.last_break.forget();
                        }
                        Err(error)
                    }
                }
            }
        };
        caller.call(attempt, |target| Error::deadline(operation, &target.address, caller.limit)).await
    }

    /// Looks at the files now and then, beside the call: a broken one is told before it is needed.
    fn look_at_certificates(&self, now: Duration) {
        if self.inner.credentials.is_due(now) {
            let credentials = self.inner.credentials.clone();
            tokio::task::spawn_blocking(move || credentials.refresh());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("addresses", &addresses(&self.inner.service))
            .field("operator_address", &self.inner.operator.as_ref().map(addresses))
            .field("timeout", &self.inner.service.limit)
            .finish_non_exhaustive()
    }
}

fn addresses(caller: &Caller<Arc<Target>>) -> Vec<&str> {
    caller.endpoints.list().iter().map(|target| target.address.as_str()).collect()
}

/// The largest answer that is read: the 4 MiB that a message of the API may have, and room for what frames it.
pub(crate) const ANSWER_BYTES_MAX: usize = (4 << 20) + (64 << 10);

#[cfg(test)]
mod tests {
    use std::future::IntoFuture;

    use super::*;
    use crate::lease::tests::Set;
    use crate::{Context, KeyRef, PageRequest, VersionNumber};

    #[test]
    fn a_client_can_be_cloned_sent_and_shared() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<Client>();
    }

    #[test]
    fn errors_and_what_calls_take_and_give_can_be_sent_and_shared() {
        fn check<T: Send + Sync + std::fmt::Debug + 'static>() {}
        check::<crate::Error>();
        check::<crate::Context>();
        check::<crate::Decrypted>();
        check::<crate::GeneratedDataKey>();
        check::<crate::Key>();
        check::<crate::RequestId>();
        check::<crate::Etag>();
        check::<crate::Lease>();
        check::<crate::CreatedDataKey>();
        check::<crate::GivenIndexKey>();
        check::<crate::ItemError>();
        check::<crate::Grant>();
        check::<crate::PermissionTest>();
        fn sent<T: Send + std::fmt::Debug + 'static>() {}
        sent::<crate::Change<crate::Key>>();
        sent::<crate::Creation<crate::Tenant>>();
        sent::<crate::DataKeyCreation<crate::CreatedDataKey, VersionNumber>>();
        sent::<crate::Destruction<crate::DestroyedDataKey>>();
        sent::<crate::Decision<crate::Grant>>();
        sent::<crate::ClientBuilder>();
    }

    #[tokio::test]
    async fn a_lease_counts_from_before_the_first_attempt_so_that_a_slow_answer_shortens_it() {
        let made = rcgen::generate_simple_self_signed(["kms".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let builder = Client::builder("https://kms:8443").ca_pem(certificate.as_str());
        let mut kms = builder.identity_pem(certificate.as_str(), key).connect_lazy().unwrap();
        let clock = Arc::new(Set::default());
        Arc::get_mut(&mut kms.inner).unwrap().clock = clock.clone();
        let send = |_, request: Request<()>| {
            clock.advance(Duration::from_secs(3));
            let is_first = request.metadata().get("grpc-previous-rpc-attempts").is_none();
            async move { if is_first { Err(Status::unavailable("not now")) } else { Ok(Response::new(())) } }
        };
        let ((), began) = kms.call_leased("GetDataKey", (), send).await.unwrap().into_parts();
        let lease = began.lease(Some(prost_types::Duration { seconds: 10, nanos: 0 })).unwrap();
        assert_eq!((lease.length().as_secs(), lease.remaining().as_secs()), (10, 4));
        clock.advance(Duration::from_secs(4));
        assert!(lease.is_over());
    }

    /// Compiled, not run: every call can be awaited on any thread.
    #[expect(dead_code, reason = "that it compiles is the test")]
    fn every_call_can_be_sent(
        client: &'static Client,
        key: &'static KeyRef,
        context: &'static Context,
        (grant, seen): (&'static crate::GrantRef, &'static crate::ContentHash),
    ) {
        fn check<T: Send>(_: T) {}
        check(client.encrypt(key, b"", context));
        check(client.list_keys(key.tenant(), PageRequest::first()));
        check(client.list_all_keys(key.tenant(), 10, None));
        check(client.disable_key_version(key, VersionNumber::new(1).unwrap()).into_future());
        check(client.create_key(key, crate::KeyPurpose::Encrypt, crate::Labels::new()).validate_only().into_future());
        check(client.encrypt_batch(key, context, [&b""[..]]));
        check(client.re_encrypt_to_batch(key, context, Vec::<crate::ReEncryptItem<'_>>::new(), key, context));
        check(client.create_data_key(key, context).validate_only().into_future());
        check(client.create_data_key_batch(key, context, [crate::NewDataKey::default()]).into_future());
        check(client.get_data_key_batch(key, context, Vec::<crate::DataKeyUid>::new()));
        check(client.destroy_data_key_batch(key, []).into_future());
        check(client.approve_grant(grant, seen).into_future());
        check(client.list_all_grants(None, 10, None));
        check(client.test_permissions(crate::PermissionTest::new(["Decrypt"]).on(key.clone())));
        check(client.status());
        check(Client::builder("").connect());
    }
}
