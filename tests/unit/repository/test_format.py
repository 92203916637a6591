# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The format stays: golden snapshots are always read, and an independent decoder agrees with the collection."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import msgpack
import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec, decode_value, log_checksum
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import verify
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.stores import keyring_params

from .conftest import NAME, Place, damage, many

TESTS = Path(__file__).resolve().parents[2]


def decode(repository: Path, name: str, key: str, *more: str) -> tuple[int, dict[str, t.Any]]:
    command = [sys.executable, str(TESTS / "decoder" / "decode_snapshot.py"), str(repository), name, key, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env={"PATH": ""})
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


@pytest.fixture(params=[1, 2])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Keyring, dict[str, t.Any]]:
    """A copy: checks are appended, and a checkout opens key files to everybody."""
    copy = Path(shutil.copytree(TESTS / "golden" / f"format_{request.param}", tmp_path / "golden"))
    (copy / "master.key").chmod(0o600)
    keyring = Keyring.open({"source": "file", "master_key_file": str(copy / "master.key")})
    return copy, keyring, json.loads((copy / "expected.json").read_text(encoding="ascii"))


def test_golden_snapshots_are_read(golden: tuple[Path, Keyring, dict[str, t.Any]]) -> None:
    copy, keyring, expected = golden
    repository = Repository.open({"url": f"file://{copy}/repository"})
    assert [info.id for info in repository.snapshots("golden", keyring)][::-1] == [
        one["snapshot"] for one in expected["snapshots"]
    ]
    for one in expected["snapshots"]:
        for depth in ("hashed", "opened"):
            result = verify.verify(
                repository=repository, keyring=keyring, name="golden", snapshot_id=one["snapshot"], depth=depth
            )
            assert (result["verdict"], result["problems"]) == ("pass", [])
        found = repository.snapshot("golden", one["snapshot"], keyring)
        assert found.manifest["namespaces"] == one["namespaces"]
        assert next(iter(found.manifest["references"]), None) == one["base"]
    first = repository.snapshot("golden", expected["snapshots"][0]["snapshot"], keyring)
    keyring.adopt(first.wrapped_keys())
    values = expected["values"]["agent-7"]
    codec = RecordCodec("agent-7")
    for key, row in first.get_many("agent-7", list(values)).items():
        assert decode_value(keyring.open_payload(row[8], codec.head(row), row[7])) == values.pop(key)
    assert values == {}
    log = [entry for entries in first.log("agent-7") for entry in entries]
    assert {entry.key for entry in log} >= set(expected["values"]["agent-7"])
    assert all(log_checksum(entry) == entry.checksum for entry in log)
    kinds = [type(msgpack.unpackb(plain)) for _chunk, plain in first.plain(first.chunks("agent-7", "log"))]
    assert (dict in kinds) == (first.manifest["format"] == 2)
    assert repository.read_journal("inc-1", keyring) == [b"first entry", b"second entry"]


def test_the_decoder_reads_the_golden_snapshots(golden: tuple[Path, Keyring, dict[str, t.Any]]) -> None:
    copy, _keyring, expected = golden
    for one in expected["snapshots"]:
        status, report = decode(
            copy / "repository", "golden", str(copy / "master.key"), "--snapshot", one["snapshot"],
            "--jsonl", str(copy / "out.jsonl"),
        )  # fmt: skip
        assert status == 0, report
        assert [found["log_damaged"] for found in report["namespaces"].values()] == [0, 0]
        assert {name: found["damaged"] for name, found in report["namespaces"].items()} == one["damaged"]
        lines = [json.loads(line) for line in (copy / "out.jsonl").read_text(encoding="ascii").splitlines()]
        values = {line["key"]: line["value"] for line in lines if line["namespace"] == "agent-7"}
        assert values["user/003"] == expected["values"]["agent-7"]["user/003"]


def test_the_decoder_agrees_with_the_store_and_sees_what_differs(place: Place) -> None:
    place.fill("n", {**many(3000), "odd\n\0": {"é": 1}})
    place.fill("m", {"k": "v"})
    place.fill("m", {"k": None})
    place.snapshot()
    place.fill("n", {"key/0000500": b"edited"})
    second = place.snapshot()
    assert second["base"]
    key = keyring_params(place.directory)["master_key_file"]
    arguments = ["--snapshot", second["snapshot"], "--store", place.store["path"]]
    status, report = decode(place.root, NAME, key, *arguments)
    assert status == 0, report
    assert report["namespaces"]["n"]["digest"] == second["namespaces"]["n"]["digest"]
    damage(place, "DELETE FROM memory_records WHERE key = 'key/0000001'")
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'key/0000002'")
    place.fill("n", {"zz": 1})
    status, report = decode(place.root, NAME, key, *arguments)
    assert status == 1
    assert sorted(report["namespaces"]["n"]["differing"]) == ["key/0000001", "key/0000002", "zz"]


def test_the_decoder_counts_damage_as_the_manifest_does(place: Place) -> None:
    place.fill("n", many(50))
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'key/0000001'")
    damage(place, "UPDATE memory_records SET created = 'never', checksum = 5.5 WHERE key = 'key/0000002'")
    taken = place.snapshot("forensic", incident="inc-1")
    status, report = decode(place.root, NAME, keyring_params(place.directory)["master_key_file"])
    assert status == 0, report
    assert report["namespaces"]["n"]["damaged"] == taken["damaged"]["n"] == 2
    assert report["namespaces"]["n"]["digest"] == taken["namespaces"]["n"]["digest"]


def test_the_decoder_shares_no_code() -> None:
    text = (TESTS / "decoder" / "decode_snapshot.py").read_text(encoding="utf-8")
    assert "ansible_collections" not in text and "module_utils" not in text
