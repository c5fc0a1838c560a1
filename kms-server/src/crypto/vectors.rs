//! The known answers of `tests/vectors/kms1_vectors.json`, made by an independent implementation,
//! and the negative corpus: every bit flip and every truncation of a blob is refused.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;

use super::arena::ArenaFull;
use super::chain::{EpochPlace, TenantPlace, WrappedKey};
use super::construction::{self, OpenError};
use super::context::{self, ContextHash};
use super::header::{Header, Kind};
use super::kdf;
use super::keystore_file::{self, KeystoreHead, PinCost};
use super::managed_dek;
use super::record;
use super::secret::*;
use crate::noun::{DekUid, EpochNumber, KeyVersion, Random, TenantName, Uid};

/// Gives out fixed bytes, in order.
struct Fixed(Mutex<Vec<u8>>);

impl Fixed {
    fn new(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }
}

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) {
        let mut bytes = self.0.lock().unwrap();
        out.copy_from_slice(&bytes[..out.len()]);
        bytes.drain(..out.len());
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/kms1_vectors.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn uid(value: &Value) -> Uid {
    Uid::from_bytes(array(value))
}

fn key<K>(
    make: impl FnOnce(&dyn Fn(&mut [u8; 32]) -> Result<(), ArenaFull>) -> Result<K, ArenaFull>,
    from: [u8; 32],
) -> K {
    make(&|out: &mut [u8; 32]| {
        *out = from;
        Ok(())
    })
    .unwrap()
}

macro_rules! secret {
    ($Type:ident, $bytes:expr) => {
        key(|fill| $Type::fill_with(|out| fill(out)), $bytes)
    };
}

fn version(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

fn sealing_randomness(vectors: &Value) -> Fixed {
    let blob = &vectors["blob_data"];
    Fixed::new(&[bytes(&blob["salt"]), bytes(&blob["iv"])].concat())
}

fn caller_context(vectors: &Value) -> ContextHash {
    let given = &vectors["context"];
    let pairs: BTreeMap<String, String> = serde_json::from_value(given["pairs"].clone()).unwrap();
    let aad = given["aad_utf8"].as_str().unwrap();
    context::hash_of_caller(
        given["tenant"].as_str().unwrap(),
        aad.as_bytes(),
        pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())),
    )
    .unwrap()
}

