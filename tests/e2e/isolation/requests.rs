//! The messages of probes: of every RPC that names a tenant, and of those that open what callers keep, one by one and
//! many together.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use kms_proto::v1;
use kms_proto::v1::ItemError;
use kms_tests::request::*;
use prost::Message as _;

use super::tenants::{APP, COMMON, INDEX, MAC, ROWS, Tenant, What};

/// One thing to be opened.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// A blob, a uid or a MAC.
    pub bytes: Vec<u8>,
    /// Of a MAC, the message.
    pub message: Vec<u8>,
    /// Its own bytes.
    pub aad: Vec<u8>,
}

/// The RPCs that open a thing, and their forms for many.
pub fn openers(what: What) -> &'static [(&'static str, &'static str)] {
    match what {
        What::Data => &[("Decrypt", "BatchDecrypt"), ("ReEncrypt", "BatchReEncrypt")],
        What::DataKey => &[("DecryptDataKey", "BatchDecryptDataKeys"), ("ReEncrypt", "BatchReEncrypt")],
        What::Managed => &[("GetDataKey", "BatchGetDataKeys"), ("DestroyDataKey", "BatchDestroyDataKeys")],
        What::Mac => &[("VerifyMac", "BatchVerifyMacs")],
    }
}

/// A request to open one thing.
pub fn open_one(rpc: &str, key: &str, item: &Item, pairs: &BTreeMap<String, String>) -> Vec<u8> {
    let (key, encryption_context, aad) = (key.to_owned(), pairs.clone(), item.aad.clone());
    let bytes = item.bytes.clone();
    match rpc {
        "Decrypt" => v1::DecryptRequest { key, ciphertext: bytes, encryption_context, aad }.encode_to_vec(),
        "ReEncrypt" => {
            v1::ReEncryptRequest { key, ciphertext: bytes, encryption_context, aad, destination: None }.encode_to_vec()
        }
        "DecryptDataKey" => {
            v1::DecryptDataKeyRequest { key, wrapped_data_key: bytes, encryption_context, aad }.encode_to_vec()
        }
        "GetDataKey" => v1::GetDataKeyRequest { key, uid: bytes, encryption_context, aad }.encode_to_vec(),
        "DestroyDataKey" => destroy_data_key(&key, &bytes).encode_to_vec(),
        "VerifyMac" => v1::VerifyMacRequest { key, message: item.message.clone(), mac: bytes, encryption_context, aad }
            .encode_to_vec(),
        other => unreachable!("{other} opens nothing"),
    }
}

/// A request to open many.
#[allow(clippy::needless_update, reason = "one of the items has a field more")]
pub fn open_many(rpc: &str, key: &str, items: Vec<Item>, pairs: &BTreeMap<String, String>) -> Vec<u8> {
    let (key, encryption_context) = (key.to_owned(), pairs.clone());
    macro_rules! items {
        ($Item:ident { $field:ident }) => {
            items
                .into_iter()
                .map(|item| v1::$Item { $field: item.bytes, aad: item.aad, ..Default::default() })
                .collect()
        };
    }
    match rpc {
        "BatchDecrypt" => {
            let items = items!(BatchDecryptItem { ciphertext });
            v1::BatchDecryptRequest { key, encryption_context, items }.encode_to_vec()
        }
        "BatchReEncrypt" => {
            let items = items!(BatchReEncryptItem { ciphertext });
            v1::BatchReEncryptRequest { key, encryption_context, items, destination: None }.encode_to_vec()
        }
        "BatchDecryptDataKeys" => {
            let items = items!(BatchDecryptDataKeysItem { wrapped_data_key });
            v1::BatchDecryptDataKeysRequest { key, encryption_context, items }.encode_to_vec()
        }
        "BatchGetDataKeys" => {
            let items = items!(BatchGetDataKeysItem { uid });
            v1::BatchGetDataKeysRequest { key, encryption_context, items }.encode_to_vec()
        }
        "BatchDestroyDataKeys" => {
            let uids: Vec<_> = items.into_iter().map(|item| item.bytes).collect();
            batch_destroy_data_keys(&key, &uids).encode_to_vec()
        }
        "BatchVerifyMacs" => {
            let item = |item: Item| v1::BatchVerifyMacsItem { message: item.message, mac: item.bytes, aad: item.aad };
            let items = items.into_iter().map(item).collect();
            v1::BatchVerifyMacsRequest { key, encryption_context, items }.encode_to_vec()
        }
        other => unreachable!("{other} opens nothing"),
    }
}

