# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Taking snapshots: what is in them, what is sent, what is suspect, what is refused."""
from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import typing as t
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.sqlite_reader import SqliteReader
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    restore,
    snapshot,
    snapshot_plan,
    snapshot_scan,
    snapshot_workers,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.probes import CANARY
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import PostgresqlServer
from tests.support.stores import keyring_params, log_of, new_keyring, new_store, rows_of

from .conftest import NAME, Place, damage, many


def rows_in(place: Place, snapshot_id: str, namespace: str, **more: t.Any) -> list[t.Any]:
    found = place.open().snapshot(NAME, snapshot_id, place.keyring)
    return [row for rows in found.scan(namespace, **more) for row in rows]


def test_round_trip_with_every_kind_of_key(place: Place) -> None:
    odd = {"a/b/../c": 1, "new\nline": "x", "nul\0inside": b"\0", "long" + "é" * 50_000: b"v", "empty": b""}
    odd["big"] = b"b" * (3 << 20)
    place.fill("agent-7", odd)
    place.fill("agent-7", {"gone": "x"})
    place.fill("agent-7", {"gone": None})
    place.fill("näme space/\n", {"k": {"j": [1, None]}})
    result = place.snapshot()
    assert result["changed"] and not result["suspect"] and result["damaged"] == {"agent-7": 0, "näme space/\n": 0}
    assert result["namespaces"]["agent-7"]["tombstones"] == 1
    assert rows_in(place, result["snapshot"], "agent-7") == rows_of(place.store, "agent-7")
    assert rows_in(place, result["snapshot"], "näme space/\n") == rows_of(place.store, "näme space/\n")
    found = place.open().snapshot(NAME, result["snapshot"], place.keyring)
    assert [tuple(entry) for part in found.log("agent-7") for entry in part] == log_of(place.store, "agent-7")
    assert [row[0] for row in rows_of(place.store, "agent-7")][0] == CANARY


def test_empty_store_and_unknown_namespace(place: Place) -> None:
    result = place.snapshot()
    assert result["namespaces"] == {} and result["changed"]
    with pytest.raises(errors.NamespaceUnknown):
        place.snapshot(namespaces=["nobody"])


def test_bounds_and_keys(place: Place) -> None:
    items = many(5000)
    place.fill("n", items)
    found = place.open() if os.path.exists(place.root) else None
    assert found is None
    result = place.snapshot()
    reader = place.open().snapshot(NAME, result["snapshot"], place.keyring)
    keys = sorted(items)
    assert len(reader.chunks("n")) > 5
    got = [row[0] for rows in reader.scan("n", after=keys[999], until=keys[3000]) for row in rows]
    assert got == keys[1000:3001]
    wanted = [keys[0], keys[2500], keys[4999], "key/0000000x", "zzz", ""]
    assert set(reader.get_many("n", wanted)) == {keys[0], keys[2500], keys[4999]}


def test_incremental_sends_only_changed_chunks(place: Place) -> None:
    place.fill("big", many(20_000))
    place.fill("small", many(500))
    first = place.snapshot()
    assert first["base"] is None and first["bytes"]["referenced"] == 0
    second = place.snapshot()
    assert second["base"] == first["snapshot"] and second["bytes"]["sent"] == 0
    assert not [name for name in place.objects(second["snapshot"]) if name.startswith("packs/")]
    place.fill("big", {"key/0010000": b"edited"})
    place.fill("big", {"key/0000000a": b"new"})
    third = place.snapshot()
    # two record chunks and the tails of two logs at most
    assert 0 < third["bytes"]["sent"] < 5 << 20 and third["bytes"]["sent"] < first["bytes"]["sent"] / 3
    assert third["bytes"]["referenced"] > first["bytes"]["stored"] * 2 / 3
    for result in (second, third):
        assert result["base"] == first["snapshot"]
    assert rows_in(place, third["snapshot"], "big") == rows_of(place.store, "big")


