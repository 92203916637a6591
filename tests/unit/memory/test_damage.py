# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Damage, quarantine and secrets: what Memory says, and what it never says."""
from __future__ import annotations

import base64
import hashlib
import logging
import os
import pathlib
import traceback

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import (
    KeyUnavailable,
    MemoryOpsError,
    NamespaceQuarantined,
    RecordCorrupt,
    StoreDamaged,
    StoreUnavailable,
)

FIELDS = "key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"


def put(place, row):
    marks = ", ".join(f"{name} = ?" for name in FIELDS.split(", "))
    place.sql(f"UPDATE memory_records SET {marks} WHERE key = ?", (*row, row[0]))


def rows(place):
    return {row[0]: row for row in place.sql(f"SELECT {FIELDS} FROM memory_records")}


def resealed(row):
    return (*row[:9], RecordCodec("a").checksum(row))


def flip(data, at):
    data = bytearray(data)
    data[at % len(data)] ^= 1
    return bytes(data)


DAMAGES = {
    "payload": lambda one, two: (*one[:8], flip(one[8], 20), one[9]),
    "payload, checksum made anew": lambda one, two: resealed((*one[:8], flip(one[8], 20), b"")),
    "checksum": lambda one, two: (*one[:9], flip(one[9], 3)),
    "cut": lambda one, two: (*one[:8], one[8][:-1], one[9]),
    "cut, checksum made anew": lambda one, two: resealed((*one[:8], one[8][:5], b"")),
    "empty": lambda one, two: resealed((*one[:8], b"", b"")),
    "ciphertext of another key": lambda one, two: (*one[:8], *two[8:]),
    "ciphertext of another key, checksum made anew": lambda one, two: resealed((*one[:8], two[8], b"")),
    "expiry": lambda one, two: resealed((*one[:5], 1 << 60, *one[6:])),
    "sequence": lambda one, two: resealed((*one[:2], 77, *one[3:])),
    "made a tombstone": lambda one, two: (*one[:6], one[4], *one[7:]),
    "made a tombstone, checksum made anew": lambda one, two: resealed((*one[:6], one[4], *one[7:])),
    "text in a number": lambda one, two: (*one[:5], "never", *one[6:]),
    "text as payload": lambda one, two: (*one[:8], "text", one[9]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_every_damage_is_found_logged_and_never_served(place, memory, caplog, damage):
    memory.write("a", "planted-key", "planted-value one")
    memory.write("a", "other", "planted-value two")
    memory.write("a", "fine", "3")
    stored = rows(place)
    put(place, damage(stored["planted-key"], stored["other"]))
    with caplog.at_level(logging.DEBUG), pytest.raises(RecordCorrupt) as caught:
        memory.read("a", "planted-key", default="never served")
    assert caught.value.next_step
    assert memory.read("a", "fine") == "3"
    assert memory.read_many("a", ["fine", "planted-key"], skip_damaged=True) == {"fine": "3"}
    with pytest.raises(RecordCorrupt):
        memory.read_many("a", ["planted-key", "fine"])
    corrupt = [line for line in memory.get_access_logs("a") if line["operation"] == "corrupt"]
    assert [line["key"] for line in corrupt] == ["planted-key"] * 3
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR and r.name == "memops.agent_memory"]
    assert len(lines) == 3
    line = lines[0]
    assert "memory corrupt" in line
    assert "'a'" in line
    assert hashlib.sha256(b"planted-key").hexdigest()[:16] in line
    assert "planted" not in caplog.text


def test_swapped_ciphertexts_in_search_and_deletion_of_a_damaged_record(place, memory):
    memory.write_many("a", {"one": "green", "two": "green", "three": "green"})
    stored = rows(place)
    put(place, resealed((*stored["one"][:8], stored["two"][8], b"")))
    assert {key for key, _score, _value in memory.search("a", "green")} == {"two", "three"}
    assert sorted(memory.list_keys("a")) == ["one", "three", "two"]
    assert memory.delete("a", "one", soft=True, reason="corrupt")
    assert memory.read("a", "one") is None
    memory.write("a", "one", "again")
    assert memory.read("a", "one") == "again"


@pytest.mark.parametrize("damaged", ["CAST(x'6bff' AS TEXT)", "CAST(x'ff' AS TEXT)", "x'6b31'"])
def test_a_damaged_key_stops_neither_a_listing_nor_a_search(place, memory, damaged):
    memory.write_many("a", {f"k{n:03}": "green" for n in range(1200)})
    place.sql(f"UPDATE memory_records SET key = {damaged} WHERE key = 'k499'")
    place.sql("DROP TRIGGER memops_fence_update")
    place.sql("UPDATE memory_records SET key = CAST(x'6b30ff' || CAST(key AS BLOB) AS TEXT) WHERE key < 'k010'")
    fine = {f"k{n:03}" for n in range(10, 1200)} - {"k499"}
    assert fine <= set(memory.list_keys("a"))
    assert {key for key, _score, _value in memory.search("a", "green", limit=2000)} == fine
    memory.flush()
    assert memory.dropped_entries == 0


def test_a_record_under_a_key_that_is_gone(place, memory, caplog):
    memory.write("a", "k", "v")
    row = rows(place)["k"]
    put(place, resealed((*row[:7], "k-that-is-gone", *row[8:])))
    with pytest.raises(KeyUnavailable, match="k-that-is-gone"):
        memory.read("a", "k")
    assert "decryption failed" in caplog.text
    assert [line["operation"] for line in memory.get_access_logs("a")] == ["write", "corrupt"]


def test_quarantine(place, memory):
    memory.write("a", "k", 1)
    memory.write("healthy", "k", 2)
    place.fence("a")
    assert memory.read("a", "k", default="miss") == "miss"
    assert memory.read_many("a", ["k"]) == {}
    assert list(memory.list_keys("a")) == memory.search("a", "k") == []
    for act in (
        lambda: memory.write("a", "k", 3),
        lambda: memory.write_many("a", {"new": 3}),
        lambda: memory.delete("a", "k"),
        lambda: memory.evaluate_benchmark("a", [{"key": "k", "expect": 1}]),
    ):
        with pytest.raises(NamespaceQuarantined) as caught:
            act()
        assert caught.value.next_step
    assert memory.read("healthy", "k") == 2
    memory.write("healthy", "k", 3)
    refused = [line for line in memory.get_access_logs("a") if line["operation"] == "refused"]
    assert [line["key"] for line in refused] == ["k", "k", None, None]
    place.unfence("a")
    assert memory.read("a", "k") == 1
    memory.write("a", "k", 4)
    assert memory.read("a", "k") == 4


def test_quarantine_does_not_look_at_damage(place, memory, caplog):
    memory.write("a", "k", 1)
    row = rows(place)["k"]
    put(place, (*row[:9], b"x" * 32))
    place.fence("a")
    assert memory.read("a", "k") is None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_store_file_that_vanishes_comes_back_or_is_replaced(place):
    memory = place.memory(buffer_seconds=0)
    memory.write("a", "k", 1)
    path = place.store["path"]
    os.rename(path, path + ".away")
    with pytest.raises(StoreUnavailable):
        memory.write("a", "k", 2)
    assert not os.path.exists(path)  # an application never makes an empty store in place of a lost one
    os.rename(path + ".away", path)
    assert memory.read("a", "k") == 1
    memory.write("a", "k", 2)
    other = type(place)(place.folder, "other")
    with other.memory() as second:
        second.write("a", "k", "from the other file")
    for leftover in ("-wal", "-shm"):  # as whoever puts another file there must do
        if os.path.exists(path + leftover):
            os.unlink(path + leftover)
    os.replace(other.store["path"], path)
    assert memory.read("a", "k") == "from the other file"
    memory.write("a", "k", 3)
    assert memory.read("a", "k") == 3
    memory.close()
    with place.memory() as memory:
        assert memory.read("a", "k") == 3


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b""])
def test_no_database(place, content):
    with open(place.store["path"], "wb") as file:
        file.write(content)
    with pytest.raises(MemoryOpsError) as caught:
        place.memory()
    assert caught.value.next_step
    assert pathlib.Path(place.store["path"]).read_bytes() == content


