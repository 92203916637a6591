# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A keyring file moves to another master key while applications have it open."""

from __future__ import annotations

import errno
import json
import os
import pathlib

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _keyring_file
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    InvalidInput,
    KeyUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.master_key import rewrap_keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.preflight import preflight
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.rotate import rotate
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.stores import keyring_params, new_store


class Ring:
    """A keyring with three record keys; ``old``, ``new`` and ``third`` name its file and a master key each."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.old = keyring_params(folder)
        self.new, self.third = ({**keyring_params(folder, name), "path": self.old["path"]} for name in ("new", "third"))
        ring = Keyring.open(self.old, create=True)
        for _turn in range(2):
            ring.activate(ring.create_key())
        self.path = pathlib.Path(self.old["path"])

    def move(self, to=None, **more):
        return rewrap_keyring(self.old, self.new if to is None else to, **more)

    def opened(self, params):
        ring = Keyring.open(params)
        return {key: ring.unwrap(wrapped, key) for key, wrapped in ring.export_wrapped().items()}


@pytest.fixture
def ring(tmp_path):
    return Ring(tmp_path)


def test_first_both_then_the_new_one_alone_and_each_twice(ring):
    secrets = ring.opened(ring.old)
    before = ring.path.read_bytes()
    assert ring.move(check=True)["changed"] and ring.move(retire=True, check=True)["changed"]
    assert ring.path.read_bytes() == before
    done = ring.move()
    assert done["changed"] and done["record_keys"] == 3 and len(done["masters"]["after"]) == 2
    assert ring.opened(ring.new) == ring.opened(ring.old) == secrets
    assert not ring.move()["changed"]
    assert not rewrap_keyring(ring.new, ring.new)["changed"], "an inventory that names the new one already"
    assert os.stat(ring.path).st_mode & 0o777 == 0o600
    assert ring.move(retire=True)["masters"]["after"] == [done["master"]]
    assert ring.opened(ring.new) == secrets
    assert not ring.move(retire=True)["changed"] and not rewrap_keyring(ring.new, None, retire=True)["changed"]
    assert not ring.move()["changed"], "after its end, with the former master key still named"
    with pytest.raises(KeyUnavailable, match="wrapped by the master key"):
        Keyring.open(ring.old)


def test_applications_go_on(tmp_path, ring):
    store = new_store(tmp_path)
    with Memory(store=store, keyring=ring.old) as held:
        held.write("a", "one", 1, "test")
        ring.move()
        held.write("a", "two", 2, "test")
        with Memory(store=store, keyring=ring.new) as later:
            assert [later.read("a", key) for key in ("one", "two")] == [1, 2]
            later.write("a", "three", 3, "test")
            assert held.read("a", "three") == 3
            ring.move(retire=True)
            assert held.read("a", "one") == 1, "what it has unwrapped it reads until it ends"
            with pytest.raises(KeyUnavailable, match="Next: point memory_keyring"):
                held.write("a", "four", 4, "test")
            later.write("a", "four", 4, "test")
            assert later.read("a", "four") == 4


def test_no_record_key_is_made_that_one_master_key_alone_would_open(ring):
    ring.move()
    before = ring.path.read_bytes()
    for params in (ring.old, ring.new):
        with pytest.raises(CannotProceed, match=r"Next: run memops\.agent_memory.rotate_master_key with memory_retire"):
            Keyring.open(params).create_key()
    assert ring.path.read_bytes() == before
    ring.move(retire=True)
    made = Keyring.open(ring.new)
    assert made.activate(made.create_key())


def test_a_rotation_says_so_before_it_begins_and_so_do_its_check_and_the_preflight(tmp_path, ring):
    store = new_store(tmp_path)
    with Memory(store=store, keyring=ring.old) as memory:
        memory.write("a", "one", 1, "test")
    ring.move()
    place = Repository.open({"url": f"file://{tmp_path}/repository"}, create=True)
    for check in (True, False):
        with pytest.raises(CannotProceed, match="no record key is made before one of them is given up"):
            rotate(store_params=store, keyring=ring.new, force=True, check=check)
    opened = open_store(store)
    try:
        assert opened.incidents("a") == []
        told = preflight(
            store=opened, store_params=store, namespace="a", run=Run("test:1:1", "the test"), name="memory",
            open_keyring=lambda: Keyring.open(ring.new), open_repository=lambda: place, strategy="rotate",
        )["warnings"]  # fmt: skip
    finally:
        opened.close()
    assert any("repaired and not rotated: The keyring" in line for line in told)
    ring.move(retire=True)
    assert rotate(store_params=store, keyring=ring.new, force=True, check=True)["records"]["remaining"] == 1


def test_keys_that_one_side_adopted_meanwhile_are_wrapped_by_the_same_command(tmp_path, ring):
    ring.move()
    for name, params in (("a", ring.old), ("b", ring.new)):
        other = Keyring.open({**params, "path": str(tmp_path / f"{name}.json")}, create=True)
        assert Keyring.open(params).adopt(other.export_wrapped()) == other.ids()
    done = ring.move()
    assert done["changed"] and done["record_keys"] == 5
    assert ring.opened(ring.old) == ring.opened(ring.new)
    assert len(ring.opened(ring.new)) == 5


def test_a_restore_brings_a_key_that_only_the_other_master_key_opened(tmp_path, ring):
    """A snapshot under the new master key has the key; the keyring has it wrapped by the old one alone."""
    snapshot = _under(ring.new, ring.opened(ring.old))
    ring.move()
    body = json.loads(ring.path.read_text())
    lost = next(iter(body["keys"]))
    del body["keys"][lost]["also"]
    ring.path.write_text(json.dumps(body))
    ring.path.chmod(0o600)
    reader = Keyring.open(ring.new)
    with pytest.raises(KeyUnavailable):
        reader.cipher(lost)
    assert reader.borrow(snapshot) == [lost]
    assert Keyring.open(ring.new).adopt(snapshot) == [lost]
    assert Keyring.open(ring.new).cipher(lost) and Keyring.open(ring.old).cipher(lost)


def _under(params, secrets):
    master = Keyring.open({**params, "path": None})
    return {key: master.wrap(secret, key) for key, secret in secrets.items()}


def test_wrong_and_missing_master_keys(ring):
    before = ring.path.read_bytes()
    with pytest.raises(InvalidInput, match="No new master key is named"):
        rewrap_keyring(ring.old, None)
    with pytest.raises(InvalidInput, match="has the same id as that of the keyring"):
        ring.move(ring.old)
    with pytest.raises(KeyUnavailable, match="There is no master key file /nowhere"):
        ring.move({"master_key_file": "/nowhere"})
    for old in (ring.third, {**ring.old, "master_key_file": "/nowhere"}):
        with pytest.raises(KeyUnavailable, match="is wrapped by the master key"):
            rewrap_keyring(old, ring.new)
        with pytest.raises(KeyUnavailable, match="is wrapped by the master key"):
            rewrap_keyring(old, ring.new, retire=True)
    assert ring.path.read_bytes() == before
    ring.move()
    pathlib.Path(ring.old["master_key_file"]).unlink()
    assert not ring.move()["changed"] and ring.move(retire=True)["changed"], "the former one is not needed any more"


def test_a_record_key_that_opens_with_neither_is_listed_and_kept(ring):
    body = json.loads(ring.path.read_text())
    name = next(iter(body["keys"]))
    body["keys"][name]["wrapped"]["data"] = body["keys"][body["active"]]["wrapped"]["data"]
    ring.path.write_text(json.dumps(body))
    found = ring.move()
    assert (found["verdict"], found["unopened"]) == ("could-not-verify", [name])
    assert len(Keyring.open(ring.new).ids()) == 3
    both = ring.path.read_bytes()
    with pytest.raises(CannotProceed, match=name):
        ring.move(retire=True)
    assert ring.path.read_bytes() == both
    assert ring.move(retire=True, force=True)["verdict"] == "pass"
    kept = json.loads(ring.path.read_text())
    assert kept["keys"][name]["wrapped"] == body["keys"][name]["wrapped"]
    assert kept["master"] == found["master"] and len(kept["keys"]) == 3


@pytest.mark.parametrize("retire", [False, True])
def test_a_disk_without_room_leaves_the_file_as_it_was(ring, monkeypatch, retire):
    before = ring.path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyUnavailable, match="No space left"):
        ring.move(retire=retire)
    assert ring.path.read_bytes() == before


@pytest.mark.parametrize("retire", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_killed_around_the_replacement_the_same_command_finishes(ring, monkeypatch, retire, after):
    secrets = ring.opened(ring.old)
    genuine = _keyring_file.replace_file

    def killed(path, data, **options):
        if after:
            genuine(path, data, **options)
        os.kill(os.getpid(), 9)

    child = os.fork()
    if not child:
        monkeypatch.setattr(_keyring_file, "replace_file", killed)
        ring.move(retire=retire)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    assert ring.move(retire=retire)["changed"] is not after
    assert ring.opened(ring.new) == secrets
