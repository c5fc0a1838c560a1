//! What is done with a key of a token, in the process of the module: find, make, wrap, unwrap, permit, destroy.
//!
//! Return codes do not tell a wrong key from trouble on every token: some have one code for any AES-GCM that fails. So
//! after a decryption that failed, whatever the code, a fresh block is sealed and opened with the same key: if that
//! works it was the wrap, else it is the token. It also makes all failures take the same steps, so that neither their
//! time nor their error tells where AES-CBC's padding broke.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism as Cryptoki, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use cryptoki::types::Ulong;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::message::{Answer, Choice, Refusal, SecretKey, Step};
use super::module::{Answered, code_of, is_logged_in, trouble};
use super::stored::{CBC_IV_BYTES, GCM_IV_BYTES, ID_BYTES_MAX, KEY_BYTES, Mechanism, Wrap, checked};
use crate::noun::Random;

/// A session, and what is asked beside it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) session: &'a Session,
    pub(super) library: &'a Pkcs11,
    pub(super) slot: Slot,
}

/// A key, by its label and id.
pub(super) type Key<'a> = (&'a str, &'a [u8]);

/// Finds a key by its label: whoever made it, it must be fit for a master key.
pub(super) fn find(session: &Session, label: &str) -> Answered<Answer> {
    let handle = the_one(session, &by_label(label))?;
    told_of(session, handle)
}

/// Makes a key, unless there is one.
pub(super) fn create(
    place: Place<'_>,
    label: &str,
    id: &[u8],
    mechanism: Choice,
    rng: &dyn Random,
) -> Answered<Answer> {
    let session = place.session;
    match find(session, label) {
        Err(Answer::Refused { refusal: Refusal::Absent, .. }) => {}
        found => {
            // The trial of the call that made it may have failed, and so may have its removal.
            let (told, handle) = (found?, the_one(session, &by_label(label))?);
            if !is_disabled(session, handle)? {
                seal(place, handle, mechanism, b"trial", &*fresh(rng), rng)?;
            }
            return Ok(told);
        }
    }
    let handle = generate(session, label, id)?;
    let fit = told_of(session, handle).and_then(|told| {
        // Before anything hangs on it: a token that cannot wrap is told from the first call on.
        seal(place, handle, mechanism, b"trial", &*fresh(rng), rng)?;
        Ok(told)
    });
    if fit.is_err() {
        // No epoch was ever wrapped under it. If this fails too, the next call finds it and says the same.
        drop(session.destroy_object(handle));
    }
    fit
}

/// Wraps an epoch key.
pub(super) fn wrap(
    place: Place<'_>,
    key: Key<'_>,
    mechanism: Choice,
    bound: &[u8],
    epoch_key: &[u8],
    rng: &dyn Random,
) -> Answered<Answer> {
    let handle = usable(place.session, key)?;
    seal(place, handle, mechanism, bound, epoch_key, rng).map(Answer::Wrapped)
}

/// Unwraps one.
pub(super) fn unwrap(
    place: Place<'_>,
    key: Key<'_>,
    bound: &[u8],
    stored: &[u8],
    rng: &dyn Random,
) -> Answered<Answer> {
    let handle = usable(place.session, key)?;
    // Only now: what cannot be reached is never called a wrong key.
    let Some(wrap) = Wrap::parse(stored) else { return Ok(Answer::WrongKey) };
    let failed = match open(place.session, handle, &wrap, bound) {
        Ok(Some(key)) => return Ok(Answer::Unwrapped(SecretKey(key))),
        Ok(None) => None,
        Err(error) => Some(error),
    };
    let mechanism = match wrap {
        Wrap::Gcm { .. } => Mechanism::Gcm,
        Wrap::CbcPad { .. } => Mechanism::CbcPad,
    };
    let trial = fresh(rng);
    match (seal_with(place.session, handle, mechanism, bound, &*trial, rng), failed) {
        // The token works now: what failed by the way opens, and what is not of this key does not.
        (Ok(_), _) => match open(place.session, handle, &wrap, bound) {
            Ok(Some(key)) => Ok(Answer::Unwrapped(SecretKey(key))),
            Ok(None) | Err(_) => Ok(Answer::WrongKey),
        },
        (Err(_), Some(error)) => Err(trouble(Step::Decrypt)(error)),
        (Err(failed), None) => Err(failed.into_trouble()),
    }
}

