# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which snapshots are suspect, until somebody accepts them."""
from __future__ import annotations

import shutil
import types
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._modules import snapshot_accept
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import verify
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.snapshot_workers import Crew
from tests.support.stores import keyring_params

from .conftest import NAME, Place, damage, many


def test_suspect_until_accepted(place: Place) -> None:
    place.fill("n", many(200))
    first = place.snapshot()
    assert damage(place, "DELETE FROM memory_records WHERE key < 'key/0000080'") > 60
    second = place.snapshot()
    assert second["suspect"] and "dropped from" in second["reasons"][0]
    repository = place.open()
    assert repository.newest_good(NAME, place.keyring).id == first["snapshot"]
    assert repository.accept(NAME, second["snapshot"], place.keyring, "someone", "meant") is True
    assert repository.accept(NAME, second["snapshot"], place.keyring, "someone") is False
    assert repository.newest_good(NAME, place.keyring).id == second["snapshot"]
    again = place.snapshot(min_interval=3600)
    assert not again["changed"] and again["snapshot"] == second["snapshot"] and not again["suspect"]


def test_damage_in_what_was_never_saved_before_is_told(place: Place) -> None:
    """There is nothing to compare with, so it is good; later backups are compared with it."""
    place.fill("n", many(30))
    damage(place, "UPDATE memory_records SET payload = zeroblob(length(payload)) WHERE key = 'key/0000007'")
    first = place.snapshot()
    (said,) = first["warnings"]
    assert not first["suspect"] and said.startswith("1 of ") and "records of namespace 'n' is damaged" in said
    place.fill("n", {"one more": b"x"})
    second = place.snapshot()
    assert not second["suspect"] and not second["warnings"]
    place.fill("later", many(30))
    assert not place.snapshot()["warnings"], "whole, and new"


def test_suspect_when_rewritten_or_damaged(place: Place) -> None:
    items = many(300)
    place.fill("n", items)
    place.snapshot()
    place.fill("n", dict.fromkeys(items, b"garbage"))
    assert "were rewritten" in place.snapshot()["reasons"][0]
    place.open().accept(NAME, place.open().snapshots(NAME)[0].id, place.keyring, "someone")
    damage(place, "UPDATE memory_records SET payload = zeroblob(length(payload)) WHERE key = 'key/0000007'")
    result = place.snapshot()
    assert result["damaged"] == {"n": 1} and result["examples"] == {"n": ["key/0000007"]}
    assert result["suspect"] and "are damaged" in result["reasons"][0]


def test_suspect_when_no_key_opens_some_records(place: Place) -> None:
    """What a rotation leaves whose keyring is put back. The snapshots from before have the key: they must stay."""
    place.fill("n", many(100))
    first = place.snapshot()
    shutil.copy(f"{place.directory}/keyring.json", f"{place.directory}/former.json")
    old = place.keyring.active_id
    place.keyring.activate(place.keyring.create_key())
    place.fill("n", many(10, start=1000))
    place.fill("m", many(10))
    place.keyring = Keyring.open({**keyring_params(place.directory), "path": f"{place.directory}/former.json"})
    second = place.snapshot()
    assert second["suspect"] and place.keyring.active_id == old
    assert [reason.partition(" are under")[0] for reason in second["reasons"]] == [
        "records of namespace 'm'", "records of namespace 'n'",
    ]  # fmt: skip
    repository = place.open()
    assert repository.newest_good(NAME, place.keyring).id == first["snapshot"]
    repository.accept(NAME, second["snapshot"], place.keyring, "someone", "meant")
    place.fill("n", many(10, start=2000))
    assert not place.snapshot()["suspect"]  # what was accepted is not found again


def test_a_key_that_a_rotation_makes_meanwhile_is_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill("n", many(20))
    scan = Crew.scan

    def rotated(self: Crew, *args: t.Any, **more: t.Any) -> t.Any:
        place.keyring.activate(place.keyring.create_key())
        place.fill("n", many(5, start=1000))
        return scan(self, *args, **more)

    monkeypatch.setattr(Crew, "scan", rotated)
    result = place.snapshot()
    assert not result["suspect"]
    assert verify.verify(
        repository=place.repository, keyring=place.keyring, name=NAME, snapshot_id=result["snapshot"], depth="opened"
    )["verdict"] == "pass"


def test_growth_is_not_suspect(place: Place) -> None:
    place.fill("n", many(200))
    place.snapshot()
    place.fill("n", many(2000, start=1000))
    assert place.snapshot()["reasons"] == []


def test_the_placeholder_of_the_command_is_no_reason() -> None:
    for reason in (" ", "<why it is right>"):
        with pytest.raises(InvalidInput, match="needs a reason"):
            snapshot_accept.operate(types.SimpleNamespace(params={"reason": reason, "snapshot": "S"}))


def test_what_was_saved_of_one_namespace_hides_no_damage_of_another(place: Place) -> None:
    """After a rebuild the newest good snapshot is its baseline, and what came home from a secondary is of that one."""
    place.fill("n", many(200))
    place.fill("m", many(200))
    first = place.snapshot()
    assert not place.snapshot("failback", namespaces=["m"])["suspect"]
    assert not place.snapshot("baseline", namespaces=["n"])["suspect"]
    assert damage(place, "DELETE FROM memory_records WHERE generation = 2 AND key < 'key/0000080'") > 60
    second = place.snapshot()
    assert second["suspect"] and len(second["reasons"]) == 1 and "'m' dropped from" in second["reasons"][0]
    repository = place.open()
    assert repository.accept(NAME, second["snapshot"], place.keyring, "someone", "meant")
    place.snapshot("failback", namespaces=["n"])
    place.fill("m", many(3, start=1000))
    third = place.snapshot()  # what was accepted is not found again
    assert not third["suspect"] and first["snapshot"] != third["snapshot"]


def test_rewritten_records_are_counted_since_the_last_snapshot_of_their_own_namespace(place: Place) -> None:
    items = many(300)
    place.fill("n", items)
    place.fill("m", many(10))
    place.snapshot()
    place.fill("n", dict.fromkeys(items, b"garbage"))
    place.fill("m", many(10, start=50))
    assert not place.snapshot("baseline", namespaces=["m"])["suspect"]
    assert "records of namespace 'n' were rewritten" in place.snapshot()["reasons"][0]


def test_what_came_home_from_a_copy_that_lagged_is_not_what_the_home_is_compared_with(place: Place) -> None:
    items = many(200)
    some = "DELETE FROM memory_records WHERE key < 'key/0000080'"
    place.fill("n", items)
    place.snapshot()
    assert damage(place, some) > 60
    place.open().accept(NAME, place.snapshot()["snapshot"], place.keyring, "someone", "meant")
    place.fill("n", {key: value for key, value in items.items() if key < "key/0000080"})  # as the copy still has it
    place.snapshot("failback", namespaces=["n"])
    damage(place, some)
    assert not place.snapshot("baseline", namespaces=["n"])["suspect"]
