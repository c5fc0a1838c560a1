//! The KMS key of an epoch: found by its alias, or adopted, or made.
//!
//! ```text
//! 1. DescribeKey of the alias of cluster and epoch. There: its tags must be ours; it is the one.
//! 2. CreateKey with our tags; or, where a key is named in the settings, TagResource of that.
//! 3. CreateAlias. Taken: another was first. Its key is the one, and ours is retired.
//! ```
//!
//! The alias decides, since AWS gives it to one key alone. Who dies between 2 and 3 leaves a key that has our tags and
//! no alias. Nothing was ever wrapped by it, and the next call makes another; to look for the first one would need the
//! right to list all keys of the account, for a dollar a month. deploy/aws/README.md says how people find it.

use std::collections::HashMap;
use std::time::Duration;

use super::super::AwsKmsSettings;
use super::calls::State;
use super::error::{AwsError, Class};
use super::names::{self, KeyArn, RETIRED, TAG_CLUSTER, TAG_EPOCH, TAG_RETIRED};
use super::session::Session;
use crate::noun::{EpochNumber, Uid};

/// The key of an epoch.
pub(super) struct Created {
    pub(super) key: KeyArn,
    /// A key that came too late and could not be given up, and why. It wraps nothing.
    pub(super) left_over: Option<(KeyArn, AwsError)>,
}

impl From<KeyArn> for Created {
    fn from(key: KeyArn) -> Self {
        Self { key, left_over: None }
    }
}

/// Finds the key of an epoch, or makes it.
pub(super) async fn create(
    session: &Session,
    settings: &AwsKmsSettings,
    cluster: Uid,
    epoch: EpochNumber,
) -> Result<Created, AwsError> {
    let alias = names::alias(cluster, epoch);
    if let Some(key) = named(session, &alias, cluster, epoch).await? {
        return Ok(key.into());
    }
    let adopted = settings.key_arn.is_some();
    let key = match &settings.key_arn {
        Some(arn) => adopt(session, &KeyArn::parse(arn)?, cluster, epoch).await?,
        None => {
            let description = names::description(cluster, epoch);
            session.create_key(&alias, description, &names::tags(cluster, epoch)).await?
        }
    };
    match session.create_alias(&alias, &key).await {
        Ok(()) => Ok(key.into()),
        Err(error) if error.class == Class::Taken => {
            let first = taken(session, &alias, cluster, epoch).await?;
            // Also our own: the answer to the first try was lost.
            if first == key {
                return Ok(first.into());
            }
            let given_up = give_up(session, &key, adopted, settings.deletion_days).await;
            Ok(Created { key: first, left_over: given_up.err().map(|error| (key, error)) })
        }
        // It has no alias, and nobody else knows it. One that is adopted others may be adopting too: its tags stay, and
        // the same call goes on from there.
        Err(error) if error.class == Class::Denied && !adopted => {
            match give_up(session, &key, adopted, settings.deletion_days).await {
                Ok(()) => Err(error),
                Err(left) => {
                    Err(error.and(&format!("{key} is left over and wraps nothing: delete it by hand ({left})")))
                }
            }
        }
        // It may have one. Then the next call finds it.
        Err(error) => Err(error),
    }
}

/// Returns the key behind an alias, if there is one: it must be what the alias says.
async fn named(session: &Session, alias: &str, cluster: Uid, epoch: EpochNumber) -> Result<Option<KeyArn>, AwsError> {
    let Some(found) = session.find(alias).await? else { return Ok(None) };
    let key = found.arn;
    let tags = session.tags(&key).await?;
    if names::tags(cluster, epoch).iter().any(|(name, value)| tags.get(*name) != Some(value)) {
        return Err(AwsError::denied(format!(
            "{alias} leads to {key}, which is not tagged {TAG_CLUSTER} = {cluster}, {TAG_EPOCH} = {}: find out who \
             moved the alias; nothing is wrapped by a key that somebody else chose",
            epoch.get()
        )));
    }
    if let Some(unfit) = found.unfit {
        return Err(AwsError::denied(format!("{alias} leads to {key}, which cannot be a master key: {unfit}")));
    }
    if matches!(found.state, State::PendingDeletion(_)) || tags.contains_key(TAG_RETIRED) {
        return Err(AwsError::denied(format!(
            "{key}, the key of epoch {} of cluster {cluster}, is retired or to be deleted; cancel that, or begin \
             another epoch",
            epoch.get()
        )));
    }
    Ok(Some(key))
}

