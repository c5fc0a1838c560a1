//! Completes what tonic answers by itself: unknown methods, messages that are too large or none,
//! requests whose message never ends. Each gets a reason, and its record.
//!
//! What the pipeline answered has its reason already and passes as it is. Health is the one
//! service without records.

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use kms_proto::v1::ErrorReason as Reason;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::Api;
use super::connection::ConnectionInfo;
use super::pipeline::{code_name, request_id};
use super::status::with_reason;
use crate::audit::{Leaf, Outcome};
use crate::keyring::Who;
use crate::policy::Action;

/// Answers one request.
pub(super) async fn answer(
    api: &Api,
    routes: Routes,
    connection: ConnectionInfo,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(connection.clone());
    // The pipeline has its own limit; this one is for messages that never end.
    let limit = api.request_time_max + api.request_time_max;
    let found = match tokio::time::timeout(limit, routes.oneshot(request)).await {
        Ok(Ok(response)) => match own_status(&response) {
            Some(code) if !path.starts_with(HEALTH) => meaning(code),
            Some(_) | None => return response,
        },
        Ok(Err(never)) => match never {},
        Err(_) => (Code::DeadlineExceeded, Reason::Deadline, "the message did not end in time"),
    };
    complete(api, &connection, &path, found)
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
            (Code::ResourceExhausted, Reason::MessageTooLarge, "the message has more than 4 MiB")
        }
        Code::Internal | Code::InvalidArgument => {
            (Code::InvalidArgument, Reason::MessageInvalid, "the message cannot be decoded")
        }
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
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => (Code::Internal, Reason::Internal, "internal error; the server's log has the cause"),
    }
}

fn complete(
    api: &Api,
    connection: &ConnectionInfo,
    path: &str,
    (code, reason, sentence): (Code, Reason, &'static str),
) -> Response<Body> {
    // Only names of ours go into the log: a path is whatever somebody sent.
    let method = path.rsplit('/').next().and_then(|name| name.parse::<Action>().ok());
    let op = method.map_or("Unknown", Action::as_str);
    let request_id = request_id(api.keyring.rng(), api.clock.now());
    let sub = connection.identity.as_ref().as_ref().ok().map(|principal| principal.as_str().into());
    let who = Who { sub, net: Some(connection.net), rid: Some(request_id.clone()), rule: None };
    let leaf = who.sign(Leaf { why: Some(reason.as_reason().into()), ..Leaf::of(op) }).ended(Outcome::Failed);
    match api.keyring.log().append(leaf) {
        Ok(index) => connection.hold.until_durable(index),
        Err(_) => connection.hold.sever(),
    }
    metrics::counter!("kms_requests_total", "method" => op, "code" => code_name(code)).increment(1);
    with_reason(code, reason, sentence, &request_id).into_http()
}

const HEALTH: &str = "/grpc.health.v1.Health/";
