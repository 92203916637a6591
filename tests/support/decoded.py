# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the independent decoder says of a snapshot; it shares no code with the collection."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import pathlib
import tempfile
import time
import types
import typing as t
import urllib.parse

from demo.check import download

DECODER = pathlib.Path(__file__).parents[1] / "decoder" / "decode_snapshot.py"
Values = t.Dict[str, t.Dict[str, t.Any]]  # namespace -> key -> what an application has to get of it


def decoder() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("decode_snapshot", DECODER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decoded(
    repository: t.Mapping[str, t.Any], name: str, key_file: str, snapshot: str | None = None, live: str | None = None
) -> tuple[dict[str, t.Any], Values]:
    """Its report, and the values that are neither deleted nor expired; bytes as base64. ``live``: a SQLite store."""
    lines = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        report = decoder().read(_as_folder(repository, folder), name, key_file, snapshot, live, lines)
    values: Values = {namespace: {} for namespace in report["namespaces"]}
    now = time.time_ns() // 1000
    for one in map(json.loads, lines.getvalue().splitlines()):
        alive = one["expires"] is None or one["expires"] > now
        if alive and one["value"] is not None and not one["key"].startswith("\0memops/"):
            values[one["namespace"]][one["key"]] = one["value"]
    return report, values


def _as_folder(repository: t.Mapping[str, t.Any], folder: str) -> str:
    url = urllib.parse.urlsplit(repository["url"])
    if url.scheme == "file":
        return url.path
    download(repository, folder)
    return folder


def agreed(
    reports: pathlib.Path, memory: t.Any, repository: t.Mapping[str, t.Any], key_file: str, live: str
) -> None:
    """The baseline of the newest rebuild that passed holds what its manifest and the store say, what applications get
    of ``memory`` and nothing else, and nothing of what the report calls lost without an older copy."""
    namespace, passed = "agent-7", []
    for path in reports.glob("*/report.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        baseline = (report.get("snapshots") or {}).get("baseline")
        if report["namespace"] == namespace and baseline:
            passed.append((path.stat().st_mtime_ns, path, report))
    assert passed, "no rebuild took a baseline"
    _at, path, report = max(passed)
    said, values = decoded(repository, report["cluster"], key_file, report["snapshots"]["baseline"], live)
    found, there = said["namespaces"][namespace], values[namespace]
    assert said["agrees"], said
    assert (found["damaged"], found["unopenable"], found["log_damaged"]) == (0, 0, 0), found
    assert there == plain(memory.read_many(namespace, list(memory.list_keys(namespace))))
    lost = []
    if report["records"]["lost"]:
        lost = [json.loads(line) for line in path.with_name("lost_keys.jsonl").read_text().splitlines()]
    assert len(lost) == report["records"]["lost"]
    assert not [line["key"] for line in lost if line["older_copy"] is None and line["key"] in there]


def plain(served: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Values as the decoder prints them."""
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else json.loads(json.dumps(value))
        for key, value in served.items()
    }