#[test]
fn every_matching_vector_is_met() {
    let v = vectors();
    let mut met = 0;
    let mut meet = |name: &str, ours: &[u8], theirs: &Value| {
        assert_eq!(hex::encode(ours), theirs.as_str().unwrap(), "{name}");
        met += 1;
    };

    let data_context = caller_context(&v);
    let empty_context = context::hash_of_caller("acme", b"", []).unwrap();
    meet("context", data_context.as_bytes(), &v["context"]["ctxh"]);
    meet("empty context", empty_context.as_bytes(), &v["context"]["empty_ctxh"]);

    let blob = &v["blob_data"];
    let kek = secret!(Kek, array(&blob["kek"]));
    let (key_uid, three) = (uid(&blob["key_id"]), version(3));
    let plaintext = blob["pt_utf8"].as_str().unwrap().as_bytes();
    meet("blob_data", &kek.seal_data(key_uid, three, &data_context, plaintext, &sealing_randomness(&v)), &blob["blob"]);
    let opened = kek.open_data(key_uid, three, &data_context, &bytes(&blob["blob"])).unwrap();
    assert_eq!(opened.expose_to_caller(), plaintext);
    meet(
        "blob_empty",
        &kek.seal_data(key_uid, three, &empty_context, b"", &sealing_randomness(&v)),
        &v["blob_empty"]["blob"],
    );

    let wrapped = &v["wrapped_dek"];
    let dek = Dek::generate(&Fixed::new(&bytes(&wrapped["dek"])));
    meet("wrapped_dek", &kek.wrap_dek(key_uid, three, &empty_context, &dek, &sealing_randomness(&v)), &wrapped["blob"]);
    meet("dek_id", &dek.id(), &wrapped["dek_id"]);
    let unwrapped = kek.unwrap_dek(key_uid, three, &empty_context, &bytes(&wrapped["blob"])).unwrap();
    meet("unwrapped dek", &unwrapped.expose_to_caller(), &wrapped["dek"]);

    let wrapped = &v["wrapped_tenant_key"];
    let epoch_key = secret!(EpochKey, array(&wrapped["epoch_key"]));
    let epoch = EpochPlace { id: uid(&wrapped["epoch_id"]), number: EpochNumber::new(7).unwrap() };
    let tenant_key = secret!(TenantKey, array(&wrapped["tenant_key"]));
    let acme: TenantName = "acme".parse().unwrap();
    let tenant = TenantPlace { name: &acme, uid: uid(&wrapped["tenant_uid"]), version: version(1) };
    let ours = epoch_key.wrap_tenant_key(epoch, tenant, &tenant_key, &sealing_randomness(&v));
    meet("wrapped_tenant_key", ours.as_bytes(), &wrapped["blob"]);
    meet("its commitment", &ours.commitment(), &wrapped["commitment"]);
    meet(
        "unwrapped tenant key",
        epoch_key.unwrap_tenant_key(epoch, tenant, &ours).unwrap().bytes(),
        &wrapped["tenant_key"],
    );

    let ours = tenant_key.wrap_kek(tenant, key_uid, three, &kek, &sealing_randomness(&v));
    meet("wrapped_kek", ours.as_bytes(), &v["wrapped_kek"]["blob"]);
    meet("unwrapped kek", tenant_key.unwrap_kek(tenant, key_uid, three, &ours).unwrap().bytes(), &blob["kek"]);
    meet("epoch_kcv", &epoch_key.kcv(&epoch.id, epoch.number), &v["epoch_kcv"]);

    let wrapped = &v["wrapped_epoch_key"];
    let master = secret!(MasterKey, array(&wrapped["master"]));
    let (master_id, cluster) = (uid(&wrapped["master_id"]), uid(&wrapped["cluster"]));
    let ours = master.wrap_epoch_key(master_id, cluster, epoch.number, &epoch_key, &sealing_randomness(&v));
    meet("wrapped_epoch_key", ours.as_bytes(), &wrapped["blob"]);
    meet(
        "unwrapped epoch key",
        master.unwrap_epoch_key(master_id, cluster, epoch.number, &ours).unwrap().bytes(),
        &v["wrapped_tenant_key"]["epoch_key"],
    );

    let wrapped = &v["wrapped_cluster_secret"];
    let cluster_secret = secret!(ClusterSecret, array(&wrapped["cluster_secret"]));
    let ours = epoch_key.wrap_cluster_secret(epoch, cluster, version(1), &cluster_secret, &sealing_randomness(&v));
    meet("wrapped_cluster_secret", ours.as_bytes(), &wrapped["blob"]);
    meet(
        "unwrapped cluster secret",
        epoch_key.unwrap_cluster_secret(epoch, cluster, version(1), &ours).unwrap().bytes(),
        &wrapped["cluster_secret"],
    );

    let wrapped = &v["wrapped_index_root"];
    let index_root = secret!(IndexRoot, array(&wrapped["index_root"]));
    let ours = tenant_key.wrap_index_root(tenant, &index_root, &sealing_randomness(&v));
    meet("wrapped_index_root", ours.as_bytes(), &wrapped["blob"]);
    meet("unwrapped index root", tenant_key.unwrap_index_root(tenant, &ours).unwrap().bytes(), &wrapped["index_root"]);

    let wrapped = &v["wrapped_audit_seed"];
    let seed = secret!(AuditSeed, array(&v["audit"]["log_seed"]));
    let wrap_key = cluster_secret.wrap_key().unwrap();
    let origin = "kms.example.com/audit/node-1";
    let ours = wrap_key.wrap_audit_seed(cluster, version(1), origin, &seed, &sealing_randomness(&v));
    meet("wrapped_audit_seed", ours.as_bytes(), &wrapped["blob"]);
    meet(
        "unwrapped audit seed",
        wrap_key.unwrap_audit_seed(cluster, version(1), origin, &ours).unwrap().bytes(),
        &v["audit"]["log_seed"],
    );
    // The verifier key is base64 of 01 || public key, after the last plus of the vkey.
    let vkey = v["audit"]["log_vkey"].as_str().unwrap();
    let public =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, vkey.splitn(3, '+').nth(2).unwrap())
            .unwrap();
    meet("audit public key", &seed.public_key(), &Value::from(hex::encode(&public[1..])));

    let subkeys = &v["subkeys"];
    meet("record_mac_cluster", cluster_secret.record_mac_key().unwrap().bytes(), &subkeys["record_mac_cluster"]);
    meet("record_mac_tenant", tenant_key.record_mac_key().unwrap().bytes(), &subkeys["record_mac_tenant"]);
    meet("frame_mac", cluster_secret.frame_mac_key().unwrap().bytes(), &subkeys["frame_mac"]);
    meet("page_token", cluster_secret.page_token_key().unwrap().bytes(), &subkeys["page_token"]);
    let audit_ctx = index_root.audit_ctx_key().unwrap();
    meet("audit_ctx", audit_ctx.bytes(), &subkeys["audit_ctx"]);
    let decrypt: Value = serde_json::from_str(v["audit"]["entries"][3].as_str().unwrap()).unwrap();
    meet("ctx in the log", &audit_ctx.shown_in_log(&data_context), &decrypt["ctx"]);

    let row = &v["record"];
    let mac_key = tenant_key.record_mac_key().unwrap();
    let (family, row_key) = (row["cf"].as_str().unwrap(), bytes(&row["store_key"]));
    let ours = record::seal(&mac_key, version(1), family, &row_key, &bytes(&row["protobuf"]));
    meet("record", &ours, &row["row"]);
    meet("opened record", record::open(&mac_key, family, &row_key, &ours).unwrap(), &row["protobuf"]);

    let file = &v["keystore_file"];
    let salt: Vec<u8> = (0..16).collect();
    let randomness = Fixed::new(&[salt, bytes(&blob["salt"]), bytes(&blob["iv"])].concat());
    let pin = file["pin"].as_str().unwrap().as_bytes();
    let head = KeystoreHead::new(master_id, epoch.number, PinCost::DEFAULT, keystore_file::ORIGINAL, &randomness);
    let ours = keystore_file::seal(&master, &head, cluster, pin, &randomness).unwrap();
    meet("keystore_file", &ours, &file["file"]);
    let (_, opened) = keystore_file::open(&ours, cluster, pin).unwrap();
    meet("opened keystore file", opened.bytes(), &v["wrapped_epoch_key"]["master"]);
    assert!(keystore_file::open(&ours, cluster, b"test pin 0000-1112").is_err());

    println!("crypto vectors: {met}/{met} met");
    assert_eq!(met, 32);
}