/// Lets a key be used, or not.
pub(super) fn permit(session: &Session, (label, id): Key<'_>, on: bool) -> Answered<Answer> {
    let handle = the_one(session, &by_label_and_id(label, id))?;
    let wanted = [Attribute::Encrypt(on), Attribute::Decrypt(on)];
    let changed = session.update_attributes(handle, &wanted);
    let is = [switch(session, handle, AttributeType::Encrypt)?, switch(session, handle, AttributeType::Decrypt)?];
    if is == [Some(on); 2] {
        return Ok(Answer::Done);
    }
    Err(match changed {
        Ok(()) => not_allowed("it says that it changed CKA_ENCRYPT and CKA_DECRYPT, and did not"),
        Err(error) if is_refusal(&error) => not_allowed(&format!(
            "C_SetAttributeValue of CKA_ENCRYPT and CKA_DECRYPT returned {}; disable or destroy the key with the maker's own tools",
            code_of(&error)
        )),
        Err(error) => trouble(Step::Change)(error),
    })
}

/// Destroys a key, and looks that it is gone.
pub(super) fn destroy(session: &Session, (label, id): Key<'_>) -> Answered<Answer> {
    let handle = the_one(session, &by_label_and_id(label, id))?;
    let destroyed = session.destroy_object(handle);
    match the_one(session, &by_label_and_id(label, id)) {
        Err(Answer::Refused { refusal: Refusal::Absent, .. }) if destroyed.is_ok() => Ok(Answer::Done),
        Err(answer @ Answer::Trouble { .. }) => Err(answer),
        Ok(_) | Err(_) => Err(match destroyed {
            Ok(()) => not_allowed("it says that it destroyed the key, and did not"),
            Err(error) if is_refusal(&error) => not_allowed(&format!("C_DestroyObject returned {}", code_of(&error))),
            Err(error) => trouble(Step::Destroy)(error),
        }),
    }
}

fn by_label(label: &str) -> [Attribute; 2] {
    [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(label.as_bytes().to_vec())]
}

fn by_label_and_id(label: &str, id: &[u8]) -> [Attribute; 3] {
    let [class, label] = by_label(label);
    [class, label, Attribute::Id(id.to_vec())]
}

fn the_one(session: &Session, template: &[Attribute]) -> Answered<ObjectHandle> {
    let mut found = Vec::new();
    for handle in session.iter_objects(template).map_err(trouble(Step::Find))?.take(2) {
        found.push(handle.map_err(trouble(Step::Find))?);
    }
    match found[..] {
        [handle] => Ok(handle),
        [] if !is_logged_in(session)? => {
            Err(Answer::Trouble { step: Step::Find, code: "CKR_USER_NOT_LOGGED_IN".to_owned() })
        }
        [] => Err(refused(Refusal::Absent, "")),
        [..] => Err(refused(Refusal::Several, "")),
    }
}

/// Finds a key that may be used.
fn usable(session: &Session, (label, id): Key<'_>) -> Answered<ObjectHandle> {
    let handle = the_one(session, &by_label_and_id(label, id))?;
    if is_disabled(session, handle)? { Err(refused(Refusal::Disabled, "")) } else { Ok(handle) }
}

/// Either of the two will do: a token may have been interrupted between them.
fn is_disabled(session: &Session, handle: ObjectHandle) -> Answered<bool> {
    let mut is_disabled = false;
    for use_of in [AttributeType::Encrypt, AttributeType::Decrypt] {
        is_disabled |= switch(session, handle, use_of)? == Some(false);
    }
    Ok(is_disabled)
}

