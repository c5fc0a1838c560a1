//! The data plane of the fake. "Data keys" are all the same byte; that of a managed one is what its uid begins with, and the
//! uid says by its second byte what is wrong with it.

use kms_proto::v1::crypto_service_server::CryptoService;
use kms_proto::v1::*;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use super::{LEASE, LEASE_END, Pairs, Rules, TIME, open, refusal, seal, verdict};

/// The uid of the nth managed data key of a list or of a batch.
pub fn uid(n: usize) -> Vec<u8> {
    [&[7, 0][..], &[0; 10], &(n as u32).to_be_bytes()].concat()
}

/// The nth managed data key of a list: every other is destroyed.
pub fn managed(n: usize) -> ManagedDataKey {
    let is_destroyed = n % 2 == 1;
    let state = if is_destroyed { KeyState::Destroyed } else { KeyState::Enabled };
    ManagedDataKey {
        uid: uid(n),
        state: state.into(),
        key_version: if is_destroyed { 0 } else { 1 },
        create_time: Some(TIME),
        destroy_time: is_destroyed.then_some(TIME),
    }
}

/// What a uid says of its data key.
fn found(uid: &[u8], pairs: &Pairs) -> Result<Vec<u8>, Status> {
    match uid[1] {
        1 => Err(refusal(Code::NotFound, "DATA_KEY_NOT_FOUND", "there is no such data key")),
        2 => Err(refusal(Code::FailedPrecondition, "DATA_KEY_DESTROYED", "the data key is destroyed")),
        _ if pairs.contains_key("wrong") => {
            Err(refusal(Code::InvalidArgument, "DECRYPT_FAILED", "the ciphertext does not open"))
        }
        _ => Ok(vec![uid[0]; 32]),
    }
}

/// A refusal as that of one item.
fn item_error(status: Status) -> Option<ItemError> {
    let reason = status.get_details_error_info().unwrap().reason;
    let reason = ErrorReason::from_reason(&reason).unwrap().into();
    Some(ItemError { code: status.code().into(), reason, message: status.message().to_owned() })
}

/// What is wrong with an item whose aad is too long.
fn aad_error(aad: &[u8]) -> Result<(), Status> {
    if aad.len() <= 256 {
        Ok(())
    } else {
        Err(refusal(Code::InvalidArgument, "CONTEXT_INVALID", "the aad is too long"))
    }
}

/// One result for each item, but for a key that cannot count.
fn results<I, T>(key: &str, items: Vec<I>, result: impl FnMut(I) -> T) -> Vec<T> {
    let skipped = usize::from(key.ends_with("/miscounting"));
    items.into_iter().skip(skipped).map(result).collect()
}

/// The plaintext of a data key, if it is wanted.
fn clear(key: &str, omit_plaintext: bool) -> Vec<u8> {
    match (omit_plaintext, key.ends_with("/malformed")) {
        (true, _) => Vec::new(),
        (false, true) => vec![7; 31],
        (false, false) => vec![7; 32],
    }
}

/// The lease, but for a key whose answers have none.
fn lease(key: &str, omit_plaintext: bool) -> Option<prost_types::Duration> {
    (!omit_plaintext && !key.ends_with("/leaseless")).then_some(LEASE)
}

fn mac(key: &str, pairs: &Pairs, aad: &[u8], message: &[u8]) -> Vec<u8> {
    let sealed = seal(7, key, pairs, aad, message);
    // As long as a real one, and of everything that it is for.
    let sum = sealed.iter().fold(7u64, |sum, byte| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(*byte));
    [&sealed[..5], &[0; 19], &[sum.to_be_bytes(); 4].concat()].concat()
}

fn verified(given: &[u8], right: &[u8]) -> Result<(), Status> {
    if given == right { Ok(()) } else { Err(refusal(Code::InvalidArgument, "MAC_INVALID", "the MAC is not right")) }
}

#[tonic::async_trait]
impl CryptoService for Rules {
    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let key_version = if r.key.ends_with("/malformed") { 0 } else { 1 };
        let ciphertext = seal(1, &r.key, &r.encryption_context, &r.aad, &r.plaintext);
        Ok(Response::new(EncryptResponse { ciphertext, key_version }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let plaintext = open(1, &r.key, &r.encryption_context, &r.aad, &r.ciphertext)?;
        Ok(Response::new(DecryptResponse { plaintext, key_version: 1, stale: r.key.ends_with("/rotated") }))
    }

    async fn re_encrypt(&self, request: Request<ReEncryptRequest>) -> Result<Response<ReEncryptResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let kind = r.ciphertext[4];
        let plaintext = open(kind, &r.key, &r.encryption_context, &r.aad, &r.ciphertext)?;
        let to =
            r.destination.unwrap_or(Destination { key: r.key, encryption_context: r.encryption_context, aad: r.aad });
        let ciphertext = seal(kind, &to.key, &to.encryption_context, &to.aad, &plaintext);
        Ok(Response::new(ReEncryptResponse { ciphertext, key_version: 2, source_key_version: 1 }))
    }

