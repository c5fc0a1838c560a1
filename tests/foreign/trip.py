"""The whole round trip from Python, with what stock tools make of the .proto files: grpcio and its protoc, nothing of ours.

It is a test (`foreign_client` in tests/e2e starts it against a daemon) and an example: everything that a caller in another
language does is here, from the certificates to the reason of a refusal. By hand, with `kms-server dev` running:

    pip install -r requirements.txt
    python -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. ../../proto/kms/v1/*.proto
    python trip.py --services 127.0.0.1:8443 --operator 127.0.0.1:8444 --ca ca.pem --admin admin --app app

where `admin` is what the files of a certificate and its key are called without `.pem` and `.key`.
"""

import argparse
import uuid

import grpc
from google.protobuf import duration_pb2, field_mask_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from kms.v1 import access_service_pb2 as access
from kms.v1 import access_service_pb2_grpc as access_grpc
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


def main():
    arguments = argparse.ArgumentParser(description="The whole round trip from Python.")
    for name in ("services", "operator", "ca", "admin", "app"):
        arguments.add_argument("--" + name, required=True)
    given = arguments.parse_args()
    admin, app = (Caller(given.services, given.operator, given.ca, who) for who in (given.admin, given.app))
    check = Checks()
    trip(admin, app, check)
    admin.close()
    app.close()
    print(f"foreign client (grpcio {grpc.__version__}): {check.count}/{check.count} as expected")


if __name__ == "__main__":
    main()
