//! Names, contexts and pages as they come on the wire.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::Error;
use super::pipeline::Call;
use crate::crypto::context::hash_of_caller;
use crate::crypto::{CallerPairs, ContextHash, Header, Kind, OpenError, PageTokenKey};
use crate::keyring;
use crate::noun::{DekUid, IndexName, KeyName, KeyVersion, TenantName};

/// The longest plaintext that the service seals itself.
const PLAINTEXT_BYTES_MAX: usize = 64 << 10;

/// Reads `tenants/{tenant}`.
pub(super) fn tenant(field: &'static str, text: &str) -> Result<TenantName, Error> {
    let rule =
        "must be tenants/{tenant}, with a name of 1 to 64 of A-Z a-z 0-9 . _ ~ - that begins with a letter or a digit";
    text.strip_prefix("tenants/").and_then(|name| name.parse().ok()).ok_or(Error::Field { field, rule })
}

/// A key, or one version of it.
pub(super) struct KeyPath {
    pub(super) tenant: TenantName,
    pub(super) key: KeyName,
    pub(super) version: Option<KeyVersion>,
}

/// Reads `tenants/{tenant}/keys/{key}`.
pub(super) fn key(field: &'static str, text: &str) -> Result<(TenantName, KeyName), Error> {
    let rule = "must be tenants/{tenant}/keys/{key}, with names of 1 to 64 of A-Z a-z 0-9 . _ ~ - that begin with a letter or a digit";
    match key_path(text) {
        Some(KeyPath { tenant, key, version: None }) => Ok((tenant, key)),
        Some(_) | None => Err(Error::Field { field, rule }),
    }
}

/// Reads `tenants/{tenant}/keys/{key}` or `tenants/{tenant}/keys/{key}/versions/{n}`.
pub(super) fn key_or_version(field: &'static str, text: &str) -> Result<KeyPath, Error> {
    let rule = "must be tenants/{tenant}/keys/{key} or tenants/{tenant}/keys/{key}/versions/{n}";
    key_path(text).ok_or(Error::Field { field, rule })
}

fn key_path(text: &str) -> Option<KeyPath> {
    let mut parts = text.split('/');
    let mut next = || parts.next();
    let (tenants, tenant, keys, key) = (next()?, next()?, next()?, next()?);
    let rest = (next(), next(), next());
    if tenants != "tenants" || keys != "keys" {
        return None;
    }
    let version = match rest {
        (None, ..) => None,
        (Some("versions"), Some(number), None) => Some(version(number)?),
        (Some(_), ..) => return None,
    };
    Some(KeyPath { tenant: tenant.parse().ok()?, key: key.parse().ok()?, version })
}

/// Only the one way to write a number: no sign, no leading zero.
fn version(text: &str) -> Option<KeyVersion> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then(|| KeyVersion::new(number)).flatten()
}

/// Hashes the encryption context of a call.
pub(super) fn context(tenant: &TenantName, pairs: &BTreeMap<String, String>, aad: &[u8]) -> Result<ContextHash, Error> {
    Ok(hash_of_caller(tenant.as_str(), aad, pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?)
}

/// Takes the pairs of an encryption context that many items share.
pub(super) fn pairs(tenant: &TenantName, pairs: &BTreeMap<String, String>) -> Result<CallerPairs, Error> {
    Ok(CallerPairs::of(tenant.as_str(), pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?)
}

/// Reads `tenants/{tenant}/indexes/{index}`.
pub(super) fn index(field: &'static str, text: &str) -> Result<(TenantName, IndexName), Error> {
    let rule = "must be tenants/{tenant}/indexes/{index}, with names of 1 to 64 of A-Z a-z 0-9 . _ ~ - that begin with a letter or a digit";
    let read = || {
        let (tenant, index) = text.strip_prefix("tenants/")?.split_once("/indexes/")?;
        Some((tenant.parse().ok()?, index.parse().ok()?))
    };
    read().ok_or(Error::Field { field, rule })
}

/// Reads the uid of a managed data key.
pub(super) fn dek_uid(field: &'static str, bytes: &[u8]) -> Result<DekUid, Error> {
    DekUid::from_slice(bytes).ok_or(Error::Field { field, rule: "must be 16 bytes" })
}

/// Takes what the service seals, or makes a MAC of, if it is not too long.
pub(super) fn plaintext(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > PLAINTEXT_BYTES_MAX { Err(Error::PlaintextTooLarge) } else { Ok(()) }
}

/// Reads the header of a blob that must be of this kind. A blob that a caller may well hold, but
/// gave to the wrong call, is told apart; all else just does not open.
pub(super) fn blob(blob: &[u8], kind: Kind) -> Result<Header, keyring::Error> {
    match Header::parse(blob) {
        Ok(header) if header.kind == kind => Ok(header),
        Ok(_) | Err(OpenError::Kind) if blob.get(4).is_some_and(|kind| CALLERS_KINDS.contains(kind)) => {
            Err(keyring::Error::WrongKind)
        }
        Ok(_) => Err(keyring::Error::Open(OpenError::Kind)),
        Err(error) => Err(keyring::Error::Open(error)),
    }
}

// The kinds that callers hold; see doc/formats.md.
const CALLERS_KINDS: std::ops::RangeInclusive<u8> = 0x01..=0x07;

/// Reads a waiting time, rounded up to milliseconds; unset is the service's default.
pub(super) fn wait_ms(wait: Option<prost_types::Duration>) -> Result<Option<u64>, Error> {
    let Some(wait) = wait else { return Ok(None) };
    let rule = "must be a duration that is not negative, with from 0 to 999,999,999 nanoseconds";
    let (seconds, nanos) = parts(&wait).ok_or(Error::Field { field: "wait", rule })?;
    Ok(Some(seconds.saturating_mul(1000).saturating_add(nanos.div_ceil(1_000_000))))
}

/// Reads a lease, in whole milliseconds; unset is none.
pub(super) fn lease_ms(field: &'static str, lease: Option<prost_types::Duration>) -> Result<Option<u64>, Error> {
    let Some(lease) = lease else { return Ok(None) };
    let rule = "must be from 0 s to 24 hours, in whole milliseconds";
    let whole = parts(&lease).filter(|(_, nanos)| nanos % 1_000_000 == 0);
    let lease_ms = whole.map(|(seconds, nanos)| seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000));
    lease_ms.filter(|lease_ms| *lease_ms <= keyring::LEASE_MS_MAX).map(Some).ok_or(Error::Field { field, rule })
}

/// Takes apart a duration that is one and not negative.
fn parts(duration: &prost_types::Duration) -> Option<(u64, u64)> {
    let nanos = u64::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some((u64::try_from(duration.seconds).ok()?, nanos))
}

/// A page that is asked for.
pub(super) struct Page {
    pub(super) size: usize,
    token: String,
}

/// Reads `page_size` and `page_token`.
pub(super) fn page(size: i32, token: String) -> Result<Page, Error> {
    let size = match size {
        0 => PAGE_SIZE_DEFAULT,
        1..=PAGE_SIZE_MAX => usize::try_from(size).unwrap_or(PAGE_SIZE_DEFAULT),
        _ => return Err(Error::Field { field: "page_size", rule: "must be from 0 to 1,000" }),
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Error::PageToken);
    }
    Ok(Page { size, token })
}

