"""The whole round trip from Python, with what stock tools make of the .proto files: grpcio and its protoc, nothing of ours.

It is a test (`foreign_client` in tests/e2e starts it against a daemon) and an example: everything that a caller in another
language does is here, from the certificates to the reason of a refusal. By hand, with `kms-server dev` running:

    pip install -r requirements.txt
    python -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. ../../proto/kms/v1/*.proto
    python trip.py --services 127.0.0.1:8443 --operator 127.0.0.1:8444 --ca ca.pem --admin admin --app app

where `admin` is what the files of a certificate and its key are called without `.pem` and `.key`.
"""

import argparse
import hashlib
import hmac
import uuid

import grpc
from google.protobuf import duration_pb2, field_mask_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from kms.v1 import access_service_pb2 as access
from kms.v1 import access_service_pb2_grpc as access_grpc
from kms.v1 import crypto_batch_pb2 as batches
from kms.v1 import crypto_service_pb2 as crypto
from kms.v1 import crypto_service_pb2_grpc as crypto_grpc
from kms.v1 import key_service_pb2 as keys
from kms.v1 import key_service_pb2_grpc as keys_grpc
from kms.v1 import operator_service_pb2 as operators
from kms.v1 import operator_service_pb2_grpc as operators_grpc
from kms.v1 import tenant_service_pb2 as tenants
from kms.v1 import tenant_service_pb2_grpc as tenants_grpc
from kms.v1 import types_pb2 as types

SECONDS_MAX = 20  # for each call: one that hangs is a failure


class Caller:
    """One identity: a channel with its certificate to each listener, and the services that are there."""

    def __init__(self, services, operator, ca, identity):
        def read(path):
            with open(path, "rb") as file:
                return file.read()

        credentials = grpc.ssl_channel_credentials(
            root_certificates=read(ca),
            private_key=read(identity + ".key"),
            certificate_chain=read(identity + ".pem"),
        )
        self.services = grpc.secure_channel(services, credentials)
        self.operator = grpc.secure_channel(operator, credentials)
        self.crypto = crypto_grpc.CryptoServiceStub(self.services)
        self.keys = keys_grpc.KeyServiceStub(self.services)
        self.tenants = tenants_grpc.TenantServiceStub(self.services)
        self.access = access_grpc.AccessServiceStub(self.services)
        self.node = operators_grpc.OperatorServiceStub(self.operator)

    def close(self):
        self.services.close()
        self.operator.close()


