//! ReEncrypt: moves a ciphertext to the primary version, or to another key, without showing what is
//! in it.
//!
//! Keeping key and context is a right of its own. Going elsewhere takes the right to open there and
//! to seal here: Decrypt and Encrypt for data, DecryptDataKey and GenerateDataKey for a data key,
//! which may never go to another encryption context.

use kms_proto::v1::{ReEncryptRequest, ReEncryptResponse};

use super::error::Error;
use super::parse;
use super::pipeline::{Call, Done, Failed, Operation};
use super::record::key_leaf;
use crate::audit::Leaf;
use crate::crypto::{ContextHash, Header, Kind, OpenError};
use crate::keyring::{self, KeyInUse, KeyPurpose, Want, Which};
use crate::noun::{KeyName, Random, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct ReEncrypt {
    tenant: TenantName,
    key: KeyName,
    context: ContextHash,
    ciphertext: Vec<u8>,
    /// What the blob is, or why it is none. A blob that is none is told so only to those who may ask.
    kind: Result<(CallersKind, Header), keyring::Error>,
    destination: Option<Destination>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum CallersKind {
    Data,
    DataKey,
}

struct Destination {
    key: KeyName,
    context: ContextHash,
}

impl Operation for ReEncrypt {
    type Wire = ReEncryptRequest;
    type Reply = ReEncryptResponse;
    const NAME: &'static str = "ReEncrypt";

    fn parse(wire: ReEncryptRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("key", &wire.key)?;
        let context = parse::context(&tenant, &wire.encryption_context, &wire.aad)?;
        let kind = match parse::blob(&wire.ciphertext, Kind::WrappedDek) {
            Ok(header) => Ok((CallersKind::DataKey, header)),
            Err(_) => parse::blob(&wire.ciphertext, Kind::Data).map(|header| (CallersKind::Data, header)),
        };
        let destination = wire.destination.map(|to| destination(&tenant, &to)).transpose()?;
        let other_context = destination.as_ref().is_some_and(|to| to.context != context);
        if other_context && matches!(kind, Ok((CallersKind::DataKey, _))) {
            return Err(Error::OtherContext);
        }
        Ok(Self { tenant, key, context, ciphertext: wire.ciphertext, kind, destination })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        let resource = |key: &KeyName| Resource::Key(self.tenant.clone(), key.clone());
        let Some(to) = &self.destination else { return vec![(Action::ReEncrypt, resource(&self.key))] };
        match self.kind {
            Ok((CallersKind::DataKey, _)) => {
                vec![(Action::DecryptDataKey, resource(&self.key)), (Action::GenerateDataKey, resource(&to.key))]
            }
            Ok((CallersKind::Data, _)) | Err(_) => {
                vec![(Action::Decrypt, resource(&self.key)), (Action::Encrypt, resource(&to.key))]
            }
        }
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ReEncryptResponse>, Failed> {
        let (kind, header) = self.kind?;
        let (to_key, to_context) =
            self.destination.as_ref().map_or((&self.key, &self.context), |to| (&to.key, &to.context));
        let want = |key, which| Want { key, purpose: KeyPurpose::Encrypt, which };
        let wants = [want(&self.key, Which::Of(header)), want(to_key, Which::Primary)];
        let in_use = call.keyring().enter(&self.tenant, &wants).await?;
        let [from, to] = in_use.keys() else {
            return Err(keyring::Error::Damaged("two keys were wanted, and not two are in use").into());
        };
        let moved = move_blob(kind, from, &self.context, &self.ciphertext, to, to_context, call.keyring().rng());
        let ciphertext = match moved {
            Ok(ciphertext) => ciphertext,
            Err(error) => {
                return Err(Failed::new(
                    keyring::Error::from(error),
                    key_leaf(&in_use, from, &self.context, &self.ciphertext),
                ));
            }
        };
        let source = key_leaf(&in_use, from, &self.context, &self.ciphertext);
        let made = key_leaf(&in_use, to, to_context, &ciphertext);
        let leaves = match &self.destination {
            // One key: its record names the blob that was made, and in `ids` the one it was made of.
            None => vec![Leaf { ids: source.bid, ..made }],
            // Two keys, a record each: what was opened under one, and what was sealed under the other.
            Some(to) => vec![source, Leaf { kn: Some(to.key.to_string().into()), ..made }],
        };
        let reply =
            ReEncryptResponse { ciphertext, key_version: to.version().get(), source_key_version: from.version().get() };
        Ok(Done::used_for(reply, leaves, in_use))
    }
}

fn move_blob(
    kind: CallersKind,
    from: &KeyInUse,
    from_context: &ContextHash,
    blob: &[u8],
    to: &KeyInUse,
    to_context: &ContextHash,
    rng: &dyn Random,
) -> Result<Vec<u8>, OpenError> {
    match kind {
        CallersKind::Data => {
            let plaintext = from.kek().open_data(from.uid(), from.version(), from_context, blob)?;
            Ok(to.kek().seal_opened(to.uid(), to.version(), to_context, &plaintext, rng))
        }
        CallersKind::DataKey => {
            let dek = from.kek().unwrap_dek(from.uid(), from.version(), from_context, blob)?;
            Ok(to.kek().wrap_dek(to.uid(), to.version(), to_context, &dek, rng))
        }
    }
}

fn destination(tenant: &TenantName, to: &kms_proto::v1::Destination) -> Result<Destination, Error> {
    let (to_tenant, key) = parse::key("destination.key", &to.key)?;
    if to_tenant != *tenant {
        return Err(Error::Field { field: "destination.key", rule: "must be of the same tenant" });
    }
    Ok(Destination { key, context: parse::context(tenant, &to.encryption_context, &to.aad)? })
}
