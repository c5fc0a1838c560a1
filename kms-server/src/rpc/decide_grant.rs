//! ApproveGrant and RevokeGrant: what others say to a request.

use kms_proto::v1;

use super::change::{changed_grant, terms};
use super::error::Error;
use super::grants::{GrantPath, content_hash};
use super::pipeline::{Call, Done, Failed, Operation};
use crate::keyring::{Change, ContentHash, Terms};
use crate::policy::{Action, Resource};

pub(super) struct ApproveGrant {
    path: GrantPath,
    hash: ContentHash,
    terms: Terms,
}

impl Operation for ApproveGrant {
    type Wire = v1::ApproveGrantRequest;
    type Reply = v1::ApproveGrantResponse;
    const NAME: &'static str = "ApproveGrant";

    fn parse(wire: v1::ApproveGrantRequest) -> Result<Self, Error> {
        Ok(Self {
            path: GrantPath::parse(&wire.name)?,
            hash: content_hash(&wire.content_hash)?,
            terms: terms(&wire.request_id, wire.validate_only, ("etag", ""))?,
        })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ApproveGrant, self.path.resource())]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::ApproveGrantResponse>, Failed> {
        let GrantPath { tenant, uid } = self.path;
        let changed = call.change(Change::ApproveGrant { tenant, grant: uid, hash: self.hash }, self.terms).await?;
        Ok(Done::changed(v1::ApproveGrantResponse { grant: changed_grant(&changed) }, &changed))
    }
}

pub(super) struct RevokeGrant {
    path: GrantPath,
    terms: Terms,
}

impl Operation for RevokeGrant {
    type Wire = v1::RevokeGrantRequest;
    type Reply = v1::RevokeGrantResponse;
    const NAME: &'static str = "RevokeGrant";

    fn parse(wire: v1::RevokeGrantRequest) -> Result<Self, Error> {
        let terms = terms(&wire.request_id, wire.validate_only, ("etag", ""))?;
        Ok(Self { path: GrantPath::parse(&wire.name)?, terms })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::RevokeGrant, self.path.resource())]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::RevokeGrantResponse>, Failed> {
        let GrantPath { tenant, uid } = self.path;
        let changed = call.change(Change::RevokeGrant { tenant, grant: uid }, self.terms).await?;
        Ok(Done::changed(v1::RevokeGrantResponse { grant: changed_grant(&changed) }, &changed))
    }
}
