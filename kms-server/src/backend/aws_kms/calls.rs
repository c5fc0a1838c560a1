//! AWS's operations, each with our types in and out.
//!
//! **Invariant:** an answer is taken for what it says only if it names the key that was asked.

use std::collections::HashMap;

use aws_config::retry::RetryConfig;
use aws_sdk_kms::primitives::{Blob, DateTime};
use aws_sdk_kms::types::{KeyManagerType, KeyMetadata, KeySpec, KeyState, KeyUsageType, OriginType, Tag};
use zeroize::Zeroizing;

use super::error::{AwsError, Call, Class};
use super::names::KeyArn;
use super::session::Session;
use crate::crypto::EpochKey;
use crate::noun::UnixMillis;

/// What AWS says of a key.
pub(super) struct Described {
    pub(super) arn: KeyArn,
    pub(super) state: State,
    /// What makes it unfit for a master key, if anything.
    pub(super) unfit: Option<&'static str>,
}

/// The state of a key, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    Enabled,
    Disabled,
    /// It is deleted at that time; nobody knows when while replicas of it live.
    PendingDeletion(Option<UnixMillis>),
    /// It cannot be used now, in AWS's word for it.
    NotNow(String),
}

impl Session {
    fn call<'a>(&'a self, operation: &'static str, key: &'a str) -> Call<'a> {
        Call { operation, key, place: &self.place }
    }

    /// `key` is an ARN or an alias.
    pub(super) async fn describe(&self, key: &str) -> Result<Described, AwsError> {
        let call = self.call("DescribeKey", key);
        let answer = self.kms.describe_key().key_id(key).send().await;
        let answer = answer.map_err(|error| AwsError::of(&call, &error))?;
        let data = answer.key_metadata.ok_or_else(|| AwsError::unavailable(format!("{call}: an empty answer")))?;
        let arn = KeyArn::parse(data.arn.as_deref().unwrap_or_default())?;
        if key.starts_with("arn:") && arn.as_str() != key {
            return Err(AwsError::wrong_answer(format!("{call}: it answered of {arn}")));
        }
        Ok(Described { arn, state: state_of(&data)?, unfit: unfit(&data) })
    }

    /// Returns what is found; that nothing is there is no error.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Described>, AwsError> {
        match self.describe(key).await {
            Err(error) if error.class == Class::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    pub(super) async fn tags(&self, key: &KeyArn) -> Result<HashMap<String, String>, AwsError> {
        let answer = self.kms.list_resource_tags().key_id(key.as_str()).limit(TAGS_MAX).send().await;
        let answer = answer.map_err(|error| AwsError::of(&self.call("ListResourceTags", key.as_str()), &error))?;
        Ok(answer.tags.unwrap_or_default().into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect())
    }

    pub(super) async fn tag(&self, key: &KeyArn, tags: &[(&'static str, String)]) -> Result<(), AwsError> {
        let sent = self.kms.tag_resource().key_id(key.as_str()).set_tags(Some(as_tags(tags)?)).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("TagResource", key.as_str()), &error))
    }

    pub(super) async fn untag(&self, key: &KeyArn, names: &[&str]) -> Result<(), AwsError> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let sent = self.kms.untag_resource().key_id(key.as_str()).set_tag_keys(Some(names)).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("UntagResource", key.as_str()), &error))
    }

    pub(super) async fn create_key(
        &self,
        alias: &str,
        description: String,
        tags: &[(&'static str, String)],
    ) -> Result<KeyArn, AwsError> {
        let call = self.call("CreateKey", alias);
        let answer = self
            .kms
            .create_key()
            .description(description)
            .key_spec(KeySpec::SymmetricDefault)
            .key_usage(KeyUsageType::EncryptDecrypt)
            .origin(OriginType::AwsKms)
            .multi_region(false)
            .set_tags(Some(as_tags(tags)?))
            .customize()
            // Once: a lost answer that was asked for again would leave a second key.
            .config_override(aws_sdk_kms::config::Builder::new().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        let answer = answer.map_err(|error| AwsError::of(&call, &error))?;
        let arn = answer.key_metadata.and_then(|data| data.arn);
        KeyArn::parse(&arn.ok_or_else(|| AwsError::unavailable(format!("{call}: an empty answer")))?)
    }

    pub(super) async fn create_alias(&self, alias: &str, key: &KeyArn) -> Result<(), AwsError> {
        let sent = self.kms.create_alias().alias_name(alias).target_key_id(key.as_str()).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("CreateAlias", key.as_str()), &error))
    }

    pub(super) async fn disable(&self, key: &KeyArn) -> Result<(), AwsError> {
        let sent = self.kms.disable_key().key_id(key.as_str()).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("DisableKey", key.as_str()), &error))
    }

    pub(super) async fn enable(&self, key: &KeyArn) -> Result<(), AwsError> {
        let sent = self.kms.enable_key().key_id(key.as_str()).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("EnableKey", key.as_str()), &error))
    }

    pub(super) async fn schedule_deletion(&self, key: &KeyArn, days: u32) -> Result<(), AwsError> {
        let days = i32::try_from(days).ok();
        let sent = self.kms.schedule_key_deletion().key_id(key.as_str()).set_pending_window_in_days(days).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("ScheduleKeyDeletion", key.as_str()), &error))
    }

    pub(super) async fn cancel_deletion(&self, key: &KeyArn) -> Result<(), AwsError> {
        let sent = self.kms.cancel_key_deletion().key_id(key.as_str()).send().await;
        sent.map(drop).map_err(|error| AwsError::of(&self.call("CancelKeyDeletion", key.as_str()), &error))
    }

    pub(super) async fn encrypt(
        &self,
        key: &KeyArn,
        context: HashMap<String, String>,
        plaintext: &[u8; 32],
    ) -> Result<Vec<u8>, AwsError> {
        let call = self.call("Encrypt", key.as_str());
        // The copies that the library makes of it are wiped when they are freed: see the allocator in main.rs.
        let answer = self
            .kms
            .encrypt()
            .key_id(key.as_str())
            .set_encryption_context(Some(context))
            .plaintext(Blob::new(plaintext))
            .send()
            .await;
        let answer = answer.map_err(|error| AwsError::of(&call, &error))?;
        let ciphertext = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        if answer.key_id.as_deref() != Some(key.as_str()) || !is_ciphertext(&ciphertext) {
            return Err(AwsError::wrong_answer(format!("{call}: another key's answer, or {} bytes", ciphertext.len())));
        }
        Ok(ciphertext)
    }

    pub(super) async fn decrypt(
        &self,
        key: &KeyArn,
        context: HashMap<String, String>,
        ciphertext: &[u8],
    ) -> Result<EpochKey, AwsError> {
        let call = self.call("Decrypt", key.as_str());
        let answer = self
            .kms
            .decrypt()
            .key_id(key.as_str())
            .set_encryption_context(Some(context))
            .ciphertext_blob(Blob::new(ciphertext))
            .send()
            .await;
        let answer = answer.map_err(|error| AwsError::of(&call, &error))?;
        let plaintext = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
        match <&[u8; 32]>::try_from(plaintext.as_slice()) {
            Ok(bytes) if answer.key_id.as_deref() == Some(key.as_str()) => {
                EpochKey::from_backend(bytes).map_err(|full| AwsError::unavailable(full.to_string()))
            }
            _ => Err(AwsError::wrong_answer(format!("{call}: another key's answer, or {} bytes", plaintext.len()))),
        }
    }
}

