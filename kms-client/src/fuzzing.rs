//! What fuzzing calls: one function for each decoder of what a server answers, and of names. Each takes any bytes and must
//! come back. The server's side is `kms-server/src/fuzzing.rs`, and how they are run is said there.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kms_proto::v1;
use prost::Message;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

use crate::data_key::Made;
use crate::lease::{Began, Clock, Leased, SystemClock};
use crate::wire::{time_or_none, version};
use crate::{
    CallerIdentity, DestroyedDataKey, Error, GivenDataKey, GivenIndexKey, Grant, GrantRef, IndexRef, ItemError, Key,
    KeyRef, KeyVersion, Page, Tenant, TenantRef, Withdrawn, crypto_batch, data_key, grant, mac, permission,
};

/// A decoder: its name is that of its program and of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("client_answer", answer), ("client_error", error), ("client_name", name)];

/// Runs a target by its name.
#[allow(clippy::panic, reason = "a program for a target that does not exist is a mistake to be seen at once")]
pub fn run(name: &str, data: &[u8]) {
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        panic!("there is no target {name:?}");
    };
    target(data);
}

/// An answer: a byte that says to which call, then its message.
fn answer(data: &[u8]) {
    let Some((number, message)) = data.split_first() else { return };
    drop(ANSWERS[usize::from(*number) % ANSWERS.len()](message));
}

type Answer = fn(&[u8]) -> Option<Result<(), Error>>;

const ANSWERS: [Answer; 24] = [
    |bytes| decoded(bytes, |answer: v1::GetKeyResponse| Key::from_wire(answer.key).map(drop)),
    |bytes| {
        decoded(bytes, |answer: v1::EnableKeyResponse| {
            Key::from_wire(answer.key)?;
            KeyVersion::from_wire(answer.version).map(drop)
        })
    },
    |bytes| decoded(bytes, |answer: v1::GetTenantResponse| Tenant::from_wire(answer.tenant).map(drop)),
    |bytes| {
        decoded(bytes, |answer: v1::ListKeysResponse| {
            let items: Result<Vec<_>, Error> = answer.keys.into_iter().map(|key| Key::from_wire(Some(key))).collect();
            drop(Page::new(items?, answer.next_page_token));
            Ok(())
        })
    },
    |bytes| decoded(bytes, |answer: v1::GetCallerIdentityResponse| CallerIdentity::from_wire(answer).map(drop)),
    |bytes| decoded(bytes, |answer: v1::GetStatusResponse| crate::Status::from_wire(answer).map(drop)),
    |bytes| {
        decoded(bytes, |answer: v1::DecryptResponse| version(answer.key_version, "key_version").map(drop))?.ok();
        let time = prost_types::Timestamp::decode(bytes).ok()?;
        Some(time_or_none(Some(time), "time").map(drop))
    },
    |bytes| {
        decoded(bytes, |answer: v1::ScheduleKeyDestructionResponse| {
            Withdrawn::new(Key::from_wire(answer.key)?, answer.lease_end_time).map(drop)
        })
    },
    |bytes| decoded(bytes, |answer: v1::ListDataKeysResponse| data_key::read_page(answer).map(drop)),
    |bytes| {
        decoded(bytes, |answer: v1::CreateDataKeyResponse| {
            look_at(Made::one(leased(answer.clone())).rehearsed());
            look_at(Made::one(leased(answer.clone())).uids());
            Made::one(leased(answer)).created().map(drop)
        })
    },
    |bytes| decoded(bytes, |answer| GivenDataKey::from_wire(leased(answer)).map(drop)),
    |bytes| decoded(bytes, |answer| DestroyedDataKey::from_wire(answer).map(drop)),
    |bytes| decoded(bytes, |answer| GivenIndexKey::from_wire(leased(answer)).map(drop)),
    |bytes| batch(bytes, |answer: v1::BatchEncryptResponse| answer.results.len(), crypto_batch::read_encrypted),
    |bytes| batch(bytes, |answer: v1::BatchDecryptResponse| answer.results.len(), crypto_batch::read_decrypted),
    |bytes| {
        batch(
            bytes,
            |answer: v1::BatchReEncryptResponse| answer.results.len(),
            |answer, count| crypto_batch::read_moved(answer, count, crypto_batch::into_ciphertext),
        )
    },
    |bytes| {
        batch(
            bytes,
            |answer: v1::BatchGenerateDataKeysResponse| answer.results.len(),
            |answer, count| {
                look_at(crypto_batch::read_generated_wrapped(leased(answer.clone()), count));
                crypto_batch::read_generated(leased(answer), count)
            },
        )
    },
    |bytes| {
        batch(
            bytes,
            |answer: v1::BatchDecryptDataKeysResponse| answer.results.len(),
            |answer, count| crypto_batch::read_unwrapped(leased(answer), count),
        )
    },
    |bytes| {
        batch(
            bytes,
            |answer: v1::BatchCreateDataKeysResponse| answer.results.len(),
            |answer, count| {
                look_at(Made::batch(leased(answer.clone()), count).uids());
                Made::batch(leased(answer), count).created()
            },
        )
    },
    |bytes| {
        batch(
            bytes,
            |answer: v1::BatchGetDataKeysResponse| answer.results.len(),
            |answer, count| data_key::read_given(leased(answer), count),
        )
    },
    |bytes| {
        batch(bytes, |answer: v1::BatchDestroyDataKeysResponse| answer.results.len(), data_key::read_destroyed)?.ok();
        batch(bytes, |answer: v1::BatchGenerateMacsResponse| answer.results.len(), mac::read_generated)?.ok();
        batch(bytes, |answer: v1::BatchVerifyMacsResponse| answer.results.len(), mac::read_verified)
    },
    |bytes| decoded(bytes, |answer: v1::GetGrantResponse| Grant::from_wire(answer.grant).map(drop)),
    |bytes| {
        decoded(bytes, |answer: v1::ListGrantsResponse| {
            look_at(grant::read_page(answer));
            Ok(())
        })
    },
    |bytes| {
        decoded(bytes, |answer: v1::TestPermissionsResponse| {
            let count = answer.permissions.len();
            assert!(permission::read_tested(answer.clone(), count + 1).is_err());
            look_at(permission::read_tested(answer, count));
            Ok(())
        })
    },
];