#[test]
fn every_vector_of_managed_data_keys_macs_and_blind_indexes_is_met() {
    let v = vectors();
    let mut met = 0;
    let mut meet = |name: &str, ours: &[u8], theirs: &Value| {
        assert_eq!(hex::encode(ours), theirs.as_str().unwrap(), "{name}");
        met += 1;
    };
    let acme: TenantName = "acme".parse().unwrap();
    let (context, three) = (caller_context(&v), version(3));
    let (kek, key_uid) = (secret!(Kek, array(&v["blob_data"]["kek"])), uid(&v["blob_data"]["key_id"]));
    let dek = Dek::generate(&Fixed::new(&bytes(&v["wrapped_dek"]["dek"])));

    let managed = &v["managed_dek"];
    let dek_uid = DekUid::from_bytes(array(&managed["uid"]));
    meet("caller's context", context.as_bytes(), &managed["caller_ctxh"]);
    let place = managed_dek::place(&acme, &dek_uid, &context);
    meet("managed context", place.as_bytes(), &Value::from(hex::encode(sha256(&bytes(&managed["ctx_encoded"])))));
    let ours = kek.wrap_managed_dek(key_uid, three, &acme, &dek_uid, &context, &dek, &sealing_randomness(&v));
    meet("managed_dek", ours.as_bytes(), &managed["blob"]);
    meet("its commitment", &ours.commitment(), &managed["commitment"]);
    let theirs = WrappedKey::from_slice(&bytes(&managed["blob"])).unwrap();
    let opened = kek.unwrap_managed_dek(key_uid, three, &acme, &dek_uid, &context, &theirs).unwrap();
    meet("unwrapped managed dek", &opened.expose_to_caller(), &v["wrapped_dek"]["dek"]);
    meet("managed_dek_row", &[&[2][..], context.as_bytes(), ours.as_bytes()].concat(), &v["managed_dek_row"]);
    let destroyed_ms = v["destroyed_ms"].as_u64().unwrap().to_be_bytes();
    let complement = ours.commitment().map(|byte| !byte);
    meet("destroyed_dek_row", &[&[3][..], &destroyed_ms[2..], &complement].concat(), &v["destroyed_dek_row"]);

    // What a client seals with it (kind 05), opened with what the service gave out.
    let field = bytes(&v["field_managed"]["blob"]);
    let mut okm = [0; 64];
    let info = [&b"kms1/hkdf-sha512/aes-256-gcm/commit"[..], &field[..36], &bytes(&v["field_managed"]["info"])[71..]];
    kdf::expand(&opened.expose_to_caller().try_into().unwrap(), &info, &mut okm);
    meet("field_managed, its key", &okm[..32], &v["field_managed"]["ek"]);
    meet("field_managed, its commitment", &okm[32..], &v["field_managed"]["commitment"]);
    assert_eq!((field[4], &field[5..21]), (5, &dek_uid.as_bytes()[..]), "it names its managed data key");

    let mac = bytes(&v["mac"]["mac"]);
    let message = v["mac"]["message_utf8"].as_str().unwrap().as_bytes();
    meet("mac", &kek.mac(key_uid, three, &context, message), &v["mac"]["mac"]);
    assert_eq!(kek.verify_mac(key_uid, three, &context, message, &mac), Ok(()));

    let root = secret!(IndexRoot, array(&v["wrapped_index_root"]["index_root"]));
    let index = &v["blind_index"];
    let name = index["index"].as_str().unwrap().parse().unwrap();
    let index_key = root.index_key(&acme, &name).expose_to_caller();
    meet("blind_index", &index_key, &index["key"]);
    let value = index["value"].as_str().unwrap().as_bytes();
    meet("a token's mac", &hmac_sha256(&index_key.try_into().unwrap(), &[value]), &index["mac"]);

    println!("vectors of managed data keys, MACs and blind indexes: {met}/{met} met");
    assert_eq!(met, 12);
}

