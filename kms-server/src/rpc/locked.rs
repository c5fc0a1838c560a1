//! What a locked node answers: UNAVAILABLE, reason LOCKED, to everybody and everything but health, `Lock` and `Unlock`.
//!
//! It has no key, so that it cannot write records: what it answers is counted, and the record of the unlock has the
//! number. Orders are not carried out here, but by whoever runs the session, one after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use kms_proto::v1::operator_service_server::OperatorService;
use kms_proto::v1::{self, ErrorReason as Reason};
use tokio::sync::{mpsc, oneshot};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::budget::{Budget, Budgeted, Share};
use super::complete::HEALTH;
use super::connection::ConnectionInfo;
use super::error::Error;
use super::pipeline::{code_name, request_id, with_request_id};
use super::serve::Listener;
use super::services::method_of;
use super::status::{status, with_reason};
use crate::authn::Identified;
use crate::backend::watch::LockCause;
use crate::keyring::Who;
use crate::noun::{Clock, Random};
use crate::policy::{self, Action, InForce, Resource};

/// What a locked node works with.
pub struct Locked {
    /// Why it is locked.
    pub cause: Arc<ArcSwap<LockCause>>,
    /// Who may do what.
    pub policy: Arc<InForce>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the ids of requests.
    pub rng: Arc<dyn Random>,
    /// Who carries out orders.
    pub orders: mpsc::Sender<Order>,
    /// The bytes of all messages in flight.
    pub budget: Budget,
    /// What was answered so far.
    pub answered: Answered,
    /// How often a lock was ordered: what unlocks meanwhile looks at it.
    pub lock_orders: AtomicU64,
}

/// What a locked node has answered, for the record of its end.
#[derive(Debug, Default)]
pub struct Answered {
    /// Calls.
    pub calls: AtomicU64,
    /// Those that gave an order and may not.
    pub denied: AtomicU64,
}

/// An order of somebody who may give it.
pub struct Order {
    /// Who.
    pub who: Who,
    /// `Lock` or `Unlock`.
    pub action: Action,
    /// Only whether it could be carried out.
    pub validate_only: bool,
    /// Whether it was. Whoever hung up may not have it.
    pub answer: oneshot::Sender<Result<(), OrderFailed>>,
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OrderFailed {
    /// The backend does not give the key.
    StillLocked,
    /// The marker of an operator's lock could not be written.
    Marker,
    /// Its record cannot wait for a log: too many do.
    TooMany,
}

impl Locked {
    fn refusal(&self, sentence: &str, request_id: &str) -> Status {
        with_reason(Code::Unavailable, Reason::Locked, sentence, request_id)
    }

    fn request_id(&self) -> Arc<str> {
        request_id(&*self.rng, self.clock.now())
    }

