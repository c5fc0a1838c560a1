#!/usr/bin/env python3
"""Reference of the ledger of destructions, and generator of its vector: a second implementation, from the text of
kms-server/doc/formats.md. Deterministic: the cluster secret is that of kms1_vectors.json, the leaves are fixed here.
usage: ledger_ref.py            rewrites ledger.json beside it
       ledger_ref.py --check    compares instead, and fails if they differ"""
import hashlib, hmac, json, os, struct, sys

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "ledger.json")

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

def main():
    known = json.load(open(os.path.join(HERE, "kms1_vectors.json"), encoding="utf-8"))
    secret = bytes.fromhex(known["wrapped_cluster_secret"]["cluster_secret"])
    key = hmac.new(secret, b"kms1/ledger-mac\x00\x01", hashlib.sha512).digest()[:32]
    origin = "kms.example.com/audit/node-1"
    commitment = known["wrapped_tenant_key"]["blob"][96:160]
    leaf = lambda i, t, **members: json.dumps({"v": 1, "i": i, "t": t, "n": "node-1", **members}, separators=(",", ":"))
    tenant, other, kek = (hashlib.sha256(text.encode()).hexdigest()[:32] for text in ("test tenant", "test other tenant", "test key"))
    leaves = [
        leaf(7, 1790000000100, op="DestroyTenant", ph="fenced", ten="acme", tuid=tenant, sub="spiffe://example.com/admin", tkc=commitment, keys=12, deks=0,
             lease=1790000300100, epoch=1, **{"in": 6}, seq=4, pm=5, rh="00" * 16, res="OK"),
        leaf(19, 1790000500000, op="DestroyKeyVersion", ph="fenced", ten="globex", tuid=other, kn="billing", key=kek, kv=3, sub="kms-server", tkc=commitment, keys=1,
             deks=0, lease=1790000800000, epoch=1, **{"in": 18}, seq=9, pm=17, pd=7, rh="11" * 16, res="RECOVERED"),
        leaf(40, 1790000600000, op="DestroyTenant", ph="fenced", ten="acme", tuid=tenant, sub="kms-server", tkc=commitment, keys=12, deks=0, lease=1790000900000, epoch=1,
             by=7, why="CARRIED_OUT", **{"in": 39}, seq=10, pm=19, pd=19, rh="22" * 16, res="OK"),
    ]
    head = b"kms1led\x01" + hashlib.sha256(origin.encode()).digest()
    file, previous = head, hashlib.sha256(head).digest()
    for text in leaves:
        previous = hmac.new(key, previous + text.encode(), hashlib.sha256).digest()
        file += struct.pack(">II", len(text), crc32c(text.encode())) + text.encode() + previous
    assert crc32c(b"123456789") == 0xe3069283
    vector = {"cluster_secret": secret.hex(), "origin": origin, "mac_key": key.hex(), "leaves": leaves, "file": file.hex(), "last_mac": previous.hex()}
    text = json.dumps(vector, indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        if open(OUT, encoding="utf-8").read() != text: sys.exit("ledger.json differs from what ledger_ref.py makes")
        print(f"ledger.json: {len(leaves)} entries, as made")
    else:
        open(OUT, "w", encoding="utf-8").write(text)
        print(f"ledger.json: {len(leaves)} entries written")

main()