#[test]
fn a_managed_data_key_opens_only_where_it_was_made() {
    let (kek, rng) = (secret!(Kek, [1; 32]), Fixed::new(&[5; 56]));
    let (acme, globex): (TenantName, TenantName) = ("acme".parse().unwrap(), "globex".parse().unwrap());
    let key = Uid::from_bytes([2; 16]);
    let (made, other) = (DekUid::of(1, [3; 6], 0), DekUid::of(1, [3; 6], 1));
    let context = |aad: &[u8]| context::hash_of_caller("acme", aad, []).unwrap();
    let dek = Dek::generate(&rng);
    let blob = kek.wrap_managed_dek(key, version(1), &acme, &made, &context(b"row"), &dek, &rng);
    let open = |tenant, uid, aad: &[u8]| kek.unwrap_managed_dek(key, version(1), tenant, uid, &context(aad), &blob);
    assert_eq!(open(&acme, &made, b"row").err(), None);
    assert_eq!(open(&globex, &made, b"row").err(), Some(OpenError::Commitment));
    assert_eq!(open(&acme, &other, b"row").err(), Some(OpenError::Commitment));
    assert_eq!(open(&acme, &made, b"raw").err(), Some(OpenError::Commitment));
    // Nor is it a portable one, in whatever context a caller can give.
    assert!(matches!(kek.unwrap_dek(key, version(1), &context(b"row"), blob.as_bytes()), Err(OpenError::Commitment)));
}

