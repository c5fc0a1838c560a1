//! Tenants: the whole of what one customer has, destroyed as one.

use std::time::{Duration, SystemTime};

use kms_proto::v1;
use kms_proto::v1::tenant_service_client::TenantServiceClient;
use prost_types::FieldMask;
use tonic::transport::Channel;

use crate::change::Said;
use crate::client::ANSWER_BYTES_MAX;
use crate::page::collect;
use crate::wire::{duration, duration_or_none, required, time, time_or_none};
use crate::{Change, Client, Creation, Error, Etag, Page, PageRequest, PageToken, TenantRef, Withdrawn};

/// A tenant. Everything below it is wrapped by its one tenant key, so destroying that key destroys the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tenant {
    /// Its name.
    pub name: TenantRef,
    /// 32 lower-case hexadecimal digits, never used again.
    pub uid: String,
    /// Where it is in its life.
    pub state: TenantState,
    /// When it was created.
    pub create_time: SystemTime,
    /// When it will be fenced; only while its destruction is pending.
    pub destroy_time: Option<SystemTime>,
    /// When it was fenced.
    pub fence_time: Option<SystemTime>,
    /// Says which state of it this is. `None` in an answer to [`Change::validate_only`].
    pub etag: Option<Etag>,
    /// How long its data keys and index keys may be held by whoever gets one: see [`Lease`](crate::Lease). `None` once it is
    /// fenced.
    pub data_key_lease: Option<Duration>,
}

/// What is set of a tenant. What is not said keeps its value; at the creation it gets the service's.
///
/// ```
/// use kms_client::TenantSettings;
/// use std::time::Duration;
///
/// let settings = TenantSettings::new().data_key_lease(Duration::from_secs(600));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct TenantSettings {
    data_key_lease: Option<Duration>,
}

impl TenantSettings {
    /// Says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long the tenant's data keys and index keys may be held: 0 to 24 hours, in whole milliseconds; 5 minutes in a
    /// new tenant unless set. A longer one means fewer calls, and a later time until which keys may still be held when they
    /// are taken out of use.
    pub fn data_key_lease(mut self, lease: Duration) -> Self {
        self.data_key_lease = Some(lease);
        self
    }
}

/// The life of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TenantState {
    /// In use.
    Active,
    /// Neither seals nor opens; nothing is lost.
    Suspended,
    /// As suspended, and will be fenced at its destroy time. May be cancelled until then.
    PendingDestruction,
    /// Its tenant key is deleted and wiped. Irreversible.
    Fenced,
    /// A search found no trace of its wrapped tenant key in the store.
    Purged,
    /// No old copy or backup opens anything of it.
    Unrecoverable,
    /// One that this version of the library does not know, with its number.
    Unknown(i32),
}

impl TenantState {
    /// Returns the state as the API names it, such as `ACTIVE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::PendingDestruction => "PENDING_DESTRUCTION",
            Self::Fenced => "FENCED",
            Self::Purged => "PURGED",
            Self::Unrecoverable => "UNRECOVERABLE",
            Self::Unknown(_) => "UNKNOWN",
        }
    }

    fn from_wire(number: i32) -> Self {
        match v1::TenantState::try_from(number) {
            Ok(v1::TenantState::Active) => Self::Active,
            Ok(v1::TenantState::Suspended) => Self::Suspended,
            Ok(v1::TenantState::PendingDestruction) => Self::PendingDestruction,
            Ok(v1::TenantState::Fenced) => Self::Fenced,
            Ok(v1::TenantState::Purged) => Self::Purged,
            Ok(v1::TenantState::Unrecoverable) => Self::Unrecoverable,
            Ok(v1::TenantState::Unspecified) | Err(_) => Self::Unknown(number),
        }
    }
}

impl Tenant {
    pub(crate) fn from_wire(tenant: Option<v1::Tenant>) -> Result<Self, Error> {
        let tenant = required(tenant, "tenant")?;
        Ok(Self {
            name: tenant.name.parse().map_err(|_| Error::malformed("tenant.name"))?,
            uid: tenant.uid,
            state: TenantState::from_wire(tenant.state),
            create_time: time(tenant.create_time, "tenant.create_time")?,
            destroy_time: time_or_none(tenant.destroy_time, "tenant.destroy_time")?,
            fence_time: time_or_none(tenant.fence_time, "tenant.fence_time")?,
            etag: Etag::from_wire(tenant.etag),
            data_key_lease: duration_or_none(tenant.data_key_lease, "tenant.data_key_lease")?,
        })
    }
}

impl Client {
    /// Creates a tenant with its tenant key, without keys.
    pub fn create_tenant(&self, tenant: &TenantRef) -> Creation<Tenant> {
        self.create_tenant_with(tenant, TenantSettings::new())
    }

    /// Creates a tenant as [`create_tenant`](Self::create_tenant) does, with settings.
    pub fn create_tenant_with(&self, tenant: &TenantRef, settings: TenantSettings) -> Creation<Tenant> {
        let (client, tenant_id) = (self.clone(), tenant.tenant().to_owned());
        Creation::new(move |said| async move {
            let Said { request_id, validate_only, .. } = said;
            let data_key_lease = duration(settings.data_key_lease);
            let request = v1::CreateTenantRequest { tenant_id, request_id, validate_only, data_key_lease };
            let send = |c, r| async move { stub(c).create_tenant(r).await };
            Tenant::from_wire(client.call("CreateTenant", request, send).await?.tenant)
        })
    }

