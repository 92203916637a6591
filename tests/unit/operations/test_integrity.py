# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The integrity scan finds exactly the damage that was done, in one process and in several."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceUnknown
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS, Place


@pytest.fixture(params=[1, 3], ids=["one-process", "three-processes"])
def scan(request, place, monkeypatch):
    monkeypatch.setattr(integrity, "SMALL", 50)

    def run(**options):
        options = {"store_params": place.store, "namespace": NS, "workers": request.param, **options}
        result = integrity.scan(**options)
        assert result["workers"] == request.param
        return result

    return run


def damage_of(path):
    con = sqlite3.connect(path)
    try:
        return dict(con.execute("SELECT key, kind FROM damage"))
    finally:
        con.close()


def test_a_sound_namespace_passes_with_keys_and_is_only_intact_without(place, scan):
    place.fill(300)
    with place.memory() as memory:
        memory.delete(NS, "user/00007")
        memory.write(NS, "short", 1, ttl=0.001)
    full = scan(keyring=place.keyring)
    assert full["verdict"] == "pass"
    assert (full["rows"], full["live"], full["tombstones"], full["expired"]) == (301, 299, 1, 1)
    bare = scan()
    assert (bare["verdict"], bare["intact"], bare["opened"]) == ("could-not-verify", True, False)
    assert "no payload was opened" in bare["reasons"][0]


def test_every_kind_of_damage_is_told_apart(place, scan, tmp_path):
    place.fill(300)
    place.flip("user/00010")
    place.flip("user/00011", "checksum")
    (payload,) = place.sql("SELECT payload FROM memory_records WHERE key = 'user/00020'")[0]
    place.rewrite("user/00021", payload=payload)
    place.rewrite("user/00030", key_id="kffffffffffffffff")
    place.sql("UPDATE memory_records SET created = 'never' WHERE key = 'user/00040'")
    out = str(tmp_path / "damage.db")
    found = scan(keyring=place.ring(), damage_file=out)
    assert found["verdict"] == "fail"
    assert damage_of(out) == {
        "user/00010": "checksum",
        "user/00011": "checksum",
        "user/00021": "unopenable",
        "user/00030": "key-missing",
        "user/00040": "checksum",
    }
    assert found["findings"] == {"checksum": 3, "unopenable": 1, "key-missing": 1}
    assert {one["key"] for one in found["examples"]} == set(damage_of(out))
    assert os.stat(out).st_mode & 0o077 == 0
    # without keys only what the checksums tell
    assert scan(damage_file=out)["findings"] == {"checksum": 3}
    assert len(damage_of(out)) == 3


def test_a_moved_ciphertext_is_unopenable_though_the_checksum_was_made_to_fit(place, scan):
    place.fill(120)
    ((one,),) = place.sql("SELECT payload FROM memory_records WHERE key = 'user/00001'")
    ((two,),) = place.sql("SELECT payload FROM memory_records WHERE key = 'user/00002'")
    place.rewrite("user/00001", payload=two)
    place.rewrite("user/00002", payload=one)
    found = scan(keyring=place.keyring)
    assert found["findings"] == {"unopenable": 2}
    assert scan()["findings"] == {}


def test_a_broken_page_is_scanned_around_and_its_keys_are_named(place, scan, tmp_path):
    place.fill(2000)
    place.break_page_of("user/00700")
    out = str(tmp_path / "damage.db")
    found = scan(keyring=place.keyring, damage_file=out, structure=False)
    assert found["verdict"] == "fail"
    lost = damage_of(out)
    assert lost["user/00700"] == "structure"
    assert set(lost.values()) == {"structure"}
    assert found["rows"] == 2000 - len(lost), "every row outside the page is still checked"
    assert len(lost) < 100
    text = next(one["evidence"] for one in found["examples"] if one["key"] is None)
    assert "cannot be read" in text
    assert sum(b["damaged"] for b in found["damage_map"]) == len(lost)


def test_a_broken_index_is_an_index_finding(place, scan):
    place.fill(120)
    place.sql("DROP INDEX memory_access_log_writes")
    found = scan(keyring=place.keyring)
    assert found["findings"] == {"index": 1}
    assert found["verdict"] == "fail"
    assert scan(keyring=place.keyring, structure=False)["verdict"] == "pass"


