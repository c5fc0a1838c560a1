//! What all batches have in common: their items, their bounds, and the errors of single items.

use std::error::Error as StdError;
use std::fmt;

use kms_proto::v1;
use prost::Message;
use tonic::Code;

use crate::error::kind_of;
use crate::{Context, Error, ErrorKind, Mac};

/// One item of a batch, with aad of its own if it has any.
///
/// A batch is one call for 1 to 10,000 items, under one key and one set of context pairs. It is for many small things: one
/// permission, one round trip, and one record in the audit log for each 1,000 of them. Where no aad is needed, the things
/// themselves are items:
///
/// ```no_run
/// # use kms_client::{BatchItem, Client, Context, Error, KeyRef, NewDataKey};
/// # async fn f(kms: Client, key: KeyRef) -> Result<(), Error> {
/// let column = Context::from([("table", "users"), ("column", "ssn")]);
/// let values = [&b"078-05-1120"[..], b"219-09-9999"];
/// for result in kms.encrypt_batch(&key, &column, values).await? {
///     match result {
///         Ok(sealed) => println!("{} bytes", sealed.ciphertext.as_bytes().len()),
///         Err(error) => println!("{error}"), // of this item alone
///     }
/// }
///
/// // Bound to its row by an aad of its own, of at most 256 bytes.
/// let rows = values.into_iter().zip(["42", "43"]).map(|(value, id)| BatchItem::new(value).aad(id));
/// kms.encrypt_batch(&key, &column, rows).await?;
///
/// // What is held as `Vec`, array or text is taken as it is.
/// let read: Vec<Vec<u8>> = vec![b"457-55-5462".to_vec()];
/// kms.encrypt_batch(&key, &column, &read).await?;
///
/// kms.generate_data_key_batch(&key, &column, vec![NewDataKey::default(); 100]).await?;
/// # Ok(())
/// # }
/// ```
///
/// **Aad.** An item without one has the [`Context`]'s, so that a batch gives what the calls one by one would give.
///
/// **Results** come in the order of the items. The call fails as a whole for what concerns all of it: permission, the key's
/// state, the number of items, the size.
///
/// **Size.** No items, more than 10,000 (reason `FIELD_INVALID`) and more than 4 MiB of request (`MESSAGE_TOO_LARGE`) are
/// refused here, before anything is sent; [`Error::attempts`] is 0 then. An answer that would be larger than 4 MiB is
/// refused by the server, before anything is done. Nothing is split silently, since a part that fails would leave the rest
/// half done: whoever has more splits it. 1,000 items at a time is a good size, with values of less than 4 KiB:
///
/// ```no_run
/// # use kms_client::{Client, Context, Error, KeyRef};
/// # async fn f(kms: Client, key: KeyRef, context: Context, values: Vec<&[u8]>) -> Result<(), Error> {
/// for part in values.chunks(1_000) {
///     let results = kms.encrypt_batch(&key, &context, part.iter().copied()).await?;
///     // Store them, then go on with the next.
/// #   drop(results);
/// }
/// # Ok(())
/// # }
/// ```
///
/// **Time.** The time limit of a call holds for a batch too; for large ones allow more than the 2 seconds
/// ([`ClientBuilder::timeout`](crate::ClientBuilder::timeout)).
#[derive(Clone, Default)]
pub struct BatchItem<T> {
    value: T,
    aad: Option<Vec<u8>>,
}

/// A data key that a batch shall make.
pub type NewDataKey = BatchItem<()>;

impl<T> BatchItem<T> {
    /// Makes an item, with the aad of the context.
    pub fn new(value: T) -> Self {
        Self { value, aad: None }
    }

    /// Sets the bytes that are bound to this item in place of the context's. Empty is none.
    #[must_use]
    pub fn aad(mut self, aad: impl Into<Vec<u8>>) -> Self {
        self.aad = Some(aad.into());
        self
    }

    pub(crate) fn into_parts(self, context: &Context) -> (T, Vec<u8>) {
        (self.value, self.aad.unwrap_or_else(|| context.aad.clone()))
    }
}

impl<T> From<T> for BatchItem<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// Lets batches of bytes take what callers hold, and batches of MACs the same beside its code.
macro_rules! held_as {
    ($($Held:ty $(, const $N:ident)?;)*) => {$(
        impl<'a $(, const $N: usize)?> From<&'a $Held> for BatchItem<&'a [u8]> {
            fn from(held: &'a $Held) -> Self {
                Self::new(held.as_ref())
            }
        }

        impl<'a $(, const $N: usize)?> From<BatchItem<&'a $Held>> for BatchItem<&'a [u8]> {
            fn from(item: BatchItem<&'a $Held>) -> Self {
                Self { value: item.value.as_ref(), aad: item.aad }
            }
        }

        impl<'a $(, const $N: usize)?> From<(&'a $Held, &'a Mac)> for BatchItem<(&'a [u8], &'a Mac)> {
            fn from((held, mac): (&'a $Held, &'a Mac)) -> Self {
                Self::new((held.as_ref(), mac))
            }
        }
    )*};
}

