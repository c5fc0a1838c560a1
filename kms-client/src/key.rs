//! Keys and their versions.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use kms_proto::v1;
use kms_proto::v1::key_service_client::KeyServiceClient;
use prost_types::FieldMask;
use tonic::transport::Channel;

use crate::change::Said;
use crate::client::ANSWER_BYTES_MAX;
use crate::page::collect;
use crate::wire::{duration, required, time, time_or_none, version};
use crate::{
    Change, Client, Creation, Error, Etag, KeyPurpose, KeyRef, KeyState, Page, PageRequest, PageToken, TenantRef,
    VersionNumber, Withdrawn,
};

/// Labels of a key, by name. For inventory; the service gives them no meaning.
pub type Labels = BTreeMap<String, String>;

/// A key: a list of versions, one of which is primary.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// Its name.
    pub name: KeyRef,
    /// 32 lower-case hexadecimal digits, never used again.
    pub uid: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Where the key as a whole is in its life. A version has its own state beside it, and both must be enabled.
    pub state: KeyState,
    /// The version that seals and wraps: the newest there is.
    pub primary_version: VersionNumber,
    /// Its labels.
    pub labels: Labels,
    /// When it was created.
    pub create_time: SystemTime,
    /// When its labels, its state or its list of versions last changed.
    pub update_time: SystemTime,
    /// When its material will be destroyed; only while its destruction is pending.
    pub destroy_time: Option<SystemTime>,
    /// Says which state of it this is. `None` in an answer to [`Change::validate_only`].
    pub etag: Option<Etag>,
}

/// One version of a key. The primary one seals, every enabled one opens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyVersion {
    /// The key that it belongs to.
    pub key: KeyRef,
    /// Its number.
    pub version: VersionNumber,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub create_time: SystemTime,
    /// When its material will be destroyed; only while its destruction is pending.
    pub destroy_time: Option<SystemTime>,
    /// Says which state of it this is. `None` in an answer to [`Change::validate_only`].
    pub etag: Option<Etag>,
    /// How many managed data keys it wraps, exact at every moment. `None` where it is not told: in answers to changes, and for
    /// keys of another purpose.
    pub data_key_count: Option<u64>,
}

/// A version that a call has changed, with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyAndVersion {
    /// The key as it is now.
    pub key: Key,
    /// The version as it is now.
    pub version: KeyVersion,
}

impl Key {
    pub(crate) fn from_wire(key: Option<v1::Key>) -> Result<Self, Error> {
        let key = required(key, "key")?;
        Ok(Self {
            name: key.name.parse().map_err(|_| Error::malformed("key.name"))?,
            uid: key.uid,
            purpose: KeyPurpose::from_wire(key.purpose),
            state: KeyState::from_wire(key.state),
            primary_version: version(key.primary_version, "key.primary_version")?,
            labels: key.labels,
            create_time: time(key.create_time, "key.create_time")?,
            update_time: time(key.update_time, "key.update_time")?,
            destroy_time: time_or_none(key.destroy_time, "key.destroy_time")?,
            etag: Etag::from_wire(key.etag),
        })
    }
}

impl KeyVersion {
    pub(crate) fn from_wire(version_: Option<v1::KeyVersion>) -> Result<Self, Error> {
        let wire = required(version_, "version")?;
        let (key, number) = wire.name.split_once("/versions/").ok_or_else(|| Error::malformed("version.name"))?;
        let number: VersionNumber = number.parse().map_err(|_| Error::malformed("version.name"))?;
        if number.get() != wire.version {
            return Err(Error::malformed("version.version"));
        }
        Ok(Self {
            key: key.parse().map_err(|_| Error::malformed("version.name"))?,
            version: number,
            state: KeyState::from_wire(wire.state),
            create_time: time(wire.create_time, "version.create_time")?,
            destroy_time: time_or_none(wire.destroy_time, "version.destroy_time")?,
            etag: Etag::from_wire(wire.etag),
            data_key_count: wire.data_key_count,
        })
    }
}

impl KeyAndVersion {
    pub(crate) fn from_wire(key: Option<v1::Key>, version: Option<v1::KeyVersion>) -> Result<Self, Error> {
        Ok(Self { key: Key::from_wire(key)?, version: KeyVersion::from_wire(version)? })
    }
}

fn version_name(key: &KeyRef, version: VersionNumber) -> String {
    format!("{key}/versions/{version}")
}

impl Client {
    /// Creates a key with its first version.
    pub fn create_key(&self, key: &KeyRef, purpose: KeyPurpose, labels: Labels) -> Creation<Key> {
        let (client, key) = (self.clone(), key.clone());
        Creation::new(move |said| async move {
            let request = v1::CreateKeyRequest {
                parent: key.tenant().to_string(),
                key_id: key.key().to_owned(),
                purpose: purpose.to_wire(),
                labels,
                request_id: said.request_id,
                validate_only: said.validate_only,
            };
            let answer = client.call("CreateKey", request, |c, r| async move { stub(c).create_key(r).await }).await?;
            Key::from_wire(answer.key)
        })
    }