#[test]
fn a_mac_is_of_one_message_in_one_context_by_one_version() {
    let kek = secret!(Kek, [1; 32]);
    let (key, context) = (Uid::from_bytes([2; 16]), context::hash_of_caller("acme", b"", []).unwrap());
    let mac = kek.mac(key, version(2), &context, b"message");
    let verify = |version, context: &ContextHash, message: &[u8], mac: &[u8]| {
        kek.verify_mac(key, version, context, message, mac)
    };
    assert_eq!(verify(version(2), &context, b"message", &mac), Ok(()));
    assert_eq!(verify(version(2), &context, b"massage", &mac), Err(OpenError::Mac));
    assert_eq!(verify(version(1), &context, b"message", &mac), Err(OpenError::Version));
    let elsewhere = context::hash_of_caller("acme", b"x", []).unwrap();
    assert_eq!(verify(version(2), &elsewhere, b"message", &mac), Err(OpenError::Mac));
    assert_eq!(secret!(Kek, [3; 32]).verify_mac(key, version(2), &context, b"message", &mac), Err(OpenError::Mac));
    let mut flips = 0;
    for bit in 0..mac.len() * 8 {
        let mut damaged = mac;
        damaged[bit / 8] ^= 1 << (bit % 8);
        flips += usize::from(verify(version(2), &context, b"message", &damaged).is_err());
    }
    let cuts = (0..mac.len()).filter(|end| verify(version(2), &context, b"message", &mac[..*end]).is_err()).count();
    assert!(verify(version(2), &context, b"message", &[&mac[..], &[0]].concat()).is_err(), "longer by a byte");
    println!("MAC bit flips refused: {flips}/{}, truncations refused: {cuts}/{}", mac.len() * 8, mac.len());
    assert_eq!((flips, cuts), (448, 56));
}

#[test]
fn every_blind_index_has_a_key_of_its_own() {
    let root = secret!(IndexRoot, [1; 32]);
    let key = |tenant: &str, index: &str| root.index_key(&tenant.parse().unwrap(), &index.parse().unwrap());
    let keys: std::collections::BTreeSet<_> = [("a", "bc"), ("ab", "c"), ("a", "b"), ("b", "bc"), ("a", "BC")]
        .map(|(t, i)| key(t, i).expose_to_caller())
        .into();
    assert_eq!(keys.len(), 5);
    assert_eq!(key("a", "bc").expose_to_caller(), key("a", "bc").expose_to_caller());
}

#[test]
fn every_bit_flip_and_truncation_of_a_blob_is_refused() {
    let v = vectors();
    let kek = secret!(Kek, array(&v["blob_data"]["kek"]));
    let (key_uid, context, blob) = (uid(&v["blob_data"]["key_id"]), caller_context(&v), bytes(&v["blob_data"]["blob"]));
    let mut reasons = BTreeMap::new();
    let mut refuse = |damaged: &[u8]| match kek.open_data(key_uid, version(3), &context, damaged) {
        Ok(_) => false,
        Err(reason) => {
            *reasons.entry(reason.to_string()).or_insert(0) += 1;
            true
        }
    };
    let flips = (0..blob.len() * 8)
        .filter(|bit| {
            let mut damaged = blob.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            refuse(&damaged)
        })
        .count();
    let expected: BTreeMap<String, i32> = serde_json::from_value(v["negatives"]["bit_flips"].clone()).unwrap();
    assert_eq!(reasons, expected, "each flip is refused for the reason the reference gives");
    let refuse = |damaged: &[u8]| kek.open_data(key_uid, version(3), &context, damaged).is_err();
    let truncations = (0..blob.len()).filter(|end| refuse(&blob[..*end])).count();
    println!("bit flips refused: {flips}/{}, truncations refused: {truncations}/{}", blob.len() * 8, blob.len());
    assert_eq!((flips, truncations), (888, 111));
}

