//! EnableKey and DisableKey: of a key or one of its versions.

use kms_proto::v1;

use super::change::{changed_key, terms};
use super::convert::timestamp;
use super::error::Error;
use super::parse::{self, KeyPath};
use super::pipeline::{Call, Done, Failed, Operation};
use crate::audit::Leaf;
use crate::keyring::{Change, Terms};
use crate::policy::{Action, Resource};

macro_rules! key_state {
    ($Rpc:ident, $Request:ident, $Response:ident $(, $lease_end_time:ident)?; $enabled:literal) => {
        pub(super) struct $Rpc(KeyPath, Terms);

        impl Operation for $Rpc {
            type Wire = v1::$Request;
            type Reply = v1::$Response;
            const NAME: &'static str = stringify!($Rpc);

            fn parse(wire: v1::$Request) -> Result<Self, Error> {
                Ok(Self(
                    parse::key_or_version("name", &wire.name)?,
                    terms(&wire.request_id, wire.validate_only, ("etag", &wire.etag))?,
                ))
            }

            fn asks(&self) -> Vec<(Action, Resource)> {
                vec![(Action::$Rpc, self.0.resource())]
            }

            fn about(&self) -> Leaf {
                self.0.about()
            }

            async fn perform(self, call: &Call<'_>) -> Result<Done<v1::$Response>, Failed> {
                let KeyPath { tenant, key, version } = self.0;
                let changed =
                    call.change(Change::SetKeyState { tenant, key, version, enabled: $enabled }, self.1).await?;
                let (key, version) = changed_key(&changed);
                $(let $lease_end_time = changed.lease_end.map(timestamp);)?
                Ok(Done::changed(v1::$Response { key, version $(, $lease_end_time)? }, &changed))
            }
        }
    };
}

key_state!(EnableKey, EnableKeyRequest, EnableKeyResponse; true);
key_state!(DisableKey, DisableKeyRequest, DisableKeyResponse, lease_end_time; false);

impl KeyPath {
    /// Permission is asked of the key, also where one version is meant.
    pub(super) fn resource(&self) -> Resource {
        Resource::Key(self.tenant.clone(), self.key.clone())
    }

    pub(super) fn about(&self) -> Leaf {
        Leaf { kv: self.version.map(crate::noun::KeyVersion::get), ..super::pipeline::about(Some(&self.resource())) }
    }
}