    async fn order<M>(
        &self,
        request: tonic::Request<M>,
        action: Action,
        validate_only: impl Fn(&M) -> bool,
    ) -> Result<Arc<str>, Status> {
        let request_id = self.request_id();
        let refused = |error: Error| {
            if self.answered.denied.fetch_add(1, Ordering::Relaxed) < DENIALS_TOLD {
                tracing::warn!(action = action.as_str(), error = %error, "an order to a locked node was refused");
            }
            status(&error, &request_id)
        };
        let (Some(connection), Some(identified)) =
            (request.extensions().get::<ConnectionInfo>(), request.extensions().get::<Identified>())
        else {
            return Err(refused(Error::Denied(None)));
        };
        let (now, net) = (self.clock.now(), connection.net);
        let resource = &Resource::Cluster;
        let decision = self.policy.authorize(&policy::Request {
            principal: &identified.principal,
            strength: identified.strength,
            net,
            now,
            action,
            resource,
            pairs: None,
        });
        if !decision.allowed {
            return Err(refused(Error::Denied(Some(action))));
        }
        let who = Who { rule: Some(decision.rule), ..connection.who(Some(identified), &request_id) };
        let (answer, answered) = oneshot::channel();
        let validate_only = validate_only(request.get_ref());
        if action == Action::Lock && !validate_only {
            self.lock_orders.fetch_add(1, Ordering::AcqRel);
        }
        let order = Order { who, action, validate_only, answer };
        // Another is under way: this one waits for its turn, or the node is not locked any more when it comes.
        let gone = || {
            let sentence = "this node is leaving its lock, or stopping: ask again";
            with_reason(Code::Unavailable, Reason::ShuttingDown, sentence, &request_id)
        };
        self.orders.send(order).await.map_err(|_| gone())?;
        match answered.await {
            Ok(Ok(())) => Ok(request_id),
            Ok(Err(OrderFailed::StillLocked)) => Err(self.refusal(
                "this node stays locked: the master key backend does not give it its key; the server's log has the cause",
                &request_id,
            )),
            Ok(Err(OrderFailed::TooMany)) => Err(status(&Error::Overloaded, &request_id)),
            Ok(Err(OrderFailed::Marker)) => Err(status(&Error::MarkerFailed, &request_id)),
            Err(_) => Err(gone()),
        }
    }
}

/// Answers one request on a listener.
pub(super) async fn answer(
    locked: &Locked,
    listener: Listener,
    routes: Routes,
    connection: ConnectionInfo,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path();
    let is_health = path.starts_with(HEALTH);
    let is_order = listener == Listener::Operator && ORDERS.contains(&path);
    let op = method_of(path).unwrap_or("Unknown");
    // Who, before anything is read for somebody who is nobody.
    let identified = if is_order { Some(connection.identify(request.headers(), &*locked.clock).await) } else { None };
    let response = if let Some(Err(error @ Error::Token(_))) = &identified {
        status(error, &locked.request_id()).into_http()
    } else if is_health || matches!(identified, Some(Ok(_))) {
        let (mut head, body) = request.into_parts();
        head.extensions.insert(connection);
        if let Some(Ok(identified)) = identified {
            head.extensions.insert(identified);
        }
        let request = Request::from_parts(head, Budgeted::new(body, locked.budget.clone(), Share::default()));
        let answering = AssertUnwindSafe(routes.oneshot(request)).catch_unwind();
        match tokio::time::timeout(ORDER_TIME_MAX, answering).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_)) | Err(_) => {
                locked.refusal("the order was not carried out in time: ask again", &locked.request_id()).into_http()
            }
        }
    } else {
        let sentence = format!("this node is locked: {}", locked.cause.load().describe());
        locked.refusal(&sentence, &locked.request_id()).into_http()
    };
    if !is_health {
        locked.answered.calls.fetch_add(1, Ordering::Relaxed);
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        metrics::counter!("kms_requests_total", "method" => op, "code" => code_name(code)).increment(1);
    }
    response
}

/// The operator's service on a locked node. All but orders are answered before they get here.
#[derive(Clone)]
pub(super) struct LockedOperator(pub(super) Arc<Locked>);

#[tonic::async_trait]
impl OperatorService for LockedOperator {
    async fn unlock(
        &self,
        request: tonic::Request<v1::UnlockRequest>,
    ) -> Result<tonic::Response<v1::UnlockResponse>, Status> {
        let ordered = self.0.order(request, Action::Unlock, |request| request.validate_only).await;
        ordered.map(|request_id| with_request_id(v1::UnlockResponse {}, &request_id))
    }

    async fn lock(
        &self,
        request: tonic::Request<v1::LockRequest>,
    ) -> Result<tonic::Response<v1::LockResponse>, Status> {
        let ordered = self.0.order(request, Action::Lock, |request| request.validate_only).await;
        ordered.map(|request_id| with_request_id(v1::LockResponse {}, &request_id))
    }

    async fn get_status(
        &self,
        _: tonic::Request<v1::GetStatusRequest>,
    ) -> Result<tonic::Response<v1::GetStatusResponse>, Status> {
        Err(self.0.refusal("this node is locked", &self.0.request_id()))
    }

    async fn reload(
        &self,
        _: tonic::Request<v1::ReloadRequest>,
    ) -> Result<tonic::Response<v1::ReloadResponse>, Status> {
        Err(self.0.refusal("this node is locked", &self.0.request_id()))
    }

    async fn export_keystore(
        &self,
        _: tonic::Request<v1::ExportKeystoreRequest>,
    ) -> Result<tonic::Response<v1::ExportKeystoreResponse>, Status> {
        Err(self.0.refusal("this node is locked", &self.0.request_id()))
    }
}

/// Longer than a backend takes, and the opening of a store.
const ORDER_TIME_MAX: Duration = Duration::from_secs(120);
/// What an operator orders a node that is locked to do.
pub(super) const ORDERS: [&str; 2] = ["/kms.v1.OperatorService/Lock", "/kms.v1.OperatorService/Unlock"];
/// How many refused orders are told of in the process log: it is no audit log, and nobody may fill it.
const DENIALS_TOLD: u64 = 16;
