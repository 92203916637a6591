# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyring file: wrapped, bound, durable, shared by processes, and silent about secrets."""
from __future__ import annotations

import base64
import json
import multiprocessing
import os
import pathlib
import traceback

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _keyring, _keyring_file
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    KeyUnavailable,
    RecordCorrupt,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring

MASTER = bytes(range(32))


def master_file(folder, key=MASTER, name="master.key", mode=0o600):
    path = folder / name
    path.write_text(base64.b64encode(key).decode() + "\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture
def params(tmp_path):
    return {"path": str(tmp_path / "keyring.json"), "master_key_file": master_file(tmp_path)}


@pytest.fixture
def ring(params):
    return Keyring.open(params, create=True)


def test_a_new_keyring_has_one_active_key_and_is_private(ring, params):
    assert ring.ids() == [ring.active_id]
    assert os.stat(params["path"]).st_mode & 0o777 == 0o600
    again = Keyring.open(params)
    sealed = ring.seal(b"memory", b"head", ring.active_id)
    assert again.open_payload(sealed, b"head", again.active_id) == b"memory"


def test_opening_without_create_writes_nothing(tmp_path, params):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(KeyUnavailable, match="There is no keyring file"):
        Keyring.open(params)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20])
def test_payloads_open_only_whole_unchanged_and_for_their_head(ring, size):
    plain, key_id = os.urandom(size), ring.active_id
    sealed = ring.seal(plain, b"head", key_id)
    assert len(sealed) == size + _keyring.OVERHEAD
    assert ring.open_payload(sealed, b"head", key_id) == plain
    flipped = bytearray(sealed)
    flipped[len(sealed) // 2] ^= 1
    other = ring.create_key()
    for payload, head, name in [
        (bytes(flipped), b"head", key_id),
        (sealed[:-1], b"head", key_id),
        (sealed[:5], b"head", key_id),
        (b"", b"head", key_id),
        (sealed, b"other head", key_id),
        (sealed, b"head", other),
    ]:
        with pytest.raises(RecordCorrupt):
            ring.open_payload(payload, head, name)


def test_the_same_text_never_looks_the_same(ring):
    assert len({ring.seal(b"same", b"", ring.active_id) for _turn in range(100)}) == 100


def test_create_activate_retire(ring, params):
    first, second = ring.active_id, ring.create_key()
    assert ring.active_id == first
    with pytest.raises(InvalidInput, match="active"):
        ring.retire(first)
    assert (ring.activate(second), ring.activate(second)) == (True, False)
    assert (ring.retire(first), ring.retire(first)) == (True, False)
    again = Keyring.open(params)
    assert again.active_id == second
    assert again.retired() == [first]
    assert again.open_payload(ring.seal(b"x", b"", first), b"", first) == b"x"  # retired keys still open
    with pytest.raises(KeyUnavailable):
        ring.activate("k-of-nobody")


def test_changes_of_another_process_are_seen(ring, params):
    other = Keyring.open(params)
    made = other.create_key()
    other.activate(made)
    assert ring.active_id == made
    assert ring.open_payload(other.seal(b"x", b"", made), b"", made) == b"x"


def _make_keys(params, count):
    ring = Keyring.open(params, create=True)
    for _turn in range(count):
        ring.create_key()


def test_processes_that_make_keys_at_once_lose_none(params):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_make_keys, args=(params, 10)) for _turn in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(Keyring.open(params).ids()) == 41  # one from the creation, whoever was first


def test_a_crash_before_the_rename_leaves_the_old_file(ring, params, monkeypatch):
    before = pathlib.Path(params["path"]).read_bytes()

    def crash(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyUnavailable, match="No space left"):
        ring.create_key()
    monkeypatch.undo()
    assert pathlib.Path(params["path"]).read_bytes() == before
    assert not [name for name in os.listdir(os.path.dirname(params["path"])) if name.startswith(".")]


def test_a_key_that_does_not_come_back_from_the_disk_is_not_handed_out(ring, monkeypatch):
    genuine = _keyring_file.replace_file

    def lose_newest(path, data, **options):
        body = json.loads(data)
        body["keys"] = {body["active"]: body["keys"][body["active"]]}
        genuine(path, json.dumps(body).encode(), **options)

    monkeypatch.setattr(_keyring_file, "replace_file", lose_newest)
    with pytest.raises(KeyUnavailable, match="did not come back"):
        ring.create_key()


def test_wrong_master_key_names_both(ring, params, tmp_path):
    other = {**params, "master_key_file": master_file(tmp_path, b"\7" * 32, "other.key")}
    with pytest.raises(KeyUnavailable) as caught:
        Keyring.open(other)
    assert ring.master_id in str(caught.value)
    assert Keyring.open({"master_key_file": other["master_key_file"]}).master_id in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 9999),
        b'{"format": 1}',
        b'{"format": 1, "master": 1, "active": 2, "keys": 3}',
    ],
)
def test_damaged_file(ring, params, text):
    with open(params["path"], "wb") as file:
        file.write(text)
    with pytest.raises(KeyUnavailable, match="damaged"):
        Keyring.open(params)


