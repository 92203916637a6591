# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Restoring: whole, some keys, another name, another store, a warm secondary; and leaving alone what must be left."""
from __future__ import annotations

import os
import threading
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec, decode_value
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite import SqliteStore
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, restore_fill
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.stores import fill, keyring_params, log_of, new_store, rows_of

from .conftest import NAME, Place, damage


def bring(place: Place, **more: t.Any) -> dict[str, t.Any]:
    arguments = {
        "store_params": place.store, "repository": place.repository, "keyring": place.keyring, "namespace": "n", **more
    }  # fmt: skip
    return restore.restore(name=NAME, **arguments)


def state(params: dict[str, t.Any], namespace: str) -> t.Any:
    store = open_store(params)
    try:
        with store.reader() as reader:
            return reader.namespace(namespace)
    finally:
        store.close()


def value(place: Place, params: dict[str, t.Any], namespace: str, key: str) -> t.Any:
    row = next(row for row in rows_of(params, namespace) if row[0] == key)
    return decode_value(place.keyring.open_payload(row[8], RecordCodec(namespace).head(row), row[7]))


def test_whole_in_place_and_again(filled: Place) -> None:
    place = filled
    place.snapshot()
    before = rows_of(place.store, "n")
    sequence = open_store(place.store).identity().sequence
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key > 'k0100' AND key < 'k0200'")
    damage(place, "DELETE FROM memory_records WHERE key >= 'k0400'")
    told = bring(place, check=True)
    assert told["changed"] and told["check"] and rows_of(place.store, "n") != before
    assert state(place.store, "n").generation == 1
    result = bring(place)
    assert result["changed"] and result["restored"] == len(before) and result["damaged"] == 0
    assert rows_of(place.store, "n") == before
    now = state(place.store, "n")
    assert now.generation == result["generation"] != result["previous_generation"] and now.state == "serving"
    again = bring(place)
    assert not again["changed"] and state(place.store, "n") == now
    assert not bring(place, check=True)["changed"]
    assert open_store(place.store).identity().sequence == sequence
    assert all(known.state == "closed" for known in open_store(place.store).incidents())
    assert rows_of(place.store, "m")


def test_live_readers_go_on_and_writers_wait(filled: Place) -> None:
    place = filled
    place.fill("n", {f"w{number:05d}": os.urandom(100) for number in range(20_000)})
    place.snapshot()
    damage(place, "DELETE FROM memory_records WHERE key = 'k0001'")
    done = threading.Event()
    seen: list[str] = []

    def read() -> None:
        store = open_store(place.store)
        while not done.is_set():
            with store.reader() as reader:
                if "k0002" not in reader.get_many("n", ["k0002"]):
                    seen.append("missed")
        store.close()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert bring(place)["changed"]
    finally:
        done.set()
        thread.join()
    assert seen == []
    place.fill("n", {"after": 1})  # the lock was given back


