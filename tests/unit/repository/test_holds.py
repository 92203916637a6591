# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Holds, and the way back from a removal: nothing that is held goes, whoever is killed when."""
from __future__ import annotations

import os
import signal
import time
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    holds,
    retention,
    snapshot_info,
    verify,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.objects import ObjectStore

from .conftest import NAME, Place, many
from .faulty import Faults, faulty
from .test_retention import DAY, alive, sweep


def hold(place: Place, snapshots: t.Sequence[str] = (), present: bool = True, **more: t.Any) -> dict[str, t.Any]:
    given = {"label": "case-17", "by": "ann@desk", "reason": "a dispute" if present else "", **more}
    place_at = given.pop("repository", None) or place.open()
    return holds.hold(
        repository=place_at, keyring=place.keyring, name=NAME, snapshots=snapshots, present=present, **given
    )


def undelete(place: Place, snapshots: t.Sequence[str] = (), **more: t.Any) -> dict[str, t.Any]:
    given = {"repository": place.open(), "by": "ann@desk", "reason": "a slip", **more}
    return holds.undelete(keyring=place.keyring, name=NAME, snapshots=snapshots, **given)


def two(place: Place) -> tuple[str, str]:
    place.fill("n", many(50))
    return tuple(place.snapshot(base=None)["snapshot"] for _turn in range(2))  # type: ignore[return-value]


def test_what_is_held_stays_until_the_last_hold_is_lifted(place: Place) -> None:
    first, second = two(place)
    assert hold(place, [first], check=True)["changed"] and not (place.root / first / "checks").exists()
    assert sweep(place, check=True)["removed"] == [first]
    assert hold(place, [first]) == {
        "changed": True, "hold": "case-17", "snapshots": [first], "back": [], "holds": {first: ["case-17"]}
    }  # fmt: skip
    assert not hold(place, [first])["changed"] and hold(place, [first], label="audit")["changed"]
    assert hold(place, [first], reason="another dispute")["changed"]
    kept = {one["snapshot"]: one["reason"] for one in sweep(place, 1000)["kept"]}
    assert kept[first] == "held: case-17, audit" and alive(place) == [second, first]
    told = snapshot_info.snapshots(place.open(), NAME, place.keyring)
    assert [[one["hold"], one["by"], one["reason"]] for one in told[1]["holds"]] == [
        ["case-17", "ann@desk", "another dispute"], ["audit", "ann@desk", "a dispute"]
    ]  # fmt: skip
    assert told[0]["holds"] == []
    assert hold(place, present=False, check=True)["snapshots"] == [first]  # wherever it stands
    assert hold(place, present=False)["snapshots"] == [first] and not hold(place, present=False)["changed"]
    assert sweep(place)["removed"] == []
    hold(place, [first], present=False, label="audit")
    assert sweep(place)["removed"] == [first]


def test_all_of_an_incident(place: Place) -> None:
    place.fill("n", many(50))
    evidence = place.snapshot("forensic", incident="inc-1")["snapshot"]
    place.snapshot()
    assert hold(place, of_incident="inc-1")["snapshots"] == [evidence]
    assert sweep(place, 1000)["removed"] == []
    with pytest.raises(errors.SnapshotUnusable, match="inc-2"):
        hold(place, of_incident="inc-2")


def test_what_cannot_be_meant(place: Place) -> None:
    first, _second = two(place)
    for more in ({"label": "a/b"}, {"label": ""}, {"reason": ""}, {"snapshots": ["../x"]}, {"snapshots": []}):
        with pytest.raises(errors.InvalidInput):
            hold(place, **{"snapshots": [first], **more})
    nobody = "20200101T000000Z-00000000"
    for act in (hold, undelete):
        with pytest.raises(errors.SnapshotUnusable, match=nobody):
            act(place, [nobody])
    assert sweep(place)["removed"] == [first]


def test_a_hold_that_was_changed_still_holds(place: Place) -> None:
    first, _second = two(place)
    hold(place, [first])
    hold(place, [first], present=False)
    held, lifted = sorted(path for name, path in place.objects(first).items() if name.startswith("checks/"))
    text = lifted.read_bytes()
    lifted.write_bytes(text.replace(b"case-17", b"case-18"))
    assert "held: case-17" in str(sweep(place)["kept"])
    lifted.write_bytes(text)
    held.write_bytes(held.read_bytes()[:-9])
    (found,) = sweep(place)["kept"][1:]
    assert found["reason"] == f"held: {held.stem}"
    hold(place, [first], present=False, label=held.stem)
    assert sweep(place)["removed"] == [first]


