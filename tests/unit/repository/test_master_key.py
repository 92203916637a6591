# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A repository moves to another master key: what is proven, and what is not."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, snapshot
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.master_key import (
    rewrap_keyring,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.stores import new_keyring, new_store, rows_of

from .conftest import NAME, many
from .master_key_help import Site

DECODER = Path(__file__).resolve().parents[2] / "decoder" / "decode_snapshot.py"


def test_all_is_opened_by_both_then_by_the_new_one_alone(site: Site) -> None:
    before = site.stored()
    told = site.move(check=True)
    assert (told["verdict"], told["changed"], told["wrapped"]) == ("pass", True, 4)
    assert site.stored() == before
    done = site.move()
    assert (done["snapshots"], done["journals"], done["wrapped"]) == (3, 1, 4)
    after = site.stored()
    assert {key: after[key] for key in before} == before, "what was there is never rewritten"
    assert site.opens(site.old) == site.opens(site.new) == set(site.ids)
    assert not site.move()["changed"] and site.stored() == after
    rewrap_keyring(site.old, site.new)
    rewrap_keyring(site.old, site.new, retire=True)
    assert site.move(retire=True, check=True)["retired"] == 3
    assert site.stored() == after
    assert site.move(retire=True)["retired"] == 3
    assert site.opens(site.new) == set(site.ids) and not site.opens(site.old)
    assert [len(site.keys(one)) for one in site.ids] == [1, 1, 1]
    assert not site.move(retire=True)["changed"]
    again = site.move(keyring=site.new, new_master=None, retire=True)
    assert (again["verdict"], again["changed"]) == ("pass", False)


def test_the_new_master_key_alone_restores_on_a_bare_machine(site: Site, tmp_path: Path) -> None:
    site.everything()
    bare = {**site.new, "path": str(tmp_path / "bare.json")}
    Path(site.old["master_key_file"]).unlink()
    Path(site.old["path"]).unlink()
    store = new_store(tmp_path, "bare.db")
    ring = Keyring.open(bare, create=True)
    for namespace in ("a", "b"):
        arguments: dict[str, t.Any] = {"store_params": store, "keyring": ring, "create": True, "namespace": namespace}
        restore.restore(repository=site.open(), name=NAME, snapshot_id=site.ids[1], **arguments)
        assert [row[0] for row in rows_of(store, namespace)] == [row[0] for row in rows_of(site.store, namespace)]
    command = [sys.executable, str(DECODER), str(site.root), NAME, site.new["master_key_file"]]
    command += ["--store", site.store["path"]]
    done = subprocess.run([*command, "--snapshot", site.ids[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_journal_is_read_and_continued(site: Site) -> None:
    entry = site.root / "incidents" / "inc-1" / "000000"
    before = entry.read_bytes()
    site.everything()
    assert entry.read_bytes() == before, "the next entry holds its hash"
    ring = Keyring.open(site.new)
    assert not site.open().put_journal("inc-1", 1, b"entry 1", ring), "it is there already"
    assert site.open().put_journal("inc-1", 2, b"entry 2", ring)
    assert site.open().read_journal("inc-1", ring) == [b"entry 0", b"entry 1", b"entry 2"]
    assert not site.move(retire=True)["changed"]
    third = site.move(keyring=site.new, new_master=site.third)
    assert (third["wrapped"], third["journals"]) == (4, 1)
    last = Keyring.open({**site.third, "path": None})
    assert len(site.open().read_journal("inc-1", last)) == 3
    (site.root / "incidents" / "inc-1" / "keys").rename(site.root / "elsewhere")
    with pytest.raises(errors.KeyUnavailable):
        site.open().read_journal("inc-1", ring)


def test_what_neither_opens_is_listed_and_keeps_the_former_master_key(site: Site, tmp_path: Path) -> None:
    stranger = new_keyring(tmp_path, "stranger")
    site.fill("c", many(3))
    strange = site.snapshot(keyring=stranger)["snapshot"]
    (damaged,) = site.keys(site.ids[0]).values()
    body = bytearray(damaged.read_bytes())
    body[len(body) // 2] ^= 1
    damaged.write_bytes(bytes(body))
    found = site.move()
    assert (found["verdict"], found["changed"]) == ("could-not-verify", True)
    unproven = sorted(one["what"] for one in found["unproven"])  # two ids of one second stand in any order
    assert unproven == sorted(f"Snapshot {n} of {NAME}" for n in (site.ids[0], strange))
    assert any(stranger.master_id in one for one in found["reasons"])
    assert site.opens(site.new) == set(site.ids[2:])  # the second refers to chunks of the first
    before = site.stored()
    refused = site.move(retire=True)
    assert (refused["verdict"], refused["changed"]) == ("could-not-verify", False)
    assert site.stored() == before
    forced = site.move(retire=True, force=True)
    assert forced["verdict"] == "pass" and strange in str(forced["warnings"])
    assert [len(site.keys(one)) for one in (*site.ids, strange)] == [1, 1, 1, 1]
    assert damaged.exists() and site.keys(strange) and not site.move(retire=True, force=True)["changed"]


def test_a_new_keys_object_that_rots_is_made_again(site: Site) -> None:
    site.move()
    names = set(site.keys(site.ids[0]))
    (new,) = names - {f"{Keyring.open(site.old).master_id}.json"}
    site.keys(site.ids[0])[new].write_bytes(b"rotten")
    done = site.move()
    assert (done["wrapped"], done["verdict"]) == (1, "pass")
    assert site.opens(site.new) == set(site.ids)
    # the old one is gone too: nothing can be made again, and nothing more is given up
    for path in site.keys(site.ids[1]).values():
        path.write_bytes(b"rotten")
    assert site.move(retire=True)["verdict"] == "could-not-verify"
    assert len(site.keys(site.ids[0])) == 2


def test_a_manifest_that_does_not_authenticate_is_no_proof(site: Site) -> None:
    manifest = site.root / "snapshots" / NAME / site.ids[2] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"suspect":false', b'"suspect":true '))
    found = site.move(retire=True)
    assert found["verdict"] == "could-not-verify" and "does not authenticate" in found["reasons"][0]
    assert found["retired"] == 0 and site.opens(site.old) == set(site.ids[:2])


def test_other_clusters_of_the_repository(site: Site, tmp_path: Path) -> None:
    """Under the same master key: wrapped too, given up by their own run. Under another: told, and left alone."""
    stranger, other = new_keyring(tmp_path, "stranger"), new_store(tmp_path, "other.db")
    arguments: dict[str, t.Any] = {"repository": site.repository, "store_params": other, "purpose": "scheduled"}
    same = snapshot.create(name="same", keyring=site.keyring, **arguments)["snapshot"]
    snapshot.create(name="strange", keyring=stranger, **arguments)
    site.open().put_journal("inc-strange", 0, b"theirs", stranger)
    done = site.move(retire=True)
    assert (done["verdict"], done["snapshots"], done["retired"]) == ("pass", 4, 3)
    assert done["others"] == ["inc-strange", "strange"] and "strange" in str(done["warnings"])
    assert len(list((site.root / "snapshots" / "same" / same / "keys").iterdir())) == 2


def test_a_forensic_snapshot_that_waits_in_the_spool_is_done_too(site: Site, tmp_path: Path) -> None:
    spool = str(tmp_path / "spool")
    assert site.move(spool=spool)["snapshots"] == 3, "there is none"
    assert not os.path.exists(spool)
    waiting = snapshot.create(
        repository={"url": "s3://nowhere/x", "endpoint_url": "http://127.0.0.1:9", "retries": 1}, keyring=site.keyring,
        store_params=site.store, name=NAME, purpose="forensic", namespaces=["a"], incident="inc-2", spool=spool,
    )  # fmt: skip
    assert waiting["spooled"]
    assert site.move(spool=spool)["snapshots"] == 4
    ring = Keyring.open({**site.new, "path": None})
    assert Repository.open({"url": f"file://{spool}"}).snapshot(NAME, waiting["snapshot"], ring)


def test_a_snapshot_under_way_when_its_master_key_is_given_up_is_not_published(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = snapshot.pack_index

    def meanwhile(*arguments: t.Any) -> bytes:
        site.everything()
        return genuine(*arguments)

    monkeypatch.setattr(snapshot, "pack_index", meanwhile)
    before = [info.id for info in site.open().snapshots(NAME)]
    site.fill("d", many(3))
    with pytest.raises(errors.KeyUnavailable, match="Next: point memory_keyring"):
        site.snapshot()
    assert [info.id for info in site.open().snapshots(NAME)] == before
    monkeypatch.undo()
    assert site.snapshot(keyring=Keyring.open(site.new))["changed"]


def test_backups_under_the_former_master_key_meanwhile_are_done_by_the_next_run(site: Site) -> None:
    rewrap_keyring(site.old, site.new)
    site.move()
    site.fill("d", many(3))
    late = site.snapshot()["snapshot"]  # incremental: refers to chunks of the first
    site.fill("e", many(3))
    site.ids += [late, site.snapshot(keyring=Keyring.open(site.new))["snapshot"]]
    found = site.move(keyring=site.new, new_master=None, retire=True)
    assert found["verdict"] == "could-not-verify" and late in found["reasons"][0] and not found["retired"]
    site.everything()
    assert site.opens(site.new) == set(site.ids)