def reason_of(error):
    """Returns why a call was refused: `google.rpc.ErrorInfo.reason`, from the trailers of the reply."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            assert info.domain == "kms.v1", info.domain
            assert info.metadata["request_id"], "a refusal says what the daemon calls the request"
            return info.reason
    return None


class Checks:
    """Counts what was as expected, and fails with the first that was not."""

    count = 0

    def equal(self, what, got, expected):
        assert got == expected, f"{what}: expected {expected!r}, got {got!r}"
        self.count += 1

    def refused(self, what, code, reason, method, request):
        try:
            answer = method(request, timeout=SECONDS_MAX)
        except grpc.RpcError as error:
            self.equal(what, (error.code(), reason_of(error)), (code, reason))
        else:
            raise AssertionError(f"{what}: expected {reason}, got an answer: {answer}")


def pages(method, request, items):
    """Asks for all pages of a list."""
    while True:
        page = method(request, timeout=SECONDS_MAX)
        yield from getattr(page, items)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def trip(admin, app, check):
    tenant, key = "tenants/python", "tenants/python/keys/app"
    ask = {"timeout": SECONDS_MAX}

    # Who is who, and does it serve?
    me = app.access.GetCallerIdentity(access.GetCallerIdentityRequest(), **ask)
    check.equal("who asks", me.principal.endswith("/app"), True)
    check.equal("how it proved that", me.auth_method, access.AUTH_METHOD_MTLS)
    for listener in (app.services, admin.operator):
        health = health_pb2_grpc.HealthStub(listener).Check(health_pb2.HealthCheckRequest(), **ask)
        check.equal("health", health.status, health_pb2.HealthCheckResponse.SERVING)
    status = admin.node.GetStatus(operators.GetStatusRequest(), **ask)
    check.equal("the node", status.state, operators.SERVER_STATE_SERVING)
    # Each listener has its own services.
    unknown = (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
    elsewhere = operators_grpc.OperatorServiceStub(admin.services)
    admin.node.Lock(operators.LockRequest(validate_only=True), **ask)
    admin.node.Unlock(operators.UnlockRequest(), **ask)
    alone = (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REQUIRED")
    check.refused("copies of the keystore", *alone, admin.node.ExportKeystore, operators.ExportKeystoreRequest())
    admin.node.Reload(operators.ReloadRequest(), **ask)
    check.refused("the node's status where applications are", *unknown, elsewhere.GetStatus, operators.GetStatusRequest())
    elsewhere = crypto_grpc.CryptoServiceStub(app.operator)
    check.refused("Encrypt where operators are", *unknown, elsewhere.Encrypt, crypto.EncryptRequest(key=key))

    # A tenant and its keys. A request id makes a change that is repeated, because its answer was lost, one change.
    create = tenants.CreateTenantRequest(tenant_id="python", request_id=str(uuid.uuid4()))
    made = admin.tenants.CreateTenant(create, **ask).tenant
    check.equal("the tenant", (made.name, made.state), (tenant, types.TENANT_STATE_ACTIVE))
    check.equal("the same again", admin.tenants.CreateTenant(create, **ask).tenant.uid, made.uid)
    reused = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    another = tenants.CreateTenantRequest(tenant_id="another", request_id=create.request_id)
    check.refused("its id for another change", *reused, admin.tenants.CreateTenant, another)
    for name in ("app", "b", "c", "d", "e"):
        request = keys.CreateKeyRequest(parent=tenant, key_id=name, purpose=types.KEY_PURPOSE_ENCRYPT)
        made = admin.keys.CreateKey(request, **ask).key
        check.equal("the key", (made.name, made.primary_version), (f"{tenant}/keys/{name}", 1))
    exists = (grpc.StatusCode.ALREADY_EXISTS, "KEY_ALREADY_EXISTS")
    check.refused("the key again", *exists, admin.keys.CreateKey, request)
    listed = [found.name for found in pages(admin.keys.ListKeys, keys.ListKeysRequest(parent=tenant, page_size=2), "keys")]
    check.equal("keys, by twos", listed, [f"{tenant}/keys/{name}" for name in ("app", "b", "c", "d", "e")])
    listed = pages(admin.tenants.ListTenants, tenants.ListTenantsRequest(page_size=1), "tenants")
    check.equal("tenants, one by one", tenant in [found.name for found in listed], True)
    relabel = keys.UpdateKeyRequest(
        key=types.Key(name=key, labels={"team": "billing"}), update_mask=field_mask_pb2.FieldMask(paths=["labels"])
    )
    check.equal("labels", dict(admin.keys.UpdateKey(relabel, **ask).key.labels), {"team": "billing"})
    denied = (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED")
    check.refused("an application that administers", *denied, app.keys.RotateKey, keys.RotateKeyRequest(name=key))
    check.refused("an administrator that reads", *denied, admin.crypto.Decrypt, crypto.DecryptRequest(key=key))

    # Data, bound to what it is.
    bound = {"encryption_context": {"table": "users", "column": "ssn", "id": "42"}, "aad": b"row 42"}
    other = {**bound, "encryption_context": {**bound["encryption_context"], "id": "43"}}
    sealed = app.crypto.Encrypt(crypto.EncryptRequest(key=key, plaintext=b"078-05-1120", **bound), **ask)
    check.equal("a blob", (sealed.ciphertext[:3], len(sealed.ciphertext)), (b"\x92\x6b\x35", 11 + 96))
    opened = app.crypto.Decrypt(crypto.DecryptRequest(key=key, ciphertext=sealed.ciphertext, **bound), **ask)
    check.equal("opened", (opened.plaintext, opened.key_version, opened.stale), (b"078-05-1120", 1, False))
    closed = (grpc.StatusCode.INVALID_ARGUMENT, "DECRYPT_FAILED")
    for what, wrong in [("another row", other), ("another aad", {**bound, "aad": b""}), ("no context", {})]:
        check.refused(what, *closed, app.crypto.Decrypt, crypto.DecryptRequest(key=key, ciphertext=sealed.ciphertext, **wrong))
    changed = sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1])
    check.refused("a changed bit", *closed, app.crypto.Decrypt, crypto.DecryptRequest(key=key, ciphertext=changed, **bound))

    # Data keys: seen, and unseen.
    seen = app.crypto.GenerateDataKey(crypto.GenerateDataKeyRequest(key=key, **bound), **ask)
    check.equal("a data key", (len(seen.plaintext), len(seen.wrapped_data_key)), (32, 128))
    unwrap = crypto.DecryptDataKeyRequest(key=key, wrapped_data_key=seen.wrapped_data_key, **bound)
    check.equal("unwrapped", app.crypto.DecryptDataKey(unwrap, **ask).plaintext, seen.plaintext)
    unseen = app.crypto.GenerateDataKey(crypto.GenerateDataKeyRequest(key=key, omit_plaintext=True, **bound), **ask)
    check.equal("an unseen data key", (unseen.plaintext, len(unseen.wrapped_data_key)), (b"", 128))
    unwrap = crypto.DecryptDataKeyRequest(key=key, wrapped_data_key=unseen.wrapped_data_key, **bound)
    check.equal("unwrapped", len(app.crypto.DecryptDataKey(unwrap, **ask).plaintext), 32)
    unwrap = crypto.DecryptDataKeyRequest(key=key, wrapped_data_key=seen.wrapped_data_key, **other)
    check.refused("a data key in another row", *closed, app.crypto.DecryptDataKey, unwrap)
    wrong_kind = (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_KIND")
    wrapped = crypto.DecryptRequest(key=key, ciphertext=seen.wrapped_data_key, **bound)
    check.refused("a data key for data", *wrong_kind, app.crypto.Decrypt, wrapped)

    # Many at once: one key and one set of pairs, an aad and a result for each. One that is wrong spoils no other.
    shared = {"encryption_context": {"table": "users"}}
    values = [batches.BatchEncryptItem(plaintext=b"%d" % n, aad=b"row %d" % n) for n in range(1500)]
    many = app.crypto.BatchEncrypt(batches.BatchEncryptRequest(key=key, items=values, **shared), **ask).results
    blobs = [batches.BatchDecryptItem(ciphertext=made.ciphertext, aad=b"row %d" % n) for n, made in enumerate(many)]
    blobs[7].aad = b"row 8"
    found = app.crypto.BatchDecrypt(batches.BatchDecryptRequest(key=key, items=blobs, **shared), **ask).results
    wrong = [(n, got.error.reason) for n, got in enumerate(found) if got.plaintext != b"%d" % n]
    check.equal("1,500 values, one in another row", wrong, [(7, types.ERROR_REASON_DECRYPT_FAILED)])
    blobs = [batches.BatchReEncryptItem(ciphertext=made.ciphertext, aad=b"row %d" % n) for n, made in enumerate(many[:3])]
    found = app.crypto.BatchReEncrypt(batches.BatchReEncryptRequest(key=key, items=blobs, **shared), **ask).results
    check.equal("moved together", [(got.source_key_version, got.HasField("error")) for got in found], [(1, False)] * 3)
    wanted = batches.BatchGenerateDataKeysRequest(key=key, items=[batches.BatchGenerateDataKeysItem()] * 3, **shared)
    made = app.crypto.BatchGenerateDataKeys(wanted, **ask)
    wrapped = [batches.BatchDecryptDataKeysItem(wrapped_data_key=one.wrapped_data_key) for one in made.results]
    unwrap_many = batches.BatchDecryptDataKeysRequest(key=key, items=wrapped, **shared)
    found = app.crypto.BatchDecryptDataKeys(unwrap_many, **ask)
    plain = [one.plaintext for one in made.results]
    check.equal("data keys together", [one.plaintext for one in found.results], plain)
    check.equal("how long they may be held", (made.lease.seconds, found.lease.seconds), (300, 300))

    # Data keys that the service keeps. Its own request id makes one that is made twice, because its answer was lost, one.
    keep = f"{tenant}/keys/keep"
    request = keys.CreateKeyRequest(parent=tenant, key_id="keep", purpose=types.KEY_PURPOSE_MANAGED)
    check.equal("a key for them", admin.keys.CreateKey(request, **ask).key.purpose, types.KEY_PURPOSE_MANAGED)
    create = crypto.CreateDataKeyRequest(key=keep, request_id=str(uuid.uuid4()), **bound)
    kept = app.crypto.CreateDataKey(create, **ask)
    check.equal("a kept data key", (len(kept.plaintext), len(kept.uid), kept.key_version), (32, 16, 1))
    again = app.crypto.CreateDataKey(create, **ask)
    check.equal("the same again", (again.uid, again.plaintext), (kept.uid, kept.plaintext))
    get = crypto.GetDataKeyRequest(key=keep, uid=kept.uid, **bound)
    check.equal("given out", app.crypto.GetDataKey(get, **ask).plaintext, kept.plaintext)
    check.refused("in another row", *closed, app.crypto.GetDataKey, crypto.GetDataKeyRequest(key=keep, uid=kept.uid, **other))
    wanted = batches.BatchCreateDataKeysRequest(key=keep, items=[batches.BatchCreateDataKeysItem()] * 3, **shared)
    made = app.crypto.BatchCreateDataKeys(wanted, **ask).results
    wanted = [batches.BatchGetDataKeysItem(uid=one.uid) for one in made]
    found = app.crypto.BatchGetDataKeys(batches.BatchGetDataKeysRequest(key=keep, items=wanted, **shared), **ask).results
    check.equal("given out together", [one.plaintext for one in found], [one.plaintext for one in made])
    listed = pages(admin.keys.ListDataKeys, keys.ListDataKeysRequest(parent=keep, page_size=2), "data_keys")
    check.equal("listed, by twos", sorted(one.uid for one in listed), sorted([kept.uid] + [one.uid for one in made]))
    purpose = (grpc.StatusCode.INVALID_ARGUMENT, "PURPOSE_NOT_SUPPORTED")
    check.refused("data under it", *purpose, app.crypto.Encrypt, crypto.EncryptRequest(key=keep, plaintext=b"x"))
    gone = app.crypto.DestroyDataKey(crypto.DestroyDataKeyRequest(key=keep, uid=kept.uid), **ask)
    check.equal("until when somebody may hold it", gone.lease_end_time.seconds - gone.destroy_time.seconds in (299, 300, 301), True)
    missing = (grpc.StatusCode.NOT_FOUND, "DATA_KEY_NOT_FOUND")
    check.refused("one that was destroyed", *missing, app.crypto.GetDataKey, get)
    wanted = [batches.BatchDestroyDataKeysItem(uid=one.uid) for one in made] + [batches.BatchDestroyDataKeysItem(uid=kept.uid)]
    found = app.crypto.BatchDestroyDataKeys(batches.BatchDestroyDataKeysRequest(key=keep, items=wanted), **ask).results
    check.equal("destroyed together, but one", [one.HasField("error") for one in found], [False, False, False, True])
    listed = pages(admin.keys.ListDataKeys, keys.ListDataKeysRequest(parent=keep), "data_keys")
    check.equal("what is left of them", {one.state for one in listed}, {types.KEY_STATE_DESTROYED})

    # Message authentication codes, and the key of a blind index, with which equal values are found.
    sign = f"{tenant}/keys/sign"
    request = keys.CreateKeyRequest(parent=tenant, key_id="sign", purpose=types.KEY_PURPOSE_MAC)
    check.equal("a key for MACs", admin.keys.CreateKey(request, **ask).key.purpose, types.KEY_PURPOSE_MAC)
    mac = app.crypto.GenerateMac(crypto.GenerateMacRequest(key=sign, message=b"an event"), **ask).mac
    verified = app.crypto.VerifyMac(crypto.VerifyMacRequest(key=sign, message=b"an event", mac=mac), **ask)
    check.equal("a MAC", (len(mac), verified.key_version, verified.stale), (56, 1, False))
    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "MAC_INVALID")
    forged = crypto.VerifyMacRequest(key=sign, message=b"another", mac=mac)
    check.refused("a MAC of another message", *invalid, app.crypto.VerifyMac, forged)
    messages = [b"a", b"b"]
    wanted = [batches.BatchGenerateMacsItem(message=message) for message in messages]
    made = app.crypto.BatchGenerateMacs(batches.BatchGenerateMacsRequest(key=sign, items=wanted), **ask).results
    wanted = [batches.BatchVerifyMacsItem(message=message, mac=one.mac) for message, one in zip(messages, reversed(made))]
    wanted.append(batches.BatchVerifyMacsItem(message=b"a", mac=made[0].mac))
    found = app.crypto.BatchVerifyMacs(batches.BatchVerifyMacsRequest(key=sign, items=wanted), **ask).results
    check.equal("MACs, the wrong way round and right", [one.HasField("error") for one in found], [True, True, False])
    index = crypto.GetIndexKeyRequest(index=f"{tenant}/indexes/ssn")
    index_key = app.crypto.GetIndexKey(index, **ask)
    token = hmac.new(index_key.plaintext, b"078-05-1120", hashlib.sha256).digest()
    again = app.crypto.GetIndexKey(index, **ask).plaintext
    check.equal("the same value again", hmac.new(again, b"078-05-1120", hashlib.sha256).digest(), token)
    lease = tenants.UpdateTenantRequest(
        tenant=types.Tenant(name=tenant, data_key_lease=duration_pb2.Duration(seconds=60)),
        update_mask=field_mask_pb2.FieldMask(paths=["data_key_lease"]),
    )
    check.equal("a shorter lease", admin.tenants.UpdateTenant(lease, **ask).tenant.data_key_lease.seconds, 60)
    check.equal("which holds at once", app.crypto.GetIndexKey(index, **ask).lease.seconds, 60)

    # A new version, and the data moved to it without being shown.
    rotated = admin.keys.RotateKey(keys.RotateKeyRequest(name=key), **ask)
    check.equal("rotated", rotated.key.primary_version, 2)
    opened = app.crypto.Decrypt(crypto.DecryptRequest(key=key, ciphertext=sealed.ciphertext, **bound), **ask)
    check.equal("the old version opens", (opened.plaintext, opened.stale), (b"078-05-1120", True))
    move = crypto.ReEncryptRequest(key=key, ciphertext=sealed.ciphertext, **bound)
    moved = app.crypto.ReEncrypt(move, **ask)
    check.equal("moved", (moved.source_key_version, moved.key_version), (1, 2))
    fresh = crypto.DecryptRequest(key=key, ciphertext=moved.ciphertext, **bound)
    opened = app.crypto.Decrypt(fresh, **ask)
    check.equal("what was moved", (opened.plaintext, opened.key_version, opened.stale), (b"078-05-1120", 2, False))
    listed = pages(admin.keys.ListKeyVersions, keys.ListKeyVersionsRequest(parent=key, page_size=1), "key_versions")
    check.equal("versions", [found.version for found in listed], [1, 2])

    # What is disabled refuses, what is enabled again does not.
    off = admin.keys.DisableKey(keys.DisableKeyRequest(name=f"{key}/versions/1"), **ask)
    check.equal("the old version", off.version.state, types.KEY_STATE_DISABLED)
    disabled = (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_DISABLED")
    old = crypto.DecryptRequest(key=key, ciphertext=sealed.ciphertext, **bound)
    check.refused("what is under the old version", *disabled, app.crypto.Decrypt, old)
    admin.keys.DisableKey(keys.DisableKeyRequest(name=key), **ask)
    disabled = (grpc.StatusCode.FAILED_PRECONDITION, "KEY_DISABLED")
    check.refused("what is under the key", *disabled, app.crypto.Decrypt, fresh)
    on = admin.keys.EnableKey(keys.EnableKeyRequest(name=key), **ask)
    check.equal("enabled", on.key.state, types.KEY_STATE_ENABLED)
    check.equal("opens again", app.crypto.Decrypt(fresh, **ask).plaintext, b"078-05-1120")

    # What waits can be taken back. It comes back switched off, so that somebody looks at it first.
    day = duration_pb2.Duration(seconds=86_400)
    spare = f"{tenant}/keys/e"
    waits = admin.keys.ScheduleKeyDestruction(keys.ScheduleKeyDestructionRequest(name=spare, wait=day), **ask)
    check.equal("a key that waits", waits.key.state, types.KEY_STATE_PENDING_DESTRUCTION)
    admin.keys.CancelKeyDestruction(keys.CancelKeyDestructionRequest(name=spare), **ask)
    found = admin.keys.GetKey(keys.GetKeyRequest(name=spare), **ask)
    check.equal("a key that was taken back", found.key.state, types.KEY_STATE_DISABLED)
    admin.tenants.DestroyTenant(tenants.DestroyTenantRequest(name=tenant, wait=day), **ask)
    waits = (grpc.StatusCode.FAILED_PRECONDITION, "TENANT_PENDING_DESTRUCTION")
    check.refused("its data meanwhile", *waits, app.crypto.Decrypt, fresh)
    admin.tenants.CancelTenantDestruction(tenants.CancelTenantDestructionRequest(name=tenant), **ask)
    admin.tenants.ResumeTenant(tenants.ResumeTenantRequest(name=tenant), **ask)
    admin.tenants.SuspendTenant(tenants.SuspendTenantRequest(name=tenant), **ask)
    found = admin.tenants.GetTenant(tenants.GetTenantRequest(name=tenant), **ask)
    check.equal("a tenant that rests", found.tenant.state, types.TENANT_STATE_SUSPENDED)
    resting = (grpc.StatusCode.FAILED_PRECONDITION, "TENANT_SUSPENDED")
    check.refused("its data meanwhile", *resting, app.crypto.Decrypt, fresh)
    admin.tenants.ResumeTenant(tenants.ResumeTenantRequest(name=tenant), **ask)
    check.equal("opens again", app.crypto.Decrypt(fresh, **ask).plaintext, b"078-05-1120")

    # The end of a tenant: nothing opens any more, and its name is never used again.
    destroy = tenants.DestroyTenantRequest(name=tenant, wait=duration_pb2.Duration(seconds=0))
    check.equal("destroyed", admin.tenants.DestroyTenant(destroy, **ask).tenant.state, types.TENANT_STATE_FENCED)
    gone = (grpc.StatusCode.FAILED_PRECONDITION, "TENANT_DESTROYED")
    check.refused("its data", *gone, app.crypto.Decrypt, fresh)
    check.refused("its data keys", *gone, app.crypto.DecryptDataKey, unwrap)
    check.refused("new data", *gone, app.crypto.Encrypt, crypto.EncryptRequest(key=key, plaintext=b"x"))
    gone = (grpc.StatusCode.FAILED_PRECONDITION, "NAME_WAS_DESTROYED")
    check.refused("its name", *gone, admin.tenants.CreateTenant, tenants.CreateTenantRequest(tenant_id="python"))


def second_person(admin, app, check):
    """What takes two: a role for a time, asked for by one and approved by another, and one exact operation."""
    ask, tenant = {"timeout": SECONDS_MAX}, "tenants/python-grants"
    admin.tenants.CreateTenant(tenants.CreateTenantRequest(tenant_id="python-grants"), **ask)
    role = access.RoleGrant(tenant=tenant, role="auditor", duration={"seconds": 60})
    grant = app.access.RequestGrant(access.RequestGrantRequest(role=role, reason="ticket 4711"), **ask).grant
    check.equal("a request for a role", grant.state, access.GRANT_STATE_PENDING)
    may = access.TestPermissionsRequest(resource=tenant, actions=["GetTenant"])
    check.equal("before it is approved", app.access.TestPermissions(may, **ask).permissions[0].allowed, False)
    approve = access.ApproveGrantRequest(name=grant.name, content_hash=grant.content_hash)
    check.equal("an approval", admin.access.ApproveGrant(approve, **ask).grant.state, access.GRANT_STATE_APPROVED)
    check.equal("after it", app.access.TestPermissions(may, **ask).permissions[0].allowed, True)
    check.equal("its use", app.tenants.GetTenant(tenants.GetTenantRequest(name=tenant), **ask).tenant.name, tenant)
    admin.access.RevokeGrant(access.RevokeGrantRequest(name=grant.name), **ask)
    got = app.access.GetGrant(access.GetGrantRequest(name=grant.name), **ask).grant
    listed = app.access.ListGrants(access.ListGrantsRequest(parent=tenant), **ask).grants
    check.equal("one that was taken back", [one.state for one in (got, *listed)], [access.GRANT_STATE_REVOKED] * 2)
    export = access.Operation(export_keystore=operators.ExportKeystoreRequest())
    grant = admin.access.RequestGrant(access.RequestGrantRequest(operation=export, reason="a copy for the safe"), **ask).grant
    app.access.ApproveGrant(access.ApproveGrantRequest(name=grant.name, content_hash=grant.content_hash), **ask)
    check.equal("a copy that two agreed on", len(admin.node.ExportKeystore(operators.ExportKeystoreRequest(), **ask).files), 1)


def main():
    arguments = argparse.ArgumentParser(description="The whole round trip from Python.")
    for name in ("services", "operator", "ca", "admin", "app"):
        arguments.add_argument("--" + name, required=True)
    given = arguments.parse_args()
    admin, app = (Caller(given.services, given.operator, given.ca, who) for who in (given.admin, given.app))
    check = Checks()
    trip(admin, app, check)
    second_person(admin, app, check)
    admin.close()
    app.close()
    print(f"foreign client (grpcio {grpc.__version__}): {check.count}/{check.count} as expected")


if __name__ == "__main__":
    main()
