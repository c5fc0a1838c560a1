//! The one road of every RPC: who -> what -> may -> do -> remember -> answer.
//!
//! **Invariants:**
//! - no key is looked up before policy allowed it: only `perform` has the keyring;
//! - between the first use of a key and handing the record to the log there is no await: what
//!   `perform` returns goes straight to `remember`, and the gate is left after that. An operation
//!   on many items does them by parts, and hands over the record of each part ([`Call::remember`])
//!   before it awaits anything;
//! - a reply without a record is impossible: the connection is held until the record is durable,
//!   and severed where there can be none.

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::Api;
use super::budget::Share;
use super::connection::ConnectionInfo;
use super::error::Error;
use super::status;
use crate::audit::leaf::{REPEATED, VALIDATED};
use crate::audit::{Leaf, Outcome};
use crate::authn::{Identified, NoIdentity};
use crate::keyring::{self, How, InUse, Terms, Who};
use crate::noun::{Principal, Random, Strength, UnixMillis};
use crate::policy::{self, Action, Pairs, Reach, Resource};

/// One RPC: what it takes, what it asks for, what it does.
pub(super) trait Operation: Sized + Send {
    /// The message it comes as.
    type Wire: Send;
    /// The message it is answered with.
    type Reply: Send;
    /// The RPC's name, in the log.
    const NAME: &'static str;
    /// Whether it is for the people who run the daemon: no load keeps them out.
    const FOR_OPERATORS: bool = false;

    /// WHAT: reads the message. Everything in it is checked here, before anything is looked up.
    fn parse(wire: Self::Wire) -> Result<Self, Error>;

    /// Says which permissions it needs; all of them.
    fn asks(&self) -> Vec<(Action, Resource)>;

    /// Returns the pairs of each encryption context that it carries: policy may want to see some.
    fn contexts(&self) -> Contexts<'_> {
        [None, None]
    }

    /// Says in its record what it is about, by the names that were given.
    fn about(&self) -> Leaf {
        about(self.asks().first().map(|(_, resource)| resource))
    }

    /// Returns how many operations it is, by which rates are counted: the items of a batch.
    fn operations(&self) -> usize {
        1
    }

    /// DO.
    fn perform(self, call: &Call<'_>) -> impl Future<Output = Result<Done<Self::Reply>, Failed>> + Send;
}

/// The pairs of the encryption contexts of a request: none, one, or two where something moves from one to another.
pub(super) type Contexts<'a> = [Option<&'a Pairs>; 2];

/// What an operation did.
pub(super) struct Done<R> {
    pub(super) reply: R,
    pub(super) record: Record,
}

/// How what was done is remembered.
pub(super) enum Record {
    /// By leaves, mostly one, that say this beside what every leaf does. Keys in use are let go of
    /// when they have their indices.
    Leaves(Vec<Leaf>, Option<InUse>),
    /// By an outcome that is durable already.
    Written(u64),
    /// By leaves that were handed over while it was done, one for each part.
    Remembered,
}

/// Why an operation did nothing, and what is known of what it touched.
pub(super) struct Failed {
    error: Error,
    leaf: Box<Leaf>,
}

impl Failed {
    /// Failed with an error that the caller may not know. The record knows it.
    pub(super) fn hidden(told: Error, known: &Error, leaf: Leaf) -> Self {
        Self::new(told, Leaf { why: Some(status::why(known).into()), ..leaf })
    }

    pub(super) fn new(error: impl Into<Error>, leaf: Leaf) -> Self {
        Self { error: error.into(), leaf: Box::new(leaf) }
    }
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(error, Leaf::default())
    }
}

impl<R> Done<R> {
    /// Done without the use of a key.
    pub(super) fn read(reply: R) -> Self {
        Self { reply, record: Record::Leaves(vec![Leaf::default()], None) }
    }

    /// Done with keys that are still in use.
    pub(super) fn used(reply: R, leaf: Leaf, in_use: InUse) -> Self {
        Self::used_for(reply, vec![leaf], in_use)
    }