/// What came of each of many: the secret, or the error.
pub fn results(rpc: &str, answer: &[u8]) -> Result<Vec<(Vec<u8>, Option<ItemError>)>> {
    macro_rules! results {
        ($Response:ident, $field:ident) => {
            v1::$Response::decode(answer)?.results.into_iter().map(|one| (one.$field, one.error)).collect()
        };
    }
    Ok(match rpc {
        "BatchDecrypt" => results!(BatchDecryptResponse, plaintext),
        "BatchReEncrypt" => results!(BatchReEncryptResponse, ciphertext),
        "BatchDecryptDataKeys" => results!(BatchDecryptDataKeysResponse, plaintext),
        "BatchGetDataKeys" => results!(BatchGetDataKeysResponse, plaintext),
        "BatchDestroyDataKeys" => {
            let all = v1::BatchDestroyDataKeysResponse::decode(answer)?.results;
            all.into_iter().map(|one| (Vec::new(), one.error)).collect()
        }
        "BatchVerifyMacs" => {
            let all = v1::BatchVerifyMacsResponse::decode(answer)?.results;
            all.into_iter().map(|one| (Vec::new(), one.error)).collect()
        }
        other => bail!("{other} has no results"),
    })
}

/// What comes of one.
pub fn secret_of(rpc: &str, answer: &[u8]) -> Result<Vec<u8>> {
    Ok(match rpc {
        "Decrypt" => v1::DecryptResponse::decode(answer)?.plaintext,
        "ReEncrypt" => v1::ReEncryptResponse::decode(answer)?.ciphertext,
        "DecryptDataKey" => v1::DecryptDataKeyResponse::decode(answer)?.plaintext,
        "GetDataKey" => v1::GetDataKeyResponse::decode(answer)?.plaintext,
        "VerifyMac" => Vec::new(),
        other => bail!("{other} gives out nothing"),
    })
}