def test_a_snapshot_with_references_is_never_a_base(place: Place) -> None:
    place.fill("n", many(3000))
    first = place.snapshot()
    second = place.snapshot()
    with pytest.raises(errors.RepositoryRefused):
        place.snapshot(base=second["snapshot"])
    assert place.snapshot(base=None)["base"] is None
    assert place.snapshot(base=first["snapshot"])["base"] == first["snapshot"]


def test_two_processes_give_the_same_rows(place: Place) -> None:
    place.fill("n", many(51_000, size=16))
    place.fill("m", many(10))
    one = place.snapshot(workers=1, base=None)
    seen: list[int] = []
    two = place.snapshot(workers=2, base=None, progress=lambda state: seen.append(state["records"]))
    assert one["namespaces"]["n"]["digest"] == two["namespaces"]["n"]["digest"]
    assert rows_in(place, two["snapshot"], "n") == rows_of(place.store, "n")
    assert seen[-1] == 51_001 + 11
    three = place.snapshot(workers=2, base=one["snapshot"])
    assert three["bytes"]["sent"] < one["bytes"]["sent"] / 5
    found = place.open().snapshot(NAME, two["snapshot"], place.keyring)
    assert sum(len(part) for part in found.log("n")) == two["namespaces"]["n"]["log_entries"] == 51_001


def test_two_processes_hand_over_packs_of_any_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "BIG", 0)
    place.fill("n", {**many(20, size=1 << 20), "key/0000003/huge": os.urandom(snapshot_workers.SLOT_BYTES + 1000)})
    result = place.snapshot(open_payloads=True)
    packs = place.open().snapshot(NAME, result["snapshot"], place.keyring).manifest["packs"]
    assert len(packs) > 2 and max(pack[1] for pack in packs) > snapshot_workers.SLOT_BYTES
    assert rows_in(place, result["snapshot"], "n") == rows_of(place.store, "n")
    assert result["namespaces"]["n"]["unopenable"] == 0