    /// Done with keys that are still in use, with a leaf for each key that was told of.
    pub(super) fn used_for(reply: R, leaves: Vec<Leaf>, in_use: InUse) -> Self {
        Self { reply, record: Record::Leaves(leaves, Some(in_use)) }
    }

    /// Done by parts, each of which was remembered.
    pub(super) fn remembered(reply: R) -> Self {
        Self { reply, record: Record::Remembered }
    }

    /// Done by a change.
    pub(super) fn changed(reply: R, changed: &keyring::Changed) -> Self {
        match of_change(&changed.how) {
            Ok(index) => Self::written(reply, index),
            Err(leaf) => Self::said(reply, *leaf),
        }
    }

    /// Done without the use of a key, with a leaf that says how.
    pub(super) fn said(reply: R, leaf: Leaf) -> Self {
        Self { reply, record: Record::Leaves(vec![leaf], None) }
    }

    /// Done in words only: it was checked.
    pub(super) fn rehearsed(reply: R) -> Self {
        Self::said(reply, validated())
    }

    /// Done by what has an outcome that is durable already.
    pub(super) fn written(reply: R, index: u64) -> Self {
        Self { reply, record: Record::Written(index) }
    }
}

/// Returns the index of the record of a change that was made; one that was not made now gets one that
/// says so.
pub(super) fn of_change(how: &How) -> Result<u64, Box<Leaf>> {
    match how {
        How::Made(index) => Ok(*index),
        How::Before(intent) => {
            Err(Box::new(Leaf { ref_: Some(*intent), why: Some(REPEATED.into()), ..Leaf::default() }))
        }
        How::Rehearsed { .. } => Err(Box::new(validated())),
    }
}

/// What the record says of a change that was checked and not made.
fn validated() -> Leaf {
    Leaf { why: Some(VALIDATED.into()), ..Leaf::default() }
}

/// A request on its way.
pub(super) struct Call<'a> {
    pub(super) api: &'a Api,
    pub(super) principal: &'a Principal,
    pub(super) strength: Strength,
    pub(super) who: Who,
    pub(super) now: UnixMillis,
    connection: &'a ConnectionInfo,
    op: &'static str,
    about: &'a Leaf,
    share: &'a Share,
}

impl Call<'_> {
    pub(super) fn keyring(&self) -> &keyring::Keyring {
        &self.api.keyring
    }

    /// Hands the record of a part of what was done to the log. The reply waits for all of them. Keys that
    /// the part used are to be let go of after this, and nothing may be awaited in between.
    pub(super) fn remember(&self, leaf: Leaf, outcome: Outcome) -> Result<(), Error> {
        append(self.api, self.connection, &self.who, self.op, joined(self.about, leaf).ended(outcome))
    }

    /// Lets the reply wait for a record that was written on the way.
    pub(super) fn written(&self, index: u64) {
        self.connection.hold.until_durable(index);
    }

    /// Returns what keeps the request's bytes of the budget, for work that may outlast it.
    pub(super) fn held(&self) -> Box<dyn Send + Sync> {
        Box::new(self.share.clone())
    }

    /// Tells whether the caller may do something else as well. It is not asked for, so that a no is no
    /// failure and has no record.
    pub(super) fn may(&self, action: Action, resource: &Resource) -> bool {
        self.who.net.is_some_and(|net| {
            let asked = policy::Request {
                pairs: None,
                principal: self.principal,
                strength: self.strength,
                net,
                now: self.now,
                action,
                resource,
            };
            self.api.policy.authorize(&asked).allowed
        })
    }

    /// Takes the bytes of a large answer from the budget; they are given back when it was sent.
    pub(super) fn reserve(&self, bytes: usize) -> Result<(), Error> {
        if self.share.take(&self.api.budget, bytes) { Ok(()) } else { Err(Error::Overloaded) }
    }

    /// Makes a change on behalf of the caller.
    pub(super) async fn change(&self, change: keyring::Change, terms: Terms) -> Result<keyring::Changed, Error> {
        Ok(self.api.keyring.change(change, terms, self.who.clone()).await?)
    }
}

