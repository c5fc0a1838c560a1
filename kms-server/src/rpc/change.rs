//! What all calls that change something share: the terms they come on, and how their answers tell
//! what became of the object.

use kms_proto::v1;

use super::error::Error;
use super::{convert, grants};
use crate::keyring::{Changed, Etag, How, InvalidEtag, InvalidRequestId, Object, RequestId, Terms};

/// Reads `request_id`, `validate_only` and `etag`; the field of the etag is named as its call has it.
pub(super) fn terms(request_id: &str, validate_only: bool, etag: (&'static str, &str)) -> Result<Terms, Error> {
    let (etag_field, etag) = etag;
    let id = |text: &str| -> Result<RequestId, Error> {
        text.parse().map_err(|InvalidRequestId| Error::Field {
            field: "request_id",
            rule: "must be 1 to 64 of A-Z a-z 0-9 . _ ~ -, chosen anew for each intended change",
        })
    };
    let tag = |text: &str| -> Result<Etag, Error> {
        text.parse().map_err(|InvalidEtag| Error::Field {
            field: etag_field,
            rule: "must be one that this service gave: 32 of 0-9 a-f",
        })
    };
    Ok(Terms {
        request_id: Some(request_id).filter(|text| !text.is_empty()).map(id).transpose()?,
        etag: Some(etag).filter(|text| !text.is_empty()).map(tag).transpose()?,
        rehearse: validate_only,
    })
}

/// Returns the tenant that a change was about.
pub(super) fn changed_tenant(changed: &Changed) -> Option<v1::Tenant> {
    match &changed.object {
        Object::Tenant(tenant) => {
            let mut tenant = convert::tenant(tenant);
            forget_what_is_not(changed, &mut tenant.uid, &mut tenant.etag);
            Some(tenant)
        }
        Object::Key(_) | Object::Version(..) | Object::DataKeys(_) | Object::Grant(_) => None,
    }
}

/// Returns the grant that a change was about.
pub(super) fn changed_grant(changed: &Changed) -> Option<v1::Grant> {
    let Object::Grant(view) = &changed.object else { return None };
    let mut grant = grants::grant(view);
    if let How::Rehearsed { creates: true } = changed.how {
        grant.name.clear();
    }
    Some(grant)
}

/// Returns the key, and the version, that a change was about.
pub(super) fn changed_key(changed: &Changed) -> (Option<v1::Key>, Option<v1::KeyVersion>) {
    let told = |key| {
        let mut key = convert::key(key);
        forget_what_is_not(changed, &mut key.uid, &mut key.etag);
        key
    };
    match &changed.object {
        Object::Tenant(_) | Object::DataKeys(_) | Object::Grant(_) => (None, None),
        Object::Key(key) => (Some(told(key)), None),
        Object::Version(key, version) => {
            let mut version = convert::version_of(key, version);
            forget_what_is_not(changed, &mut String::new(), &mut version.etag);
            (Some(told(key)), Some(version))
        }
    }
}

/// A rehearsal makes nothing that could have an etag, nor anything new that could have a uid.
fn forget_what_is_not(changed: &Changed, uid: &mut String, etag: &mut String) {
    if let How::Rehearsed { creates } = changed.how {
        etag.clear();
        if creates {
            uid.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_terms_ask_for_nothing() {
        assert_eq!(terms("", false, ("etag", "")).unwrap(), Terms::default());
    }

    #[test]
    fn terms_that_are_none_name_their_field() {
        let field = |result: Result<Terms, Error>| match result {
            Err(Error::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(terms("a b", false, ("etag", ""))), "request_id");
        assert_eq!(field(terms("", false, ("key.etag", "x"))), "key.etag");
    }
}