held_as! {
    Vec<u8>;
    [u8; N], const N;
    str;
    String;
}

impl<T> fmt::Debug for BatchItem<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aad = self.aad.as_ref().map(|aad| format!("[{} bytes]", aad.len()));
        f.debug_struct("BatchItem").field("aad", &aad).finish_non_exhaustive()
    }
}

/// Why one item of a batch has no result. The others are not touched by it.
#[derive(Clone, PartialEq, Eq)]
pub struct ItemError {
    kind: ErrorKind,
    reason: Option<&'static str>,
    message: Box<str>,
}

impl ItemError {
    /// Returns what sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the reason, such as `DECRYPT_FAILED`: one of those that the API lists. `None` for one that a newer server has
    /// added: go by the [`kind`](Self::kind) then.
    pub fn reason(&self) -> Option<&str> {
        self.reason
    }

    /// Returns what went wrong, for people. It names nothing of what was given.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn from_wire(error: Option<v1::ItemError>) -> Option<Self> {
        let error = error?;
        let reason = v1::ErrorReason::try_from(error.reason).ok();
        let reason = reason.filter(|reason| *reason != v1::ErrorReason::Unspecified).map(v1::ErrorReason::as_reason);
        Some(Self { kind: kind_of(Code::from_i32(error.code)), reason, message: error.message.into() })
    }
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

impl fmt::Debug for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, reason, message } = self;
        f.debug_struct("ItemError")
            .field("kind", kind)
            .field("reason", reason)
            .field("message", message)
            .finish_non_exhaustive()
    }
}

impl StdError for ItemError {}

/// A batch while items are put into it. Bounded at each of them, so that no more is copied than could be sent.
pub(crate) struct Filling<I> {
    operation: &'static str,
    items: Vec<I>,
    bytes: usize,
}

impl<I: Message> Filling<I> {
    pub(crate) fn new(operation: &'static str) -> Self {
        Self { operation, items: Vec::new(), bytes: 0 }
    }

    pub(crate) fn push(&mut self, item: I) -> Result<(), Error> {
        if self.items.len() == ITEMS_MAX {
            return Err(Error::batch_count(self.operation, &format!("more than {ITEMS_MAX} items")));
        }
        self.bytes += item.encoded_len();
        self.check_size(self.bytes)?;
        self.items.push(item);
        Ok(())
    }

    /// Makes the request of the items.
    pub(crate) fn finish<M: Message>(mut self, request: impl FnOnce(Vec<I>) -> M) -> Result<M, Error> {
        if self.items.is_empty() {
            return Err(Error::batch_count(self.operation, "no items"));
        }
        let request = request(std::mem::take(&mut self.items));
        self.check_size(request.encoded_len())?;
        Ok(request)
    }

    fn check_size(&self, bytes: usize) -> Result<(), Error> {
        if bytes > MESSAGE_BYTES_MAX { Err(Error::batch_size(self.operation)) } else { Ok(()) }
    }
}