/// Takes a request along the road.
pub(super) async fn run<O: Operation>(api: &Api, request: Request<O::Wire>) -> Result<Response<O::Reply>, Status> {
    let began = tokio::time::Instant::now();
    let request_id = request_id(api.keyring.rng(), api.clock.now());
    let connection = request.extensions().get::<ConnectionInfo>().cloned();
    let Some(connection) = connection else {
        // Only a server put together wrongly has connections without information.
        return Err(status::status(&Error::NoIdentity(NoIdentity::NoSan), &request_id));
    };
    let Some(identified) = request.extensions().get::<Identified>().cloned() else {
        return Err(status::status(&Error::NoIdentity(NoIdentity::NoSan), &request_id));
    };
    let mut who = connection.who(Some(&identified), &request_id);
    // Counted from when its message is complete: one that sends nothing takes nobody's place.
    let at_work = api.limits.enter();
    if at_work.is_none() && !O::FOR_OPERATORS {
        metrics::counter!("kms_requests_shed_total").increment(1);
        api.noise.count(&who, status::reason(&Error::Overloaded), api.clock.now());
        let answer = Err(Error::Overloaded);
        observe::<O>(&who, &answer, began.elapsed());
        return answer.map_err(|error| status::status(&error, &request_id)).map(Response::new);
    }
    let mut leaf = Leaf::default();
    let time_max = asked_time(&request).map_or(api.request_time_max, |asked| asked.min(api.request_time_max));
    let share = request.extensions().get::<Share>().cloned().unwrap_or_default();
    let asked = Asked { connection: &connection, identified: &identified, share: &share, time_max };
    let outcome = go::<O>(api, &asked, request.into_inner(), &mut who, &mut leaf).await;
    // Nothing may be awaited from here on.
    let answer = remember::<O>(api, &connection, &who, leaf, outcome);
    observe::<O>(&who, &answer, began.elapsed());
    answer.map_err(|error| status::status(&error, &request_id)).map(|reply| with_request_id(reply, &request_id))
}

/// How a request came.
struct Asked<'a> {
    connection: &'a ConnectionInfo,
    identified: &'a Identified,
    share: &'a Share,
    time_max: Duration,
}

async fn go<O: Operation>(
    api: &Api,
    asked: &Asked<'_>,
    wire: O::Wire,
    who: &mut Who,
    leaf: &mut Leaf,
) -> Result<Done<O::Reply>, Failed> {
    // who
    let Identified { principal, strength, .. } = asked.identified;
    let strength = *strength;
    // what
    if !O::FOR_OPERATORS {
        api.limits.of_principal(principal, 1)?;
    }
    let operation = O::parse(wire)?;
    *leaf = operation.about();
    // may
    let operations = operation.operations();
    if operations > 1 {
        api.limits.of_principal(principal, operations - 1)?;
    }
    let now = api.clock.now();
    let asks = operation.asks();
    authorize(api, (principal, strength), who, now, (&asks, &operation))?;
    // Whoever uses up a tenant's rate does not keep its administrators from stopping him.
    if let Some((action, resource)) = asks.first()
        && action.uses_keys()
        && let Some(tenant) = resource.tenant()
    {
        api.limits.for_tenant(tenant, operations)?;
    }
    // do
    let Asked { connection, share, time_max, .. } = *asked;
    let call = Call { api, principal, strength, who: who.clone(), now, connection, op: O::NAME, about: leaf, share };
    tokio::time::timeout(time_max, operation.perform(&call)).await.unwrap_or_else(|_| Err(Error::Deadline.into()))
}

