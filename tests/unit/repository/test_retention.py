# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Retention: what goes, what never goes, and in which order."""
from __future__ import annotations

import os
import time
import types
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._ansible import Context
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import retention, verify

from .conftest import NAME, Place, damage, many

DAY = 86400.0


def sweep(place: Place, days: float = 0, **more: t.Any) -> dict[str, t.Any]:
    arguments = {"keep_last": 1, "keep_within": 0, **more}
    return retention.apply(
        repository=place.repository, keyring=place.keyring, name=NAME, now=time.time() + days * DAY, **arguments
    )


def alive(place: Place) -> list[str]:
    return [info.id for info in place.open().snapshots(NAME)]


def test_manifest_first_packs_after_the_grace(place: Place) -> None:
    place.fill("n", many(100))
    first = place.snapshot(base=None)["snapshot"]
    second = place.snapshot(base=None)["snapshot"]
    assert sweep(place, keep_within=DAY)["removed"] == []
    told = sweep(place, check=True)
    assert told["removed"] == [first] and told["changed"] and alive(place) == [second, first]
    result = sweep(place)
    assert result["removed"] == [first] and alive(place) == [second]
    assert "packs/000000.pack" in place.objects(first) and "manifest.json" not in place.objects(first)
    result = sweep(place, 0.5)
    assert result["waiting"] == [first] and not result["changed"]
    assert sweep(place, 2, check=True)["collected"] == [first] and place.objects(first)
    assert sweep(place, 2)["collected"] == [first] and not place.objects(first)
    assert not sweep(place, 2)["changed"] and alive(place) == [second]


def test_a_rehearsal_counts_the_snapshot_that_comes(place: Place) -> None:
    place.fill("n", many(2000))
    first = place.snapshot(base=None)["snapshot"]
    second = place.snapshot(base=None)["snapshot"]
    place.fill("n", many(1))
    check = {"keep_last": 2, "check": True}
    assert sweep(place, **check)["removed"] == []
    told = sweep(place, expected=["n"], **check)
    assert told["removed"] == [first] and [one["snapshot"] for one in told["kept"]] == [second]
    assert sweep(place, keep_last=1, check=True, expected=["n"])["removed"] == [first]  # the second is its base
    assert sweep(place, 2, keep_last=1, check=True, expected=["n"])["removed"] == [second, first]  # too old for that
    assert sweep(place, keep_last=2, expected=["n"])["removed"] == []  # only a rehearsal expects anything
    real = place.snapshot()
    assert real["base"] == second and sweep(place, keep_last=2)["removed"] == [first]


def test_what_killed_puts_left_goes_after_the_grace(place: Place) -> None:
    place.fill("n", many(100))
    dead, cut = place.snapshot(base=None)["snapshot"], place.snapshot(base=None)["snapshot"]
    place.snapshot(base=None)
    for snapshot_id, keep in ((dead, ""), (cut, "packs/000000.pack")):
        for name, path in place.objects(snapshot_id).items():
            if name != keep:
                path.rename(path.with_name(".part-" + path.name))
    top = place.root / "snapshots" / NAME
    sweep(place, 0.5)
    sweep(place, 2, check=True)
    assert (top / dead / "packs").is_dir() and (top / cut / ".part-index").is_file()
    sweep(place, 2)
    assert os.listdir(top) == alive(place)


def test_a_base_that_is_referenced_stays(place: Place) -> None:
    place.fill("n", many(2000))
    base = place.snapshot()["snapshot"]
    middle = place.snapshot()["snapshot"]
    place.fill("n", many(1))
    last = place.snapshot()["snapshot"]
    result = sweep(place, 400)
    assert result["removed"] == [middle] and set(alive(place)) == {base, last}
    assert {kept["snapshot"]: kept["reason"] for kept in result["kept"]}[base] == "others refer to it"
    assert verify.verify(
        repository=place.repository, keyring=place.keyring, name=NAME, snapshot_id=last, depth="opened"
    )["verdict"] == "pass"  # fmt: skip


def test_the_last_good_one_evidence_and_suspects_stay(place: Place) -> None:
    place.fill("n", many(200))
    good = place.snapshot(base=None)["snapshot"]
    evidence = place.snapshot("forensic", incident="inc-1", base=None)["snapshot"]
    damage(place, "DELETE FROM memory_records WHERE key < 'key/0000150'")
    suspect = place.snapshot(base=None)
    assert suspect["suspect"]
    result = sweep(place, 1000)
    assert not result["removed"] and result["warnings"] and len(alive(place)) == 3
    place.open().accept(NAME, suspect["snapshot"], place.keyring, "someone")
    result = sweep(place, 10)
    assert result["removed"] == [good] and set(alive(place)) == {evidence, suspect["snapshot"]}
    assert sweep(place, 1000)["removed"] == [evidence]
    assert alive(place) == [suspect["snapshot"]]


