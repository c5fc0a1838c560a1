//! ListKeys: of one tenant, destroyed ones included.

use kms_proto::v1::{ListKeysRequest, ListKeysResponse};

use super::error::Error;
use super::parse::Page;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::noun::TenantName;
use crate::policy::{Action, Resource};

pub(super) struct ListKeys {
    tenant: TenantName,
    page: Page,
}

impl Operation for ListKeys {
    type Wire = ListKeysRequest;
    type Reply = ListKeysResponse;
    const NAME: &'static str = "ListKeys";

    fn parse(wire: ListKeysRequest) -> Result<Self, Error> {
        Ok(Self { tenant: parse::tenant("parent", &wire.parent)?, page: parse::page(wire.page_size, wire.page_token)? })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ListKeys, Resource::Tenant(self.tenant.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ListKeysResponse>, Failed> {
        let listing = format!("ListKeys tenants/{}", self.tenant);
        let after = self.page.after(call, &listing)?;
        let listed = call.keyring().keys(&self.tenant, after.as_ref(), self.page.size).await?;
        let mut keys: Vec<_> = listed.items.iter().map(convert::key).collect();
        let more = parse::cut_page(&mut keys) || listed.more;
        let last = keys.len().checked_sub(1).and_then(|last| listed.items.get(last));
        let next_page_token = parse::next_page(call, &listing, more, last.map(|key| key.name.as_str()));
        Ok(Done::read(ListKeysResponse { keys, next_page_token }))
    }
}