def test_a_process_that_is_killed_ends_the_snapshot(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "BIG", 0)
    place.fill("n", many(2000))
    monkeypatch.setattr(snapshot_scan, "row_sizes", lambda rows: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(errors.CannotProceed, match="killed"):
        place.snapshot()
    assert place.open().snapshots(NAME) == []
    monkeypatch.undo()
    assert place.snapshot()["changed"]


def test_the_log_of_the_base_is_read_again_when_it_is_not_the_same(place: Place) -> None:
    place.fill("n", many(3000))
    place.fill("m", many(50))
    copy = place.directory / "older.db"
    store = open_store(place.store)
    shutil.copyfile(place.store["path"], copy)
    place.fill("n", many(500, start=3000))
    first = place.snapshot()
    assert place.snapshot()["bytes"]["sent"] == 0
    store.append_log([(0, 1, "n", "hit", "k", None, None, None, None, "reader", None, b"")])
    more = place.snapshot()
    assert 0 < more["bytes"]["sent"] < 200 and more["base"] == first["snapshot"]  # the new entry, nothing else
    # an entry was lost, and one was changed that is the newest of the base
    for sql in ("DELETE FROM memory_access_log WHERE id = 700",
                "UPDATE memory_access_log SET actor = 'x' WHERE id = (SELECT max(id) - 1 FROM memory_access_log)"):
        damage(place, sql)
        taken = place.snapshot(base=first["snapshot"])
        found = place.open().snapshot(NAME, taken["snapshot"], place.keyring)
        assert [tuple(entry) for part in found.log("n") for entry in part] == log_of(place.store, "n")
        first = place.snapshot(base=None)
    # the store was set back to an older file and written to since: as many entries, but others
    store.close()
    for suffix in ("-wal", "-shm"):
        Path(place.store["path"] + suffix).unlink(missing_ok=True)
    shutil.copyfile(copy, place.store["path"])
    place.fill("n", many(510, start=7000))
    damage(place, "DELETE FROM memory_access_log WHERE id = 700")
    taken = place.snapshot(base=first["snapshot"])
    found = place.open().snapshot(NAME, taken["snapshot"], place.keyring)
    assert [tuple(entry) for part in found.log("n") for entry in part] == log_of(place.store, "n")


def test_a_base_without_sums_and_a_chunk_with_damage_are_compared_by_their_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fill("n", many(4000))
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'key/0001000'")
    first = place.snapshot()
    chunks = place.open().snapshot(NAME, first["snapshot"], place.keyring).chunks("n")
    assert chunks[0].sums is not None and chunks[-1].sums is None  # from the damage on
    assert place.snapshot()["bytes"]["sent"] == 0
    damage(place, "UPDATE memory_records SET payload = x'01' WHERE key = 'key/0001000'")  # same checksum column
    taken = place.snapshot(base=first["snapshot"])
    assert 0 < taken["bytes"]["sent"] < 2 << 20
    assert rows_in(place, taken["snapshot"], "n") == rows_of(place.store, "n")
    monkeypatch.setattr(snapshot_scan, "checksums_digest", lambda rows: None)
    old = place.snapshot(base=None)
    monkeypatch.undo()
    assert place.snapshot(base=old["snapshot"])["bytes"]["sent"] == 0


def test_rows_that_moved_between_chunks_of_the_base(place: Place) -> None:
    place.fill("n", many(6000))
    first = place.snapshot()
    starts = [chunk.first_key for chunk in place.open().snapshot(NAME, first["snapshot"], place.keyring).chunks("n")]
    damage(place, f"DELETE FROM memory_records WHERE key = '{starts[2]}'")
    place.fill("n", {starts[4]: b"edited", starts[5] + "x": b"new", "key/9999999": b"last"})
    taken = place.snapshot(base=first["snapshot"])
    assert rows_in(place, taken["snapshot"], "n") == rows_of(place.store, "n")
    assert 0 < taken["bytes"]["sent"] < first["bytes"]["sent"]


def test_what_moved_while_it_was_read_is_said_to_be_fuzzy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill("n", many(51_000, size=16))
    monkeypatch.setattr(SqliteReader, "moved", lambda _reader, namespace: namespace == "n")
    for workers in (1, 2):
        taken = place.snapshot(workers=workers)
        info = place.open().snapshots(NAME, place.keyring)[0]
        assert (info.id, info.good, info.manifest["consistency"]) == (taken["snapshot"], True, "fuzzy")
        assert "fuzzy" in taken["warnings"][0]
    monkeypatch.undo()
    assert place.open().newest_good(NAME, place.keyring, "n").id == taken["snapshot"]
    for snapshot_id, fuzzy in ((taken["snapshot"], True), (place.snapshot(base=None)["snapshot"], False)):
        restored = restore.restore(
            name=NAME, store_params=place.store, repository=place.open(), keyring=place.keyring, namespace="n",
            snapshot_id=snapshot_id, check=True,
        )  # fmt: skip
        assert ("is fuzzy" in " ".join(restored["warnings"])) is fuzzy


def test_min_interval(place: Place) -> None:
    place.fill("n", many(10))
    first = place.snapshot()
    again = place.snapshot(min_interval=3600)
    assert not again["changed"] and again["snapshot"] == first["snapshot"]
    assert place.snapshot(min_interval=0)["changed"]
    assert place.snapshot("baseline", min_interval=3600)["changed"]
    place.fill("n", many(1))
    assert place.snapshot(min_interval=3600)["changed"]
    store = open_store(place.store)
    store.append_log([(0, 1, "n", "rotate", None, None, None, None, None, "operator", None, b"")])
    assert place.snapshot(min_interval=3600)["changed"]
    store.append_log([(0, 1, "n", "hit", "k", None, None, None, None, "reader", None, b"")])
    store.close()
    assert not place.snapshot(min_interval=3600)["changed"]


def test_forensic_takes_damage_as_it_is_and_once_per_incident(place: Place) -> None:
    place.fill("n", many(300))
    good = place.snapshot()
    damage(place, "UPDATE memory_records SET epoch = 'x', created = 1.5 WHERE key = 'key/0000001'")
    damage(place, "UPDATE memory_records SET payload = 'text', key_id = x'00ff' WHERE key = 'key/0000002'")
    damage(place, "UPDATE memory_records SET checksum = x'' WHERE key = 'key/0000003'")
    with pytest.raises(errors.InvalidInput):
        place.snapshot("forensic")
    result = place.snapshot("forensic", incident="inc-1")
    assert result["damaged"]["n"] == 3 and not result["suspect"]
    assert rows_in(place, result["snapshot"], "n") == rows_of(place.store, "n")
    again = place.snapshot("forensic", incident="inc-1")
    assert not again["changed"] and again["snapshot"] == result["snapshot"]
    assert place.snapshot("forensic", incident="inc-2")["changed"]
    repository = place.open()
    assert repository.newest_good(NAME, place.keyring).id == good["snapshot"]
    assert not [info for info in repository.snapshots(NAME) if info.good and info.purpose == "forensic"]
    with pytest.raises(errors.RepositoryRefused):
        repository.accept(NAME, result["snapshot"], place.keyring, "someone")


def test_an_unreadable_page_is_a_hole(place: Place) -> None:
    items = many(4000)
    place.fill("n", items)
    before = rows_of(place.store, "n")
    con = sqlite3.connect(place.store["path"])
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page_size = con.execute("PRAGMA page_size").fetchone()[0]
    payload = con.execute("SELECT payload FROM memory_records WHERE key = 'key/0002000'").fetchone()[0]
    con.close()
    with open(place.store["path"], "r+b") as file:
        data = file.read()
        page = data.index(payload) // page_size
        file.seek(page * page_size)
        file.write(b"\xff" * page_size)
    with pytest.raises(errors.StoreDamaged):
        place.snapshot("drill")
    result = place.snapshot("forensic", incident="inc-1")
    assert result["namespaces"]["n"]["holes"] == 1
    after, until = result["holes"]["n"][0]
    assert after < "key/0002000" <= until
    got = rows_in(place, result["snapshot"], "n")
    kept = {row[0] for row in got}
    assert [row for row in before if row[0] in kept] == got  # in order, unchanged
    assert len(before) - 100 < len(got) < len(before)


def test_spool_when_the_repository_is_away(place: Place, tmp_path: t.Any) -> None:
    place.fill("n", many(10))
    away = {"url": "s3://bucket/x", "endpoint_url": "http://127.0.0.1:9", "access_key": "a", "secret_key": "b",
            "connect_timeout": 1, "read_timeout": 1, "retries": 1}  # fmt: skip
    with pytest.raises(errors.RepositoryUnavailable):
        place.snapshot(repository=away)
    with pytest.raises(errors.RepositoryUnavailable):
        place.snapshot(repository=away, spool=str(tmp_path / "spool"))  # only evidence is spooled
    result = place.snapshot("forensic", incident="inc-1", repository=away, spool=str(tmp_path / "spool"))
    assert result["spooled"] and result["warnings"] and result["location"] == f"file://{tmp_path}/spool"
    assert Repository.open({"url": f"file://{tmp_path}/spool"}).snapshot(NAME, result["snapshot"], place.keyring)


def test_another_stores_repository_is_refused(place: Place, tmp_path: t.Any) -> None:
    place.fill("n", many(10))
    place.snapshot()
    with pytest.raises(errors.RepositoryRefused):
        place.snapshot(store_params=new_store(tmp_path, "other.db"))


def test_wrong_key_names_both_ids(place: Place, tmp_path: t.Any) -> None:
    place.fill("n", many(10))
    result = place.snapshot()
    stranger = new_keyring(tmp_path, "stranger")
    with pytest.raises(errors.KeyUnavailable) as caught:
        place.open().snapshot(NAME, result["snapshot"], stranger)
    assert stranger.master_id in str(caught.value) and place.keyring.master_id in str(caught.value)
    assert place.open().snapshots(NAME, stranger)[0].good is False


def test_snapshot_and_master_key_are_enough(place: Place, tmp_path: t.Any) -> None:
    place.fill("n", {"k": {"secret": 1}})
    result = place.snapshot()
    params = keyring_params(place.directory)
    bare = Keyring.open({key: value for key, value in params.items() if key != "path"})
    found = place.open().snapshot(NAME, result["snapshot"], bare)
    bare.adopt(found.wrapped_keys())
    assert found.get_many("n", ["k"])["k"] == rows_of(place.store, "n")[1]


@pytest.mark.parametrize("change", [b'"format":3', b'"format":999'])
def test_a_newer_format_is_refused(place: Place, change: bytes) -> None:
    place.snapshot()
    path = place.root / "repository.json"
    path.write_bytes(path.read_bytes().replace(b'"format":1', change))
    with pytest.raises(errors.RepositoryRefused, match="format"):
        place.open()


def test_bad_parameters(place: Place, tmp_path: t.Any) -> None:
    for url in ("", "ftp://x", "s3://user:hidden@bucket/x", "file://relative", "s3://", None, 5):
        with pytest.raises(errors.InvalidInput) as caught:
            Repository.open({"url": url})
        assert "hidden" not in str(caught.value)
    with pytest.raises(errors.RepositoryRefused):
        Repository.open({"url": f"file://{tmp_path}/nothing"})
    with pytest.raises(errors.InvalidInput):
        place.snapshot("weekly")
    with pytest.raises(errors.SnapshotUnusable):
        place.snapshot()
        place.open().snapshot(NAME, "20200101T000000Z-00000000", place.keyring)
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.RepositoryUnavailable):
        Repository.open({"url": f"file://{tmp_path}/file/below"}, create=True)