def test_an_unreadable_one_stays(place: Place) -> None:
    place.fill("n", many(10))
    first = place.snapshot(base=None)["snapshot"]
    place.snapshot(base=None)
    path = place.objects(first)["manifest.json"]
    path.write_bytes(path.read_bytes()[:-5])
    result = sweep(place, 1000)
    assert not result["removed"] and any(first in warning for warning in result["warnings"])


def test_left_overs_of_an_interrupted_run_are_collected(place: Place) -> None:
    place.fill("n", many(10))
    first = place.snapshot(base=None)["snapshot"]
    second = place.snapshot(base=None)["snapshot"]
    place.objects(first)["manifest.json"].unlink()  # as if it had been killed just before
    assert alive(place) == [second]
    assert sweep(place)["waiting"] == [first]
    assert sweep(place, 2)["collected"] == [first] and not place.objects(first)


def test_a_base_that_came_into_use_meanwhile_comes_back(place: Place) -> None:
    place.fill("n", many(2000))
    base = place.snapshot()["snapshot"]
    user = place.snapshot()["snapshot"]
    hidden = place.objects(user)["manifest.json"]
    kept = hidden.read_bytes()
    hidden.unlink()  # the user is still under way
    place.snapshot(base=None)
    assert sweep(place)["removed"] == [base]
    hidden.write_bytes(kept)
    result = sweep(place, 2)
    assert result["revived"] == [base] and base in alive(place) and user not in result["collected"]


def test_bad_numbers(place: Place) -> None:
    place.snapshot()
    for more in ({"keep_last": 0}, {"keep_last": True}, {"keep_within": -1}, {"grace": "soon"}):
        with pytest.raises(errors.InvalidInput):
            sweep(place, **more)
    assert os.path.isdir(place.root)


def at(place: Place, monkeypatch: pytest.MonkeyPatch, days: float) -> str:
    """A snapshot as it was taken so many days ago: ids and times are those of the clock."""
    ago = int((time.time() - days * DAY) * 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: ago)
        patch.setattr(time, "time", lambda: ago / 1e9)
        return str(place.snapshot(base=None)["snapshot"])


def test_of_each_period_the_newest_one_stands(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill("n", many(10))
    noon = time.time() % DAY / DAY - 0.5  # so that days are whole whenever this runs
    taken = {days: at(place, monkeypatch, days + noon) for days in (400, 40, 39.9, 3, 2.1, 2, 1.1, 1)}
    result = sweep(place, check=True, periods={"daily": 3, "yearly": 2})
    kept = {one["snapshot"]: one["reason"] for one in result["kept"]}
    assert kept[taken[1]] == "the last good one"
    assert {taken[2], taken[3], taken[400]} <= set(kept)
    assert {taken[40], taken[2.1], taken[1.1]} <= set(result["removed"])
    assert set(sweep(place, check=True, periods={"daily": 0})["removed"]) == set(taken.values()) - {taken[1]}
    with pytest.raises(errors.InvalidInput):
        sweep(place, periods={"fortnightly": 1})
    with pytest.raises(errors.InvalidInput):
        sweep(place, periods={"daily": -1})


def test_the_last_good_one_of_each_namespace_stays(place: Place) -> None:
    for namespace in ("a", "b"):
        place.fill(namespace, many(10))
    first = place.snapshot(base=None)["snapshot"]
    both = place.snapshot(base=None)["snapshot"]
    part = place.snapshot("baseline", namespaces=["a"], base=None)["snapshot"]
    result = sweep(place, 1000)
    assert result["removed"] == [first] and set(alive(place)) == {both, part}


def test_a_rehearsal_passes_over_a_repository_that_is_not_made_yet_and_over_nothing_else(place: Place) -> None:
    def asked(check: bool) -> t.Any:
        module = types.SimpleNamespace(params={"repository": place.repository}, check_mode=check)
        return Context(t.cast(t.Any, module)).made_repository()

    assert asked(True) is None
    with pytest.raises(errors.RepositoryMissing):
        asked(False)
    place.fill("n", many(1))
    place.snapshot()
    assert asked(True).objects.location == asked(False).objects.location
    (place.root / "repository.json").write_bytes(b"somebody else's")
    for check in (True, False):
        with pytest.raises(errors.RepositoryRefused, match="damaged or not ours"):
            asked(check)
