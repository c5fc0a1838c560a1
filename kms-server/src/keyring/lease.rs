//! How long whoever gets a data key or an index key of a tenant may hold it.
//!
//! The tenant's row has its lease, and the longest that was in force in the last 24 hours. So
//! whatever takes the use of keys away can say when nobody who keeps to leases holds one any more,
//! without a write for each answer.
//!
//! **Invariant:** a lease is at most [`LEASE_MS_MAX`], so that none given before an `until` outlives it.

use crate::noun::UnixMillis;
use crate::rows;

/// The lease of a tenant for which nothing else was set, in milliseconds: 5 minutes.
pub const LEASE_MS_DEFAULT: u64 = 300_000;
/// The longest lease, in milliseconds: 24 hours.
pub const LEASE_MS_MAX: u64 = 24 * 3600 * 1000;

/// The lease in a tenant's row, in milliseconds.
pub(super) fn lease_ms(tenant: &rows::Tenant) -> u64 {
    tenant.lease_ms.unwrap_or(LEASE_MS_DEFAULT).min(LEASE_MS_MAX)
}

/// The longest lease under which somebody may hold a key at this time, in milliseconds. A clock that
/// is not trusted ends none.
pub(super) fn longest_ms(tenant: &rows::Tenant, now: UnixMillis, clock_held: bool) -> u64 {
    let earlier = if clock_held || now < tenant.longest_until_ms { tenant.longest_lease_ms } else { 0 };
    lease_ms(tenant).max(earlier.min(LEASE_MS_MAX))
}

/// Returns the row with another lease from now on. Nobody may be using the tenant meanwhile.
pub(super) fn with_lease(tenant: rows::Tenant, next_ms: u64, now: UnixMillis, clock_held: bool) -> rows::Tenant {
    rows::Tenant {
        longest_lease_ms: longest_ms(&tenant, now, clock_held),
        // Never earlier than before, wherever the clock went.
        longest_until_ms: tenant.longest_until_ms.max(now.saturating_add(LEASE_MS_MAX + PLANNING_MS_MAX)),
        lease_ms: Some(next_ms),
        ..tenant
    }
}

/// A change is planned a moment before nobody is inside any more.
const PLANNING_MS_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const DAY: u64 = LEASE_MS_MAX;

    fn row(lease: u64) -> rows::Tenant {
        rows::Tenant { lease_ms: Some(lease), ..rows::Tenant::default() }
    }

    #[test]
    fn a_row_without_a_lease_has_five_minutes() {
        assert_eq!(lease_ms(&rows::Tenant::default()), 5 * MINUTE);
        assert_eq!(longest_ms(&rows::Tenant::default(), 9, false), 5 * MINUTE);
    }

    #[test]
    fn a_shorter_lease_leaves_the_longer_in_force_for_a_day() {
        let now = 100 * DAY;
        let shorter = with_lease(row(DAY), MINUTE, now, false);
        assert_eq!(lease_ms(&shorter), MINUTE);
        assert_eq!(longest_ms(&shorter, now + DAY + MINUTE - 1, false), DAY);
        assert_eq!(longest_ms(&shorter, now + DAY + MINUTE, false), MINUTE);
        assert_eq!(longest_ms(&shorter, now + DAY + MINUTE, true), DAY, "nobody knows whether it is over");
    }

    #[test]
    fn the_longest_of_several_counts() {
        let now = 100 * DAY;
        let mut tenant = row(3 * MINUTE);
        for (hours, lease) in [(0, 50 * MINUTE), (1, 2 * MINUTE), (2, MINUTE)] {
            tenant = with_lease(tenant, lease, now + hours * 60 * MINUTE, false);
        }
        assert_eq!(longest_ms(&tenant, now + 25 * 60 * MINUTE, false), 50 * MINUTE);
        assert_eq!(longest_ms(&tenant, now + 26 * 60 * MINUTE + MINUTE, false), MINUTE);
    }

    #[test]
    fn a_clock_set_back_ends_none_early() {
        let now = 100 * DAY;
        let tenant = with_lease(with_lease(row(DAY), MINUTE, now, false), 2 * MINUTE, now - 50 * DAY, false);
        assert_eq!(longest_ms(&tenant, now + DAY - 1, false), DAY);
    }
}