/// Tells of a key that is fit for a master key.
fn told_of(session: &Session, handle: ObjectHandle) -> Answered<Answer> {
    let mut wrong = Vec::new();
    for (attribute, name, wanted) in MUST_BE {
        match switch(session, handle, attribute)? {
            Some(is) if is == wanted => {}
            Some(is) => wrong.push(format!("{name} is {is}")),
            None => wrong.push(format!("{name} is not told")),
        }
    }
    let (mut id, mut seen) = (Vec::new(), 0);
    let others = [AttributeType::KeyType, AttributeType::ValueLen, AttributeType::Id];
    for attribute in session.get_attributes(handle, &others).map_err(trouble(Step::Read))? {
        match attribute {
            Attribute::KeyType(KeyType::AES) => seen += 1,
            Attribute::KeyType(_) => wrong.push("it is no AES key".to_owned()),
            Attribute::ValueLen(bytes) if *bytes == KEY_BYTES as u64 => seen += 1,
            Attribute::ValueLen(bytes) => wrong.push(format!("it has {bytes} bytes")),
            Attribute::Id(bytes) => id = bytes,
            _ => {}
        }
    }
    if seen != 2 && wrong.is_empty() {
        wrong.push("CKA_KEY_TYPE or CKA_VALUE_LEN is not told".to_owned());
    }
    if !(1..=ID_BYTES_MAX).contains(&id.len()) {
        wrong.push(format!("its CKA_ID has {} bytes, not 1 to {ID_BYTES_MAX}", id.len()));
    }
    if !wrong.is_empty() {
        return Err(refused(Refusal::Unfit, &wrong.join(", ")));
    }
    let uses = [switch(session, handle, AttributeType::Encrypt)?, switch(session, handle, AttributeType::Decrypt)?];
    Ok(Answer::Key { id, enabled: !uses.contains(&Some(false)) })
}

/// What a master key must be: made on the token, and never to leave it, neither in clear nor under another key.
const MUST_BE: [(AttributeType, &str, bool); 8] = [
    (AttributeType::Token, "CKA_TOKEN", true),
    (AttributeType::Private, "CKA_PRIVATE", true),
    (AttributeType::Local, "CKA_LOCAL", true),
    (AttributeType::Sensitive, "CKA_SENSITIVE", true),
    (AttributeType::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE", true),
    (AttributeType::Extractable, "CKA_EXTRACTABLE", false),
    (AttributeType::NeverExtractable, "CKA_NEVER_EXTRACTABLE", true),
    (AttributeType::Wrap, "CKA_WRAP", false),
];

/// Returns an attribute that is true or false; nothing where the token does not know it.
fn switch(session: &Session, handle: ObjectHandle, attribute: AttributeType) -> Answered<Option<bool>> {
    let read = match session.get_attributes(handle, &[attribute]) {
        Ok(read) => read,
        Err(Error::Pkcs11(RvError::AttributeTypeInvalid, _)) => return Ok(None),
        Err(error) => return Err(trouble(Step::Read)(error)),
    };
    Ok(match read.first() {
        Some(
            Attribute::Token(is)
            | Attribute::Private(is)
            | Attribute::Local(is)
            | Attribute::Sensitive(is)
            | Attribute::AlwaysSensitive(is)
            | Attribute::Extractable(is)
            | Attribute::NeverExtractable(is)
            | Attribute::Wrap(is)
            | Attribute::Encrypt(is)
            | Attribute::Decrypt(is),
        ) => Some(*is),
        Some(_) | None => None,
    })
}

fn generate(session: &Session, label: &str, id: &[u8]) -> Answered<ObjectHandle> {
    let template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(Ulong::new(KEY_BYTES as u64)),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Modifiable(true),
    ];
    let mut stricter = template.clone();
    stricter.push(Attribute::Copyable(false));
    let made = match session.generate_key(&Cryptoki::AesKeyGen, &stricter) {
        // Older than that attribute.
        Err(Error::Pkcs11(
            RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::AttributeReadOnly
            | RvError::TemplateInconsistent,
            _,
        )) => session.generate_key(&Cryptoki::AesKeyGen, &template),
        made => made,
    };
    made.map_err(|error| {
        if is_refusal(&error) {
            not_allowed(&format!("C_GenerateKey of CKM_AES_KEY_GEN with 32 bytes returned {}", code_of(&error)))
        } else {
            trouble(Step::Generate)(error)
        }
    })
}