def test_a_page_that_cannot_be_read(place, caplog):
    with place.memory() as memory:
        memory.write_many("a", {f"k{n:04}": "x" * 400 for n in range(500)})
    with open(place.store["path"], "r+b") as file:
        size = os.path.getsize(place.store["path"])
        for page in range(size // 8192 // 2, size // 8192):
            file.seek(page * 8192)
            file.write(b"\xff" * 8192)
    met = []
    with place.memory() as memory:
        for n in range(500):
            try:
                assert memory.read("a", f"k{n:04}") == "x" * 400
            except (StoreDamaged, RecordCorrupt) as exc:
                met.append(exc)
    assert any(isinstance(exc, StoreDamaged) for exc in met)
    assert all(exc.next_step for exc in met)
    assert "memory corrupt" in caplog.text


def test_no_secret_in_stored_bytes_errors_or_log(place, caplog):
    caplog.set_level(logging.DEBUG)
    texts = []
    memory = place.memory()
    memory.write("a", "k", "planted-plaintext")
    memory.write("a", "l", {"deep": ["planted-plaintext"]})
    memory.delete("a", "l")
    row = rows(place)["k"]
    put(place, (*row[:8], flip(row[8], 30), row[9]))
    for act in (
        lambda: memory.read("a", "k"),
        lambda: memory.write("a", "k", {"planted-plaintext": object()}),
        lambda: memory.write("a", "k", "planted-plaintext", ttl=-1),
    ):
        with pytest.raises(MemoryOpsError) as caught:
            act()
        texts.append(str(caught.value) + "".join(traceback.format_exception_only(type(caught.value), caught.value)))
    texts += [repr(memory), repr(memory._session.keyring), caplog.text]
    master = bytes.fromhex((place.folder / "master.key").read_text())
    memory.close()
    stored = b"".join(path.read_bytes() for path in place.folder.iterdir() if path.name != "master.key")
    blob = stored + "".join(texts).encode()
    for secret in (b"planted-plaintext", master, master.hex().encode(), base64.b64encode(master)):
        assert secret not in blob
