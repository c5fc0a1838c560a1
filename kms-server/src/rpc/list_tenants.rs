//! ListTenants: all of them, destroyed ones included.

use kms_proto::v1::{ListTenantsRequest, ListTenantsResponse};

use super::error::Error;
use super::parse::Page;
use super::pipeline::{Call, Done, Failed, Operation};
use super::{convert, parse};
use crate::policy::{Action, Resource};

pub(super) struct ListTenants(Page);

impl Operation for ListTenants {
    type Wire = ListTenantsRequest;
    type Reply = ListTenantsResponse;
    const NAME: &'static str = "ListTenants";

    fn parse(wire: ListTenantsRequest) -> Result<Self, Error> {
        parse::page(wire.page_size, wire.page_token).map(Self)
    }

    fn asks(&self) -> Vec<(Action, Resource)> {
        vec![(Action::ListTenants, Resource::Cluster)]
    }

    async fn perform(self, call: &Call<'_>) -> Result<Done<ListTenantsResponse>, Failed> {
        let after = self.0.after(call, LISTING)?;
        let listed = call.keyring().tenants(after.as_ref(), self.0.size).await?;
        let next_page_token =
            parse::next_page(call, LISTING, listed.more, listed.items.last().map(|tenant| tenant.name.as_str()));
        Ok(Done::read(ListTenantsResponse {
            tenants: listed.items.iter().map(convert::tenant).collect(),
            next_page_token,
        }))
    }
}

const LISTING: &str = "ListTenants";