    async fn generate_data_key(
        &self,
        request: Request<GenerateDataKeyRequest>,
    ) -> Result<Response<GenerateDataKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let wrapped_data_key = seal(2, &r.key, &r.encryption_context, &r.aad, &[7; 32]);
        let (plaintext, lease) = (clear(&r.key, r.omit_plaintext), lease(&r.key, r.omit_plaintext));
        Ok(Response::new(GenerateDataKeyResponse { plaintext, wrapped_data_key, key_version: 1, lease }))
    }

    async fn decrypt_data_key(
        &self,
        request: Request<DecryptDataKeyRequest>,
    ) -> Result<Response<DecryptDataKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let plaintext = open(2, &r.key, &r.encryption_context, &r.aad, &r.wrapped_data_key)?;
        Ok(Response::new(DecryptDataKeyResponse {
            plaintext,
            key_version: 1,
            stale: false,
            lease: lease(&r.key, false),
        }))
    }

    async fn create_data_key(
        &self,
        request: Request<CreateDataKeyRequest>,
    ) -> Result<Response<CreateDataKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        if r.validate_only {
            return Ok(Response::new(CreateDataKeyResponse { key_version: 1, ..Default::default() }));
        }
        let (plaintext, lease) = (clear(&r.key, r.omit_plaintext), lease(&r.key, r.omit_plaintext));
        Ok(Response::new(CreateDataKeyResponse { plaintext, uid: uid(0), key_version: 1, lease }))
    }

    async fn get_data_key(&self, request: Request<GetDataKeyRequest>) -> Result<Response<GetDataKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let plaintext = found(&r.uid, &r.encryption_context)?;
        Ok(Response::new(GetDataKeyResponse { plaintext, key_version: 1, lease: lease(&r.key, false) }))
    }

    async fn destroy_data_key(
        &self,
        request: Request<DestroyDataKeyRequest>,
    ) -> Result<Response<DestroyDataKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        found(&r.uid, &Pairs::new())?;
        Ok(Response::new(DestroyDataKeyResponse { destroy_time: Some(TIME), lease_end_time: Some(LEASE_END) }))
    }

    async fn generate_mac(
        &self,
        request: Request<GenerateMacRequest>,
    ) -> Result<Response<GenerateMacResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let mac = mac(&r.key, &r.encryption_context, &r.aad, &r.message);
        Ok(Response::new(GenerateMacResponse { mac, key_version: 1 }))
    }

    async fn verify_mac(&self, request: Request<VerifyMacRequest>) -> Result<Response<VerifyMacResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        verified(&r.mac, &mac(&r.key, &r.encryption_context, &r.aad, &r.message))?;
        Ok(Response::new(VerifyMacResponse { key_version: 1, stale: r.key.ends_with("/rotated") }))
    }

    async fn get_index_key(
        &self,
        request: Request<GetIndexKeyRequest>,
    ) -> Result<Response<GetIndexKeyResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.index).await?;
        Ok(Response::new(GetIndexKeyResponse { plaintext: clear(&r.index, false), lease: lease(&r.index, false) }))
    }

    async fn batch_encrypt(
        &self,
        request: Request<BatchEncryptRequest>,
    ) -> Result<Response<BatchEncryptResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| match aad_error(&item.aad) {
            Err(status) => BatchEncryptResult { error: item_error(status), ..Default::default() },
            Ok(()) => BatchEncryptResult {
                ciphertext: seal(1, &r.key, &r.encryption_context, &item.aad, &item.plaintext),
                error: None,
            },
        });
        Ok(Response::new(BatchEncryptResponse { key_version: 1, results }))
    }

    async fn batch_decrypt(
        &self,
        request: Request<BatchDecryptRequest>,
    ) -> Result<Response<BatchDecryptResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let stale = r.key.ends_with("/rotated");
        let results = results(&r.key, r.items, |item| {
            match open(1, &r.key, &r.encryption_context, &item.aad, &item.ciphertext) {
                Err(status) => BatchDecryptResult { error: item_error(status), ..Default::default() },
                Ok(plaintext) => BatchDecryptResult { plaintext, key_version: 1, stale, error: None },
            }
        });
        Ok(Response::new(BatchDecryptResponse { results }))
    }

    async fn batch_re_encrypt(
        &self,
        request: Request<BatchReEncryptRequest>,
    ) -> Result<Response<BatchReEncryptResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| {
            let kind = item.ciphertext[4];
            let plaintext = match open(kind, &r.key, &r.encryption_context, &item.aad, &item.ciphertext) {
                Err(status) => return BatchReEncryptResult { error: item_error(status), ..Default::default() },
                Ok(plaintext) => plaintext,
            };
            let ciphertext = match &r.destination {
                None => {
                    assert!(item.destination_aad.is_empty());
                    seal(kind, &r.key, &r.encryption_context, &item.aad, &plaintext)
                }
                Some(to) => seal(kind, &to.key, &to.encryption_context, &item.destination_aad, &plaintext),
            };
            BatchReEncryptResult { ciphertext, source_key_version: 1, error: None }
        });
        Ok(Response::new(BatchReEncryptResponse { key_version: 2, results }))
    }

    async fn batch_generate_data_keys(
        &self,
        request: Request<BatchGenerateDataKeysRequest>,
    ) -> Result<Response<BatchGenerateDataKeysResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| match aad_error(&item.aad) {
            Err(status) => BatchGenerateDataKeysResult { error: item_error(status), ..Default::default() },
            Ok(()) => BatchGenerateDataKeysResult {
                plaintext: clear(&r.key, r.omit_plaintext),
                wrapped_data_key: seal(2, &r.key, &r.encryption_context, &item.aad, &[7; 32]),
                error: None,
            },
        });
        let lease = lease(&r.key, r.omit_plaintext);
        Ok(Response::new(BatchGenerateDataKeysResponse { key_version: 1, lease, results }))
    }

    async fn batch_decrypt_data_keys(
        &self,
        request: Request<BatchDecryptDataKeysRequest>,
    ) -> Result<Response<BatchDecryptDataKeysResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| {
            match open(2, &r.key, &r.encryption_context, &item.aad, &item.wrapped_data_key) {
                Err(status) => BatchDecryptDataKeysResult { error: item_error(status), ..Default::default() },
                Ok(plaintext) => BatchDecryptDataKeysResult { plaintext, key_version: 1, stale: false, error: None },
            }
        });
        Ok(Response::new(BatchDecryptDataKeysResponse { lease: lease(&r.key, false), results }))
    }

    async fn batch_create_data_keys(
        &self,
        request: Request<BatchCreateDataKeysRequest>,
    ) -> Result<Response<BatchCreateDataKeysResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let is_none_left = r.key.ends_with("/erased");
        let mut count = 0;
        let results = results(&r.key, r.items, |item| {
            count += 1;
            // In place of a repetition, which finds one of them destroyed, or all.
            let destroyed = (is_none_left || r.key.ends_with("/partly") && count == 2).then_some([7, 2]);
            match aad_error(&item.aad).and_then(|()| found(&destroyed.unwrap_or([7, 0]), &Pairs::new())) {
                Err(status) => BatchCreateDataKeysResult { error: item_error(status), ..Default::default() },
                Ok(_) if r.validate_only => BatchCreateDataKeysResult::default(),
                Ok(_) => BatchCreateDataKeysResult {
                    plaintext: clear(&r.key, r.omit_plaintext),
                    uid: uid(count - 1),
                    error: None,
                },
            }
        });
        let (key_version, lease) = if is_none_left { (0, None) } else { (1, lease(&r.key, r.omit_plaintext)) };
        Ok(Response::new(BatchCreateDataKeysResponse { key_version, lease, results }))
    }

    async fn batch_get_data_keys(
        &self,
        request: Request<BatchGetDataKeysRequest>,
    ) -> Result<Response<BatchGetDataKeysResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| match found(&item.uid, &r.encryption_context) {
            Err(status) => BatchGetDataKeysResult { error: item_error(status), ..Default::default() },
            Ok(plaintext) => BatchGetDataKeysResult { plaintext, key_version: 1, error: None },
        });
        Ok(Response::new(BatchGetDataKeysResponse { lease: lease(&r.key, false), results }))
    }

    async fn batch_destroy_data_keys(
        &self,
        request: Request<BatchDestroyDataKeysRequest>,
    ) -> Result<Response<BatchDestroyDataKeysResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| match found(&item.uid, &Pairs::new()) {
            Err(status) => BatchDestroyDataKeysResult { error: item_error(status), ..Default::default() },
            Ok(_) => BatchDestroyDataKeysResult { destroy_time: Some(TIME), error: None },
        });
        Ok(Response::new(BatchDestroyDataKeysResponse { lease_end_time: Some(LEASE_END), results }))
    }

    async fn batch_generate_macs(
        &self,
        request: Request<BatchGenerateMacsRequest>,
    ) -> Result<Response<BatchGenerateMacsResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let results = results(&r.key, r.items, |item| match aad_error(&item.aad) {
            Err(status) => BatchGenerateMacsResult { error: item_error(status), ..Default::default() },
            Ok(()) => BatchGenerateMacsResult {
                mac: mac(&r.key, &r.encryption_context, &item.aad, &item.message),
                error: None,
            },
        });
        Ok(Response::new(BatchGenerateMacsResponse { key_version: 1, results }))
    }

    async fn batch_verify_macs(
        &self,
        request: Request<BatchVerifyMacsRequest>,
    ) -> Result<Response<BatchVerifyMacsResponse>, Status> {
        let r = self.meet(request).await?;
        verdict(&r.key).await?;
        let stale = r.key.ends_with("/rotated");
        let results = results(&r.key, r.items, |item| {
            let right = mac(&r.key, &r.encryption_context, &item.aad, &item.message);
            match verified(&item.mac, &right) {
                Err(status) => BatchVerifyMacsResult { error: item_error(status), ..Default::default() },
                Ok(()) => BatchVerifyMacsResult { key_version: 1, stale, error: None },
            }
        });
        Ok(Response::new(BatchVerifyMacsResponse { results }))
    }
}
