//! GetGrant and ListGrants: what was asked for, by whom, and what became of it.

use kms_proto::v1;

use super::error::Error;
use super::grants::{self, GrantPath};
use super::parse::{self, Page};
use super::pipeline::{Call, Done, Failed, Operation};
use crate::noun::{TenantName, Uid};
use crate::policy::{Action, Resource};

pub(super) struct GetGrant(GrantPath);

impl Operation for GetGrant {
    type Wire = v1::GetGrantRequest;
    type Reply = v1::GetGrantResponse;
    const NAME: &'static str = "GetGrant";

    fn parse(wire: v1::GetGrantRequest) -> Result<Self, Error> {
        GrantPath::parse(&wire.name).map(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::GetGrant, self.0.resource())]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::GetGrantResponse>, Failed> {
        let grant = call.keyring().grant(self.0.tenant.as_ref(), self.0.uid).await?;
        Ok(Done::read(v1::GetGrantResponse { grant: Some(grants::grant(&grant)) }))
    }
}

pub(super) struct ListGrants {
    tenant: Option<TenantName>,
    page: Page,
}

impl Operation for ListGrants {
    type Wire = v1::ListGrantsRequest;
    type Reply = v1::ListGrantsResponse;
    const NAME: &'static str = "ListGrants";

    fn parse(wire: v1::ListGrantsRequest) -> Result<Self, Error> {
        let parent = Some(&wire.parent).filter(|parent| !parent.is_empty());
        let tenant = parent.map(|parent| parse::tenant("parent", parent)).transpose()?;
        Ok(Self { tenant, page: parse::page(wire.page_size, wire.page_token)? })
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ListGrants, grants::resource_of(self.tenant.as_ref()))]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<v1::ListGrantsResponse>, Failed> {
        let listing = format!("ListGrants {}", self.tenant.as_ref().map(TenantName::as_str).unwrap_or_default());
        let after = self.page.after::<String>(call, &listing)?;
        let after = after.map(|uid| Uid::from_hex(&uid).ok_or(Error::PageToken)).transpose()?;
        let listed = call.keyring().grants(self.tenant.as_ref(), after, self.page.size).await?;
        let mut told: Vec<v1::Grant> = listed.items.iter().map(grants::grant).collect();
        let more = parse::cut_page(&mut told) || listed.more;
        let last = told.len().checked_sub(1).and_then(|last| listed.items.get(last)).map(|grant| grant.uid.to_string());
        let next_page_token = parse::next_page(call, &listing, more, last.as_deref());
        Ok(Done::read(v1::ListGrantsResponse { grants: told, next_page_token }))
    }
}