def test_the_damage_map_covers_all_rows_in_order_and_is_bounded(place, scan):
    place.fill(1500)
    place.flip("user/00777")
    found = scan(buckets=20)
    boxes = found["damage_map"]
    assert 5 <= len(boxes) <= 20
    assert sum(b["rows"] for b in boxes) == 1500
    assert all(b["first_key"] <= b["last_key"] for b in boxes)
    assert all(a["last_key"] < b["first_key"] for a, b in zip(boxes, boxes[1:]))
    (hurt,) = [b for b in boxes if b["damaged"]]
    assert hurt["first_key"] <= "user/00777" <= hurt["last_key"]


def test_examples_are_limited_but_the_file_has_all(place, scan, tmp_path):
    place.fill(200)
    place.sql("UPDATE memory_records SET checksum = x'00'")
    out = str(tmp_path / "damage.db")
    found = scan(limit=7, damage_file=out)
    assert len(found["examples"]) == 7
    assert found["damaged"] == len(damage_of(out)) == 200


def test_writers_during_the_scan_do_not_change_what_it_sees(place, scan):
    place.fill(400)
    seen = []

    def write_on(_progress):
        with place.memory() as memory:
            memory.write(NS, f"later/{len(seen)}", 1)
        seen.append(1)

    found = scan(keyring=place.keyring, progress=write_on)
    assert found["rows"] == 400
    assert found["sequence"] == 400


def test_another_generation_can_be_scanned(place, scan):
    place.fill(100)
    store = open_store(place.store)
    claim = store.claim(NS, "a", "o", new_incident="i")
    number = store.begin_generation(claim)
    store.load(claim, number, place.rows()[:60])
    store.close()
    found = integrity.scan(store_params=place.store, namespace=NS, generation=number, keyring=place.keyring)
    assert (found["rows"], found["verdict"], found["generation"]) == (60, "pass", number)


def test_an_empty_namespace_and_an_unknown_one(place):
    store = open_store(place.store, create=True)
    store.create_namespace(NS)
    store.close()
    found = integrity.scan(store_params=place.store, namespace=NS)
    assert (found["rows"], found["damage_map"], found["intact"]) == (0, [], True)
    with pytest.raises(NamespaceUnknown):
        integrity.scan(store_params=place.store, namespace="nobody")


def test_no_process_is_left_behind_when_a_worker_dies(place, monkeypatch):
    from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed

    monkeypatch.setattr(integrity, "SMALL", 50)
    place.fill(300)
    monkeypatch.setattr(integrity, "check_range", lambda *_args: os.kill(os.getpid(), 9))
    before = {child.pid for child in multiprocessing.active_children()}
    started = []
    begin = multiprocessing.process.BaseProcess.start
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", lambda one: (begin(one), started.append(one))[0])
    with pytest.raises(CannotProceed, match="killed"):
        integrity.scan(store_params=place.store, namespace=NS, workers=2)
    assert len(started) >= 2
    assert {child.pid for child in multiprocessing.active_children()} <= before
    assert not any(one.is_alive() for one in started)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), hurt=st.sets(st.integers(0, 149), max_size=12), workers=st.integers(1, 3))
def test_random_damage_is_found_exactly(seed, hurt, workers):
    chance = random.Random(seed)
    former, integrity.SMALL = integrity.SMALL, 20
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder))
            place.fill(150)
            wanted = {}
            for number in sorted(hurt):
                key = f"user/{number:05d}"
                kind = chance.choice(["checksum", "unopenable", "key-missing"])
                if kind == "checksum":
                    place.flip(key, chance.choice(["payload", "checksum"]))
                elif kind == "unopenable":
                    place.rewrite(key, payload=os.urandom(chance.choice([0, 5, 28, 200])))
                else:
                    place.rewrite(key, key_id="gone")
                wanted[key] = kind
            out = os.path.join(folder, "damage.db")
            found = integrity.scan(
                store_params=place.store, namespace=NS, keyring=place.keyring, workers=workers, damage_file=out
            )
            assert damage_of(out) == wanted
            assert found["verdict"] == ("fail" if wanted else "pass")
            assert found["rows"] == 150
    finally:
        integrity.SMALL = former
