#!/usr/bin/python3
"""Makes the test vectors of proto/ a second time, from proto/README.md alone.

    make_vectors.py           write vectors/*.json and the seeds of the fuzz targets in proto/
    make_vectors.py --check   compare them with what is there; exits 1 where they differ

Needs Debian's python3-xxhash. The C++ side is vectors/vectors_test.cc. Only the page, hashlib,
hmac, struct and XXH3 are used here: where code and page disagree, the test fails.
"""

import hashlib
import hmac
import json
import os
import struct
import sys

try:
    import xxhash
except ImportError:
    sys.exit("make_vectors.py: no module xxhash; install python3-xxhash (tools/setup --test)")

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VECTORS = os.path.join(HERE, "vectors")

KEYSPACES = {"prefix": 1, "chunk": 2, "opaque": 4}
DTYPES = {"f32": 1, "f16": 2, "bf16": 3, "f8e4m3": 4, "u8": 5}
COMPONENTS = ("k", "v", "latent", "state", "index")
ZERO_KEY = bytes(32)


def sha256(data):
    return hashlib.sha256(data).digest()


def le64(data):
    return struct.unpack("<Q", data[:8])[0]


# Keys


def salt_of(text):
    is_hex = len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text)
    return bytes.fromhex(text) if is_hex else sha256(text.encode())


def shape_bytes(shape):
    bits = sum(1 << COMPONENTS.index(name) for name in shape["components"])
    return struct.pack("<6HBBH", shape["layer_begin"], shape["layer_count"], shape["kv_head_begin"],
                       shape["kv_heads"], shape["head_size"], shape["block_tokens"],
                       DTYPES[shape["dtype"]], bits, 0)


def fingerprint_of(model):
    data = b"kedge/fingerprint/1"
    for name in ("weights_id", "adapter_id", "tokenizer_id", "rope_scaling", "kv_scales_id"):
        text = model[name].encode()
        data += struct.pack("<I", len(text)) + text
    data += struct.pack("<d", model["rope_theta"]) + shape_bytes(model["shape"])
    return sha256(data)


def model_id_of(model):
    data = b"kedge/model/1"
    for name in ("weights_id", "adapter_id", "rope_scaling"):
        data += struct.pack("<Q", len(model[name].encode())) + model[name].encode()
    return sha256(data + struct.pack("<d", model["rope_theta"]))[:16]


def chain_root(fingerprint, keyspace, extra):
    return sha256(b"kedge/chain/1" + fingerprint + bytes([KEYSPACES[keyspace]]) +
                  struct.pack("<Q", len(extra)) + extra)