/// An answer that came at once.
fn leased<R>(answer: R) -> Leased<R> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Began::now(&clock).answered(answer)
}

/// The answer of a batch, read for as many items as it has results, and for one more, which it must refuse.
fn batch<M: Message + Default + Clone, T: Debug>(
    bytes: &[u8],
    count: impl Fn(M) -> usize,
    read: impl Fn(M, usize) -> Result<Vec<Result<T, ItemError>>, Error>,
) -> Option<Result<(), Error>> {
    decoded(bytes, |answer: M| {
        let count = count(answer.clone());
        assert!(read(answer.clone(), count + 1).is_err());
        let results = read(answer, count)?;
        assert_eq!(results.len(), count);
        look_at(Ok::<_, Error>(results));
        Ok(())
    })
}

/// What is read is shown to people, without what is secret in it.
fn look_at<T: Debug>(read: Result<T, Error>) {
    drop(format!("{read:?}"));
}

fn decoded<M: Message + Default>(bytes: &[u8], read: impl FnOnce(M) -> Result<(), Error>) -> Option<Result<(), Error>> {
    let message = M::decode(bytes).ok()?;
    // An error is shown to people.
    Some(read(message).inspect_err(|error| drop((error.to_string(), format!("{error:?}")))))
}

/// A refusal: a byte for its code, then the details, as an object, and as the message of a reply's headers. Details in
/// headers are left out: tonic panics at those that are no base64, which `guard.rs` catches.
fn error(data: &[u8]) {
    let Some((code, details)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(details).into_owned();
    let status = Status::with_details(Code::from_i32(i32::from(*code)), text, details.to_vec().into());
    let mut headers = HeaderMap::new();
    let code = HeaderValue::from_bytes(&[*code]).ok();
    for (name, value) in [("grpc-status", code), ("grpc-message", HeaderValue::from_bytes(details).ok())] {
        headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
    for status in [Some(status), Status::from_header_map(&headers)].into_iter().flatten() {
        let error = Error::from_status("Encrypt", "localhost:8443", Duration::from_secs(1), status, || None);
        assert!(error.reason().is_none_or(|reason| !reason.contains(|c: char| !c.is_ascii_graphic())));
        drop((error.to_string(), format!("{error:?}")));
    }
}

/// The name of a tenant, key, index or grant, or the uid of a data key, each of which is written in one way only.
fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<TenantRef>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = text.parse::<KeyRef>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = text.parse::<IndexRef>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = text.parse::<GrantRef>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(uid) = text.parse::<crate::DataKeyUid>() {
        assert_eq!(uid.to_string(), text.to_ascii_lowercase());
    }
    if let Err(error) = TenantRef::new(text) {
        drop(error.to_string());
    }
}

#[cfg(test)]
mod tests;
