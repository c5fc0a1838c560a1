//! UpdateKey: replaces the labels of a key, which is all that can be updated.

use std::collections::BTreeMap;

use kms_proto::v1::{UpdateKeyRequest, UpdateKeyResponse};

use super::change::{changed_key, terms};
use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, Labels, Terms};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct UpdateKey {
    tenant: TenantName,
    key: KeyName,
    labels: Labels,
    terms: Terms,
}

impl Operation for UpdateKey {
    type Wire = UpdateKeyRequest;
    type Reply = UpdateKeyResponse;
    const NAME: &'static str = "UpdateKey";

    fn parse(wire: UpdateKeyRequest) -> Result<Self, Error> {
        let update = wire.key.ok_or(Error::Field { field: "key", rule: "must be set" })?;
        let (tenant, key) = parse::key("key.name", &update.name)?;
        let paths = wire.update_mask.map(|mask| mask.paths).unwrap_or_default();
        if paths != ["labels"] {
            return Err(Error::Field {
                field: "update_mask",
                rule: "must be just `labels`: nothing else of a key can be updated",
            });
        }
        let terms = terms(&wire.request_id, wire.validate_only, ("key.etag", &update.etag))?;
        Ok(Self { tenant, key, labels: labels("key.labels", update.labels)?, terms })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::UpdateKey, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<UpdateKeyResponse>, Failed> {
        let Self { tenant, key, labels, terms } = self;
        let changed = call.change(Change::UpdateKey { tenant, key, labels }, terms).await?;
        Ok(Done::changed(UpdateKeyResponse { key: changed_key(&changed).0 }, &changed))
    }
}

/// Reads labels: at most 64, named like keys, with values of up to 256 bytes.
pub(super) fn labels(field: &'static str, labels: BTreeMap<String, String>) -> Result<Labels, Error> {
    let good = |(name, value): (&String, &String)| {
        name.parse::<KeyName>().is_ok() && value.len() <= LABEL_VALUE_BYTES_MAX && !value.contains('\0')
    };
    if labels.len() > LABELS_MAX || !labels.iter().all(good) {
        return Err(Error::Field {
            field,
            rule: "at most 64, named like keys, with values of at most 256 bytes and no U+0000",
        });
    }
    Ok(labels)
}

const LABELS_MAX: usize = 64;
const LABEL_VALUE_BYTES_MAX: usize = 256;