    /// Returns a key. A destroyed one is still found.
    pub async fn get_key(&self, key: &KeyRef) -> Result<Key, Error> {
        let request = v1::GetKeyRequest { name: key.to_string() };
        let answer = self.call("GetKey", request, |c, r| async move { stub(c).get_key(r).await }).await?;
        Key::from_wire(answer.key)
    }

    /// Returns one page of a tenant's keys, destroyed ones too, in the byte order of their names.
    pub async fn list_keys(&self, tenant: &TenantRef, page: PageRequest) -> Result<Page<Key>, Error> {
        let request = v1::ListKeysRequest {
            parent: tenant.to_string(),
            page_size: page.wire_size(),
            page_token: page.wire_token(),
        };
        let answer = self.call("ListKeys", request, |c, r| async move { stub(c).list_keys(r).await }).await?;
        let keys: Result<_, Error> = answer.keys.into_iter().map(|key| Key::from_wire(Some(key))).collect();
        Ok(Page::new(keys?, answer.next_page_token))
    }

    /// Returns up to `items_max` keys, from all pages there are after a token. Where that was not all, `next` goes on
    /// exactly after the last.
    pub async fn list_all_keys(
        &self,
        tenant: &TenantRef,
        items_max: usize,
        after: Option<PageToken>,
    ) -> Result<Page<Key>, Error> {
        collect(items_max, after, |page| self.list_keys(tenant, page)).await
    }

    /// Replaces all labels of a key.
    pub fn update_labels(&self, key: &KeyRef, labels: Labels) -> Change<Key> {
        let (client, name) = (self.clone(), key.to_string());
        Change::new(move |said| async move {
            let request = v1::UpdateKeyRequest {
                key: Some(v1::Key { name, labels, etag: said.etag, ..v1::Key::default() }),
                update_mask: Some(FieldMask { paths: vec!["labels".to_owned()] }),
                request_id: said.request_id,
                validate_only: said.validate_only,
            };
            let answer = client.call("UpdateKey", request, |c, r| async move { stub(c).update_key(r).await }).await?;
            Key::from_wire(answer.key)
        })
    }

    /// Enables a disabled key. The states of its versions stay as they are.
    pub fn enable_key(&self, key: &KeyRef) -> Change<Key> {
        let call = self.enable_call(key.to_string());
        Change::new(|said| async move { Key::from_wire(call(said).await?.key) })
    }

    /// Enables a disabled version. An etag is the version's.
    pub fn enable_key_version(&self, key: &KeyRef, version: VersionNumber) -> Change<KeyAndVersion> {
        let call = self.enable_call(version_name(key, version));
        Change::new(|said| async move {
            let answer = call(said).await?;
            KeyAndVersion::from_wire(answer.key, answer.version)
        })
    }

    fn enable_call(&self, name: String) -> impl FnOnce(Said) -> Calling<v1::EnableKeyResponse> + Send + use<> {
        let client = self.clone();
        move |said| {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::EnableKeyRequest { name, etag, request_id, validate_only };
            Box::pin(async move {
                client.call("EnableKey", request, |c, r| async move { stub(c).enable_key(r).await }).await
            })
        }
    }

    /// Disables an enabled key: once this returns, it refuses every use.
    pub fn disable_key(&self, key: &KeyRef) -> Change<Withdrawn<Key>> {
        let call = self.disable_call(key.to_string());
        Change::new(|said| async move {
            let answer = call(said).await?;
            Withdrawn::new(Key::from_wire(answer.key)?, answer.lease_end_time)
        })
    }

    /// Disables an enabled version. A key whose primary version is disabled opens with the others and seals with
    /// none. An etag is the version's.
    pub fn disable_key_version(&self, key: &KeyRef, version: VersionNumber) -> Change<Withdrawn<KeyAndVersion>> {
        let call = self.disable_call(version_name(key, version));
        Change::new(|said| async move {
            let answer = call(said).await?;
            Withdrawn::new(KeyAndVersion::from_wire(answer.key, answer.version)?, answer.lease_end_time)
        })
    }

    fn disable_call(&self, name: String) -> impl FnOnce(Said) -> Calling<v1::DisableKeyResponse> + Send + use<> {
        let client = self.clone();
        move |said| {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::DisableKeyRequest { name, etag, request_id, validate_only };
            Box::pin(async move {
                client.call("DisableKey", request, |c, r| async move { stub(c).disable_key(r).await }).await
            })
        }
    }

    /// Adds a version to a key and makes it primary. Earlier versions go on opening. The service moves the
    /// key's managed data keys to the new version in the background: [`KeyVersion::data_key_count`] tells how many are left.
    pub fn rotate_key(&self, key: &KeyRef) -> Change<KeyAndVersion> {
        let (client, name) = (self.clone(), key.to_string());
        Change::new(move |said| async move {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::RotateKeyRequest { name, etag, request_id, validate_only };
            let answer = client.call("RotateKey", request, |c, r| async move { stub(c).rotate_key(r).await }).await?;
            KeyAndVersion::from_wire(answer.key, answer.version)
        })
    }

