//! What no client library sends: any bytes to any method.

use prost::bytes::{Buf as _, BufMut as _};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::Refused;

/// Sends these bytes as a message to a method, such as `/kms.v1.CryptoService/Encrypt`.
pub async fn send_bytes(channel: Channel, method: &'static str, message: &[u8]) -> Result<Vec<u8>, Refused> {
    Ok(exchange(channel, method, message).await?.into_inner())
}

/// As [`send_bytes`], with all that came back: headers and, of a refusal, its details.
pub async fn exchange(channel: Channel, method: &'static str, message: &[u8]) -> Result<Response<Vec<u8>>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
    let path = PathAndQuery::from_static(method);
    grpc.unary(Request::new(message.to_owned()), path, Bytes).await
}

/// A codec that takes bytes for messages.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.len());
        out.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let message = from.copy_to_bytes(from.remaining());
        Ok(Some(message.to_vec()))
    }
}