def test_what_was_removed_comes_back_with_its_base_and_stays(place: Place) -> None:
    place.fill("n", many(2000))
    base = place.snapshot()["snapshot"]
    user = place.snapshot()["snapshot"]
    place.fill("n", many(5))
    last = place.snapshot(base=None)["snapshot"]
    assert sweep(place)["removed"] == [user] and sweep(place, 0.1)["removed"] == [base]
    assert [one for one, _at in holds.marked(place.open(), NAME)] == [base, user]
    assert set(undelete(place, [user], check=True)["snapshots"]) == {user} and alive(place) == [last]
    assert undelete(place, [user]) == {"changed": True, "snapshots": [base, user], "uncovered": [], "waiting": []}
    assert not undelete(place)["changed"] and not undelete(place, [user])["changed"]
    result = verify.verify(
        repository=place.repository, keyring=place.keyring, name=NAME, snapshot_id=user, depth="opened"
    )
    assert result["verdict"] == "pass"
    kept = {one["snapshot"]: one["reason"] for one in sweep(place, 1000)["kept"]}
    assert kept[user] == "held: undeleted" and kept[base] == "others refer to it"
    hold(place, present=False, label="undeleted")
    assert sweep(place)["removed"] == [user] and undelete(place)["snapshots"] == [user]


def test_a_removal_that_has_begun_is_not_taken_back(place: Place) -> None:
    first, second = two(place)
    assert sweep(place)["removed"] == [first]
    place.objects(first)["packs/000000.pack"].unlink()
    for act in (hold, undelete):
        with pytest.raises(errors.SnapshotUnusable, match="its removal has begun"):
            act(place, [first])
    result = sweep(place, 2)  # the hold stands now, and what is left of it is told
    assert alive(place) == [second] and "its removal has begun" in result["warnings"][0]


def test_a_hold_that_comes_while_it_goes_wins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two(place)
    put_aside = retention.put_aside

    def late(objects: ObjectStore, name: str, snapshot_id: str, moment: float) -> None:
        hold(place, [snapshot_id])  # looks for the manifest, which is there still
        put_aside(objects, name, snapshot_id, moment)

    with monkeypatch.context() as patch:
        patch.setattr(retention, "put_aside", late)
        assert sweep(place)["removed"] == []
    assert alive(place) == [second, first]


@pytest.mark.parametrize("late", [False, True])
def test_killed_at_every_call_the_same_command_goes_on(place: Place, late: bool) -> None:
    first, second = two(place)

    def run(work: t.Callable[[Repository], t.Any]) -> None:
        """In processes that are killed at their first call, their second …, until one reaches the end."""
        number = 0
        while True:
            number += 1
            pid = os.fork()
            if pid == 0:
                faults = Faults(number, late, deadly=True)
                try:
                    work(faulty(place.root, faults))
                finally:
                    os._exit(0 if faults.calls < number else 1)
            status = os.waitpid(pid, 0)[1]
            assert second in alive(place)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                return
            assert os.WTERMSIG(status) == signal.SIGKILL

    def retain(days: float) -> t.Callable[[Repository], t.Any]:
        return lambda repository: retention.apply(
            repository=repository, keyring=place.keyring, name=NAME, keep_last=1, keep_within=0,
            now=time.time() + days * DAY,
        )  # fmt: skip

    run(retain(0))
    assert alive(place) == [second]
    run(lambda repository: undelete(place, [first], repository=repository))
    assert alive(place) == [second, first] and verify_opens(place, first)
    run(retain(9))
    assert alive(place) == [second, first]
    run(lambda repository: hold(place, present=False, label="undeleted", repository=repository))
    run(retain(0))
    run(lambda repository: hold(place, [first], repository=repository))
    assert alive(place) == [second, first] and verify_opens(place, first)
    run(lambda repository: hold(place, present=False, repository=repository))
    run(retain(0))
    run(retain(9))
    assert alive(place) == [second] and os.listdir(place.root / "snapshots" / NAME) == [second]


def verify_opens(place: Place, snapshot: str) -> bool:
    result = verify.verify(
        repository=place.repository, keyring=place.keyring, name=NAME, snapshot_id=snapshot, depth="opened"
    )
    return bool(result["verdict"] == "pass")
