//! Speaks gRPC on one accepted connection, with every limit that HTTP/2 has.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kms_proto::v1::access_service_server::AccessServiceServer;
use kms_proto::v1::crypto_service_server::CryptoServiceServer;
use kms_proto::v1::key_service_server::KeyServiceServer;
use kms_proto::v1::operator_service_server::OperatorServiceServer;
use kms_proto::v1::tenant_service_server::TenantServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use super::complete::answer;
use super::connection::ConnectionInfo;
use super::locked::{self, Locked, LockedOperator};
use super::services::Services;
use super::trust::{NotAnymore, Seen};
use super::{Api, MESSAGE_BYTES_MAX};
use crate::noun::Clock;

/// Which services a listener offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    /// For applications and administrators.
    Services,
    /// For the people who run the daemon.
    Operator,
}

/// Whether tools can ask a listener for its services.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reflection {
    /// The methods of reflection are unknown.
    Off,
    /// Each listener tells of its own services.
    #[cfg(feature = "dev")]
    On,
}

impl Reflection {
    /// Tells whether a path is of reflection, and that is on.
    #[cfg_attr(not(feature = "dev"), expect(unused_variables, reason = "without `dev` it is always off"))]
    pub(super) fn offers(self, path: &str) -> bool {
        match self {
            Self::Off => false,
            #[cfg(feature = "dev")]
            Self::On => path.starts_with(super::reflection::PATHS),
        }
    }
}

/// Who answers.
#[derive(Clone)]
enum By {
    Api(Arc<Api>),
    Locked(Arc<Locked>, Listener),
}

/// The services of one listener, ready to be served on any connection.
#[derive(Clone)]
pub struct Endpoint {
    by: By,
    routes: Routes,
    reflection: Reflection,
}