impl Page {
    /// Returns after what the listing goes on.
    pub(super) fn after<T: std::str::FromStr>(&self, call: &Call<'_>, listing: &str) -> Result<Option<T>, Error> {
        self.of(call.keyring().page_token_key(), &listing_of(call, listing))
    }

    /// Returns the place that the token holds, if it was made for this listing of this caller.
    pub(super) fn of<T: std::str::FromStr>(&self, key: &PageTokenKey, listing: &str) -> Result<Option<T>, Error> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let token = URL_SAFE_NO_PAD.decode(&self.token).map_err(|_| Error::PageToken)?;
        let place = key.open(listing, &token).ok_or(Error::PageToken)?;
        std::str::from_utf8(place).ok().and_then(|place| place.parse().ok()).map(Some).ok_or(Error::PageToken)
    }
}

/// Ends a page where it has enough bytes; returns whether anything was left out. One item is a page
/// in any case.
pub(super) fn cut_page<M: prost::Message>(items: &mut Vec<M>) -> bool {
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        bytes += item.encoded_len();
        bytes <= PAGE_BYTES_MAX
    });
    let kept = fits.count().max(1);
    let cut = kept < items.len();
    items.truncate(kept);
    cut
}

/// Makes the token of the next page, if there is one.
pub(super) fn next_page(call: &Call<'_>, listing: &str, more: bool, last: Option<&str>) -> String {
    let Some(last) = last.filter(|_| more) else { return String::new() };
    token(call.keyring().page_token_key(), &listing_of(call, listing), last.as_bytes())
}

/// Makes a token for a place in a listing of a caller.
pub(super) fn token(key: &PageTokenKey, listing: &str, place: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key.seal(listing, place))
}

// A token is of use to the caller it was given to, for the listing it came from.
fn listing_of(call: &Call<'_>, listing: &str) -> String {
    format!("{listing} {}", call.principal)
}

const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: i32 = 1_000;
const TOKEN_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_in_one_way_only() {
        assert!(index("index", "tenants/a/indexes/users.mail").is_ok());
        for bad in [
            "",
            "tenants/a",
            "tenants/a/indexes/",
            "tenants//indexes/b",
            "/tenants/a/indexes/b",
            "tenants/a/indexes/b/",
            "tenants/a/indexes/b/indexes/c",
            "tenants/a/keys/b",
            "Tenants/a/indexes/b",
            "tenants/a/indexes/-b",
        ] {
            assert!(index("index", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_path_is_read_in_one_way_only() {
        for good in ["tenants/a/keys/b", "tenants/A-1/keys/b.c~d_e"] {
            assert!(key("key", good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "tenants/a",
            "tenants/a/keys/",
            "tenants//keys/b",
            "/tenants/a/keys/b",
            "tenants/a/keys/b/",
            "tenants/a/keys/b/versions/1",
            "tenants/a/key/b",
            "Tenants/a/keys/b",
            "tenants/a/keys/b?x",
            "tenants/a/keys/-b",
            "projects/a/keys/b",
            "tenants/a/keys/b/c",
        ];
        for bad in bad {
            assert!(key("key", bad).is_err(), "{bad}");
        }
        assert_eq!(
            key_or_version("name", "tenants/a/keys/b/versions/7").map(|path| path.version.map(KeyVersion::get)).ok(),
            Some(Some(7))
        );
        for bad in [
            "tenants/a/keys/b/versions/0",
            "tenants/a/keys/b/versions/07",
            "tenants/a/keys/b/versions/+7",
            "tenants/a/keys/b/versions/16777216",
            "tenants/a/keys/b/versions/7/x",
            "tenants/a/keys/b/versions",
        ] {
            assert!(key_or_version("name", bad).is_err(), "{bad}");
        }
    }
}