@pytest.fixture
def big(filled: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A namespace of several chunks that counts as a big one: fetched, loaded and proven by three processes."""
    monkeypatch.setattr(restore_fill, "SMALL", 0)
    monkeypatch.setattr(restore_fill, "LOAD_BYTES", 200_000)
    filled.fill("n", {f"w{number:05d}": os.urandom(100) for number in range(6_000)})
    return filled


def test_a_big_namespace_by_several_processes(big: Place, tmp_path: t.Any) -> None:
    place = big
    snapshot_id = place.snapshot()["snapshot"]
    assert len(place.open().snapshot(NAME, snapshot_id, place.keyring).chunks("n")) > 4
    before = rows_of(place.store, "n")
    log = [entry[1:] for entry in log_of(place.store, "n")]
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key > 'w00100' AND key < 'w00200'")
    damage(place, "DELETE FROM memory_access_log WHERE key IN ('k0003', 'w00017') AND operation = 'write'")
    result = bring(place)
    assert (result["restored"], result["log_entries"]) == (len(before), 2)
    assert rows_of(place.store, "n") == before
    assert sorted(entry[1:] for entry in log_of(place.store, "n") if entry[3] == "write") == sorted(
        entry for entry in log if entry[2] == "write"
    )
    target = {"engine": "sqlite", "path": str(tmp_path / "new.db")}
    assert bring(place, store_params=target, create=True)["log_entries"] == len([e for e in log if e[4] is not None])
    assert rows_of(target, "n") == before


@pytest.mark.parametrize("wrong", ["one byte", "one row less", "one row more"])
def test_what_the_store_does_not_give_back_is_not_switched(
    big: Place, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    place = big
    place.snapshot()
    damage(place, "DELETE FROM memory_records WHERE key = 'k0001'")
    before, generation = rows_of(place.store, "n"), state(place.store, "n").generation
    honest = SqliteStore.load

    def load(store: t.Any, claim: t.Any, number: int, rows: t.Any) -> None:
        rows = list(rows)
        for position, row in enumerate(rows):
            if row[0] == "w05999":
                if wrong == "one byte":
                    rows[position] = (*row[:8], row[8][:-1] + bytes([row[8][-1] ^ 1]), row[9])
                elif wrong == "one row less":
                    del rows[position]
                else:
                    rows.append(("x", *row[1:]))
                break
        honest(store, claim, number, rows)

    monkeypatch.setattr(SqliteStore, "load", load)
    with pytest.raises(errors.CannotProceed, match="Nothing was switched"):
        bring(place)
    assert rows_of(place.store, "n") == before and state(place.store, "n").generation == generation
    monkeypatch.undo()
    assert bring(place)["changed"]
    assert len(open_store(place.store).generations("n")) == 2  # its half generation is gone


def test_to_an_empty_store_with_its_evidence(filled: Place, tmp_path: t.Any) -> None:
    place = filled
    place.snapshot()
    target = {"engine": "sqlite", "path": str(tmp_path / "new.db")}
    with pytest.raises(errors.StoreUnavailable):
        bring(place, store_params=target)
    assert bring(place, store_params=target, create=True, check=True)["changed"]
    assert not os.path.exists(target["path"])
    whole = restore.restore_whole(
        store_params=target, repository=place.repository, keyring=place.keyring, name=NAME, create=True
    )
    assert whole["changed"] and set(whole["namespaces"]) == {"n", "m"}
    for namespace in ("n", "m"):
        assert rows_of(target, namespace) == rows_of(place.store, namespace)
        assert state(target, namespace).state == "serving"
    writes = [entry[1:] for entry in log_of(place.store, "n")]
    assert [entry[1:] for entry in log_of(target, "n") if entry[3] in ("write", "delete")] == writes
    assert open_store(target).identity().sequence >= open_store(place.store).identity().sequence
    again = restore.restore_whole(
        store_params=target, repository=place.repository, keyring=place.keyring, name=NAME, create=True
    )
    assert not again["changed"]
    fill(target, place.keyring, "n", {"goes on": 1})  # no sequence is given out twice
    assert max(row[2] for row in rows_of(target, "n")) > open_store(place.store).identity().sequence


def test_another_stores_data_are_not_overwritten(filled: Place, tmp_path: t.Any) -> None:
    place = filled
    place.snapshot()
    other = new_store(tmp_path, "other.db")
    fill(other, place.keyring, "n", {"mine": 1})
    before = rows_of(other, "n")
    for check in (True, False):
        with pytest.raises(errors.RepositoryRefused):
            bring(place, store_params=other, check=check)
    assert rows_of(other, "n") == before


def test_some_keys(filled: Place) -> None:
    place = filled
    place.snapshot()
    place.fill("n", {"k0003": "newer", "k0004": None})
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'k0001'")
    damage(place, "DELETE FROM memory_records WHERE key = 'k0002'")
    keys = ["k0001", "k0002", "k0003", "k0004", "k0005"]
    before = rows_of(place.store, "n")
    for check in (True, False):
        with pytest.raises(errors.CannotProceed, match=r"2 of the 3 keys .* 'neither', 'nothing'.*leave them out"):
            bring(place, keys=["k0002", "nothing", "neither"], check=check)
    assert rows_of(place.store, "n") == before
    assert bring(place, keys=keys, check=True)["restored"] == 2
    result = bring(place, keys=keys)
    assert (result["restored"], result["newer_keys"], result["unchanged"]) == (
        2, ["k0003", "k0004"], 1
    )  # fmt: skip
    assert value(place, place.store, "n", "k0001") == 1 and value(place, place.store, "n", "k0003") == "newer"
    assert not bring(place, keys=keys)["changed"]
    result = bring(place, keys=keys, overwrite=True)
    assert result["restored"] == 2 and value(place, place.store, "n", "k0003") == 3
    assert value(place, place.store, "n", "k0004") == 4
    with open_store(place.store).reader() as reader:  # what gave way is kept
        assert {"k0003", "k0004"} <= {row[0] for batch in reader.aside("n") for _incident, _reason, row in batch}
    with pytest.raises(errors.InvalidInput):
        bring(place, keys=[])


def test_under_another_name(filled: Place) -> None:
    place = filled
    place.snapshot()
    assert bring(place, to_namespace="copy", check=True)["changed"]
    result = bring(place, to_namespace="copy")
    assert result["restored"] == 499 and result["changed"]  # the tombstone stays behind
    assert value(place, place.store, "copy", "k0042") == 42
    codec = RecordCodec("copy")
    assert all(codec.intact(row) for row in rows_of(place.store, "copy"))
    assert not bring(place, to_namespace="copy")["changed"]
    place.fill("copy", {"k0042": "mine"})
    result = bring(place, to_namespace="copy")
    assert not result["changed"] and result["newer_keys"] == ["k0042"]
    assert bring(place, to_namespace="copy", overwrite=True)["restored"] == 1
    with pytest.raises(errors.CannotProceed, match="1 of the 2 keys"):
        bring(place, to_namespace="third", keys=["k0001", "zzz"])
    assert bring(place, to_namespace="third", keys=["k0001"])["restored"] == 1
    store = open_store(place.store)
    with store.reader() as reader:
        assert reader.log_health()["intact"]


def test_a_secondary_is_kept_warm(filled: Place, tmp_path: t.Any) -> None:
    place = filled
    first = place.snapshot()
    second = {"engine": "sqlite", "path": str(tmp_path / "secondary.db")}
    result = bring(place, store_params=second, create=True, as_secondary=True)
    now = state(second, "n")
    assert result["changed"] and now.state == "standby" and now.restored_snapshot == first["snapshot"]
    assert now.restored_digest == first["namespaces"]["n"]["digest"]
    assert rows_of(second, "n") == rows_of(place.store, "n")
    assert open_store(second).identity().lineage == open_store(place.store).identity().lineage
    assert not bring(place, store_params=second, as_secondary=True)["changed"]
    place.fill("m", {"other": "namespace"})
    bring(place, store_params=second, namespace="m", create=True, as_secondary=True)
    later = place.snapshot()
    assert bring(place, store_params=second, as_secondary=True)["changed"]  # only the note: the lag is shorter
    assert state(second, "n").restored_snapshot == later["snapshot"] and state(second, "n").generation == now.generation
    place.fill("n", {"k0001": "newer"})
    place.snapshot()
    assert bring(place, store_params=second, as_secondary=True)["restored"] == 501
    assert rows_of(second, "n") == rows_of(place.store, "n")
    assert open_store(second).generations("n") == [state(second, "n").generation]
    with pytest.raises(errors.CannotProceed):
        bring(place, as_secondary=True)  # the primary is no standby


def test_damaged_records_of_a_snapshot_stay_behind(filled: Place) -> None:
    place = filled
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'k0009'")
    place.snapshot()
    damage(place, "DELETE FROM memory_records WHERE key < 'k0300'")
    result = bring(place)
    assert (result["damaged"], result["damaged_keys"]) == (1, ["k0009"])
    assert "k0009" not in {row[0] for row in rows_of(place.store, "n")}
    assert len(rows_of(place.store, "n")) == 500  # 500 keys and the canary, less one
    assert bring(place, keys=["k0009"])["damaged_keys"] == ["k0009"]


def test_a_changed_pack_switches_nothing(filled: Place) -> None:
    place = filled
    snapshot_id = place.snapshot()["snapshot"]
    damage(place, "DELETE FROM memory_records WHERE key < 'k0300'")
    before, generation = rows_of(place.store, "n"), state(place.store, "n").generation
    pack = place.objects(snapshot_id)["packs/000000.pack"]
    kept = pack.read_bytes()
    pack.write_bytes(kept[:1000] + bytes([kept[1000] ^ 1]) + kept[1001:])
    with pytest.raises(errors.SnapshotUnusable):
        bring(place)
    assert rows_of(place.store, "n") == before and state(place.store, "n").generation == generation
    pack.write_bytes(kept)
    assert bring(place)["changed"]  # at once: the failed attempt gave its lease back
    assert len(open_store(place.store).generations("n")) == 2  # its half generation is gone


def test_refusals(filled: Place) -> None:
    place = filled
    with pytest.raises(errors.RepositoryRefused):
        bring(place)
    place.snapshot("forensic", incident="inc-1")
    with pytest.raises(errors.SnapshotUnusable):
        bring(place)  # evidence is no source
    place.snapshot()
    with pytest.raises(errors.SnapshotUnusable):
        bring(place, namespace="nobody")
    with pytest.raises(errors.NamespaceUnknown):
        bring(place, namespace="nobody", snapshot_id=place.open().snapshots(NAME)[0].id)
    with pytest.raises(errors.SnapshotUnusable):
        bring(place, snapshot_id="20200101T000000Z-00000000")
    store = open_store(place.store)
    claim = store.claim("n", "host:1:1", "somebody", new_incident="inc-9")
    with pytest.raises(errors.CannotProceed, match="inc-9"):
        bring(place)
    damage(place, "DELETE FROM memory_records WHERE key = 'k0001'")
    assert bring(place, claim=claim)["changed"]  # as a step of that incident
    assert store.incidents("n")[0].state == "open"


def test_a_bare_machine_with_the_master_key(filled: Place, tmp_path: t.Any) -> None:
    place = filled
    place.snapshot()
    params = {**keyring_params(place.directory), "path": str(tmp_path / "elsewhere" / "ring.json")}
    ring = Keyring.open(params, create=True)
    target = {"engine": "sqlite", "path": str(tmp_path / "bare.db")}
    result = bring(place, store_params=target, keyring=ring, create=True)
    assert result["adopted_keys"] == [place.keyring.active_id]
    again = Keyring.open(params)
    row = rows_of(target, "n")[5]
    assert again.open_payload(row[8], RecordCodec("n").head(row), row[7])


def test_many_namespaces_come_from_one_snapshot_that_is_opened_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest and its index grow with the namespaces: to read them for each would be their number squared."""
    for number in range(12):
        place.fill(f"tenant-{number:02}", {"k": number})
    place.snapshot()
    fetched: list[str] = []
    get = DirectoryObjects.get

    def noted(self: DirectoryObjects, key: str, *part: t.Any) -> bytes:
        fetched.append(key)
        return get(self, key, *part)

    monkeypatch.setattr(DirectoryObjects, "get", noted)
    done = restore.restore_whole(
        store_params=new_store(place.directory, "copy.db"), repository=place.repository, keyring=place.keyring,
        name=NAME, create=True, as_secondary=True,
    )  # fmt: skip
    assert len(done["namespaces"]) == 12 and done["changed"]
    assert [sum(key.endswith(end) for key in fetched) for end in ("/index", "/manifest.json")] == [1, 2]