    /// Changes the settings of an active tenant. What they do not say stays; settings that say nothing are refused here, before
    /// anything is sent (reason `FIELD_INVALID`). Leases that were given out before run on.
    pub fn update_tenant(&self, tenant: &TenantRef, settings: TenantSettings) -> Change<Tenant> {
        let (client, name) = (self.clone(), tenant.to_string());
        Change::new(move |said| async move {
            let Said { etag, request_id, validate_only } = said;
            let paths: Vec<_> = settings.data_key_lease.iter().map(|_| "data_key_lease".to_owned()).collect();
            if paths.is_empty() {
                return Err(Error::nothing_to_update("UpdateTenant"));
            }
            let data_key_lease = duration(settings.data_key_lease);
            let request = v1::UpdateTenantRequest {
                tenant: Some(v1::Tenant { name, etag, data_key_lease, ..v1::Tenant::default() }),
                update_mask: Some(FieldMask { paths }),
                request_id,
                validate_only,
            };
            let send = |c, r| async move { stub(c).update_tenant(r).await };
            Tenant::from_wire(client.call("UpdateTenant", request, send).await?.tenant)
        })
    }

    /// Returns a tenant. A destroyed one is still found, with the level that its destruction has reached.
    pub async fn get_tenant(&self, tenant: &TenantRef) -> Result<Tenant, Error> {
        let request = v1::GetTenantRequest { name: tenant.to_string() };
        let answer = self.call("GetTenant", request, |c, r| async move { stub(c).get_tenant(r).await }).await?;
        Tenant::from_wire(answer.tenant)
    }

    /// Returns one page of all tenants, destroyed ones too, in the byte order of their names.
    pub async fn list_tenants(&self, page: PageRequest) -> Result<Page<Tenant>, Error> {
        let request = v1::ListTenantsRequest { page_size: page.wire_size(), page_token: page.wire_token() };
        let answer = self.call("ListTenants", request, |c, r| async move { stub(c).list_tenants(r).await }).await?;
        let tenants: Result<_, Error> =
            answer.tenants.into_iter().map(|tenant| Tenant::from_wire(Some(tenant))).collect();
        Ok(Page::new(tenants?, answer.next_page_token))
    }

    /// Returns up to `items_max` tenants, from all pages there are after a token. Where that was not all, `next` goes
    /// on exactly after the last.
    pub async fn list_all_tenants(&self, items_max: usize, after: Option<PageToken>) -> Result<Page<Tenant>, Error> {
        collect(items_max, after, |page| self.list_tenants(page)).await
    }

    /// Suspends an active tenant: once this returns, it neither seals nor opens. Nothing is lost.
    pub fn suspend_tenant(&self, tenant: &TenantRef) -> Change<Withdrawn<Tenant>> {
        let (client, name) = (self.clone(), tenant.to_string());
        Change::new(move |said| async move {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::SuspendTenantRequest { name, etag, request_id, validate_only };
            let send = |c, r| async move { stub(c).suspend_tenant(r).await };
            let answer = client.call("SuspendTenant", request, send).await?;
            Withdrawn::new(Tenant::from_wire(answer.tenant)?, answer.lease_end_time)
        })
    }

    /// Makes a suspended tenant active again.
    pub fn resume_tenant(&self, tenant: &TenantRef) -> Change<Tenant> {
        let (client, name) = (self.clone(), tenant.to_string());
        Change::new(move |said| async move {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::ResumeTenantRequest { name, etag, request_id, validate_only };
            let send = |c, r| async move { stub(c).resume_tenant(r).await };
            Tenant::from_wire(client.call("ResumeTenant", request, send).await?.tenant)
        })
    }

    /// Sets a tenant to be destroyed after a wait, `None` for the server's default; it stops sealing and opening at
    /// once. A wait of zero, where the server allows it, fences it before this returns. **Irreversible after the
    /// wait.** [`TenantState`] tells how far it has come, up to that old backups open nothing of it either.
    pub fn destroy_tenant(&self, tenant: &TenantRef, wait: Option<Duration>) -> Change<Withdrawn<Tenant>> {
        let (client, name) = (self.clone(), tenant.to_string());
        Change::new(move |said| async move {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::DestroyTenantRequest { name, wait: duration(wait), etag, request_id, validate_only };
            let send = |c, r| async move { stub(c).destroy_tenant(r).await };
            let answer = client.call("DestroyTenant", request, send).await?;
            Withdrawn::new(Tenant::from_wire(answer.tenant)?, answer.lease_end_time)
        })
    }

    /// Takes back a scheduled destruction; the tenant is suspended then.
    pub fn cancel_tenant_destruction(&self, tenant: &TenantRef) -> Change<Tenant> {
        let (client, name) = (self.clone(), tenant.to_string());
        Change::new(move |said| async move {
            let Said { etag, request_id, validate_only } = said;
            let request = v1::CancelTenantDestructionRequest { name, etag, request_id, validate_only };
            let send = |c, r| async move { stub(c).cancel_tenant_destruction(r).await };
            Tenant::from_wire(client.call("CancelTenantDestruction", request, send).await?.tenant)
        })
    }
}

fn stub(channel: Channel) -> TenantServiceClient<Channel> {
    TenantServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_api_is_known_and_another_keeps_its_number() {
        for number in 1..=6 {
            let name = v1::TenantState::try_from(number).unwrap().as_str_name();
            assert_eq!(format!("TENANT_STATE_{}", TenantState::from_wire(number).as_str()), name);
        }
        assert!(v1::TenantState::try_from(7).is_err(), "teach TenantState the new one");
        assert_eq!(TenantState::from_wire(0), TenantState::Unknown(0));
        assert_eq!(TenantState::from_wire(7), TenantState::Unknown(7));
    }
}
