//! What a cluster's keys are called in AWS: aliases, tags, ARNs, and the encryption context of what they wrap.
//!
//! Aliases and tags are for finding a key, and for people and policies. What is remembered of one is its ARN alone,
//! which AWS never gives to another key.

use std::collections::HashMap;

use super::super::{EpochContext, MasterKeyRef};
use super::error::AwsError;
use crate::noun::{EpochNumber, Uid};

/// The tag with the cluster's uid.
pub(super) const TAG_CLUSTER: &str = "kms1:cluster";
/// The tag with the epoch's number.
pub(super) const TAG_EPOCH: &str = "kms1:epoch";
/// The tag without which no key is deleted.
pub(super) const TAG_RETIRED: &str = "kms1:retired";

/// What [`TAG_RETIRED`] says.
pub(super) const RETIRED: &str = "true";

/// Returns the alias by which the key of an epoch is found again.
pub(super) fn alias(cluster: Uid, epoch: EpochNumber) -> String {
    format!("alias/kms1-{cluster}-{:08}", epoch.get())
}

/// Returns what tells people in AWS's console what a key is.
pub(super) fn description(cluster: Uid, epoch: EpochNumber) -> String {
    format!(
        "kms1 master key of cluster {cluster}, epoch {}. Destroying it makes everything that was encrypted in that \
         epoch, and not moved to a later one, unreadable for ever.",
        epoch.get()
    )
}

/// Returns the tags of the key of an epoch.
pub(super) fn tags(cluster: Uid, epoch: EpochNumber) -> [(&'static str, String); 2] {
    [(TAG_CLUSTER, cluster.to_string()), (TAG_EPOCH, epoch.get().to_string())]
}

/// What a wrap is bound to. AWS authenticates it, and shows it in CloudTrail.
pub(super) fn encryption_context(context: &EpochContext) -> HashMap<String, String> {
    [
        ("kms1", "epoch-key".to_owned()),
        ("cluster", context.cluster.to_string()),
        ("epoch", context.epoch.get().to_string()),
        ("epoch-id", context.epoch_id.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A KMS key's name: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`. An alias is none: it can be moved to another key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyArn(String);

impl KeyArn {
    pub(super) fn parse(text: &str) -> Result<Self, AwsError> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let named = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        match parts[..] {
            ["arn", partition, "kms", region, account, key]
                if [partition, region, account].into_iter().all(named)
                    && key.strip_prefix("key/").is_some_and(named) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(AwsError::denied(format!(
                "{:?} is not the ARN of a KMS key, as in arn:aws:kms:eu-central-1:111122223333:key/...",
                text.chars().take(128).collect::<String>()
            ))),
        }
    }

    pub(super) fn of(version: &MasterKeyRef) -> Result<Self, AwsError> {
        Self::parse(&version.0)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns where the key is: whatever region is set, its calls go there.
    pub(super) fn region(&self) -> &str {
        self.part(3)
    }

    pub(super) fn account(&self) -> &str {
        self.part(4)
    }

    fn part(&self, at: usize) -> &str {
        self.0.split(':').nth(at).unwrap_or_default()
    }
}

impl std::fmt::Display for KeyArn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_cluster_and_epoch() {
        let name = alias(Uid::from_bytes([0xab; 16]), EpochNumber::FIRST);
        assert_eq!(name, format!("alias/kms1-{}-00000001", "ab".repeat(16)));
    }

    #[test]
    fn a_key_is_named_by_its_arn_alone() {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let key = KeyArn::parse(arn).unwrap();
        assert_eq!((key.as_str(), key.region(), key.account()), (arn, "eu-central-1", "111122223333"));
        assert!(KeyArn::parse("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234").is_ok());
        for other in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/kms1",
            "arn:aws:kms:eu-central-1:111122223333:alias/kms1",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a/b",
            "arn:aws:kms:eu-central-1:111122223333:key/a\n",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:s3:eu-central-1:111122223333:key/a",
            "arn:aws:kms:evil.example/:111122223333:key/a",
        ] {
            assert!(KeyArn::parse(other).is_err(), "{other:?}");
        }
    }
}