impl Endpoint {
    /// Puts the services of a listener together. All are reported as not serving until
    /// [`Health::set_serving`].
    pub async fn new(listener: Listener, api: Arc<Api>, reflection: Reflection) -> (Self, Health) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let services = Services(Arc::clone(&api));
        let mut names = vec![""];
        let mut routes = Routes::new(health);
        match listener {
            Listener::Services => {
                names.extend([name_of::<CryptoServiceServer<Services>>(), name_of::<TenantServiceServer<Services>>()]);
                names.extend([name_of::<KeyServiceServer<Services>>(), name_of::<AccessServiceServer<Services>>()]);
                routes = routes
                    .add_service(
                        CryptoServiceServer::new(services.clone())
                            .max_decoding_message_size(MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(MESSAGE_BYTES_MAX),
                    )
                    .add_service(
                        TenantServiceServer::new(services.clone())
                            .max_decoding_message_size(MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(MESSAGE_BYTES_MAX),
                    )
                    .add_service(
                        KeyServiceServer::new(services.clone())
                            .max_decoding_message_size(MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(MESSAGE_BYTES_MAX),
                    )
                    .add_service(
                        AccessServiceServer::new(services)
                            .max_decoding_message_size(MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(MESSAGE_BYTES_MAX),
                    );
            }
            Listener::Operator => {
                names.push(name_of::<OperatorServiceServer<Services>>());
                routes = routes.add_service(
                    OperatorServiceServer::new(services)
                        .max_decoding_message_size(MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(MESSAGE_BYTES_MAX),
                );
            }
        }
        match reflection {
            Reflection::Off => {}
            #[cfg(feature = "dev")]
            Reflection::On => {
                routes = super::reflection::add(routes, names.get(1..).unwrap_or_default())
                    .expect("the descriptors that this build ships are well-formed");
            }
        }
        let health = Health { reporter, names };
        health.set_serving(false).await;
        (Self { by: By::Api(api), routes: routes.prepare(), reflection }, health)
    }

    /// As [`Endpoint::new`], of a node that is locked. Nothing of it ever serves.
    pub async fn locked(listener: Listener, locked: Arc<Locked>) -> (Self, Health) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(health);
        let mut names = vec![""];
        match listener {
            Listener::Services => {
                names.extend([name_of::<CryptoServiceServer<Services>>(), name_of::<TenantServiceServer<Services>>()]);
                names.extend([name_of::<KeyServiceServer<Services>>(), name_of::<AccessServiceServer<Services>>()]);
            }
            Listener::Operator => {
                names.push(name_of::<OperatorServiceServer<Services>>());
                let operator = LockedOperator(Arc::clone(&locked));
                routes = routes
                    .add_service(OperatorServiceServer::new(operator).max_decoding_message_size(MESSAGE_BYTES_MAX));
            }
        }
        let health = Health { reporter, names };
        health.set_serving(false).await;
        (Self { by: By::Locked(locked, listener), routes: routes.prepare(), reflection: Reflection::Off }, health)
    }

    /// Serves a connection to its end: until the peer leaves, would not be let in any more, it grows
    /// too old, or `drain` is asked for; requests under way are finished in the last two cases.
    pub(super) async fn serve<S>(&self, stream: S, info: ConnectionInfo, clock: &dyn Clock, ends: &Ends)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (by, routes, reflection, peer) = (self.by.clone(), self.routes.clone(), self.reflection, info.net);
        let (admission, mut seen) = (Arc::clone(&info.admission), Seen::default());
        let service = service_fn(move |request| {
            let (by, routes, info) = (by.clone(), routes.clone(), info.clone());
            async move {
                Ok::<_, Infallible>(match by {
                    By::Api(api) => answer(&api, routes, reflection, info, request).await,
                    By::Locked(locked, listener) => locked::answer(&locked, listener, routes, info, request).await,
                })
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(256)
            // A token of the longest that is taken, and all else: one that is too long is told so by its own reason.
            .max_header_list_size(16 << 10)
            .max_frame_size(16 << 10)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(1 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(1024)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // A certificate that has expired since must not live for ever.
        let mut grown_old = std::pin::pin!(tokio::time::sleep(CONNECTION_AGE_MAX));
        loop {
            tokio::select! {
                ended = connection.as_mut() => return report(ended),
                () = ends.drain.cancelled() => break,
                () = grown_old.as_mut() => break,
                () = admission.replaced(&mut seen) => if let Err(why) = admission.ask(clock.now()) {
                    // At once: who is revoked gets no more answers, also not to what is under way.
                    return sever(peer, why);
                },
            }
        }
        connection.as_mut().graceful_shutdown();
        let mut drained = std::pin::pin!(tokio::time::sleep(DRAIN_TIME_MAX));
        loop {
            tokio::select! {
                ended = connection.as_mut() => return report(ended),
                () = ends.cut.cancelled() => return,
                () = drained.as_mut() => return,
                () = admission.replaced(&mut seen) => if let Err(why) = admission.ask(clock.now()) {
                    return sever(peer, why);
                },
            }
        }
    }
}

/// What ends connections.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// No new requests; those under way are finished.
    pub drain: CancellationToken,
    /// Nothing is finished any more.
    pub cut: CancellationToken,
}

fn sever(peer: IpAddr, why: NotAnymore) {
    metrics::counter!("kms_connections_severed_total").increment(1);
    tracing::info!(%peer, %why, "a connection was severed");
}

fn report(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        // A peer that breaks off, or a hold that failed: the log has said that itself.
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// What gRPC health says of a listener's services.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Health {
    /// Ends every watch of a service's health, which else would outlast all requests.
    pub async fn end_watches(&mut self) {
        for name in &self.names {
            self.reporter.clear_service_status(name).await;
        }
    }

    /// Says of all services whether they serve.
    pub async fn set_serving(&self, serving: bool) {
        let status =
            if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        for name in &self.names {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}

fn name_of<S: NamedService>() -> &'static str {
    S::NAME
}

const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long requests under way may take to end.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);