def test_no_plaintext_is_stored(place: Place) -> None:
    place.fill("n", {f"PLAINKEY{number}": {"text": "PLAINVALUE" * 20} for number in range(500)})
    place.snapshot()
    place.open().put_journal("inc-1", 0, b"PLAINJOURNAL", place.keyring)
    stored = b"".join(path.read_bytes() for path in place.root.rglob("*") if path.is_file())
    for word in (b"PLAINKEY", b"PLAINVALUE", b"PLAINJOURNAL"):
        assert word not in stored
    assert all(path.stat().st_mode & 0o077 == 0 for path in place.root.rglob("*"))


def test_the_log_of_the_base_is_referred_to_on_postgresql_too(
    place: Place, postgresql_server: PostgresqlServer
) -> None:
    place.store = {**postgresql_server.store("referring"), "layout": "native", "name": NAME}
    open_store(place.store, create=True).close()
    place.fill("n", {**many(3000), 'a "quoted" one': b"1", "with\0nul": b"2", "long" * 400: b"3"})
    place.fill("m", {"k": b"4"})
    first = place.snapshot()
    second = place.snapshot()
    assert second["base"] == first["snapshot"] and second["bytes"]["sent"] == 0
    place.fill("n", {"later": b"5"})
    third = place.snapshot()
    assert 0 < third["bytes"]["sent"] < first["bytes"]["sent"]
    for taken in (first, second, third):
        found = place.open().snapshot(NAME, taken["snapshot"], place.keyring)
        entries = [tuple(entry) for part in found.log("n") for entry in part]
        assert entries == log_of(place.store, "n")[: len(entries)] and len(entries) >= 3004  # the canary is one more
    assert len(entries) == 3005


def test_of_many_namespaces_each_is_one_range_unless_it_is_big(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        place.fill(f"tenant-{number:02}", many(3))
    place.fill("big", many(40))

    def ranges(count: int) -> dict[str, int]:
        with open_store(place.store).reader() as reader:
            job = snapshot_scan.Job("n", "s", b"", None, {}, False)
            found: dict[str, int] = {}
            for task in snapshot_plan.plan(reader, reader.namespaces(), job, count):
                if isinstance(task, snapshot_scan.Range):
                    found[task.namespace] = found.get(task.namespace, 0) + 1
            return found

    assert set(ranges(2).values()) == {1}
    monkeypatch.setattr(snapshot_plan, "LEAST_RECORDS", 10)
    cut = ranges(2)
    assert cut.pop("big") == 4 and set(cut.values()) == {1}
