//! ListKeyVersions: oldest first, destroyed ones included.

use kms_proto::v1::{ListKeyVersionsRequest, ListKeyVersionsResponse};

use super::error::Error;
use super::parse::Page;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::noun::{KeyName, KeyVersion, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct ListKeyVersions {
    tenant: TenantName,
    key: KeyName,
    page: Page,
}

impl Operation for ListKeyVersions {
    type Wire = ListKeyVersionsRequest;
    type Reply = ListKeyVersionsResponse;
    const NAME: &'static str = "ListKeyVersions";

    fn parse(wire: ListKeyVersionsRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("parent", &wire.parent)?;
        Ok(Self { tenant, key, page: parse::page(wire.page_size, wire.page_token)? })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ListKeyVersions, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ListKeyVersionsResponse>, Failed> {
        let key = format!("tenants/{}/keys/{}", self.tenant, self.key);
        let listing = format!("ListKeyVersions {key}");
        let after: Option<u32> = self.page.after(call, &listing)?;
        let listed =
            call.keyring().versions(&self.tenant, &self.key, after.and_then(KeyVersion::new), self.page.size).await?;
        let last = listed.items.last().map(|version| version.version.to_string());
        let next_page_token = parse::next_page(call, &listing, listed.more, last.as_deref());
        let key_versions = listed.items.iter().map(|version| convert::version(&key, version)).collect();
        Ok(Done::read(ListKeyVersionsResponse { key_versions, next_page_token }))
    }
}
