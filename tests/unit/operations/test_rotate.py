# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Key rotation: nothing is lost, live writers win, twice changes nothing."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import sqlite_reseal
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    LeaseHeld,
    NamespaceUnknown,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS
from tests.unit.operations.rotate_help import assert_all_open, open_incidents, run


def kept(row):
    """What a rotation must not touch."""
    return row[:7]


def test_everything_gets_a_new_key_and_keeps_the_rest(place):
    values = place.fill(120)
    with place.memory() as memory:
        memory.delete(NS, "user/00003")
    del values["user/00003"]
    before = place.rows()
    (old,) = place.ring().ids()
    result = run(place, force=True)
    assert (result["changed"], result["complete"], result["key_created"], result["resumed"]) == (
        True,
        True,
        True,
        False,
    )
    assert result["records"] == {"rotated": 120, "already": 0, "unopenable": 0, "remaining": 0}
    after = place.rows()
    assert [kept(row) for row in after] == [kept(row) for row in before]
    assert {row[7] for row in after} == {result["key"]} == {place.ring().active_id}
    assert all(a[8] != b[8] and a[9] != b[9] for a, b in zip(after, before))
    assert place.ring().ids() == [old, result["key"]]
    assert_all_open(place, values)
    assert not open_incidents(place)
    assert [e.reason for e in place.log("rotate")] == [
        f"{phase}: from {old} to {result['key']}" for phase in ("start", "end")
    ]


def test_twice_changes_nothing(place):
    place.fill(30)
    run(place, force=True)
    rows, ids, log = place.rows(), place.ring().ids(), place.log()
    again = run(place)
    assert (again["changed"], again["complete"], again["key_created"]) == (False, True, False)
    assert (place.rows(), place.ring().ids(), place.log()) == (rows, ids, log)
    assert not open_incidents(place)


def test_a_young_key_is_new_enough_and_an_old_one_is_not(place):
    place.fill(5)
    assert run(place)["changed"] is False
    assert run(place, min_age=0)["key_created"] is True


def test_check_writes_nothing(place):
    place.fill(20)

    def state():
        return Path(place.keyring["path"]).read_bytes(), place.rows(), place.log(), open_incidents(place)

    before = state()
    said = run(place, check=True, force=True)
    assert (said["changed"], said["key"], said["records"]["remaining"]) == (True, None, 20)
    assert "would encrypt 20 records with a new record key" in said["reasons"]
    young = run(place, check=True)
    assert young["changed"] is False and "would encrypt" not in " ".join(young["reasons"])
    assert state() == before


def test_records_that_no_key_opens_are_left_alone_and_listed(place):
    values = place.fill(50)
    place.rewrite("user/00010", key_id="kgone")
    place.rewrite("user/00011", payload=os.urandom(60))
    place.sql("UPDATE memory_records SET created = 'never' WHERE key = 'user/00012'")
    bad = {"user/00010", "user/00011", "user/00012"}
    before = [row for row in place.rows() if row[0] in bad]
    result = run(place, force=True)
    assert {one["key"] for one in result["unopenable"]} == bad
    assert result["records"] == {"rotated": 47, "already": 0, "unopenable": 3, "remaining": 0}
    assert result["complete"] is False
    assert [row for row in place.rows() if row[0] in bad] == before
    good = {key: value for key, value in values.items() if key not in bad}
    assert place.values(list(good)) == good
    again = run(place)
    assert (again["changed"], again["records"]["unopenable"]) == (False, 3)
    assert len(place.ring().ids()) == 2


def test_damaged_checksums_mislead_nobody(place):
    """Records are found again by their checksum: where two have the same, or one is no checksum, by their key."""
    values = place.fill(60)
    put = "UPDATE memory_records SET checksum = ? WHERE key = ?"
    checksums = [row[9] for row in place.rows()]
    for number, other in ((10, 11), (11, 10), (30, 31)):
        place.sql(put, checksums[other], f"user/{number:05d}")
    place.sql("UPDATE memory_records SET checksum = 'lost' WHERE key = 'user/00040'")
    assert run(place, force=True, batch=20)["records"]["rotated"] == 60
    assert_all_open(place, values)


