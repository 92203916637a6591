# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every flip, cut, swap and loss of every kind of stored object is noticed and named."""
from __future__ import annotations

import os
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import verify
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.reader import Snapshot
from tests.support.decoded import decoder
from tests.support.stores import keyring_params, new_keyring

from .conftest import NAME, Place


def check(place: Place, snapshot_id: str, depth: str, **more: t.Any) -> dict[str, t.Any]:
    arguments = {"repository": place.repository, "keyring": place.keyring, "record": False, **more}
    return verify.verify(name=NAME, snapshot_id=snapshot_id, depth=depth, **arguments)


@pytest.fixture
def two(place: Place) -> tuple[Place, str, str]:
    """A full snapshot and one that refers to it."""
    place.fill("n", {f"k{number:05d}": os.urandom(300) for number in range(3000)})
    place.fill("m", {"other": "x"})
    first = place.snapshot()["snapshot"]
    place.fill("n", {"k01500": b"edited"})
    second = place.snapshot()
    assert second["base"] == first
    return place, first, second["snapshot"]


def test_clean_at_every_depth(two: tuple[Place, str, str]) -> None:
    place, first, second = two
    for snapshot_id in (first, second):
        for depth in verify.DEPTHS:
            result = check(place, snapshot_id, depth, record=True)
            assert (result["verdict"], result["problems"], result["changed"]) == ("pass", [], True)
            assert result["authenticated"]
        assert result["records"] == 3003 and result["unopenable"] == 0
    keyless = check(place, first, "hashed", keyring=None)
    assert keyless["verdict"] == "pass" and not keyless["authenticated"]
    for depth in ("opened", "restored"):
        assert check(place, first, depth, keyring=None)["verdict"] == "could-not-verify"


def changes(data: bytes, other: bytes) -> list[tuple[str, bytes | None]]:
    middle = len(data) // 2
    return [
        ("flip", data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
        ("flip first", bytes([data[0] ^ 1]) + data[1:]),
        ("flip last", data[:-1] + bytes([data[-1] ^ 1])),
        ("cut", data[:-1]),
        ("half", data[:middle]),
        ("empty", b""),
        ("longer", data + b"\0"),
        ("swap", other),
        ("gone", None),
    ]


def believes(place: Place, snapshot_id: str) -> bool:
    """Whether the independent decoder does."""
    key = keyring_params(place.directory)["master_key_file"]
    try:
        return bool(decoder().read(place.root, NAME, key, snapshot_id)["agrees"])
    except Exception:  # whatever it trips over: it is a script that ends there
        return False


def test_every_change_of_every_object_is_named(two: tuple[Place, str, str]) -> None:
    place, first, second = two
    check(place, first, "listed", record=True)
    others = place.objects(second)
    kinds = set()
    for name, path in place.objects(first).items():
        kind = name.split("/")[0]
        kinds.add(kind)
        kept = path.read_bytes()
        other = next(o for n, o in others.items() if n.split("/")[0] == kind) if kind != "checks" else None
        for what, data in changes(kept, other.read_bytes() if other else b"{}\n"):
            if data is None:
                path.unlink()
                if kind == "checks":
                    path.write_bytes(kept)
                    continue  # results are appended; a lost one leaves no trace
            else:
                path.write_bytes(data)
            label = f"{name} {what}"
            assert kind == "checks" or not believes(place, first), label
            if name == "manifest.json" and data is None:
                with pytest.raises(errors.SnapshotUnusable):
                    check(place, first, "hashed")
            else:
                result = check(place, first, "hashed")
                assert result["verdict"] == "fail", label
                bad = [problem["object"] for problem in result["problems"]]
                assert any(name.startswith(one.split(f"{first}/")[1]) for one in bad), (label, bad)
                if kind == "packs" and what != "longer":  # a byte behind the last frame spoils no chunk
                    opened = check(place, first, "opened")
                    assert opened["verdict"] == "fail" and any("chunk" in p for p in opened["problems"]), label
                    assert any(p.get("namespace") in ("n", "m") for p in opened["problems"]), label
                    # the one that refers to it notices as well
                    assert check(place, second, "hashed")["verdict"] == "fail", label
            path.write_bytes(kept)
        assert check(place, first, "hashed")["verdict"] == "pass" and believes(place, first), name
    assert kinds == {"packs", "index", "manifest.json", "keys", "checks"}


def test_without_a_key_what_is_hashed_is_noticed_too(two: tuple[Place, str, str]) -> None:
    place, first, _second = two
    for name, path in place.objects(first).items():
        if name == "manifest.json":
            continue  # only a key authenticates it
        kept = path.read_bytes()
        path.write_bytes(kept[:-2] + bytes([kept[-2] ^ 1]) + kept[-1:])
        assert check(place, first, "hashed", keyring=None)["verdict"] == "fail", name
        path.write_bytes(kept)


def test_a_bad_chunk_names_its_records_and_hides_no_other(two: tuple[Place, str, str]) -> None:
    place, first, _second = two
    found = place.open().snapshot(NAME, first, place.keyring)
    chunks = found.chunks("n")
    path = place.objects(first)["packs/000000.pack"]
    data = bytearray(path.read_bytes())
    for position in (1, 3):
        data[chunks[position].offset + 100] ^= 0x40
    path.write_bytes(bytes(data))
    problems = [problem for problem in check(place, first, "opened")["problems"] if "chunk" in problem]
    assert [problem["chunk"] for problem in problems] == [1, 3]
    assert problems[0]["records"] == [chunks[1].first_key, chunks[1].last_key]
    with pytest.raises(errors.SnapshotUnusable, match="000000"):
        list(found.scan("n"))


def test_frames_cannot_change_places(two: tuple[Place, str, str]) -> None:
    place, first, _second = two
    found: Snapshot = place.open().snapshot(NAME, first, place.keyring)
    one, other = found.chunks("n")[:2]
    path = place.objects(first)["packs/000000.pack"]
    data = path.read_bytes()
    frame = data[other.offset : other.offset + other.length]
    for wrong in (one._replace(length=other.length), other._replace(frame=one.frame), other._replace(last=True)):
        with pytest.raises(errors.SnapshotUnusable):
            found.decode(wrong, frame)
    assert len(found.decode(other, frame)) == other.rows


def test_wrong_key_is_could_not_verify(two: tuple[Place, str, str], tmp_path: t.Any) -> None:
    place, first, _second = two
    result = check(place, first, "opened", keyring=new_keyring(tmp_path, "stranger"))
    assert result["verdict"] == "could-not-verify" and "master key" in result["problems"][0]["reason"]


def test_unknown_snapshots(place: Place) -> None:
    place.snapshot()
    for wrong in ("20200101T000000Z-00000000", "../../etc", "x"):
        with pytest.raises(errors.SnapshotUnusable):
            check(place, wrong, "hashed")
    with pytest.raises(errors.InvalidInput):
        check(place, place.open().snapshots(NAME)[0].id, "deep")


def test_a_forged_manifest_is_refused_with_a_key(two: tuple[Place, str, str]) -> None:
    """Somebody who can write to the bucket recomputes what needs no key."""
    import hashlib

    place, first, _second = two
    path = place.objects(first)["manifest.json"]
    line = path.read_bytes().split(b"\n")[0].replace(b'"suspect":false', b'"suspect":true')
    path.write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")
    assert check(place, first, "listed")["verdict"] == "fail"
    line = line.replace(b'"code":"hmac"', b'"code":"sha256"')
    path.write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")
    assert check(place, first, "listed")["verdict"] == "fail"
    assert check(place, first, "listed", keyring=None)["verdict"] == "fail"