/// Returns the time that the caller gives the request: `grpc-timeout`, up to eight digits and a unit.
fn asked_time<W>(request: &Request<W>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Asks policy for all that is needed, and notes the rule that decided, or the rules if it took several. Whatever an
/// operation asks for must be allowed with each of its encryption contexts.
fn authorize<O: Operation>(
    api: &Api,
    (principal, strength): (&Principal, Strength),
    who: &mut Who,
    now: UnixMillis,
    (asks, operation): (&[(Action, Resource)], &O),
) -> Result<(), Failed> {
    let net = who.net.ok_or(Error::Denied(None))?;
    let policy = api.policy.hold();
    let [first, second] = if policy.sees_pairs() { operation.contexts() } else { [None, None] };
    let mut rules: Vec<Arc<str>> = Vec::with_capacity(asks.len());
    for (action, resource) in asks {
        for pairs in [Some(first), second.map(Some)].into_iter().flatten() {
            let action = *action;
            let asked = policy::Request { principal, strength, net, now, action, resource, pairs };
            let decision = policy.authorize(&asked);
            if decision.errors {
                tracing::error!(action = action.as_str(), "a policy could not be evaluated, and denies");
            }
            if !decision.allowed {
                who.rule = Some(decision.rule);
                return Err(Failed::new(Error::Denied(Some(action)), about(Some(resource))));
            }
            if let Reach::Exceeded { tell } =
                api.policy.reach(&decision, principal, resource, || api.clock.since_boot())
            {
                fan_out_exceeded(&decision.rule, principal, tell);
                who.rule = Some(decision.rule);
                return Err(Failed::new(Error::FanOut { alarm: tell }, about(Some(resource))));
            }
            if !rules.contains(&decision.rule) {
                rules.push(decision.rule);
            }
        }
    }
    who.rule = match &rules[..] {
        [one] => Some(Arc::clone(one)),
        // An operation that asks for nothing is allowed nothing.
        [] => return Err(Error::Denied(None).into()),
        several => Some(several.join(",").into()),
    };
    Ok(())
}

fn fan_out_exceeded(rule: &Arc<str>, principal: &Principal, tell: bool) {
    metrics::counter!("kms_fan_out_refused_total", "rule" => Arc::clone(rule)).increment(1);
    if tell {
        let principal = principal.as_str();
        tracing::warn!(rule = &**rule, principal, "a caller wants more tenants than its fan-out limit: is it stolen?");
    }
}

fn remember<O: Operation>(
    api: &Api,
    connection: &ConnectionInfo,
    who: &Who,
    about: Leaf,
    outcome: Result<Done<O::Reply>, Failed>,
) -> Result<O::Reply, Error> {
    let (leaves, in_use, answer) = match outcome {
        Ok(Done { reply, record: Record::Written(index) }) => {
            connection.hold.until_durable(index);
            return Ok(reply);
        }
        Ok(Done { reply, record: Record::Remembered }) => return Ok(reply),
        Ok(Done { reply, record: Record::Leaves(leaves, in_use) }) => {
            let leaves = leaves.into_iter().map(|leaf| joined(&about, leaf).ended(Outcome::Ok)).collect();
            (leaves, in_use, Ok(reply))
        }
        Err(Failed { error, leaf }) => {
            let denied = matches!(error, Error::Denied(_) | Error::FanOut { .. } | Error::RateLimited { .. });
            // Whoever is refused before policy let him do anything cannot fill the log. An alarm is always told.
            let is_noise = denied || who.rule.is_none();
            let is_alarm = matches!(error, Error::FanOut { alarm: true });
            if is_noise && !is_alarm && !api.noise.is_told_singly(who, status::reason(&error), api.clock.now()) {
                return Err(error);
            }
            let end = if denied { Outcome::Denied } else { Outcome::Failed };
            let leaf = joined(&about, *leaf);
            let why = leaf.why.clone().unwrap_or_else(|| status::why(&error).into());
            (vec![Leaf { why: Some(why), ..leaf }.ended(end)], None, Err(error))
        }
    };
    for leaf in leaves {
        append(api, connection, who, O::NAME, leaf)?;
    }
    // The gate is left once every leaf has its index.
    drop(in_use);
    answer
}

fn append(api: &Api, connection: &ConnectionInfo, who: &Who, op: &'static str, leaf: Leaf) -> Result<(), Error> {
    let leaf = who.sign(Leaf { op: Some(op.into()), ..leaf });
    Ok(connection.remember(api.keyring.log(), leaf).map_err(keyring::Error::Log)?)
}

/// Says by name what a resource is.
pub(super) fn about(resource: Option<&Resource>) -> Leaf {
    let mut leaf = Leaf::default();
    match resource {
        None | Some(Resource::Cluster) => {}
        Some(Resource::Tenant(tenant)) => leaf.ten = Some(tenant.to_string().into()),
        Some(Resource::Key(tenant, key)) => {
            leaf.ten = Some(tenant.to_string().into());
            leaf.kn = Some(key.to_string().into());
        }
        Some(Resource::Index(tenant, index)) => {
            leaf.ten = Some(tenant.to_string().into());
            leaf.kn = Some(index.to_string().into());
        }
    }
    leaf
}

/// What was known before, and what came to be known.
fn joined(about: &Leaf, more: Leaf) -> Leaf {
    let (ten, kn) = (more.ten.or_else(|| about.ten.clone()), more.kn.or_else(|| about.kn.clone()));
    let did = more.did.or_else(|| about.did.clone());
    Leaf { ten, kn, kv: more.kv.or(about.kv), did, ..more }
}

pub(super) fn with_request_id<R>(reply: R, request_id: &str) -> Response<R> {
    let mut response = Response::new(reply);
    if let Ok(value) = MetadataValue::try_from(request_id) {
        response.metadata_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}

fn observe<O: Operation>(who: &Who, answer: &Result<O::Reply, Error>, took: Duration) {
    let code = answer.as_ref().err().map_or(tonic::Code::Ok, |error| status::code_and_reason(error).0);
    metrics::counter!("kms_requests_total", "method" => O::NAME, "code" => code_name(code)).increment(1);
    metrics::histogram!("kms_request_duration_seconds", "method" => O::NAME).record(took.as_secs_f64());
    let request = who.rid.as_deref().unwrap_or_default();
    match answer {
        Err(
            error @ Error::Keyring(keyring::Error::Damaged(_) | keyring::Error::Store(_) | keyring::Error::Backend(_)),
        ) => {
            tracing::error!(
                method = O::NAME,
                request,
                error = error as &(dyn std::error::Error + 'static),
                "request failed"
            );
        }
        Err(error) => tracing::debug!(method = O::NAME, request, reason = status::why(error), "request refused"),
        Ok(_) => tracing::debug!(method = O::NAME, request, micros = took.as_micros(), "request done"),
    }
}

/// Returns a gRPC code's name, as dashboards have it.
pub(super) const fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Makes a request id: a ULID, 48 bits of milliseconds and 80 random bits in Crockford's base 32.
pub(super) fn request_id(rng: &dyn Random, now: UnixMillis) -> Arc<str> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes[6..]);
    bytes[..6].copy_from_slice(&now.to_be_bytes()[2..]);
    let number = u128::from_be_bytes(bytes);
    (0..26).rev().map(|digit| char::from(CROCKFORD[(number >> (digit * 5)) as usize & 31])).collect::<String>().into()
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The header of a reply that carries its request id.
pub(super) const REQUEST_ID_HEADER: &str = "x-request-id";

#[cfg(test)]
mod tests {
    use super::*;

    struct Ones;
    impl Random for Ones {
        fn fill(&self, out: &mut [u8]) {
            out.fill(0xff);
        }
    }

    #[test]
    fn a_request_id_is_a_ulid() {
        // The time part of a ULID at 2016-07-30T23:54:10.259Z, from its specification.
        assert_eq!(&*request_id(&Ones, 1_469_922_850_259), "01ARZ3NDEKZZZZZZZZZZZZZZZZ");
    }
}