    /// Returns one page of a key's versions, destroyed ones too, the oldest first.
    pub async fn list_key_versions(&self, key: &KeyRef, page: PageRequest) -> Result<Page<KeyVersion>, Error> {
        let request = v1::ListKeyVersionsRequest {
            parent: key.to_string(),
            page_size: page.wire_size(),
            page_token: page.wire_token(),
        };
        let answer =
            self.call("ListKeyVersions", request, |c, r| async move { stub(c).list_key_versions(r).await }).await?;
        let versions: Result<_, Error> =
            answer.key_versions.into_iter().map(|version| KeyVersion::from_wire(Some(version))).collect();
        Ok(Page::new(versions?, answer.next_page_token))
    }

    /// Returns up to `items_max` versions, from all pages there are after a token. Where that was not all, `next`
    /// goes on exactly after the last.
    pub async fn list_all_key_versions(
        &self,
        key: &KeyRef,
        items_max: usize,
        after: Option<PageToken>,
    ) -> Result<Page<KeyVersion>, Error> {
        collect(items_max, after, |page| self.list_key_versions(key, page)).await
    }

    /// Sets a key to be destroyed after a wait, `None` for the server's default; it refuses every use at once. A wait
    /// of zero, where the server allows it, destroys it before this returns. **Irreversible after the wait**: what
    /// was sealed or wrapped under it can never be opened again.
    pub fn schedule_key_destruction(&self, key: &KeyRef, wait: Option<Duration>) -> Change<Withdrawn<Key>> {
        let call = self.schedule_destruction_call(key.to_string(), wait);
        Change::new(|said| async move {
            let answer = call(said).await?;
            Withdrawn::new(Key::from_wire(answer.key)?, answer.lease_end_time)
        })
    }

    /// Sets one version to be destroyed, as [`schedule_key_destruction`](Self::schedule_key_destruction) does a key.
    /// An etag is the version's.
    pub fn schedule_key_version_destruction(
        &self,
        key: &KeyRef,
        version: VersionNumber,
        wait: Option<Duration>,
    ) -> Change<Withdrawn<KeyAndVersion>> {
        let call = self.schedule_destruction_call(version_name(key, version), wait);
        Change::new(|said| async move {
            let answer = call(said).await?;
            Withdrawn::new(KeyAndVersion::from_wire(answer.key, answer.version)?, answer.lease_end_time)
        })
    }

    fn schedule_destruction_call(
        &self,
        name: String,
        wait: Option<Duration>,
    ) -> impl FnOnce(Said) -> Calling<v1::ScheduleKeyDestructionResponse> + Send + use<> {
        let client = self.clone();
        move |said| {
            let Said { etag, request_id, validate_only } = said;
            let request =
                v1::ScheduleKeyDestructionRequest { name, wait: duration(wait), etag, request_id, validate_only };
            Box::pin(async move {
                let send = |c, r| async move { stub(c).schedule_key_destruction(r).await };
                client.call("ScheduleKeyDestruction", request, send).await
            })
        }
    }

    /// Takes back a scheduled destruction of a key, which is disabled then.
    pub fn cancel_key_destruction(&self, key: &KeyRef) -> Change<Key> {
        let call = self.cancel_destruction_call(key.to_string());
        Change::new(|said| async move { Key::from_wire(call(said).await?.key) })
    }

    /// Takes back a scheduled destruction of a version, which is disabled then. An etag is the version's.
    pub fn cancel_key_version_destruction(&self, key: &KeyRef, version: VersionNumber) -> Change<KeyAndVersion> {
        let call = self.cancel_destruction_call(version_name(key, version));
        Change::new(|said| async move {
            let answer = call(said).await?;
            KeyAndVersion::from_wire(answer.key, answer.version)
        })
    }

    fn cancel_destruction_call(
        &self,
        name: String,
    ) -> impl FnOnce(Said) -> Calling<v1::CancelKeyDestructionResponse> + Send + use<> {
        let client = self.clone();
        move |said| {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::CancelKeyDestructionRequest { name, etag, request_id, validate_only };
            Box::pin(async move {
                client
                    .call(
                        "CancelKeyDestruction",
                        request,
                        |c, r| async move { stub(c).cancel_key_destruction(r).await },
                    )
                    .await
            })
        }
    }
}

/// A call under way, of which both the key and the version are of interest.
type Calling<R> = Pin<Box<dyn Future<Output = Result<R, Error>> + Send>>;

pub(crate) fn stub(channel: Channel) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_whose_name_and_number_differ_is_malformed() {
        let wire = |name: &str, version| {
            let create_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
            KeyVersion::from_wire(Some(v1::KeyVersion {
                name: name.to_owned(),
                version,
                state: 1,
                create_time,
                destroy_time: None,
                etag: String::new(),
                data_key_count: None,
            }))
        };
        assert_eq!(wire("tenants/a/keys/b/versions/3", 3).unwrap().version.get(), 3);
        for (name, version) in
            [("tenants/a/keys/b/versions/3", 4), ("tenants/a/keys/b", 3), ("tenants/a/keys/b/versions/0", 0)]
        {
            assert!(wire(name, version).is_err(), "{name} {version}");
        }
    }
}