/// Returns a request of any RPC about what a tenant has, under the tenant's name or another. Nothing for an RPC that
/// names no tenant.
pub fn about(rpc: &str, of: &Tenant, tenant: &str) -> Option<Vec<u8>> {
    let key = |key: &str| format!("{tenant}/keys/{key}");
    let (app, rows, mac) = (key(APP), key(ROWS), key(MAC));
    let of_kind = |what| of.things.iter().find(|thing| thing.what == what && thing.pairs == pairs(&COMMON));
    let things = [What::Data, What::DataKey, What::Managed, What::Mac].map(|what| of_kind(what).expect("it has one"));
    let item = |at: usize| Item {
        bytes: things[at].bytes.clone(),
        message: things[at].secret.clone(),
        aad: things[at].aad.clone(),
    };
    let common = &pairs(&COMMON);
    let token = |list| of.tokens.get(list).map(String::as_str).unwrap_or_default();
    Some(match rpc {
        "Decrypt" | "ReEncrypt" => open_one(rpc, &app, &item(0), common),
        "DecryptDataKey" => open_one(rpc, &app, &item(1), common),
        "GetDataKey" | "DestroyDataKey" => open_one(rpc, &rows, &item(2), common),
        "VerifyMac" => open_one(rpc, &mac, &item(3), common),
        "BatchDecrypt" | "BatchReEncrypt" => open_many(rpc, &app, vec![item(0)], common),
        "BatchDecryptDataKeys" => open_many(rpc, &app, vec![item(1)], common),
        "BatchGetDataKeys" | "BatchDestroyDataKeys" => open_many(rpc, &rows, vec![item(2)], common),
        "BatchVerifyMacs" => open_many(rpc, &mac, vec![item(3)], common),
        "Encrypt" => encrypt(&app, b"x", &COMMON).encode_to_vec(),
        "GenerateDataKey" => generate_data_key(&app, &COMMON).encode_to_vec(),
        "CreateDataKey" => of.repeatable(&key("other-rows"), &of.request_id).encode_to_vec(),
        "GenerateMac" => generate_mac(&mac, &things[3].secret, &COMMON).encode_to_vec(),
        "GetIndexKey" => get_index_key(&format!("{tenant}/indexes/{INDEX}")).encode_to_vec(),
        "BatchEncrypt" => batch_encrypt(&app, &[b"x"], &COMMON).encode_to_vec(),
        "BatchGenerateDataKeys" => batch_generate_data_keys(&app, 2, &COMMON).encode_to_vec(),
        "BatchCreateDataKeys" => batch_create_data_keys(&rows, 2, &COMMON).encode_to_vec(),
        "BatchGenerateMacs" => batch_generate_macs(&mac, &[&things[3].secret], &COMMON).encode_to_vec(),
        "CreateTenant" => create_tenant(tenant.trim_start_matches("tenants/")).encode_to_vec(),
        "GetTenant" => get_tenant(tenant).encode_to_vec(),
        "UpdateTenant" => update_tenant(tenant, seconds(60)).encode_to_vec(),
        "SuspendTenant" => suspend_tenant(tenant).encode_to_vec(),
        "ResumeTenant" => resume_tenant(tenant).encode_to_vec(),
        "DestroyTenant" => destroy_tenant(tenant, None).encode_to_vec(),
        "CancelTenantDestruction" => cancel_tenant_destruction(tenant).encode_to_vec(),
        "CreateKey" => create_key(tenant, APP).encode_to_vec(),
        "GetKey" => get_key(&app).encode_to_vec(),
        "ListKeys" => list_keys(tenant, 2, token(rpc)).encode_to_vec(),
        "UpdateKey" => {
            let mut request = update_key(&app, &[], &["labels"]);
            request.key.get_or_insert_default().etag = of.etags[0].clone();
            request.encode_to_vec()
        }
        "EnableKey" => enable_key(&app).encode_to_vec(),
        "DisableKey" => disable_key(&app).encode_to_vec(),
        "RotateKey" => rotate_key(&app).encode_to_vec(),
        "ListKeyVersions" => list_key_versions(&app, 1, token(rpc)).encode_to_vec(),
        "ScheduleKeyDestruction" => schedule_key_destruction(&app, None).encode_to_vec(),
        "CancelKeyDestruction" => cancel_key_destruction(&key("leaving")).encode_to_vec(),
        "ListDataKeys" => list_data_keys(&rows, 2, token(rpc)).encode_to_vec(),
        "RequestGrant" => request_role(tenant, "decrypter", 60, "a probe").encode_to_vec(),
        "ApproveGrant" => approve_grant(&grant(of, tenant)).encode_to_vec(),
        "RevokeGrant" => revoke_grant(&grant(of, tenant)).encode_to_vec(),
        "GetGrant" => get_grant(&grant(of, tenant).name).encode_to_vec(),
        "ListGrants" => list_grants(tenant).encode_to_vec(),
        // Of the principal that is bound there: of oneself everybody may ask.
        "TestPermissions" => test_permissions("spiffe://example.com/somebody", tenant, &["GetTenant"]).encode_to_vec(),
        _ => return None,
    })
}

/// The tenant's grant, under the tenant's name or another.
fn grant(of: &Tenant, tenant: &str) -> v1::Grant {
    let uid = of.grant.name.rsplit('/').next().unwrap_or_default();
    v1::Grant { name: format!("{tenant}/grants/{uid}"), ..of.grant.clone() }
}

/// The RPCs that name no tenant; who is bound to one tenant may ask none of them but for himself.
pub const OF_NO_TENANT: [&str; 7] =
    ["ListTenants", "GetCallerIdentity", "GetStatus", "Lock", "Unlock", "ExportKeystore", "Reload"];