def test_rows_that_changed_since_they_were_read_are_refused_and_the_others_written(place):
    place.fill(30)
    rows = place.rows()
    place.rewrite("user/00005", payload=b"another")
    place.sql("DELETE FROM memory_records WHERE key = 'user/00020'")
    store = open_store(place.store)
    claim = store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
    changes = [("knew", b"payload" + bytes([n]), bytes([n]) * 32, row[0], row[9]) for n, row in enumerate(rows)]
    refused = store.reseal(claim, changes)
    store.settle()
    store.close()
    assert refused == ["user/00005", "user/00020"]
    written = {change[3]: change[:3] for change in changes if change[3] not in refused}
    assert {row[0]: row[7:] for row in place.rows() if row[7] == "knew"} == written


@pytest.mark.parametrize("what", ["one more", "one less", "another", "two alike and one less"])
def test_rows_between_those_that_were_read_do_not_shift_the_new_payloads(place, what):
    """The new payloads are handed out in the order of the keys, in stretches: each still reaches its own row alone."""
    place.fill(3 * sqlite_reseal.STRETCH // 2)
    middle = f"user/{sqlite_reseal.STRETCH // 2:05d}"
    if what == "two alike and one less":
        alike = "SELECT checksum FROM memory_records WHERE key = ?"
        place.sql(f"UPDATE memory_records SET checksum = ({alike}) WHERE key = ?", middle, middle[:-1] + "1")
    rows = place.rows()
    changes = [("knew", b"payload of " + row[0].encode(), bytes(28) + b"%04d" % n, row[0], row[9])
               for n, row in enumerate(rows)]  # fmt: skip
    if what == "one more":
        place.sql(
            "INSERT INTO memory_records SELECT generation, key || '+', epoch, sequence, created, updated, expires, "
            "deleted, key_id, payload, zeroblob(32) FROM memory_records WHERE key = ?", middle
        )  # fmt: skip
    elif what == "another":
        place.rewrite(middle, payload=b"another")
    else:
        place.sql("DELETE FROM memory_records WHERE key = ?", middle)
    store = open_store(place.store)
    claim = store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
    refused = store.reseal(claim, changes)
    store.close()
    assert refused == ([] if what == "one more" else [middle])
    written = {change[3]: change[:3] for change in changes if change[3] not in refused}
    assert {row[0]: row[7:] for row in place.rows() if row[7] == "knew"} == written


def test_the_write_ahead_log_does_not_grow_without_end(place, monkeypatch):
    """Readers come and go all the time; once it is long, settling waits for those that are there."""
    place.fill(300)
    monkeypatch.setattr(sqlite_reseal, "WAL_BOUND", 0)
    monkeypatch.setattr(sqlite_reseal, "PATIENCE_MS", 20_000)
    store, other = open_store(place.store), open_store(place.store)
    claim = store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
    reader = other.reader()
    sizes = []
    for number in range(4):
        store.reseal(claim, [(f"k{number}", row[8], row[9], row[0], row[9]) for row in place.rows()])
        sizes.append(os.path.getsize(place.store["path"] + "-wal"))
        closing = threading.Timer(0.1, reader.close)
        closing.start()
        store.settle()
        closing.join()
        reader = other.reader()
    reader.close()
    other.close()
    store.close()
    assert sizes == sizes[:1] * 4


def test_records_with_an_older_key_are_brought_to_the_active_one_without_a_new_key(place):
    values = place.fill(40)
    ring = place.ring()
    new = ring.create_key()
    ring.activate(new)
    values.update(place.fill(10, start=40))
    result = run(place, new_key=False)
    assert (result["key"], result["key_created"], result["records"]["rotated"]) == (new, False, 40)
    assert_all_open(place, values)


def test_several_namespaces_get_the_same_key(place):
    place.fill(10)
    with place.memory() as memory:
        memory.write("other", "k", "v")
    result = run(place, namespace=None, force=True)
    assert {name: one["rotated"] for name, one in result["namespaces"].items()} == {NS: 10, "other": 1}
    with pytest.raises(NamespaceUnknown):
        run(place, namespace=[NS, "nobody"], force=True)
    assert len(place.ring().ids()) == 2


def test_it_works_in_a_quarantine_and_leaves_a_foreign_incident_open(place):
    values = place.fill(30)
    store = open_store(place.store)
    claim = store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
    store.fence(claim)
    result = run(place, force=True)
    assert result["namespaces"][NS]["incident"] == "inc-1"
    assert [one.incident for one in open_incidents(place)] == ["inc-1"]
    # the same attempt does the same step again: nothing to do, even if it is forced
    assert run(place, force=True)["changed"] is False
    store.unfence(claim)
    store.close()
    assert_all_open(place, values)


def test_a_second_live_attempt_is_refused_and_no_key_is_made(place):
    place.fill(5)
    store = open_store(place.store)
    store.claim(NS, "other:1:1", "somebody else", new_incident="inc-1")
    store.close()
    with pytest.raises(LeaseHeld, match="somebody else"):
        run(place, force=True)
    assert len(place.ring().ids()) == 1


def test_unused_keys_are_retired_only_when_asked_and_only_when_nothing_names_them(place):
    place.fill(10)
    (old,) = place.ring().ids()
    store = open_store(place.store)
    claim = store.claim(NS, "host:1:1", "an operator", new_incident="inc-1")
    number = store.begin_generation(claim)
    store.load(claim, number, place.rows()[:1])
    assert run(place, force=True, retire=True)["retired_keys"] == []
    store.drop_generation(claim, number)
    store.close_incident(claim)
    store.close()
    result = run(place, retire=True)
    assert (result["retired_keys"], result["changed"]) == ([old], True)
    assert place.ring().ids()[0] == old, "it stays in the keyring and still opens"
    assert any("snapshots" in reason for reason in result["reasons"])


def test_a_live_writer_is_never_overwritten(place, monkeypatch):
    """Every batch meets records that were written after it was read."""
    monkeypatch.setattr(rotate, "ROUNDS", 50)
    values = place.fill(400)
    memory = place.memory()
    writes = []

    def write_on(_progress):
        if len(writes) < 12:
            key = f"user/{random.randrange(400):05d}"
            values[key] = {"live": len(writes)}
            memory.write(NS, key, values[key])
            memory.write(NS, f"new/{len(writes)}", len(writes))
            values[f"new/{len(writes)}"] = len(writes)
            writes.append(key)

    result = run(place, force=True, batch=20, progress=write_on)
    memory.close()
    assert len(writes) == 12
    assert result["complete"] is True
    assert {row[7] for row in place.rows()} == {result["key"]}
    assert_all_open(place, values)


def test_a_writer_that_keeps_the_old_key_is_looked_at_again_and_reported(place):
    """Something that does not follow the keyring: bounded rounds, then the truth."""
    place.fill(60)
    old = place.ring().active_id
    store = open_store(place.store)

    def write_with_the_old_key(_progress):
        from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec

        codec, ring = RecordCodec(NS), place.ring()
        with store.writing(NS, 1) as w:
            row = ("user/00000", w.epoch, w.first_sequence, w.at, w.at, None, None, old, b"", b"")
            row = row[:8] + (ring.seal(b"j1", codec.head(row), old), b"")
            row = row[:9] + (codec.checksum(row),)
            w.put([row], [(0, w.at, NS, "write", row[0], row[1], row[2], row[9], w.lock, "stubborn", None, b"")])

    result = run(place, force=True, progress=write_with_the_old_key)
    assert (result["complete"], result["records"]["remaining"]) == (False, 1)
    assert "does not follow the keyring" in result["reasons"][0]
    assert len(open_incidents(place)) == 1, "still under way"
    again = run(place)
    store.close()
    assert (again["resumed"], again["complete"], again["key"], again["key_created"]) == (
        True,
        True,
        result["key"],
        False,
    )
    assert not open_incidents(place)