/// Seals a key with the mechanism that was chosen, and opens it again.
fn seal(
    place: Place<'_>,
    handle: ObjectHandle,
    choice: Choice,
    bound: &[u8],
    key: &[u8],
    rng: &dyn Random,
) -> Answered<Vec<u8>> {
    let with = |mechanism| seal_with(place.session, handle, mechanism, bound, key, rng);
    let sealed = match choice {
        Choice::Gcm => with(Mechanism::Gcm),
        Choice::CbcPad => with(Mechanism::CbcPad),
        Choice::Auto if !offers_gcm(place) => with(Mechanism::CbcPad),
        Choice::Auto => with(Mechanism::Gcm).or_else(|failed| {
            // If that is because the token is gone, this fails too, and says so.
            with(Mechanism::CbcPad).map_err(|_| failed)
        }),
    };
    sealed.map_err(SealFailed::into_answer)
}

/// Whether the token says that it has AES-GCM for keys of 256 bits. Some count key lengths in bytes, some in bits.
fn offers_gcm(place: Place<'_>) -> bool {
    let Ok(info) = place.library.get_mechanism_info(place.slot, MechanismType::AES_GCM) else { return false };
    let range = info.min_key_size()..=info.max_key_size();
    let has_length = info.max_key_size() == 0 || range.contains(&32) || range.contains(&256);
    info.encrypt() && info.decrypt() && has_length
}

/// Why sealing did not work.
enum SealFailed {
    /// The token returned an error.
    Module(Error),
    /// It answered what is not the key, or of another length.
    Wrong(&'static str),
}

impl SealFailed {
    fn into_answer(self) -> Answer {
        match self {
            SealFailed::Module(error) if is_refusal(&error) => not_allowed(&format!(
                "C_Encrypt or C_Decrypt returned {}: check backend.pkcs11_mechanism, and the mechanisms that the token has",
                code_of(&error)
            )),
            SealFailed::Wrong(what) => not_allowed(what),
            SealFailed::Module(error) => trouble(Step::Encrypt)(error),
        }
    }