#[test]
fn a_blob_opens_only_as_what_and_where_it_was_sealed() {
    let v = vectors();
    let kek = secret!(Kek, array(&v["blob_data"]["kek"]));
    let other = secret!(Kek, [7; 32]);
    let (key_uid, context, blob) = (uid(&v["blob_data"]["key_id"]), caller_context(&v), bytes(&v["blob_data"]["blob"]));
    let reason =
        |kek: &Kek, uid, number, context: &ContextHash| kek.open_data(uid, version(number), context, &blob).err();
    assert_eq!(reason(&kek, key_uid, 3, &context), None);
    assert_eq!(reason(&other, key_uid, 3, &context), Some(OpenError::Commitment));
    assert_eq!(reason(&kek, Uid::from_bytes([0; 16]), 3, &context), Some(OpenError::Key));
    assert_eq!(reason(&kek, key_uid, 4, &context), Some(OpenError::Version));
    let elsewhere = context::hash_of_caller("acme", b"row:43", []).unwrap();
    assert_eq!(reason(&kek, key_uid, 3, &elsewhere), Some(OpenError::Commitment));
    assert!(matches!(kek.unwrap_dek(key_uid, version(3), &context, &blob), Err(OpenError::Kind)));
}

#[test]
fn a_wrapped_key_of_another_length_is_refused() {
    let kek = secret!(Kek, [1; 32]);
    let (key_uid, context) = (Uid::from_bytes([2; 16]), context::hash_of_caller("acme", b"", []).unwrap());
    let header = Header { kind: Kind::WrappedDek, key_id: key_uid, version: version(1) };
    let blob = construction::seal(kek.bytes(), header, &context, &[0; 31], &Fixed::new(&[0; 24]));
    assert!(matches!(kek.unwrap_dek(key_uid, version(1), &context, &blob), Err(OpenError::Length)));
}

#[test]
fn a_record_verifies_only_in_its_place_and_unchanged() {
    let mac_key = secret!(RecordMacKey, [9; 32]);
    let record = record::seal(&mac_key, version(5), "key", b"place", b"protobuf");
    assert_eq!(record::open(&mac_key, "key", b"place", &record), Ok(&b"protobuf"[..]));
    assert_eq!(record::key_version(&record), Ok(version(5)));
    assert!(record::open(&mac_key, "key", b"placf", &record).is_err());
    assert!(record::open(&mac_key, "kez", b"place", &record).is_err());
    // The boundary between family and row key cannot be moved.
    assert!(record::open(&mac_key, "ke", b"yplace", &record).is_err());
    assert!(record::open(&secret!(RecordMacKey, [8; 32]), "key", b"place", &record).is_err());
    for bit in 0..record.len() * 8 {
        let mut damaged = record.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(record::open(&mac_key, "key", b"place", &damaged).is_err(), "bit {bit}");
    }
    for end in 0..record.len() {
        assert!(record::open(&mac_key, "key", b"place", &record[..end]).is_err(), "end {end}");
    }
}

#[test]
fn a_keystore_file_that_asks_for_too_much_is_refused_before_any_work() {
    let v = vectors();
    let good = bytes(&v["keystore_file"]["file"]);
    for at in [27, 31, 35] {
        let mut file = good.clone();
        file[at] = 0xff;
        assert!(matches!(keystore_file::KeystoreHead::parse(&file), Err(keystore_file::KeystoreError::Cost)), "{at}");
    }
}

#[test]
fn a_page_token_is_of_use_only_where_it_was_given() {
    let key = secret!(PageTokenKey, [3; 32]);
    let token = key.seal("ListKeys tenants/acme spiffe://x/a", b"billing");
    assert_eq!(key.open("ListKeys tenants/acme spiffe://x/a", &token), Some(&b"billing"[..]));
    assert_eq!(key.open("ListKeys tenants/acmf spiffe://x/a", &token), None);
    for bit in 0..token.len() * 8 {
        let mut damaged = token.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.open("ListKeys tenants/acme spiffe://x/a", &damaged), None);
    }
    for end in 0..token.len() {
        assert_eq!(key.open("ListKeys tenants/acme spiffe://x/a", &token[..end]), None);
    }
}

#[test]
fn a_wrapped_key_shows_nothing_in_debug_but_its_header() {
    let wrapped = WrappedKey::from_slice(&[0xab; 128]).unwrap();
    assert!(!format!("{wrapped:?}").contains("abab"));
}
