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

from .conftest import NAME, Place
from .test_snapshot import damage, many


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
