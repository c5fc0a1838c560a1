//! The codec of every RPC: prost's, for messages of a bounded number of fields.
//!
//! A field of two bytes on the wire may be a hundred in memory, so that a message within the limit of
//! bytes could still take many times as much. Its fields are counted before any of it is decoded.

use prost::Message;
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// The most fields of a message, each item of a list counted: more than the largest batch has.
pub const FIELDS_MAX: usize = 16_384;

/// Prost's codec, with [`FIELDS_MAX`].
#[derive(Debug)]
pub struct BoundedCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(std::marker::PhantomData)
    }
}

/// The decoder of [`BoundedCodec`].
#[derive(Debug)]
pub struct BoundedDecoder<U>(std::marker::PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        if has_too_many_fields(&bytes) {
            return Err(Status::invalid_argument("the message has more than 16,384 fields"));
        }
        U::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Counts the fields of a message. One that is none is for the decoder to refuse.
fn has_too_many_fields(mut bytes: &[u8]) -> bool {
    let mut fields = 0;
    while bytes.has_remaining() {
        fields += 1;
        let skipped = decode_key(&mut bytes)
            .and_then(|(tag, wire_type)| skip_field(wire_type, tag, &mut bytes, DecodeContext::default()));
        if skipped.is_err() {
            return false;
        }
        if fields > FIELDS_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{BatchCreateDataKeysItem, BatchCreateDataKeysRequest};

    #[test]
    fn a_message_of_too_many_fields_is_told_before_it_is_decoded() {
        let request = |items| BatchCreateDataKeysRequest {
            key: "k".to_owned(),
            items: vec![BatchCreateDataKeysItem::default(); items],
            ..BatchCreateDataKeysRequest::default()
        };
        for (items, too_many) in [(0, false), (10_001, false), (FIELDS_MAX - 1, false), (FIELDS_MAX, true)] {
            assert_eq!(has_too_many_fields(&request(items).encode_to_vec()), too_many, "{items}");
        }
        // Two million of two bytes each: what four megabytes can hold.
        assert!(has_too_many_fields(&[0x22, 0].repeat(2 << 20)));
    }

    #[test]
    fn what_is_no_message_is_left_to_the_decoder() {
        for bytes in [&[0xff; 20][..], &[0x0a, 0x7f], &[0x07]] {
            assert!(!has_too_many_fields(bytes));
        }
    }
}
