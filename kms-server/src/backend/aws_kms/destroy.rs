//! The end of a KMS key, and its return: AWS deletes at a date, seven to thirty days from the order.
//!
//! ```text
//! destroy: TagResource retired -> DisableKey -> ScheduleKeyDeletion -> DescribeKey, for the date
//! cancel:  CancelKeyDeletion (AWS leaves the key disabled) -> UntagResource retired
//! ```
//!
//! The tag comes first: policies allow the deletion of a key only if it has it. The key is disabled next, so that it
//! refuses every use from then on even if the order of deletion is not taken: AWS needs up to five minutes until it
//! goes by a new tag. A key that is pending has no tags that could be changed, so that on the way back the tag goes
//! last. Whoever is cut off anywhere is gone on with by the same call.

use super::calls::State;
use super::error::{AwsError, Class};
use super::names::{KeyArn, RETIRED, TAG_CLUSTER, TAG_RETIRED};
use super::session::Session;
use crate::noun::{Uid, UnixMillis};

/// Orders the deletion of a key, and returns its date: the same for every order.
pub(super) async fn destroy(
    session: &Session,
    key: &KeyArn,
    cluster: Uid,
    deletion_days: u32,
) -> Result<UnixMillis, AwsError> {
    let found = session.describe(key.as_str()).await;
    let found = found.map_err(|error| match error.class {
        Class::NotFound => error.and("that it is not there does not say that it was destroyed here"),
        _ => error,
    })?;
    if let State::PendingDeletion(at) = found.state {
        return dated(key, at);
    }
    let tags = session.tags(key).await?;
    if tags.get(TAG_CLUSTER) != Some(&cluster.to_string()) {
        return Err(AwsError::denied(format!(
            "{key} is not tagged {TAG_CLUSTER} = {cluster}: nothing else is ever deleted from here"
        )));
    }
    if !tags.contains_key(TAG_RETIRED) {
        session.tag(key, &[(TAG_RETIRED, RETIRED.to_owned())]).await?;
    }
    if found.state != State::Disabled {
        session.disable(key).await?;
    }
    session.schedule_deletion(key, deletion_days).await.or_else(|error| match error.class {
        // Another was first, or the answer to the first try was lost: what it is in now tells.
        Class::State => Ok(()),
        Class::Denied => Err(error.reclassed(Class::Unavailable).and(
            "the key is disabled and tagged as retired, but AWS may need five minutes until a new tag counts: the same \
             call later goes on; if it never does, the role lacks the right",
        )),
        _ => Err(error),
    })?;
    match session.describe(key.as_str()).await?.state {
        State::PendingDeletion(at) => dated(key, at),
        State::Enabled | State::Disabled | State::NotNow(_) => Err(AwsError::unavailable(format!(
            "the deletion of {key} was ordered, but AWS does not show it yet: the same call again tells its date"
        ))),
    }
}

fn dated(key: &KeyArn, at: Option<UnixMillis>) -> Result<UnixMillis, AwsError> {
    at.ok_or_else(|| {
        AwsError::unavailable(format!("{key} is to be deleted, but AWS gives no date: are there replicas?"))
    })
}

/// Takes an order of deletion back. The key is disabled then.
pub(super) async fn cancel(session: &Session, key: &KeyArn) -> Result<(), AwsError> {
    let found = session.describe(key.as_str()).await?;
    let retired = session.tags(key).await?.contains_key(TAG_RETIRED);
    match found.state {
        State::PendingDeletion(_) => session.cancel_deletion(key).await?,
        // An order, or its cancellation, was cut off in the middle.
        State::Enabled if retired => session.disable(key).await?,
        State::Disabled if retired => {}
        State::Enabled | State::Disabled | State::NotNow(_) => {
            return Err(AwsError::denied(format!("no deletion of {key} is pending")));
        }
    }
    if retired { session.untag(key, &[TAG_RETIRED]).await } else { Ok(()) }
}
