//! ListDataKeys: the managed data keys of one key, destroyed ones included, without the keys.

use kms_proto::v1::{ListDataKeysRequest, ListDataKeysResponse};

use super::error::Error;
use super::parse::Page;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::noun::{KeyName, TenantName};
use crate::policy::{Action, Resource};

pub(super) struct ListDataKeys {
    tenant: TenantName,
    key: KeyName,
    page: Page,
}

impl Operation for ListDataKeys {
    type Wire = ListDataKeysRequest;
    type Reply = ListDataKeysResponse;
    const NAME: &'static str = "ListDataKeys";

    fn parse(wire: ListDataKeysRequest) -> Result<Self, Error> {
        let (tenant, key) = parse::key("parent", &wire.parent)?;
        Ok(Self { tenant, key, page: parse::page(wire.page_size, wire.page_token)? })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ListDataKeys, Resource::Key(self.tenant.clone(), self.key.clone()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ListDataKeysResponse>, Failed> {
        let listing = format!("ListDataKeys tenants/{}/keys/{}", self.tenant, self.key);
        let after = self.page.after(call, &listing)?;
        let listed = call.keyring().data_keys(&self.tenant, &self.key, after, self.page.size).await?;
        let last = listed.items.last().map(|dek| dek.uid.to_string());
        let next_page_token = parse::next_page(call, &listing, listed.more, last.as_deref());
        let data_keys = listed.items.iter().map(convert::data_key).collect();
        Ok(Done::read(ListDataKeysResponse { data_keys, next_page_token }))
    }
}
