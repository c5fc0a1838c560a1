//! Answers one HTTP request: lets in what is gRPC from somebody, and completes what tonic answers by
//! itself: unknown methods, messages that are too large or none, requests whose message never ends.
//! Each gets a reason, and its record.
//!
//! What the pipeline answered has its reason already and passes as it is. Health, and reflection
//! where it is on, are the services without records.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use kms_proto::v1::ErrorReason as Reason;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::Api;
use super::budget::{Budgeted, Keeping, Share};
use super::connection::ConnectionInfo;
use super::error::Error;
use super::locked::ORDERS;
use super::pipeline::{code_name, request_id};
use super::serve::Reflection;
use super::services::method_of;
use super::status::{code_and_reason, status, why, with_reason};
use crate::audit::{Leaf, Outcome};
use crate::authn::Identified;
use crate::keyring;

/// Answers one request.
pub(super) async fn answer(
    api: &Api,
    routes: Routes,
    reflection: Reflection,
    connection: ConnectionInfo,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let is_health = path.starts_with(HEALTH);
    let is_unrecorded = is_health || reflection.offers(&path);
    // It is on its way into the lock: nothing new is begun, and what is answered has no record any more.
    if api.lock.is_asked() && !is_health {
        let request_id = request_id(api.keyring.rng(), api.clock.now());
        let op = method_of(&path).unwrap_or("Unknown");
        metrics::counter!("kms_requests_total", "method" => op, "code" => code_name(Code::Unavailable)).increment(1);
        // Whoever orders something asks again, and finds the locked node, which carries it out.
        let error = if ORDERS.contains(&&*path) { keyring::Error::ShuttingDown.into() } else { Error::Locking };
        return status(&error, &request_id).into_http();
    }
    // Who, before anything is read for somebody who is nobody. Health is told to whoever is let in.
    let identified = if is_health {
        None
    } else {
        match connection.identify(request.headers(), &*api.clock).await {
            Ok(identified) => Some(identified),
            Err(error) => return refuse(api, &connection, &path, &error),
        }
    };
    // A browser sends other things to other sites without asking; this it must ask for.
    if request.method() != Method::POST || !is_grpc(request.headers()) {
        let found = (Code::InvalidArgument, Reason::MessageInvalid, "this is no gRPC: POST application/grpc");
        return complete(api, &connection, identified.as_ref(), &path, found);
    }
    let is_compressed = request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
    let share = Share::default();
    let (mut head, body) = request.into_parts();
    head.extensions.insert(connection.clone());
    head.extensions.insert(share.clone());
    if let Some(identified) = identified.clone() {
        head.extensions.insert(identified);
    }
    let request = Request::from_parts(head, Budgeted::new(body, api.budget.clone(), share.clone()));
    // The pipeline has its own limit; this one is for messages that never end.
    let limit = api.request_time_max + api.request_time_max;
    let answering = AssertUnwindSafe(routes.oneshot(request)).catch_unwind();
    let found = match tokio::time::timeout(limit, answering).await {
        Ok(Ok(Ok(response))) => match own_status(&response) {
            Some(_) if is_unrecorded => return response,
            Some(Code::Unimplemented) if is_compressed => (
                Code::InvalidArgument,
                Reason::MessageInvalid,
                "messages are not compressed here: use grpc-encoding identity",
            ),
            Some(code) => meaning(code),
            None => return response.map(|body| Body::new(Keeping::new(body, share))),
        },
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(_panic)) => {
            // The panic itself was reported where it happened.
            metrics::counter!("kms_panics_total").increment(1);
            tracing::error!("a request ended in a panic");
            (Code::Internal, Reason::Internal, "internal error; the server's log has the cause")
        }
        Err(_) => (Code::DeadlineExceeded, Reason::Deadline, "the message did not end in time"),
    };
    complete(api, &connection, identified.as_ref(), &path, found)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// Returns the status of a reply that tonic made: it has a code and no details.
fn own_status(response: &Response<Body>) -> Option<Code> {
    let code = response.headers().get(Status::GRPC_STATUS).map(HeaderValue::as_bytes).map(Code::from_bytes)?;
    (code != Code::Ok && !response.headers().contains_key(Status::GRPC_STATUS_DETAILS)).then_some(code)
}

fn meaning(code: Code) -> (Code, Reason, &'static str) {
    match code {
        Code::Unimplemented => (Code::Unimplemented, Reason::MethodUnknown, "this service has no such method"),
        Code::OutOfRange | Code::ResourceExhausted => {
            (Code::ResourceExhausted, Reason::MessageTooLarge, "the message is larger than this service takes")
        }
        Code::Internal | Code::InvalidArgument => {
            (Code::InvalidArgument, Reason::MessageInvalid, "the message cannot be decoded")
        }
        Code::Unavailable => (Code::Unavailable, Reason::Overloaded, "too much is in flight"),
        Code::Cancelled | Code::DeadlineExceeded => {
            (Code::DeadlineExceeded, Reason::Deadline, "it took longer than asked for")
        }
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::DataLoss
        | Code::Unauthenticated => (Code::Internal, Reason::Internal, "internal error; the server's log has the cause"),
    }
}

fn refuse(api: &Api, connection: &ConnectionInfo, path: &str, error: &Error) -> Response<Body> {
    let (code, reason) = code_and_reason(error);
    let ending = Ending { reason: reason.as_reason(), why: why(error), outcome: Outcome::Denied, code };
    let request_id = record(api, connection, None, path, ending);
    status(error, &request_id).into_http()
}

fn complete(
    api: &Api,
    connection: &ConnectionInfo,
    identified: Option<&Identified>,
    path: &str,
    (code, reason, sentence): (Code, Reason, &'static str),
) -> Response<Body> {
    let why = reason.as_reason().to_owned();
    let ending = Ending { reason: reason.as_reason(), why, outcome: Outcome::Failed, code };
    let request_id = record(api, connection, identified, path, ending);
    with_reason(code, reason, sentence, &request_id).into_http()
}

/// How a request ended that did not get as far as the pipeline.
struct Ending {
    reason: &'static str,
    /// What the record says: the reason, with the cause.
    why: String,
    outcome: Outcome,
    code: Code,
}

/// Writes the record of a request that did not get as far as the pipeline; returns its id.
fn record(
    api: &Api,
    connection: &ConnectionInfo,
    identified: Option<&Identified>,
    path: &str,
    Ending { reason, why, outcome, code }: Ending,
) -> std::sync::Arc<str> {
    // Only names of ours go into the log: a path is whatever somebody sent.
    let op = method_of(path).unwrap_or("Unknown");
    let request_id = request_id(api.keyring.rng(), api.clock.now());
    let who = connection.who(identified, &request_id);
    metrics::counter!("kms_requests_total", "method" => op, "code" => code_name(code)).increment(1);
    if !api.noise.is_told_singly(&who, reason, api.clock.now()) {
        return request_id;
    }
    let leaf = who.sign(Leaf { why: Some(why.into()), ..Leaf::of(op) }).ended(outcome);
    if let Err(failed) = connection.remember(api.keyring.log(), leaf) {
        tracing::debug!(%failed, "a connection was severed: its reply could not be recorded");
    }
    request_id
}

/// Where the service of health is.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";
