//! CreateKey.

use kms_proto::v1::{self, CreateKeyRequest, CreateKeyResponse};

use super::change::{changed_key, terms};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use super::update_key::labels;
use crate::keyring::{Change, KeyPurpose, Labels, Terms};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct CreateKey {
    tenant: TenantName,
    key: KeyName,
    purpose: KeyPurpose,
    labels: Labels,
    terms: Terms,
}

impl Operation for CreateKey {
    type Wire = CreateKeyRequest;
    type Reply = CreateKeyResponse;
    const NAME: &'static str = "CreateKey";

    fn parse(wire: CreateKeyRequest) -> Result<Self, Error> {
        let purpose = match wire.purpose() {
            v1::KeyPurpose::Encrypt => KeyPurpose::Encrypt,
            v1::KeyPurpose::Managed => KeyPurpose::Managed,
            v1::KeyPurpose::Mac => KeyPurpose::Mac,
            v1::KeyPurpose::Unspecified => {
                return Err(Error::Field { field: "purpose", rule: "must be KEY_PURPOSE_ENCRYPT" });
            }
        };
        let rule = "must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit";
        let key = wire.key_id.parse().map_err(|_| Error::Field { field: "key_id", rule })?;
        Ok(Self {
            tenant: parse::tenant("parent", &wire.parent)?,
            key,
            purpose,
            labels: labels("labels", wire.labels)?,
            terms: terms(&wire.request_id, wire.validate_only, ("etag", ""))?,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::CreateKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<CreateKeyResponse>, Failed> {
        let Self { tenant, key, purpose, labels, terms } = self;
        let changed = call.change(Change::CreateKey { tenant, key, purpose, labels }, terms).await?;
        Ok(Done::changed(CreateKeyResponse { key: changed_key(&changed).0 }, &changed))
    }
}