def test_newer_format_is_refused(ring, params):
    body = json.loads(pathlib.Path(params["path"]).read_text())
    body["format"] = 2
    pathlib.Path(params["path"]).write_text(json.dumps(body))
    with pytest.raises(KeyUnavailable, match="format 2"):
        Keyring.open(params)


def test_unknown_key_id(ring):
    with pytest.raises(KeyUnavailable, match="'k1'"):
        ring.cipher("k1")


def test_swapped_and_changed_wraps_do_not_open(ring, params):
    ring.create_key()
    body = json.loads(pathlib.Path(params["path"]).read_text())
    one, two = body["keys"]
    first, second = body["keys"].values()
    first["wrapped"], second["wrapped"] = second["wrapped"], first["wrapped"]
    pathlib.Path(params["path"]).write_text(json.dumps(body))
    with pytest.raises(KeyUnavailable, match="really that of"):
        Keyring.open(params).cipher(one)
    for entry, name in ((body["keys"][one], one), (body["keys"][two], two)):
        entry["wrapped"]["name"] = name  # the label follows, the binding does not
    pathlib.Path(params["path"]).write_text(json.dumps(body))
    with pytest.raises(KeyUnavailable, match="does not open"):
        Keyring.open(params).cipher(one)


def test_export_adopt_borrow(ring, params, tmp_path):
    ring.create_key()
    exported = json.loads(json.dumps(ring.export_wrapped()))
    fresh = Keyring.open({**params, "path": str(tmp_path / "fresh.json")}, create=True)
    file = (tmp_path / "fresh.json").read_bytes()
    assert sorted(fresh.borrow(exported)) == sorted(exported)
    assert (tmp_path / "fresh.json").read_bytes() == file
    assert fresh.open_payload(ring.seal(b"x", b"", ring.active_id), b"", ring.active_id) == b"x"
    again = Keyring.open({**params, "path": str(tmp_path / "fresh.json")})
    assert sorted(again.adopt(exported)) == sorted(exported)
    assert again.adopt(exported) == []
    assert set(exported) < set(Keyring.open({**params, "path": str(tmp_path / "fresh.json")}).ids())
    bare = Keyring.open({"master_key_file": params["master_key_file"]})  # a bare machine: the master key alone
    bare.adopt(exported)
    assert bare.open_payload(ring.seal(b"x", b"", ring.active_id), b"", ring.active_id) == b"x"


def test_adopting_a_foreign_key_changes_nothing(ring, params, tmp_path):
    master = master_file(tmp_path, b"\7" * 32, "other.key")
    other = Keyring.open({"path": str(tmp_path / "o.json"), "master_key_file": master}, create=True)
    before = ring.ids()
    with pytest.raises(KeyUnavailable, match="wrapped by the master key"):
        ring.adopt(other.export_wrapped())
    assert Keyring.open(params).ids() == before


@pytest.mark.parametrize("wrapped", [{}, {"master": 1}, {"master": "x", "name": "y", "data": None}])
def test_nonsense_is_not_a_wrapped_key(ring, wrapped):
    with pytest.raises(KeyUnavailable):
        ring.unwrap(wrapped)


def test_wrap_binds_the_name(ring):
    wrapped = ring.wrap(b"secret", "snapshot 1")
    assert ring.unwrap(json.loads(json.dumps(wrapped)), "snapshot 1") == b"secret"
    with pytest.raises(KeyUnavailable):
        ring.unwrap(wrapped, "snapshot 2")
    with pytest.raises(KeyUnavailable):
        ring.unwrap({**wrapped, "name": "snapshot 2"}, "snapshot 2")


def test_no_secret_in_repr_file_or_errors(ring, params, tmp_path):
    secret = b"\x01" * 32
    wrapped = ring.wrap(secret, "s")
    texts = [repr(ring), str(vars(ring).keys()), pathlib.Path(params["path"]).read_text(), json.dumps(wrapped)]
    other = {**params, "master_key_file": master_file(tmp_path, b"\7" * 32, "other.key")}
    cut = {**wrapped, "data": "AAAA"}
    for act in (lambda: Keyring.open(other), lambda: ring.unwrap(cut), lambda: ring.cipher("no")):
        with pytest.raises(KeyUnavailable) as caught:
            act()
        texts.append("".join(traceback.format_exception(caught.value)))
    for key in (MASTER, b"\7" * 32, secret):
        for form in (key.hex(), base64.b64encode(key).decode(), repr(key)):
            assert not [text for text in texts if form in text]
    with pytest.raises(TypeError):
        ring.__reduce__()
