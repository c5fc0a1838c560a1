#!/usr/bin/env python3
"""Reference of the store's rows, and generator of their vectors: a second implementation, from the text of
kms-server/doc/formats.md and rows.proto, with its own protobuf encoder and its own HKDF-Expand. Deterministic: every input is fixed here,
wrapped keys are those of kms1_vectors.json.
usage: rows_ref.py            rewrites rows.json beside it
       rows_ref.py --check    compares instead, and fails if they differ"""
import hashlib, hmac, json, os, struct, sys

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "rows.json")

# ---------- protobuf (proto3): fields in the order of their numbers, defaults left out unless the field is `optional`
def varint(n):
    out = b""
    while n > 0x7f:
        out += bytes([n & 0x7f | 0x80]); n >>= 7
    return out + bytes([n])

def encode(message, fields):
    """`fields` maps names to values; bytes are given as hex, nested messages as dictionaries."""
    schema = SCHEMA[message]
    assert set(fields) <= set(schema), set(fields) - set(schema)
    out = b""
    for name, (number, kind, *more) in sorted(schema.items(), key=lambda item: item[1][0]):
        if name not in fields: continue
        if "packed" in more:
            data = b"".join(varint(value) for value in fields[name])
            if data: out += varint(number << 3 | 2) + varint(len(data)) + data
            continue
        values = fields[name] if "repeated" in more else [fields[name]]
        for value in values:
            if kind in ("uint", "enum"):
                if value or "optional" in more: out += varint(number << 3 | 0) + varint(value)
                continue
            if kind == "bytes": data = bytes.fromhex(value)
            elif kind == "string": data = value.encode()
            else: data = encode(kind, value)
            if data or "repeated" in more or kind in SCHEMA: out += varint(number << 3 | 2) + varint(len(data)) + data
    return out

