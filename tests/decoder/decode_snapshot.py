# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Decode a snapshot from docs/snapshot_format.md alone, and compare it with a SQLite store.

    decode_snapshot.py REPOSITORY_DIRECTORY STORE_NAME MASTER_KEY_FILE [--snapshot ID] [--store FILE] [--jsonl FILE]

Shares no code with the collection. Prints one JSON object: per namespace the records, what is damaged or does not open,
and with --store whatever differs from the store. Exit status 1 when anything is not as the manifest says.
"""
from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
import sqlite3
import struct
import sys

import msgpack
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def master_key(path):
    text = "".join(pathlib.Path(path).read_text(encoding="ascii").split())
    key = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text.replace("-", "+").replace("_", "/") + "=")
    return hashlib.sha256(b"memops master key id 1\0" + key).hexdigest()[:16], key


def unwrap(master, wrapped, name):
    identity, key = master
    assert wrapped["name"] == name, f"a wrapped key is named {wrapped['name']}, not {name}"
    raw = base64.b64decode(wrapped["data"])
    return AESGCM(key).decrypt(raw[:12], raw[12:], f"memops wrapped key 1\0{identity}\0{name}".encode())


def derive(secret, label):
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode()).derive(secret)


def sealed_line(path, key):
    line, code, rest = path.read_bytes().split(b"\n")
    body = json.loads(line)
    assert rest == b"" and body["format"] in (1, 2), f"{path.name} is not of format 1 or 2"
    want = hmac.new(key, line, "sha256").hexdigest() if body["code"] == "hmac" else hashlib.sha256(line).hexdigest()
    assert hmac.compare_digest(want, code.decode()), f"{path.name} does not authenticate"
    return body


def frame(secret, snapshot, label, number, last, data):
    associated = f"memops snapshot 1|{snapshot}|{label}|{number}|{int(last)}".encode()
    plain = AESGCM(derive(secret, label)).decrypt(number.to_bytes(12, "big"), data, associated)
    return zstandard.ZstdDecompressor().decompress(plain[1:]) if plain[0] else plain[1:]


def unpack(data):
    return msgpack.unpackb(data, use_list=False, strict_map_key=False, unicode_errors="surrogateescape")


def log_entries(part):
    """Those of one part of a log chunk of format 2."""
    if not isinstance(part, dict):
        yield from part
        return
    digests, checksums = part["digests"], part["checksums"]
    for number, at, operation, key, epoch, sequence, length, lock, actor, reason in json.loads(part["entries"]):
        digest, digests = (None, digests) if length is None else (digests[:length], digests[length:])
        checksum, checksums = checksums[:16], checksums[16:]
        yield number, at, part["namespace"], operation, key, epoch, sequence, digest, lock, actor, reason, checksum
    assert not digests and not checksums, "a log chunk has more digests or checksums than entries"


def log_checksum(entry):
    text = [value.hex() if isinstance(value, bytes) else value for value in entry[1:11]]
    return hashlib.sha256(b"memops log 1\0" + json.dumps(text, separators=(",", ":")).encode()).digest()[:16]


class Snapshot:
    def __init__(self, store, identity, master):
        self.store, self.identity, self.master = store, identity, master
        keys = sealed_line(store / identity / "keys" / f"{master[0]}.json", None)
        assert keys["id"] == identity
        self.secrets = {identity: unwrap(master, keys["snapshot"], f"snapshot {identity}")}
        self.record_keys = {name: AESGCM(unwrap(master, one, name)) for name, one in keys["records"].items()}
        self.manifest = sealed_line(store / identity / "manifest.json", derive(self.secrets[identity], "manifest"))
        assert self.manifest["code"] == "hmac" and self.manifest["snapshot"] == identity
        data = (store / identity / "index").read_bytes()
        assert hashlib.sha256(data).hexdigest() == self.manifest["index"]["sha256"], "the index was changed"
        self.index = unpack(frame(self.secrets[identity], identity, "index", 0, True, data))
        for owner, packs in {identity: self.manifest["packs"], **self.manifest["references"]}.items():
            for number, size, digest, _frames in packs:
                data = (store / owner / "packs" / f"{number:06d}.pack").read_bytes()
                assert len(data) == size and hashlib.sha256(data).hexdigest() == digest, f"pack {number} was changed"

    def rows(self, namespace, kind):
        for origin, pack, number, offset, length, last, count, digest, _first, _last in (
            self.index["namespaces"][namespace][kind]
        ):
            owner = self.index["snapshots"][origin]
            if owner not in self.secrets:
                keys = sealed_line(self.store / owner / "keys" / f"{self.master[0]}.json", None)
                self.secrets[owner] = unwrap(self.master, keys["snapshot"], f"snapshot {owner}")
            with open(self.store / owner / "packs" / f"{pack:06d}.pack", "rb") as file:
                file.seek(offset)
                body = frame(self.secrets[owner], owner, f"pack {pack:06d}", number, last, file.read(length))
            assert hashlib.sha256(body).digest() == digest, "a chunk has another digest"
            rows = unpack(body)
            if isinstance(rows, dict):
                rows = [entry for part in rows["parts"] for entry in log_entries(part)]
            assert len(rows) == count, "a chunk has another number of rows"
            yield from rows


def head(namespace, row):
    key, epoch, sequence, created, updated, expires, deleted, key_id = row[:8]
    name, text, ring = namespace.encode(), key.encode(), key_id.encode()
    numbers = (epoch, sequence, created, updated, *(-1 if n is None else n for n in (expires, deleted)))
    lengths = struct.pack(">IIIQQqqqq", len(name), len(text), len(ring), *numbers)
    return lengths + b"memops record 1\0" + name + text + ring


def decode(namespace, row, ciphers, sealed=True):
    """(status, value): intact, damaged or unopenable."""
    try:
        start = head(namespace, row)
        if hashlib.sha256(start + row[8]).digest() != row[9]:
            return "damaged", None
    except (TypeError, AttributeError, struct.error, UnicodeError):
        return "damaged", None
    if not sealed:
        return ("intact", base64.b64encode(row[8]).decode()) if row[7] == "" else ("unopenable", None)
    try:
        plain = ciphers[row[7]].decrypt(row[8][:12], row[8][12:], start)
    except (KeyError, InvalidTag, ValueError):
        return "unopenable", None
    if row[6] is not None:
        return "intact", None
    value = json.loads(plain[1:]) if plain[:1] == b"j" else base64.b64encode(plain[1:]).decode()
    return "intact", value


def examine(snapshot, namespace, out):
    told = snapshot.manifest["namespaces"][namespace]
    total = 0
    found = {"records": 0, "tombstones": 0, "damaged": 0, "unopenable": 0}
    for row in snapshot.rows(namespace, "records"):
        sealed = snapshot.manifest["store"]["layout"] not in ("keyspace", "python")
        status, value = decode(namespace, row, snapshot.record_keys, sealed)
        found["records"] += 1
        found["tombstones"] += status != "damaged" and row[6] is not None
        found["damaged"] += status == "damaged"
        found["unopenable"] += status == "unopenable"
        digest = row[9]
        if status == "damaged":
            digest = hashlib.sha256(msgpack.packb([row], unicode_errors="surrogateescape")).digest()
        total += int.from_bytes(digest, "big")
        if out:
            line = {"namespace": namespace, "key": row[0], "status": status, "expires": row[5], "value": value}
            print(json.dumps(line), file=out)
    numbers = found["records"].to_bytes(8, "big") + (total % 2**256).to_bytes(32, "big")
    found["digest"] = hashlib.sha256(b"memops namespace 1\0" + numbers).hexdigest()
    log = [log_checksum(entry) == entry[11] for entry in snapshot.rows(namespace, "log")]
    found["log_entries"] = len(log)
    wrong = [name for name in found if name != "unopenable" and found[name] != told[name]]
    return {**found, "log_damaged": log.count(False), "wrong": wrong}


def compare(snapshot, namespace, path):
    """Keys whose rows differ between the snapshot and the active generation of a SQLite store."""
    con = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    columns = ", ".join(f'"{name}"' for name in snapshot.manifest["columns"])
    live = con.execute(
        f"SELECT {columns} FROM memory_records WHERE generation = "
        "(SELECT generation FROM memops_namespace WHERE name = ?) ORDER BY key", (namespace,)
    )
    here = {row[0]: hashlib.sha256(repr(row).encode()).digest() for row in live}
    differing = []
    for row in snapshot.rows(namespace, "records"):
        if here.pop(row[0], None) != hashlib.sha256(repr(row).encode()).digest():
            differing.append(row[0])
    return differing + list(here)


def read(repository, name, key_file, identity=None, live=None, out=None):
    """What there is to say of a snapshot (default: the newest by id that has a manifest), and beside the SQLite store
    ``live``; every record goes to ``out``."""
    store = pathlib.Path(repository) / "snapshots" / name
    identity = identity or max(path.parent.name for path in store.glob("*/manifest.json"))
    snapshot = Snapshot(store, identity, master_key(key_file))
    report = {"snapshot": identity, "namespaces": {}}
    for namespace in snapshot.manifest["namespaces"]:
        report["namespaces"][namespace] = examine(snapshot, namespace, out)
        if live:
            report["namespaces"][namespace]["differing"] = compare(snapshot, namespace, live)
    report["agrees"] = not any(one["wrong"] or one.get("differing") for one in report["namespaces"].values())
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository")
    parser.add_argument("name")
    parser.add_argument("master_key_file")
    parser.add_argument("--snapshot", help="default: the newest by id that has a manifest")
    parser.add_argument("--store", help="a SQLite store to compare with")
    parser.add_argument("--jsonl", help="write every record here")
    options = parser.parse_args()
    with open(options.jsonl, "w", encoding="ascii") if options.jsonl else contextlib.nullcontext() as out:
        report = read(
            options.repository, options.name, options.master_key_file, options.snapshot, options.store, out
        )  # fmt: skip
    print(json.dumps(report))
    return 0 if report["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
