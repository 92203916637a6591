# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A snapshot as JSON Lines: every record and the log, damaged and sealed ones too; the same again changes nothing."""
from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import export

from .conftest import NAME, Place, damage


def test_export(filled: Place, tmp_path: t.Any) -> None:
    place = filled
    place.fill("n", {"bytes": b"\0\xff", "text\n": "é"})
    damage(place, "UPDATE memory_records SET payload = x'00' WHERE key = 'k0009'")
    place.snapshot()
    result = export.export(
        repository=place.repository, keyring=place.keyring, name=NAME, directory=str(tmp_path / "out")
    )
    assert (result["records"], result["damaged"], result["unopenable"]) == (505, 1, 0)
    lines = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text(encoding="ascii").splitlines()]
    by_key = {line["key"]: line for line in lines if line["namespace"] == "n"}
    assert by_key["k0042"]["data"] == 42 and by_key["text\n"]["data"] == "é"
    assert by_key["bytes"]["data_base64"] == "AP8="
    assert by_key["k0007"]["deleted"] and "data" not in by_key["k0007"]
    assert by_key["k0009"]["status"] == "damaged" and by_key["k0009"]["payload_base64"] == "AA=="
    log = (tmp_path / "out" / "log.jsonl").read_text(encoding="ascii").splitlines()
    assert len(log) == result["log_entries"] == 506
    assert {os.stat(path).st_mode & 0o777 for path in result["files"]} == {0o600}

    def again(check: bool = False) -> t.Any:
        return export.export(
            repository=place.repository, keyring=place.keyring, name=NAME, directory=str(tmp_path / "out"), check=check
        )

    def there() -> t.Any:
        return {path: (os.stat(path).st_ino, pathlib.Path(path).read_bytes()) for path in result["files"]}

    before = there()
    assert result["changed"] and not again(check=True)["changed"] and not again()["changed"] and there() == before
    with open(result["files"][0], "a", encoding="ascii") as file:
        file.write("{}\n")
    longer = there()
    assert again(check=True)["changed"] and there() == longer != before
    assert again()["changed"] and [one[1] for one in there().values()] == [one[1] for one in before.values()]
    with pytest.raises(errors.SnapshotUnusable):
        export.export(repository=place.repository, keyring=place.keyring, name=NAME, directory=str(tmp_path / "no"),
                      snapshot_id="20260101T000000Z-00000000", check=True)  # fmt: skip
    assert not (tmp_path / "no").exists()
