# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A big namespace is restored by several processes on every engine; killed at any instant, the same command ends it."""

from __future__ import annotations

import os
import signal
import time
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    restore,
    restore_check,
    restore_fill,
    snapshot,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils._store_optional import PackedRows, PreparedLoad
from tests.support.stores import fill, log_of, new_keyring, rows_of

EXPIRES = 4_000_000_000_000_000


class Filled:
    """A store with records of every size, its snapshot, and a place to restore it to."""

    def __init__(self, bench: t.Any, folder: t.Any) -> None:
        self.bench, self.store, self.target = bench, bench.params("m"), bench.params("new")
        self.keyring = new_keyring(folder)
        self.repository = {"url": f"file://{folder}/repository"}
        open_store(self.store, create=True).close()
        fill(self.store, self.keyring, "n", {f"w{n:05d}": os.urandom(100) for n in range(4000)})
        sizes = [0, 1, 200, 230, 60_000, 70_000]
        fill(self.store, self.keyring, "n", {"ключ" + "x" * size: "y" * size for size in (1, 20, 30, 300, 900)})
        fill(self.store, self.keyring, "n", {f"size {size}": os.urandom(size) for size in sizes}, expires=EXPIRES)
        fill(self.store, self.keyring, "n", {"w00007": None})
        self.taken = snapshot.create(
            name="memory", purpose="scheduled", repository=self.repository, keyring=self.keyring,
            store_params=self.store,
        )["snapshot"]  # fmt: skip

    def bring(self, **more: t.Any) -> dict[str, t.Any]:
        return restore.restore(
            store_params=self.target, repository=self.repository, keyring=self.keyring, name="memory",
            snapshot_id=self.taken, namespace="n", create=True, **more,
        )  # fmt: skip

    def written(self, params: t.Any) -> list[tuple[t.Any, ...]]:
        """Logged writes without their ids."""
        return sorted(tuple(entry[1:]) for entry in log_of(params, "n") if entry[3] in ("write", "delete"))


@pytest.fixture
def filled(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(restore_fill, "SMALL", 0)
    monkeypatch.setattr(restore_fill, "LOAD_BYTES", 100_000)
    monkeypatch.setattr(restore_fill, "PREPARED_BYTES", 100_000)
    monkeypatch.setattr(restore_fill, "LOG_ROWS", 500)
    return Filled(bench, tmp_path)


def test_several_processes_bring_records_and_log(filled):
    result = filled.bring()
    assert rows_of(filled.target, "n") == rows_of(filled.store, "n")
    assert filled.written(filled.target) == filled.written(filled.store)
    assert result["log_entries"] == len(filled.written(filled.store)) > 4000
    assert not filled.bring()["changed"]


def test_stored_bytes_are_compared_with_the_snapshots(filled):
    """Where an engine packs rows itself it finds what was changed, and nothing else."""
    filled.bring()
    store = open_store(filled.target)
    chunks = Repository.open(filled.repository).snapshot("memory", filled.taken, filled.keyring).chunks("n")

    def proof() -> restore_check.Proof:
        with store.reader() as reader:
            return restore_check.Proof(store, "n", reader.namespace("n").generation, chunks)

    def holds() -> bool:
        with store.reader() as reader:
            return not isinstance(reader, PackedRows) or proof()._holds(reader, None, chunks)

    assert holds() and len(chunks) > 3
    raw = filled.bench.raw("new")
    raw.flip("n", "w01234")
    with store.reader() as reader:
        assert not isinstance(reader, PackedRows) or not proof()._holds(reader, None, chunks)
    looked = proof()
    looked.finish()
    assert looked.wrong is not None and looked.wrong.startswith("rows from")
    store.close()


def test_what_another_process_prepared_is_what_load_brings(filled):
    store = open_store(filled.target, create=True)
    store.create_namespace("n", state="standby")
    claim = store.claim("n", "attempt", "operator", new_incident="inc")
    if isinstance(store, PreparedLoad):
        rows = rows_of(filled.store, "n")
        expected, number = store.begin_generation(claim), store.begin_generation(claim)
        store.load(claim, expected, rows)
        store.load_prepared(claim, number, store.prepared("n", number, rows[::2][::-1]))  # in no order
        between = store.prepared("n", number, rows[1:])
        with pytest.raises(CannotProceed, match="has records that were not loaded"):
            store.load_prepared(claim, number, between)
        store.load(claim, number, rows[1::2])
        with store.reader() as reader:
            found = [[row for rows in reader.scan("n", generation=one) for row in rows] for one in (expected, number)]
            assert found[0] == found[1] == rows
        store.switch(claim, number, 1)
        assert store.identity().sequence == open_store(filled.store).identity().sequence
        with store.reader() as reader:
            assert reader.structure() == []  # records that expire are in their index
    store.close()


def test_killed_in_the_middle_it_goes_on(filled):
    """In the middle of the records, before the log (which is imported beside or after them), and after that."""
    for place, instant in enumerate((("load", 3, False), ("import_log", 1, False), ("import_log", 1, True))):
        filled.target = filled.bench.params(f"new{place}")
        store = open_store(filled.target, create=True)
        kind = type(store)
        if instant[0] == "load" and isinstance(store, PreparedLoad):
            instant = ("load_prepared", *instant[1:])
        store.close()
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            _killed(filled, kind, *instant)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, instant
        _wait_for_the_end(child)
        store = open_store(filled.target)
        held = [one.attempt for one in store.incidents("n") if one.state == "open"]
        store.close()
        assert filled.bring(takeover=held[0])["changed"]
        assert rows_of(filled.target, "n") == rows_of(filled.store, "n"), instant
        assert filled.written(filled.target) == filled.written(filled.store), instant


def _killed(filled: Filled, kind: t.Any, method: str, number: int, after: bool) -> None:
    """Restore, and be killed before or after the nth call of this method, in whichever process it is."""
    honest, calls, first = getattr(kind, method), [], os.getpid()

    def counted(*args: t.Any) -> t.Any:
        calls.append(1)
        result = honest(*args) if after else None
        if len(calls) == number:
            os.kill(first, signal.SIGKILL)
        return result if after else honest(*args)

    setattr(kind, method, counted)
    try:
        filled.bring()
    finally:
        os._exit(3)


def _wait_for_the_end(group: int) -> None:
    """Its workers notice by themselves that it is gone."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("a worker goes on")