/// Returns whether AWS may have made it, by its size.
pub(super) fn is_ciphertext(bytes: &[u8]) -> bool {
    (1..=CIPHERTEXT_BYTES_MAX).contains(&bytes.len())
}

/// Returns a time of AWS's as we count.
fn millis(date: &DateTime) -> Option<UnixMillis> {
    date.to_millis().ok().and_then(|millis| millis.try_into().ok())
}

fn state_of(data: &KeyMetadata) -> Result<State, AwsError> {
    let said = data.key_state.as_ref().ok_or_else(|| AwsError::unavailable("AWS KMS does not say a key's state"))?;
    Ok(match said {
        KeyState::Enabled => State::Enabled,
        KeyState::Disabled => State::Disabled,
        KeyState::PendingDeletion | KeyState::PendingReplicaDeletion => {
            State::PendingDeletion(data.deletion_date.as_ref().and_then(millis))
        }
        other => State::NotNow(other.as_str().to_owned()),
    })
}

fn unfit(data: &KeyMetadata) -> Option<&'static str> {
    if data.key_spec != Some(KeySpec::SymmetricDefault) || data.key_usage != Some(KeyUsageType::EncryptDecrypt) {
        Some("it must be of spec SYMMETRIC_DEFAULT and usage ENCRYPT_DECRYPT")
    } else if data.key_manager != Some(KeyManagerType::Customer) {
        Some("it is AWS's own, which nobody can destroy")
    } else if data.multi_region == Some(true) {
        Some("it is a multi-Region key: copies of it in other regions would outlive its destruction")
    } else if data.origin == Some(OriginType::External) {
        Some("its material was imported: whoever imported it has a copy, which would outlive its destruction")
    } else {
        None
    }
}

fn as_tags(tags: &[(&'static str, String)]) -> Result<Vec<Tag>, AwsError> {
    let built = tags.iter().map(|(name, value)| Tag::builder().tag_key(*name).tag_value(value).build());
    built.collect::<Result<_, _>>().map_err(|error| AwsError::unavailable(error.to_string()))
}

/// AWS's own limit.
const CIPHERTEXT_BYTES_MAX: usize = 6_144;
/// As many as a key may have.
const TAGS_MAX: i32 = 50;