SCHEMA = {
    "Epoch": {"rev": (1, "uint"), "epoch_id": (2, "bytes"), "number": (3, "uint"), "state": (4, "enum"), "wraps": (5, "EpochWrap", "repeated"), "kcv": (6, "bytes"),
              "created_ms": (7, "uint"), "begin_index": (8, "uint")},
    "EpochWrap": {"backend": (1, "string"), "reference": (2, "string"), "ciphertext": (3, "bytes")},
    "Cluster": {"rev": (1, "uint"), "uid": (2, "bytes"), "secret_version": (3, "uint"), "wrapped_secret": (4, "bytes"), "created_ms": (5, "uint")},
    "AuditSeed": {"rev": (1, "uint"), "n": (2, "uint"), "origin": (3, "string"), "wrapped_seed": (4, "bytes"), "public_key": (5, "bytes"), "created_ms": (6, "uint")},
    "Position": {"rev": (1, "uint"), "seq": (2, "uint"), "anchor_size": (3, "uint"), "anchor_mac": (4, "bytes"), "last_mutation_index": (5, "uint", "optional"),
                 "last_destruction_index": (6, "uint", "optional"), "first_intent_index": (7, "uint", "optional"), "ledger_mac": (8, "bytes"), "clock_held": (9, "uint"),
                 "last_dek_destruction_index": (10, "uint", "optional")},
    "Tenant": {"rev": (1, "uint"), "uid": (2, "bytes"), "name": (3, "string"), "state": (4, "enum"), "tenant_keys": (5, "WrappedTenantKey", "repeated"),
               "wrapped_index_root": (6, "bytes"), "created_ms": (7, "uint"), "destroy_ms": (8, "uint", "optional"), "lease_ms": (9, "uint", "optional"), "longest_lease_ms": (10, "uint"),
               "longest_until_ms": (11, "uint")},
    "WrappedTenantKey": {"version": (1, "uint"), "blob": (2, "bytes"), "birth_index": (3, "uint")},
    "TenantName": {"rev": (1, "uint"), "uid": (2, "bytes"), "tombstone": (3, "Tombstone")},
    "Tombstone": {"state": (1, "enum"), "tkc_complement": (2, "bytes", "repeated"), "intent_index": (3, "uint"), "fenced_ms": (4, "uint"), "epoch": (5, "uint"),
                  "created_ms": (6, "uint"), "keys": (7, "uint"), "deks": (8, "uint")},
    "KeyName": {"rev": (1, "uint"), "uid": (2, "bytes")},
    "Key": {"rev": (1, "uint"), "uid": (2, "bytes"), "name": (3, "string"), "purpose": (4, "enum"), "state": (5, "enum"), "primary": (6, "uint"), "created_ms": (7, "uint"),
            "updated_ms": (8, "uint"), "destroy_ms": (9, "uint", "optional"), "labels": (10, "Label", "repeated")},
    "Label": {"name": (1, "string"), "value": (2, "string")},
    "KeyVersion": {"rev": (1, "uint"), "version": (2, "uint"), "state": (3, "enum"), "wrapped_kek": (4, "bytes"), "kekc_complement": (5, "bytes"), "created_ms": (6, "uint"),
                   "destroy_ms": (7, "uint", "optional")},
    "Schedule": {"rev": (1, "uint"), "due_ms": (2, "uint"), "principal": (3, "string")},
    "TenantCounters": {"rev": (1, "uint"), "keys": (2, "uint"), "last_destruction_index": (3, "uint", "optional"), "deks": (4, "uint")},
    "DekCount": {"rev": (1, "uint"), "deks": (2, "uint")},
    "RewrapJob": {"rev": (1, "uint"), "cursor": (2, "bytes"), "begun_ms": (3, "uint"), "moved": (4, "uint"), "left": (5, "uint"), "tenant": (6, "string"), "key": (7, "string")},
    "Answer": {"rev": (1, "uint"), "asked": (2, "bytes"), "made_ms": (3, "uint"), "intent_index": (4, "uint"), "tenant": (5, "AnsweredTenant"), "key": (6, "AnsweredKey"),
               "version": (7, "AnsweredVersion"), "lease_end_ms": (8, "uint", "optional"), "new_data_keys": (9, "AnsweredNewDataKeys"), "gone_data_keys": (10, "AnsweredGoneDataKeys"), "grant": (11, "AnsweredGrant")},
    "AnsweredNewDataKeys": {"uid_prefix": (1, "bytes"), "items": (2, "uint")},
    "AnsweredGoneDataKeys": {"destroyed_ms": (1, "uint"), "items": (2, "uint"), "missing": (3, "uint", "packed"), "gone_before": (4, "uint", "packed")},
    "AnsweredGrant": {"uid": (1, "bytes"), "grant": (2, "Grant"), "etag": (3, "bytes")},
    "Grant": {"rev": (1, "uint"), "state": (2, "enum"), "requester": (3, "string"), "reason": (4, "string"), "requested_ms": (5, "uint"), "end_ms": (6, "uint"), "tenant": (7, "string"),
              "role": (8, "string"), "duration_ms": (9, "uint"), "operation": (10, "string"), "operation_hash": (11, "bytes"), "request": (12, "bytes"), "approver": (13, "string"),
              "approved_ms": (14, "uint", "optional"), "revoker": (15, "string"), "ended_ms": (16, "uint", "optional")},
    "AnsweredTenant": {"name": (1, "string"), "uid": (2, "bytes"), "state": (3, "enum"), "created_ms": (4, "uint"), "destroy_ms": (5, "uint", "optional"),
                       "fenced_ms": (6, "uint", "optional"), "etag": (7, "bytes"), "lease_ms": (8, "uint", "optional")},
    "AnsweredKey": {"tenant": (1, "string"), "key": (2, "Key"), "etag": (3, "bytes")},
    "AnsweredVersion": {"version": (1, "uint"), "state": (2, "enum"), "created_ms": (3, "uint"), "destroy_ms": (4, "uint", "optional"), "etag": (5, "bytes")},
}
EPOCH_CURRENT, EPOCH_GONE = 1, 6
ACTIVE, PENDING, FENCED, UNRECOVERABLE = 1, 3, 4, 6
ENCRYPT, MAC = 1, 3
ENABLED, KEY_PENDING, DESTROYED = 1, 3, 4

# ---------- the record around it
def subkey(key, label):
    """HKDF-Expand-SHA-512 to 32 bytes: one block of HMAC."""
    return hmac.new(key, label + b"\x01", hashlib.sha512).digest()[:32]