def chain_links(salt, root, contents):
    """Links over (source, content) pairs, one for each block."""
    links = []
    for depth, (source, content) in enumerate(contents):
        parent = links[-1]["key"] if links else ZERO_KEY
        message = b"kedge/link/1" + root + parent + bytes([source]) + content
        key = hmac.new(salt, message, hashlib.sha256).digest()
        first_of_run = key if depth % 32 == 0 else links[depth // 32 * 32]["key"]
        links.append({"key": key, "parent": parent, "depth": depth,
                      "placement": le64(first_of_run)})
    return links


def link_json(link):
    return {"key": link["key"].hex(), "parent": link["parent"].hex(), "depth": link["depth"],
            "placement": link["placement"]}


def shape(layers, heads, size, tokens, dtype, layer_begin=0, head_begin=0, components=("k", "v")):
    return {"layer_begin": layer_begin, "layer_count": layers, "kv_head_begin": head_begin,
            "kv_heads": heads, "head_size": size, "block_tokens": tokens, "dtype": dtype,
            "components": list(components)}


OPAQUE = shape(0, 0, 0, 0, "u8", components=())

MODELS = [
    {"weights_id": "org/model@1", "adapter_id": "", "tokenizer_id": "org/model", "rope_scaling": "",
     "kv_scales_id": "", "rope_theta": 10000.0, "shape": shape(4, 2, 64, 32, "bf16")},
    {"weights_id": "sha256:00ff", "adapter_id": "lora-7", "tokenizer_id": "mod\u00e8le",
     "rope_scaling": "yarn factor=4 original=32768", "kv_scales_id": "scales-3",
     "rope_theta": 1000000.5,
     "shape": shape(40, 8, 128, 64, "f8e4m3", layer_begin=40, head_begin=8)},
]


def sequence_json(salt, chain, profile):
    tail, tokens = hashlib.sha256(chain.encode()).digest(), 64 * len(chain)
    message = (b"kedge/sequence/1" + tail + struct.pack("<IH", tokens, len(chain)) +
               chain.encode() + profile)
    return {"salt": salt, "tail": tail.hex(), "tokens": tokens, "chain": chain,
            "profile": profile.hex(),
            "key": hmac.new(salt_of(salt), message, hashlib.sha256).hexdigest()}


def make_keys():
    salts = ["tenant-a", "0123456789abcdef" * 4]
    chains = []
    for case, (salt, model, keyspace, extra) in enumerate([
            (salts[0], 0, "prefix", b""), (salts[1], 1, "chunk", b""),
            (salts[1], 0, "prefix", b"image:7")]):
        blocks = 34 if case == 0 else 2  # 34 passes the border of a run
        tokens = [((i * 2654435761) % 2**32) - 2**31 if case == 1 else i * 17 % 32000
                  for i in range(32 * blocks + 5)]
        contents = [(1, struct.pack("<32i", *tokens[32 * b:32 * b + 32])) for b in range(blocks)]
        root = chain_root(fingerprint_of(MODELS[model]), keyspace, extra)
        links = chain_links(salt_of(salt), root, contents)
        chains.append({"salt": salt, "model": model, "keyspace": keyspace, "extra": extra.decode(),
                       "block_tokens": 32, "tokens": tokens,
                       "links": [link_json(l) for l in links]})
    hashes = [bytes([1]), bytes(range(32)), bytes(range(64))]
    root = chain_root(fingerprint_of(MODELS[0]), "prefix", b"")
    engine = chain_links(salt_of(salts[0]), root, [(2, h) for h in hashes])
    names = [b"", b"name", bytes(range(256))]
    opaque = [{"salt": s, "name": n.hex(),
               "key": hmac.new(salt_of(s), b"kedge/opaque/1" + n, hashlib.sha256).hexdigest()}
              for s in salts for n in names]
    return {
        "salts": [{"text": s, "bytes": salt_of(s).hex()} for s in salts],
        "fingerprints": [{"model": m, "shape_bytes": shape_bytes(m["shape"]).hex(),
                          "fingerprint": fingerprint_of(m).hex(),
                          "model_id": model_id_of(m).hex()} for m in MODELS],
        "chains": chains,
        "engine_chains": [{"salt": salts[0], "model": 0, "hashes": [h.hex() for h in hashes],
                           "links": [link_json(l) for l in engine]}],
        "opaque": opaque,
        "sequence": [sequence_json(s, chain, profile) for s in salts
                     for chain, profile in (("prefixkv0.5+kivi2g32", bytes(16)),
                                            ("prefixkv0.25-keydiff+raw", bytes(range(16))))],
    }


# Block headers


def pattern(part, count):
    return bytes((i * 7 + i // 256 + part * 13 + 1) & 255 for i in range(count))


def digest(key, variant, part, data):
    seed = xxhash.xxh3_64_intdigest(key + variant + struct.pack("<I", part), seed=0)
    value = xxhash.xxh3_128_intdigest(data, seed=seed)
    return struct.pack("<QQ", value & (2**64 - 1), value >> 64)


def header_bytes(h):
    key, variant = bytes.fromhex(h["key"]), h["variant"].encode().ljust(48, b"\0")
    parts = b"".join(struct.pack("<I", n) + digest(key, variant, i, pattern(i, n))
                     for i, n in enumerate(h["part_bytes"]))

    model = bytes.fromhex(h.get("model", ""))
    extra = model + struct.pack("<Q", h["tenant"]) if model else b""

    def encode(root):
        return (struct.pack("<4sHHII", b"KdgB", 2 if model else 1, 0,
                            192 + len(extra) + len(parts), 0) + root + key +
                bytes.fromhex(h["parent"]) + variant +
                struct.pack("<QII4BIQ", h["placement"], h["chain_depth"], h["rope_base_position"],
                            h["keyspace"], h["fidelity"], h["rope"], 0, len(h["part_bytes"]),
                            sum(h["part_bytes"])) + shape_bytes(h["shape"]) + extra + parts)

    zeroed = encode(bytes(16))
    return encode(digest(key, variant, 0xffffffff, zeroed))


def make_headers():
    key, parent = bytes(range(1, 33)).hex(), bytes(range(101, 133)).hex()
    base = {"key": key, "parent": parent, "placement": 0x1122334455667788, "chain_depth": 3,
            "rope_base_position": 96, "keyspace": 1, "fidelity": 1, "rope": 1, "variant": "raw",
            "shape": shape(2, 2, 64, 32, "bf16"), "part_bytes": [8192] * 4}
    alone = {"parent": ZERO_KEY.hex(), "chain_depth": 0, "rope_base_position": 0,
             "keyspace": 4, "rope": 0, "shape": OPAQUE}
    lossy = {"variant": "prefixkv0.5+kivi2g32", "fidelity": 3, "rope": 2, "rope_base_position": 0}
    cases = [
        dict(base),
        dict(base, **lossy, part_bytes=[0, 1, 240, 5000]),
        dict(base, **lossy, keyspace=2,
             shape=shape(3, 1, 576, 64, "f16", 5, components=("latent",)),
             part_bytes=[17, 241, 1025]),
    ]
    named = {"model": model_id_of(MODELS[1]).hex(), "tenant": 0x8877665544332211}
    cases += [dict(base, **named), dict(cases[1], **named)]
    cases += [dict(base, **alone, part_bytes=[n]) for n in (0, 3, 16, 129, 4096, 100001)]
    return {"pattern": "byte i of part p is (7 i + i / 256 + 13 p + 1) mod 256",
            "headers": [dict(c, encoded=header_bytes(c).hex()) for c in cases]}


# Frames


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


assert crc32c(b"123456789") == 0xe3069283


def frame_bytes(f):
    tlvs, body = bytes.fromhex(f["tlvs"]), bytes.fromhex(f["body"])
    front = struct.pack("<4sBBHHHIIIQQQQ16sI", b"KdgF", 1, f["type"], f["flags"], len(tlvs), 0,
                        len(body), f["payload_bytes"], f["deadline_ms"], f["request"],
                        f["session"], f["tenant"], f["epoch"], bytes.fromhex(f["trace_id"]), 0)
    return front + struct.pack("<I", crc32c(front + tlvs + body)) + tlvs + body


def text(s):
    return struct.pack("<H", len(s)) + s.encode()


def blob(data):
    return struct.pack("<I", len(data)) + data


def many(items):
    return struct.pack("<I", len(items)) + b"".join(items)


def variant(name):
    return name.encode().ljust(48, b"\0")


def make_bodies():
    """One body of each type; vectors_test.cc builds the same ones from its structs."""
    key1, key2 = bytes([1] * 32), bytes([2] * 32)
    members = many([text("node-a") + text("tcp://10.0.0.1:7000") + text("10.0.0.1:7001"),
                    text("node-b") + text("shm://localhost:1") + text("")])
    variants = many([variant("raw"), variant("kivi4g32")])
    keys = many([key1 + struct.pack("<Q", 11), key2 + struct.pack("<Q", 22)])
    header = bytes(range(10))
    pack = struct.pack
    return {
        "hello": (1, text("client") + text("1.2")),
        "welcome": (2, pack("<QQIIB", 7, 8, 9, 10, 1) + text("node-a") + members),
        "match": (3, pack("<HI", 3, 500) + variants + keys),
        "match_reply": (4, pack("<QI", 3, 400) + many([pack("<BBBBQ", 0, 2, 1, 0, 4096),
                                                      pack("<BBBBQ", 1, 0, 0, 0, 0)])),
        "get": (5, pack("<HH", 2, 4) + variants + many([key1 + pack("<QQ", 11, 1048576)])),
        "get_item": (6, pack("<IBBQ", 6, 0, 3, 99) + blob(header) + text("")),
        "chunk": (7, pack("<QQ", 17, 4096)),
        "cancel": (8, b""),
        "put_begin": (9, variant("raw") + bytes([1]) +
                      many([key1 + pack("<QQHI", 11, 65536, 8, 8192),
                            key2 + pack("<QQHI", 22, 5, 1, 0)])),
        "put_ready": (10, many([pack("<BQ", 0, 17), pack("<BQ", 6, 0)])),
        "put_commit": (11, pack("<QB", 17, 255) + blob(header)),
        "put_done": (12, pack("<QB", 17, 13) + text("part 3")),
        "put_abort": (13, many([pack("<Q", i) for i in (1, 2, 3)])),
        "remove": (14, keys),
        "remove_reply": (15, many([bytes([0]), bytes([1])])),
        "release": (16, many([pack("<Q", 4)])),
        "ping": (17, b""),
        "pong": (18, b""),
        "error": (19, pack("<BQ", 14, 5) + text("old list") + members),
        "goodbye": (20, b""),
        "anchor_insert": (21, pack("<QBB", 17, 1, 0) + key1 + pack("<Q", 11) + key2 +
                          pack("<IId", 20, 5, 0.9) + blob(header)),
        "anchor_inserted": (22, pack("<QBBI", 17, 11, 3, 4) + text("other template")),
        "mix": (23, key1 + pack("<Q", 11) + key2 + pack("<Q", 55) + pack("<BIIIQ", 1, 3, 2, 5, 77) +
                pack("<BBBddd", 1, 1, 3, 10.0, 0.48, float("inf")) + pack("<II", 6, 4) +
                many([pack("<16f", *range(i, i + 16)) for i in (0, 7)])),
        "mix_reply": (24, pack("<BBBB", 0, 0, 1, 3) + pack("<BIIIQ", 1, 3, 2, 5, 77) +
                      pack("<IIIII", 6, 9, 8, 7, 9) + pack("<dd", 2.0, 0.5) +
                      pack("<4d", 0.25, 0.5, 0.75, 1.0) + pack("<QQ", 4096, 31) +
                      many([key1, key2]) + many([bytes(range(16)), bytes(range(16, 32))])),
        "mix_used": (25, key1 + pack("<Q", 11) + many([key2])),
        "near_insert": (26, many([key1 + pack("<QIIB", 11, 256, 128, 2) +
                                  many([pack("<QB", 5, 3), pack("<QB", 6, 0)])])),
        "near_inserted": (27, many([pack("<B", 0), pack("<B", 3)])),
        "near_lookup": (28, many([pack("<Q", i) for i in (5, 9, 6)])),
        "near_found": (29, pack("<I", 4) + many([key1 + pack("<QIIB", 11, 256, 128, 2)]) +
                       many([pack("<HHB", 0, 0, 3), pack("<HHB", 2, 0, 0)])),
        "near_strike": (30, many([key1, key2])),
    }


def make_frames():
    frames = []
    tlv = struct.pack("<HH", 9, 3) + b"abc" + struct.pack("<HH", 10, 0)
    for name, (kind, body) in make_bodies().items():
        frame = {"name": name, "type": kind, "flags": 0,
                 "payload_bytes": 1000 if name == "chunk" else 0, "deadline_ms": 2500,
                 "request": 0x1111111122222222, "session": 0x3333333344444444,
                 "tenant": 0x5555555566666666, "epoch": 12,
                 "trace_id": bytes(range(160, 176)).hex(),
                 "tlvs": tlv.hex() if name in ("get", "ping") else "",
                 "body": body.hex()}
        frames.append(dict(frame, head=frame_bytes(frame).hex()))
    return {"frames": frames}


def make_stream():
    greetings = []
    for name, wire, status, payload_max, address in (
            ("tcp", 1, 0, 512 << 10, b""),
            ("shm", 2, 0, 60 << 10, bytes(range(1, 90))),
            ("refused", 1, 3, 512 << 10, b"")):
        front = struct.pack("<4sHBBIII", b"KdgS", 1, wire, status, payload_max, len(address), 0)
        bytes_ = front + struct.pack("<I", crc32c(front + address)) + address
        greetings.append({"name": name, "wire": wire, "status": status,
                          "payload_bytes_max": payload_max, "address": address.hex(),
                          "encoded": bytes_.hex()})
    lengths = [(80, 0), (80, 4096), (131072, 524288)]
    prefixes = []
    for head, payload in lengths:
        front = struct.pack("<II", head, payload)
        prefixes.append({"head_bytes": head, "payload_bytes": payload,
                         "encoded": (front + struct.pack("<I", crc32c(front))).hex()})
    return {"greetings": greetings, "prefixes": prefixes}


# Match ids


def siphash(key, data):
    """SipHash-2-4 of bytes; 64 bits."""
    mask = 2**64 - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
         k1 ^ 0x7465646279746573]

    def rotated(x, bits):
        return (x << bits | x >> (64 - bits)) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = v[0] + v[1] & mask
            v[2] = v[2] + v[3] & mask
            v[1] = rotated(v[1], 13) ^ v[0]
            v[3] = rotated(v[3], 16) ^ v[2]
            v[0] = rotated(v[0], 32)
            v[2] = v[2] + v[1] & mask
            v[0] = v[0] + v[3] & mask
            v[1] = rotated(v[1], 17) ^ v[2]
            v[3] = rotated(v[3], 21) ^ v[0]
            v[2] = rotated(v[2], 32)

    last = data[len(data) // 8 * 8:].ljust(7, b"\0") + bytes([len(data) % 256])
    for at in range(0, len(data) // 8 * 8, 8):
        word = le64(data[at:])
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[3] ^= le64(last)
    rounds(2)
    v[0] ^= le64(last)
    v[2] ^= 0xff
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


assert siphash(bytes(range(16)), bytes(range(15))) == 0xa129ca6149be45e5


def make_match():
    cases = []
    for salt, model in (("tenant-a", 0), ("0123456789abcdef" * 4, 1)):
        def secret(n):
            message = b"kedge/match/1" + fingerprint_of(MODELS[model]) + bytes([n])
            return hmac.new(salt_of(salt), message, hashlib.sha256).digest()

        ids, prime = secret(0), 2**61 - 1
        base = le64(ids[16:]) % (prime - 2**32) + 2**32
        tokens = [i * 2654435761 % 2**32 - 2**31 for i in range(64)]
        rolling = sum((t % 2**32 + 1) * pow(base, 63 - i, prime)
                      for i, t in enumerate(tokens)) % prime
        words = [(1, 0, rolling, 0), (2, 0, 7, 0), (3, 0, 7, 9), (3, 15, 2**64 - 1, 2**63)]
        donor = sha256(salt.encode())
        cases.append({
            "salt": salt, "fingerprint": fingerprint_of(MODELS[model]).hex(),
            "hash_base": base, "order_seed": le64(ids[24:]), "projection_seed": le64(secret(2)),
            "tokens": tokens, "rolling": rolling,
            "ids": [{"domain": d, "index": i, "value": a, "second": b,
                     "id": siphash(ids[:16], struct.pack("<QQQ", d + 256 * i, a, b))}
                    for d, i, a, b in words],
            "donor": donor.hex(),
            "text_name": hmac.new(salt_of(salt), b"kedge/text/1" + donor,
                                  hashlib.sha256).hexdigest()})
    parent, tokens = bytes(range(32)), [1, -2, 2**31 - 1]
    text = bytes([1]) + parent + struct.pack("<IQI", 5, 2**63 + 1, 3) + struct.pack("<3i", *tokens)
    return {"cases": cases, "text": {"parent": parent.hex(), "depth": 5, "placement": 2**63 + 1,
                                     "tokens": tokens, "encoded": text.hex()}}


# Anchors


def anchor_name(salt, model, name):
    return hmac.new(salt_of(salt), b"kedge/anchor/1" + fingerprint_of(MODELS[model]) + name,
                    hashlib.sha256).digest()


def make_offsets():
    anchors = []
    for consumer, placeholder, kind, producer, filling in (
            ("mason", "question", 0, b"", [1, 2, 3]), ("mason", "question", 1, b"\x09", [1, -2]),
            ("", "", 0, b"", [])):
        pool = text(consumer) + text(placeholder)
        tokens = struct.pack("<%di" % len(filling), *filling)
        pool_key = anchor_name("tenant-a", 0, pool + bytes([0, kind + 1]))
        anchors.append({
            "consumer": consumer, "placeholder": placeholder, "kind": kind,
            "producer": producer.hex(), "filling": filling, "pool": pool_key.hex(),
            "placement": le64(anchor_name("tenant-a", 0, pool + bytes([0]))),
            "anchor": anchor_name("tenant-a", 0,
                                  pool + bytes([kind + 1]) + blob(producer) + tokens).hex(),
            "roster": sha256(b"kedge/roster/1" + pool_key + struct.pack("<I", 7)).hex()})
    rosters = []
    for members in (0, 3):
        roster = struct.pack("<4sHBBIIIIIQd", b"KROS", 1, members % 2, 0, 8, 128, 5, 20, 4, 77, 0.9)
        roster += many([bytes([i + 1] * 32) + struct.pack("<Q", i * 100) for i in range(members)])
        rosters.append({"members": members, "encoded": roster.hex()})
    return {"anchors": anchors, "rosters": rosters}


def outputs():
    """Path to content of everything that this script makes."""
    keys, headers, frames = make_keys(), make_headers(), make_frames()
    stream = make_stream()
    files = {}
    for name, value in (("keys", keys), ("headers", headers), ("frames", frames),
                        ("stream", stream), ("match", make_match()),
                        ("offsets", make_offsets())):
        files[os.path.join(VECTORS, name + ".json")] = (json.dumps(value, indent=1) + "\n").encode()
    for i, h in enumerate(headers["headers"]):
        path = os.path.join(ROOT, "proto/block_header_corpus/%02d.bin" % i)
        files[path] = bytes.fromhex(h["encoded"])
    for f in frames["frames"]:
        path = os.path.join(ROOT, "proto/frame_corpus/%s.bin" % f["name"])
        files[path] = bytes.fromhex(f["head"])
    for r in make_offsets()["rosters"]:
        path = os.path.join(ROOT, "store/block/pool_roster_corpus/%d.bin" % r["members"])
        files[path] = bytes.fromhex(r["encoded"])
    for g in stream["greetings"]:
        path = os.path.join(ROOT, "proto/stream_corpus/%s.bin" % g["name"])
        files[path] = bytes.fromhex(g["encoded"])
    return files


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    wrong = 0
    for path, content in outputs().items():
        if arguments:
            found = None
            if os.path.exists(path):
                with open(path, "rb") as file:
                    found = file.read()
            if found != content:
                print("%s: %s; fix: run tests/golden/make_vectors.py" %
                      (os.path.relpath(path, ROOT), "missing" if found is None else "differs"))
                wrong += 1
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
