# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults: every call to the place fails once, endpoints lie, answers come late, processes are killed."""
from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, retention, verify
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from tests.support.stores import new_store, rows_of

from .conftest import NAME, Place, many
from .faulty import Faults, faulty


class Liar(DirectoryObjects):
    """An endpoint that overwrites where it should refuse and takes any checksum; it may store rubbish, too."""

    kind = "s3"
    rot = ""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, sha256: bytes | None = None) -> None:
        if self.rot and self.rot in key:
            data = data[:-1] + bytes([data[-1] ^ 1])
        super().put(key, data)

    def refuses_wrong_checksum(self, key: str) -> bool:
        return False


def whole(place: Place, known: t.Collection[str] = ()) -> list[str]:
    """The ids of published snapshots; each of them (but those known to be) must be complete."""
    try:
        repository = place.open()
    except errors.RepositoryRefused:
        return []
    found = [info.id for info in repository.snapshots(NAME, place.keyring)]
    for snapshot_id in set(found) - set(known):
        result = verify.verify(
            repository=repository, keyring=place.keyring, name=NAME, snapshot_id=snapshot_id, depth="opened",
            record=False,
        )  # fmt: skip
        assert result["verdict"] == "pass", result
    return found


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("base", [None, "auto"])
def test_fail_every_call_of_create(place: Place, late: bool, base: str | None) -> None:
    place.fill("n", many(700))
    place.fill("m", {"k": 1})
    pristine = place.directory / "pristine"
    if base:
        place.snapshot()
        place.fill("m", {"k": 2})
        shutil.copytree(place.root, pristine)
    number = 0
    while True:
        number += 1
        shutil.rmtree(place.root, ignore_errors=True)
        if base:
            shutil.copytree(pristine, place.root)
        before = whole(place)
        faults = Faults(number, late)
        try:
            result = place.snapshot(repository=faulty(place.root, faults, create=True), base=base)
        except errors.MemoryOpsError as exc:
            told = str(exc)
            after = whole(place, before)
            assert len(after) - len(before) in ((0, 1) if late else (0,))  # a late answer may have published it
            again = place.snapshot(base=base)  # the same command again
            assert again["snapshot"] in whole(place, after) and "\n" not in told
            continue
        assert result["snapshot"] in whole(place, before) and bool(result["base"]) == bool(base)
        if faults.calls < number:
            break
        if faults.failed:  # only the probe's delete may fail and is remembered
            seen = Repository.at(DirectoryObjects(str(place.root))).seen
            assert not seen["delete"], "a failing call was passed over in silence"
    assert number > 9
    found = place.open().snapshot(NAME, result["snapshot"], place.keyring)
    assert rows_of(place.store, "n") == [row for rows in found.scan("n") for row in rows]


def test_fail_every_call_of_a_forensic_snapshot_converges_to_one(place: Place) -> None:
    place.fill("n", many(300))
    number = 0
    while True:
        number += 1
        faults = Faults(number, True)
        try:
            result = place.snapshot("forensic", incident="inc-1", repository=faulty(place.root, faults, create=True))
        except errors.MemoryOpsError:
            continue
        if faults.calls < number:
            break
    assert not result["changed"] and whole(place) == [result["snapshot"]]


def test_fail_every_call_of_restore(place: Place, tmp_path: t.Any) -> None:
    place.fill("n", many(1500))
    place.snapshot()
    want = rows_of(place.store, "n")
    number = 0
    target = new_store(tmp_path, "target.db")
    while True:
        number += 1
        faults = Faults(number)
        try:
            result = restore.restore(
                store_params=target, repository=faulty(place.root, faults), keyring=place.keyring, name=NAME,
                namespace="n", create=True,
            )  # fmt: skip
        except errors.MemoryOpsError:
            continue
        break
    assert number > 4 and result["changed"] and rows_of(target, "n") == want


def test_fail_every_call_of_verify_is_never_a_pass(place: Place) -> None:
    place.fill("n", many(300))
    snapshot_id = place.snapshot()["snapshot"]
    number = 0
    while True:
        number += 1
        faults = Faults(number)
        for name, path in place.objects(snapshot_id).items():
            if name.startswith("checks/"):
                path.unlink()  # otherwise there is one more to read each time
        try:
            result = verify.verify(
                repository=faulty(place.root, faults), keyring=place.keyring, name=NAME, snapshot_id=snapshot_id,
                depth="restored",
            )  # fmt: skip
        except errors.RepositoryUnavailable:
            continue
        if faults.calls < number:
            break
        assert result["verdict"] == "could-not-verify" or result["check"] is None, (number, result)
    assert result["verdict"] == "pass"


@pytest.mark.parametrize("late", [False, True])
def test_fail_every_call_of_retention(place: Place, late: bool) -> None:
    place.fill("n", many(300))
    good = [place.snapshot(base=None)["snapshot"] for _turn in range(3)][-1]
    for days in (0, 3):
        number = 0
        while True:
            number += 1
            faults = Faults(number, late)
            try:
                retention.apply(
                    repository=faulty(place.root, faults), keyring=place.keyring, name=NAME, keep_last=1, keep_within=0,
                    now=time.time() + days * 86400,
                )  # fmt: skip
            except errors.MemoryOpsError:
                assert good in whole(place)
                continue
            if faults.calls < number:
                break
    assert whole(place) == [good]
    assert sorted(os.listdir(place.root / "snapshots" / NAME)) == [good]


def test_a_dishonest_endpoint_is_remembered_and_read_back(place: Place) -> None:
    place.fill("n", many(300))
    objects = Liar(str(place.root))
    repository = Repository.at(objects, create=True)
    assert repository.seen["conditional_put"] is False and repository.seen["checksum_verified"] is False
    assert len(Repository.at(objects).warnings) == 2
    result = place.snapshot(repository=repository)
    assert len(result["warnings"]) == 2 and whole(place) == [result["snapshot"]]
    for rot in ("packs/", "index", "keys/", "manifest.json"):
        objects.rot = rot
        with pytest.raises(errors.RepositoryUnavailable):
            place.snapshot(repository=repository, base=None)
        found = [info for info in place.open().snapshots(NAME, place.keyring) if info.good]
        assert [info.id for info in found] == [result["snapshot"]]


def test_a_full_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill("n", many(300))
    first = place.snapshot()["snapshot"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(errors.RepositoryUnavailable, match="No space left"):
            place.snapshot(base=None)
    assert whole(place) == [first]
    assert not list(place.root.rglob(".part-*"))


def _create(place: Place) -> None:
    place.snapshot(base=None, workers=2)


def test_kill_at_any_instant(place: Place) -> None:
    place.fill("n", many(51_000, size=16))
    started = time.monotonic()
    _create(place)
    length = time.monotonic() - started
    context = multiprocessing.get_context("fork")
    chance = random.Random()
    before = whole(place)
    for _turn in range(5):
        process = context.Process(target=_create, args=(place,))
        process.start()
        time.sleep(chance.uniform(0, length))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        after = whole(place, before)
        assert set(after) >= set(before)
        before = after
    _create(place)
    assert len(whole(place, before)) == len(before) + 1
    result = retention.apply(
        repository=place.repository, keyring=place.keyring, name=NAME, now=time.time() + 3 * 86400
    )
    assert not result["waiting"]
    assert set(os.listdir(place.root / "snapshots" / NAME)) == {info.id for info in place.open().snapshots(NAME)}