def u24(n):
    assert 0 < n < 1 << 24
    return struct.pack(">I", n)[1:]

def record(key, key_version, family, store_key, protobuf):
    head = b"\x01" + u24(key_version) + protobuf
    place = struct.pack(">H", len(family)) + family.encode() + struct.pack(">H", len(store_key)) + store_key
    return head + hmac.new(key, b"kms1/record\x00" + place + head, hashlib.sha256).digest()

def main():
    known = json.load(open(os.path.join(HERE, "kms1_vectors.json"), encoding="utf-8"))
    name_hash = lambda text: hashlib.sha256(text.encode()).digest()
    uid_of = lambda text: name_hash(text)[:16].hex()
    blob_of = lambda name: known[name]["blob"]
    complement_of = lambda blob: bytes(x ^ 0xff for x in bytes.fromhex(blob)[48:80]).hex()
    secret = {"cluster": known["wrapped_cluster_secret"]["cluster_secret"], "tenant": known["wrapped_tenant_key"]["tenant_key"]}
    mac = {who: subkey(bytes.fromhex(key), b"kms1/record-mac\x00") for who, key in secret.items()}
    assert mac["cluster"].hex() == known["subkeys"]["record_mac_cluster"] and mac["tenant"].hex() == known["subkeys"]["record_mac_tenant"]

    cluster, master_id = known["wrapped_epoch_key"]["cluster"], known["wrapped_epoch_key"]["master_id"]
    epoch_id, tenant = known["wrapped_tenant_key"]["epoch_id"], known["wrapped_tenant_key"]["tenant_uid"]
    key, other_key, gone = known["blob_data"]["key_id"], uid_of("test other key uid"), uid_of("test destroyed tenant")
    born, later, due = 1790000000100, 1790000500000, 1790604800000
    raw = bytes.fromhex
    rows = []

    def add(name, message, family, place, store_key, who, key_version, /, **fields):
        protobuf = encode(message, fields)
        rows.append({"name": name, "message": message, "family": family, "place": place, "store_key": store_key.hex(), "mac_key": who, "mac_key_version": key_version,
                     "fields": fields, "protobuf": protobuf.hex(), "row": record(mac[who], key_version, family, store_key, protobuf).hex()})

    add("epoch, current", "Epoch", "root", {"row": "epoch", "number": 7}, b"e" + u24(7), "cluster", 1, rev=1, epoch_id=epoch_id, number=7, state=EPOCH_CURRENT,
        wraps=[{"backend": "software", "reference": f"{master_id}-00000007.kms1hsm", "ciphertext": blob_of("wrapped_epoch_key")}], kcv=known["epoch_kcv"], created_ms=born, begin_index=0)
    add("epoch, gone, without a wrap", "Epoch", "root", {"row": "epoch", "number": 6}, b"e" + u24(6), "cluster", 2, rev=300, epoch_id=uid_of("test former epoch id"), number=6, state=EPOCH_GONE,
        kcv=name_hash("test former kcv").hex(), created_ms=born, begin_index=40)
    add("cluster", "Cluster", "root", {"row": "cluster"}, b"c", "cluster", 1, rev=2, uid=cluster, secret_version=1, wrapped_secret=blob_of("wrapped_cluster_secret"), created_ms=born)
    add("audit seed", "AuditSeed", "root", {"row": "audit_seed", "number": 1}, b"a" + u24(1), "cluster", 1, rev=1, n=1, origin="kms.example.com/audit/node-1", wrapped_seed=blob_of("wrapped_audit_seed"),
        public_key=name_hash("test public key").hex(), created_ms=born)
    add("position, before the first mutation", "Position", "root", {"row": "position"}, b"s", "cluster", 1, rev=1, seq=0, anchor_size=1, anchor_mac=name_hash("test frame mac").hex())
    add("position, first mutation at index 0", "Position", "root", {"row": "position"}, b"s", "cluster", 1, rev=2, seq=1, anchor_size=3, anchor_mac=name_hash("test frame mac 2").hex(),
        last_mutation_index=0)
    add("position, after a destruction", "Position", "root", {"row": "position"}, b"s", "cluster", 1, rev=9_000_000_000, seq=(1 << 53) - 1, anchor_size=(1 << 53) - 1,
        anchor_mac=name_hash("test frame mac 3").hex(), last_mutation_index=(1 << 53) - 2, last_destruction_index=7, first_intent_index=(1 << 53) - 4, ledger_mac=name_hash("test ledger mac").hex(), clock_held=True)
    add("position, after data keys were destroyed", "Position", "root", {"row": "position"}, b"s", "cluster", 1, rev=12, seq=9, anchor_size=30, anchor_mac=name_hash("test frame mac 4").hex(),
        last_mutation_index=28, first_intent_index=27, ledger_mac=name_hash("test ledger mac").hex(), last_dek_destruction_index=28)
    add("tenant, active", "Tenant", "root", {"row": "tenant", "tenant": tenant}, b"t" + raw(tenant), "tenant", 1, rev=1, uid=tenant, name="acme", state=ACTIVE,
        tenant_keys=[{"version": 1, "blob": blob_of("wrapped_tenant_key"), "birth_index": 1}], wrapped_index_root=blob_of("wrapped_index_root"), created_ms=born)
    add("tenant, pending, between two tenant keys", "Tenant", "root", {"row": "tenant", "tenant": tenant}, b"t" + raw(tenant), "tenant", 2, rev=5, uid=tenant, name="acme", state=PENDING,
        tenant_keys=[{"version": 1, "blob": blob_of("wrapped_tenant_key"), "birth_index": 0}, {"version": 2, "blob": blob_of("wrapped_kek"), "birth_index": 70000}],
        wrapped_index_root=blob_of("wrapped_index_root"), created_ms=born, destroy_ms=due)
    add("tenant, active, with a lease that was longer", "Tenant", "root", {"row": "tenant", "tenant": tenant}, b"t" + raw(tenant), "tenant", 1, rev=3, uid=tenant, name="acme", state=ACTIVE,
        tenant_keys=[{"version": 1, "blob": blob_of("wrapped_tenant_key"), "birth_index": 1}], wrapped_index_root=blob_of("wrapped_index_root"), created_ms=born, lease_ms=0, longest_lease_ms=86400000,
        longest_until_ms=later + 86460000)
    add("tenant name, live", "TenantName", "name", {"row": "tenant_name", "name": "acme"}, b"\x00acme", "cluster", 1, rev=1, uid=tenant)
    add("tenant name, tombstone, fenced", "TenantName", "name", {"row": "tenant_name", "name": "acme"}, b"\x00acme", "cluster", 1, rev=2, uid=tenant,
        tombstone={"state": FENCED, "tkc_complement": [complement_of(blob_of("wrapped_tenant_key"))], "intent_index": 6, "fenced_ms": later, "epoch": 7, "created_ms": born, "keys": 12, "deks": 81234})
    add("tenant name, tombstone, unrecoverable, two tenant keys", "TenantName", "name", {"row": "tenant_name", "name": "Globex.2_~x"}, b"\x00Globex.2_~x", "cluster", 2, rev=4, uid=gone,
        tombstone={"state": UNRECOVERABLE, "tkc_complement": [complement_of(blob_of("wrapped_tenant_key")), complement_of(blob_of("wrapped_kek"))], "intent_index": 0, "fenced_ms": later,
                   "epoch": 6, "created_ms": born})
    add("key name", "KeyName", "name", {"row": "key_name", "tenant": tenant, "name": "billing"}, b"\x01" + raw(tenant) + b"billing", "tenant", 1, rev=1, uid=key)
    add("key, enabled", "Key", "key", {"row": "key", "tenant": tenant, "key": key}, raw(tenant) + raw(key) + b"\x00", "tenant", 1, rev=3, uid=key, name="billing", purpose=ENCRYPT, state=ENABLED, primary=3,
        created_ms=born, updated_ms=later, labels=[{"name": "empty", "value": ""}, {"name": "team", "value": "caf\u00e9"}])
    add("key, destruction scheduled", "Key", "key", {"row": "key", "tenant": tenant, "key": other_key}, raw(tenant) + raw(other_key) + b"\x00", "tenant", 1, rev=4, uid=other_key, name="webhooks", purpose=MAC,
        state=KEY_PENDING, primary=1, created_ms=born, updated_ms=later, destroy_ms=due)
    version = lambda which, number: raw(tenant) + raw(which) + b"\x01" + u24(number)
    add("key version, enabled", "KeyVersion", "key", {"row": "key_version", "tenant": tenant, "key": key, "number": 3}, version(key, 3), "tenant", 1, rev=1, version=3, state=ENABLED,
        wrapped_kek=blob_of("wrapped_kek"), created_ms=later)
    add("key version, destruction scheduled", "KeyVersion", "key", {"row": "key_version", "tenant": tenant, "key": key, "number": 2}, version(key, 2), "tenant", 1, rev=3, version=2, state=KEY_PENDING,
        wrapped_kek=blob_of("wrapped_kek"), created_ms=born, destroy_ms=due)
    add("key version, destroyed shell", "KeyVersion", "key", {"row": "key_version", "tenant": tenant, "key": key, "number": 16777215}, version(key, 16777215), "tenant", 2, rev=4, version=16777215, state=DESTROYED,
        kekc_complement=complement_of(blob_of("wrapped_kek")), created_ms=born)
    schedule = {"rev": 1, "due_ms": due, "principal": "spiffe://example.com/admin"}
    add("schedule of a tenant", "Schedule", "ops", {"row": "schedule", "tenant": tenant}, b"\x01" + raw(tenant), "cluster", 1, **schedule)
    add("schedule of a key", "Schedule", "ops", {"row": "schedule", "tenant": tenant, "key": other_key}, b"\x01" + raw(tenant) + raw(other_key), "cluster", 1, **schedule)
    add("schedule of a key version", "Schedule", "ops", {"row": "schedule", "tenant": tenant, "key": key, "number": 2}, b"\x01" + raw(tenant) + raw(key) + u24(2), "cluster", 1, **schedule)
    add("tenant counters, nothing destroyed yet", "TenantCounters", "ops", {"row": "tenant_counters", "tenant": tenant}, b"\x02" + raw(tenant), "cluster", 1, rev=1, keys=0)
    add("tenant counters", "TenantCounters", "ops", {"row": "tenant_counters", "tenant": tenant}, b"\x02" + raw(tenant), "cluster", 1, rev=12, keys=11, last_destruction_index=0)

    add("tenant counters, with data keys", "TenantCounters", "ops", {"row": "tenant_counters", "tenant": tenant}, b"\x02" + raw(tenant), "cluster", 1, rev=13, keys=11, deks=81234)
    count_key = lambda number: b"\x04" + raw(tenant) + raw(key) + u24(number)
    add("data keys of a version, none yet", "DekCount", "ops", {"row": "dek_count", "tenant": tenant, "key": key, "number": 3}, count_key(3), "cluster", 1, rev=1, deks=0)
    add("data keys of a version", "DekCount", "ops", {"row": "dek_count", "tenant": tenant, "key": key, "number": 16777215}, count_key(16777215), "cluster", 2, rev=70000, deks=(1 << 40) + 1)
    job_place, job_key = {"row": "rewrap_job", "tenant": tenant, "key": key}, b"\x05" + raw(tenant) + raw(key)
    add("job that moves data keys, just begun", "RewrapJob", "ops", job_place, job_key, "cluster", 1, rev=1, begun_ms=later, tenant="acme", key="billing")
    add("job that moves data keys, on its way", "RewrapJob", "ops", job_place, job_key, "cluster", 1, rev=9, begun_ms=later, cursor=known["managed_dek"]["uid"], moved=2000, left=3, tenant="acme", key="billing")

    day, found_by = 20_717, name_hash("test caller, operation and id")[:16]
    answer_place, answer_key = {"row": "answer", "number": day, "name": found_by.hex()}, b"\x03" + bytes(16) + struct.pack(">I", day) + found_by
    answered = {"rev": 1, "asked": name_hash("test call").hex(), "made_ms": later}
    etag = lambda text: name_hash(text)[:16].hex()
    key_row = {"uid": key, "name": "billing", "purpose": ENCRYPT, "state": ENABLED, "primary": 3, "created_ms": born, "updated_ms": later, "labels": [{"name": "team", "value": "caf\u00e9"}]}
    add("answer, about a tenant", "Answer", "ops", answer_place, answer_key, "cluster", 1, **answered, intent_index=6,
        tenant={"name": "acme", "uid": tenant, "state": FENCED, "created_ms": born, "fenced_ms": later, "etag": etag("test tenant row")})
    add("answer, about a key", "Answer", "ops", answer_place, answer_key, "cluster", 2, **answered, intent_index=0, key={"tenant": "acme", "key": key_row, "etag": etag("test key row")})
    add("answer, about a version", "Answer", "ops", answer_place, answer_key, "cluster", 1, **answered, intent_index=(1 << 53) - 1,
        key={"tenant": "acme", "key": key_row, "etag": etag("test key row")},
        version={"version": 2, "state": KEY_PENDING, "created_ms": born, "destroy_ms": due, "etag": etag("test version row")})

    of_role = {"requester": "spiffe://example.com/staff/ada", "reason": "ticket 4711: caf\u00e9", "requested_ms": born, "tenant": "acme", "role": "decrypter", "duration_ms": 3600000}
    approved = {**of_role, "state": 2, "end_ms": later + 3600000, "approver": "spiffe://example.com/staff/bob", "approved_ms": later}
    grant_place, grant_key = {"row": "grant", "tenant": tenant, "key": other_key}, b"\x06" + raw(tenant) + raw(other_key)
    add("grant of a role, pending", "Grant", "ops", grant_place, grant_key, "cluster", 1, rev=1, state=1, end_ms=due, **of_role)
    add("grant of a role, approved", "Grant", "ops", grant_place, grant_key, "cluster", 1, rev=2, **approved)
    add("grant of a role, revoked", "Grant", "ops", grant_place, grant_key, "cluster", 2, rev=3, **{**approved, "state": 4}, revoker="spiffe://example.com/staff/ada", ended_ms=due)
    add("grant of the cluster, used", "Grant", "ops", {"row": "grant", "key": key}, b"\x06" + bytes(16) + raw(key), "cluster", 1, rev=3, state=3, requester="spiffe://example.com/ops",
        reason="a copy for the safe", requested_ms=born, end_ms=due, operation="ExportKeystore", operation_hash=name_hash("test operation").hex(), request="1a00", approver="spiffe://example.com/staff/bob", approved_ms=born, ended_ms=0)
    add("answer, about a grant", "Answer", "ops", answer_place, answer_key, "cluster", 1, **answered, intent_index=7, grant={"uid": other_key, "grant": approved, "etag": etag("test grant row")})
    add("answer, about data keys that were made", "Answer", "ops", answer_place, answer_key, "cluster", 1, rev=1, asked=etag("test call, keyed"), made_ms=later,
        new_data_keys={"uid_prefix": known["managed_dek"]["uid"][:24], "items": 10000})
    add("answer, about data keys that were destroyed", "Answer", "ops", answer_place, answer_key, "cluster", 1, **answered, intent_index=27, lease_end_ms=later + 300000,
        gone_data_keys={"destroyed_ms": later, "items": 1000, "missing": [0, 999], "gone_before": [130]})
    add("answer, about a tenant with a lease", "Answer", "ops", answer_place, answer_key, "cluster", 1, **answered, intent_index=6, lease_end_ms=later + 300000,
        tenant={"name": "acme", "uid": tenant, "state": 2, "created_ms": born, "etag": etag("test tenant row"), "lease_ms": 300000})

    nested = {more for fields in SCHEMA.values() for (_, more, *_) in fields.values() if more in SCHEMA}
    missing = set(SCHEMA) - nested - {row["message"] for row in rows}
    assert not missing, f"no row of {missing}"
    text = json.dumps({"secrets": secret, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        if open(OUT, encoding="utf-8").read() != text: sys.exit("rows.json differs from what rows_ref.py makes")
        print(f"rows.json: {len(rows)} rows, as made")
    else:
        open(OUT, "w", encoding="utf-8").write(text)
        print(f"rows.json: {len(rows)} rows written")

main()