/// Reads the results of a batch of so many items.
pub(crate) fn read_all<W, T>(
    results: Vec<W>,
    count: usize,
    read: impl Fn(W) -> Result<Result<T, ItemError>, Error>,
) -> Result<Vec<Result<T, ItemError>>, Error> {
    let fits = results.len() == count;
    // All are taken over before one can fail, so that every plaintext is wiped in any case.
    let (mut read_results, mut first_error) = (Vec::with_capacity(if fits { count } else { 0 }), None);
    for result in results {
        match read(result) {
            Ok(result) if fits => read_results.push(result),
            Ok(_) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        _ if !fits => Err(Error::malformed("as many results as there were items")),
        Some(error) => Err(error),
        None => Ok(read_results),
    }
}

const ITEMS_MAX: usize = 10_000;
/// The most that a message of the API may have.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: usize) -> v1::BatchEncryptItem {
        v1::BatchEncryptItem { plaintext: vec![7; bytes], aad: Vec::new() }
    }

    fn request(items: Vec<v1::BatchEncryptItem>) -> v1::BatchEncryptRequest {
        v1::BatchEncryptRequest { key: "tenants/acme/keys/app".to_owned(), items, ..Default::default() }
    }

    fn fill(count: usize, bytes: usize) -> Result<v1::BatchEncryptRequest, Error> {
        let mut filling = Filling::new("BatchEncrypt");
        for _ in 0..count {
            filling.push(item(bytes))?;
        }
        filling.finish(request)
    }

    fn refused(error: Error, kind: ErrorKind, reason: &str, says: &str) {
        assert_eq!((error.kind(), error.reason(), error.attempts()), (kind, Some(reason), 0));
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.operation(), Some("BatchEncrypt"));
        assert!(!error.is_retryable() && error.hint().is_some_and(|hint| hint.contains("several")), "{error}");
    }

    #[test]
    fn a_batch_has_1_to_10_000_items() {
        assert_eq!(fill(1, 0).unwrap().items.len(), 1);
        assert_eq!(fill(10_000, 0).unwrap().items.len(), 10_000);
        refused(fill(10_001, 0).unwrap_err(), ErrorKind::InvalidArgument, "FIELD_INVALID", "more than 10000 items");
        let none = fill(0, 0).unwrap_err();
        assert_eq!((none.kind(), none.reason()), (ErrorKind::InvalidArgument, Some("FIELD_INVALID")));
        assert!(none.to_string().contains("no items"), "{none}");
    }

    #[test]
    fn a_batch_is_as_large_as_a_message_may_be_and_not_a_byte_larger() {
        let around = request(Vec::new()).encoded_len();
        let of = |size: usize| {
            let mut bytes = size - around - 20;
            while request(vec![item(bytes)]).encoded_len() < size {
                bytes += 1;
            }
            assert_eq!(request(vec![item(bytes)]).encoded_len(), size);
            fill(1, bytes)
        };
        assert_eq!(of(4 << 20).unwrap().encoded_len(), 4 << 20);
        let error = of((4 << 20) + 1).unwrap_err();
        refused(error, ErrorKind::ResourceExhausted, "MESSAGE_TOO_LARGE", "more than 4 MiB");
        fill(63, 65_536).unwrap();
        refused(fill(65, 65_536).unwrap_err(), ErrorKind::ResourceExhausted, "MESSAGE_TOO_LARGE", "more than 4 MiB");
    }

    #[test]
    fn an_endless_batch_is_refused_and_not_collected() {
        let mut filling = Filling::new("BatchEncrypt");
        let pushed = std::iter::repeat_with(|| item(0)).take_while(|_| true).try_for_each(|item| filling.push(item));
        assert!(pushed.is_err() && filling.items.len() == 10_000);
    }

    #[test]
    fn an_item_without_an_aad_has_the_contexts() {
        let context = Context::new().aad("context");
        assert_eq!(BatchItem::from(7).into_parts(&context), (7, b"context".to_vec()));
        assert_eq!(BatchItem::new(7).aad("own").into_parts(&context), (7, b"own".to_vec()));
        assert_eq!(BatchItem::new(7).aad("").into_parts(&context), (7, Vec::new()));
        let printed = format!("{:?}", BatchItem::new("canary").aad("canary"));
        assert!(!printed.contains("canary"), "{printed}");
    }

    #[test]
    fn results_are_as_many_as_items_and_one_that_cannot_be_fails_the_call() {
        let read = |n: u32| if n == 9 { Err(Error::malformed("nine")) } else { Ok::<_, Error>(Ok::<_, ItemError>(n)) };
        let values = |results: Vec<u32>| {
            read_all(results, 3, read).map(|results| results.into_iter().map(Result::unwrap).collect::<Vec<_>>())
        };
        assert_eq!(values(vec![3, 1, 2]).unwrap(), [3, 1, 2]);
        for wrong in [vec![], vec![1, 2], vec![1, 2, 3, 4], vec![9, 9]] {
            let error = values(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.to_string().contains("as many results"), "{error}");
        }
        assert!(values(vec![1, 9, 2]).unwrap_err().to_string().contains("nine"));
    }

    #[test]
    fn the_error_of_an_item_is_told_by_kind_and_reason() {
        let of = |code, reason| {
            ItemError::from_wire(Some(v1::ItemError { code, reason, message: "no".to_owned() })).unwrap()
        };
        let known = of(5, v1::ErrorReason::DataKeyNotFound.into());
        assert_eq!((known.kind(), known.reason()), (ErrorKind::NotFound, Some("DATA_KEY_NOT_FOUND")));
        assert_eq!(known.to_string(), "no (DATA_KEY_NOT_FOUND)");
        let newer = of(9, 30_000);
        assert_eq!((newer.kind(), newer.reason(), &*newer.to_string()), (ErrorKind::FailedPrecondition, None, "no"));
        for (code, reason) in [(0, 0), (-1, -1), (i32::MAX, i32::MIN)] {
            assert_eq!((of(code, reason).kind(), of(code, reason).reason()), (ErrorKind::Internal, None));
        }
        assert_eq!(ItemError::from_wire(None), None);
    }
}
