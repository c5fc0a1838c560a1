//! What fuzzing calls: one function for each decoder of what a server answers, and of names. Each takes any bytes and must
//! come back. The server's side is `kms-server/src/fuzzing.rs`, and how they are run is said there.

use std::time::Duration;

use kms_proto::v1;
use prost::Message;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

use crate::wire::{time_or_none, version};
use crate::{CallerIdentity, Error, Key, KeyRef, KeyVersion, Page, Tenant, TenantRef};

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

const ANSWERS: [Answer; 7] = [
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
];

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

/// The name of a tenant or key, each of which is written in one way only.
fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<TenantRef>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = text.parse::<KeyRef>() {
        assert_eq!(name.to_string(), text);
    }
    if let Err(error) = TenantRef::new(text) {
        drop(error.to_string());
    }
}

#[cfg(test)]
mod tests;