/// Returns the key of an alias that was there a moment ago: what one of AWS's servers knows, another may not know yet.
async fn taken(session: &Session, alias: &str, cluster: Uid, epoch: EpochNumber) -> Result<KeyArn, AwsError> {
    for _ in 0..LOOKS {
        if let Some(key) = named(session, alias, cluster, epoch).await? {
            return Ok(key);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Err(AwsError::unavailable(format!("{alias} was taken by another process, and is not found yet: try again")))
}

/// Makes a key that somebody else made the one of an epoch.
async fn adopt(session: &Session, key: &KeyArn, cluster: Uid, epoch: EpochNumber) -> Result<KeyArn, AwsError> {
    let found = session.describe(key.as_str()).await?;
    if let Some(unfit) = found.unfit {
        return Err(AwsError::denied(format!("backend.aws_key_arn = {key} cannot be a master key: {unfit}")));
    }
    if found.state != State::Enabled {
        return Err(AwsError::denied(format!(
            "backend.aws_key_arn = {key} is not enabled: enable it, or make another"
        )));
    }
    unclaimed(key, &session.tags(key).await?, cluster, epoch)?;
    session.tag(key, &names::tags(cluster, epoch)).await?;
    // Two clusters may have found it free at the same moment. The later tags stand.
    unclaimed(key, &session.tags(key).await?, cluster, epoch)?;
    Ok(key.clone())
}

/// Refuses a key whose tags are another's: two epochs under one key could only be destroyed together.
fn unclaimed(key: &KeyArn, tags: &HashMap<String, String>, cluster: Uid, epoch: EpochNumber) -> Result<(), AwsError> {
    let of_another =
        names::tags(cluster, epoch).iter().any(|(name, ours)| tags.get(*name).is_some_and(|value| value != ours));
    if !of_another && !tags.contains_key(TAG_RETIRED) {
        return Ok(());
    }
    let unnamed = "?".to_owned();
    Err(AwsError::denied(format!(
        "backend.aws_key_arn = {key} is already the key of epoch {} of cluster {}: each epoch needs a key of its own; \
         name another, or none so that one is made",
        tags.get(TAG_EPOCH).unwrap_or(&unnamed),
        tags.get(TAG_CLUSTER).unwrap_or(&unnamed),
    )))
}

/// Leaves a key that came too late: one that was made here is deleted, one that was adopted is as it was.
async fn give_up(session: &Session, key: &KeyArn, adopted: bool, deletion_days: u32) -> Result<(), AwsError> {
    if adopted {
        return session.untag(key, &[TAG_CLUSTER, TAG_EPOCH]).await;
    }
    session.tag(key, &[(TAG_RETIRED, RETIRED.to_owned())]).await?;
    session.schedule_deletion(key, deletion_days).await
}

const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_epoch_or_cluster_is_claimed() {
        let key = KeyArn::parse("arn:aws:kms:eu-central-1:111122223333:key/1234").unwrap();
        let (ours, theirs) = (Uid::from_bytes([1; 16]), Uid::from_bytes([2; 16]));
        let (one, two) = (EpochNumber::FIRST, EpochNumber::new(2).unwrap());
        let tagged = |tags: &[(&'static str, String)]| -> HashMap<String, String> {
            tags.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let free = |tags: &HashMap<String, String>| unclaimed(&key, tags, ours, one).is_ok();
        assert!(free(&HashMap::new()));
        assert!(free(&tagged(&[("team", "billing".to_owned())])));
        assert!(free(&tagged(&names::tags(ours, one))), "a call that was cut off goes on");
        assert!(!free(&tagged(&names::tags(ours, two))));
        assert!(!free(&tagged(&names::tags(theirs, one))));
        assert!(!free(&tagged(&[(TAG_RETIRED, RETIRED.to_owned())])));
    }
}