    fn into_trouble(self) -> Answer {
        match self {
            SealFailed::Module(error) => trouble(Step::Encrypt)(error),
            SealFailed::Wrong(what) => Answer::Trouble { step: Step::Encrypt, code: what.to_owned() },
        }
    }
}

/// Seals a key in its stored form, and opens it again: what a token does not give back is not given out.
fn seal_with(
    session: &Session,
    handle: ObjectHandle,
    mechanism: Mechanism,
    bound: &[u8],
    key: &[u8],
    rng: &dyn Random,
) -> Result<Vec<u8>, SealFailed> {
    let stored = match mechanism {
        Mechanism::Gcm => seal_gcm(session, handle, bound, key, rng)?,
        Mechanism::CbcPad => {
            let mut iv = [0; CBC_IV_BYTES];
            rng.fill(&mut iv);
            let sealed =
                session.encrypt(&Cryptoki::AesCbcPad(iv), handle, &checked(bound, key)).map_err(SealFailed::Module)?;
            Wrap::CbcPad { iv, sealed: &sealed }.stored()
        }
    };
    let stored =
        stored.ok_or(SealFailed::Wrong("the token's ciphertext has a length that its mechanism does not make"))?;
    let wrap =
        Wrap::parse(&stored).ok_or(SealFailed::Wrong("the stored form of a wrap is not read as it was written"))?;
    match open(session, handle, &wrap, bound).map_err(SealFailed::Module)? {
        Some(opened) if bool::from(opened[..].ct_eq(key)) => Ok(stored),
        Some(_) | None => Err(SealFailed::Wrong("what the token encrypts it does not decrypt to the same")),
    }
}

/// AES-GCM. The token may put an IV of its own in the place of ours; some insist on it, and take only zeros there.
fn seal_gcm(
    session: &Session,
    handle: ObjectHandle,
    bound: &[u8],
    key: &[u8],
    rng: &dyn Random,
) -> Result<Option<Vec<u8>>, SealFailed> {
    let mut iv = [0; GCM_IV_BYTES];
    rng.fill(&mut iv);
    let sealed = match encrypt_gcm(session, handle, &mut iv, bound, key) {
        Err(Error::Pkcs11(RvError::ArgumentsBad | RvError::MechanismParamInvalid, _)) => {
            iv = [0; GCM_IV_BYTES];
            encrypt_gcm(session, handle, &mut iv, bound, key)
        }
        sealed => sealed,
    };
    let sealed = sealed.map_err(SealFailed::Module)?;
    if iv == [0; GCM_IV_BYTES] {
        return Err(SealFailed::Wrong("the token was to make an IV for AES-GCM, and made none"));
    }
    Ok(Wrap::Gcm { iv, sealed: &sealed }.stored())
}

fn encrypt_gcm(
    session: &Session,
    handle: ObjectHandle,
    iv: &mut [u8; GCM_IV_BYTES],
    bound: &[u8],
    key: &[u8],
) -> cryptoki::error::Result<Vec<u8>> {
    session.encrypt(&Cryptoki::AesGcm(GcmParams::new(iv, bound, Ulong::new(GCM_TAG_BITS))?), handle, key)
}

/// Opens a wrap; nothing where it opens to what is not bound to this.
fn open(
    session: &Session,
    handle: ObjectHandle,
    wrap: &Wrap<'_>,
    bound: &[u8],
) -> cryptoki::error::Result<Option<Zeroizing<[u8; KEY_BYTES]>>> {
    let (plain, is_checked) = match wrap {
        Wrap::Gcm { iv, sealed } => {
            let mut iv = *iv;
            let params = GcmParams::new(&mut iv, bound, Ulong::new(GCM_TAG_BITS))?;
            (Zeroizing::new(session.decrypt(&Cryptoki::AesGcm(params), handle, sealed)?), true)
        }
        Wrap::CbcPad { iv, sealed } => {
            (Zeroizing::new(session.decrypt(&Cryptoki::AesCbcPad(*iv), handle, sealed)?), false)
        }
    };
    let Some(first) = plain.first_chunk::<KEY_BYTES>() else { return Ok(None) };
    let key = Zeroizing::new(*first);
    let is_key =
        if is_checked { plain.len() == KEY_BYTES } else { bool::from(checked(bound, &*key)[..].ct_eq(&plain[..])) };
    Ok(is_key.then_some(key))
}

fn fresh(rng: &dyn Random) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut block = Zeroizing::new([0; KEY_BYTES]);
    rng.fill(&mut *block);
    block
}

fn refused(refusal: Refusal, text: &str) -> Answer {
    Answer::Refused { refusal, text: text.to_owned() }
}

fn not_allowed(text: &str) -> Answer {
    refused(Refusal::NotAllowed, text)
}

/// Whether a code is the token's answer to what was asked, and not a sign that something does not work.
fn is_refusal(error: &Error) -> bool {
    let Error::Pkcs11(code, _) = error else { return matches!(error, Error::NullFunctionPointer) };
    matches!(
        code,
        RvError::ActionProhibited
            | RvError::AttributeReadOnly
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::FunctionNotSupported
            | RvError::FunctionRejected
            | RvError::KeyFunctionNotPermitted
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::SessionReadOnly
            | RvError::TemplateInconsistent
            | RvError::TemplateIncomplete
            | RvError::TokenWriteProtected
    )
}

const GCM_TAG_BITS: u64 = 128;
